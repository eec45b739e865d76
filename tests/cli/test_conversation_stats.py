"""What a conversation comes to, with time as an argument."""

from __future__ import annotations

from speko_anyio import Audio, Interruption, Ready, ResponseEnd, ToolCall
from speko_anyio.cli._conversation_stats import ConversationStats

SPEECH = b"\x20" * 960
HISS = b"\x01\x00" * 480
AUDIO = Audio(bytes(960), 24_000)


def state(conversation: ConversationStats) -> str:
    if conversation.awaiting:
        return "awaiting"
    return "answered" if conversation.answered else "answering"


def test_an_answer_is_late_from_the_end_of_the_speech_on() -> None:
    conversation = ConversationStats()
    conversation.said(SPEECH, 1.0)
    conversation.said(SPEECH, 1.2)
    conversation.said(HISS, 1.4)
    assert state(conversation) == "awaiting"
    assert conversation.received(Ready(1, 1), 1.5) is None
    assert conversation.received(AUDIO, 1.75) == 0.55
    assert conversation.received(AUDIO, 1.8) is None
    assert state(conversation) == "answering"
    conversation.received(ResponseEnd("done"), 2.0)
    assert state(conversation) == "answered"
    conversation.said(SPEECH, 3.0)
    assert state(conversation) == "awaiting"
    assert conversation.received(AUDIO, 3.25) == 0.25
    assert conversation.turns == 2
    assert conversation.summary() == (
        "2 answers, 0 interruptions, 0 tool calls; time to first audio: median 400 ms (250 to 550)"
    )


def test_an_answer_to_nothing_that_was_said_has_no_latency() -> None:
    conversation = ConversationStats()
    assert conversation.received(AUDIO, 1.0) is None
    assert conversation.summary() == "1 answer, 0 interruptions, 0 tool calls"


def test_the_end_of_a_quiet_turn_counts_in_place_of_its_speech() -> None:
    conversation = ConversationStats()
    conversation.said(HISS, 1.0)
    assert not conversation.awaiting
    conversation.committed(2.0)
    assert state(conversation) == "awaiting"
    assert conversation.received(AUDIO, 2.5) == 0.5


def test_a_typed_line_is_not_called_speech() -> None:
    conversation = ConversationStats()
    conversation.typed(1.0)
    assert conversation.received(AUDIO, 1.5) == 0.5
    assert conversation.waited_from == "your line"
    conversation.received(ResponseEnd("done"), 2.0)
    conversation.said(SPEECH, 3.0)
    assert conversation.received(AUDIO, 3.25) == 0.25
    assert conversation.waited_from == "the end of your speech"


def test_interruptions_and_calls_are_counted_and_a_new_answer_begins_behind_one() -> None:
    conversation = ConversationStats()
    conversation.received(AUDIO, 1.0)
    conversation.said(SPEECH, 1.5)
    conversation.received(Interruption(), 1.6)
    conversation.received(ToolCall("c", "f", "{}"), 1.7)
    assert conversation.received(AUDIO, 1.75) == 0.25
    assert conversation.summary().startswith("2 answers, 1 interruption, 1 tool call; ")
