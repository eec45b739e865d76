"""The delivery buffer by itself."""

from __future__ import annotations

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio._net.tasks import Wakeup
from speko_anyio.client._delivery import FRAME_OVERHEAD, DeliveryBuffer

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
        (Unknown("x", "12345"), 5),
        (ErrorFrame("C", "six..."), 6),
        (ToolCall("c", "f", "{}"), 2),
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
