from __future__ import annotations

import math

from speko_anyio.gateway import SessionOutcome
from speko_anyio.gateway._meter import (
    MAX_LINES,
    MAX_TOKENS,
    MAX_TOOL_NAME,
    MAX_TOOL_NAMES,
    MAX_TRANSCRIPT,
    OTHER_TOOLS,
    Meter,
)
from speko_anyio.gateway.store import TranscriptLine
from speko_anyio.protocol import Close, Usage


def test_what_nobody_did_is_nothing() -> None:
    assert Meter().outcome(None, input_sample_rate=16000, output_sample_rate=24000) == SessionOutcome()


def test_an_outcome_has_all_of_it() -> None:
    meter = Meter(keep_transcript=True)
    meter.audio_in, meter.audio_out = 16000, 24000
    for _ in range(2):
        meter.queued(Usage(1, 2, 3, 4, 5, 6, 7, 8, 0.5))
    meter.turn_ended(10.0)
    meter.turn_ended(11.0)
    meter.answered(11.25)
    meter.turn_ended(20.0)
    meter.answered(29.0)
    meter.tool_called("f")
    meter.tool_called("f")
    meter.said("user", "hi", 5.0)
    close = Close(1000, "", "local")
    assert meter.outcome(close, input_sample_rate=16000, output_sample_rate=24000) == SessionOutcome(
        close=close,
        input_audio_seconds=0.5,
        output_audio_seconds=0.5,
        input_audio_tokens=2,
        output_audio_tokens=4,
        input_text_tokens=6,
        output_text_tokens=8,
        input_image_tokens=10,
        cached_audio_tokens=12,
        cached_text_tokens=14,
        output_reasoning_tokens=16,
        reported_seconds=1.0,
        time_to_first_audio=0.25,
        tool_calls={"f": 2},
        transcript=(TranscriptLine("user", "hi", 5.0),),
    )


def test_numbers_without_sense_fit_a_record() -> None:
    meter = Meter()
    meter.queued(Usage(10**400, 10**400, seconds=math.inf))
    outcome = meter.outcome(None, input_sample_rate=16000, output_sample_rate=24000)
    assert (outcome.input_audio_tokens, outcome.output_audio_tokens) == (MAX_TOKENS, MAX_TOKENS)
    assert math.isfinite(outcome.reported_seconds)


def test_names_that_a_model_makes_up_fill_no_memory() -> None:
    meter = Meter()
    for number in range(MAX_TOOL_NAMES + 10):
        meter.tool_called(f"f{number}")
    meter.tool_called("f0")
    assert len(meter.tool_calls) == MAX_TOOL_NAMES + 1
    assert (meter.tool_calls["f0"], meter.tool_calls[OTHER_TOOLS]) == (2, 10)


def test_a_long_name_that_a_model_makes_up_is_not_kept() -> None:
    meter = Meter()
    meter.tool_called("f" * MAX_TOOL_NAME)
    meter.tool_called("f" * (MAX_TOOL_NAME + 1))
    assert meter.tool_calls == {"f" * MAX_TOOL_NAME: 1, OTHER_TOOLS: 1}


def test_a_transcript_is_kept_when_asked_for_and_as_far_as_it_fits() -> None:
    silent, meter = Meter(), Meter(keep_transcript=True)
    silent.said("user", "hi", 1.0)
    assert silent.transcript == []
    meter.said("user", "x" * MAX_TRANSCRIPT, 1.0)
    meter.said("user", "y", 2.0)
    assert len(meter.transcript) == 1


def test_lines_without_text_have_an_end_too() -> None:
    meter = Meter(keep_transcript=True)
    for _ in range(MAX_LINES + 10):
        meter.said("user", "", 1.0)
    assert len(meter.transcript) == MAX_LINES
