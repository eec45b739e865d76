"""What comes back of an echo, in any pieces: whole, in order, lost, twice, changed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.cli.bench._session_runs import EchoCheck, Outcome, message

SIZE = 32


def received(stream: bytes, cuts: list[int]) -> tuple[list[int], Outcome]:
    outcome = Outcome()
    check = EchoCheck(SIZE, outcome)
    arrived: list[int] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        arrived += check.receive(stream[start:end])
    return arrived, outcome


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@given(count=st.integers(0, 20), cuts=CUTS)
def test_what_comes_as_it_was_sent_is_complete_however_it_is_cut(count: int, cuts: list[int]) -> None:
    arrived, outcome = received(b"".join(message(i, SIZE) for i in range(count)), cuts)
    assert arrived == list(range(count))
    assert (outcome.lost, outcome.broken) == (0, 0)


@given(count=st.integers(2, 20), gone=st.integers(0, 18), cuts=CUTS)
def test_a_message_that_others_overtook_is_lost(count: int, gone: int, cuts: list[int]) -> None:
    gone %= count - 1  # the last one is missed only when the session ends
    kept = [i for i in range(count) if i != gone]
    arrived, outcome = received(b"".join(message(i, SIZE) for i in kept), cuts)
    assert arrived == kept
    assert (outcome.lost, outcome.broken) == (1, 0)


@given(count=st.integers(2, 20), at=st.integers(0, 18), cuts=CUTS)
def test_messages_out_of_order_are_seen(count: int, at: int, cuts: list[int]) -> None:
    at %= count - 1
    order = list(range(count))
    order[at], order[at + 1] = order[at + 1], order[at]
    arrived, outcome = received(b"".join(message(i, SIZE) for i in order), cuts)
    assert arrived == [i for i in range(count) if i != at]
    assert (outcome.lost, outcome.broken) == (1, 1)


@given(count=st.integers(1, 20), at=st.integers(0, 10_000), flip=st.integers(1, 255), cuts=CUTS)
def test_a_changed_sample_is_seen(count: int, at: int, flip: int, cuts: list[int]) -> None:
    stream = bytearray(b"".join(message(i, SIZE) for i in range(count)))
    stream[at % len(stream)] ^= flip
    _, outcome = received(bytes(stream), cuts)
    assert outcome.broken > 0
