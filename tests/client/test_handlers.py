"""Plain handlers, which are called where a frame is read, and what is kept for an iteration besides them."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with`

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Audio,
    Close,
    ConnectionClosed,
    Frame,
    FrameStream,
    Interruption,
    Ready,
    RealtimeSession,
    RemoteProtocolError,
    ResponseEnd,
    ToolCall,
    Transcript,
)
from speko_anyio.client._delivery import FRAME_OVERHEAD
from speko_anyio.protocol import Commit
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import EVERY_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4
READY = Ready(24_000, 24_000)
AUDIO = Audio(PCM, 24_000)
INTERRUPTED = ResponseEnd("interrupted")


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


class Boom(Exception):
    pass


def say(server: FakeServer, *texts: str) -> None:
    for text in texts:
        server.core.send_transcript("assistant", text, final=True)
    server.flush()


def said(*texts: str) -> list[Frame]:
    return [Transcript("assistant", text, True) for text in texts]


# Called where the frame is read


async def test_it_is_called_with_what_waited_but_not_before_on_returns() -> None:
    async with connected() as (session, server):
        say(server, "a", "b")
        await settled()
        heard: list[Frame] = []
        session.on(heard.append)
        assert heard == []
        await settled()
        assert heard == [READY, *said("a", "b")]
        say(server, "c")
        await settled()
        assert heard == [READY, *said("a", "b", "c")]


async def test_no_task_runs_between_the_read_and_the_call() -> None:
    """While a task is busy without a wait, a frame that its own code brings in is handled."""
    async with connected() as (session, server):
        heard: list[Frame] = []
        session.on(heard.append)
        await settled()
        say(server, "a")
        data = bytes(server.to_client.data)
        server.to_client.data.clear()
        session._pump.receive_data(data)
        assert heard == [READY, *said("a")]


async def test_what_waited_is_handled_in_turns() -> None:
    async with connected() as (session, server):
        for _ in range(10_000):
            server.core.send_audio(PCM[:2])
        server.flush()
        await settled()
        heard: list[Frame] = []
        session.on(heard.append)
        turns = 0
        while len(heard) < 10_001:
            await checkpoint()
            turns += 1
        assert turns > 8


async def test_it_is_called_directly_however_fast_the_peer_is() -> None:
    """A task that handles what waited is never overtaken by what arrives meanwhile."""
    async with connected() as (session, server), anyio.create_task_group() as tasks:

        async def flood() -> None:
            while True:
                for _ in range(500):
                    server.core.send_audio(PCM[:2])
                server.flush()
                await checkpoint()

        tasks.start_soon(flood)
        for _ in range(20):
            await checkpoint()
        session.on(lambda frame: None)
        while session._handlers._running:
            await checkpoint()
        tasks.cancel_scope.cancel()


async def test_each_consumer_has_its_place_in_the_order() -> None:
    """A plain handler comes last in the read, when all else is up to date, and before every task."""
    events: list[str] = []

    def name(frame: Frame) -> str:
        return type(frame).__name__

    async def tool() -> str:
        events.append("tool")
        return "done"

    async with connected(tools=[tool]) as (session, server), anyio.create_task_group() as tasks:

        def first(frame: Frame) -> None:
            stats = session.stats()
            if isinstance(frame, ToolCall):
                assert stats.tool_calls == 1
            if isinstance(frame, Interruption):
                assert (stats.interruptions, stats.frames_dropped) == (1, 2)
            events.append(f"first {name(frame)}")

        async def awaited(frame: Frame) -> None:
            events.append(f"awaited {name(frame)}")

        async def iterate() -> None:
            async for frame in session:
                events.append(f"iterated {name(frame)}")  # noqa: PERF401 - not a list of its own

        session.on(awaited)
        session.on(first)
        session.on(lambda frame: events.append(f"second {name(frame)}"))
        tasks.start_soon(iterate)
        await settled()
        events.clear()
        server.core.send_audio(PCM)
        server.core.send_audio(PCM)
        server.flush()  # or the interruption would drop them there
        server.core.send_interruption()
        server.core.send_tool_call("c1", "tool", "{}")
        server.flush()
        await settled()
        kinds = ("Audio", "Audio", "Interruption", "ResponseEnd", "ToolCall")
        assert events[:10] == [f"{who} {kind}" for kind in kinds for who in ("first", "second")]
        assert sorted(events[10:]) == sorted(
            ["tool", *(f"{who} {kind}" for kind in kinds[2:] for who in ("awaited", "iterated"))]
        )
        tasks.cancel_scope.cancel()


user: ContextVar[str] = ContextVar("user", default="nobody")


async def test_it_runs_in_the_context_of_the_block() -> None:
    seen: list[str] = []

    def handle(frame: Frame) -> None:
        seen.append(user.get())
        user.set(f"{user.get()}!")

    user.set("Ann")
    async with connected() as (session, server):
        # Not the context that adds the handler, nor that of the callback that brings the frame.
        Context().run(session.on, handle)
        user.set("somebody else")
        await settled()
        say(server, "a")
        Context().run(server.flush)
        await settled()
        assert seen == ["Ann", "Ann!"]
        assert user.get() == "somebody else"


async def use_everything_that_does_not_wait() -> None:
    """Do in a plain handler what its documentation allows."""
    async with connected() as (session, server), anyio.create_task_group() as tasks:
        passed, received = anyio.create_memory_object_stream[float](10)
        event = anyio.Event()
        scope = anyio.CancelScope()

        def handle(frame: Frame) -> None:
            if isinstance(frame, Transcript):
                event.set()
                anyio.Event().set()
                passed.send_nowait(anyio.current_time())
                tasks.start_soon(session.commit)
                scope.cancel()

        session.on(handle)
        await settled()
        say(server, "a")
        with scope:
            await anyio.sleep_forever()
        await event.wait()
        assert await received.receive() <= anyio.current_time()
        await settled()
        assert server.commands == [Commit()]
        passed.close()
        received.close()


async def test_it_may_use_everything_that_does_not_wait() -> None:
    await use_everything_that_does_not_wait()


def test_it_may_do_so_in_a_program_that_anyio_did_not_start(
    anyio_backend: tuple[str, Any],
) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("trio knows that it runs")
    factory = anyio_backend[1].get("loop_factory")
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(use_everything_that_does_not_wait())


# Handlers that change what is attached


async def test_a_handler_stops_itself_another_and_adds_one() -> None:
    async with connected() as (session, server):
        heard: list[str] = []

        def hear(name: str, frame: Frame) -> None:
            if isinstance(frame, Transcript):
                heard.append(f"{name} {frame.text}")

        def change(frame: Frame) -> None:
            hear("changer", frame)
            if frame == said("b")[0]:
                stop_changer()
                stop_other()
                session.on(partial(hear, "added"))

        stop_changer = session.on(change)
        stop_other = session.on(partial(hear, "other"))
        session.on(partial(hear, "third"))
        await settled()
        say(server, "a", "b", "c")
        await settled()
        stop_other()
        say(server, "d")
        await settled()
        third = [entry for entry in heard if entry.startswith("third")]
        assert third == ["third a", "third b", "third c", "third d"]
        rest = [entry for entry in heard if entry not in third]
        assert rest == ["changer a", "other a", "changer b", "added c", "added d"]


async def test_on_is_refused_once_the_close_is_handled() -> None:
    async with connected() as (session, server):
        refused: list[Exception] = []

        def add_another(frame: Frame) -> None:
            if isinstance(frame, Close):
                with pytest.raises(ConnectionClosed) as caught:
                    session.on(print)
                refused.append(caught.value)

        session.on(add_another)
        await settled()
        server.core.close(1000, "done")
        server.flush()
        await settled()
        assert len(refused) == 1


async def test_a_handler_may_close_and_abort_the_session_at_once(anyio_backend: tuple[str, Any]) -> None:
    """As a task does that starts eagerly and is cancelled at once: within the delivery of a frame."""
    if anyio_backend[0] != "asyncio":
        pytest.skip("no task of trio starts at once")
    async with connected() as (session, server):
        heard: list[Frame] = []
        told: list[int] = []

        def close(frame: Frame) -> None:
            heard.append(frame)
            if frame == said("b")[0]:
                closing: Any = session.close(4000, "enough")
                closing.send(None)
                told.append(len(heard))
                closing.close()
                told.append(len(heard))

        session.on(close)
        await settled()
        say(server, "a", "b", "c")
        await settled()
        # One frame after the other, though the end came within a call.
        assert told == [3, 3]
        assert [type(frame) for frame in heard[:3]] == [Ready, Transcript, Transcript]
        assert heard[3:] in ([*said("c"), session.closed], [session.closed])
        assert session.closed is not None
        assert isinstance(await session.receive(), Close)
        assert server.stream.closed


# Functions that return an awaitable


async def test_a_function_that_returns_an_awaitable_gets_each_frame_after_it() -> None:
    async with connected() as (session, server):
        go = anyio.Event()
        heard: list[str] = []
        calls: list[str] = []

        async def attend(text: str) -> None:
            await go.wait()
            await checkpoint()
            heard.append(text)

        def handle(frame: Frame) -> Awaitable[None] | None:
            if not isinstance(frame, Transcript):
                return None
            calls.append(frame.text)
            return attend(frame.text) if frame.text != "c" else None

        stop = session.on(handle)
        await settled()
        say(server, "a", "b", "c")
        say(server, "d")
        await settled()
        assert (calls, heard) == (["a"], [])
        go.set()
        await settled()
        assert (calls, heard) == (["a", "b", "c", "d"], ["a", "b", "d"])
        stop()
        say(server, "e")
        await settled()
        assert calls == ["a", "b", "c", "d"]


async def test_a_handler_may_return_the_coroutine_of_a_send() -> None:
    async with connected() as (session, server):
        session.on(lambda frame: session.commit() if isinstance(frame, Transcript) else None)
        await settled()
        say(server, "a", "b")
        await settled()
        assert server.commands == [Commit(), Commit()]


async def test_the_awaitable_that_the_close_brings_is_awaited() -> None:
    finished = False

    async def finish() -> None:
        nonlocal finished
        await checkpoint()
        finished = True

    async with connected() as (session, _):
        session.on(lambda frame: finish() if isinstance(frame, Close) else None)
        await settled()
    assert finished


async def test_a_slow_awaitable_stops_the_reading() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=4 * (len(PCM) + FRAME_OVERHEAD)) as (session, _):
        go = anyio.Event()
        heard = 0

        async def wait() -> None:
            nonlocal heard
            await go.wait()
            heard += 1

        session.on(lambda frame: wait() if isinstance(frame, Audio) else None)
        await settled()
        for _ in range(50):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert not server.stream.receiving
        go.set()
        await settled()
        assert heard == 50


# Errors


class Exit(SystemExit):
    pass


@pytest.mark.parametrize("error", [Boom, Exit, KeyboardInterrupt])
async def test_its_error_comes_out_of_the_block_and_is_its_last(error: type[BaseException]) -> None:
    server = FakeServer()
    calls: list[Frame] = []
    others: list[Frame] = []
    iterated: list[Frame] = []

    def fail(frame: Frame) -> None:
        if isinstance(frame, Transcript):
            calls.append(frame)
            raise error

    with pytest.raises(error):
        async with connected(server) as (session, _):
            session.on(fail)
            session.on(others.append)
            await settled()
            say(server, "a", "b")
            async for frame in session:
                iterated.append(frame)  # noqa: PERF401 - what came before the error counts
    assert calls == said("a")
    assert others[:3] == [READY, *said("a", "b")]
    assert isinstance(others[-1], Close)
    assert server.stream.closed


async def test_the_cancellation_of_something_else_comes_out_too(anyio_backend: tuple[str, object]) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("asyncio's own cancellation, which comes from anywhere")

    def ask(frame: Frame) -> None:
        if isinstance(frame, Transcript):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            future.result()

    server = FakeServer()
    with pytest.raises(asyncio.CancelledError):
        async with connected(server) as (session, _):
            session.on(ask)
            await settled()
            say(server, "a")
            await anyio.sleep_forever()
    assert server.stream.closed


async def test_it_may_learn_of_the_end_by_an_error() -> None:
    heard: list[Frame] = []

    def handle(frame: Frame) -> None:
        heard.append(frame)
        if isinstance(frame, Close):
            raise ConnectionClosed(code=1000, reason="done", initiated_by="remote")

    async with connected() as (session, server):
        session.on(handle)
        await settled()
        server.core.close(1000, "done")
        server.flush()
        assert [type(frame) async for frame in session] == [Close]
    assert [type(frame) for frame in heard] == [Ready, Close]


# What is kept for an iteration


async def plain(session: RealtimeSession, stack: AsyncExitStack) -> None:
    session.on(lambda frame: None)


async def awaited(session: RealtimeSession, stack: AsyncExitStack) -> None:
    async def handle(frame: Frame) -> None:
        await checkpoint()

    session.on(handle)


async def promoted(session: RealtimeSession, stack: AsyncExitStack) -> None:
    session.on(lambda frame: checkpoint())


async def streamed(session: RealtimeSession, stack: AsyncExitStack) -> None:
    tasks = await stack.enter_async_context(anyio.create_task_group())
    frames = await stack.enter_async_context(session.frames())

    async def read(frames: FrameStream[Frame]) -> None:
        async for _ in frames:
            pass

    tasks.start_soon(read, frames)


Attach = Callable[[RealtimeSession, AsyncExitStack], Awaitable[None]]


@pytest.fixture(params=[plain, awaited, promoted, streamed])
def attach(request: pytest.FixtureRequest) -> Attach:
    chosen: Attach = request.param
    return chosen


async def test_an_iteration_that_begins_late_starts_with_the_next_frame(attach: Attach) -> None:
    async with connected() as (session, server):
        say(server, "waited")
        await settled()
        async with AsyncExitStack() as stack:
            await attach(session, stack)
            await settled()
            assert session.stats().frames_buffered == 0
            say(server, "missed")
            await settled()
            assert session.stats().frames_buffered == 0
            got: list[Frame] = []
            async with anyio.create_task_group() as tasks:

                async def iterate() -> None:
                    async for frame in session:
                        got.append(frame)  # noqa: PERF401 - looked at before the end

                tasks.start_soon(iterate)
                await settled()
                assert got == []
                say(server, "next")
                await settled()
                assert got == said("next")
                await session.close()
            assert [type(frame) for frame in got] == [Transcript, Close]
        assert session.stats().frames_dropped == 0


async def test_an_iteration_that_begins_at_once_misses_nothing(attach: Attach) -> None:
    async with connected() as (session, server):
        say(server, "waited")
        await settled()
        async with AsyncExitStack() as stack:
            await attach(session, stack)
            assert await session.receive() == READY
            say(server, "later")
            await settled()
            assert [await session.receive() for _ in range(2)] == said("waited", "later")
            await session.close()
            assert isinstance(await session.receive(), Close)


async def test_an_iteration_after_the_end_gets_the_close(attach: Attach) -> None:
    async with connected() as (session, server):
        async with AsyncExitStack() as stack:
            await attach(session, stack)
            await settled()
            say(server, "missed")
            server.core.close(4000, "done")
            server.flush()
            await settled()
        assert [frame async for frame in session] == [Close(4000, "done", "remote")]
        with pytest.raises(ConnectionClosed):
            await session.receive()


async def test_when_the_last_handler_has_stopped_frames_wait_again() -> None:
    async with connected() as (session, server):
        stop = session.on(lambda frame: None)
        await settled()
        say(server, "missed")
        await settled()
        stop()
        say(server, "kept")
        await settled()
        assert await session.receive() == said("kept")[0]


async def test_a_session_with_handlers_only_takes_no_memory_for_its_audio(attach: Attach) -> None:
    piece = bytes(30_000)
    async with connected() as (session, server), AsyncExitStack() as stack:
        await attach(session, stack)
        await settled()

        async def hear(pieces: int) -> None:
            for _ in range(pieces):
                server.core.send_audio(piece)
                server.flush()
                for _ in range(20):  # `settled` takes long while memory is traced
                    await checkpoint()

        await hear(3)
        tracemalloc.start()
        try:
            await hear(30)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 5 * len(piece)
        await session.close()


# All frames that wait


async def test_receive_many_gives_all_that_wait_in_order() -> None:
    async with connected() as (session, server):
        say(server, "a", "b")
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert await session.receive_many() == [READY, *said("a", "b"), AUDIO]
        assert session.stats().bytes_buffered == 0
        got: list[list[Frame]] = []
        async with anyio.create_task_group() as tasks:

            async def take() -> None:
                got.append(await session.receive_many())

            tasks.start_soon(take)
            await settled()
            assert got == []
            for read in (session.receive_many, session.receive):
                with pytest.raises(anyio.BusyResourceError, match="give each reader its own"):
                    await read()
            say(server, "c", "d")
        assert got == [said("c", "d")]


async def test_receive_many_and_receive_take_turns() -> None:
    async with connected() as (session, server):
        say(server, "a", "b", "c")
        await settled()
        assert await session.receive() == READY
        assert await anext(session) == said("a")[0]
        assert await session.receive_many() == said("b", "c")
        say(server, "d")
        assert await session.receive() == said("d")[0]


async def test_an_interruption_discards_the_audio_before_it_in_the_same_list() -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert await session.receive_many() == [READY, AUDIO]
        server.core.send_audio(PCM)
        say(server, "a")
        await settled()
        server.core.send_interruption()
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert await session.receive_many() == [*said("a"), Interruption(), INTERRUPTED, AUDIO]
        assert session.stats().frames_dropped == 1
        # What was taken does not count for the next interruption.
        server.core.send_interruption()
        server.flush()
        assert await session.receive_many() == [Interruption(), INTERRUPTED]
        assert session.stats().frames_dropped == 1


async def test_the_last_list_ends_with_the_close_and_then_come_the_errors() -> None:
    async with connected() as (session, server):
        say(server, "a")
        server.core.close(4000, "done")
        server.flush()
        await settled()
        close = Close(4000, "done", "remote")
        assert await session.receive_many() == [READY, *said("a"), close]
        for _ in range(2):
            with pytest.raises(ConnectionClosed):
                await session.receive_many()


async def test_after_a_violation_receive_many_raises_it() -> None:
    async with connected() as (session, server):
        say(server, "a")
        server.raw(b"\x81\x03{]}")
        await settled()
        frames = await session.receive_many()
        assert [type(frame) for frame in frames] == [Ready, Transcript, Close]
        with pytest.raises(RemoteProtocolError):
            await session.receive_many()


async def test_receive_many_loses_nothing_when_it_is_cancelled() -> None:
    async with connected() as (session, server):
        say(server, "a")
        await settled()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.receive_many()
        assert scope.cancelled_caught
        assert await session.receive_many() == [READY, *said("a")]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.receive_many)
            await settled()
            tasks.cancel_scope.cancel()
        say(server, "b")
        assert await session.receive_many() == said("b")


async def test_receive_many_makes_room_for_the_reading() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=4 * (len(PCM) + FRAME_OVERHEAD)) as (session, _):
        for _ in range(50):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert not server.stream.receiving
        got: list[Frame] = []
        while len(got) < 51:
            frames = await session.receive_many()
            assert 1 <= len(frames) <= 6
            got += frames
        assert got == [READY, *[AUDIO] * 50]
