"""A session in the hands of asyncio's own tasks, timeouts and groups: not every user speaks anyio.

On a loop with eager tasks each of these tasks runs at once, in the middle of whoever makes it.
"""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with`

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from speko_anyio import Audio, Close, ConnectionClosed, Frame, Ready, open_session
from speko_anyio.protocol import AudioIn, Clear, Commit
from speko_anyio.testing.server import FakeServer, connected, grant
from tests.support.drivers import EVERY_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4


@pytest.fixture(params=[way for way in EVERY_DRIVER if "trio" not in str(way.id)])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


class Boom(Exception):
    pass


async def test_tasks_made_one_after_the_other_send_in_that_order() -> None:
    async with connected() as (session, server):
        await asyncio.gather(session.send_audio(PCM), session.commit(), session.clear())
        await settled()
        assert server.commands == [AudioIn(PCM, 24_000), Commit(), Clear()]


async def test_a_receive_cancelled_while_its_frame_is_on_its_way_loses_none() -> None:
    async with connected() as (session, server):
        assert isinstance(await session.receive(), Ready)
        sent = [Audio(bytes([turns, 0]), 24_000) for turns in range(12)]
        received: list[Frame] = []
        for turns, audio in enumerate(sent):
            receiving = asyncio.ensure_future(session.receive())
            server.core.send_audio(audio.pcm)
            server.flush()
            for _ in range(turns):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
            if receiving.cancelled():
                received.append(await session.receive())
            else:
                received.append(receiving.result())
        assert received == sent


def unmasked(frame: bytes) -> bytes:
    """The content of a short frame of a client (RFC 6455 section 5.2)."""
    mask = frame[2:6]
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(frame[6:]))


async def test_a_timeout_around_the_block_is_a_timeout_and_waits_for_no_answer() -> None:
    server = FakeServer()
    said = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, connected(server, close_timeout=3600.0) as (session, _):
            assert isinstance(await session.receive(), Ready)
            server.answers = False
            said = len(server.wire)
            limit.reschedule(0)
            await asyncio.sleep(3600)
    assert server.stream.closed
    assert b"client_cancelled" in unmasked(bytes(server.wire[said:]))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_ends_the_goodbye_to_a_peer_that_is_stuck() -> None:
    server = FakeServer()
    with anyio.move_on_after(5) as too_late, pytest.raises(TimeoutError):
        async with (
            asyncio.timeout(None) as limit,
            open_session(grant(), stream=server.stream, close_timeout=3600.0),
        ):
            server.answers = False
            limit.reschedule(asyncio.get_running_loop().time() + 0.01)
    assert not too_late.cancelled_caught
    assert server.stream.closed


async def test_a_group_in_the_block_comes_out_as_it_is_also_when_a_task_fails_at_its_start() -> None:
    async def fail() -> None:
        raise Boom

    server = FakeServer()
    with pytest.raises(ExceptionGroup) as caught:
        async with connected(server) as (session, _):
            assert isinstance(await session.receive(), Ready)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(session.receive())
                tasks.create_task(fail())
    assert [type(error) for error in caught.value.exceptions] == [Boom]
    assert server.commands == [Close(1000, "client_closed", "remote")]


async def test_a_handler_and_a_callback_may_start_tasks_that_send() -> None:
    async with connected() as (session, server):
        tasks: list[asyncio.Task[None]] = []

        def send(frame: Frame) -> None:
            if isinstance(frame, Ready):
                tasks.append(asyncio.ensure_future(session.commit()))

        session.on(send)
        await settled()
        asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.ensure_future(session.clear())))
        await settled()
        await asyncio.gather(*tasks)
        assert server.commands == [Commit(), Clear()]


async def test_a_task_that_outlives_the_block_learns_its_end() -> None:
    async with connected() as (session, _server):
        assert isinstance(await session.receive(), Ready)
        receiving = asyncio.ensure_future(session.receive())
        await settled()
    assert await asyncio.wait_for(receiving, 5) == Close(1000, "client_closed", "local")
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(session.commit(), 5)


async def test_a_block_left_by_another_task_than_entered_it_is_an_error_and_closed_all_the_same() -> None:
    """What fixtures and exit stacks of other frameworks do: a scope belongs to one task."""
    server = FakeServer()
    block = open_session(grant(), stream=server.stream)
    session = await asyncio.wait_for(asyncio.ensure_future(block.__aenter__()), 5)

    async def leave() -> None:
        await block.__aexit__(None, None, None)

    with pytest.raises(RuntimeError, match="different task"):
        await asyncio.wait_for(asyncio.ensure_future(leave()), 5)
    assert session.closed is not None
    assert server.stream.closed
    await settled()
    assert session._lifetime.running == 0
