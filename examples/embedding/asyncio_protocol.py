"""Drive the core from an asyncio.Protocol, with callbacks only."""

import asyncio

from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, SpekoError, parse_url


class SpekoProtocol(asyncio.Protocol):
    def __init__(self, session: ClientConnection) -> None:
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.frames: list[Frame] = []
        self.ended: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.timer = self.loop.call_soon(self.pump)

    def data_received(self, data: bytes) -> None:
        self.session.receive_data(data)
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # also after an end of file
        self.session.send_failed() if exc else self.session.receive_eof()
        self.pump()

    def pump(self) -> None:
        """Take events, then write. Call it after every verb, which may also start a timer."""
        self.timer.cancel()
        self.session.handle_timeout(self.loop.time())
        try:
            while not self.ended.done() and (event := self.session.next_event()) is not NEED_DATA:
                self.frames.append(event)
                respond(self.session, event)
                if isinstance(event, Close):
                    self.ended.set_result(None)
        except SpekoError as error:
            self.ended.set_exception(error)
        if self.ended.done() or self.transport.get_write_buffer_size() <= 65_536:  # asyncio sets no limit
            self.transport.write(self.session.data_to_send())
        if self.ended.done():
            self.transport.close()
            self.timer = self.loop.call_later(5.0, self.transport.abort)  # if the peer does not read
        elif (deadline := self.session.next_deadline()) is not None:
            self.timer = self.loop.call_at(max(deadline, self.loop.time()), self.pump)

    resume_writing = pump


async def converse(url: str, token: str) -> list[Frame]:
    where, protocol = parse_url(url), SpekoProtocol(ClientConnection(url, token))
    await protocol.loop.create_connection(lambda: protocol, where.host, where.port, ssl=where.secure or None)
    await protocol.ended
    return protocol.frames


if __name__ == "__main__":
    main(lambda url, token: asyncio.run(converse(url, token)))
