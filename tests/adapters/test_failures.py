"""Everything that goes wrong, one by one, and what the user sees of it: no hang, no leak, no group."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Audio,
    Close,
    ConnectionClosed,
    Frame,
    HandshakeError,
    HistoryItem,
    LocalProtocolError,
    Ready,
    RealtimeSession,
    RemoteProtocolError,
    SessionOptions,
    Speko,
    SpekoError,
    ToolCall,
    Transcript,
    open_session,
)
from speko_anyio._net import asyncio_driver
from speko_anyio.client._pump import Pump
from speko_anyio.protocol import AudioIn, Commit, ToolResult
from speko_anyio.protocol._extensions import COMMANDS
from speko_anyio.testing.server import TOKEN, FakeServer, connected, grant
from tests.support.cancellation import cancel_at_each_await
from tests.support.drivers import settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4
LONG = bytes(100_000)
"""Longer than what a driver holds back for a moment: sending it waits for the transport."""
READY = Ready(24_000, 24_000)


class Boom(Exception):
    pass


# The handshake


async def test_a_refusal_gives_its_status_and_not_the_token() -> None:
    server = FakeServer()
    server.greet = lambda: server.core.refuse(401, f'{{"error": "token {TOKEN} is used", "code": "X"}}')
    with pytest.raises(HandshakeError, match="HTTP 401") as caught:
        async with connected(server):
            raise AssertionError("opened")
    assert caught.value.status == 401
    assert TOKEN not in str(caught.value)
    assert server.stream.closed


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff\xfe garbage",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: bm90IHRoZSBvbmU=\r\n\r\n"
        ),
    ],
    ids=["garbage", "bare 101", "ssh", "wrong accept"],
)
async def test_an_answer_that_is_no_handshake_is_one_error(answer: bytes) -> None:
    server = FakeServer()
    server.answers = False
    server.raw(answer)
    server.hang_up()
    with pytest.raises((RemoteProtocolError, HandshakeError)):
        async with connected(server):
            raise AssertionError("opened")
    assert server.stream.closed


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Swit"])
async def test_a_server_that_hangs_up_in_the_handshake(said: bytes) -> None:
    server = FakeServer()
    server.answers = False
    server.raw(said)
    server.hang_up()
    with pytest.raises(HandshakeError):
        async with connected(server):
            raise AssertionError("opened")
    assert server.stream.closed


async def test_a_connection_that_breaks_in_the_handshake() -> None:
    server = FakeServer()
    server.from_client.break_()
    with pytest.raises(HandshakeError):
        async with connected(server):
            raise AssertionError("opened")
    assert server.stream.closed


async def test_nothing_is_opened_before_the_block_is_entered() -> None:
    server = FakeServer()
    opening = open_session(grant(), stream=server.stream)
    await settled()
    assert server.wire == b""
    assert not server.stream.receiving
    async with opening as session:
        assert await session.receive() == READY


async def test_a_session_accepted_and_closed_in_one_breath_is_a_session() -> None:
    server = FakeServer()

    def greet() -> None:
        server.core.accept()
        server.core.close(4401, "token used")

    server.greet = greet
    async with connected(server) as (session, _):
        assert [frame async for frame in session] == [Close(4401, "token used", "remote")]


async def test_a_grant_that_cannot_be_used_opens_nothing() -> None:
    server = FakeServer()
    with pytest.raises(LocalProtocolError):
        async with open_session(grant("https://speko.test/x"), stream=server.stream):
            raise AssertionError("opened")
    assert server.wire == b""
    assert server.stream.closed


@pytest.mark.parametrize(("name", "value"), [("tools", [3]), ("conect_timeout", 1)])
async def test_arguments_that_cannot_be_used_leave_no_stream_open(name: str, value: object) -> None:
    server = FakeServer()
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(TypeError):
        async with open_session(grant(), stream=server.stream, **arguments):
            raise AssertionError("opened")
    assert server.wire == b""
    assert server.stream.closed


# The connection


@pytest.mark.parametrize("in_message", [False, True], ids=["between messages", "mid-frame"])
async def test_a_peer_that_hangs_up(in_message: bool) -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.flush()
        if in_message:
            server.raw(b"\x82\x7e\x04\x00half a frame")
        server.hang_up()
        frames = [frame async for frame in session]
        assert frames[:2] == [READY, Audio(PCM, 24_000)]
        assert isinstance(frames[2], Close)
        assert (frames[2].code, frames[2].initiated_by) == (1006, "transport")
        with pytest.raises(ConnectionClosed):
            await session.commit()
        await settled()
        assert server.stream.closed


async def test_a_connection_that_breaks_wakes_the_receiver() -> None:
    async with connected() as (session, server):
        frames: list[Frame] = []

        async def receive() -> None:
            frames.extend([frame async for frame in session])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await settled()
            server.to_client.break_()
        assert frames[-1] == session.closed
        with pytest.raises(ConnectionClosed) as caught:
            await session.receive()
        assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


async def test_a_send_into_a_broken_connection_ends_the_session() -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        server.from_client.break_()
        with pytest.raises(ConnectionClosed) as caught:
            await session.send_audio(LONG)
        assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)
        assert [type(frame) async for frame in session] == [Ready, Audio, Close]
        await settled()
        assert server.stream.closed


async def test_whoever_waits_to_send_or_to_close_is_told_when_the_connection_breaks() -> None:
    async with connected() as (session, server):
        server.from_client.stall()
        told: list[str] = []

        async def send() -> None:
            with pytest.raises(ConnectionClosed):
                await session.send_audio(LONG)
            told.append("sender")

        async def send_behind_it() -> None:
            with pytest.raises(ConnectionClosed):
                await session.commit()
            told.append("sender behind it")

        async def close() -> None:
            await session.close()
            told.append("closer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await settled()
            tasks.start_soon(send_behind_it)
            tasks.start_soon(close)
            await settled()
            assert told == []
            server.to_client.break_()
        assert sorted(told) == ["closer", "sender", "sender behind it"]


@pytest.mark.parametrize("stuck", ["reads nothing", "answers nothing"])
async def test_a_peer_that_is_stuck_holds_up_the_leaving_only_so_long(stuck: str) -> None:
    async with connected(close_timeout=0.01) as (session, server):
        if stuck == "reads nothing":
            server.from_client.stall()
        else:
            server.answers = False
    assert session.closed is not None
    assert (session.closed.code, session.closed.initiated_by) == (1006, "local")
    assert server.stream.closed


async def test_the_end_of_a_lost_session_is_not_that_of_the_next_one() -> None:
    client = Speko("k").realtime
    lost, server = FakeServer(), FakeServer()
    async with client.open(grant(), stream=lost.stream) as session:
        lost.to_client.break_()
        assert [type(frame) async for frame in session] == [Ready, Close]
    async with client.open(grant(), stream=server.stream) as session:
        assert await session.receive() == READY
        await session.commit()
        await settled()
        assert server.commands == [Commit()]
        assert session.closed is None


async def test_good_frames_in_one_read_with_a_bad_one_are_delivered_first() -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.core.send_transcript("user", "so", final=True)
        server.raw(server.core.data_to_send() + b"\xff\xff")
        frames: list[Frame] = []
        with pytest.raises(RemoteProtocolError):
            async for frame in session:
                frames.append(frame)  # noqa: PERF401 - what came before the error counts
        assert [type(frame) for frame in frames] == [Ready, Audio, Transcript, Close]


async def test_a_ping_behind_the_frames_that_fill_the_buffer_is_answered() -> None:
    async with connected(max_buffer=len(PCM)) as (session, server):
        before = len(server.wire)
        server.core.send_audio(PCM)
        server.core.send_audio(PCM)
        server.raw(server.core.data_to_send() + b"\x89\x00")
        await settled()
        assert not server.stream.receiving
        assert bytes(server.wire[before : before + 2]) == b"\x8a\x80"
        assert session.closed is None


async def test_a_handler_that_sends_while_its_buffer_is_full_blocks_nobody() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=2 * len(PCM)) as (session, _):
        heard: list[Frame] = []

        async def answer(frame: Frame) -> None:
            await session.send_audio(PCM)
            await checkpoint()
            heard.append(frame)

        session.on(answer)
        for _ in range(30):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        await settled()
        assert [type(frame) for frame in heard] == [Ready, *[Audio] * 30]
        assert len(server.commands) == 31


async def test_a_handler_that_waits_for_the_goodbye_while_its_buffer_is_full_blocks_nobody() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=2 * len(PCM)) as (session, _):
        go = anyio.Event()

        async def leave(frame: Frame) -> None:
            await go.wait()
            await session.close(4000, "heard enough")

        session.on(leave)
        for _ in range(30):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert not server.stream.receiving
        go.set()
        while session.closed is None:
            await checkpoint()
        assert session.closed == Close(4000, "heard enough", "local")


async def test_a_send_cancelled_while_it_writes_ends_the_session() -> None:
    async with connected() as (session, server):
        server.from_client.stall()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.send_audio, LONG)
                await settled()
                scope.cancel()
        assert scope.cancelled_caught
        with pytest.raises(ConnectionClosed):
            await session.commit()
        assert [type(frame) async for frame in session] == [Ready, Close]
        await settled()
        assert server.stream.closed


@pytest.mark.parametrize("reading", [False, True])
async def test_a_cancellation_is_noticed_by_the_16th_send_at_the_latest(reading: bool) -> None:
    """Also when the session reads between the sends, in a task that is shielded meanwhile."""
    async with connected() as (session, server):
        session.on(lambda frame: None)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(100):
                if reading:
                    server.core.send_audio(PCM)
                    server.flush()
                    with anyio.CancelScope(shield=True):
                        await settled()
                await session.send_audio(PCM)
        assert scope.cancelled_caught
        await settled()
        assert len([command for command in server.commands if isinstance(command, AudioIn)]) <= 16


async def test_senders_that_wait_behind_a_cancelled_one_are_told() -> None:
    async with connected() as (session, server):
        server.from_client.stall()
        told: list[type[BaseException]] = []

        async def wait_and_send() -> None:
            try:
                await session.commit()
            except ConnectionClosed as error:
                told.append(type(error))

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(session.send_audio, LONG)
                    await settled()
                    tasks.start_soon(wait_and_send)
                    tasks.start_soon(wait_and_send)
                    await settled()
                    scope.cancel()
        assert told == [ConnectionClosed, ConnectionClosed]
        assert server.commands == []


async def test_cancelling_a_sender_in_the_queue_harms_nobody() -> None:
    async with connected() as (session, server):
        server.from_client.stall()

        async def send() -> None:
            for _ in range(3):
                await session.send_audio(PCM)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await settled()
            with anyio.move_on_after(0.01):
                await session.clear()
            server.from_client.resume()
        await session.commit()
        await settled()
        assert [type(command).__name__ for command in server.commands] == [*["AudioIn"] * 3, "Commit"]


async def test_a_send_cancelled_behind_one_that_was_just_written_is_not_heard_or_is_the_end() -> None:
    async with connected() as (session, server):
        await session.clear()
        await settled()
        server.from_client.stall()
        written = len(server.wire)

        async def send_at_once() -> None:
            while len(server.wire) == written:
                await checkpoint()
            server.from_client.stall()
            await session.send_audio(b"\x01" * len(LONG))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.send_audio, LONG)
            await settled()
            async with anyio.create_task_group() as inner:
                inner.start_soon(send_at_once)
                await checkpoint()
                server.from_client.resume()
                await settled()
                inner.cancel_scope.cancel()
            server.from_client.resume()
        await settled()
        heard = b"".join(command.pcm for command in server.commands if isinstance(command, AudioIn))
        assert LONG in heard
        assert session.closed is not None or b"\x01" not in heard


async def test_a_ping_that_comes_between_two_sends_is_answered_though_the_second_is_refused() -> None:
    async with connected() as (session, server):
        await session.clear()
        await settled()
        server.from_client.stall()
        receive = server.from_client.sink
        assert receive is not None

        def receive_and_ping(data: bytes) -> None:
            server.from_client.sink = receive
            receive(data)
            server.raw(b"\x89\x00")

        async def answer_nobody() -> None:
            with pytest.raises(LocalProtocolError):
                await session.send_tool_result("c9", "")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.send_audio, LONG)
            await settled()
            tasks.start_soon(answer_nobody)
            await settled()
            server.from_client.sink = receive_and_ping
            server.from_client.resume()
        await settled()
        assert bytes(server.wire[-6:-4]) == b"\x8a\x80"


# The body


async def test_the_bodys_exception_comes_out_as_it_is() -> None:
    error = Boom()
    server = FakeServer()
    with pytest.raises(Boom) as caught:
        async with connected(server):
            raise error
    assert caught.value is error
    assert server.commands == [Close(1000, "client_closed", "remote")]
    assert server.stream.closed


async def test_the_bodys_exception_looks_as_if_it_went_straight_through() -> None:
    with pytest.raises(Boom) as caught:
        async with open_session(grant(), stream=FakeServer().stream):
            raise Boom
    assert {frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)} == {__file__}


async def test_a_session_is_opened_once() -> None:
    block = open_session(grant(), stream=FakeServer().stream)
    async with block:
        with pytest.raises(RuntimeError, match="once"):
            await block.__aenter__()
    with pytest.raises(RuntimeError, match="once"):
        await block.__aenter__()


async def test_the_bodys_own_group_passes_untouched() -> None:
    group = ExceptionGroup("mine", [Boom(), ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with connected():
            raise group
    assert caught.value is group


async def test_an_exit_of_the_program_passes_bare_and_waits_for_nobody() -> None:
    server = FakeServer()
    with pytest.raises(KeyboardInterrupt):
        async with connected(server):
            server.answers = False
            raise KeyboardInterrupt
    assert server.stream.closed


async def test_a_cancellation_comes_out_as_one() -> None:
    with anyio.CancelScope() as scope:
        with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
            async with connected():
                scope.cancel()
                await anyio.sleep_forever()
        raise caught.value
    assert scope.cancelled_caught


async def test_an_error_in_a_task_of_the_body_keeps_the_bodys_own_group() -> None:
    async def fail() -> None:
        raise Boom

    with pytest.raises(ExceptionGroup) as caught:
        async with connected() as (session, _server), anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await session.receive()
            await anyio.sleep_forever()
    assert [type(error) for error in caught.value.exceptions] == [Boom]


async def test_the_bodys_error_survives_an_outer_cancellation() -> None:
    with pytest.raises(Boom):
        with anyio.CancelScope() as scope:
            async with connected():
                scope.cancel()
                raise Boom


async def test_a_cancelled_body_has_a_live_connection_while_it_cleans_up() -> None:
    server = FakeServer()
    sessions: list[RealtimeSession] = []
    with anyio.CancelScope() as scope:
        async with connected(server) as (session, _):
            sessions.append(session)
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    assert await session.receive() == READY
                    await session.commit()
                    server.core.send_audio(PCM)
                    server.flush()
                    assert await session.receive() == Audio(PCM, 24_000)
    assert scope.cancelled_caught
    # It says goodbye, unlike a lost connection.
    assert server.commands == [Commit(), Close(1001, "client_cancelled", "remote")]
    assert server.stream.closed
    (closed,) = (session.closed for session in sessions)
    assert closed is not None
    assert closed.initiated_by == "local"


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, None])
async def test_an_end_that_does_not_wait_says_goodbye_all_the_same(end: type[BaseException] | None) -> None:
    server = FakeServer()
    with anyio.CancelScope() as scope, contextlib.suppress(SystemExit, KeyboardInterrupt):
        async with connected(server) as (session, _):
            await session.send_audio(PCM)
            if end is not None:
                raise end
            scope.cancel()
            await anyio.sleep_forever()
    assert server.commands == [AudioIn(PCM, 24_000), Close(1001, "client_cancelled", "remote")]


@pytest.mark.parametrize("writing", [False, True])
async def test_a_cancelled_block_does_not_wait_for_a_peer_that_does_not_read(writing: bool) -> None:
    server = FakeServer()
    said = 0
    with anyio.fail_after(5):
        async with anyio.create_task_group() as outside:
            with anyio.CancelScope() as scope:
                async with connected(server, close_timeout=3600.0) as (session, _):
                    server.from_client.stall()
                    if writing:
                        outside.start_soon(send_until_the_end, session)
                    await settled()
                    said = len(server.wire)
                    scope.cancel()
                    await anyio.sleep_forever()
    assert server.stream.closed
    assert len(server.wire) == said


async def send_until_the_end(session: RealtimeSession) -> None:
    with contextlib.suppress(ConnectionClosed):
        await session.send_audio(LONG)


async def test_whoever_waits_outside_the_block_is_woken_when_it_is_cancelled() -> None:
    woken: list[str] = []

    async def receive(session: RealtimeSession) -> None:
        assert [type(frame) async for frame in session] == [Ready, Close]
        woken.append("receiver")

    async def take(session: RealtimeSession) -> None:
        async with session.frames(Transcript) as frames:
            assert [frame async for frame in frames] == []
        woken.append("consumer")

    async def send(session: RealtimeSession) -> None:
        with pytest.raises(ConnectionClosed):
            await session.send_audio(LONG)
        woken.append("sender")

    async def close(session: RealtimeSession) -> None:
        await session.close()
        woken.append("closer")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as outside:
            with anyio.CancelScope() as scope:
                async with connected() as (session, server):
                    server.from_client.stall()
                    for wait in (receive, take, send, close):
                        outside.start_soon(wait, session)
                        await settled()
                    assert woken == []
                    scope.cancel()
                    await anyio.sleep_forever()
    assert sorted(woken) == ["closer", "consumer", "receiver", "sender"]


# Handlers


async def fail_later(frame: Frame) -> None:
    await checkpoint()
    raise Boom


def fail_now(frame: Frame) -> None:
    raise Boom


@pytest.mark.parametrize("handler", [fail_now, fail_later])
async def test_a_failing_handler_cancels_the_body_and_comes_out_bare(
    handler: Callable[[Frame], object],
) -> None:
    server = FakeServer()
    with pytest.raises(Boom):
        async with connected(server) as (session, _):
            session.on(handler)
            await anyio.sleep_forever()
    assert server.stream.closed
    assert server.commands == [Close(1000, "client_closed", "remote")]


@pytest.mark.parametrize("exit_", [SystemExit, KeyboardInterrupt])
async def test_an_exit_in_a_handler_comes_out_bare_and_waits_for_nobody(exit_: type[BaseException]) -> None:
    server = FakeServer()

    def leave(frame: Frame) -> None:
        server.answers = False
        raise exit_

    with pytest.raises(exit_):
        async with connected(server) as (session, _):
            session.on(leave)
            await anyio.sleep_forever()
    assert server.stream.closed


@pytest.mark.parametrize("exit_", [SystemExit, KeyboardInterrupt])
async def test_an_exit_in_a_tool_comes_out_bare(exit_: type[BaseException]) -> None:
    async def leave() -> None:
        raise exit_

    server = FakeServer()
    with pytest.raises(exit_):
        async with connected(server, tools=[leave]):
            server.core.send_tool_call("c1", "leave", "{}")
            server.flush()
            await anyio.sleep_forever()
    assert server.stream.closed


async def cancelled_by_somebody_else() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def test_a_handler_whose_own_wait_was_cancelled_does_not_end_the_block_in_silence(
    anyio_backend: tuple[str, object],
) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("asyncio's own cancellation, which comes from anywhere")

    async def wait(frame: Frame) -> None:
        await cancelled_by_somebody_else()

    server = FakeServer()
    with pytest.raises(asyncio.CancelledError):
        async with connected(server) as (session, _):
            session.on(wait)
            await anyio.sleep_forever()
    assert server.stream.closed


async def test_a_tool_whose_own_wait_was_cancelled_is_answered_and_the_session_goes_on(
    anyio_backend: tuple[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("asyncio's own cancellation, which comes from anywhere")

    async def wait() -> None:
        await cancelled_by_somebody_else()

    async with connected(tools=[wait]) as (session, server):
        server.core.send_tool_call("c1", "wait", "{}")
        server.flush()
        await settled()
        assert server.commands == [ToolResult("c1", "The tool wait failed (CancelledError).")]
        assert session.closed is None
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["tool wait failed"]


async def test_a_handler_that_fails_on_the_way_out_is_not_swallowed() -> None:
    def fail_on_close(frame: Frame) -> None:
        if isinstance(frame, Close):
            raise Boom

    with pytest.raises(Boom):
        async with connected() as (session, _server):
            session.on(fail_on_close)


async def test_when_body_and_handler_fail_the_body_wins_and_the_handler_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="body"):
        async with connected() as (session, _server):
            session.on(fail_now)
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("body")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Boom]


async def test_the_failures_of_two_handlers_are_both_seen(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Boom):
        async with connected() as (session, _server):
            session.on(fail_now)
            session.on(fail_now)
            await anyio.sleep_forever()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Boom]


async def test_a_bug_in_the_session_is_one_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()

    def broken(pump: Pump, data: bytes) -> None:
        raise ZeroDivisionError("no such thing")

    with pytest.raises(SpekoError, match="report") as caught:
        async with connected(server):
            monkeypatch.setattr(Pump, "receive_data", broken)
            server.raw(b"\x89\x00")
            await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert server.stream.closed


# Cancelled at each await


async def scenario_receive(session: RealtimeSession, server: FakeServer) -> None:
    server.core.send_audio(PCM)
    server.core.send_tool_call("c1", "slow_tool", "{}")
    server.flush()
    for _ in range(3):
        await session.receive()


async def scenario_send(session: RealtimeSession, server: FakeServer) -> None:
    await session.send_audio(PCM)
    await session.commit()
    await session.interrupt()


async def scenario_handlers(session: RealtimeSession, server: FakeServer) -> None:
    async def handler(frame: Frame) -> None:
        await session.commit()

    session.on(handler)
    session.on(lambda frame: None)
    server.core.send_audio(PCM)
    server.flush()
    await session.receive()
    await session.receive()


async def scenario_close(session: RealtimeSession, server: FakeServer) -> None:
    await session.close(4000, "enough")
    assert [type(frame) async for frame in session] == [Ready, Close]


async def scenario_peer_closes(session: RealtimeSession, server: FakeServer) -> None:
    server.core.close(4000, "enough")
    server.flush()
    assert [type(frame) async for frame in session] == [Ready, Close]


async def scenario_violation(session: RealtimeSession, server: FakeServer) -> None:
    server.raw(b"\xff\xff\xff")
    with pytest.raises(RemoteProtocolError):
        async for _ in session:
            pass


async def scenario_conversation(session: RealtimeSession, server: FakeServer) -> None:
    await session.send_text("Hello")
    await session.say("Welcome")
    await session.respond()
    await session.send_image(b"x", mime_type="image/png")
    await session.update(system_prompt="Be brief.", tools=[slow_tool])


async def slow_tool() -> str:
    await checkpoint()
    await checkpoint()
    return "done"


Scenario = Callable[[RealtimeSession, FakeServer], Awaitable[None]]


@pytest.mark.parametrize(
    "scenario",
    [
        scenario_receive,
        scenario_send,
        scenario_handlers,
        scenario_close,
        scenario_peer_closes,
        scenario_violation,
        scenario_conversation,
    ],
)
@pytest.mark.parametrize(
    "beginning",
    [{}, {"history": [HistoryItem("user", "Hello")], "greeting": "Hello again."}],
    ids=["", "begins"],
)
async def test_cancelled_at_each_await_it_ends_and_leaves_nothing(
    scenario: Scenario, beginning: SessionOptions
) -> None:
    turns = await cancel_at_each_await(
        lambda: FakeServer(extensions=COMMANDS),
        scenario,
        RealtimeSession.commit,
        tools=[slow_tool],
        **beginning,
    )
    assert turns > 3  # on trio most sends take no turn, and the shortest scenario takes five


async def test_cancelled_by_asyncio_itself_at_each_await(anyio_backend: tuple[str, object]) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("asyncio's own cancellation, which strikes once and not at every await")
    for turns in range(12):
        server = FakeServer()

        async def run(server: FakeServer) -> None:
            async with open_session(grant(), stream=server.stream) as session:
                session.on(lambda frame: None)
                await session.send_audio(PCM)
                await session.receive()
                await anyio.sleep_forever()

        task = asyncio.ensure_future(run(server))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert server.stream.closed or not server.stream.sends


def test_a_loop_that_ends_with_a_session_open_closes_it(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    backend, options = anyio_backend
    servers: list[FakeServer] = []

    async def hold(server: FakeServer) -> None:
        async with open_session(grant(), stream=server.stream) as session:
            session.on(lambda frame: None)
            await anyio.sleep_forever()

    async def main() -> None:
        server = FakeServer()
        servers.append(server)
        if backend == "asyncio":
            # Nobody's child: the loop itself cancels it on its way out.
            task = asyncio.ensure_future(hold(server))
            await settled()
            assert not task.done()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, server)
                await settled()
                tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend, backend_options=options)
    (server,) = servers
    assert server.stream.closed


async def test_cancelled_while_minting_and_opening_nothing_is_left() -> None:
    server = FakeServer()
    server.answers = False
    with anyio.move_on_after(0.01) as scope:
        async with open_session(grant(), stream=server.stream):
            raise AssertionError("opened")
    assert scope.cancelled_caught
    assert server.stream.closed


def test_the_namespace_opens_with_the_same_parameters() -> None:
    assert inspect.signature(Speko("k").realtime.open) == inspect.signature(open_session)


# What the block's surroundings give to its tasks


user: ContextVar[str] = ContextVar("user", default="nobody")


async def test_handlers_and_tools_run_in_the_context_of_the_block() -> None:
    seen: list[tuple[str, str]] = []

    async def who() -> str:
        """Whose session it is."""
        await checkpoint()
        seen.append(("tool", user.get()))
        return user.get()

    async def handle(frame: Frame) -> None:
        await checkpoint()
        if isinstance(frame, ToolCall):
            seen.append(("handler", user.get()))

    user.set("Ann")
    async with connected(tools=[who]) as (session, server):
        # Not the context that adds the handler, nor that of the callback that delivers the call.
        Context().run(session.on, handle)
        user.set("somebody else")
        server.core.send_tool_call("c1", "who", "{}")
        Context().run(server.flush)
        await settled()
        assert sorted(seen) == [("handler", "Ann"), ("tool", "Ann")]
        assert server.commands == [ToolResult("c1", "Ann")]


# What was held back for the end of the event loop's turn


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every write came close behind another: the asyncio driver holds all of them."""
    monkeypatch.setattr(asyncio_driver, "monotonic", lambda: 0.0)


@pytest.mark.usefixtures("held")
async def test_the_answer_to_the_peers_close_leaves_before_the_transport_is_closed() -> None:
    async with connected() as (session, server):
        server.core.close(4000, "bye")
        server.flush()
        assert [type(frame) async for frame in session] == [Ready, Close]
        await settled()
        assert server.closed == Close(4000, "bye", "local")


@pytest.mark.usefixtures("held")
async def test_what_is_said_of_a_broken_protocol_leaves_before_the_transport_is_closed() -> None:
    async with connected() as (session, server):
        await session.commit()
        server.raw(b"\xff\xff")
        with pytest.raises(RemoteProtocolError):
            assert [type(frame) async for frame in session] == [Ready, Close]
        await settled()
        assert server.closed is not None
        assert (server.closed.code, server.closed.initiated_by) == (1002, "remote")
        assert Commit() in server.commands
