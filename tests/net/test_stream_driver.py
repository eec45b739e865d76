"""A session over any byte stream: what the stream raises is the session's end, and told as its cause."""

from __future__ import annotations

import contextlib
import ssl

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import Close, ConnectionClosed, Ready, RealtimeSession
from speko_anyio.protocol import Commit
from speko_anyio.testing._streams import MemoryStream
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import settled

pytestmark = pytest.mark.anyio

ERRORS = [
    anyio.BrokenResourceError(),
    anyio.ClosedResourceError(),
    anyio.BusyResourceError("reading from"),
    ConnectionResetError(104, "Connection reset by peer"),
    ssl.SSLError(1, "bad record mac"),
]


class FailingStream(MemoryStream):
    """Raises what it was given, each time it is used from then on."""

    receive_error: Exception | None = None
    send_error: Exception | None = None

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = await super().receive(max_bytes)
        if self.receive_error is not None:
            raise self.receive_error
        return data

    async def send(self, item: bytes) -> None:
        if self.send_error is not None:
            raise self.send_error
        await super().send(item)


def failing() -> tuple[FakeServer, FailingStream]:
    server = FakeServer()
    server.stream = stream = FailingStream(server.to_client, server.from_client)
    return server, stream


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_receiving_raises(error: Exception) -> None:
    server, stream = failing()
    async with connected(server) as (session, _):
        assert isinstance(await session.receive(), Ready)
        stream.receive_error = error
        server.raw(b"\x89\x00")
        end = await session.receive()
        assert isinstance(end, Close)
        assert (end.code, end.initiated_by) == (1006, "transport")
        with pytest.raises(ConnectionClosed) as caught:
            await session.commit()
        assert caught.value.__cause__ is error
        await settled()
        assert stream.closed


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_sending_raises(error: Exception) -> None:
    server, stream = failing()
    async with connected(server) as (session, _):
        assert isinstance(await session.receive(), Ready)
        stream.send_error = error
        with pytest.raises(ConnectionClosed) as caught:
            await session.commit()
        assert caught.value.__cause__ is error
        end = await session.receive()
        assert isinstance(end, Close)
        assert end.code == 1006
        await settled()
        assert stream.closed


async def test_a_reply_that_can_not_be_sent_is_the_end_too() -> None:
    server, stream = failing()
    async with connected(server) as (session, _):
        await session.commit()
        assert isinstance(await session.receive(), Ready)
        stream.send_error = anyio.BrokenResourceError()
        server.raw(b"\x89\x00")
        assert isinstance(await session.receive(), Close)
        await settled()
        assert stream.closed
    assert server.commands == [Commit()]


class TurnsLater(MemoryStream):
    """Returns from a send some turns after the bytes are gone, as trio's sockets and TLS do."""

    async def send(self, item: bytes) -> None:
        await super().send(item)
        with anyio.CancelScope(shield=True):
            for _ in range(3):
                await checkpoint()


class HalfWay(MemoryStream):
    """Writes half of what it is given, from a moment on, and waits."""

    stuck = False

    async def send(self, item: bytes) -> None:
        await super().send(item[: len(item) // 2] if self.stuck else item)
        while self.stuck and not self.closed:
            await checkpoint()


async def test_a_cancelled_session_says_goodbye_behind_a_write_that_is_just_through() -> None:
    server = FakeServer()
    server.stream = TurnsLater(server.to_client, server.from_client)
    with anyio.CancelScope() as scope:
        async with connected(server) as (session, _):
            assert isinstance(await session.receive(), Ready)
            await settled()
            before = len(server.wire)
            server.raw(b"\x89\x00")
            while len(server.wire) == before:
                await checkpoint()
            scope.cancel()
            await anyio.sleep_forever()
    assert server.commands == [Close(1001, "client_cancelled", "remote")]
    assert server.stream.closed


@pytest.mark.parametrize("where", ["inside", "outside"])
async def test_a_cancelled_session_says_nothing_behind_half_a_message(where: str) -> None:
    server = FakeServer()
    server.stream = stream = HalfWay(server.to_client, server.from_client)
    said = 0

    async def commit(session: RealtimeSession) -> None:
        with contextlib.suppress(ConnectionClosed):
            await session.commit()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as outside:
            with anyio.CancelScope() as scope:
                async with connected(server) as (session, _):
                    assert isinstance(await session.receive(), Ready)
                    await settled()
                    stream.stuck = True
                    if where == "inside":
                        session.on(lambda frame: session.commit())
                        server.core.send_transcript("user", "so", final=True)
                        server.flush()
                    else:
                        outside.start_soon(commit, session)
                    before = len(server.wire)
                    while len(server.wire) == before:
                        await checkpoint()
                    said = len(server.wire)
                    scope.cancel()
                    await anyio.sleep_forever()
    assert len(server.wire) == said
    assert server.stream.closed
