"""Reordering keeps what the protocol promises, and nothing else."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ServerToolCall,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.testing import reordered

MARKS = (Ready, Interruption, ErrorFrame, Close)


def numbered(kinds: list[int]) -> list[Frame]:
    """One frame of each kind asked for, each one different."""
    made: list[Frame] = []
    for number, kind in enumerate(kinds):
        made.append(
            (
                Audio(bytes(2 * number), 24_000),
                Transcript("user", str(number)),
                Transcript("assistant", str(number)),
                ToolCall(str(number), "f", "{}"),
                ServerToolCall("a", str(number)),
                ServerToolCall("b", str(number)),
                Usage(number, 0),
                Unknown("x", str(number)),
                Interruption(),
                ErrorFrame(str(number)),
            )[kind]
        )
    return made


def stream(frame: Frame) -> tuple[object, ...]:
    match frame:
        case Transcript(role=role):
            return "transcript", role
        case ServerToolCall(id=id):
            return "server tool", id
        case _:
            return (type(frame),)


@given(kinds=st.lists(st.integers(0, 9), max_size=30), seed=st.integers(0, 2**32))
def test_each_stream_keeps_its_order_and_nothing_passes_a_mark(kinds: list[int], seed: int) -> None:
    frames = numbered(kinds)
    mixed = reordered(frames, Random(seed))
    assert sorted(map(repr, mixed)) == sorted(map(repr, frames))
    for key in {stream(frame) for frame in frames}:
        assert [f for f in mixed if stream(f) == key] == [f for f in frames if stream(f) == key]
    for at, frame in enumerate(frames):
        if isinstance(frame, MARKS):
            assert mixed[at] == frame
            assert sorted(map(repr, mixed[:at])) == sorted(map(repr, frames[:at]))


def test_every_allowed_order_comes() -> None:
    frames = numbered([0, 0, 1])
    orders = {tuple(map(repr, reordered(frames, Random(seed)))) for seed in range(100)}
    assert len(orders) == 3
