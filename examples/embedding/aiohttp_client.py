"""Drive the core's message level with aiohttp's WebSocket client, which does framing, pings and handshake."""

import asyncio
import contextlib

import aiohttp
from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientProtocol, Close, CloseMessage, Frame

CLOSE_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=5.0)


async def flush(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol) -> None:
    try:
        for message in session.messages_to_send():
            match message:
                case str():
                    await ws.send_str(message)
                case bytes():
                    await ws.send_bytes(message)
                case CloseMessage(code, reason):  # a close frame has room for 123 bytes
                    reason = reason.encode()[:123].decode(errors="ignore")
                    await ws.close(code=code, message=reason.encode())  # waits for the peer's answer
                    receive_end(ws, session)
    except (ConnectionError, aiohttp.ClientError):
        session.send_failed()


async def receive(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol) -> None:
    message = await ws.receive()
    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        session.receive_message(message.data)
    else:  # aiohttp has already answered the peer's close
        receive_end(ws, session, message.extra or "")


def receive_end(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol, reason: str = "") -> None:
    code = ws.close_code or 1006
    session.receive_lost() if code == 1006 else session.receive_close(code, reason)


async def converse(url: str, token: str) -> list[Frame]:
    frames, session, http = list[Frame](), ClientProtocol(), aiohttp.ClientSession()
    async with http, http.ws_connect(url, protocols=[token], heartbeat=20.0, timeout=CLOSE_TIMEOUT) as ws:
        while not frames or not isinstance(frames[-1], Close):
            while (event := session.next_event()) is NEED_DATA:
                await flush(ws, session)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(session.next_deadline()):
                        await receive(ws, session)
                session.handle_timeout(asyncio.get_running_loop().time())
            frames.append(event)
            respond(session, event)
        await flush(ws, session)
    return frames


if __name__ == "__main__":
    main(lambda url, token: asyncio.run(converse(url, token)))
