"""The model's side of the Gemini dialect by itself: its answers, and how far they are."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol import Audio, ErrorFrame, Frame, Interruption, ResponseEnd, Transcript
from speko_anyio.providers._heard import HeardEstimate
from speko_anyio.providers.google import GoogleStats
from speko_anyio.providers.google._assistant import (
    CUT_TIMEOUT,
    GOING_ON_TIMEOUT,
    MUTE_TIMEOUT,
    STALLED_TIMEOUT,
    Assistant,
)
from speko_anyio.providers.google._events import Blob, ResumptionUpdate, Transcription
from speko_anyio.providers.google._response import Phase, Progress
from speko_anyio.providers.google._resumption import Resumption
from speko_anyio.providers.google._words import LATE_WORDS_TIMEOUT, SETTLED_TIMEOUT

from .google_talk import Surroundings

SAMPLE = b"\1\0"


def words_of(text: str) -> Transcription:
    return Transcription(text=text)


class Talk(Surroundings):
    """An assistant, and what it was given."""

    def __init__(self, *, transcribed: bool = True) -> None:
        super().__init__()
        self.user = self.user_words()
        self.handle = Resumption(None)
        self.stats = GoogleStats()
        self.playback = HeardEstimate(24_000)
        self.playback.clock(0.0)
        self.assistant = Assistant(
            self.emit,
            self.start,
            self.stop,
            user=self.user,
            handle=self.handle,
            playback=self.playback,
            stats=self.stats,
            transcribed=transcribed,
        )

    def speak(self, pcm: bytes = SAMPLE, mime_type: str = "audio/pcm;rate=24000") -> list[Frame]:
        audio = self.assistant.receive_audio(Blob(mime_type=mime_type, data=pcm))
        return self.frames() + ([] if audio is None else [audio])

    def complete(self) -> list[Frame]:
        if self.assistant.receive_end(turn=True, status="", waits=False):
            self.assistant.end()
        return self.frames()


def test_an_answer() -> None:
    talk = Talk()
    talk.user.receive(words_of("Hi"), in_turn=False)
    talk.handle.receive(ResumptionUpdate(new_handle="h", resumable=True))
    talk.frames()
    assert talk.speak() == [Transcript("user", "Hi", True), Audio(SAMPLE, 24_000)]
    assert [talk.assistant.responding] == [True]
    assert [talk.handle.fresh] == [False]
    assert talk.timers["stalled"] == STALLED_TIMEOUT
    talk.assistant.receive_words(words_of(" Hello."))
    talk.assistant.receive_generated()
    assert [talk.assistant.responding] == [False]
    assert talk.complete() == [
        Transcript("assistant", "Hello.", False),
        Transcript("assistant", "Hello.", True),
        ResponseEnd("done"),
    ]
    assert talk.timers == {"settled": SETTLED_TIMEOUT, "late": LATE_WORDS_TIMEOUT}


def test_half_a_sample_waits_for_the_other_half_but_not_in_the_next_answer() -> None:
    talk = Talk()
    assert talk.speak(b"\1\0\2") == [Audio(b"\1\0", 24_000)]
    assert talk.speak(b"\0\3") == [Audio(b"\2\0", 24_000)]
    talk.complete()
    assert talk.speak() == [Audio(SAMPLE, 24_000)]


@pytest.mark.parametrize(
    ("mime_type", "rate"),
    [("audio/pcm", 24_000), ("", 24_000), ("audio/pcm; rate=16000", 16_000), ("audio/pcm;rate=0", 24_000)],
)
def test_audio_says_its_rate(mime_type: str, rate: int) -> None:
    talk = Talk()
    assert talk.speak(SAMPLE, mime_type) == [Audio(SAMPLE, rate)]


def test_what_is_no_audio_is_counted() -> None:
    talk = Talk()
    assert talk.speak(b"x", "image/png") == []
    assert talk.stats.skipped_blobs == 1
    assert talk.assistant.progress.phase is Phase.IDLE


@pytest.mark.parametrize("transcribed", [False, True])
def test_text_is_what_is_said_where_nothing_transcribes_it(transcribed: bool) -> None:
    talk = Talk(transcribed=transcribed)
    for text in (" ", " Hello"):
        talk.assistant.receive_text(text)
    assert talk.frames() == ([] if transcribed else [Transcript("assistant", "Hello", False)])


def test_what_is_given_up_is_dropped_until_its_end() -> None:
    talk = Talk()
    talk.speak()
    talk.assistant.give_up()
    talk.assistant.interrupt("assistant")
    assert talk.frames() == [Interruption("assistant"), ResponseEnd("interrupted")]
    assert talk.timers["mute"] == MUTE_TIMEOUT
    assert talk.speak() == []
    assert talk.stats.late_events == 1
    assert talk.complete() == []
    assert "mute" not in talk.timers
    assert talk.speak() == [Audio(SAMPLE, 24_000)]


def test_the_user_cuts_in() -> None:
    talk = Talk()
    talk.speak()
    assert talk.assistant.cut_in() is True
    assert talk.timers["mute"] == CUT_TIMEOUT
    talk.assistant.interrupt("user")
    talk.frames()
    assert talk.assistant.cut_in() is False
    assert talk.stats.repeated_events == 1
    talk.assistant.progress.await_rest()
    assert talk.speak() == []
    talk.assistant.hear_user()
    assert talk.speak() == [Audio(SAMPLE, 24_000)], "the user has spoken since, so this answers them"


def test_words_alone_are_taken_back_when_only_time_prompted_them() -> None:
    talk = Talk()
    talk.speak()
    talk.complete()
    talk.handle.receive(ResumptionUpdate(new_handle="h", resumable=True))
    talk.assistant.end_late_words()
    talk.assistant.receive_words(words_of("and so on"))
    assert [talk.assistant.speaking] == [True]
    assert [talk.handle.fresh] == [False]
    talk.frames()
    talk.assistant.retract_late_words()
    assert talk.frames() == [Transcript("assistant", "and so on", True)]
    assert [talk.handle.fresh] == [True]
    assert talk.complete() == []


def test_an_answer_that_stalls_ends() -> None:
    talk = Talk()
    talk.speak()
    talk.assistant.check_stalled(calls_open=False)
    assert talk.frames() == [], "audio has come, and is unplayed"
    talk.playback.clock(1.0)
    talk.assistant.check_stalled(calls_open=True)
    assert talk.frames() == [], "the tool may take its time"
    talk.assistant.check_stalled(calls_open=False)
    assert talk.frames() == [ResponseEnd("done")]


def test_an_answer_that_does_not_come() -> None:
    talk = Talk()
    talk.assistant.ask(certain=True)
    assert talk.timers["stalled"] == STALLED_TIMEOUT
    talk.assistant.check_stalled(calls_open=False)
    [error] = talk.frames()
    assert isinstance(error, ErrorFrame)
    assert not talk.assistant.progress.awaited


def test_audio_is_what_was_awaited() -> None:
    talk = Talk()
    talk.speak()
    talk.assistant.ask(certain=True)
    assert [talk.assistant.progress.awaited] == [True]
    talk.speak()
    assert [talk.assistant.progress.awaited] == [False]


def test_a_model_that_goes_on_is_not_idle() -> None:
    talk = Talk()
    talk.speak()
    assert talk.assistant.receive_end(turn=True, status="IN_PROGRESS", waits=False) is True
    assert talk.timers["stalled"] == GOING_ON_TIMEOUT
    assert talk.assistant.progress.stoppable
    assert talk.assistant.receive_end(turn=False, status="IDLE", waits=False) is True
    assert not talk.assistant.progress.stoppable


@pytest.mark.parametrize(
    ("reason", "status", "errors"),
    [("MAX_TOKENS", "incomplete", 0), ("MALFORMED_FUNCTION_CALL", "failed", 1), ("STOP", "done", 0)],
)
def test_why_an_answer_ended_early(reason: str, status: Any, errors: int) -> None:
    talk = Talk()
    talk.speak()
    talk.assistant.receive_reason(reason)
    assert [type(frame) for frame in talk.frames()] == [ErrorFrame] * errors
    [end] = talk.complete()
    assert end == ResponseEnd(status, "" if status == "done" else reason)


@pytest.mark.parametrize("wanted", [False, True])
def test_an_answer_that_is_cut_off_with_the_session(wanted: bool) -> None:
    talk = Talk()
    assert talk.assistant.take_open(wanted=wanted) is None
    talk.assistant.receive_words(words_of("I wan"))
    talk.assistant.reason = "gone"
    assert talk.assistant.take_words() == Transcript("assistant", "I wan", True)
    end = ResponseEnd("interrupted") if wanted else ResponseEnd("failed", "gone")
    assert talk.assistant.take_open(wanted=wanted) == end
    assert talk.assistant.take_open(wanted=wanted) is None


# Progress


def test_words_after_an_end_begin_an_answer_only_if_something_prompts_one() -> None:
    progress = Progress()
    assert progress.output(words=True) is True
    assert progress.output() is False
    assert progress.end(turn=True, status="", waits=False) is True
    assert [progress.prompted] == [False]
    progress.prompt()
    assert [progress.prompted] == [True]
    progress.end(turn=True, status="", waits=False)
    progress.prompt_by_time()
    progress.output(words=True)
    assert progress.maybe_late
    progress.tool_call()
    assert not progress.maybe_late
