"""A session's parameters on their way to Gemini, and the address."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google import genai
from google.genai import _live_converters, types
from pydantic import BaseModel

from speko_anyio.protocol import LocalProtocolError, Transcript
from speko_anyio.protocol._limits import Limits
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.google import (
    GoogleDialect,
    GoogleOptions,
    GoogleVad,
    ServerTool,
    google_endpoint,
)

from .google_talk import GOOGLE, MODEL, WEATHER, Json, Talk

V2_5 = "gemini-2.5-flash-native-audio-latest"
V3_1 = "gemini-3.1-flash-live-preview"
THINKING = "gemini-3.8-live-extended-thinking"


def setup(
    config: SessionConfig | None = None, model: str = MODEL, **options: Any
) -> tuple[Json, tuple[str, ...]]:
    config = config or SessionConfig(provider="google", model=model)
    talk = Talk(config, options=GoogleOptions(**options))
    return talk.setup, talk.dialect.notes


# The address


def test_endpoint_with_a_key() -> None:
    endpoint = google_endpoint("k-1")
    assert endpoint.url == (
        "wss://generativelanguage.googleapis.com/ws/"
        "google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    )
    assert endpoint.headers == (("x-goog-api-key", "k-1"),)
    assert endpoint.subprotocols == ()
    assert "k-1" not in repr(endpoint)


def test_endpoint_with_an_ephemeral_token() -> None:
    address = (
        "wss://generativelanguage.googleapis.com/ws/"
        "google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained"
    )
    endpoint = google_endpoint("auth_tokens/t", auth="token")
    assert (endpoint.url, endpoint.headers) == (address, (("Authorization", "Token auth_tokens/t"),))
    endpoint = google_endpoint("auth_tokens/t", auth="query")
    assert (endpoint.url, endpoint.headers) == (f"{address}?access_token=auth_tokens%2Ft", ())
    assert "auth_tokens" not in repr(endpoint)


def test_endpoint_elsewhere() -> None:
    endpoint = google_endpoint(
        "ya29.x", base_url="https://europe-west4-aiplatform.googleapis.com", path="/ws/x", auth="bearer"
    )
    assert endpoint.url == "wss://europe-west4-aiplatform.googleapis.com/ws/x"
    assert endpoint.headers == (("Authorization", "Bearer ya29.x"),)
    assert google_endpoint("k", base_url="ws://localhost:1/p").url.startswith(
        "ws://localhost:1/p/ws/google.ai."
    )


@pytest.mark.parametrize("key", ["", "a b", "a\n", "é"])
def test_no_key(key: str) -> None:
    with pytest.raises(LocalProtocolError, match="API key"):
        google_endpoint(key)


# The setup


def test_as_googles_own_client_has_it() -> None:
    config = SessionConfig(
        provider="google",
        model=V2_5,
        voice="Kore",
        system_prompt="You are terse.",
        temperature=0.5,
        tools=(WEATHER,),
    )
    mine, notes = setup(
        config,
        turn_detection=GoogleVad(
            start_sensitivity="low", end_sensitivity="low", prefix_padding_ms=20, silence_duration_ms=300
        ),
        interrupts=False,
        max_output_tokens=100,
        thinking_budget=0,
    )
    assert notes == ()
    detection = types.AutomaticActivityDetection(
        disabled=False,
        start_of_speech_sensitivity=types.StartSensitivity.START_SENSITIVITY_LOW,
        end_of_speech_sensitivity=types.EndSensitivity.END_SENSITIVITY_LOW,
        prefix_padding_ms=20,
        silence_duration_ms=300,
    )
    city = types.Schema(type=types.Type.STRING)
    weather = types.FunctionDeclaration(
        name="get_weather",
        description="Current weather",
        parameters=types.Schema(type=types.Type.OBJECT, properties={"city": city}, required=["city"]),
    )
    theirs = types.LiveConnectConfig(
        response_modalities=[types.Modality.AUDIO],
        temperature=0.5,
        max_output_tokens=100,
        thinking_config=types.ThinkingConfig(thinking_budget=0),
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore"))
        ),
        system_instruction="You are terse.",
        tools=[types.Tool(function_declarations=[weather])],
        realtime_input_config=types.RealtimeInputConfig(
            automatic_activity_detection=detection, activity_handling=types.ActivityHandling.NO_INTERRUPTION
        ),
        input_audio_transcription=types.AudioTranscriptionConfig(),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        session_resumption=types.SessionResumptionConfig(),
        context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
    )
    expected = _of_googles_client(theirs)
    del expected["systemInstruction"]["role"]
    assert mine == expected


def test_every_option_as_googles_own_client_has_it() -> None:
    mine, notes = setup(
        SessionConfig(provider="google", model=V2_5, tools=(ToolSpec(name="f"),)),
        turns="manual",
        top_p=0.9,
        top_k=40,
        seed=-7,
        language_code="de-DE",
        media_resolution="low",
        turn_coverage="activity_and_video",
        transcription_languages=("de-DE", "en-US"),
        transcription_keywords=("Speko",),
        compression_trigger_tokens=32_000,
        compression_target_tokens=8_000,
        tool_behavior="non_blocking",
        safety_settings={
            "harassment": "only_high",
            "jailbreak": "low_and_above",
            "hate_speech": "medium_and_above",
            "dangerous_content": "none",
            "sexually_explicit": "off",
            "civic_integrity": "off",
        },
    )
    assert notes == ()
    harm, block = types.HarmCategory, types.HarmBlockThreshold
    languages = ["de-DE", "en-US"]
    function = types.FunctionDeclaration(name="f", behavior=types.Behavior.NON_BLOCKING)
    theirs = types.LiveConnectConfig(
        response_modalities=[types.Modality.AUDIO],
        top_p=0.9,
        top_k=40,
        seed=-7,
        speech_config=types.SpeechConfig(language_code="de-DE"),
        media_resolution=types.MediaResolution.MEDIA_RESOLUTION_LOW,
        tools=[types.Tool(function_declarations=[function])],
        realtime_input_config=types.RealtimeInputConfig(
            automatic_activity_detection=types.AutomaticActivityDetection(disabled=True),
            activity_handling=types.ActivityHandling.START_OF_ACTIVITY_INTERRUPTS,
            turn_coverage=types.TurnCoverage.TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO,
        ),
        input_audio_transcription=types.AudioTranscriptionConfig(
            language_codes=languages, custom_vocabulary=["Speko"]
        ),
        output_audio_transcription=types.AudioTranscriptionConfig(language_codes=languages),
        session_resumption=types.SessionResumptionConfig(),
        context_window_compression=types.ContextWindowCompressionConfig(
            trigger_tokens=32_000, sliding_window=types.SlidingWindow(target_tokens=8_000)
        ),
        safety_settings=[
            types.SafetySetting(category=category, threshold=threshold)
            for category, threshold in (
                (harm.HARM_CATEGORY_HARASSMENT, block.BLOCK_ONLY_HIGH),
                (harm.HARM_CATEGORY_JAILBREAK, block.BLOCK_LOW_AND_ABOVE),
                (harm.HARM_CATEGORY_HATE_SPEECH, block.BLOCK_MEDIUM_AND_ABOVE),
                (harm.HARM_CATEGORY_DANGEROUS_CONTENT, block.BLOCK_NONE),
                (harm.HARM_CATEGORY_SEXUALLY_EXPLICIT, block.OFF),
                (harm.HARM_CATEGORY_CIVIC_INTEGRITY, block.OFF),
            )
        ],
    )
    assert mine == _of_googles_client(theirs)


@pytest.mark.parametrize(("coverage", "name"), [("activity", "ONLY_ACTIVITY"), ("all_input", "ALL_INPUT")])
def test_coverage_of_turns(coverage: Any, name: str) -> None:
    mine, _ = setup(turn_coverage=coverage)
    assert mine["realtimeInputConfig"]["turnCoverage"] == f"TURN_INCLUDES_{name}"


def test_a_model_with_an_initial_history() -> None:
    config = SessionConfig(provider="google", model=V3_1)
    assert Talk(config).setup["historyConfig"] == {"initialHistoryInClientContent": True}
    # The handle has the history.
    assert "historyConfig" not in Talk(config, resumption_handle="h").setup
    assert "historyConfig" not in setup()[0]


@pytest.mark.parametrize(
    ("model", "options", "said", "noted"),
    [
        (MODEL, {}, "SILENT", False),
        (MODEL, {"tool_behavior": "blocking"}, None, True),
        (V2_5, {}, None, True),
        (V2_5, {"tool_behavior": "non_blocking"}, "SILENT", False),
        (V3_1, {}, None, True),
        (THINKING, {}, None, True),
        ("projects/p/locations/l/publishers/google/models/gemini-3.8-live", {}, None, True),
    ],
)
def test_when_results_are_spoken_about(model: str, options: Json, said: str | None, noted: bool) -> None:
    config = SessionConfig(provider="google", model=model, tools=(WEATHER,))
    talk = Talk(config, options=GoogleOptions(tool_scheduling="silent", **options))
    assert bool(talk.dialect.notes) is noted
    talk.hear({"toolCall": {"functionCalls": [{"id": "c", "name": "get_weather", "args": {}}]}})
    talk.dialect.send_tool_result("c", "{}")
    [answer] = talk.sent()[-1]["toolResponse"]["functionResponses"]
    assert answer.get("scheduling") == said


def test_extra_fields_are_merged_into_the_setup() -> None:
    mine, _ = setup(
        provider_extra={
            "labels": {"team": "voice"},
            "generationConfig": {"presencePenalty": 0.5},
            "contextWindowCompression": {"triggerTokens": 9},
            "sessionResumption": {"transparent": True},
        },
    )
    assert mine["labels"] == {"team": "voice"}
    assert mine["generationConfig"] == {"responseModalities": ["AUDIO"], "presencePenalty": 0.5}
    assert mine["contextWindowCompression"] == {"slidingWindow": {}, "triggerTokens": 9}
    assert mine["sessionResumption"] == {"transparent": True}
    options = GoogleOptions(provider_extra={"sessionResumption": {"transparent": True}})
    resumed = Talk(options=options, resumption_handle="h").setup
    assert resumed["sessionResumption"] == {"transparent": True, "handle": "h"}


def test_extra_fields_can_make_the_model_write() -> None:
    extra = {"generationConfig": {"responseModalities": ["TEXT"]}}
    talk = Talk(options=GoogleOptions(provider_extra=extra))
    text = {"serverContent": {"modelTurn": {"parts": [{"text": "Hello"}]}}}
    assert talk.hear(text) == [Transcript("assistant", "Hello", False)]


def test_extra_fields_are_not_shown() -> None:
    assert "s3cret" not in repr(GoogleOptions(provider_extra={"labels": {"k": "s3cret"}}))


def _of_googles_client(config: types.LiveConnectConfig) -> Json:
    """The setup that Google's own client sends."""
    client = genai.Client(api_key="k")
    message = _live_converters._LiveConnectParameters_to_mldev(
        api_client=client._api_client,
        from_object=types.LiveConnectParameters(model=f"models/{V2_5}", config=config).model_dump(
            exclude_none=True
        ),
    )
    found: Json = _camel(message["setup"])
    return found


def _camel(value: Any) -> Any:
    """Google's client mixes snake case in, and its own enumerations."""
    if isinstance(value, dict):
        return {
            re.sub("_(.)", lambda found: found[1].upper(), key): _camel(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_camel(inner) for inner in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return getattr(value, "value", value)


def test_nothing_asked_nothing_said() -> None:
    mine, notes = setup(
        turns="manual",
        input_transcription=False,
        output_transcription=False,
        resumption=False,
        compression=False,
    )
    detection = {"automaticActivityDetection": {"disabled": True}}
    assert mine == {
        "model": f"models/{MODEL}",
        "generationConfig": {"responseModalities": ["AUDIO"]},
        "realtimeInputConfig": {**detection, "activityHandling": "START_OF_ACTIVITY_INTERRUPTS"},
    }
    assert notes == ()


@pytest.mark.parametrize("model", ["models/m", "projects/p/locations/l/publishers/google/models/m"])
def test_full_names_of_models(model: str) -> None:
    assert setup(model=model)[0]["model"] == model


@pytest.mark.parametrize(
    ("model", "options", "thinking", "noted"),
    [
        (V2_5, {"thinking_budget": -1}, {"thinkingBudget": -1}, False),
        (V2_5, {"thinking_level": "low"}, None, True),
        (V3_1, {"thinking_level": "low"}, {"thinkingLevel": "LOW"}, False),
        (V3_1, {"thinking_budget": 5}, None, True),
        (MODEL, {"thinking_level": "low"}, None, True),
        (MODEL, {"thinking_budget": 5}, None, True),
        (THINKING, {"thinking_level": "high", "thinking_budget": 5}, {"thinkingLevel": "HIGH"}, True),
        (THINKING, {}, {"thinkingLevel": "LOW"}, False),
        (THINKING, {"thinking_level": "xhigh"}, {"thinkingLevel": "XHIGH"}, False),
        (f"models/{THINKING}", {}, {"thinkingLevel": "LOW"}, False),
        ("gemini-4-live-extended-thinking", {"thinking_budget": 5}, {"thinkingLevel": "LOW"}, True),
        (V3_1, {"thinking_level": "minimal"}, {"thinkingLevel": "MINIMAL"}, False),
        ("next", {"thinking_level": "high"}, {"thinkingLevel": "HIGH"}, False),
        (MODEL, {}, None, False),
    ],
)
def test_thinking(model: str, options: Json, thinking: Json | None, noted: bool) -> None:
    mine, notes = setup(model=model, **options)
    assert mine["generationConfig"].get("thinkingConfig") == thinking
    assert bool(notes) is noted


@pytest.mark.parametrize(
    ("model", "behavior", "said", "noted"),
    [
        (V2_5, "non_blocking", "NON_BLOCKING", False),
        (V3_1, "blocking", None, False),
        (V3_1, "non_blocking", None, True),
        (MODEL, "blocking", "BLOCKING", False),
        (THINKING, "blocking", None, True),
        (THINKING, "non_blocking", None, False),
        (MODEL, None, None, False),
    ],
)
def test_how_tools_behave(model: str, behavior: Any, said: str | None, noted: bool) -> None:
    config = SessionConfig(provider="google", model=model, tools=(WEATHER,))
    mine, notes = setup(config, tool_behavior=behavior)
    [function] = mine["tools"][0]["functionDeclarations"]
    assert function.get("behavior") == said
    assert bool(notes) is noted


def test_a_model_that_can_not_be_asked_to_stop() -> None:
    _, notes = setup(model=V3_1, stop_generating=True)
    assert notes == ("this model can't be asked to stop: stop_generating is left out",)


def test_tools() -> None:
    config = SessionConfig(
        provider="google",
        model=MODEL,
        tools=(ToolSpec(name="hang_up"), ToolSpec(name="n", parameters={"properties": {"x": {}}})),
    )
    mine, notes = setup(config, server_tools=(ServerTool("googleSearch"),))
    parameters = {"type": "OBJECT", "properties": {"x": {"type": "STRING"}}}
    assert mine["tools"] == [
        {"functionDeclarations": [{"name": "hang_up"}, {"name": "n", "parameters": parameters}]},
        {"googleSearch": {}},
    ]
    assert len(notes) == 1


@pytest.mark.parametrize("rate", [None, 16_000, 24_000])
def test_rates(rate: Any) -> None:
    config = SessionConfig(provider="google", model=MODEL, input_sample_rate=rate, output_sample_rate=rate)
    dialect = GoogleDialect(config)
    assert (dialect.input_sample_rate, dialect.output_sample_rate) == (rate or 24_000, 24_000)
    assert dialect.notes == (
        ("Gemini has output audio at 24000 Hz only: 16000 is resampled",) if rate == 16_000 else ()
    )
    native = GoogleDialect(config, options=GoogleOptions(native_input_rate=True))
    assert native.input_sample_rate == 16_000


REFUSED: list[tuple[Json, Json, str]] = [
    ({"model": ""}, {}, "needs the name of a model"),
    ({"temperature": float("nan")}, {}, "a temperature of nan"),
    ({"system_prompt": "\ud800"}, {}, "half of a surrogate pair"),
    (
        {"model": THINKING},
        {"thinking_level": "minimal"},
        "does not accept the thinking_level 'minimal'; use 'low'",
    ),
    *(
        ({"tools": (ToolSpec(name=name),)}, {}, f"does not accept {name!r} as the name of a tool")
        for name in ("1st", "", "get weather", "größe", "x" * 129, "-a", "a\n", "a/b", "天気")
    ),
    ({"tools": (WEATHER, WEATHER)}, {}, "two tools are named"),
    ({"tools": (ToolSpec(name="t", parameters={"type": "string"}),)}, {}, "wrap them in an object"),
    (
        {"tools": (ToolSpec(name="t", parameters={"properties": {"x": {"default": object()}}}),)},
        {},
        "must be JSON",
    ),
    ({"output": "text"}, {}, "answer in speech only"),
    (
        {},
        {"compression_trigger_tokens": 5, "compression_target_tokens": 5},
        "must be less than compression_trigger_tokens, which is 5; lower it",
    ),
    ({}, {"provider_extra": {"sessionResumption": 1}}, "sessionResumption that is not an object"),
    ({}, {"provider_extra": {"labels": object()}}, "can't"),
    ({}, {"provider_extra": {"sessionResumption": {"x": "\ud800"}}}, "surrogate pair"),
    ({}, {"top_p": 1.5}, "the options for Gemini can't be used"),
    ({}, {"top_k": 0}, "the options for Gemini can't be used"),
    ({}, {"seed": 2**31}, "the options for Gemini can't be used"),
    ({}, {"safety_settings": {"rudeness": "off"}}, "the options for Gemini can't be used"),
    ({}, {"max_output_tokens": 0}, "the options for Gemini can't be used"),
    ({}, {"turns": "both"}, "the options for Gemini can't be used"),
    ({}, {"turn_detection": GoogleVad(silence_duration_ms=-1)}, "the options for Gemini can't be used"),
]


@pytest.mark.parametrize(("config", "options", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(config: Json, options: Json, words: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        GoogleDialect(
            SessionConfig(**{"provider": "google", "model": MODEL, **config}),
            options=GoogleOptions(**options),
        )
    assert words in str(caught.value)


def test_a_handle_needs_resumption() -> None:
    with pytest.raises(LocalProtocolError, match="turn it on"):
        GoogleDialect(GOOGLE, options=GoogleOptions(resumption=False), resumption_handle="h")
    assert setup(resumption=False)[0].keys() & {"sessionResumption"} == set()
    assert Talk(resumption_handle="").setup["sessionResumption"] == {}


def test_a_setup_that_does_not_fit() -> None:
    config = SessionConfig(provider="google", model=MODEL, system_prompt="é" * 600)
    with pytest.raises(LocalProtocolError, match="shorten the system prompt"):
        GoogleDialect(config, limits=Limits(max_outbox=1_500))
