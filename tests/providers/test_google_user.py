"""The user's side of the Gemini dialect by itself: audio and turns that go out, words that come in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from speko_anyio.protocol import LocalProtocolError, Transcript
from speko_anyio.providers.google._config import Rules
from speko_anyio.providers.google._events import Transcription
from speko_anyio.providers.google._user import UserTurn
from speko_anyio.providers.google._words import LATE_WORDS_TIMEOUT, SETTLED_TIMEOUT

from .google_talk import Surroundings

# UserTurn


class Queue:
    """Messages, as many as there is room for."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self._messages: list[Any] = []

    def __call__(self, messages: Sequence[str]) -> None:
        if len(messages) > self.room:
            raise LocalProtocolError("no room")
        self.room -= len(messages)
        self._messages += map(json.loads, messages)

    def kinds(self) -> list[str]:
        """What the messages are, since the last look."""
        kinds = [kind for message in self._messages for kind in message["realtimeInput"]]
        self._messages.clear()
        return kinds


def user_turn(queue: Queue, *, auto: bool) -> UserTurn:
    rules = Rules(
        auto=auto,
        silence_ms=250,
        gates=False,
        stops=False,
        transcribed=True,
        interrupts=True,
        scheduling=None,
    )
    return UserTurn(rules, 16_000, queue)


def test_a_manual_turn_has_a_beginning_and_an_end() -> None:
    queue = Queue()
    turn = user_turn(queue, auto=False)
    assert turn.end() is False
    turn.send(bytes(3_200 + 2))
    turn.send(bytes(2))
    assert [turn.open] == [True]
    assert turn.end() is True
    assert [turn.open] == [False]
    assert queue.kinds() == ["activityStart", "audio", "audio", "audio", "activityEnd"]
    turn.begin()
    turn.begin()
    turn.send(bytes(2))
    assert queue.kinds() == ["activityStart", "audio"]


def test_a_turn_that_the_provider_detects_ends_in_silence() -> None:
    queue = Queue()
    turn = user_turn(queue, auto=True)
    turn.send(bytes(2))
    assert [turn.open] == [False]
    assert turn.end() is True
    assert turn.end() is True
    assert queue.kinds() == ["audio", *["audio"] * 3, "audioStreamEnd", *["audio"] * 3, "audioStreamEnd"]


def test_what_finds_no_room_changes_nothing() -> None:
    queue = Queue(room=1)
    turn = user_turn(queue, auto=False)
    for size in (2, 6_400):
        with pytest.raises(LocalProtocolError):
            turn.send(bytes(size))
    assert [turn.open] == [False]
    queue.room = 2
    turn.send(bytes(2))
    with pytest.raises(LocalProtocolError):
        turn.end()
    assert [turn.open] == [True]
    queue.room = 1
    assert turn.end() is True
    assert queue.kinds() == ["activityStart", "audio", "activityEnd"]


def test_held_audio_that_finds_no_room_is_counted() -> None:
    queue = Queue(room=3)
    turn = user_turn(queue, auto=False)
    turn.send_what_fits(bytes(3_200 * 4 + 2))
    assert queue.kinds() == ["activityStart", "audio", "audio"]
    assert turn.lost == 3_200 * 2 + 2


# UserWords


def words_of(text: str) -> Transcription:
    return Transcription(text=text)


def test_words_of_the_user_add_up_until_they_are_finished() -> None:
    around = Surroundings()
    words = around.user_words()
    words.receive(words_of(" What's"), in_turn=False)
    words.receive_interim(words_of(" the wheat"), in_turn=False)
    words.receive(words_of(" the weather?"), in_turn=False)
    assert [words.speaking] == [True]
    words.finish()
    assert around.frames() == [
        Transcript("user", "What's", False),
        Transcript("user", "What's the wheat", False),
        Transcript("user", "What's the weather?", False),
        Transcript("user", "What's the weather?", True),
    ]
    assert [words.speaking] == [False]


def test_words_that_come_after_their_answer_are_complete_after_a_while() -> None:
    around = Surroundings()
    words = around.user_words()
    words.finish()  # the model answers before anything was transcribed
    words.receive(words_of("Hello"), in_turn=True)
    assert "words" not in around.timers
    words.receive(words_of(" there"), in_turn=False)
    assert around.timers["words"] == LATE_WORDS_TIMEOUT
    words.finish()
    assert around.frames()[-1] == Transcript("user", "Hello there", True)
    assert "words" not in around.timers
    words.receive(words_of("More"), in_turn=False)
    assert "words" not in around.timers, "the answered words have come"


def test_words_of_an_interruption_are_not_those_of_the_last_question() -> None:
    around = Surroundings()
    words = around.user_words()
    words.finish()
    words.cut_in()
    words.receive(words_of("Stop"), in_turn=False)
    assert "words" not in around.timers


def test_words_settle() -> None:
    around = Surroundings()
    words = around.user_words()
    words.receive(words_of("Hm"), in_turn=False)
    assert around.timers["settled"] == SETTLED_TIMEOUT
    assert [words.unsettled] == [True]
    words.settle()
    assert [words.unsettled] == [False]
    assert [words.speaking] == [True]
    words.receive(words_of(" well"), in_turn=False)
    assert [words.unsettled] == [True]
    assert words.take() == Transcript("user", "Hm well", True)
    assert words.take() is None
