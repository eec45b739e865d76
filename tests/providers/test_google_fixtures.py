"""Every message of the fixtures: what we send is as published, what Gemini sends gives its frames."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speko_anyio.protocol import (
    Audio,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.google import GoogleDialect, GoogleOptions, GoogleVad

from .google_talk import (
    COMPLETE,
    MANUAL,
    MODEL,
    WEATHER,
    Json,
    Talk,
    call,
    check,
    check_server,
    fixture,
    frames,
    said,
    speech,
)

PCM = bytes([0, 0, 1, 0, 2, 0, 3, 0])
CLIENT = fixture("client")
SERVER = fixture("server")


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: json.dumps(message)[:60])
def test_client_fixtures_are_what_google_publishes(message: Json) -> None:
    check(message)


@pytest.mark.parametrize("message", SERVER, ids=lambda message: json.dumps(message)[:60])
def test_server_fixtures_are_what_google_publishes(message: Json) -> None:
    check_server(message)


SPEAKING: list[Json] = [speech(PCM), said("Hello")]

# What is said before, and the frames that the message of that line then gives.
EXPECTED: list[tuple[list[Json], list[Frame]]] = [
    ([], []),
    ([], []),
    ([], [Transcript("user", "What's the", False)]),
    ([SERVER[2]], [Transcript("user", "What's the weather?", False)]),
    (
        [SERVER[2], SERVER[3]],
        [Transcript("user", "What's the weather?", True), Audio(PCM, 24_000)],
    ),
    ([], []),
    ([], [Audio(PCM, 24_000), Transcript("assistant", "It is", False)]),
    ([SERVER[6]], [Transcript("assistant", "It is sunny.", False)]),
    (
        SPEAKING,
        [Interruption("user"), Transcript("assistant", "Hello", True), ResponseEnd("interrupted")],
    ),
    (SPEAKING, []),
    (SPEAKING, [Transcript("assistant", "Hello", True), Usage(90, 55, 120), ResponseEnd("done")]),
    (SPEAKING, [Transcript("assistant", "Hello", True), ResponseEnd("done")]),
    ([SERVER[2]], [Transcript("user", "What's the", True)]),
    (
        [],
        [
            ToolCall("function-call-1", "get_weather", '{"city":"Oslo"}'),
            ToolCall("function-call-2", "get_weather", '{"city":"Rome"}'),
        ],
    ),
    ([], [ToolCall("function-call-3", "hang_up", "{}")]),
    ([SERVER[13]], []),
    ([], []),
    ([], []),
    ([], [Expiring(50.0)]),
    ([], []),
]


@pytest.mark.parametrize(
    ("line", "before", "expected"),
    [(line, *expected) for line, expected in enumerate(EXPECTED)],
    ids=[json.dumps(message)[:60] for message in SERVER],
)
def test_server_fixtures_give_their_frames(line: int, before: list[Json], expected: list[Frame]) -> None:
    talk = Talk()
    talk.hear(*before)
    assert talk.hear(SERVER[line]) == expected
    assert talk.dialect.stats.unknown_fields == 0


def test_there_is_an_expectation_for_every_line() -> None:
    assert len(EXPECTED) == len(SERVER)


@pytest.mark.parametrize("line", [0, 1])
def test_ready(line: int) -> None:
    talk = Talk(ready=False)
    assert talk.hear(SERVER[line]) == [Ready(24_000, 24_000)]
    assert talk.dialect.provider_session.id == (None, "s-1")[line]


def test_text_messages_mean_the_same() -> None:
    for message in SERVER:
        binary, text = Talk(), Talk()
        text.dialect.receive_message(json.dumps(message))
        assert binary.hear(message) == frames(text.dialect)


# The client's fixtures are what the dialect says itself, where it can.


def test_setup_in_full() -> None:
    config = SessionConfig(
        provider="google",
        model="gemini-2.5-flash-native-audio-preview-12-2025",
        voice="Kore",
        system_prompt="You are terse.",
        temperature=0.7,
        tools=(WEATHER,),
    )
    vad = GoogleVad(start_sensitivity="high", end_sensitivity="high", prefix_padding_ms=100)
    talk = Talk(config, options=GoogleOptions(turn_detection=vad))
    assert talk.setup == CLIENT[0]["setup"]


def test_setup_in_short_with_a_handle() -> None:
    config = SessionConfig(provider="google", model=MODEL)
    options = GoogleOptions(
        turns="manual", input_transcription=False, output_transcription=False, compression=False
    )
    talk = Talk(config, options=options, resumption_handle="h-123")
    expected = CLIENT[1]["setup"]
    expected["realtimeInputConfig"]["activityHandling"] = "START_OF_ACTIVITY_INTERRUPTS"
    assert talk.setup == expected


@pytest.mark.parametrize(("rate", "line"), [(16_000, 2), (24_000, 3)])
def test_audio(rate: Any, line: int) -> None:
    talk = Talk(SessionConfig(provider="google", model=MODEL, input_sample_rate=rate))
    talk.dialect.send_audio(PCM)
    assert talk.sent() == [CLIENT[line]]


def test_ends_of_turns() -> None:
    auto, manual = Talk(), Talk(options=MANUAL)
    auto.dialect.commit()
    assert auto.sent()[-1] == CLIENT[4]
    manual.dialect.send_audio(PCM)
    manual.dialect.commit()
    start, _, end = manual.sent()
    assert (start, end) == (CLIENT[5], CLIENT[6])


def test_interruption_that_the_model_hears_of() -> None:
    talk = Talk(options=GoogleOptions(stop_generating=True))
    talk.hear(speech(PCM))
    talk.dialect.interrupt()
    assert talk.sent() == [CLIENT[9]]


def test_results() -> None:
    talk = Talk()
    talk.hear(call(("function-call-1", {}), ("function-call-2", None)))
    talk.dialect.send_tool_result("function-call-1", '{"temp_c":7}')
    talk.dialect.send_tool_result("function-call-2", '{"error":"no such city"}')
    both = [message["toolResponse"]["functionResponses"][0] for message in talk.sent()]
    assert both == CLIENT[11]["toolResponse"]["functionResponses"]


def test_the_messages_before_the_setup_was_accepted_count_for_nothing() -> None:
    dialect = GoogleDialect(SessionConfig(provider="google", model=MODEL))
    early = [message for message in SERVER if "serverContent" in message or "toolCall" in message]
    for message in [*early, COMPLETE]:
        dialect.receive_message(json.dumps(message))
    assert frames(dialect) == []
    assert dialect.stats.early_messages == len(early) + 1
