"""Streams in memory behave as connections do, in good times and bad."""

# ruff: noqa: PT012 - what is expected comes out of a whole loop

from __future__ import annotations

import anyio
import pytest

from speko_anyio.testing import stream_pair

pytestmark = pytest.mark.anyio


async def test_bytes_arrive_in_order_however_they_are_cut() -> None:
    for max_receive in (1, 7, 65_536):
        here, there = stream_pair(max_receive=max_receive)
        data = bytes(range(256))
        await here.send(data)
        await here.send_eof()
        received = bytearray()
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            while True:
                piece = await there.receive(100)
                assert 0 < len(piece) <= min(100, max_receive)
                received += piece
        assert received == data


async def test_a_writer_waits_for_room() -> None:
    here, there = stream_pair(capacity=10)
    received = bytearray()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.send, bytes(25))
            await anyio.wait_all_tasks_blocked()
            assert len(there.incoming.data) == 10
            while len(received) < 25:
                received += await there.receive()
    assert received == bytes(25)


async def test_a_stall_holds_both_sides_until_it_ends() -> None:
    here, there = stream_pair()
    there.incoming.stall()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.send, b"late")
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0) as scope:
                await there.receive()
            assert scope.cancelled_caught
            there.incoming.resume()
        assert await there.receive() == b"late"


async def test_a_broken_connection_fails_both_sides_and_a_closed_one_its_own() -> None:
    here, there = stream_pair()
    await here.send(b"before")
    here.outgoing.break_()
    with anyio.fail_after(5):
        assert await there.receive() == b"before"
        with pytest.raises(anyio.BrokenResourceError):
            await there.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await here.send(b"x")
        await there.aclose()
        for call in (there.receive(), there.send(b"x")):
            with pytest.raises(anyio.ClosedResourceError):
                await call


async def test_closing_wakes_whoever_waits() -> None:
    here, there = stream_pair()
    ends: list[str] = []

    async def receive(stream: anyio.abc.ByteStream, name: str) -> None:
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError) as error:
            ends.append(f"{name} {type(error).__name__}")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, here, "here")
            tasks.start_soon(receive, there, "there")
            await anyio.wait_all_tasks_blocked()
            await here.aclose()
    assert sorted(ends) == ["here ClosedResourceError", "there EndOfStream"]


async def test_a_sink_is_told_of_bytes_and_once_of_the_end() -> None:
    here, _ = stream_pair()
    taken: list[bytes] = []
    here.outgoing.sink = taken.append
    await here.send(b"at once")
    await here.send_eof()
    await here.aclose()
    assert taken == [b"at once", b""]
