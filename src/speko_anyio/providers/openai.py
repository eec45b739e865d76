"""OpenAI Realtime (GA) as a dialect, and where to connect for it.

Also for servers that are compatible with it: `openai_endpoint` takes any base URL and path, the beta's event
names are understood, and nothing depends on events or fields that such servers are known to omit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias, Unpack

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..protocol._commands import TurnMode, Update
from ..protocol.capabilities import UPDATABLE, Capabilities
from ..protocol.errors import LocalProtocolError
from ..protocol.mint import SessionConfig, ToolSpec
from . import codes
from ._closes import Service
from ._endpoint import AuthStyle, Endpoint, provider_endpoint
from ._options import NameRule, ProviderOptions, ServerTool, checked, filled
from ._provider import DialectOptions
from .models import dated, end_notes
from .realtime import Flavor, RealtimeDialect
from .realtime._settings import Change, Configuration, pcm_format
from .realtime._tools import AnyTool, convert_tools
from .realtime._user import SILENCE_MARGIN_MS, TurnRules

__all__ = [
    "NamedTool",
    "OpenAIDialect",
    "OpenAIOptions",
    "RetentionRatio",
    "SemanticVad",
    "ServerTool",
    "ServerVad",
    "TokenLimits",
    "Tracing",
    "openai_capabilities",
    "openai_endpoint",
]

WHO: Final = "OpenAI Realtime"

SESSION_SECONDS: Final = 3600.0
"""How long OpenAI lets a session live; it gives no warning."""

SAMPLE_RATE: Final = 24_000
"""Samples a second in both directions: OpenAI has no other PCM rate."""

TRANSCRIPTION_MODEL: Final = "gpt-realtime-whisper"
"""The default, which transcribes words as they are spoken. Its predecessors are retired on 2027-02-26."""

_SEMANTIC_SILENCE_MS: Final = 500
"""Silence that ends a turn in semantic detection, which considers more than silence."""

_TOOL_NAMES: Final = NameRule(
    "OpenAI",
    re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "1 to 64 ASCII letters, digits, _ and -",
)
_NOT_REASONING: Final = re.compile(r"gpt-realtime(-mini|-1\.5)?(-\d{4}-\d\d-\d\d)?\Z")
"""Models before gpt-realtime-2: they reject a configuration that mentions reasoning or parallel calls."""


class ServerVad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="server_vad"):
    """Turn detection by loudness. All fields are sent: the service's defaults are not the documented ones."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Higher needs louder speech."""
    prefix_padding_ms: Annotated[int, Meta(ge=0)] = 300
    """Audio before the detected speech that belongs to it."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500
    """Silence that ends a turn."""
    create_response: bool = True
    """Whether a turn is answered without a request."""
    interrupt_response: bool = True
    """Whether speech stops the response in flight."""
    idle_timeout_ms: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Silence after which the model speaks unprompted."""


class SemanticVad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="semantic_vad"):
    """Turn detection by meaning: it waits seconds for a speaker who seems to have more to say."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    """Whether a turn is answered without a request."""
    interrupt_response: bool = True
    """Whether speech stops the response in flight."""


class TokenLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits of a conversation, in tokens."""

    post_instructions: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    """Of everything after the system prompt and the tools."""


class RetentionRatio(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="retention_ratio"):
    """Drop a large part of an overlong conversation at once, so that the cache is lost only rarely."""

    retention_ratio: Annotated[float, Meta(ge=0, le=1)]
    """The fraction of the tokens to keep."""
    token_limits: TokenLimits | UnsetType = UNSET
    """When a conversation is too long; the model's own limit by default."""


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """How a session appears in OpenAI's dashboard of traces."""

    workflow_name: str | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class NamedTool(msgspec.Struct, frozen=True, kw_only=True):
    """The one tool that the model must call."""

    type: Literal["function", "mcp"] = "function"
    name: str | UnsetType = UNSET
    """Of the function, or of the tool on the MCP server."""
    server_label: str | UnsetType = UNSET
    """Of the MCP server."""


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


class OpenAIOptions(ProviderOptions, frozen=True, kw_only=True):
    """Options that only OpenAI has. An omitted option means the service's default."""

    turns: TurnMode = "auto"
    turn_detection: ServerVad | SemanticVad = ServerVad()
    """Only in auto mode."""
    transcription_model: str | None = TRANSCRIPTION_MODEL
    """The model that transcribes the user's speech; None for no user transcripts."""
    transcription_language: str | None = None
    """ISO 639-1; tells the transcription what to expect."""
    transcription_languages: tuple[str, ...] | None = None
    """The languages to expect, if there are several. Only ``gpt-transcribe`` and ``gpt-live-transcribe``
    accept them: for other models they are left out, with a warning."""
    transcription_keywords: tuple[str, ...] | None = None
    """Names and terms to expect; for the same models."""
    transcription_delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """How long the transcription waits for more context. Only ``gpt-realtime-whisper`` accepts it: for other
    models it is left out, with a warning."""
    transcription_prompt: str | None = None
    """``gpt-realtime-whisper`` accepts none: the prompt is then left out, with a warning."""
    transcription_logprobs: bool = False
    """Whether the raw events of transcripts have the probabilities of their words."""
    noise_reduction: Literal["near_field", "far_field"] | None = None
    """``near_field`` for a microphone near the mouth, ``far_field`` for one in the room."""
    noise_reduction_strength: Annotated[float, Meta(ge=0)] | None = None
    """Higher suppresses more; only with `noise_reduction`."""
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None
    """Of the assistant's speech; 1 is normal."""
    tool_choice: ToolChoice | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None
    """How a conversation that exceeds the model's limit is shortened; with ``disabled``, responses fail."""
    tracing: Literal["auto"] | Tracing | None = None
    """Whether the session is stored in OpenAI's dashboard of traces."""
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | None = None
    """For one response."""
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """Only from gpt-realtime-2 on."""
    parallel_tool_calls: bool | None = None
    """Only from gpt-realtime-2 on."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that OpenAI runs: ``mcp``. Set ``require_approval`` to ``never``, or `approval_tool`."""
    approval_tool: str | None = None
    """The name of a tool of the session that decides on calls of MCP tools that require approval; the model
    can't call it. Its arguments are ``server_label``, ``name`` and ``arguments``, JSON text; the result
    ``true`` approves the call, any other denies it, and tells the model why. None denies every such call."""


_DEFAULT_OPTIONS: Final = OpenAIOptions()


_LIVE_MODEL: Final = re.compile(r"(?:.*/)?gpt-live(?:-.*)?", re.IGNORECASE)


def check_model(model: str) -> None:
    """Raise `LocalProtocolError` for a model without realtime sessions: OpenAI's error gives no reason."""
    if _LIVE_MODEL.fullmatch(model):
        raise LocalProtocolError(
            f"{model} has no realtime sessions, since GPT-Live models use another protocol; choose "
            "a realtime model such as gpt-realtime-2.1"
        )


def openai_endpoint(
    api_key: str,
    model: str,
    *,
    base_url: str = "wss://api.openai.com/v1",
    path: str = "/realtime",
    auth: AuthStyle = "header",
) -> Endpoint:
    """Return where and how to connect, with a key or an ephemeral token.

    `base_url` may have any path and query of its own, and may be ``http`` or ``https`` as in other clients
    of OpenAI; `path` is appended to its path. Raises `LocalProtocolError` for unusable parameters.
    """
    if not model:
        raise LocalProtocolError(
            "OpenAI needs the name of a model, and it is empty; pass for example gpt-realtime-2.1"
        )
    check_model(model)
    return provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=(("model", model),),
        auth=auth,
        subprotocols=("realtime", "openai-insecure-api-key."),
    )


_FULL: Final = Capabilities(
    text=True,
    image=True,
    respond=True,
    say="instructed",
    update=UPDATABLE,
    history=True,
    manual_turns=True,
    interrupt=True,
    truncate=True,
    resume="no",
    text_output=True,
    server_tools=True,
    full_duplex=False,
    input_rates=(SAMPLE_RATE,),
    output_rates=(SAMPLE_RATE,),
)
"""What gpt-realtime and its successors can do."""

_BEFORE_IMAGES: Final = re.compile(r"gpt-4o(-mini)?-realtime-preview(-\d{4}-\d\d-\d\d)?\Z")
"""Models of the beta, which take no images."""


def openai_capabilities(model: str) -> Capabilities:
    """Return what a session with `model` can do; an unknown model counts as one of the newest family.

    Raises `LocalProtocolError` for a model without realtime sessions.
    """
    check_model(model)
    family = _FULL
    if _BEFORE_IMAGES.match(model):
        family = msgspec.structs.replace(family, image=False)
    return dated(family, model)


FLAVOR: Final = Flavor(
    service=Service.OPENAI,
    metadata_key="client_event_id",
    names_things=True,
    early_commits=True,
    complete_arguments=False,
    endings={"session_expired": codes.EXPIRED},
)


def OpenAIDialect(  # noqa: N802 - to its callers it is a class
    config: SessionConfig,
    *,
    options: OpenAIOptions = _DEFAULT_OPTIONS,
    ttl: float | None = SESSION_SECONDS,
    **session: Unpack[DialectOptions],
) -> RealtimeDialect:
    """Make a session with OpenAI, or with a server that speaks its protocol, over WebSocket messages.

    - `config`: the session's parameters; its `provider` and `model` are for `openai_endpoint`.
    - `options`: those that only OpenAI has.
    - `ttl`: seconds until the session ends, by default OpenAI's own limit; see `Expiring`.
    - `session`: see `DialectOptions`.

    Raises `LocalProtocolError` when the configuration can't be used; `notes` lists what the provider can't
    honour. The session is OPEN from the start: the WebSocket is the caller's. Audio is PCM16 mono at 24 kHz
    in both directions.
    """
    return RealtimeDialect(
        flavor=FLAVOR,
        configuration=configure(config, options),
        input_sample_rate=SAMPLE_RATE,
        output_sample_rate=SAMPLE_RATE,
        ttl=ttl,
        **session,
    )


# The configuration as it is sent


def configure(config: SessionConfig, options: OpenAIOptions, *, on_line: bool = False) -> Configuration:
    """Convert the session's parameters for OpenAI.

    `on_line`: whether the audio is that of a phone line, whose format OpenAI negotiates itself.

    OpenAI refuses a configuration with a single unknown field. So parameters that it can't honour are left
    out and noted, and invalid ones raise `LocalProtocolError` before anything is sent.
    """
    capabilities = openai_capabilities(config.model)
    options = checked(options, OpenAIOptions, "OpenAI")
    _check_tool_choice(options.tool_choice)
    tools, tool_notes = convert_callable(config.tools, options)
    notes = [
        *_general_notes(config, on_line=on_line),
        *end_notes(config.model, options.transcription_model),
        *tool_notes,
    ]
    reasoning, parallel = options.reasoning_effort, options.parallel_tool_calls
    if _NOT_REASONING.match(config.model) and (reasoning is not None or parallel is not None):
        notes.append(f"{config.model} knows neither reasoning_effort nor parallel_tool_calls: left out")
        reasoning = parallel = None
    if options.noise_reduction_strength is not None and options.noise_reduction is None:
        notes.append("noise_reduction_strength has no effect without noise_reduction: left out")
    options, transcription_notes = _transcribable(options)
    pcm = None if on_line else pcm_format(SAMPLE_RATE)
    session = filled(
        type="realtime",
        instructions=config.system_prompt,
        output_modalities=(config.output or "audio",),
        audio={"input": _input(options, pcm), "output": _output(config, options, pcm)},
        tools=tools or None,
        tool_choice=options.tool_choice,
        truncation=options.truncation,
        tracing=options.tracing,
        include=(_LOGPROBS,) if options.transcription_logprobs else None,
        max_output_tokens=options.max_output_tokens,
        reasoning=None if reasoning is None else {"effort": reasoning},
        parallel_tool_calls=parallel,
    )
    return Configuration(
        who=WHO,
        capabilities=capabilities,
        session=session,
        extra=options.provider_extra,
        rules=turn_rules(options),
        instructions=config.system_prompt or "",
        change=lambda update: convert_update(update, options),
        locks_voice=True,
        approval_tool=options.approval_tool,
        notes=(*notes, *transcription_notes),
    )


def convert_callable(
    tools: Sequence[ToolSpec], options: OpenAIOptions
) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    """Convert the tools that the model may call."""
    callable_tools = [tool for tool in tools if tool.name != options.approval_tool]
    return convert_tools(callable_tools, options.server_tools, _TOOL_NAMES, {})


def convert_update(update: Update, options: OpenAIOptions) -> Change:
    """Convert a change of the open session."""
    session: dict[str, Any] = {"type": "realtime"}
    audio: dict[str, Any] = {}
    rules = None
    notes: tuple[str, ...] = ()
    if not isinstance(update.system_prompt, UnsetType):
        session["instructions"] = update.system_prompt
    if not isinstance(update.tools, UnsetType):
        session["tools"], notes = convert_callable(update.tools, options)
    if not isinstance(update.voice, UnsetType):
        audio["output"] = {"voice": _voice(update.voice)}
    if not isinstance(update.turns, UnsetType):
        options = msgspec.structs.replace(options, turns=update.turns)
        audio["input"] = {"turn_detection": _turn_detection(options)}
        rules = turn_rules(options)
    if audio:
        session["audio"] = audio
    return Change(session, rules, notes)


_LOGPROBS: Final = "item.input_audio_transcription.logprobs"

_OLD_TRANSCRIPTION: Final = r"whisper-1|gpt-4o(-mini)?-transcribe(-diarize)?(-\d{4}-\d\d-\d\d)?"

_REFUSING: Final[Mapping[str, re.Pattern[str]]] = {
    "transcription_prompt": re.compile(TRANSCRIPTION_MODEL),
    "transcription_keywords": re.compile(f"{TRANSCRIPTION_MODEL}|{_OLD_TRANSCRIPTION}"),
    "transcription_languages": re.compile(f"{TRANSCRIPTION_MODEL}|{_OLD_TRANSCRIPTION}"),
    "transcription_delay": re.compile(f"gpt-(live-)?transcribe|{_OLD_TRANSCRIPTION}"),
}
"""The transcription models that refuse a configuration with this option."""


def _transcribable(options: OpenAIOptions) -> tuple[OpenAIOptions, list[str]]:
    """Return the options without those that the transcription model refuses, and notes on them."""
    model = options.transcription_model
    if model is None:
        return options, []
    refused = [
        name
        for name, models in _REFUSING.items()
        if getattr(options, name) is not None and models.fullmatch(model)
    ]
    notes = [
        f"{model} accepts no {name.removeprefix('transcription_')}, so {name} is left out; to use it, choose "
        f"another transcription_model, such as {_accepting(name)}"
        for name in refused
    ]
    return msgspec.structs.replace(options, **dict.fromkeys(refused)), notes


def _accepting(name: str) -> str:
    """Return a transcription model that accepts this option."""
    successors = ("gpt-live-transcribe", TRANSCRIPTION_MODEL)
    return next(model for model in successors if not _REFUSING[name].fullmatch(model))


def _check_tool_choice(choice: ToolChoice | None) -> None:
    """Raise `LocalProtocolError` for a named tool that lacks its name."""
    if not isinstance(choice, NamedTool):
        return
    needed = "name" if choice.type == "function" else "server_label"
    if not getattr(choice, needed):
        raise LocalProtocolError(
            f"the options for OpenAI can't be used: tool_choice needs a {needed}; add it"
        )


def _general_notes(config: SessionConfig, *, on_line: bool) -> list[str]:
    notes = []
    if config.temperature is not None:
        notes.append("OpenAI Realtime has no temperature: left out")
    for direction, rate in (("input", config.input_sample_rate), ("output", config.output_sample_rate)):
        if on_line and rate is not None:
            notes.append(
                f"the {direction} audio of a call has the rate of the phone line: {rate} is left out"
            )
        elif rate not in (None, SAMPLE_RATE):
            notes.append(
                f"OpenAI Realtime has {direction} audio at {SAMPLE_RATE} Hz only: {rate} is resampled"
            )
    return notes


def _input(options: OpenAIOptions, pcm: dict[str, Any] | None) -> dict[str, Any]:
    transcription = noise_reduction = None
    if options.transcription_model is not None:
        transcription = filled(
            model=options.transcription_model,
            language=options.transcription_language,
            languages=options.transcription_languages,
            prompt=options.transcription_prompt,
            keywords=options.transcription_keywords,
            delay=options.transcription_delay,
        )
    if options.noise_reduction is not None:
        noise_reduction = filled(type=options.noise_reduction, strength=options.noise_reduction_strength)
    # A null switches each of these off.
    return filled(format=pcm) | {
        "transcription": transcription,
        "noise_reduction": noise_reduction,
        "turn_detection": _turn_detection(options),
    }


def _turn_detection(options: OpenAIOptions) -> ServerVad | SemanticVad | None:
    return options.turn_detection if options.turns == "auto" else None


def _output(config: SessionConfig, options: OpenAIOptions, pcm: dict[str, Any] | None) -> dict[str, Any]:
    voice = None if config.voice is None else _voice(config.voice)
    return filled(format=pcm, voice=voice, speed=options.speed)


def _voice(name: str) -> str | dict[str, str]:
    return {"id": name} if name.startswith("voice_") else name


def turn_rules(options: OpenAIOptions) -> TurnRules:
    """Return how turns end with these options."""
    detection = options.turn_detection
    semantic = isinstance(detection, SemanticVad)
    silence = _SEMANTIC_SILENCE_MS if isinstance(detection, SemanticVad) else detection.silence_duration_ms
    return TurnRules(
        auto=options.turns == "auto",
        silence_ms=silence + SILENCE_MARGIN_MS,
        semantic=semantic,
        interrupts=detection.interrupt_response,
        creates=detection.create_response,
    )
