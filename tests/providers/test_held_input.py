"""Input from before the provider was ready: exactly the newest audio is kept."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import Limits, Respond
from speko_anyio.providers._held_input import HeldInput
from speko_anyio.providers.google import GoogleOptions

from . import realtime_talk
from .google_talk import Talk, call, pcm_of
from .realtime_talk import pcm


def numbered(samples: int, start: int = 0) -> bytes:
    return b"".join((number % 60_000).to_bytes(2, "little") for number in range(start, start + samples))


@given(sizes=st.lists(st.integers(0, 40), max_size=12), end=st.integers(0, 12), capacity=st.integers(2, 41))
def test_pieces_do_not_matter(sizes: list[int], end: int, capacity: int) -> None:
    held, said, before = HeldInput(capacity), b"", b""
    for position, size in enumerate(sizes):
        if position == end:
            held.end_turn("commit")
            before = said
        piece = numbered(size, len(said) // 2)
        held.add(piece)
        said += piece
    kept = said[max(0, len(said) - (capacity & ~1)) :]
    ended = len(sizes) > end
    taken = held.take()
    assert b"".join(what for what in taken if isinstance(what, bytes)) == kept
    assert held.dropped == len(said) - len(kept)
    before = before[held.dropped :]
    rest = kept[len(before) :]
    assert taken == [what for what in (before, "commit" if ended else b"", rest) if what]
    assert held.take() == []


class Plain:
    """The same by simple means: whole samples one by one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // 2
        self.held: list[Any] = []

    def add(self, pcm: bytes) -> None:
        self.held += [pcm[at : at + 2] for at in range(0, len(pcm), 2)]
        while sum(map(is_audio, self.held)) > self.capacity:
            del self.held[next(at for at, what in enumerate(self.held) if is_audio(what))]

    def end_turn(self, verb: str) -> None:
        self.held = [what for what in self.held if not isinstance(what, str)] + [verb]

    def clear(self) -> None:
        ends = [at for at, what in enumerate(self.held) if isinstance(what, str)]
        kept = ends[0] if ends else 0
        self.held = [what for at, what in enumerate(self.held) if at < kept or not is_audio(what)]

    def take(self) -> list[Any]:
        joined: list[Any] = []
        for what in self.held:
            if is_audio(what) and joined and is_audio(joined[-1]):
                joined[-1] += what
            else:
                joined.append(what)
        self.held = []
        return joined


def is_audio(what: object) -> bool:
    return isinstance(what, bytes)


ACTIONS = st.one_of(
    st.integers(0, 3000).map(lambda samples: ("add", numbered(samples))),
    st.sampled_from([("end_turn", "commit"), ("end_turn", "end_turn"), ("clear", None)]),
    st.just(("command", Respond())),
    st.just(("take", None)),
)


@given(actions=st.lists(ACTIONS, max_size=15), capacity=st.sampled_from([2, 100, 9_000, 100_000]))
def test_everything_keeps_its_order(actions: list[tuple[str, Any]], capacity: int) -> None:
    held, plain = HeldInput(capacity), Plain(capacity)
    for verb, what in [*actions, ("take", None)]:
        match verb:
            case "command":
                held.add_command(what, 10)
                plain.held.append(what)
            case "take":
                assert held.take() == plain.take()
            case "clear":
                held.clear()
                plain.clear()
            case _:
                getattr(held, verb)(what)
                getattr(plain, verb)(what)
        commands = sum(not isinstance(what, (bytes, str)) for what in plain.held)
        assert held.commands_size == 10 * commands


def test_a_long_recording_is_not_kept_in_memory() -> None:
    held = HeldInput(1_000)
    tracemalloc.start()
    try:
        held.add(bytes(10_000_000))
        held.add(bytes(2))
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_cutting_a_long_piece_does_not_copy_it() -> None:
    held = HeldInput(480_000)
    held.add(bytes(480_000))
    for _ in range(24_000):  # with a copy each time: 11 GB
        held.add(b"\1\0")
    assert held.take() == [bytes(432_000) + b"\1\0" * 24_000]


@pytest.mark.parametrize("make", [realtime_talk.openai, realtime_talk.xai])
def test_one_long_piece_before_a_realtime_provider_is_ready(make: Any) -> None:
    talk = make()
    talk.dialect.send_audio(numbered(12 * 24_000))
    talk.make_ready()
    assert talk.dialect.held_audio_dropped == 2 * 48_000


def test_one_long_piece_while_a_tool_is_asked() -> None:
    talk = Talk(options=GoogleOptions(gate_input=True))
    talk.hear(call(("c1", {})))
    talk.sent()
    said = numbered(12 * 24_000)
    talk.dialect.send_audio(said)
    talk.dialect.send_tool_result("c1", "{}")
    assert b"".join(map(pcm_of, talk.sent()[1:])) == said[-10 * 48_000 :]


def test_what_was_held_goes_as_far_as_the_outbox_takes_it() -> None:
    limits = Limits(max_outbox=64_000)
    talk = Talk(options=GoogleOptions(gate_input=True), limits=limits)
    talk.dialect.send_audio(pcm(600))  # nobody takes it
    talk.hear(call(("c1", {})))
    talk.dialect.send_audio(pcm(600))
    talk.dialect.send_tool_result("c1", "{}")
    heard = len(b"".join(pcm_of(message) for message in talk.sent() if "realtimeInput" in message))
    assert heard > len(pcm(600))
    assert heard + talk.dialect.held_audio_dropped == 2 * len(pcm(600))


def test_tiny_pieces_take_little_more_than_their_bytes() -> None:
    held = HeldInput(480_000)
    tracemalloc.start()
    try:
        for _ in range(240_000):
            held.add(b"\1\2")
        assert tracemalloc.get_traced_memory()[0] < 2 * 480_000
    finally:
        tracemalloc.stop()
    held.add(b"\3\4")
    assert held.dropped == 2
    assert held.take() == [b"\1\2" * 239_999 + b"\3\4"]
