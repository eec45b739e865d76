"""Odd messages of Gemini Live: one odd field never ends a call."""

from __future__ import annotations

import json
from typing import Final

from hypothesis import given

from speko_anyio.protocol import Audio, Frame, ResponseEnd, State, Transcript

from .google_talk import COMPLETE, Talk, content, fixture, frames, heard, said, speech, usage
from .oddities import Message, Oddity, Path, dotted, oddities

PCM: Final = bytes([0, 0, 1, 0, 2, 0, 3, 0])
CONVERSATION: Final = fixture("server")

UNNEEDED: Final = (
    ".role",
    ".promptTokenCount",
    ".responseTokenCount",
    ".totalTokenCount",
    "setupComplete.sessionId",
    ".voiceActivityType",
    ".new",
)
"""Fields that mean nothing to the dialect, but in a tool's arguments. An unknown one at the top of a message
gives an `Unknown`."""


def _run(messages: list[str]) -> tuple[Talk, list[Frame]]:
    talk = Talk(ready=False)
    found = []
    for message in messages:
        talk.dialect.receive_message(message.encode())
        found += frames(talk.dialect)
        talk.sent()
    return talk, found


def _is_unneeded(message: Message, path: Path) -> bool:
    return dotted(path).endswith(UNNEEDED) and "args" not in path


UNCHANGED: Final = _run([json.dumps(message) for message in CONVERSATION])[1]


@given(oddities(CONVERSATION, _is_unneeded))
def test_any_value_in_any_unneeded_field_changes_nothing(oddity: Oddity) -> None:
    talk, found = _run(oddity.spoil(CONVERSATION))
    assert found == UNCHANGED
    assert talk.dialect.state is State.OPEN


def _may_be_odd(message: Message, path: Path) -> bool:
    # Text that is not base64 in place of audio stays an error.
    return not dotted(path).endswith(".inlineData.data")


@given(oddities(CONVERSATION, _may_be_odd))
def test_any_value_in_any_field_leaves_the_call(oddity: Oddity) -> None:
    talk, _ = _run(oddity.spoil(CONVERSATION))
    talk.wait(5)  # whatever was cut off is over
    found = talk.hear(heard(" And now?"), said("Yes."), speech(PCM), COMPLETE)
    talk.sent()
    assert talk.dialect.state is State.OPEN
    answer = [Transcript("assistant", "Yes.", True), Audio(PCM, 24_000), ResponseEnd("done")]
    assert [frame for frame in found if frame in answer] == [answer[1], answer[0], answer[2]]


def test_an_emoji_cut_in_two_is_joined() -> None:
    talk = Talk()
    found = talk.hear(heard("Hi"), said("Hi \ud83d"), said("\ude00 there"), speech(PCM), COMPLETE)
    words = [frame.text for frame in found if isinstance(frame, Transcript) and frame.role == "assistant"]
    assert words == ["Hi ", "Hi 😀 there", "Hi 😀 there"]
    assert talk.dialect.odd_fields == 2


def test_half_an_emoji_without_the_other_is_replaced() -> None:
    talk = Talk()
    found = talk.hear(heard("Hi"), said("Hi \ud83d"), speech(PCM), COMPLETE)
    assert Transcript("assistant", "Hi \ufffd", True) in found
    assert talk.dialect.state is State.OPEN


def test_counts_are_read_as_what_they_can_only_mean() -> None:
    talk = Talk()
    spent = usage(90, 50)
    spent["usageMetadata"]["promptTokensDetails"][0]["tokenCount"] = 90.0
    spent["usageMetadata"]["responseTokensDetails"][0]["tokenCount"] = "50"
    plain = Talk().hear(speech(PCM), usage(90, 50), COMPLETE)
    assert talk.hear(speech(PCM), spent, COMPLETE) == plain
    assert talk.dialect.odd_fields == 2


def test_null_counts_as_missing() -> None:
    talk = Talk()
    talk.hear(content(modelTurn=None, outputTranscription={"text": None}, turnComplete=None))
    assert talk.dialect.state is State.OPEN
    assert talk.dialect.odd_fields == 2
