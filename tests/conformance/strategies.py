"""Configurations and conversations, at random, within what each provider's options allow."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.google import GoogleOptions, GoogleVad
from speko_anyio.providers.openai import OpenAIOptions, SemanticVad, ServerTool, ServerVad
from speko_anyio.providers.xai import XAIOptions, XAIVad
from speko_anyio.testing.providers import CallTools, Fail, Incomplete, RunTool, Say, Silent, Wait

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[a-z][a-z_]{0,11}", fullmatch=True)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_leaves = st.sampled_from(
    [
        {"type": "string", "enum": ["a", "b"]},
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 9},
        {"type": ["number", "null"], "default": 1.5},
        {"const": "x"},
        {"type": "boolean", "description": "yes or no", "examples": [True]},
    ]
)
_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "uniqueItems": True}, inner),
        st.builds(lambda one, other: {"oneOf": [one, other]}, inner, inner),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "additionalProperties": False},
            st.dictionaries(names, inner, max_size=2),
        ),
    ),
    max_leaves=4,
)
_parameters = st.builds(
    lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)[:1]},
    st.dictionaries(names, _schemas, max_size=3),
)
tools = st.lists(
    st.builds(ToolSpec, name=names, description=text, parameters=_parameters),
    max_size=3,
    unique_by=lambda tool: tool.name,
).map(tuple)

_MODELS = {
    "openai": ["gpt-realtime-2.1", "gpt-realtime", "gpt-realtime-mini"],
    "xai": ["grok-voice-latest"],
    "google": [
        "gemini-2.5-flash-native-audio-latest",
        "gemini-3.1-flash-live-preview",
        "gemini-3.8-live",
        "gemini-3.8-live-extended-thinking",
    ],
}


def configs(provider: str) -> st.SearchStrategy[SessionConfig]:
    rates = maybe(st.sampled_from([16_000, 24_000]))
    return st.builds(
        SessionConfig,
        provider=st.just(provider),
        model=st.sampled_from(_MODELS[provider]),
        voice=maybe(st.sampled_from(["marin", "voice_123", "eve", "Kore"])),
        system_prompt=maybe(text),
        temperature=maybe(st.floats(0, 2)),
        input_sample_rate=rates,
        output_sample_rate=rates,
        tools=tools,
    )


turns = st.sampled_from(["auto", "manual"])
milliseconds = st.integers(0, 1000)

_openai_detection = st.one_of(
    st.builds(
        ServerVad,
        threshold=st.floats(0, 1),
        prefix_padding_ms=milliseconds,
        silence_duration_ms=milliseconds,
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
    st.builds(
        SemanticVad,
        eagerness=st.sampled_from(["low", "medium", "high", "auto"]),
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
)

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "openai": st.builds(
        OpenAIOptions,
        turns=turns,
        turn_detection=_openai_detection,
        transcription_model=maybe(st.sampled_from(["gpt-live-transcribe", "gpt-transcribe"])),
        transcription_language=maybe(st.just("en")),
        transcription_prompt=maybe(text),
        noise_reduction=maybe(st.sampled_from(["near_field", "far_field"])),
        speed=maybe(st.floats(0.25, 1.5)),
        tool_choice=maybe(st.sampled_from(["auto", "none", "required"])),
        max_output_tokens=maybe(st.integers(1, 4096) | st.just("inf")),
        reasoning_effort=maybe(st.sampled_from(["minimal", "low", "medium", "high", "xhigh"])),
        parallel_tool_calls=maybe(st.booleans()),
        server_tools=st.just(()) | st.just((ServerTool("mcp", {"server_label": "docs"}),)),
    ),
    "xai": st.builds(
        XAIOptions,
        turns=turns,
        turn_detection=st.builds(
            XAIVad,
            threshold=st.floats(0.1, 0.9),
            prefix_padding_ms=milliseconds,
            silence_duration_ms=milliseconds,
        ),
        transcription_model=maybe(st.just("grok-transcribe")),
        resumption=st.booleans(),
        server_tools=st.just(()) | st.just((ServerTool("x_search"),)),
    ),
    "google": st.builds(
        GoogleOptions,
        turns=turns,
        turn_detection=st.builds(
            GoogleVad,
            start_sensitivity=maybe(st.sampled_from(["low", "high"])),
            end_sensitivity=maybe(st.sampled_from(["low", "high"])),
            prefix_padding_ms=maybe(milliseconds),
            silence_duration_ms=milliseconds,
        ),
        interrupts=st.booleans(),
        input_transcription=st.booleans(),
        output_transcription=st.booleans(),
        max_output_tokens=maybe(st.integers(1, 4096)),
        thinking_budget=maybe(st.integers(-1, 1000)),
        thinking_level=maybe(st.sampled_from(["minimal", "low", "medium", "high"])),
        tool_behavior=maybe(st.sampled_from(["blocking", "non_blocking"])),
        gate_input=maybe(st.booleans()),
        stop_generating=st.booleans(),
        transcription_languages=st.sampled_from([(), ("de-DE",), ("de-DE", "en-US")]),
        transcription_keywords=st.sampled_from([(), ("Speko",)]),
        language_code=maybe(st.just("de-DE")),
        top_p=maybe(st.floats(0, 1)),
        top_k=maybe(st.integers(1, 100)),
        seed=maybe(st.integers(-(2**31), 2**31 - 1)),
        tool_scheduling=maybe(st.sampled_from(["interrupt", "when_idle", "silent"])),
        turn_coverage=maybe(st.sampled_from(["activity", "all_input", "activity_and_video"])),
        media_resolution=maybe(st.sampled_from(["low", "medium", "high"])),
        safety_settings=st.sampled_from([{}, {"harassment": "off", "jailbreak": "only_high"}]),
        compression_trigger_tokens=maybe(st.integers(1000, 100_000)),
        compression_target_tokens=maybe(st.integers(1, 999)),
        native_input_rate=st.booleans(),
        resumption=st.booleans(),
        compression=st.booleans(),
        server_tools=st.just(()) | st.just((ServerTool("googleSearch"),)),
    ),
}

_calls = st.lists(st.tuples(names, st.dictionaries(names, text, max_size=2)), min_size=1, max_size=3)
_common_steps: list[st.SearchStrategy[Any]] = [
    st.builds(
        Say, st.sampled_from(["Yes.", "It is sunny in Oslo today.", ""]), st.sampled_from([0.0, 0.3, 3.0])
    ),
    st.builds(CallTools, _calls),
    st.builds(RunTool, names),
    st.builds(Wait, st.sampled_from([0.1, 1.0])),
]


def replies(provider: str) -> st.SearchStrategy[list[Any]]:
    steps = st.one_of(*_common_steps)
    ends: list[Any] = [Fail(), Silent()] if provider == "google" else [Fail(), Silent(), Incomplete()]
    reply = st.builds(
        lambda some, end: [*some, *end],
        st.lists(steps, min_size=1, max_size=3),
        st.just([]) | st.sampled_from([[end] for end in ends]),
    )
    return st.lists(reply, max_size=4)


Deed = tuple[str, float]

deeds: st.SearchStrategy[list[Deed]] = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.sampled_from([0.02, 0.1, 0.5])),
        st.tuples(st.just("pause"), st.sampled_from([0.02, 0.6, 1.5])),
        st.tuples(st.just("run"), st.sampled_from([0.0, 0.05, 0.5, 10.0])),
        st.tuples(st.sampled_from(["commit", "clear", "end_turn", "interrupt", "answer"]), st.just(0.0)),
    ),
    max_size=25,
)
