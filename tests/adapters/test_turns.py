"""A hostile server's long reads in an open session: others get their turns, and nothing is lost."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import Audio, Close, Frame, Ready
from speko_anyio.testing.server import connected
from tests.protocol.helpers import BINARY, PING, frame
from tests.support.drivers import settled

pytestmark = pytest.mark.anyio

TINY = frame(BINARY, b"\0\0", masked=False)
PINGS = frame(PING, masked=False) * 500 + TINY

ALL = 16_000
"""Tiny messages in a read of 64 KiB."""


async def test_others_get_their_turns_while_a_long_read_is_taken() -> None:
    async with connected(within=30.0) as (session, server):
        assert isinstance(await session.receive(), Ready)
        server.raw(TINY * ALL)
        counts: list[int] = []
        while not counts or counts[-1] < ALL:
            await checkpoint()
            counts.append(session.stats().frames_received - 1)
        steps = [after - before for before, after in zip([0, *counts], counts, strict=False)]
        assert max(steps) <= 2 * 128  # a turn of the driver may come twice between two of ours
        assert [await session.receive() for _ in range(ALL)] == [Audio(b"\0\0", 24_000)] * ALL


async def test_frames_that_bring_nothing_are_taken_in_turns_too() -> None:
    async with connected(within=30.0, close_timeout=0.01) as (session, server):
        assert isinstance(await session.receive(), Ready)
        server.answers = False
        before = len(server.wire)
        server.raw(PINGS * 60)
        answers: list[int] = []
        while session.stats().frames_received < 61:
            await checkpoint()
            answers.append(len(server.wire) - before)
        steps = [after - before for before, after in zip([0, *answers], answers, strict=False)]
        assert max(steps) <= 4 * 64 * 6  # bytes of a pong
        await settled()
        assert len(server.wire) - before == 60 * 500 * 6


@pytest.mark.parametrize("way", ["hangs up", "breaks"])
async def test_a_connection_that_ends_behind_a_long_read_loses_nothing(way: str) -> None:
    received: list[Frame] = []
    async with connected(within=30.0, max_buffer=1 << 30) as (session, server):
        server.raw(TINY * ALL)
        if way == "hangs up":
            server.hang_up()
        else:
            while session.stats().frames_received < 2:
                await checkpoint()
            server.to_client.break_()
        received.extend([frame async for frame in session])
    assert [type(frame) for frame in received] == [Ready, *[Audio] * ALL, Close]


async def test_leaving_in_the_middle_of_a_long_read() -> None:
    async with connected(within=30.0) as (session, server):
        server.raw(TINY * ALL)
        while session.stats().frames_received < 100:
            await checkpoint()
    assert session.closed == Close(1000, "client_closed", "local")


async def test_being_cancelled_in_the_middle_of_a_long_read() -> None:
    sessions = []
    with anyio.CancelScope() as scope:
        async with connected(within=30.0) as (session, server):
            sessions.append(session)
            server.raw(TINY * ALL)
            while session.stats().frames_received < 100:
                await checkpoint()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    (closed,) = [session.closed for session in sessions]
    assert closed is not None
    assert closed.initiated_by == "local"


async def test_sending_goes_on_while_a_long_read_is_taken() -> None:
    async with connected(within=30.0) as (session, server):
        assert isinstance(await session.receive(), Ready)
        server.raw(TINY * ALL)
        while session.stats().frames_received < 100:
            await checkpoint()
        await session.send_audio(bytes(960))
        assert session.stats().frames_received < ALL
        await settled()
        assert len(server.commands) == 1
