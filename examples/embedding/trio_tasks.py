"""The core in raw trio, full duplex: one task listens, another speaks in real time over the same stream."""

import trio
from conversation import main, respond, utter

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame
from speko_anyio.protocol.url import parse_url


class TrioSession:
    def __init__(self, core: ClientConnection, stream: trio.abc.Stream) -> None:
        self.core, self.stream, self.lock, self.reading = core, stream, trio.Lock(), trio.CancelScope()

    async def flush(self) -> None:  # after every verb: it may have queued bytes and started a deadline
        if (deadline := self.core.next_deadline()) is not None:
            self.reading.deadline = deadline
        async with self.lock:  # taken and written in one order
            try:
                await self.stream.send_all(self.core.data_to_send())
            except BaseException as error:
                self.core.send_failed()  # also when cancelled: perhaps a part of it has left
                if not isinstance(error, trio.BrokenResourceError):
                    raise

    async def next_frame(self) -> Frame:
        while (event := self.core.next_event()) is NEED_DATA:
            self.reading = trio.CancelScope()
            await self.flush()
            with self.reading:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    data = b""
                self.core.receive_data(data) if data else self.core.receive_eof()
            self.core.handle_timeout(trio.current_time())
        return event


async def speak(session: TrioSession) -> None:
    for _ in utter(session.core):
        await session.flush()
        await trio.sleep(0.02)


async def converse(url: str, token: str) -> list[Frame]:
    async with await trio.open_tcp_stream((where := parse_url(url)).host, where.port) as stream:
        session = TrioSession(ClientConnection(url, token), stream)
        heard = [await session.next_frame()]  # outside the nursery, which would wrap a HandshakeError
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, session)
            while not isinstance(heard[-1], Close):
                heard.append(await session.next_frame())
                respond(session.core, heard[-1])
            nursery.cancel_scope.cancel()
        await session.flush()  # the answer to the peer's close
    return heard


if __name__ == "__main__":
    main(lambda url, token: trio.run(converse, url, token))
