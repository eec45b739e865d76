"""Drive the core's message level on a Starlette server. The ASGI server does framing, pings and handshake."""

import anyio
import uvicorn
from conversation import main, serve
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from speko_anyio.protocol import NEED_DATA, Close, Command, ServerProtocol, parse_url


async def flush(ws: WebSocket, session: ServerProtocol) -> None:
    try:
        for message in session.messages_to_send():
            if isinstance(message, str):
                await ws.send_text(message)
            elif isinstance(message, bytes):
                await ws.send_bytes(message)
            else:  # a close frame has room for 123 bytes of reason
                await ws.close(message.code, message.reason.encode()[:123].decode(errors="ignore"))
    except WebSocketDisconnect:
        session.send_failed()


def create_app(path: str, token: str, heard: list[Command]) -> Starlette:
    async def stream(ws: WebSocket) -> None:
        if ws.scope["subprotocols"] != [token]:  # a real server looks the token up
            await ws.close()  # before `accept`, this sends HTTP 403
            return
        await ws.accept(subprotocol=token)  # browsers require the answer
        session, event = ServerProtocol(ttl=1800.0), None
        session.send_ready()
        while not isinstance(event, Close):
            while (event := session.next_event()) is NEED_DATA:
                await flush(ws, session)
                due = session.next_deadline()
                with anyio.CancelScope(deadline=float("inf") if due is None else due):
                    match await ws.receive():
                        case {"text": str(message)} | {"bytes": bytes(message)}:
                            session.receive_message(message)
                        case {"code": code}:
                            session.receive_lost() if code == 1006 else session.receive_close(code)
                session.handle_timeout(anyio.current_time())
            heard.append(event)
            serve(session, event)
        await flush(ws, session)

    return Starlette(routes=[WebSocketRoute(path, stream)])


def host(url: str, token: str) -> list[Command]:
    where, heard = parse_url(url), list[Command]()
    uvicorn.run(create_app(where.target, token, heard), host=where.host, port=where.port)
    return heard


if __name__ == "__main__":
    main(host)
