"""uvicorn's own WebSockets in turns: pieces, order, flow control, and the end, over a transport in memory."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from uvicorn.server import ServerState

from speko_anyio.gateway._uvicorn_turns import TurnTaking, websocket_in_turns

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Only where uvicorn runs."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.aborted = False
        self.written = b""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: Any) -> None:
        self.written += data


class Inner(asyncio.Protocol):
    """In place of uvicorn's protocol."""

    def __init__(self) -> None:
        self.close_sent = False
        self.pieces: list[bytes] = []
        self.calls: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool | None:
        self.calls.append("eof")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


def made() -> tuple[TurnTaking, Inner, Transport]:
    inner, transport = Inner(), Transport()
    turns = TurnTaking(inner)
    turns.connection_made(transport)
    return turns, inner, transport


async def let_run(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def is_read(transport: Transport) -> bool:
    return transport.reading


LONG = bytes(range(256)) * 256
"""A read of 64 KiB."""


async def test_a_short_read_is_passed_on_at_once() -> None:
    turns, inner, transport = made()
    turns.data_received(LONG[:968])
    assert inner.pieces == [LONG[:968]]
    assert transport.reading


async def test_a_long_read_is_passed_on_in_pieces_and_nothing_is_read_meanwhile() -> None:
    turns, inner, transport = made()
    turns.data_received(LONG)
    while not transport.reading:
        before = len(inner.pieces)
        await let_run()
        assert len(inner.pieces) <= before + 1
    assert b"".join(inner.pieces) == LONG
    assert max(map(len, inner.pieces)) <= 1024
    assert len(inner.pieces) > 200


async def test_a_protocol_that_pauses_gets_no_more_until_it_resumes() -> None:
    turns, inner, transport = made()
    turns.data_received(LONG)
    inner.transport.pause_reading()
    before = len(inner.pieces)
    await let_run(50)
    assert len(inner.pieces) == before
    assert not transport.reading
    inner.transport.resume_reading()
    await let_run(300)
    assert b"".join(inner.pieces) == LONG
    assert is_read(transport)
    inner.transport.pause_reading()
    assert not is_read(transport)


async def test_an_end_comes_after_all_that_was_read_even_to_a_protocol_that_pauses() -> None:
    turns, inner, _ = made()
    turns.data_received(LONG)
    inner.transport.pause_reading()
    error = ConnectionResetError()
    turns.connection_lost(error)
    await let_run(300)
    assert b"".join(inner.pieces) == LONG
    assert inner.calls == [("lost", error)]


async def test_an_end_with_nothing_left_comes_at_once() -> None:
    turns, inner, _ = made()
    turns.connection_lost(None)
    assert inner.calls == [("lost", None)]


async def test_who_goes_on_after_the_close_is_cut_off() -> None:
    turns, inner, transport = made()
    inner.close_sent = True
    for _ in range(20):
        turns.data_received(LONG)
        await let_run(300)
    assert transport.aborted
    assert 1_000_000 < sum(map(len, inner.pieces)) <= 1 << 20


async def test_nothing_is_written_to_a_connection_that_is_closed() -> None:
    """uvloop raises RuntimeError for it, and the protocol goes on with what was read before."""
    _, inner, transport = made()
    transport.abort()
    inner.transport.write(b"x")
    assert transport.written == b""


async def test_the_rest_is_passed_on() -> None:
    turns, inner, transport = made()
    turns.pause_writing()
    turns.resume_writing()
    assert turns.eof_received() is None
    inner.transport.write(b"x")
    assert inner.calls == ["pause", "resume", "eof"]
    assert transport.written == b"x"


@pytest.mark.parametrize("name", ["websockets-sansio", "wsproto"])
async def test_it_is_made_as_uvicorn_makes_its_own(name: str) -> None:
    given: Any = partial(websocket_in_turns, name=name)
    config = uvicorn.Config(Starlette(), ws=given, lifespan="off", log_config=None)
    assert isinstance(given(config=config, server_state=ServerState(), app_state={}), TurnTaking)
