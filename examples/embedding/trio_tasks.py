"""Drive the core with trio streams. One task listens while another speaks."""

import trio
from conversation import main, respond, utter

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, parse_url


class TrioSession:
    def __init__(self, core: ClientConnection, stream: trio.abc.Stream) -> None:
        self.core, self.stream, self.writing = core, stream, trio.Lock()
        self.reading = trio.CancelScope()

    async def flush(self) -> None:
        if (deadline := self.core.next_deadline()) is not None:  # a verb may have started a timer
            self.reading.deadline = deadline
        async with self.writing:  # keeps the bytes in order
            try:
                await self.stream.send_all(self.core.data_to_send())
            except BaseException as error:
                self.core.send_failed()  # when cancelled too: some bytes may have been sent
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

    async def speak(self) -> None:
        for _ in utter(self.core):
            await self.flush()
            await trio.sleep(0.02)


async def converse(url: str, token: str) -> list[Frame]:
    where = parse_url(url)
    async with await trio.open_tcp_stream(where.host, where.port) as stream:
        session = TrioSession(ClientConnection(url, token), stream)
        frames = [await session.next_frame()]  # outside the nursery, which would wrap an error in a group
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.speak)
            while not isinstance(frames[-1], Close):
                frames.append(await session.next_frame())
                respond(session.core, frames[-1])
            nursery.cancel_scope.cancel()
        await session.flush()  # sends the answer to the peer's close
    return frames


if __name__ == "__main__":
    main(lambda url, token: trio.run(converse, url, token))
