"""The user's part of the realtime dialect alone: audio, the ends of turns, and transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speko_anyio.protocol import ErrorFrame, LocalProtocolError, Transcript
from speko_anyio.protocol._timers import Timers
from speko_anyio.providers.realtime import _events as wire
from speko_anyio.providers.realtime._user import SILENCE_TIMEOUT, SPEECH_TIMEOUT, TurnRules, User, UserWords
from speko_anyio.providers.xai import XAIWords

RATE = 24_000
AUTO = TurnRules(auto=True, silence_ms=800)


def pcm(ms: int) -> bytes:
    return bytes(ms * RATE // 1000 * 2)


class Side:
    """A user part, its timers and what it sends."""

    def __init__(self, rules: TurnRules = AUTO, *, early_commits: bool = True) -> None:
        self.timers = Timers()
        self.sent: list[str] = []
        self.user = User(
            rules,
            UserWords(),
            wire.EventIds(on_wire=True),
            self.timers.start,
            self.timers.stop,
            sample_rate=RATE,
            early_commits=early_commits,
        )

    def put(self, events: Sequence[wire.ClientEvent]) -> None:
        self.sent += [type(event).__name__ for event in events]

    def refuse(self, events: Sequence[wire.ClientEvent]) -> None:
        raise LocalProtocolError("full")

    def running(self, seconds: float) -> list[str]:
        self.timers.settle(0.0)
        return [name for name, _ in self.timers.expired(seconds)]

    def take(self) -> list[str]:
        sent, self.sent = self.sent, []
        return sent


def test_audio_is_sent_in_bounded_messages() -> None:
    side = Side()
    side.user.append(bytes(70_000), side.put)
    assert side.take() == ["AppendAudio"] * 3


def test_too_little_audio_cannot_be_committed() -> None:
    side = Side(TurnRules(auto=False))
    side.user.append(pcm(99), side.put)
    found = [side.user.may_commit]
    side.user.append(pcm(1), side.put)
    found.append(side.user.may_commit)
    side.user.all_committed()
    assert [*found, side.user.may_commit] == [False, True, False]


def test_audio_that_was_refused_does_not_count() -> None:
    side = Side()
    with pytest.raises(LocalProtocolError):
        side.user.append(pcm(500), side.refuse)
    assert not side.user.may_commit


def test_cleared_audio_does_not_count() -> None:
    side = Side()
    side.user.append(pcm(500), side.put)
    side.user.end_turn("commit", side.put)
    side.user.clear(side.put)
    assert side.take()[-1] == "ClearAudio"
    assert not side.user.may_commit
    assert side.running(SILENCE_TIMEOUT) == []


def test_open_speech_is_committed_and_the_response_requested_when_that_is_confirmed() -> None:
    side = Side()
    side.user.speech_started()
    side.user.append(pcm(500), side.put)
    side.user.end_turn("commit", side.put)
    assert side.take() == ["AppendAudio", "CommitAudio"]
    assert side.user.committed()
    assert not side.user.committed(), "only ours"
    assert not side.user.may_commit


@pytest.mark.parametrize("spoils", ["speech_started", "drop_request"])
def test_no_response_is_requested_when_another_event_has_settled_that(spoils: str) -> None:
    side = Side()
    side.user.speech_started()
    side.user.append(pcm(500), side.put)
    side.user.end_turn("commit", side.put)
    getattr(side.user, spoils)()
    assert not side.user.committed()


def test_without_open_speech_silence_ends_the_turn() -> None:
    side = Side()
    side.user.append(pcm(500), side.put)
    side.user.end_turn("commit", side.put)
    assert side.take() == ["AppendAudio", "AppendAudio", "AppendAudio"]  # 800 ms of silence in two messages
    assert not side.user.committed(), "the provider creates the response"
    assert side.running(SILENCE_TIMEOUT) == ["silence"]


def test_silence_is_followed_by_our_request_where_the_provider_makes_none() -> None:
    side = Side(TurnRules(auto=True, silence_ms=800, creates=False))
    side.user.end_turn("end_turn", side.put)
    assert side.user.committed()


@pytest.mark.parametrize(("semantic", "sent"), [(True, "CommitAudio"), (False, "AppendAudio")])
def test_end_turn_waits_for_the_detection_where_silence_is_enough(semantic: bool, sent: str) -> None:
    side = Side(TurnRules(auto=True, silence_ms=500, semantic=semantic))
    side.user.speech_started()
    side.user.append(pcm(200), side.put)
    side.take()
    side.user.end_turn("end_turn", side.put)
    assert side.take() == [sent]


def test_silence_that_does_not_end_the_turn_is_repeated_once() -> None:
    side = Side(early_commits=False)
    side.user.speech_started()
    side.user.end_turn("commit", side.put)
    first = side.take()
    assert side.running(SILENCE_TIMEOUT) == ["silence"]
    side.user.silence_expired(side.put)
    assert side.take() == first
    assert side.running(SILENCE_TIMEOUT) == ["silence"]
    side.user.silence_expired(side.put)
    assert side.take() == []


def test_silence_is_not_repeated_when_nobody_speaks() -> None:
    side = Side()
    side.user.end_turn("commit", side.put)
    side.take()
    side.user.silence_expired(side.put)
    assert side.take() == []


def test_silence_is_followed_by_a_commit_where_that_helps() -> None:
    side = Side()
    side.user.end_turn("commit", side.put)
    side.user.speech_started()
    side.take()
    side.user.silence_expired(side.put)
    assert side.take() == ["CommitAudio"]


def test_speech_goes_on_while_audio_comes() -> None:
    side = Side()
    side.user.speech_started()
    side.user.wait_for_speech_end()
    assert side.running(SPEECH_TIMEOUT) == ["speech"]
    side.user.append(pcm(20), side.put)
    side.take()
    assert side.user.still_speaks(side.put)
    assert side.take() == []


def test_a_muted_user_gets_silence_once_and_then_counts_as_silent() -> None:
    side = Side()
    side.user.speech_started()
    side.user.wait_for_speech_end()
    assert side.user.still_speaks(side.put)
    assert side.take() == ["AppendAudio", "AppendAudio"]
    side.user.wait_for_speech_end()
    assert not side.user.still_speaks(side.put)
    side.user.speech_started()
    assert side.user.still_speaks(side.put), "other speech"


# Words


def completed(item: str, text: str, status: str | None = None) -> wire.UserCompleted:
    return wire.UserCompleted(item_id=item, transcript=text, status=status)


def said(text: str, *, final: bool) -> Transcript:
    return Transcript("user", text, final)


def test_each_text_is_final_once() -> None:
    words = UserWords()
    assert words.receive(wire.UserDelta(item_id="u1", delta="Hel")) == [said("Hel", final=False)]
    assert words.receive(wire.UserDelta(item_id="u1", delta="lo")) == [said("Hello", final=False)]
    assert words.receive(completed("u1", "Hello.")) == [said("Hello.", final=True)]
    assert words.receive(completed("u1", "Hello.")) == []
    words.speech_started("u1")  # the id is used again
    assert words.receive(completed("u1", "Bye.")) == [said("Bye.", final=True)]
    assert words.committed("u1") == [], "the item of that speech"
    assert words.receive(completed("u1", "Bye.")) == []
    words.committed("u1")  # without speech: another item
    assert words.receive(completed("u1", "Me again.")) == [said("Me again.", final=True)]


def test_a_failed_transcription_completes_what_was_transcribed() -> None:
    words = UserWords()
    words.receive(wire.UserDelta(item_id="u1", delta="Hel"))
    transcript, error = words.receive(wire.UserFailed(item_id="u1", error=wire.ErrorInfo(message="noise")))
    assert transcript == said("Hel", final=True)
    assert error == ErrorFrame("transcription_failed", "noise")


def test_the_end_of_the_session_completes_all() -> None:
    words = UserWords()
    words.receive(wire.UserDelta(item_id="u1", delta="a"))
    words.receive(wire.UserDelta(item_id="u2", delta="b"))
    assert words.finish_all() == [said("a", final=True), said("b", final=True)]


def test_on_xai_a_complete_text_is_final_when_the_model_speaks() -> None:
    words = XAIWords()
    words.speech_started("u1")
    assert words.receive(completed("u1", "Hello")) == [said("Hello", final=False)]
    assert words.receive(completed("u1", "Hello there")) == [said("Hello there", final=False)]
    assert words.assistant_speaks(user_speaking=False) == [said("Hello there", final=True)]
    assert words.assistant_speaks(user_speaking=False) == []
    assert words.receive(completed("u1", "Hello there")) == []


@pytest.mark.parametrize(
    "goes_on",
    [
        lambda words: words.speech_started("u2"),
        lambda words: words.committed("u2"),
        lambda words: words.receive(wire.UserDelta(item_id="u2", delta="")),
        lambda words: words.response_over(),
    ],
)
def test_on_xai_a_complete_text_is_final_when_another_begins(goes_on: Any) -> None:
    words = XAIWords()
    words.speech_started("u1")
    words.receive(completed("u1", "Hello"))
    assert goes_on(words) == [said("Hello", final=True)]


def test_on_xai_a_late_text_is_final_at_once() -> None:
    words = XAIWords()
    words.speech_started("u1")
    words.assistant_speaks(user_speaking=False)
    assert words.receive(completed("u1", "Hello")) == [said("Hello", final=True)]


def test_on_xai_a_text_in_progress_is_not_complete() -> None:
    words = XAIWords()
    words.speech_started("u1")
    assert words.receive(completed("u1", "Hel", "in_progress")) == [said("Hel", final=False)]
    assert words.assistant_speaks(user_speaking=True) == []


def test_on_xai_texts_that_were_never_complete_are_final_a_turn_later() -> None:
    words = XAIWords()
    words.receive(wire.UserUpdated(item_id="u1", transcript="one"))
    words.receive(wire.UserUpdated(item_id="u2", transcript="two"))
    assert words.response_over() == [said("one", final=True)], "the newest may still grow"
