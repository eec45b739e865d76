"""What a session's parameters become: sent, left out with a note, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.openai import (
    NamedTool,
    OpenAIDialect,
    OpenAIOptions,
    RetentionRatio,
    SemanticVad,
    ServerTool,
    ServerVad,
    TokenLimits,
    Tracing,
    openai_endpoint,
)
from speko_anyio.providers.xai import XAIDialect, XAIOptions, XAIVad

from .realtime_talk import Event, openai, xai


def openai_session(options: OpenAIOptions = OpenAIOptions(), **config: Any) -> tuple[Event, tuple[str, ...]]:  # noqa: B008
    parameters = {"provider": "openai", "model": "gpt-realtime-2.1", **config}
    talk = openai(options, SessionConfig(**parameters))
    talk.hear({"type": "session.created"})
    (update,) = talk.sent()
    session: Event = update["session"]
    return session, talk.dialect.notes


def xai_session(options: XAIOptions = XAIOptions(), **config: Any) -> tuple[Event, tuple[str, ...]]:  # noqa: B008
    talk = xai(options, SessionConfig(provider="xai", model="grok-voice-latest", **config))
    talk.hear({"type": "session.created"})
    (update,) = talk.sent()
    session: Event = update["session"]
    return session, talk.dialect.notes


def test_openai_by_default() -> None:
    session, notes = openai_session()
    assert session == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-realtime-whisper"},
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}},
        },
    }
    assert notes == ()


def test_openai_with_everything() -> None:
    session, notes = openai_session(
        OpenAIOptions(
            turn_detection=SemanticVad(eagerness="low"),
            transcription_model="gpt-live-transcribe",
            transcription_language="de",
            transcription_prompt="Namen",
            transcription_languages=("de", "en"),
            transcription_keywords=("Spree", "Havel"),
            transcription_logprobs=True,
            noise_reduction="far_field",
            noise_reduction_strength=0.5,
            truncation=RetentionRatio(retention_ratio=0.8, token_limits=TokenLimits(post_instructions=5000)),
            tracing=Tracing(workflow_name="calls", metadata={"tenant": "a"}),
            speed=1.25,
            tool_choice="required",
            max_output_tokens="inf",
            reasoning_effort="low",
            parallel_tool_calls=False,
            server_tools=(
                ServerTool(
                    "mcp",
                    {"server_label": "docs", "server_url": "https://x.test", "require_approval": "never"},
                ),
            ),
        ),
        model="gpt-realtime-2.1-mini",
        voice="voice_abc",
        system_prompt="",
    )
    assert notes == ()
    assert session["instructions"] == ""
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": {"id": "voice_abc"},
        "speed": 1.25,
    }
    assert session["audio"]["input"]["transcription"] == {
        "model": "gpt-live-transcribe",
        "language": "de",
        "languages": ["de", "en"],
        "prompt": "Namen",
        "keywords": ["Spree", "Havel"],
    }
    assert session["audio"]["input"]["noise_reduction"] == {"type": "far_field", "strength": 0.5}
    assert session["truncation"] == {
        "type": "retention_ratio",
        "retention_ratio": 0.8,
        "token_limits": {"post_instructions": 5000},
    }
    assert session["tracing"] == {"workflow_name": "calls", "metadata": {"tenant": "a"}}
    assert session["include"] == ["item.input_audio_transcription.logprobs"]
    assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert session["tools"][0]["type"] == "mcp"
    assert (session["tool_choice"], session["max_output_tokens"]) == ("required", "inf")
    assert (session["reasoning"], session["parallel_tool_calls"]) == ({"effort": "low"}, False)


def test_openai_idle_timeout_and_turns_that_are_not_answered() -> None:
    detection = ServerVad(idle_timeout_ms=6000, create_response=False)
    session, _ = openai_session(OpenAIOptions(turn_detection=detection))
    assert session["audio"]["input"]["turn_detection"]["idle_timeout_ms"] == 6000


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (OpenAIOptions(truncation="disabled"), "truncation", "disabled"),
        (
            OpenAIOptions(truncation=RetentionRatio(retention_ratio=0.5)),
            "truncation",
            {"type": "retention_ratio", "retention_ratio": 0.5},
        ),
        (OpenAIOptions(tracing="auto"), "tracing", "auto"),
        (OpenAIOptions(tool_choice=NamedTool(name="f")), "tool_choice", {"type": "function", "name": "f"}),
        (
            OpenAIOptions(tool_choice=NamedTool(type="mcp", server_label="docs", name="search")),
            "tool_choice",
            {"type": "mcp", "server_label": "docs", "name": "search"},
        ),
    ],
)
def test_openai_options_of_the_session(options: OpenAIOptions, field: str, value: Any) -> None:
    session, notes = openai_session(options)
    assert session[field] == value
    assert notes == ()


@pytest.mark.parametrize("choice", [NamedTool(), NamedTool(type="mcp", name="search"), NamedTool(name="")])
def test_a_named_tool_has_a_name(choice: NamedTool) -> None:
    with pytest.raises(LocalProtocolError, match="tool_choice needs a"):
        openai_session(OpenAIOptions(tool_choice=choice))


@pytest.mark.parametrize(
    ("model", "refused"),
    [
        ("gpt-realtime-whisper", {"keywords", "languages", "prompt"}),
        ("gpt-4o-mini-transcribe-2025-12-15", {"keywords", "languages", "delay"}),
        ("whisper-1", {"keywords", "languages", "delay"}),
        ("gpt-live-transcribe", {"delay"}),
        ("somebody-elses", set()),
    ],
)
def test_a_transcription_model_hears_only_of_what_it_accepts(model: str, refused: set[str]) -> None:
    options = OpenAIOptions(
        transcription_model=model,
        transcription_keywords=("Oslo",),
        transcription_languages=("no", "en"),
        transcription_delay="high",
        transcription_prompt="ships",
    )
    session, notes = openai_session(options)
    sent = session["audio"]["input"]["transcription"]
    assert set(sent) == {"model", "keywords", "languages", "delay", "prompt"} - refused
    left_out = {
        name for name in refused if any(f"transcription_{name} is left out" in note for note in notes)
    }
    assert left_out == refused


def test_a_strength_needs_noise_reduction() -> None:
    session, notes = openai_session(OpenAIOptions(noise_reduction_strength=0.5))
    assert session["audio"]["input"]["noise_reduction"] is None
    assert "noise_reduction_strength has no effect" in notes[0]


def test_openai_manual_turns_and_no_transcription() -> None:
    session, _ = openai_session(OpenAIOptions(turns="manual", transcription_model=None))
    assert session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["input"]["transcription"] is None


def test_openai_leaves_out_what_it_does_not_know_and_says_so() -> None:
    session, notes = openai_session(temperature=0.7, input_sample_rate=16000, output_sample_rate=16000)
    assert "temperature" not in session
    assert notes == (
        "OpenAI Realtime has no temperature: left out",
        "OpenAI Realtime has input audio at 24000 Hz only: 16000 is resampled",
        "OpenAI Realtime has output audio at 24000 Hz only: 16000 is resampled",
    )


@pytest.mark.parametrize(
    ("model", "knows"),
    [
        ("gpt-realtime", False),
        ("gpt-realtime-2025-08-28", False),
        ("gpt-realtime-mini", False),
        ("gpt-realtime-mini-2025-12-15", False),
        ("gpt-realtime-1.5", False),
        ("gpt-realtime-2", True),
        ("gpt-realtime-2.1-mini", True),
        ("somebody-elses", True),
    ],
)
def test_only_models_that_know_of_reasoning_hear_of_it(model: str, knows: bool) -> None:
    for options in (OpenAIOptions(reasoning_effort="high"), OpenAIOptions(parallel_tool_calls=True)):
        session, notes = openai_session(options, model=model)
        assert bool({"reasoning", "parallel_tool_calls"} & set(session)) is knows
        assert bool(notes) is not knows


def test_xai_by_default() -> None:
    session, notes = xai_session()
    assert session == {
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.85,
            "prefix_padding_ms": 333,
            "silence_duration_ms": 500,
        },
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "grok-transcribe"},
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}},
        },
    }
    assert notes == ()


def test_xai_with_everything() -> None:
    session, notes = xai_session(
        XAIOptions(
            turn_detection=XAIVad(idle_timeout_ms=9000),
            transcription_model=None,
            language_hint="es-MX",
            keyterms=("Speko", "Grok"),
            speed=1.2,
            replace={"Acme": "Ackmee"},
            reasoning_effort="none",
            resumption=True,
            server_tools=(ServerTool("web_search"),),
        ),
        voice="Rex",
        system_prompt="Be brief.",
        temperature=1.0,
        input_sample_rate=16000,
        output_sample_rate=16000,
        tools=(ToolSpec(name="f"),),
    )
    assert notes == ("xAI documents no temperature: left out",)
    assert (session["voice"], session["instructions"]) == ("Rex", "Be brief.")
    assert session["audio"] == {
        "input": {
            "format": {"type": "audio/pcm", "rate": 16000},
            "transcription": {"language_hint": "es-MX", "keyterms": ["Speko", "Grok"]},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 16000}, "speed": 1.2},
    }
    assert session["replace"] == {"Acme": "Ackmee"}
    assert session["reasoning"] == {"effort": "none"}
    assert session["resumption"] == {"enabled": True}
    assert session["turn_detection"]["idle_timeout_ms"] == 9000
    assert [tool["type"] for tool in session["tools"]] == ["function", "web_search"]


def test_xai_manual_turns_are_said() -> None:
    assert xai_session(XAIOptions(turns="manual"))[0]["turn_detection"] == {"type": None}


# Tools


def test_parameters_become_a_schema_of_an_object() -> None:
    tools = (
        ToolSpec(name="plain"),
        ToolSpec(name="whole", parameters={"type": "object", "properties": {"a": {}}, "required": ["a"]}),
    )
    session, notes = openai_session(tools=tools)
    assert [tool["parameters"] for tool in session["tools"]] == [
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    ]
    assert notes == ()


@pytest.mark.parametrize("types", [["object"], ["OBJECT", "null"], ["string", "object"]])
def test_parameters_may_name_their_type_in_a_list(types: list[str]) -> None:
    for session in (openai_session, xai_session):
        converted, _ = session(tools=(ToolSpec(name="f", parameters={"type": types}),))
        assert converted["tools"][0]["parameters"] == {"type": "object", "properties": {}}


def test_long_descriptions_are_cut() -> None:
    session, notes = xai_session(tools=(ToolSpec(name="f", description="x" * 1025),))
    assert session["tools"][0]["description"] == "x" * 1024
    assert notes == ("the description of tool 'f' was cut to 1024 characters",)


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ((ToolSpec(name=""),), "does not accept '' as the name of a tool"),
        ((ToolSpec(name="f"), ToolSpec(name="f")), "two tools are named"),
        ((ToolSpec(name="f", parameters={"type": "string"}),), "JSON Schema of an object"),
        ((ToolSpec(name="f", parameters={"type": ["string", "null"]}),), "JSON Schema of an object"),
        ((ToolSpec(name="f", description="\ud800"),), "written as JSON"),
        ((ToolSpec(name="f", parameters={"x": object()}),), "written as JSON"),
    ],
)
def test_tools_that_cannot_be_used_are_refused(tools: tuple[ToolSpec, ...], problem: str) -> None:
    for session in (openai_session, xai_session):
        with pytest.raises(LocalProtocolError, match=problem):
            session(tools=tools)


@pytest.mark.parametrize("name", ["calendar.read", "get weather", "tag_größe", "x" * 65, "f\n", "\ud800"])
def test_a_name_that_openai_does_not_take_is_refused(name: str) -> None:
    problem = r"OpenAI does not accept .* as the name of a tool; use 1 to 64"
    with pytest.raises(LocalProtocolError, match=problem) as caught:
        openai_session(tools=(ToolSpec(name="fine"), ToolSpec(name=name)))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["f", "get-weather_2", "x" * 64])
def test_a_name_that_openai_takes_goes_out(name: str) -> None:
    assert openai_session(tools=(ToolSpec(name=name),))[0]["tools"][0]["name"] == name


@pytest.mark.parametrize("name", ["", " ", "\n"])
def test_a_blank_name_is_refused_everywhere(name: str) -> None:
    for session in (openai_session, xai_session):
        with pytest.raises(LocalProtocolError, match="name"):
            session(tools=(ToolSpec(name=name),))


XAI_NAMES = [
    (ServerTool("web_search"), ["web_search", "browse_page", "web_search_with_snippets"]),
    (
        ServerTool("x_search"),
        ["x_search", "x_keyword_search", "x_semantic_search", "x_user_search", "x_thread_fetch"],
    ),
    (ServerTool("file_search"), ["file_search", "collections_search"]),
    (ServerTool("web_search", {"enable_image_understanding": True}), ["view_image"]),
    (ServerTool("x_search", {"enable_video_understanding": True}), ["view_x_video"]),
]


@pytest.mark.parametrize(
    ("server_tool", "name"), [(server_tool, name) for server_tool, names in XAI_NAMES for name in names]
)
def test_a_name_that_a_tool_of_xai_uses_is_refused_while_that_is_enabled(
    server_tool: ServerTool, name: str
) -> None:
    tools = (ToolSpec(name=name),)
    assert xai_session(tools=tools)[0]["tools"][0]["name"] == name
    other = XAIOptions(server_tools=(ServerTool("mcp"),))
    assert xai_session(other, tools=tools)[0]["tools"][0]["name"] == name
    with pytest.raises(LocalProtocolError, match=f"xAI has a tool '{name}' of its own") as caught:
        xai_session(XAIOptions(server_tools=(server_tool,)), tools=tools)
    assert f"disable {server_tool.type}" in str(caught.value)


@pytest.mark.parametrize(
    "model", ["gpt-live-1", "gpt-live", "GPT-Live-1-mini", "openai/gpt-live-1", "gpt-live-transcribe"]
)
def test_a_model_of_another_protocol_is_refused_before_connecting(model: str) -> None:
    config = SessionConfig(provider="openai", model=model)
    for refused in (lambda: openai_endpoint("key", model), lambda: OpenAIDialect(config)):
        with pytest.raises(LocalProtocolError, match=r"has no realtime sessions.*gpt-realtime-2\.1"):
            refused()


@pytest.mark.parametrize("model", ["gpt-realtime-2.1", "my-gpt-live", "gpt-lively"])
def test_other_models_are_not(model: str) -> None:
    openai_endpoint("key", model)
    OpenAIDialect(SessionConfig(provider="openai", model=model))


def test_a_transcription_prompt_goes_only_to_models_that_take_one() -> None:
    session, notes = openai_session(OpenAIOptions(transcription_prompt="ships", transcription_language="de"))
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-realtime-whisper", "language": "de"}
    assert len(notes) == 1
    assert "transcription_prompt is left out" in notes[0]
    options = OpenAIOptions(transcription_prompt="ships", transcription_model="gpt-live-transcribe")
    session, notes = openai_session(options)
    assert session["audio"]["input"]["transcription"]["prompt"] == "ships"
    assert notes == ()


# Options


@pytest.mark.parametrize(
    "options",
    [
        OpenAIOptions(turns="sometimes"),  # type: ignore[arg-type]
        OpenAIOptions(speed=3.0),
        OpenAIOptions(max_output_tokens=0),
        OpenAIOptions(turn_detection=ServerVad(threshold=2.0)),
        OpenAIOptions(turn_detection=ServerVad(silence_duration_ms=-1)),
        OpenAIOptions(reasoning_effort="heroic"),  # type: ignore[arg-type]
        OpenAIOptions(truncation=RetentionRatio(retention_ratio=1.5)),
        OpenAIOptions(transcription_delay="never"),  # type: ignore[arg-type]
        OpenAIOptions(noise_reduction_strength=-1.0),
    ],
)
def test_options_of_openai_that_cannot_be_used_are_refused(options: OpenAIOptions) -> None:
    with pytest.raises(LocalProtocolError, match="the options for OpenAI can't be used"):
        openai_session(options)


@pytest.mark.parametrize(
    "options",
    [
        XAIOptions(turn_detection=XAIVad(threshold=0.05)),
        XAIOptions(turn_detection=XAIVad(silence_duration_ms=10_001)),
        XAIOptions(speed=2.0),
        XAIOptions(keyterms=("x" * 51,)),
        XAIOptions(keyterms=("x",) * 101),
        XAIOptions(reasoning_effort="low"),  # type: ignore[arg-type]
    ],
)
def test_options_of_xai_that_cannot_be_used_are_refused(options: XAIOptions) -> None:
    with pytest.raises(LocalProtocolError, match="the options for xAI can't be used"):
        xai_session(options)


def test_options_come_from_json_too() -> None:
    text = '{"turn_detection":{"type":"semantic_vad","eagerness":"high"},"server_tools":[{"type":"mcp"}]}'
    assert msgspec.json.decode(text, type=OpenAIOptions) == OpenAIOptions(
        turn_detection=SemanticVad(eagerness="high"), server_tools=(ServerTool("mcp"),)
    )
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.json.decode('{"colour":1}', type=XAIOptions)


@pytest.mark.parametrize("hint", ["es", "pt"])
def test_a_language_hint_that_xai_ignores_is_told(hint: str) -> None:
    _, (note,) = xai_session(XAIOptions(language_hint=hint))
    assert note.startswith(f"xAI ignores the language_hint {hint!r}: add a region, such as {hint}-")


# What no option covers


def test_provider_extra_is_merged_into_the_session_as_it_is() -> None:
    extra = {
        "audio": {"output": {"voice": {"id": "v"}, "gain": 2}, "input": {"turn_detection": None}},
        "truncation": "auto",
        "x": [1],
    }
    talk = openai(OpenAIOptions(provider_extra=extra))
    talk.check = lambda message: None  # it has fields that nobody publishes
    talk.hear({"type": "session.created"})
    session = talk.sent()[0]["session"]
    plain, _ = openai_session(voice="marin")
    assert session["x"] == [1]
    assert session["truncation"] == "auto"
    assert session["audio"]["output"] == {
        "format": plain["audio"]["output"]["format"],
        "voice": {"id": "v"},
        "gain": 2,
    }
    assert session["audio"]["input"] == {**plain["audio"]["input"], "turn_detection": None}
    assert session["instructions"] if "instructions" in plain else "instructions" not in session


def test_provider_extra_reaches_xai_too() -> None:
    talk = xai(
        XAIOptions(provider_extra={"audio": {"input": {"format": {"type": "audio/pcmu"}}}, "y": {"z": 1}})
    )
    talk.check = lambda message: None
    talk.hear({"type": "session.created"})
    session = talk.sent()[0]["session"]
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu", "rate": 24_000}
    assert session["y"] == {"z": 1}


def test_provider_extra_that_is_no_json_is_refused_and_never_shown() -> None:
    with pytest.raises(LocalProtocolError):
        openai(OpenAIOptions(provider_extra={"k": object()}))
    with pytest.raises(LocalProtocolError):
        xai(XAIOptions(provider_extra={"k": "\ud800"}))
    options = OpenAIOptions(provider_extra={"authorization": "secret"}, speed=1.2)
    assert "secret" not in repr(options)
    assert "secret" not in str(dict(options.__rich_repr__()))
    assert "speed=1.2" in repr(options)


def test_the_settings_of_server_tools_are_not_shown() -> None:
    tool = ServerTool("mcp", {"authorization": "secret"})
    assert repr(OpenAIOptions(server_tools=(tool,))).count("secret") == 0
    assert tool.as_json() == {"type": "mcp", "authorization": "secret"}


GOOGLES_STYLE: dict[str, Any] = {
    "type": "OBJECT",
    "properties": {
        "city": {"type": "STRING", "default": {"type": "STRING"}, "enum": ["STRING"]},
        "days": {"type": "ARRAY", "items": {"type": ["INTEGER", "NULL"]}},
        "type": {"anyOf": [{"type": "NUMBER"}, {"$ref": "#/$defs/Other"}]},
        "any": True,
    },
    "$defs": {"Other": {"type": "Custom"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(("dialect", "provider"), [(OpenAIDialect, "openai"), (XAIDialect, "xai")])
def test_types_in_upper_case_are_those_of_json_schema(dialect: type[Any], provider: str) -> None:
    tool = ToolSpec(name="t", description="d", parameters=GOOGLES_STYLE)
    made = dialect(SessionConfig(provider=provider, model="m", tools=(tool,)))
    made.receive_message('{"type":"session.created","session":{"id":"s"}}')
    (sent,) = json.loads(made.messages_to_send()[-1])["session"]["tools"]
    assert sent["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "default": {"type": "STRING"}, "enum": ["STRING"]},
            "days": {"type": "array", "items": {"type": ["integer", "null"]}},
            "type": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/Other"}]},
            "any": True,
        },
        "$defs": {"Other": {"type": "Custom"}},
        "additionalProperties": False,
    }


@pytest.mark.parametrize("dialect", [OpenAIDialect, XAIDialect])
def test_a_schema_that_contains_itself_is_refused(dialect: type[Any]) -> None:
    cyclic: dict[str, Any] = {"type": "object", "properties": {}}
    cyclic["properties"]["again"] = cyclic
    tool = ToolSpec(name="loop", description="d", parameters=cyclic)
    with pytest.raises(LocalProtocolError, match="tool 'loop' are nested deeper than 100 levels"):
        dialect(SessionConfig(provider="p", model="m", tools=(tool,)))
