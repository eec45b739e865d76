"""Stalls of a session are logged once, with advice; on virtual time."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from speko_anyio import Audio, Frame, Ready
from speko_anyio.testing.server import connected
from tests.support.drivers import EVERY_VIRTUAL_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(960)
SMALL = 5 * 1060


@pytest.fixture(params=EVERY_VIRTUAL_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def test_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(max_buffer=SMALL, ping_interval=None, within=1000.0) as (session, server):
        for _ in range(20):
            server.core.send_audio(PCM)
        server.flush()
        await anyio.sleep(9.9)
        assert told(caplog) == []
        await anyio.sleep(0.2)
        (line,) = told(caplog)
        assert line.startswith("session s1: no frame was taken for 10 s and ")
        assert "iterate over the session" in line
        await anyio.sleep(100)
        assert len(told(caplog)) == 1
        got = [await session.receive() for _ in range(21)]
        assert sum(isinstance(frame, Audio) for frame in got) == 20


async def test_somebody_reads_slowly(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(max_buffer=SMALL, ping_interval=None, within=1000.0) as (session, server):
        for _ in range(20):
            server.core.send_audio(PCM)
        server.flush()
        for _ in range(21):
            await anyio.sleep(8)
            await session.receive()
    assert told(caplog) == []


async def test_a_stream_that_nobody_reads_beside_one_that_is_read(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(max_buffer=SMALL, ping_interval=None, within=1000.0) as (session, server):
        async with session.frames(Audio):
            for _ in range(20):
                server.core.send_audio(PCM)
                server.flush()
            assert await session.receive() == Ready(24_000, 24_000)
            await session.receive()
            await anyio.sleep(25)
            assert len(told(caplog)) == 1


async def test_a_handler_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    async def stuck(frame: Frame) -> None:
        await anyio.sleep_forever()

    async def busy(frame: Frame) -> None:
        await anyio.sleep(9)

    async with connected(ping_interval=None, within=1000.0, close_timeout=1.0) as (session, server):
        session.on(busy)
        for _ in range(5):
            server.core.send_usage(1, 1)
        server.flush()
        await anyio.sleep(60)
        assert told(caplog) == []
        session.on(stuck)
        server.core.send_usage(1, 1)
        server.flush()
        await anyio.sleep(9.9)
        assert told(caplog) == []
        await anyio.sleep(10.2)
        (line,) = told(caplog)
        # Not with the frames that the first handler has taken: they are not kept.
        assert ".stuck has been busy with one Usage for 10 s" in line
        assert "do long work in a task of your own" in line
        await anyio.sleep(100)
        assert len(told(caplog)) == 1


async def test_a_tool_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> str:
        await anyio.sleep_forever()
        raise AssertionError

    async with connected(tools=[hang], ping_interval=None, within=1000.0) as (session, server):
        await session.receive()
        server.core.send_tool_call("c1", "hang", "{}")
        server.flush()
        await anyio.sleep(29.9)
        assert told(caplog) == []
        await anyio.sleep(0.2)
        (line,) = told(caplog)
        assert "the tool hang has been running for 30 s" in line
        await anyio.sleep(100)
        assert len(told(caplog)) == 1


async def test_a_session_that_is_over_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(max_buffer=SMALL, ping_interval=None, within=1000.0) as (session, server):
        for _ in range(20):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        await session.close()
        await anyio.sleep(60)
    assert told(caplog) == []
