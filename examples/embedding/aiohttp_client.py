"""The core's message level over aiohttp's client WebSocket: aiohttp frames, pings and shakes hands."""

import asyncio
import contextlib

import aiohttp
from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientProtocol, Close, Frame

CLOSE_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=5.0)


async def flush(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol) -> None:
    try:
        for message in session.messages_to_send():
            if isinstance(message, str):
                await ws.send_str(message)
            elif isinstance(message, bytes):
                await ws.send_bytes(message)
            else:
                reason = message.reason.encode()[:123].decode(errors="ignore")  # what a close frame holds
                await ws.close(code=message.code, message=reason.encode())  # waits for the peer's answer
                ended(ws, session)
    except (ConnectionError, aiohttp.ClientError):
        session.send_failed()


async def receive(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol) -> None:
    message = await ws.receive()
    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        session.receive_message(message.data)
    else:  # aiohttp has answered the peer's close
        ended(ws, session, message.extra or "")


def ended(ws: aiohttp.ClientWebSocketResponse, session: ClientProtocol, reason: str = "") -> None:
    code = ws.close_code or 1006
    session.receive_lost() if code == 1006 else session.receive_close(code, reason)


async def converse(url: str, token: str) -> list[Frame]:
    heard, session, event, clock = [], ClientProtocol(), None, asyncio.get_running_loop().time
    http = aiohttp.ClientSession()
    async with http, http.ws_connect(url, protocols=[token], heartbeat=20.0, timeout=CLOSE_TIMEOUT) as ws:
        while not isinstance(event, Close):
            while (event := session.next_event()) is NEED_DATA:
                await flush(ws, session)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(session.next_deadline()):
                        await receive(ws, session)
                session.handle_timeout(clock())
            heard.append(event)
            respond(session, event)
        await flush(ws, session)
    return heard


if __name__ == "__main__":
    main(lambda url, token: asyncio.run(converse(url, token)))
