"""The assistant's part of the realtime dialect alone: audio, corrections, ends and usage."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from speko_anyio.protocol import Audio, ResponseEnd, Transcript, Usage
from speko_anyio.providers._heard import HeardEstimate
from speko_anyio.providers.realtime import _events as wire
from speko_anyio.providers.realtime._assistant import Assistant, end_of

RATE = 24_000


def make(now: float | None = None) -> Assistant:
    playback = HeardEstimate(RATE)
    if now is not None:
        playback.clock(now)
    return Assistant(playback, RATE)


def delta(pcm: bytes, item: str | None = "a1") -> wire.AudioDelta:
    return wire.AudioDelta(response_id="r1", item_id=item, delta=pcm)


def corrections(assistant: Assistant, **options: Any) -> list[Any]:
    events = assistant.corrections(wire.EventIds(on_wire=False), **options)
    return [msgspec.to_builtins(event) for event in events]


def truncated(item: str, ms: int) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "item_id": item,
        "content_index": 0,
        "audio_end_ms": ms,
    }


def deleted(item: str) -> dict[str, Any]:
    return {"type": "conversation.item.delete", "item_id": item}


def test_samples_that_are_cut_in_two_are_joined_within_an_item() -> None:
    assistant = make()
    assert assistant.audio(delta(b"\1")) is None
    assert assistant.audio(delta(b"\2\3")) == Audio(b"\1\2", RATE)
    assert assistant.audio(delta(b"\4\0", "a2")) == Audio(b"\4\0", RATE), "other speech is not shifted"
    assistant.audio(delta(b"\5", "a2"))
    assistant.flush()
    assert assistant.audio(delta(b"\6\0", "a2")) == Audio(b"\6\0", RATE)
    assistant.audio(delta(b"\7", "a2"))
    assistant.begin()
    assert assistant.audio(delta(b"\6\0", "a2")) == Audio(b"\6\0", RATE)


def test_unplayed_audio_is_truncated_and_unheard_items_deleted() -> None:
    assistant = make(0.0)
    assistant.audio(delta(bytes(48_000)))  # a second
    assistant.audio(delta(bytes(24_000), "a2"))
    assistant.playback.clock(0.4)
    assert corrections(assistant, growing=False) == [truncated("a1", 400), deleted("a2")]
    assert list(assistant.corrected) == ["a1", "a2"]
    assert corrections(assistant, growing=False, played_ms=100)[0] == truncated("a1", 100)
    assert corrections(assistant, growing=False, played_ms=5_000) == [deleted("a2")]
    assert corrections(assistant, growing=False, played_ms=-5)[0] == deleted("a1")
    assistant.flush()
    assert corrections(assistant, growing=True) == []


def test_an_item_that_was_heard_to_its_end_needs_no_correction_unless_it_grows() -> None:
    assistant = make(0.0)
    assistant.audio(delta(bytes(48_000)))
    assistant.playback.clock(2.0)
    assert corrections(assistant, growing=False) == []
    assert corrections(assistant, growing=True) == [truncated("a1", 1000)]


def test_an_item_without_a_name_cannot_be_corrected() -> None:
    assistant = make(0.0)
    assistant.audio(delta(bytes(48_000), None))
    assert corrections(assistant, growing=True) == []


def test_of_two_items_with_one_name_the_last_is_meant() -> None:
    assistant = make(0.0)
    assistant.audio(delta(bytes(48_000)))
    assistant.begin()
    assistant.audio(delta(bytes(48_000)))
    assistant.playback.clock(1.5)
    assert corrections(assistant, growing=False) == [truncated("a1", 500)]


@pytest.mark.parametrize(
    ("spoke", "reported", "cut", "end"),
    [
        (True, ResponseEnd("incomplete", "max_output_tokens"), False, ("incomplete", "max_output_tokens")),
        (True, None, False, ("done", "")),
        (False, None, False, ("interrupted", "")),
        (True, ResponseEnd("done"), True, ("interrupted", "")),
        (True, ResponseEnd("interrupted", "turn_detected"), True, ("interrupted", "turn_detected")),
    ],
)
def test_a_response_ends_once(
    spoke: bool, reported: ResponseEnd | None, cut: bool, end: tuple[Any, str]
) -> None:
    assistant = make()
    assert assistant.end(reported, cut=cut) == [], "none has begun"
    assistant.begin()
    assistant.spoke = spoke
    assert assistant.end(reported, cut=cut) == [ResponseEnd(*end)]
    assert assistant.end(reported, cut=cut) == []
    assert not assistant.spoke


def test_a_new_response_may_reuse_the_ids_of_items() -> None:
    assistant = make()
    assert assistant.words.finish("a1 0", "One.") == [Transcript("assistant", "One.", True)]
    assert assistant.words.finish("a1 0", "One.") == []
    assistant.begin()
    assert assistant.words.finish("a1 0", "Two.") == [Transcript("assistant", "Two.", True)]
    assert (assistant.seen, assistant.spoke, assistant.announced) == (True, False, False)


def usage(audio_in: int | None, audio_out: int | None) -> wire.UsageInfo:
    return wire.UsageInfo(wire.TokenDetails(audio_in), wire.TokenDetails(audio_out))


def test_usage_adds_up_until_it_is_taken() -> None:
    assistant = make()
    assert not assistant.count_usage(wire.ResponseDone())
    assert not assistant.count_usage(wire.ResponseDone(usage=wire.UsageInfo()))
    assert assistant.count_usage(wire.ResponseDone(wire.Response(usage=usage(1, 2)), usage=usage(50, 50)))
    assert assistant.count_usage(wire.ResponseDone(usage=usage(10, None)))
    assert assistant.take_usage() == Usage(11, 2)
    assert assistant.take_usage() == Usage(0, 0)


@pytest.mark.parametrize(
    ("status", "details", "end"),
    [
        (None, None, ("done", "")),
        ("completed", {"reason": "x"}, ("done", "")),
        ("cancelled", {"reason": "turn_detected"}, ("interrupted", "turn_detected")),
        ("incomplete", {"reason": "content_filter"}, ("incomplete", "content_filter")),
        ("incomplete", "client_cancelled", ("interrupted", "client_cancelled")),
        ("failed", {"error": {"code": "c", "type": "t"}}, ("failed", "c")),
        ("failed", {"error": {"type": "t"}}, ("failed", "t")),
        ("failed", 7, ("failed", "")),
    ],
)
def test_what_the_provider_reports_as_the_end(status: str | None, details: Any, end: Any) -> None:
    assert end_of(wire.Response(status=status, status_details=details)) == ResponseEnd(*end)
