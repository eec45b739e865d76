"""The outbox: order, the limit, and what is dropped again."""

from __future__ import annotations

import pytest

from speko_anyio.protocol import CloseMessage, LocalProtocolError, Outbox
from speko_anyio.protocol.outbox import WireBytes


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
    with pytest.raises(LocalProtocolError, match="the outbox would pass its limit of 6 bytes"):
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
