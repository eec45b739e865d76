"""Observers are told everything, change nothing, and cost nothing where there are none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    HandshakeError,
    LocalProtocolError,
    Ready,
    SessionInfo,
    SessionObserver,
    ToolCall,
    open_session,
)
from speko_anyio._observe.observed_core import ObservedCore
from speko_anyio._observe.observer import with_provider
from speko_anyio.protocol import (
    AudioIn,
    Clear,
    ClientConnection,
    Command,
    Commit,
    EndTurn,
    Frame,
    Interrupt,
    State,
    ToolResult,
)
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing._streams import MemoryStream, Pipe
from speko_anyio.testing.server import FakeServer, connected, grant

pytestmark = pytest.mark.anyio


class Notebook(SessionObserver):
    """Writes everything down."""

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self.notes: list[object] = []
        self.read = self.written = 0

    def state_changed(self, state: State) -> None:
        self.notes.append(state)

    def sent(self, command: Command) -> None:
        self.notes.append(command)

    def received(self, frame: Frame) -> None:
        self.notes.append(frame)

    def bytes_read(self, size: int) -> None:
        self.read += size

    def bytes_taken(self, size: int) -> None:
        self.written += size

    def timer_fired(self) -> None:
        self.notes.append("timer")

    def reading_paused(self) -> None:
        self.notes.append("paused")

    def reading_resumed(self) -> None:
        self.notes.append("resumed")

    def ended(self, error: BaseException | None) -> None:
        self.notes.append(("ended", error))


class Shelf:
    """Makes a `Notebook` for each session."""

    def __init__(self) -> None:
        self.books: list[Notebook] = []

    def __call__(self, info: SessionInfo) -> SessionObserver:
        self.books.append(Notebook(info))
        return self.books[-1]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The log is no observer here, whatever level pytest was told."""
    logger = logging.getLogger("speko_anyio.client")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)


async def test_an_observer_is_told_everything_in_order() -> None:
    shelf = Shelf()
    async with connected(observer=shelf) as (session, server):
        server.on_command = lambda command: (
            server.core.send_tool_call("c1", "f", "{}") if isinstance(command, Commit) else None
        )
        await session.send_audio(bytearray(b"\x01\x02"))
        await session.commit()
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), ToolCall)
        await session.send_tool_result("c1", "rain")
        await session.clear()
        await session.end_turn()
        await session.interrupt()
        server.core.send_audio(b"\x03\x04")
        server.flush()
        await session.receive()
        stats = session.stats()
    (book,) = shelf.books
    assert book.info == SessionInfo(session_id="s1", host="speko.test", port=443)
    assert book.notes == [
        State.OPEN,
        Ready(24_000, 24_000),
        AudioIn(b"\x01\x02", 24_000),
        Commit(),
        ToolCall("c1", "f", "{}"),
        ToolResult("c1", "rain"),
        Clear(),
        EndTurn(),
        Interrupt(),
        Audio(b"\x03\x04", 24_000),
        State.CLOSING,
        State.CLOSED,
        Close(1000, "client_closed", "local"),
        ("ended", None),
    ]
    assert book.read > stats.bytes_received > 0
    assert book.written > stats.bytes_sent > 0


async def test_what_was_not_sent_is_not_told() -> None:
    shelf = Shelf()
    async with connected(observer=shelf) as (session, _):
        with pytest.raises(LocalProtocolError):
            await session.send_tool_result("nobody asked", "rain")
    assert not any(isinstance(note, ToolResult) for note in shelf.books[0].notes)


async def test_the_end_comes_with_the_error_that_left_the_block() -> None:
    shelf = Shelf()
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError):
        async with connected(observer=shelf):
            raise error
    assert shelf.books[0].notes[-1] == ("ended", error)


async def test_a_session_that_never_opened_ends_too() -> None:
    shelf = Shelf()
    server = FakeServer()
    server.greet = lambda: server.core.refuse(401, "no")
    with pytest.raises(HandshakeError) as caught:
        async with connected(server, observer=shelf):
            raise AssertionError("opened")
    assert shelf.books[0].notes == [State.CLOSED, ("ended", caught.value)]


async def test_a_url_of_nowhere_is_told_without_a_host() -> None:
    shelf = Shelf()
    stream = MemoryStream(Pipe(), Pipe())
    with pytest.raises(LocalProtocolError):
        async with open_session(grant("http://speko.test/"), stream=stream, observer=shelf):
            raise AssertionError("opened")
    assert shelf.books[0].info == SessionInfo(session_id="s1", host="", port=0)
    assert stream.closed


async def test_an_observer_that_fails_is_told_no_more_and_the_session_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(SessionObserver):
        calls = 0

        def received(self, frame: Frame) -> None:
            self.calls += 1
            raise RuntimeError("mine")

    broken = Broken()
    async with connected(observer=lambda info: broken) as (session, server):
        await session.receive()
        server.core.send_audio(b"\x01\x02")
        server.flush()
        assert await session.receive() == Audio(b"\x01\x02", 24_000)
    assert broken.calls == 1
    (record,) = caplog.records
    assert record.getMessage() == "session s1: an observer failed and was dropped"
    assert record.exc_info is not None


async def test_an_observer_that_can_not_be_made_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def make(info: SessionInfo) -> SessionObserver:
        raise RuntimeError("mine")

    async with connected(observer=make) as (session, _):
        await session.receive()
    assert [record.getMessage() for record in caplog.records] == ["session s1: an observer could not be made"]


async def test_several_observers_are_told_the_same_and_one_that_fails_takes_none_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(SessionObserver):
        def received(self, frame: Frame) -> None:
            raise RuntimeError("mine")

    first, second = Shelf(), Shelf()
    async with connected(observer=[first, lambda info: Broken(), second]) as (session, _):
        await session.receive()
        await session.commit()
    assert first.books[0].notes == second.books[0].notes
    assert first.books[0].notes[-1] == ("ended", None)
    assert Commit() in first.books[0].notes
    assert [record.getMessage() for record in caplog.records] == [
        "session s1: an observer failed and was dropped"
    ]


async def test_no_observers_are_none() -> None:
    async with connected(observer=[]) as (session, _):
        assert type(session._core) is ClientConnection


@pytest.mark.parametrize(
    ("observers", "words"),
    [
        (3, "3 can't observe a session; pass a function that takes a SessionInfo"),
        ([3], "3 can't observe a session"),
        ("log", "'l' can't observe a session"),
        (SessionObserver(), "can't observe a session; pass its class, or a function that returns it"),
    ],
    ids=["number", "list", "text", "instance"],
)
async def test_what_is_no_observer_is_refused_at_once(observers: Any, words: str) -> None:
    # A mistake in the program, unlike an observer that fails: nobody would look for it in the log.
    server = FakeServer()
    with pytest.raises(TypeError, match=words):
        async with open_session(grant(), stream=server.stream, observer=observers):
            raise AssertionError
    with pytest.raises(anyio.ClosedResourceError):
        await server.stream.send(b"x")


async def test_each_of_several_is_told_whose_session_it_is() -> None:
    shelves = Shelf(), Shelf()
    info = SessionInfo(session_id="s1", host="speko.test", port=443)
    made = [make(info) for make in with_provider(shelves, provider="openai", model="gpt")]
    assert len(made) == 2
    for shelf in shelves:
        assert (shelf.books[0].info.provider, shelf.books[0].info.model) == ("openai", "gpt")
    assert with_provider(None, provider="openai", model="gpt") == ()


async def test_a_slow_consumer_is_told() -> None:
    shelf = Shelf()
    async with connected(observer=shelf, max_buffer=1000) as (session, server):
        notes = shelf.books[0].notes
        server.core.send_audio(bytes(2000))
        server.flush()
        while "paused" not in notes:
            await anyio.lowlevel.checkpoint()
        while not isinstance(await session.receive(), Audio):
            pass
        while "resumed" not in notes:
            await anyio.lowlevel.checkpoint()


async def test_without_an_observer_the_session_has_the_core_itself() -> None:
    async with connected() as (session, _):
        assert type(session._core) is ClientConnection
    async with connected(observer=Shelf()) as (session, _):
        assert type(session._core) is ObservedCore


@pytest.fixture(params=VIRTUAL_BACKENDS)
def virtual(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


class TestTime:
    @pytest.fixture
    def anyio_backend(self, virtual: object) -> object:
        return virtual

    async def test_timers_are_told(self) -> None:
        shelf = Shelf()
        async with connected(observer=shelf, ping_interval=3.0, within=60.0):
            notes = shelf.books[0].notes
            before = notes.count("timer")
            await anyio.sleep(3.5)
            assert notes.count("timer") == before + 1
