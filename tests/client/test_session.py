"""A session that goes well: what is sent, received, buffered, handled and counted."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Audio,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Frame,
    Interruption,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    SessionExpired,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.client._delivery import FRAME_OVERHEAD
from speko_anyio.protocol import AudioIn, Clear, Commit, EndTurn, Interrupt, Limits, ToolResult
from speko_anyio.testing.server import TOKEN, FakeServer, connected
from tests.support.drivers import EVERY_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


async def test_a_session_says_what_it_is() -> None:
    async with connected() as (session, _server):
        assert (session.session_id, session.expires_at) == ("s1", "2030-01-01T00:00:00Z")
        assert (session.input_sample_rate, session.output_sample_rate) == (24_000, 24_000)
        assert session.closed is None
        assert repr(session) == "<RealtimeSession s1 open>"


async def test_the_token_is_the_subprotocol_and_nothing_shows_it() -> None:
    async with connected() as (session, server):
        head = bytes(server.wire).partition(b"\r\n\r\n")[0].decode().lower()
        assert f"sec-websocket-protocol: {TOKEN}".lower() in head
        assert "user-agent: speko-anyio/" in head
        assert TOKEN not in head.splitlines()[0]
        assert TOKEN not in repr(session)


async def test_the_server_announces_other_rates() -> None:
    server = FakeServer()
    server.core.input_sample_rate, server.core.output_sample_rate = 16_000, 8_000
    async with connected(server) as (session, _):
        assert await session.receive() == Ready(16_000, 8_000)
        assert (session.input_sample_rate, session.output_sample_rate) == (16_000, 8_000)


async def test_every_verb_reaches_the_server_in_order() -> None:
    async with connected() as (session, server):
        server.core.send_tool_call("c1", "f", "{}")
        server.flush()
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), ToolCall)
        await session.send_audio(PCM)
        await session.send_audio(bytearray(PCM))
        await session.send_audio(memoryview(PCM).cast("h"))
        await session.commit()
        await session.clear()
        await session.end_turn()
        await session.interrupt()
        await session.send_tool_result("c1", "42")
        await settled()
        audio = AudioIn(PCM, 24_000)
        assert server.commands == [
            audio,
            audio,
            audio,
            Commit(),
            Clear(),
            EndTurn(),
            Interrupt(),
            ToolResult("c1", "42"),
        ]
        assert session.stats().audio_bytes_sent == 3 * len(PCM)


@pytest.mark.parametrize("max_receive", [1, 7, 65_536])
async def test_every_frame_arrives_in_order_however_the_bytes_are_cut(max_receive: int) -> None:
    server = FakeServer(max_receive=max_receive)
    async with connected(server) as (session, _):
        server.core.send_audio(PCM)
        server.core.send_transcript("user", "hé", final=True)
        server.core.send_usage(1, 2)
        server.core.send_error("BUSY", "wait")
        server.core.close(1000, "done")
        server.flush()
        assert [frame async for frame in session] == [
            Ready(24_000, 24_000),
            Audio(PCM, 24_000),
            Transcript("user", "hé", True),
            Usage(1, 2),
            ResponseEnd("done"),
            ErrorFrame("BUSY", "wait"),
            Close(1000, "done", "remote"),
        ]
        assert session.closed == Close(1000, "done", "remote")


async def test_a_mistake_of_the_caller_changes_nothing() -> None:
    async with connected() as (session, server):
        with pytest.raises(LocalProtocolError):
            await session.send_audio(b"odd")
        with pytest.raises(LocalProtocolError):
            await session.send_tool_result("nobody", "x")
        with pytest.raises(LocalProtocolError):
            await session.close(1005)
        await session.commit()
        await settled()
        assert server.commands == [Commit()]


async def test_closing_with_arguments_of_other_types_changes_nothing() -> None:
    wrong: list[Any] = ["a", None]
    async with connected() as (session, server):
        for code in wrong:
            with pytest.raises((LocalProtocolError, TypeError)):
                await session.close(code)
        await session.commit()
        await settled()
        assert server.commands == [Commit()]


async def test_after_the_end_every_call_gives_the_same_error() -> None:
    async with connected() as (session, server):
        server.core.close(4000, "bye")
        server.flush()
        assert [type(frame) async for frame in session] == [Ready, Close]
        assert [frame async for frame in session] == []
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as receiving:
                await session.receive()
            with pytest.raises(ConnectionClosed) as sending:
                await session.commit()
            assert receiving.value is sending.value
            assert sending.value.code == 4000
        with pytest.raises(ConnectionClosed):
            session.on(print)


async def test_leaving_the_block_says_goodbye_once_and_closes_the_transport() -> None:
    async with connected() as (session, server):
        pass
    assert server.commands == [Close(1000, "client_closed", "remote")]
    assert session.closed == Close(1000, "client_closed", "local")
    assert server.stream.closed


async def test_close_is_idempotent_and_concurrent_callers_wait_for_the_same_end() -> None:
    async with connected() as (session, server):
        server.from_client.stall()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.close, 4001, "4001")
            await settled()
            for code in (4002, 4003):
                tasks.start_soon(session.close, code, str(code))
            await settled()
            assert session.closed is None
            server.from_client.resume()
        assert session.closed == Close(4001, "4001", "local")
        await session.close(4004)
        assert server.stream.closed
        with pytest.raises(ConnectionClosed):
            await session.send_audio(PCM)
    assert server.commands == [Close(4001, "4001", "remote")]
    assert session.closed == Close(4001, "4001", "local")


async def test_what_came_before_the_close_can_be_read_behind_it() -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.flush()
        await session.close()
        frames = [frame async for frame in session]
        assert frames == [Ready(24_000, 24_000), Audio(PCM, 24_000), Close(1000, "client_closed", "local")]


async def test_a_second_receiver_is_told_that_the_first_is_there() -> None:
    async with connected() as (session, server):
        await session.receive()
        got: list[Frame] = []

        async def first() -> None:
            got.append(await session.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await settled()
            with pytest.raises(anyio.BusyResourceError):
                await session.receive()
            with pytest.raises(anyio.BusyResourceError):
                async for _ in session:
                    pass
            server.core.send_audio(PCM)
            server.flush()
        assert got == [Audio(PCM, 24_000)]


async def test_a_cancelled_receive_loses_no_frame() -> None:
    async with connected() as (session, server):
        await session.receive()
        with anyio.move_on_after(0):
            await session.receive()
        sent = [Audio(bytes([number, 0]), 24_000) for number in range(100)]
        for audio in sent:
            server.core.send_audio(audio.pcm)
        server.flush()
        await settled()
        received: list[Frame] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                received.append(await session.receive())
        assert len(received) <= 64
        while len(received) < 100:
            received.append(await session.receive())
        assert received == sent


async def test_a_send_in_a_cancelled_scope_changes_nothing() -> None:
    async with connected() as (session, server):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.commit()
        assert scope.cancelled_caught
        assert server.commands == []
        await session.clear()
        await settled()
        assert server.commands == [Clear()]


async def test_sends_of_many_tasks_stay_whole() -> None:
    async with connected() as (session, server):

        async def talk(sample: int) -> None:
            for _ in range(5):
                await session.send_audio(bytes([sample, 0]) * 100_000)

        async with anyio.create_task_group() as tasks:
            for sample in range(4):
                tasks.start_soon(talk, sample)
        await settled()
        audio = b"".join(command.pcm for command in server.commands if isinstance(command, AudioIn))
        assert len(audio) == 4 * 5 * 200_000
        runs = [audio[i : i + 200_000] for i in range(0, len(audio), 200_000)]
        assert all(len(set(run[::2])) == 1 for run in runs)


# Delivery


async def test_a_full_buffer_stops_the_reading_and_room_resumes_it() -> None:
    frame_size = len(PCM) + FRAME_OVERHEAD
    server = FakeServer(max_receive=len(PCM) + 4)
    async with connected(server, max_buffer=10 * frame_size) as (session, _):
        for _ in range(40):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        stats = session.stats()
        assert 10 * frame_size <= stats.bytes_buffered <= 11 * frame_size
        assert not server.stream.receiving
        assert len(server.to_client.data) > 20 * len(PCM)
        server.core.close(1000, "done")
        server.flush()
        frames = [frame async for frame in session]
        assert frames[1:-1] == [Audio(PCM, 24_000)] * 40
        assert session.stats().frames_dropped == 0
        assert session.stats().bytes_buffered == 0


async def test_by_default_about_a_minute_of_speech_waits_and_an_interruption_acts_at_once() -> None:
    speech = bytes(960)
    async with connected() as (session, server):
        for _ in range(59 * 50):
            server.core.send_audio(speech)
        server.flush()
        while server.to_client.data:
            await settled()
        assert server.stream.receiving
        assert session.stats().seconds_buffered == pytest.approx(59)
        server.core.send_interruption()
        server.flush()
        await settled()
        assert [await session.receive() for _ in range(2)] == [Ready(24_000, 24_000), Interruption("user")]
        for _ in range(70 * 50):
            server.core.send_audio(speech)
        server.flush()
        await settled()
        assert not server.stream.receiving


async def test_an_interruption_discards_the_undelivered_audio_ahead_of_it() -> None:
    async with connected() as (session, server):
        assert isinstance(await session.receive(), Ready)
        for _ in range(3):
            server.core.send_audio(PCM)
        server.core.send_transcript("assistant", "so", final=False)
        server.flush()
        await settled()
        server.core.send_interruption()
        server.core.send_audio(PCM[:2])
        server.flush()
        await settled()
        assert [await session.receive() for _ in range(4)] == [
            Transcript("assistant", "so", False),
            Interruption("user"),
            ResponseEnd("interrupted"),
            Audio(PCM[:2], 24_000),
        ]
        stats = session.stats()
        assert (stats.frames_dropped, stats.audio_bytes_dropped) == (3, 3 * len(PCM))
        assert stats.bytes_buffered == 0


async def test_closing_gets_through_a_full_buffer() -> None:
    frame_size = len(PCM) + FRAME_OVERHEAD
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=3 * frame_size) as (session, _):
        for _ in range(100):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        await session.close()
        frames = [frame async for frame in session]
        assert frames[-1] == Close(1000, "client_closed", "local")
        assert 3 <= len(frames) - 2 <= 5
        assert session.stats().frames_dropped == 100 - (len(frames) - 2)


async def test_pings_are_answered_though_nobody_receives() -> None:
    async with connected() as (_session, server):
        before = len(server.wire)
        server.raw(b"\x89\x03abc")
        await settled()
        pong = bytes(server.wire[before:])
        assert pong[:2] == b"\x8a\x83"
        assert bytes(a ^ b for a, b in zip(pong[6:], pong[2:6], strict=False)) == b"abc"


async def test_a_peer_that_does_not_read_is_still_read_from() -> None:
    async with connected() as (session, server):
        assert isinstance(await session.receive(), Ready)
        server.from_client.stall()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.send_audio, PCM)
            await settled()
            server.raw(b"\x89\x00")
            server.core.send_audio(PCM)
            server.flush()
            assert await session.receive() == Audio(PCM, 24_000)
            server.from_client.resume()
        await settled()
        assert server.commands == [AudioIn(PCM, 24_000)]
        assert bytes(server.wire[-6:-4]) == b"\x8a\x80"


async def test_a_consumer_that_never_waits_gives_others_their_turn() -> None:
    async with connected() as (session, server):
        for _ in range(2000):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            for _ in range(2000):
                await session.receive()
            tasks.cancel_scope.cancel()
        assert turns >= 20


# Handlers


async def test_handlers_get_every_frame_beside_the_iteration() -> None:
    async with connected() as (session, server):
        heard: list[Frame] = []
        awaited: list[Frame] = []

        async def handler(frame: Frame) -> None:
            await checkpoint()
            awaited.append(frame)

        session.on(heard.append)
        session.on(handler)
        server.core.send_audio(PCM)
        server.core.close(1000, "done")
        server.flush()
        frames = [frame async for frame in session]
    assert frames == [Ready(24_000, 24_000), Audio(PCM, 24_000), Close(1000, "done", "remote")]
    assert heard == awaited == frames


async def test_handlers_get_the_close_that_leaving_the_block_makes() -> None:
    heard: list[Frame] = []
    async with connected() as (session, _server):
        session.on(heard.append)
    assert heard == [Ready(24_000, 24_000), Close(1000, "client_closed", "local")]


async def test_an_unsubscribed_handler_hears_no_more() -> None:
    async with connected() as (session, server):
        heard: list[Frame] = []

        def once(frame: Frame) -> None:
            heard.append(frame)
            stop()

        stop = session.on(once)
        server.core.send_audio(PCM)
        server.flush()
        await settled()
        stop()
        assert heard == [Ready(24_000, 24_000)]
        assert isinstance(await session.receive(), Ready)
        assert isinstance(await session.receive(), Audio)


async def test_with_handlers_only_nobody_else_holds_up_the_reading() -> None:
    async with connected(max_buffer=4 * (len(PCM) + FRAME_OVERHEAD)) as (session, server):
        heard: list[Frame] = []
        session.on(heard.append)
        for _ in range(8):
            server.core.send_audio(PCM)
            server.core.send_audio(PCM)
            server.flush()
            await settled()
        assert len(heard) == 17
        assert session.stats().frames_buffered <= 5


async def test_a_slow_handler_stops_the_reading_and_loses_nothing() -> None:
    server = FakeServer(max_receive=len(PCM))
    async with connected(server, max_buffer=4 * (len(PCM) + FRAME_OVERHEAD)) as (session, _):
        go = anyio.Event()
        heard: list[Frame] = []

        async def slow(frame: Frame) -> None:
            await go.wait()
            heard.append(frame)

        session.on(slow)
        for _ in range(50):
            server.core.send_audio(PCM)
        server.flush()
        await settled()
        assert not server.stream.receiving
        assert len(server.to_client.data) > 40 * len(PCM)
        go.set()
        await settled()
        assert heard[1:] == [Audio(PCM, 24_000)] * 50


async def test_a_handler_may_send_and_close() -> None:
    async with connected() as (session, server):

        async def handler(frame: Frame) -> None:
            if isinstance(frame, Ready):
                await session.commit()
            elif isinstance(frame, Audio):
                await session.close(4000, "heard enough")

        session.on(handler)
        server.core.send_audio(PCM)
        server.flush()
        frames = [frame async for frame in session]
    assert server.commands == [Commit(), Close(4000, "heard enough", "remote")]
    assert frames[-1] == Close(4000, "heard enough", "local")


# The peer breaks the protocol


async def test_a_violation_is_raised_behind_what_came_before_it_and_told_to_the_peer() -> None:
    async with connected() as (session, server):
        server.core.send_audio(PCM)
        server.flush()
        server.raw(b"\x81\x03{]}")
        frames: list[Frame] = []
        with pytest.raises(RemoteProtocolError) as caught:
            async for frame in session:
                frames.append(frame)  # noqa: PERF401 - what came before the error counts
        assert caught.value.close_code == 1007
        assert [type(frame) for frame in frames] == [Ready, Audio, Close]
        assert session.closed is not None
        assert session.closed.code == 1007
        with pytest.raises(RemoteProtocolError):
            await session.receive()
        with pytest.raises(RemoteProtocolError):
            await session.commit()
        await settled()
        assert server.closed is not None
        assert server.closed.code == 1007
        assert server.stream.closed


def audio_of(size: int) -> tuple[bytes, Frame]:
    return b"\x82\x7f" + size.to_bytes(8, "big") + bytes(size), Audio(bytes(size), 24_000)


def text_of(size: int) -> tuple[bytes, Frame]:
    text = '{"t":"new","x":"'.ljust(size - 2, "-") + '"}'
    return b"\x81\x7f" + size.to_bytes(8, "big") + text.encode(), Unknown("new", text)


@pytest.mark.parametrize("message", [audio_of, text_of])
async def test_a_message_may_be_as_long_as_was_asked_for_and_no_longer(
    message: Callable[[int], tuple[bytes, Frame]],
) -> None:
    """That is no matter of how it is read: a message at this limit takes several reads."""
    limit = 200_000
    async with connected(limits=Limits(max_message_size=limit, max_text_size=limit)) as (session, server):
        assert isinstance(await session.receive(), Ready)
        wire, frame = message(limit)
        server.raw(wire)
        assert await session.receive() == frame
        wire, _ = message(limit + 2)
        server.raw(wire)
        assert isinstance(await session.receive(), Close)
        with pytest.raises(RemoteProtocolError) as caught:
            await session.receive()
        assert caught.value.close_code == 1009


async def test_a_session_whose_time_is_up_says_so_with_a_type_of_its_own() -> None:
    async with connected() as (session, server):
        server.core.close(1000, "session_expired")
        server.flush()
        frames = [frame async for frame in session]
        assert frames[-1] == Close(1000, "session_expired", "remote")
        assert session.closed is not None
        assert session.closed.expired
        for use in (session.receive, session.commit):
            with pytest.raises(SessionExpired, match="with code 1000: session_expired; open a new one"):
                await use()


# Invalid arguments are rejected at once


def into(frames: list[Frame], frame: Frame) -> None:
    frames.append(frame)


async def generator(frame: Frame) -> AsyncGenerator[Frame, None]:
    yield frame


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("x", "a handler is a function that takes one frame, not 'x'"),
        (None, "not None"),
        (lambda: None, r"must take one argument, the frame, but it takes \(\)"),
        (lambda frame, more: None, r"but it takes \(frame, more\)"),
        (generator, "is a generator, so its body would never run"),
    ],
    ids=str,
)
async def test_what_is_no_handler_is_refused(handler: Any, words: str) -> None:
    async with connected() as (session, server):
        with pytest.raises(TypeError, match=words):
            session.on(handler)
        seen: list[Frame] = []
        session.on(seen.append)
        session.on(partial(into, seen))
        server.core.send_usage(1, 2)
        server.flush()
        await settled()
        assert seen.count(Usage(1, 2)) == 2


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (("audio", print), "Transcript"),
        ((Audio,), "Audio"),
        ((Audio, print), "Audio"),
        ((print, Usage), "Usage"),
        ((Audio, Transcript), "Audio, Transcript"),
    ],
    ids=str,
)
async def test_a_handler_for_some_frames_is_referred_to_frames(given: tuple[Any, ...], kinds: str) -> None:
    async with connected() as (session, _server):
        with pytest.raises(TypeError) as caught:
            session.on(*given)
        assert str(caught.value) == (
            "on() takes one function and calls it with every frame; for some types of frames only, use `"
            f"async with session.frames({kinds}) as frames:`"
        )


async def test_a_second_reader_is_told_of_frames() -> None:
    async with connected() as (session, _server), anyio.create_task_group() as tasks:
        await session.receive()
        tasks.start_soon(session.receive)
        await settled()
        for read in (session.receive, session.__anext__):
            with pytest.raises(anyio.BusyResourceError, match=r"`async with session.frames\(\) as frames`"):
                await read()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("code", [0, 999, 1001, 1005, 1006, 1011, 1012, 2999, 5000, "1000", None])
async def test_a_close_code_that_is_not_the_applications_is_refused(code: Any) -> None:
    async with connected() as (session, server):
        with pytest.raises(LocalProtocolError, match="use 1000 or one from 4000 to 4999"):
            await session.close(code)
        await session.commit()
        await settled()
        assert server.commands == [Commit()]


@pytest.mark.parametrize("code", [1000, 3000, 4000, 4999])
async def test_a_close_code_of_the_applications_is_sent(code: int) -> None:
    async with connected() as (session, server):
        await session.close(code, "done")
    assert server.closed == Close(code, "done", "remote")
