"""`ServerSession` over a transport in memory, of whole messages and of bytes."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio.gateway._meter import Meter
from speko_anyio.gateway._session import RECEIVE_BUFFER, SEND_BUFFER, ServerSession
from speko_anyio.protocol import (
    Audio,
    AudioIn,
    Clear,
    Close,
    CloseMessage,
    Commit,
    ConnectionClosed,
    EndTurn,
    ErrorFrame,
    Expiring,
    Interrupt,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    ToolResult,
    Transcript,
    Unknown,
    Usage,
)
from tests.support.drivers import settled
from tests.support.event_loops import EVENT_LOOPS, VIRTUAL_EVENT_LOOPS, event_loop

from .byte_wire import ByteWire
from .support import CONFIG, MemoryTransport

pytestmark = pytest.mark.anyio

Wire = MemoryTransport | ByteWire
Way = tuple[str, type[Wire]]
"""An event loop, and what the session's messages go over."""


def ways(loops: Iterable[str]) -> list[Any]:
    """Every way on these loops: on trio, sessions are served over messages only."""
    return [
        pytest.param((loop, wire), id=f"{loop}-{name}")
        for loop in loops
        for name, wire in (("messages", MemoryTransport), ("bytes", ByteWire))
        if wire is MemoryTransport or "trio" not in loop
    ]


in_virtual_time = pytest.mark.parametrize("anyio_backend", ways(VIRTUAL_EVENT_LOOPS), indirect=True)


@pytest.fixture(params=ways(EVENT_LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return event_loop(request.param[0])


@pytest.fixture
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    way: Way = request.node.callspec.params["anyio_backend"]
    transport = way[1]()
    yield transport
    transport.stop()


@pytest.fixture
async def messages() -> AsyncIterator[MemoryTransport]:
    transport = MemoryTransport()
    yield transport
    transport.stop()


@asynccontextmanager
async def session_over(wire: Wire, **options: Any) -> AsyncIterator[ServerSession]:
    options = {"session_id": "sess_1", "config": CONFIG, **options}
    with anyio.fail_after(10):
        async with wire.serve(**options) as session:
            yield session


async def test_it_knows_what_was_minted(wire: Wire) -> None:
    async with session_over(wire, metadata={"caller": 7}) as session:
        assert session.session_id == "sess_1"
        assert session.config is CONFIG
        assert session.metadata == {"caller": 7}
        assert (session.input_sample_rate, session.output_sample_rate) == (16000, 24000)
        assert session.closed is None
        assert repr(session) == "<ServerSession 'sess_1' open>"


async def test_ready_comes_first_and_the_goodbye_last(wire: Wire) -> None:
    async with session_over(wire) as session:
        await session.send_audio(b"\1\2")
    assert await wire.hear() == Ready(16000, 24000, ("usage",))
    assert await wire.hear() == Audio(b"\1\2", 24000)
    assert await wire.hear() == Close(1000, "", "remote")
    assert session.closed == Close(1000, "", "local")


async def test_every_verb_reaches_the_client_in_order(wire: Wire) -> None:
    async with session_over(wire) as session:
        await session.send_audio(memoryview(b"\1\2"))
        await session.send_transcript("user", "hi", final=True)
        await session.send_tool_call("c1", "f", "{}")
        assert session.open_calls == ("c1",)
        await session.send_server_tool_call("s1", "g", "completed")
        await session.send_usage(1, 2)
        await session.send_error("OOPS", "it hurts")
        heard = [await wire.hear() for _ in range(7)]
        await session.send_interruption("assistant")
        assert await wire.hear() == Interruption("assistant")
    assert heard[1:] == [
        Audio(b"\1\2", 24000),
        Transcript("user", "hi", True),
        ToolCall("c1", "f", "{}"),
        ServerToolCall("s1", "g", "completed"),
        Usage(1, 2),
        ErrorFrame("OOPS", "it hurts"),
    ]


async def test_the_end_of_an_answer_reaches_a_client_that_knows_of_it(wire: Wire) -> None:
    async with session_over(wire) as session:
        await session.send_response_end()  # before the client could have accepted it
        assert await wire.hear() == Ready(16000, 24000, ("usage",))
        wire.flush()
        await session.send_response_end("failed", "why")
        assert [await wire.hear() for _ in range(2)] == [ResponseEnd("done"), ResponseEnd("failed", "why")]
        with pytest.raises(LocalProtocolError, match="status must be one of"):
            await session.send_response_end("cancelled")  # type: ignore[arg-type]


async def test_a_published_sdk_is_sent_no_end_of_an_answer(wire: Wire) -> None:
    async with session_over(wire) as session:
        wire.say(bytes(320), '{"t":"control","action":"commit"}')
        assert [type(await session.receive()) for _ in range(2)] == [AudioIn, Commit]
        await session.send_usage(1, 2)
        await session.send_response_end()
    heard = [await wire.hear_raw() for _ in range(4)]
    assert heard[1:] == [
        '{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}',
        '{"t":"end","reason":""}',
        CloseMessage(1000, ""),
    ]


async def test_every_command_reaches_the_handler_in_order(wire: Wire) -> None:
    async with session_over(wire) as session:
        await session.send_tool_call("c1", "f", "{}")
        assert [type(await wire.hear()) for _ in range(2)] == [Ready, ToolCall]
        wire.client.send_audio(b"\1\2")
        wire.client.commit()
        wire.client.clear()
        wire.client.end_turn()
        wire.client.interrupt()
        wire.client.send_tool_result("c1", "42")
        wire.flush()
        wire.say('{"t":"new"}', CloseMessage(4000, "bye"))
        commands = [command async for command in session]
        with pytest.raises(ConnectionClosed):
            await session.receive()
        assert await session.wait_closed() == Close(4000, "bye", "remote")
    assert commands == [
        AudioIn(b"\1\2", 16000),
        Commit(),
        Clear(),
        EndTurn(),
        Interrupt(),
        ToolResult("c1", "42"),
        Unknown("new", '{"t":"new"}'),
        Close(4000, "bye", "remote"),
    ]


async def test_a_violation_is_told_after_what_came_before_it(wire: Wire) -> None:
    async with session_over(wire) as session:
        wire.say('{"t":"interrupt"}', "[]", '{"t":"interrupt"}')
        assert await session.receive() == Interrupt()
        assert isinstance(await session.receive(), Close)
        with pytest.raises(RemoteProtocolError):
            await anext(session)
        with pytest.raises(RemoteProtocolError):
            await session.send_audio(b"")
        with pytest.raises(RemoteProtocolError):
            await session.receive()
    assert isinstance(await wire.hear(), Ready)
    last = await wire.hear()
    assert isinstance(last, Close)
    assert last.code == 1007


@pytest.mark.parametrize("how", ["none", "broken"])
async def test_a_lost_connection_ends_the_session(wire: Wire, how: str) -> None:
    async with session_over(wire) as session:
        if how == "none":
            wire.say(None)
        else:
            wire.cut()
        last = [command async for command in session][-1]
        assert isinstance(last, Close)
        assert (last.code, last.initiated_by) == (1006, "transport")
        with pytest.raises(ConnectionClosed):
            await session.send_usage(0, 0)
        await session.close()  # does nothing


async def test_a_failed_write_ends_the_session(wire: Wire) -> None:
    async with session_over(wire) as session:
        assert isinstance(await wire.hear(), Ready)
        wire.broken = True
        await session.send_audio(b"\1\2")
        await settled()
        wire.say(None)
        assert await session.wait_closed() == Close(1006, wire.write_failure, "transport")


@in_virtual_time
async def test_a_client_that_closed_is_not_lost_by_our_failed_write(messages: MemoryTransport) -> None:
    wire = messages
    async with session_over(wire, receive_buffer=100) as session:
        assert isinstance(await wire.hear(), Ready)
        # Its handler reads nothing, so the client's close waits behind audio that waits for the handler.
        wire.say(*[bytes(320)] * 50)
        await settled()
        assert wire.untaken > 40
        wire.broken = True
        await session.send_audio(b"\1\2")
        await anyio.sleep(4.9)
        with pytest.raises(ConnectionClosed, match="sending failed"):
            await session.send_audio(b"\1\2")
        assert session.closed is None
        wire.say(CloseMessage(4000, "bye"))
        assert await session.wait_closed() == Close(4000, "bye", "remote")
        assert [command async for command in session][-1] == Close(4000, "bye", "remote")


@in_virtual_time
async def test_a_client_whose_end_is_never_known_is_lost_in_time(messages: MemoryTransport) -> None:
    wire = messages
    async with session_over(wire, close_timeout=3.0) as session:
        assert isinstance(await wire.hear(), Ready)
        wire.broken = True
        begin = anyio.current_time()
        await session.send_audio(b"\1\2")
        assert await session.wait_closed() == Close(1006, "sending failed", "transport")
        assert anyio.current_time() - begin == pytest.approx(3.0)


async def test_an_error_of_the_block_closes_with_1011_and_leaves_bare(wire: Wire) -> None:
    with pytest.raises(ZeroDivisionError):
        async with session_over(wire):
            raise ZeroDivisionError
    assert isinstance(await wire.hear(), Ready)
    assert await wire.hear() == Close(1011, "", "remote")


async def test_an_error_of_the_transport_leaves_bare(
    messages: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(messages, "receive", fail)
    with pytest.raises(ZeroDivisionError):
        async with session_over(messages):
            await anyio.sleep_forever()


async def test_a_cancelled_block_leaves_at_once(wire: Wire) -> None:
    wire.writable = anyio.Event()
    sessions = []
    with anyio.move_on_after(0) as scope:
        async with session_over(wire, close_timeout=60) as session:
            sessions.append(session)
            try:
                await anyio.sleep_forever()
            finally:
                assert session.closed is None  # a handler's clean-up still has a live session
    assert scope.cancelled_caught
    assert sessions[0].closed == Close(1006, "the handler was cancelled", "transport")


async def test_close_is_idempotent_and_waits_for_the_answer(wire: Wire) -> None:
    wire.answers_close = False
    async with session_over(wire) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.close, 4001, "first")
            await settled()
            tasks.start_soon(session.close, 4002, "second")
            await settled()
            assert session.closed is None
            wire.say(b"\1\2", CloseMessage(4001, ""))
        assert session.closed == Close(4001, "first", "local")
        assert [command async for command in session] == [AudioIn(b"\1\2", 16000), session.closed]


async def test_who_broke_the_protocol_is_told_although_it_reads_late(wire: Wire) -> None:
    wire.writable = anyio.Event()

    async def read_late() -> None:
        await settled()
        wire.writable.set()

    async with anyio.create_task_group() as tasks:
        async with session_over(wire) as session:
            wire.say("[]")
            await session.wait_closed()
            tasks.start_soon(read_late)
    assert isinstance(await wire.hear(), Ready)
    goodbye = await wire.hear()
    assert isinstance(goodbye, Close)
    assert goodbye.code == 1007


@in_virtual_time
async def test_close_does_not_wait_for_ever(wire: Wire) -> None:
    wire.answers_close = False
    async with session_over(wire, close_timeout=0.05) as session:
        await session.close()
        assert session.closed == Close(1006, "the peer did not answer the close in time", "local")


@in_virtual_time
async def test_a_peer_that_does_not_read_can_not_hold_the_goodbye_up(wire: Wire) -> None:
    wire.writable = anyio.Event()
    async with session_over(wire, close_timeout=0.05) as session:
        await session.send_audio(bytes(2))
    assert session.closed is not None
    assert session.closed.code == 1006


async def test_a_code_that_may_not_be_sent_is_refused_and_changes_nothing(wire: Wire) -> None:
    async with session_over(wire) as session:
        with pytest.raises(LocalProtocolError):
            await session.close(1006)
        with pytest.raises(LocalProtocolError):
            await session.send_audio(b"\1")
        assert session.closed is None


@in_virtual_time
async def test_the_time_limit_is_announced_and_kept(wire: Wire) -> None:
    async with session_over(wire, ttl=0.1, warn_before=0.05) as session:
        warning, close = [command async for command in session]
    assert isinstance(warning, Expiring)
    assert 0 < warning.seconds <= 0.05
    assert close == Close(1000, "session_expired", "local")
    # The client is told too, ahead of it.
    assert [await wire.hear() for _ in range(3)] == [
        Ready(16000, 24000, ("usage",)),
        ErrorFrame("SESSION_EXPIRING", "the session ends in 0 seconds"),
        Close(1000, "session_expired", "remote"),
    ]


@in_virtual_time
async def test_nobody_is_warned_who_has_left(wire: Wire) -> None:
    wire.answers_close = False
    async with session_over(wire, ttl=0.05, warn_before=0.01, close_timeout=0.1) as session:
        await session.close(4000, "enough")
    assert await wire.hear() == Ready(16000, 24000, ("usage",))
    assert await wire.hear() == Close(4000, "enough", "remote")


async def test_it_counts_what_is_used(wire: Wire) -> None:
    meter = Meter(keep_transcript=True)
    async with session_over(wire, meter=meter) as session:
        assert session.meter is meter
        wire.say(bytes(320), bytes(3), '{"t":"interrupt"}')
        while not isinstance(await session.receive(), Interrupt):
            pass
        await session.send_transcript("user", "hel", final=False)
        await session.send_transcript("user", "hello", final=True)
        await session.send_tool_call("c1", "f", "{}")
        for status in ("started", "completed"):
            await session.send_server_tool_call("s1", "search", status)
        await session.send_usage(1, 2)
        await session.send_usage(10, 20)
        await session.send_audio(bytes(480))
        await settled()
        # What is refused counts for nothing.
        for refused in (
            session.send_tool_call("c1", "f", "{}"),
            session.send_usage(-1, 0),
            session.send_audio(b"x"),
        ):
            with pytest.raises(LocalProtocolError):
                await refused
    outcome = meter.outcome(session.closed, input_sample_rate=1, output_sample_rate=1)
    assert outcome.close == session.closed
    # Whole samples: half a sample is no audio yet.
    assert (outcome.input_audio_seconds, outcome.output_audio_seconds) == (161, 240)
    assert (outcome.input_audio_tokens, outcome.output_audio_tokens) == (11, 22)
    assert outcome.tool_calls == {"f": 1, "search": 1}
    assert [(line.role, line.text) for line in outcome.transcript] == [("user", "hello")]
    assert outcome.time_to_first_audio is None


def time_to_first_audio(session: ServerSession) -> float | None:
    # In a function: a type checker takes an attribute for unchanged.
    return session.meter.time_to_first_audio


@pytest.mark.parametrize("end", ["commit", "end_turn", "the handler"])
async def test_the_first_audio_after_a_turn_is_timed(wire: Wire, end: str) -> None:
    async with session_over(wire) as session:
        # A greeting answers nobody.
        await session.send_audio(bytes(2))
        await settled()
        assert time_to_first_audio(session) is None
        if end == "the handler":
            session.turn_ended()
        else:
            getattr(wire.client, end)()
            wire.flush()
            await session.receive()
        await session.send_transcript("assistant", "well", final=False)
        await settled()
        assert time_to_first_audio(session) is None
        await session.send_audio(bytes(2))
        await settled()
        first = time_to_first_audio(session)
        assert first is not None
        assert first >= 0
        session.turn_ended()
        await session.send_audio(bytes(2))
        await settled()
        assert time_to_first_audio(session) == first


async def test_audio_that_is_dropped_was_not_sent(wire: Wire) -> None:
    wire.writable = anyio.Event()
    async with session_over(wire) as session:
        for _ in range(10):
            await session.send_audio(bytes(480))
        await session.send_interruption()
        wire.writable.set()
        await settled()
        assert session.meter.audio_out == 0


# Over messages, the keepalive is the transport's.
@pytest.mark.parametrize(
    "anyio_backend", [way for way in ways(VIRTUAL_EVENT_LOOPS) if "bytes" in way.id], indirect=True
)
async def test_a_dead_client_is_noticed_although_its_handler_takes_nothing(wire: Wire) -> None:
    with anyio.fail_after(2000):
        async with wire.serve(session_id="s", config=CONFIG, receive_buffer=6400) as session:
            wire.say(*[bytes(1000)] * 200)
            await settled()
            assert wire.untaken > 100
            begin = anyio.current_time()
            await anyio.sleep(1000)
            # Its pongs are not read, which proves nothing.
            assert session.closed is None
            wire.broken = True
            assert (await session.wait_closed()).code == 1006
            assert anyio.current_time() - begin < 1000 + 21


async def echo_counted(session: ServerSession, switches: list[int]) -> None:
    """Echo, and append how many times the task was switched away for each message."""

    @types.coroutine
    def count(coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        step: Callable[[], Any] = partial(coroutine.send, None)
        while True:
            try:
                waited_for = step()
            except StopIteration:
                return
            switches.append(1)
            try:
                step = partial(coroutine.send, (yield waited_for))
            except BaseException as error:  # noqa: BLE001 - passed on
                step = partial(coroutine.throw, error)

    async def echo() -> None:
        async for command in session:
            if isinstance(command, AudioIn):
                await session.send_audio(command.pcm)

    await count(echo())


async def test_an_answer_costs_one_task_switch(wire: Wire) -> None:
    switches: list[int] = []
    async with session_over(wire) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(echo_counted, session, switches)
        assert isinstance(await wire.hear(), Ready)
        for number in range(100):
            wire.say(bytes(960))
            assert await wire.hear() == Audio(bytes(960), 24000)
            assert len(switches) <= 1 + number + 1
        wire.say(CloseMessage(1000, ""))


async def test_an_interruption_drops_what_the_client_has_no_room_for(wire: Wire) -> None:
    """Also of a bridge, which queues much more than the client takes."""
    wire.writable = anyio.Event()
    async with session_over(wire) as session:
        core = session.take_core()
        for _ in range(100):
            core.send_audio(bytes(9600))
        core.send_usage(1, 2)
        session.core_changed()
        await settled()
        wire.writable.set()
        for _ in range(4):
            await checkpoint()
        core.send_interruption()
        session.core_changed()
        heard = 0
        while not isinstance(frame := await wire.hear(), Interruption):
            if isinstance(frame, Audio):
                heard += len(frame.pcm)
        assert heard <= 5 * 64 * 1024
        assert session.meter.audio_out == heard
        for _ in range(100):
            core.send_audio(bytes(9600))
        core.send_usage(3, 4)
        session.core_changed()
        heard = 0
        while not isinstance(frame := await wire.hear(), Usage):
            assert isinstance(frame, Audio)
            heard += len(frame.pcm)
        assert (frame, heard) == (Usage(3, 4), 960_000)
        assert session.buffered[1] == 0


async def test_only_one_task_receives(wire: Wire) -> None:
    async with session_over(wire) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(session.receive)
        await settled()
        with pytest.raises(anyio.BusyResourceError):
            await session.receive()
        wire.say('{"t":"interrupt"}')


async def test_a_cancelled_receive_loses_nothing(wire: Wire) -> None:
    async with session_over(wire) as session:
        for _ in range(3):
            with anyio.move_on_after(0):
                await session.receive()
        wire.say('{"t":"interrupt"}')
        assert await session.receive() == Interrupt()


async def test_a_peer_that_sends_too_fast_has_to_wait(wire: Wire) -> None:
    async with session_over(wire) as session:
        chunk = bytes(64 * 1024)
        count = 4 * RECEIVE_BUFFER // len(chunk)
        wire.say(*[chunk] * count)
        await settled()
        assert wire.untaken >= count - (RECEIVE_BUFFER + wire.read_ahead) // len(chunk) - 1
        for _ in range(count):
            assert await session.receive() == AudioIn(chunk, 16000)


async def test_empty_commands_count_too(wire: Wire) -> None:
    async with session_over(wire, receive_buffer=6400):
        room = (6400 + wire.read_ahead) // 64
        wire.say(*['{"t":"interrupt"}'] * (room + 1000))
        await settled()
        assert wire.untaken > 900


async def test_a_full_inbox_does_not_hide_the_answer_to_our_close(wire: Wire) -> None:
    async with session_over(wire, receive_buffer=100, close_timeout=60) as session:
        room = wire.read_ahead // 100
        wire.say(*[bytes(100)] * (room + 50))
        await settled()
        wire.say(*[bytes(100)] * 50)
        await session.close(4000)
        assert session.closed == Close(4000, "", "local")
        # Nobody read it, so it was not all kept.
        assert len([command async for command in session]) < room + 10


async def test_a_handler_that_speaks_too_fast_has_to_wait(wire: Wire) -> None:
    sent = 0

    async def speak(session: ServerSession) -> None:
        nonlocal sent
        for _ in range(1000):
            await session.send_audio(bytes(1024))
            sent += 1

    wire.writable = anyio.Event()
    async with session_over(wire) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(speak, session)
        await settled()
        assert SEND_BUFFER / 1024 <= sent <= SEND_BUFFER / 1024 + 3
        wire.writable.set()
    assert sent == 1000


async def test_a_verb_may_queue_the_outbox_s_limit_while_the_send_buffer_is_full(
    wire: Wire,
) -> None:
    wire.writable = anyio.Event()
    async with session_over(wire, limits=Limits(max_outbox=4096), send_buffer=1024) as session:
        for size in (1024, 4096):
            await session.send_audio(bytes(size))
        assert session.buffered[1] >= 4096
        wire.writable.set()
        with pytest.raises(LocalProtocolError, match="would wait to be sent"):
            await session.send_audio(bytes(4096 + 1024 + 2))
        heard = bytearray()
        while len(heard) < 5120:
            frame = await wire.hear()
            if isinstance(frame, Audio):
                heard += frame.pcm


async def test_a_cancelled_speaker_leaves_the_session_whole(wire: Wire) -> None:
    async def speak(session: ServerSession) -> None:
        while True:
            await session.send_audio(bytes(1024))

    wire.writable = anyio.Event()
    async with session_over(wire) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak, session)
            await settled()
            tasks.cancel_scope.cancel()
        await session.send_interruption()
        await session.send_audio(b"\1\2")
        wire.writable.set()
        # What was being written when the interruption came is the most that precedes it.
        frames = [await wire.hear() for _ in range(3)]
        assert [type(frame) for frame in frames] == [Ready, Interruption, Audio]
        assert frames[2] == Audio(b"\1\2", 24000)


async def test_a_speaker_that_room_and_cancellation_reach_together_says_nothing_more(wire: Wire) -> None:
    """The client takes a message in the turn of the event loop in which the user interrupts."""

    async def speak(session: ServerSession) -> None:
        while True:
            await session.send_audio(bytes(1024))

    wire.writable = anyio.Event()
    async with session_over(wire) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak, session)
            await settled()
            session.room.ring()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await session.send_interruption()
        await session.send_audio(b"\1\2")
        wire.writable.set()
        frames = [await wire.hear() for _ in range(3)]
        assert [type(frame) for frame in frames] == [Ready, Interruption, Audio]
        assert frames[2] == Audio(b"\1\2", 24000)


async def test_a_command_is_no_checkpoint_of_the_task_that_speaks(wire: Wire) -> None:
    """The speaker gets its next audio in the turn of the event loop in which the user interrupts."""
    synthesized = anyio.Event()

    async def speak(session: ServerSession) -> None:
        await synthesized.wait()
        await session.send_audio(bytes(1024))

    async with session_over(wire) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak, session)
            await settled()
            wire.client.interrupt()
            wire.flush()
            assert await session.receive() == Interrupt()
            synthesized.set()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await session.send_interruption()
        await session.send_audio(b"\1\2")
        frames = [await wire.hear() for _ in range(3)]
        assert [type(frame) for frame in frames] == [Ready, Interruption, Audio]
        assert frames[2] == Audio(b"\1\2", 24000)


async def test_an_interruption_never_waits_for_room(wire: Wire) -> None:
    async def report(session: ServerSession) -> None:
        await session.send_usage(1, 2)

    wire.writable = anyio.Event()
    async with session_over(wire) as session, anyio.create_task_group() as tasks:
        await session.send_audio(bytes(2 * SEND_BUFFER))
        tasks.start_soon(report, session)
        await settled()
        await session.send_interruption()
        wire.writable.set()
        assert [await wire.hear() for _ in range(3)] == [
            Ready(16000, 24000, ("usage",)),
            Interruption("user"),
            Usage(1, 2),
        ]


async def test_the_end_wakes_who_waits_for_room(wire: Wire) -> None:
    ended = 0

    async def speak(session: ServerSession) -> None:
        nonlocal ended
        try:
            while True:
                await session.send_audio(bytes(1024))
        except ConnectionClosed:
            ended += 1

    wire.writable = anyio.Event()
    async with session_over(wire) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(speak, session)
        tasks.start_soon(speak, session)
        await settled()
        wire.say(CloseMessage(1001, ""))
    assert ended == 2
    assert session.closed == Close(1001, "", "remote")


async def test_calls_see_a_cancellation(wire: Wire) -> None:
    async with session_over(wire) as session:
        wire.say('{"t":"interrupt"}')
        await settled()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.receive()
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.send_audio(b"\1\2")
        assert scope.cancelled_caught
        await checkpoint()
        assert await session.receive() == Interrupt()
