"""Several consumers of one session: each at its own pace, of its own types, and none in another's way."""

from __future__ import annotations

from typing import Any, assert_type

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    FrameStream,
    Interruption,
    Ready,
    RemoteProtocolError,
    Transcript,
    Usage,
)
from speko_anyio.client._delivery import FRAME_OVERHEAD
from speko_anyio.testing.server import FakeServer, connected
from tests.support.drivers import EVERY_DRIVER, driven, settled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


PCM = bytes(960)


def say(server: FakeServer, *texts: str, audio: int = 0) -> None:
    for text in texts:
        server.core.send_transcript("assistant", text, final=True)
    for _ in range(audio):
        server.core.send_audio(PCM)
    server.flush()


async def take(frames: FrameStream[Frame], count: int) -> list[Frame]:
    return [await anext(frames) for _ in range(count)]


async def test_each_gets_the_frames_of_its_types_and_the_iteration_gets_all() -> None:
    async with connected() as (session, server), session.frames(Transcript, Usage) as some:
        async with session.frames() as everything:
            server.core.send_audio(PCM)
            say(server, "a")
            server.core.send_usage(1, 2)
            server.flush()
            expected = [
                Ready(24_000, 24_000),
                Audio(PCM, 24_000),
                Transcript("assistant", "a", True),
                Usage(1, 2),
            ]
            # The iteration begins before a stream is read, so it misses nothing.
            assert await session.receive() == expected[0]
            assert await take(everything, 4) == expected
            assert await take(some, 2) == expected[2:]
            assert [await session.receive() for _ in range(3)] == expected[1:]


async def test_the_types_are_known_to_type_checkers() -> None:
    async with connected() as (session, _server):
        async with session.frames(Audio) as one, session.frames(Audio, Usage) as two:
            assert_type(one, FrameStream[Audio])
            assert_type(two, FrameStream[Audio | Usage])
        async with session.frames(Audio, Usage, ErrorFrame) as three, session.frames() as all_:
            assert_type(three, FrameStream[Audio | Usage | ErrorFrame])
            assert_type(all_, FrameStream[Frame])


async def test_what_is_no_type_of_frame_is_refused() -> None:
    async with connected() as (session, _server):
        with pytest.raises(TypeError, match="'str'> is not a type of frame; the types are Audio, Close, "):
            session.frames(str)  # type: ignore[type-var]  # what a type checker would say
        wrong: Any
        for wrong in (Usage(1, 2), [Audio], None):
            with pytest.raises(TypeError, match="is not a type of frame"):
                session.frames(wrong)


async def test_a_slow_one_holds_up_the_reading_and_loses_nothing() -> None:
    async with connected() as (session, server):
        slow_got: list[Frame] = []
        fast_got: list[Frame] = []
        go = anyio.Event()
        async with (
            session.frames(Audio, max_buffer=10 * (960 + FRAME_OVERHEAD)) as slow,
            session.frames(Audio) as fast,
            anyio.create_task_group() as tasks,
        ):

            async def consume(frames: FrameStream[Frame], into: list[Frame]) -> None:
                async for frame in frames:
                    into.append(frame)
                    if len(into) == 100:
                        return

            async def slowly() -> None:
                await go.wait()
                await consume(slow, slow_got)

            tasks.start_soon(slowly)
            tasks.start_soon(consume, fast, fast_got)
            for _ in range(100):
                say(server, audio=1)
                await settled()
            held_up = len(fast_got)
            assert 10 <= held_up < 100
            assert slow_got == []
            go.set()
        assert len(slow_got) == len(fast_got) == 100


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_reading_goes_on_when_the_last_of_those_that_hold_it_up_has_room(
    order: tuple[int, int],
) -> None:
    limit = 4 * (len(PCM) + FRAME_OVERHEAD)
    server = FakeServer(max_receive=len(PCM))
    async with connected(server) as (session, _):
        async with session.frames(Audio, max_buffer=limit) as a, session.frames(Audio, max_buffer=limit) as b:
            first, last = ((a, b)[index] for index in order)
            for _ in range(3):
                say(server, audio=12)
                await settled()
                assert not server.stream.receiving
                unread = len(server.to_client.data)
                # Each time by other tasks than those that came too late.
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, first, 4)
                await settled()
                assert not server.stream.receiving
                assert len(server.to_client.data) == unread
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(take, last, 12)
                    tasks.start_soon(take, first, 8)
                await settled()
                assert server.stream.receiving


async def test_unwanted_frames_cost_nothing() -> None:
    async with connected() as (session, server), session.frames(Transcript, max_buffer=1_000) as texts:
        async with session.frames(Audio) as audio:
            for _ in range(50):
                say(server, audio=1)
            assert len(await take(audio, 50)) == 50
        say(server, "still read")
        assert await anext(texts) == Transcript("assistant", "still read", True)
        assert texts.dropped_frames == 0


async def test_one_that_may_drop_holds_up_nobody_and_keeps_the_newest() -> None:
    limit = 3 * (1 + FRAME_OVERHEAD)
    async with connected() as (session, server):
        async with session.frames(Transcript, max_buffer=limit, drop_oldest=True) as display:
            say(server, *"abcdefgh")
            await settled()
            assert [frame.text for frame in (await anext(display), await anext(display))] == ["f", "g"]
            assert display.dropped_frames == 5
            # A frame above the limit by itself is given all the same, and does not stop the reading.
            say(server, "x" * 10 * limit)
            await settled()
            assert display.dropped_frames == 6
            assert (await anext(display)).text == "x" * 10 * limit
            say(server, "i")
            assert (await anext(display)).text == "i"


async def test_an_interruption_discards_audio_in_every_one_asked_for_or_not() -> None:
    async with connected() as (session, server):
        async with session.frames(Audio, Transcript) as speaker, session.frames(Audio, Interruption) as other:
            say(server, "a", audio=3)
            await settled()
            server.core.send_interruption()
            say(server, "b", audio=1)
            await settled()
            assert await take(speaker, 3) == [
                Transcript("assistant", "a", True),
                Transcript("assistant", "b", True),
                Audio(PCM, 24_000),
            ]
            assert await take(other, 2) == [Interruption(), Audio(PCM, 24_000)]
            assert (speaker.dropped_frames, other.dropped_frames) == (3, 3)


async def test_a_late_one_starts_with_what_was_not_received() -> None:
    async with connected() as (session, server):
        say(server, "a", "b")
        assert [type(await session.receive()) for _ in range(2)] == [Ready, Transcript]
        async with session.frames() as frames:
            say(server, "c")
            assert await take(frames, 2) == [Transcript("assistant", text, True) for text in "bc"]


async def test_an_abandoned_one_frees_the_reading() -> None:
    async with connected() as (session, server):
        async with session.frames(Audio, max_buffer=1_000) as frames:
            say(server, audio=5)
            await settled()
            await anext(frames)
        say(server, "later")
        while not isinstance(await session.receive(), Transcript):
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(frames)


async def test_all_end_with_the_session_wherever_they_wait() -> None:
    ended: list[str] = []
    async with connected() as (session, server):

        async def consume(name: str, *kinds: type[Frame]) -> None:
            async with session.frames(*kinds) as frames:
                got = [frame async for frame in frames]
                assert bool(got) == (name == "closes")
                ended.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, "audio", Audio)
            tasks.start_soon(consume, "closes", Close)
            await settled()
            server.core.close(1000, "enough")
            server.flush()
        assert sorted(ended) == ["audio", "closes"]
        async with session.frames(Usage) as usages, session.frames(Close) as closes:
            assert [frame async for frame in usages] == []
            assert [frame async for frame in closes] == [Close(1000, "enough", "remote")]
        assert [type(frame) async for frame in session] == [Close]
        async with session.frames() as late:
            assert [frame async for frame in late] == []


async def test_a_violation_ends_it_with_an_error() -> None:
    async with connected() as (session, server):
        async with session.frames(Audio) as frames:
            server.raw(b"\x81\x01{")
            for _ in range(2):
                with pytest.raises(RemoteProtocolError):
                    await anext(frames)


async def test_one_task_at_a_time() -> None:
    async with connected() as (session, _server), session.frames(Usage) as frames:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, frames)
            await settled()
            with pytest.raises(anyio.BusyResourceError):
                await anext(frames)
            tasks.cancel_scope.cancel()


async def test_cancelled_it_loses_nothing() -> None:
    async with connected() as (session, server), session.frames(Transcript) as frames:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(frames)
        say(server, "a")
        await checkpoint()
        assert await anext(frames) == Transcript("assistant", "a", True)


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    error = ValueError("mine")
    async with connected() as (session, _server):
        with pytest.raises(ValueError, match="mine") as caught:
            async with session.frames():
                raise error
        assert caught.value is error
