"""The delivery buffer by itself."""

from __future__ import annotations

import time
from math import inf

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio._net.tasks import Wakeup
from speko_anyio.client._delivery import FRAME_OVERHEAD, DeliveryBuffer, SelectiveBuffer

pytestmark = pytest.mark.anyio

AUDIO = Audio(bytes(1000), 24_000)
SIZE = 1000 + FRAME_OVERHEAD


class Space:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> None:
        self.made += 1


@pytest.mark.parametrize(
    ("frame", "content"),
    [
        (AUDIO, 1000),
        (Transcript("user", "four"), 4),
        (Unknown("x", "12345"), 6),
        (ErrorFrame("C", "six..."), 7),
        (ToolCall("c", "f", "{}"), 4),
        (ServerToolCall("id", "name", "started"), 6),
        (ResponseEnd("failed", "nine....."), 9),
        (Ready(1, 1), 0),
        (Usage(1, 2), 0),
        (Close(1000, "", "local"), 0),
    ],
)
async def test_every_frame_counts_its_content_and_something_more(frame: Frame, content: int) -> None:
    buffer = DeliveryBuffer(10_000, Space(), Wakeup())
    buffer.put(frame)
    assert buffer.size == content + FRAME_OVERHEAD
    assert await buffer.get() == frame
    assert buffer.size == 0


async def test_full_and_room_again_with_some_distance_between() -> None:
    space = Space()
    buffer = DeliveryBuffer(10 * SIZE, space, Wakeup())
    for _ in range(10):
        assert not buffer.full
        buffer.put(AUDIO)
    assert buffer.full
    await buffer.get()
    assert (buffer.full, space.made) == (True, 0)
    await buffer.get()
    assert (buffer.full, space.made) == (False, 1)
    await buffer.get()
    assert space.made == 1


async def test_an_interruption_makes_room() -> None:
    space = Space()
    buffer = DeliveryBuffer(3 * SIZE, space, Wakeup())
    for frame in (AUDIO, Transcript("user", "a"), AUDIO, AUDIO):
        buffer.put(frame)
    buffer.put(Interruption())
    assert (buffer.full, space.made) == (False, 1)
    assert (buffer.dropped_frames, buffer.dropped_bytes) == (3, 3000)
    assert [await buffer.get(), await buffer.get()] == [Transcript("user", "a"), Interruption()]
    assert buffer.size == 0


async def test_a_lossy_buffer_drops_what_does_not_fit_but_never_the_end() -> None:
    buffer = DeliveryBuffer(2 * SIZE, Space(), Wakeup())
    buffer.lossy = True
    for frame in (AUDIO, AUDIO, AUDIO, Usage(1, 1), Close(1000, "", "local")):
        buffer.put(frame)
    assert len(buffer) == 3
    assert (buffer.dropped_frames, buffer.dropped_bytes) == (2, 1000)
    assert [type(await buffer.get()) for _ in range(3)] == [Audio, Audio, Close]
    assert await buffer.get() is None


async def test_the_end_wakes_the_receiver_and_stays() -> None:
    buffer = DeliveryBuffer(1000, Space(), Wakeup())
    got: list[Frame | None] = []

    async def receive() -> None:
        got.append(await buffer.get())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            buffer.end()
    assert got == [None]
    assert await buffer.get() is None


async def test_clearing_makes_room() -> None:
    space = Space()
    buffer = DeliveryBuffer(SIZE, space, Wakeup())
    buffer.put(AUDIO)
    buffer.clear()
    assert (len(buffer), buffer.size, space.made) == (0, 0, 1)


def new_buffer(kind: str, limit: int) -> DeliveryBuffer:
    if kind == "whole":
        return DeliveryBuffer(limit, Space(), Wakeup())
    kinds = (Audio, Transcript)
    return SelectiveBuffer(limit, Space(), Wakeup(), kinds=kinds, drop_oldest=kind == "drop oldest")


@pytest.mark.parametrize("kind", ["whole", "selective", "drop oldest"])
@pytest.mark.parametrize("taken", range(5))
async def test_each_interruption_discards_the_audio_since_the_last(kind: str, taken: int) -> None:
    buffer = new_buffer(kind, 1_000_000)
    left: list[Frame] = [Transcript("user", "a"), Interruption(), AUDIO, Transcript("user", "b"), AUDIO]
    for frame in (left[0], AUDIO, *left[1:]):
        buffer.put(frame)
    if kind != "whole":
        left = [frame for frame in left if type(frame) is not Interruption]
    for expected in left[:taken]:
        assert await buffer.get() == expected
    buffer.put(Interruption())
    rest = [frame for frame in left[taken:] if type(frame) is not Audio]
    if kind == "whole":
        rest.append(Interruption())
    assert list(buffer.snapshot()) == rest
    assert buffer.size == sum(FRAME_OVERHEAD + type(frame).__name__.startswith("T") for frame in rest)


async def test_interruptions_that_nobody_takes_are_bounded() -> None:
    buffer = DeliveryBuffer(10 * SIZE, Space(), Wakeup())
    buffer.lossy = True
    for _ in range(10):
        buffer.put(AUDIO)
    for _ in range(10_000):
        buffer.put(Interruption())
    assert buffer.size <= 10 * SIZE + FRAME_OVERHEAD
    assert buffer.dropped_bytes == 10_000


def seconds(kind: str, count: int) -> float:
    """CPU time of many interruptions, each with a little audio before it."""
    best = inf
    for _ in range(5):
        buffer = new_buffer(kind, 1 << 30)
        begin = time.process_time()
        for _ in range(count):
            buffer.put(Transcript("user", "a"))
            buffer.put(AUDIO)
            buffer.put(Interruption())
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("kind", ["whole", "selective"])
async def test_interruptions_cost_no_more_the_more_there_are(kind: str) -> None:
    assert seconds(kind, 4 * 1000) < 6 * seconds(kind, 1000)
