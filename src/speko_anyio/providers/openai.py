"""OpenAI Realtime (GA) as a dialect, and where to connect for it.

Also for servers that are compatible with it: `openai_endpoint` takes any base URL and path, the beta's event
names are understood, and nothing depends on events or fields that such servers are known to omit.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Unpack

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..protocol.errors import LocalProtocolError
from ..protocol.mint import SessionConfig
from . import codes
from ._closes import Service
from ._endpoint import AuthStyle, Endpoint, provider_endpoint
from ._held_input import TurnMode
from ._options import NameRule, ServerTool, checked, or_unset
from ._provider import DialectOptions
from .models import end_notes
from .realtime import Flavor, RealtimeDialect
from .realtime._events import ClientEvent, PcmFormat
from .realtime._tools import AnyTool, convert_tools
from .realtime._user import SILENCE_MARGIN_MS, TurnRules

__all__ = [
    "OpenAIDialect",
    "OpenAIOptions",
    "SemanticVad",
    "ServerTool",
    "ServerVad",
    "openai_endpoint",
]

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


class OpenAIOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that only OpenAI has. An omitted option means the service's default."""

    turns: TurnMode = "auto"
    turn_detection: ServerVad | SemanticVad = ServerVad()
    """Only in auto mode."""
    transcription_model: str | None = TRANSCRIPTION_MODEL
    """The model that transcribes the user's speech; None for no user transcripts."""
    transcription_language: str | None = None
    """ISO 639-1; tells the transcription what to expect."""
    transcription_prompt: str | None = None
    """``gpt-realtime-whisper`` accepts none: the prompt is then left out, with a warning."""
    noise_reduction: Literal["near_field", "far_field"] | None = None
    """``near_field`` for a microphone near the mouth, ``far_field`` for one in the room."""
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None
    """Of the assistant's speech; 1 is normal."""
    tool_choice: Literal["auto", "none", "required"] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | None = None
    """For one response."""
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """Only from gpt-realtime-2 on."""
    parallel_tool_calls: bool | None = None
    """Only from gpt-realtime-2 on."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that OpenAI runs: ``mcp``. Set ``require_approval`` to ``never``, since nobody can approve a
    call."""


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


_FLAVOR: Final = Flavor(
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
    update, rules, notes = _configure(config, options)
    return RealtimeDialect(
        flavor=_FLAVOR,
        rules=rules,
        update=update,
        notes=notes,
        input_sample_rate=SAMPLE_RATE,
        output_sample_rate=SAMPLE_RATE,
        ttl=ttl,
        **session,
    )


# The configuration as it is sent


class _Transcription(msgspec.Struct, frozen=True, gc=False):
    model: str
    language: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET


class _NoiseReduction(msgspec.Struct, frozen=True, gc=False):
    type: str


class _Input(msgspec.Struct, frozen=True, gc=False):
    format: PcmFormat
    transcription: _Transcription | None
    noise_reduction: _NoiseReduction | None
    turn_detection: ServerVad | SemanticVad | None


class _CustomVoice(msgspec.Struct, frozen=True, gc=False):
    id: str


class _Output(msgspec.Struct, frozen=True, gc=False):
    format: PcmFormat
    voice: str | _CustomVoice | UnsetType = UNSET
    speed: float | UnsetType = UNSET


class _Audio(msgspec.Struct, frozen=True, gc=False):
    input: _Input
    output: _Output


class _Reasoning(msgspec.Struct, frozen=True, gc=False):
    effort: str


class _Session(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="realtime"):
    instructions: str | UnsetType = UNSET
    output_modalities: tuple[str, ...] = ("audio",)
    audio: _Audio
    tools: tuple[AnyTool, ...] | UnsetType = UNSET
    tool_choice: str | UnsetType = UNSET
    max_output_tokens: int | str | UnsetType = UNSET
    reasoning: _Reasoning | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET


class _UpdateSession(ClientEvent, frozen=True, tag="session.update"):
    """The message that configures the session."""

    session: _Session


def _configure(
    config: SessionConfig, options: OpenAIOptions
) -> tuple[_UpdateSession, TurnRules, tuple[str, ...]]:
    """Convert the session's parameters for OpenAI; also return how turns end, and notes on the changes.

    OpenAI refuses a configuration with a single unknown field. So parameters that it can't honour are left
    out and noted, and invalid ones raise `LocalProtocolError` before anything is sent.
    """
    check_model(config.model)
    options = checked(options, OpenAIOptions, "OpenAI")
    tools, tool_notes = convert_tools(config.tools, options.server_tools, _TOOL_NAMES, {})
    notes = [*_general_notes(config), *end_notes(config.model, options.transcription_model), *tool_notes]
    reasoning, parallel = options.reasoning_effort, options.parallel_tool_calls
    if _NOT_REASONING.match(config.model) and (reasoning is not None or parallel is not None):
        notes.append(f"{config.model} knows neither reasoning_effort nor parallel_tool_calls: left out")
        reasoning = parallel = None
    prompt = options.transcription_prompt
    if prompt is not None and options.transcription_model == TRANSCRIPTION_MODEL:
        notes.append(
            f"{TRANSCRIPTION_MODEL} accepts no prompt, so transcription_prompt is left out; to use it, "
            "choose another transcription_model, such as gpt-live-transcribe"
        )
        options = msgspec.structs.replace(options, transcription_prompt=None)
    session = _Session(
        instructions=or_unset(config.system_prompt),
        audio=_Audio(_input(options), _output(config, options)),
        tools=tools or UNSET,
        tool_choice=or_unset(options.tool_choice),
        max_output_tokens=or_unset(options.max_output_tokens),
        reasoning=UNSET if reasoning is None else _Reasoning(reasoning),
        parallel_tool_calls=or_unset(parallel),
    )
    return _UpdateSession(session=session), _rules(options), tuple(notes)


def _general_notes(config: SessionConfig) -> list[str]:
    notes = []
    if config.temperature is not None:
        notes.append("OpenAI Realtime has no temperature: left out")
    for direction, rate in (("input", config.input_sample_rate), ("output", config.output_sample_rate)):
        if rate not in (None, SAMPLE_RATE):
            notes.append(
                f"OpenAI Realtime has {direction} audio at {SAMPLE_RATE} Hz only: {rate} is resampled"
            )
    return notes


def _input(options: OpenAIOptions) -> _Input:
    transcription = noise_reduction = None
    if options.transcription_model is not None:
        transcription = _Transcription(
            options.transcription_model,
            or_unset(options.transcription_language),
            or_unset(options.transcription_prompt),
        )
    if options.noise_reduction is not None:
        noise_reduction = _NoiseReduction(options.noise_reduction)
    turn_detection = options.turn_detection if options.turns == "auto" else None
    return _Input(PcmFormat(SAMPLE_RATE), transcription, noise_reduction, turn_detection)


def _output(config: SessionConfig, options: OpenAIOptions) -> _Output:
    voice: str | _CustomVoice | UnsetType = or_unset(config.voice)
    if isinstance(voice, str) and voice.startswith("voice_"):
        voice = _CustomVoice(voice)
    return _Output(PcmFormat(SAMPLE_RATE), voice, or_unset(options.speed))


def _rules(options: OpenAIOptions) -> TurnRules:
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
