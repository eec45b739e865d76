"""Tools in a session: every call is answered exactly once, whatever becomes of the function."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with`

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar, copy_context
from typing import Any, Unpack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Close,
    Interruption,
    Ready,
    RealtimeSession,
    SessionOptions,
    ToolCall,
    ToolError,
    Transcript,
    tool,
)
from speko_anyio._net.contexts import never_swallows
from speko_anyio.client import _tool_calls as tool_calls
from speko_anyio.client.tools import AnyTool
from speko_anyio.protocol import ToolResult
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import EVERY_DRIVER, driven, settled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


INTERRUPTED = "The user interrupted, and slow was stopped before it had a result."


def add(a: int, b: int = 2) -> int:
    return a + b


@never_swallows
async def calling(
    *tools: AnyTool, server: FakeServer | None = None, **options: Unpack[SessionOptions]
) -> AsyncGenerator[tuple[RealtimeSession, FakeServer, Callable[[str, str], None]], None]:
    async with connected(server, tools=tools, **options) as (session, server):

        def call(call_id: str, name: str) -> None:
            server.core.send_tool_call(call_id, name, "{}")
            server.flush()

        assert isinstance(await session.receive(), Ready)
        yield session, server, call


async def test_calls_run_side_by_side_and_are_answered_as_they_finish() -> None:
    go = {"first": anyio.Event(), "second": anyio.Event()}

    async def first() -> str:
        await go["first"].wait()
        return "one"

    async def second() -> str:
        await go["second"].wait()
        return "two"

    async with calling(first, second) as (session, server, call):
        call("c1", "first")
        call("c2", "second")
        call("c3", "third")
        assert [await session.receive() for _ in range(3)] == [
            ToolCall("c1", "first", "{}"),
            ToolCall("c2", "second", "{}"),
            ToolCall("c3", "third", "{}"),
        ]
        for event in (go["second"], go["first"]):
            event.set()
            await settled()
        answered = [command.call_id for command in server.commands if isinstance(command, ToolResult)]
        assert answered == ["c3", "c2", "c1"]


async def test_what_the_application_answered_is_not_answered_again() -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "late"

    async with calling(slow) as (session, server, call):
        call("c1", "slow")
        await session.receive()
        await session.send_tool_result("c1", "quick")
        go.set()
        await settled()
        assert server.commands == [ToolResult("c1", "quick")]


async def test_an_interrupted_call_is_still_answered() -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "late"

    async with calling(slow) as (session, server, call):
        call("c1", "slow")
        await session.receive()
        server.core.send_interruption()
        server.flush()
        await session.receive()
        go.set()
        await settled()
        assert server.commands == [ToolResult("c1", "late")]


async def test_leaving_cancels_what_runs() -> None:
    cancelled = anyio.Event()

    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with calling(forever) as (session, _server, call):
        call("c1", "forever")
        await session.receive()
        await settled()
    assert cancelled.is_set()


async def test_a_connection_that_breaks_under_a_tool_is_the_sessions_end_and_no_failure_of_the_tool(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "late"

    async with calling(slow) as (session, server, call):
        call("c1", "slow")
        assert isinstance(await session.receive(), ToolCall)
        server.to_client.break_()
        assert isinstance(await session.receive(), Close)
        go.set()
        await settled()
        assert session.stats().tools_running == 0
        assert server.commands == []
    assert caplog.records == []


async def test_a_thread_that_hangs_does_not_keep_the_session() -> None:
    go, started = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        go.wait(10)

    try:
        async with calling(hang) as (session, _server, call):
            call("c1", "hang")
            await session.receive()
            while not started.is_set():
                await checkpoint()
        assert not go.is_set()
    finally:
        go.set()


async def test_a_flood_of_calls_is_answered_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "MAX_RUNNING_TOOLS", 2)
    running = 0

    async def forever() -> None:
        nonlocal running
        running += 1
        await anyio.sleep_forever()

    async with calling(forever) as (_session, server, call):
        for number in range(5):
            call(f"c{number}", "forever")
        await settled()
        assert running == 2
        refused = [command for command in server.commands if isinstance(command, ToolResult)]
        assert [result.call_id for result in refused] == ["c2", "c3", "c4"]
        assert all("Too many" in result.output for result in refused)


async def test_a_call_in_one_read_with_the_handshake_is_answered() -> None:
    server = FakeServer()

    def greet() -> None:
        server.accept()
        server.core.send_tool_call("c1", "add", '{"a": 1}')

    server.greet = greet
    async with connected(server, tools=[add]) as (session, _):
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), ToolCall)
        while not server.commands:
            await checkpoint()
        assert server.commands == [ToolResult("c1", "3")]


async def test_a_flood_of_calls_behind_a_goodbye_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "MAX_RUNNING_TOOLS", 0)

    async def unused() -> None:
        raise AssertionError("it ran")

    async with calling(unused) as (session, server, call):
        server.answers = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.close)
            await settled()
            call("c1", "unused")
            server.core.send_transcript("user", "late", final=True)
            server.core.close(1000, "done")
            server.flush()
            assert [type(frame) async for frame in session] == [ToolCall, Transcript, Close]


async def test_an_interruption_cancels_the_tools_that_want_it_and_the_model_is_told() -> None:
    stopped: list[str] = []

    @tool(on_interrupt="cancel")
    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("slow")

    go = anyio.Event()

    async def steady() -> str:
        await go.wait()
        return "done"

    async with calling(slow, steady) as (_session, server, call):
        call("c1", "slow")
        call("c2", "steady")
        await settled()
        server.core.send_interruption()
        server.flush()
        await settled()
        assert stopped == ["slow"]
        assert server.commands == [ToolResult("c1", INTERRUPTED)]
        go.set()
        await settled()
        assert server.commands[1:] == [ToolResult("c2", "done")]
        call("c3", "slow")
        await settled()
        assert len(server.commands) == 2


async def test_a_call_interrupted_within_the_read_that_brought_it_does_not_start() -> None:
    @tool(on_interrupt="cancel")
    async def slow() -> None:
        raise AssertionError("it ran")

    async with calling(slow) as (session, server, _):
        server.core.send_tool_call("c1", "slow", "{}")
        server.core.send_interruption()
        server.flush()
        assert [type(await session.receive()) for _ in range(2)] == [ToolCall, Interruption]
        await settled()
        assert server.commands == [ToolResult("c1", INTERRUPTED)]


async def test_a_tool_that_has_a_result_in_spite_of_its_cancellation_has_it_sent() -> None:
    go = anyio.Event()

    @tool(on_interrupt="cancel")
    async def slow() -> str:
        with anyio.CancelScope(shield=True):
            await go.wait()
        return "all of it"

    async with calling(slow) as (_session, server, call):
        call("c1", "slow")
        await settled()
        server.core.send_interruption()
        server.flush()
        await settled()
        go.set()
        await settled()
        assert server.commands == [ToolResult("c1", "all of it")]


def fail() -> None:
    raise ValueError("broken")


async def test_a_failure_is_logged_and_the_session_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with calling(fail, add) as (_session, server, call):
        for _ in range(2):
            call("c1", "fail")
            while not server.commands:
                await checkpoint()
            assert server.commands.pop() == ToolResult("c1", "The tool fail failed (ValueError).")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError] * 2


async def test_a_failure_may_end_the_session_and_the_model_is_told_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()
    with pytest.raises(ValueError, match="broken"):
        async with calling(fail, server=server, tool_errors="raise") as (_session, _, call):
            call("c1", "fail")
            await anyio.sleep_forever()
    assert server.commands == [
        ToolResult("c1", "The tool fail failed (ValueError)."),
        Close(1000, "client_closed", "remote"),
    ]
    assert caplog.records == []


async def test_a_failure_ends_the_session_also_when_the_peer_reads_nothing() -> None:
    server = FakeServer()
    with pytest.raises(ValueError, match="broken"):
        async with calling(fail, server=server, tool_errors="raise", close_timeout=0.001) as (
            _session,
            _,
            call,
        ):
            server.from_client.stall()
            call("c1", "fail")
            await anyio.sleep_forever()


async def test_what_is_meant_for_the_model_ends_no_session() -> None:
    def polite() -> None:
        raise ToolError("No such city.")

    async with calling(polite, tool_errors="raise") as (_session, server, call):
        call("c1", "polite")
        call("c2", "unheard_of")
        while len(server.commands) < 2:
            await checkpoint()
        assert {ToolResult("c1", "No such city.")} < set(server.commands)


async def test_a_place_for_errors_that_there_is_not_is_refused() -> None:
    server = FakeServer()
    with pytest.raises(ValueError, match="must be one of log, raise, not 'ignore'"):
        async with connected(server, tool_errors="ignore"):  # type: ignore[arg-type]  # what a checker says
            raise AssertionError("it opened")
    assert server.stream.closed


WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


async def test_tools_run_in_the_context_of_the_sessions_block() -> None:
    async def later() -> str:
        await checkpoint()
        return WHO.get()

    def in_thread() -> str:
        return WHO.get()

    WHO.set("block")
    async with calling(later, in_thread) as (session, server, call):
        # The context of the socket's callback, where the bytes arrive, must not matter.
        copy_context().run(_called_by_somebody_else, call)
        assert [await session.receive() for _ in range(2)] == [
            ToolCall("c1", "later", "{}"),
            ToolCall("c2", "in_thread", "{}"),
        ]
        with anyio.fail_after(5):
            while len(server.commands) < 2:
                await settled()
        assert {command.output for command in server.commands if isinstance(command, ToolResult)} == {"block"}


def _called_by_somebody_else(call: Callable[[str, str], None]) -> None:
    WHO.set("peer")
    call("c1", "later")
    call("c2", "in_thread")
