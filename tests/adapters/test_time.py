"""Everything that has a deadline, on a virtual clock: minutes of waiting in no time at all."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from speko_anyio import (
    APIConnectionError,
    Audio,
    Close,
    ConnectionClosed,
    Expiring,
    Frame,
    HandshakeError,
    Ready,
    open_session,
)
from speko_anyio._net import asyncio_driver
from speko_anyio.client._delivery import FRAME_OVERHEAD
from speko_anyio.protocol import Commit
from speko_anyio.testing.server import FakeServer, connected, grant
from tests.support.drivers import EVERY_VIRTUAL_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4


@pytest.fixture(params=EVERY_VIRTUAL_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


@pytest.fixture
def elapsed() -> Callable[[], float]:
    start: list[float] = []

    def seconds() -> float:
        """Since the first call."""
        start[:] = start or [anyio.current_time()]
        return round(anyio.current_time() - start[0], 6)

    return seconds


async def test_the_handshake_has_its_time(elapsed: Callable[[], float]) -> None:
    elapsed()
    server = FakeServer()
    server.answers = False
    with pytest.raises(HandshakeError, match="in time"):
        async with connected(server, within=60, handshake_timeout=7.0):
            raise AssertionError("opened")
    assert elapsed() == 7.0
    assert server.stream.closed


async def test_so_has_sending_its_request(elapsed: Callable[[], float]) -> None:
    elapsed()
    server = FakeServer()
    server.from_client.stall()
    with pytest.raises(HandshakeError):
        async with connected(server, within=60):
            raise AssertionError("opened")
    assert elapsed() == 10.0


async def test_a_host_that_does_not_answer(
    elapsed: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*args: object, **kwargs: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "connect_tcp", nobody)
    monkeypatch.setattr(asyncio_driver, "connect_socket", nobody)
    elapsed()
    with pytest.raises(APIConnectionError, match=r"speko\.test:443 did not answer within 3 s"):
        async with open_session(grant(), connect_timeout=3.0):
            raise AssertionError("opened")
    assert elapsed() == 3.0


async def test_a_peer_that_does_not_answer_the_goodbye(elapsed: Callable[[], float]) -> None:
    async with connected(within=60, close_timeout=4.0) as (session, server):
        elapsed()
        server.answers = False
        await session.close()
        assert elapsed() == 4.0
        assert server.stream.closed
        assert session.closed is not None
        assert (session.closed.code, session.closed.initiated_by) == (1006, "local")
    assert elapsed() == 4.0


async def test_a_peer_that_does_not_read_holds_up_the_goodbye_no_longer(
    elapsed: Callable[[], float],
) -> None:
    server = FakeServer()
    failures: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        async with connected(server, within=60) as (session, _):
            elapsed()
            server.from_client.stall()

            async def send() -> None:
                try:
                    while True:
                        await session.send_audio(PCM)
                except ConnectionClosed as error:
                    failures.append(error)

            tasks.start_soon(send)
            await settled()
        assert elapsed() == pytest.approx(5.0, abs=0.3)
    assert len(failures) == 1
    assert server.stream.closed


async def test_cancelling_the_goodbye_ends_it_at_once(elapsed: Callable[[], float]) -> None:
    server = FakeServer()
    elapsed()
    with anyio.move_on_after(1.0) as scope:
        async with connected(server, within=60):
            server.answers = False
    assert scope.cancelled_caught
    assert elapsed() == 1.0
    assert server.stream.closed


async def test_leaving_with_a_peer_that_does_not_read_obeys_an_outer_timeout(
    elapsed: Callable[[], float],
) -> None:
    server = FakeServer()
    elapsed()
    with anyio.move_on_after(1.0) as scope:
        async with connected(server, within=60, close_timeout=30.0):
            server.from_client.stall()
    assert scope.cancelled_caught
    assert elapsed() == 1.0
    assert server.stream.closed


async def test_a_violating_peer_that_does_not_read_is_cut_off(elapsed: Callable[[], float]) -> None:
    server = FakeServer()
    async with connected(server, within=60) as (session, _):
        elapsed()
        server.from_client.stall()
        server.raw(b"\xff\xff")
        frames: list[Frame] = []
        with pytest.raises(Exception, match="RFC 6455"):
            async for frame in session:
                frames.append(frame)  # noqa: PERF401 - what came before the error counts
        assert elapsed() < 1.0
        await session.close()
        assert elapsed() == 5.0
        assert server.stream.closed


@pytest.mark.parametrize("closing", [True, False])
async def test_cancelled_while_the_last_words_are_written_it_ends_at_once(
    closing: bool, elapsed: Callable[[], float]
) -> None:
    server = FakeServer()
    with anyio.move_on_after(1.0) as leaving:
        async with connected(server, within=60, close_timeout=30.0) as (session, _):
            elapsed()
            server.from_client.stall()
            server.raw(b"\xff\xff")
            with pytest.raises(Exception, match="RFC 6455"):
                while True:
                    await session.receive()
            if closing:
                leaving.deadline = math.inf
                with anyio.move_on_after(1.0) as goodbye:
                    await session.close()
                assert goodbye.cancelled_caught
                await settled()
                assert server.stream.closed
    assert leaving.cancelled_caught is not closing
    assert elapsed() == 1.0
    assert server.stream.closed


async def test_a_silent_peer_is_pinged_and_then_given_up(elapsed: Callable[[], float]) -> None:
    async with connected(within=600, ping_interval=20.0, ping_timeout=15.0) as (session, server):
        elapsed()
        assert isinstance(await session.receive(), Ready)
        # It hears us and answers the first ping.
        await anyio.sleep(39.0)
        assert session.closed is None
        assert bytes(server.wire[-6:-4]) == b"\x89\x80"
        server.answers = False
        frame = await session.receive()
        assert isinstance(frame, Close)
        assert (frame.code, frame.initiated_by) == (1006, "transport")
        assert "keepalive" in frame.reason
        assert 50.0 < elapsed() < 80.0


async def test_keepalive_waits_while_a_slow_consumer_stops_the_reading() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, within=3600, max_buffer=4 * (len(PCM) + FRAME_OVERHEAD)) as (session, _):
        for _ in range(20):
            server.core.send_audio(PCM)
        server.flush()
        await anyio.sleep(1000.0)
        assert session.closed is None
        server.core.close(1000, "done")
        server.flush()
        frames = [frame async for frame in session]
        assert frames[1:] == [Audio(PCM, 24_000)] * 20 + [Close(1000, "done", "remote")]


async def test_a_session_near_its_end_says_so() -> None:
    async with connected(within=3600, ttl_seconds=100.0, warn_before=30.0, ping_interval=None) as (
        session,
        _server,
    ):
        start = anyio.current_time()
        assert isinstance(await session.receive(), Ready)
        assert await session.receive() == Expiring(30.0)
        assert anyio.current_time() - start == pytest.approx(70.0)


async def test_leaving_waits_for_a_slow_handler_only_so_long(elapsed: Callable[[], float]) -> None:
    heard: list[Frame] = []

    async def slow(frame: Frame) -> None:
        await anyio.sleep(2.0)
        heard.append(frame)
        await anyio.sleep(3600.0 if isinstance(frame, Close) else 0.0)

    elapsed()
    async with connected(within=7200, close_timeout=5.0) as (session, _server):
        session.on(slow)
    assert [type(frame) for frame in heard] == [Ready, Close]
    assert elapsed() == 5.0


async def test_a_deadline_that_moves_while_the_alarm_sleeps() -> None:
    async with connected(within=3600, ping_interval=1000.0) as (session, server):
        await anyio.sleep(1.0)
        server.answers = False
        start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.close)
            assert [type(frame) async for frame in session] == [Ready, Close]
        assert anyio.current_time() - start == pytest.approx(5.0)
        assert server.commands.count(Commit()) == 0
