"""Who reads, and when: no frame is lost or late when readers come, go and are cancelled."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import Audio, Close, Frame, Interruption, Ready, Transcript
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import settled

pytestmark = pytest.mark.anyio

PING = b"\x89\x00"
PONG = b"\x8a\x80"


def piece(number: int) -> Audio:
    return Audio(bytes([number, 0]), 24_000)


def send(server: FakeServer, number: int) -> None:
    server.core.send_audio(piece(number).pcm)
    server.flush()


def pongs(server: FakeServer) -> int:
    return bytes(server.wire).count(PONG)


async def test_a_receive_cancelled_around_its_frame_loses_none() -> None:
    async with connected() as (session, server):
        assert isinstance(await session.receive(), Ready)
        received: list[Frame] = []

        async def receive() -> None:
            received.append(await session.receive())

        for number in range(24):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                for _ in range(number // 6):
                    await checkpoint()
                send(server, number)
                for _ in range(number % 6):
                    await checkpoint()
                tasks.cancel_scope.cancel()
            if len(received) == number:
                received.append(await session.receive())
        assert received == [piece(number) for number in range(24)]


async def test_cancelled_again_and_again_while_a_frame_comes_byte_by_byte() -> None:
    server = FakeServer(max_receive=1)
    async with connected(server) as (session, _):
        assert isinstance(await session.receive(), Ready)
        send(server, 1)
        frame = None
        while frame is None:
            async with anyio.create_task_group() as tasks:

                async def receive() -> None:
                    nonlocal frame
                    frame = await session.receive()

                tasks.start_soon(receive)
                await checkpoint()
                await checkpoint()
                tasks.cancel_scope.cancel()
        assert frame == piece(1)


@pytest.mark.parametrize("slow", ["neither", "iteration", "stream"])
async def test_two_readers_get_every_frame(slow: str) -> None:
    async with connected() as (session, server), session.frames(Audio) as stream:
        heard: dict[str, list[Frame]] = {"iteration": [], "stream": []}

        async def read(name: str) -> None:
            async for frame in session if name == "iteration" else stream:
                if isinstance(frame, Audio):
                    heard[name].append(frame)
                    for _ in range(7 if slow == name else 0):
                        await checkpoint()

        async with anyio.create_task_group() as tasks:
            for name in heard:
                tasks.start_soon(read, name)
            for number in range(20):
                send(server, number)
                for _ in range(number % 4):
                    await checkpoint()
            await settled()
            tasks.cancel_scope.cancel()
        assert [*heard.values()] == [[piece(number) for number in range(20)]] * 2


@pytest.mark.parametrize("way", ["is cancelled", "does something else"])
async def test_a_reader_waits_on_when_the_other_one_leaves(way: str) -> None:
    async with connected() as (session, server), session.frames(Transcript) as transcripts:
        assert isinstance(await session.receive(), Ready)
        said: list[Frame] = []

        async def read() -> None:
            said.append(await anext(transcripts))

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as others:
                    others.start_soon(session.receive)
                    await settled()
                    tasks.start_soon(read)
                    await settled()
                    if way == "is cancelled":
                        scope.cancel()
                    else:
                        send(server, 1)
            await settled()
            server.core.send_transcript("user", "so", final=True)
            server.flush()
        assert [type(frame) for frame in said] == [Transcript]


@pytest.mark.parametrize("received", [False, True])
async def test_a_session_that_nobody_reads_answers_pings_and_sees_the_close(received: bool) -> None:
    async with connected() as (session, server):
        if received:
            assert isinstance(await session.receive(), Ready)
        before = pongs(server)
        for count in range(1, 4):
            server.raw(PING)
            await settled()
            assert pongs(server) == before + count
        server.core.close(4001, "enough")
        server.flush()
        await settled()
        assert session.closed == Close(4001, "enough", "remote")
        assert server.stream.closed


async def test_an_interruption_that_nobody_waits_for_discards_stale_audio() -> None:
    async with connected() as (session, server):
        assert isinstance(await session.receive(), Ready)
        for number in range(5):
            send(server, number)
        await settled()
        server.core.send_interruption()
        server.flush()
        await settled()
        assert session.stats().interruptions == 1
        assert isinstance(await session.receive(), Interruption)


async def test_a_session_with_only_handlers_is_read() -> None:
    async with connected() as (session, server):
        plain: list[Frame] = []
        waited: list[Frame] = []

        async def wait(frame: Frame) -> None:
            await checkpoint()
            waited.append(frame)

        session.on(plain.append)
        session.on(wait)
        for number in range(5):
            send(server, number)
            await settled()
        server.raw(PING)
        await settled()
        assert pongs(server) == 1
        assert plain == waited == [Ready(24_000, 24_000), *(piece(number) for number in range(5))]


async def test_a_reader_that_waits_while_another_is_full_goes_on_afterwards() -> None:
    async with (
        connected(max_buffer=400) as (session, server),
        session.frames(Audio, max_buffer=400) as slow,
    ):
        assert isinstance(await session.receive(), Ready)
        heard: list[Frame] = []
        taken: list[Frame] = []

        async def read() -> None:
            while len(heard) < 20:
                heard.append(await session.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await settled()
            for number in range(20):
                send(server, number)
                await settled()
            assert len(heard) < 20
            assert not server.stream.receiving
            taken.extend([await anext(slow) for _ in range(20)])
        assert heard == taken == [piece(number) for number in range(20)]


async def test_others_get_a_turn_and_a_cancellation_is_noticed_within_sixteen_sends() -> None:
    async with connected() as (session, server):
        turns: list[int] = []

        async def count() -> None:
            turns.append(len(server.commands))

        async with anyio.create_task_group() as tasks:
            for number in range(1, 4):
                tasks.start_soon(count)
                while len(turns) < number:
                    await session.send_audio(b"\0\0")
        # Twice as many on trio, which may let the sender go first in the turn of both.
        assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= 32
        sent = len(server.commands)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(64):
                await session.send_audio(b"\0\0")
        await settled()
        assert scope.cancelled_caught
        assert len(server.commands) - sent < 16
        assert session.closed is None
