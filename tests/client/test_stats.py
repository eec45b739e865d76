"""What a session counts, and how long its answers took: on a virtual clock."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio import Audio, Interruption, Ready, Usage
from speko_anyio.client._stats import MAX_TIMES, TurnTimes
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import EVERY_VIRTUAL_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(960)


@pytest.fixture(params=EVERY_VIRTUAL_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


async def test_an_answer_takes_from_the_end_of_the_turn_to_its_first_audio() -> None:
    async with connected(within=60) as (session, server):

        async def answer(seconds: float) -> None:
            await anyio.sleep(seconds)
            for _ in range(2):
                server.core.send_audio(PCM)
                server.flush()
                await anyio.sleep(0.02)

        assert session.stats().median_time_to_first_audio is None
        await answer(0.1)
        assert session.stats().times_to_first_audio == ()
        await session.commit()
        await answer(0.5)
        await session.end_turn()
        await answer(0.25)
        await session.commit()
        await anyio.sleep(1)
        await session.commit()
        await answer(0.3)
        times = session.stats().times_to_first_audio
        assert times == pytest.approx((0.5, 0.25, 0.3))
        assert session.stats().median_time_to_first_audio == pytest.approx(0.3)


async def test_an_interruption_of_the_answer_before_does_not_end_the_waiting() -> None:
    async with connected(within=60) as (session, server):
        await session.commit()
        await anyio.sleep(0.2)
        server.core.send_interruption()
        server.flush()
        await anyio.sleep(0.2)
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        stats = session.stats()
        assert stats.times_to_first_audio == pytest.approx((0.4,))
        assert stats.interruptions == 1


async def test_what_is_buffered_is_told_in_seconds_too() -> None:
    async with connected() as (session, server):
        for _ in range(5):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert session.stats().seconds_buffered == pytest.approx(0.1)
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), Audio)
        assert session.stats().seconds_buffered == pytest.approx(0.08)
        server.core.send_interruption()
        server.flush()
        assert isinstance(await session.receive(), Audio | Interruption)
        await settled()
        assert session.stats().seconds_buffered == 0


async def test_tool_calls_are_counted_while_they_run_and_after() -> None:
    go = anyio.Event()

    async def slow() -> None:
        await go.wait()

    async with connected(tools=[slow, {"name": "declared"}]) as (session, server):
        for number, name in enumerate(["slow", "slow", "declared"]):
            server.core.send_tool_call(f"c{number}", name, "{}")
        server.flush()
        await settled()
        assert (session.stats().tool_calls, session.stats().tools_running) == (3, 2)
        go.set()
        await settled()
        assert (session.stats().tool_calls, session.stats().tools_running) == (3, 0)


async def test_what_was_spent_is_added_up() -> None:
    async with connected(FakeServer(extensions=["usage"])) as (session, server):
        assert session.stats().usage == Usage()
        await session.receive()
        await settled()  # the client has accepted the extension
        server.core.send_usage(10, 20)
        server.core.send(Usage(1, 2, input_text_tokens=3, cached_audio_tokens=4, seconds=0.5))
        server.flush()
        for _ in range(2):
            await session.receive()
        assert session.stats().usage == Usage(11, 22, 3, 0, 0, 4, 0, 0, 0.5)


def test_the_times_are_bounded_and_the_newest_are_kept() -> None:
    times = TurnTimes()
    for number in range(MAX_TIMES + 2):
        times.turn_ended(0.0)
        times.answer_began(float(number))
    assert len(times.times) == MAX_TIMES
    assert times.times[-1] == MAX_TIMES + 1
