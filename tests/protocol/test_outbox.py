"""The outbox: order, the limit, and what is dropped again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from speko_anyio.protocol import CloseMessage, LocalProtocolError, Outbox
from speko_anyio.protocol._outbox import WireBytes


def filled(limit: int = 100) -> Outbox:
    outbox = Outbox(limit)
    for message in ("hello", b"abcd", "\u20ac", WireBytes(b"ping"), b"ef", CloseMessage(1000, "bye")):
        outbox.put(message)
    return outbox


def test_messages_keep_their_order_and_their_payload_counts() -> None:
    outbox = filled()
    assert outbox.size == 5 + 4 + 3 + 2
    assert outbox.take() == "hello"
    assert outbox.size == 9
    assert outbox.take_all() == [b"abcd", "\u20ac", b"ping", b"ef", CloseMessage(1000, "bye")]
    assert (outbox.size, outbox.take(), outbox.take_all()) == (0, None, [])


def test_audio_can_be_dropped() -> None:
    outbox = filled()
    outbox.drop_audio()
    assert outbox.messages == ["hello", "\u20ac", b"ping", CloseMessage(1000, "bye")]
    assert outbox.size == 8


def test_framed_audio_counts_by_its_payload_and_can_be_dropped() -> None:
    outbox = Outbox(100)
    outbox.frame_audio = lambda pcm: b"head" + pcm
    outbox.put(b"abcd")
    outbox.put("text")
    assert (outbox.messages, outbox.size) == ([b"headabcd", "text"], 8)
    outbox.drop_audio()
    assert (outbox.messages, outbox.size) == (["text"], 4)


def test_texts_can_be_dropped_by_what_they_say() -> None:
    outbox = filled()
    outbox.drop_texts(lambda text: text.startswith("he"))
    assert outbox.messages == [b"abcd", "\u20ac", b"ping", b"ef", CloseMessage(1000, "bye")]
    assert outbox.size == 9


def test_all_texts_are_queued_or_none() -> None:
    outbox = Outbox(6)
    outbox.put_all(["ab", "\u20ac"])
    assert (outbox.messages, outbox.size) == (["ab", "\u20ac"], 5)
    with pytest.raises(LocalProtocolError, match=r"more than 6 bytes \(max_outbox\) would wait"):
        outbox.put_all(["c", "d"])
    assert (outbox.messages, outbox.size) == (["ab", "\u20ac"], 5)
    outbox.put_all(["c"])
    assert outbox.size == 6


def test_there_is_room_up_to_the_limit() -> None:
    outbox = filled(20)
    outbox.check_room(6)
    with pytest.raises(LocalProtocolError, match="pass less at a time"):
        outbox.check_room(7)


def test_what_is_forgotten_no_longer_counts() -> None:
    outbox = filled()
    outbox.clear()
    assert (outbox.size, outbox.messages) == (0, [])


def test_many_tiny_messages_are_taken_in_linear_time() -> None:
    outbox = Outbox(1 << 24)
    for _ in range(300_000):
        outbox.put(b"ab")
    began = time.process_time()
    while outbox.take() is not None:
        pass
    assert time.process_time() - began < 5  # it would take 15 seconds if each moved all that follow
    assert (outbox.size, outbox.messages) == (0, [])


NUMBERS = [str(number) for number in range(3000)]


@pytest.mark.parametrize("taken", [1, 1499, 1500, 1501, 2999])
@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda outbox: None, lambda texts: texts),
        (lambda outbox: outbox.put("last"), lambda texts: [*texts, "last"]),
        (Outbox.drop_audio, lambda texts: texts),
        (lambda outbox: outbox.drop_texts(lambda text: text.endswith("7")), lambda texts: without_7(texts)),
        (Outbox.clear, lambda texts: []),
    ],
)
def test_what_was_taken_of_many_messages_is_gone(
    taken: int, change: Callable[[Outbox], None], left: Callable[[list[str]], list[str]]
) -> None:
    outbox, other = Outbox(1 << 20), Outbox(1 << 20)
    for box in (outbox, other):
        box.put_all(NUMBERS)
        assert [box.take() for _ in range(taken)] == NUMBERS[:taken]
        box.put(b"audio")
        change(box)
        if change not in (Outbox.drop_audio, Outbox.clear):
            box.drop_audio()
    wanted = left(NUMBERS[taken:])
    assert outbox.size == sum(map(len, wanted))
    assert bool(outbox.messages) == bool(wanted)
    assert outbox.take_all() == wanted
    assert list(iter(other.take, None)) == wanted
    assert (outbox.size, other.size, other.messages) == (0, 0, [])


@pytest.mark.parametrize("taken", [0, 1, 1499, 1500, 2999])
def test_all_that_is_left_of_many_messages_is_taken_at_once(taken: int) -> None:
    outbox = Outbox(1 << 20)
    outbox.put_all(NUMBERS)
    for _ in range(taken):
        outbox.take()
    assert outbox.take_all() == NUMBERS[taken:]
    outbox.put_all(NUMBERS[:2])
    assert [outbox.take(), outbox.take(), outbox.take()] == [*NUMBERS[:2], None]


def without_7(texts: list[str]) -> list[str]:
    return [text for text in texts if not text.endswith("7")]


def test_what_is_held_back_is_given_back() -> None:
    outbox = Outbox(1000)
    for message in (b"a" * 10, "text", b"b" * 20, CloseMessage(1000, "")):
        outbox.put(message)
    later = outbox.hold_back(12)
    assert outbox.take_all() == [b"a" * 10, "text"]
    outbox.give_back(later, 20)
    assert (outbox.size, outbox.only_audio) == (20, False)
    assert outbox.hold_back(100) == []
    assert outbox.take_all() == [b"b" * 20, CloseMessage(1000, "")]
    outbox.put(b"ab")
    outbox.put(b"cd")
    later = outbox.hold_back(1)
    assert outbox.take_all() == [b"ab"]
    outbox.give_back(later, 2)
    assert outbox.only_audio
