"""The core in an asyncio.Protocol: callbacks only, neither task nor stream between socket and session."""

import asyncio
from collections.abc import Callable

from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, SpekoError
from speko_anyio.protocol.url import parse_url


class SpekoProtocol(asyncio.Protocol):
    def __init__(self, session: ClientConnection, on_frame: Callable[..., None]) -> None:
        self.session, self.on_frame, self.loop = session, on_frame, asyncio.get_running_loop()
        self.heard = list[Frame]()
        self.ended: asyncio.Future[list[Frame]] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.timer = transport, self.loop.call_soon(self.pump)

    def data_received(self, data: bytes) -> None:
        self.session.receive_data(data)
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # after an end of file, too
        self.session.send_failed() if exc else self.session.receive_eof()
        self.pump()

    def pump(self) -> None:  # after anything that may have changed the session, verbs from elsewhere too
        self.timer.cancel()
        try:
            self.session.handle_timeout(self.loop.time())
            while not self.ended.done() and (event := self.session.next_event()) is not NEED_DATA:
                self.heard.append(event)
                self.on_frame(self.session, event)
                if isinstance(event, Close):
                    self.ended.set_result(self.heard)
        except SpekoError as error:
            self.ended.set_exception(error)
        # What the peer does not read waits in the core's outbox, which is bounded, and not in asyncio's.
        if self.transport.get_write_buffer_size() <= 65_536 or self.ended.done():
            self.transport.write(self.session.data_to_send())
        if self.ended.done():
            self.transport.close()
            self.timer = self.loop.call_later(5.0, self.transport.abort)  # for the last bytes to leave
        elif (deadline := self.session.next_deadline()) is not None:
            self.timer = self.loop.call_at(max(deadline, self.loop.time()), self.pump)

    resume_writing = pump


async def converse(url: str, token: str) -> list[Frame]:
    where, protocol = parse_url(url), SpekoProtocol(ClientConnection(url, token), respond)
    await protocol.loop.create_connection(lambda: protocol, where.host, where.port, ssl=where.secure or None)
    return await protocol.ended


if __name__ == "__main__":
    main(lambda url, token: asyncio.run(converse(url, token)))
