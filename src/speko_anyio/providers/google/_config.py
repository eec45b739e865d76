"""Converts a session's parameters to Gemini Live's.

Gemini closes the connection if it or the model does not know a single field. So settings that it
can't honour are left out and noted, and invalid ones are refused before anything is sent.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from ...protocol.errors import LocalProtocolError
from ...protocol.mint import DEFAULT_SAMPLE_RATE, SessionConfig, ToolSpec
from .._held_input import TurnMode
from .._options import NameRule, ServerTool, check_names, checked, limited
from ._schema import Work, convert_parameters

OUTPUT_SAMPLE_RATE: Final = 24_000
"""The only rate of the model's speech, in samples a second."""

NATIVE_INPUT_SAMPLE_RATE: Final = 16_000
"""The rate that the model hears, in samples a second; the provider converts others."""

_SILENCE_MARGIN_MS: Final = 300
"""Milliseconds of silence to send beyond what the detection needs, as a safety margin."""

_TOOL_NAMES: Final = NameRule(
    "Gemini",
    re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}"),
    "1 to 128 ASCII letters, digits and _.:-, with a letter or _ first",
)

Sensitivity: TypeAlias = Literal["high", "low"]

_Json: TypeAlias = dict[str, Any]


class GoogleVad(msgspec.Struct, frozen=True, kw_only=True):
    """How Gemini detects turns. Options left out keep the service's default."""

    start_sensitivity: Sensitivity | None = None
    """``high`` detects the start of speech more readily."""
    end_sensitivity: Sensitivity | None = None
    """``high`` ends a turn more readily."""
    prefix_padding_ms: Annotated[int, Meta(ge=0)] | None = None
    """Milliseconds of speech that count as a start."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500
    """Milliseconds of silence that end a turn."""


class GoogleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that only Gemini has. Those left out keep the service's default."""

    turns: TurnMode = "auto"
    """In manual mode the first audio of a turn already stops the model: send audio only while the user
    speaks."""
    turn_detection: GoogleVad = GoogleVad()
    """Only in auto mode."""
    interrupts: bool = True
    """Whether the user's speech stops the response in flight."""
    input_transcription: bool = True
    """Whether the user's speech is transcribed."""
    output_transcription: bool = True
    """Whether the model's speech is transcribed."""
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Limit for one response."""
    thinking_budget: Annotated[int, Meta(ge=-1)] | None = None
    """In tokens; models 2.5 only."""
    thinking_level: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """Only for models 3.1, and those with extended thinking. The latter reject ``"minimal"`` and have no
    default: None gives them ``"low"``, the quickest."""
    tool_behavior: Literal["blocking", "non_blocking"] | None = None
    """Whether the model waits for a tool's result; the default depends on the model."""
    gate_input: bool | None = None
    """Whether audio is held while the model waits for a tool's result, since it may make models 2.5 end the
    session. The user can't interrupt meanwhile. None: only where the model needs it."""
    stop_generating: bool = False
    """Whether `interrupt` also asks the model to stop, in auto mode; otherwise the rest of its response is
    only muted. One public bridge uses it with models 2.5 and 3.8; 3.1 does not support it."""
    native_input_rate: bool = False
    """Whether to take audio at 16 kHz, the rate that the model hears, whatever the session's input rate;
    otherwise the service converts."""
    resumption: bool = True
    """Whether the session can continue over another connection: each lasts about 10 minutes."""
    compression: bool = True
    """Whether the start of a long conversation is forgotten; otherwise it ends after about 15 minutes."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that Google runs, by Gemini's names: ``googleSearch``, ``urlContext``, ``codeExecution``."""


class Generation(enum.Enum):
    """The kinds of models, which differ in the settings they accept."""

    V2_5 = "2.5"
    V3_1 = "3.1"
    V3_8 = "3.8"
    V3_8_THINKING = "3.8 extended thinking"
    OTHER = "other"


def generation_of(model: str) -> Generation:
    """Return the kind of `model`, by its name."""
    if "extended-thinking" in model:
        return Generation.V3_8_THINKING
    if "3.8" in model:
        return Generation.V3_8
    if "3.1" in model:
        return Generation.V3_1
    return Generation.V2_5 if "2.5" in model else Generation.OTHER


class Rules(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How the session behaves under its configuration."""

    auto: bool
    """Whether the provider detects turns."""
    silence_ms: int
    """Milliseconds of digital silence that end a turn for certain, when the provider detects turns."""
    gates: bool
    """Whether the user's audio is held while a tool call is open."""
    stops: bool
    """Whether `interrupt` asks the model to stop."""
    transcribed: bool
    """Whether the model's speech is transcribed."""


class Configuration(NamedTuple):
    """A session's parameters as Gemini takes them: the same for every connection of the session."""

    setup: str
    """The first message as JSON text, without the handle for resuming a session."""
    resumable: bool
    """Whether the session can continue over another connection."""
    rules: Rules
    input_sample_rate: int
    notes: tuple[str, ...]

    def setup_message(self, handle: str | None) -> str:
        """Return the first message; `handle`: of the session to resume, if there is one.

        Raises `LocalProtocolError` if it can't be resumed.
        """
        if handle and not self.resumable:
            raise LocalProtocolError(
                "a session can't be resumed with resumption off; turn it on, or pass no handle"
            )
        if not self.resumable:
            return self.setup
        # Even without a handle: this makes the provider send handles. A null handle would end the session.
        resumption = msgspec.json.encode({"handle": handle} if handle else {}).decode()
        return f'{self.setup.removesuffix("}}")},"sessionResumption":{resumption}}}}}'


def configure(config: SessionConfig, options: GoogleOptions, *, quick: bool = False) -> Configuration:
    """Convert `config`. Also return notes on the changes.

    Raises `LocalProtocolError` when it can't be converted. That may take 0.2 seconds; with `quick`, tools
    that take more than a few milliseconds raise `Laborious` instead.
    """
    options = checked(options, GoogleOptions, "Gemini")
    generation = generation_of(config.model)
    notes: list[str] = []
    if config.output_sample_rate not in (None, OUTPUT_SAMPLE_RATE):
        notes.append(
            f"Gemini has output audio at {OUTPUT_SAMPLE_RATE} Hz only: "
            f"{config.output_sample_rate} is resampled"
        )
    behavior = _behavior(options, generation, notes)
    setup = _filled(
        model=_model_name(config.model),
        generationConfig=_generation(config, options, generation, notes),
        systemInstruction={"parts": [{"text": config.system_prompt}]} if config.system_prompt else None,
        tools=_tools(config.tools, options.server_tools, behavior, notes, Work(quick=quick)) or None,
        realtimeInputConfig=_realtime_input(options),
        inputAudioTranscription={} if options.input_transcription else None,
        outputAudioTranscription={} if options.output_transcription else None,
        contextWindowCompression={"slidingWindow": {}} if options.compression else None,
    )
    try:
        text = msgspec.json.encode({"setup": setup}).decode()
    except UnicodeEncodeError:
        raise LocalProtocolError(
            "the configuration holds half of a surrogate pair, which UTF-8 can't carry; use whole characters"
        ) from None
    except (TypeError, OverflowError, RecursionError, ValueError):
        raise LocalProtocolError(
            "the tools hold something that JSON can't carry; their parameters and settings must be JSON"
        ) from None
    rules = Rules(
        auto=options.turns == "auto",
        silence_ms=options.turn_detection.silence_duration_ms + _SILENCE_MARGIN_MS,
        gates=_gates(options, generation),
        stops=_stops(options, generation, notes),
        transcribed=options.output_transcription,
    )
    input_rate = config.input_sample_rate or DEFAULT_SAMPLE_RATE
    return Configuration(
        text,
        options.resumption,
        rules,
        NATIVE_INPUT_SAMPLE_RATE if options.native_input_rate else input_rate,
        limited(notes),
    )


def _model_name(model: str) -> str:
    if not model:
        raise LocalProtocolError(
            "Gemini needs the name of a model, and it is empty; pass for example gemini-3.8-live"
        )
    # Vertex AI has models of publishers inside projects.
    return model if model.startswith(("models/", "projects/", "publishers/")) else f"models/{model}"


def _filled(**fields: Any) -> _Json:
    """Build an object of the fields that have a value: an absent field means the service's default."""
    return {name: value for name, value in fields.items() if value is not None}


def _generation(
    config: SessionConfig, options: GoogleOptions, generation: Generation, notes: list[str]
) -> _Json:
    if config.temperature is not None and not math.isfinite(config.temperature):
        raise LocalProtocolError(
            f"a temperature of {config.temperature} can't be sent; pass a number from 0 to 2"
        )
    voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": config.voice}}} if config.voice else None
    return _filled(
        responseModalities=["AUDIO"],
        temperature=config.temperature,
        maxOutputTokens=options.max_output_tokens,
        speechConfig=voice,
        thinkingConfig=_thinking(config.model, options, generation, notes) or None,
    )


def _thinking(model: str, options: GoogleOptions, generation: Generation, notes: list[str]) -> _Json:
    budget, level = options.thinking_budget, options.thinking_level
    if budget is not None and generation not in (Generation.V2_5, Generation.OTHER):
        notes.append(f"{model} has no thinking_budget: left out")
        budget = None
    if level is not None and generation in (Generation.V2_5, Generation.V3_8):
        notes.append(f"{model} has no thinking_level: left out")
        level = None
    if generation is Generation.V3_8_THINKING:
        if level == "minimal":
            raise LocalProtocolError(
                f"{model} does not accept the thinking_level 'minimal'; use 'low', 'medium' or 'high'"
            )
        # The model rejects a setup without one.
        level = level or "low"
    return _filled(thinkingBudget=budget, thinkingLevel=level.upper() if level else None)


def _behavior(options: GoogleOptions, generation: Generation, notes: list[str]) -> str | None:
    only = {Generation.V3_1: "blocking", Generation.V3_8_THINKING: "non_blocking"}.get(generation)
    wanted = options.tool_behavior
    if wanted is None:
        return None
    if only is None:
        return wanted.upper()
    # These models do this anyway.
    if wanted != only:
        notes.append(f"this model has {only} tools only: tool_behavior is left out")
    return None


def _gates(options: GoogleOptions, generation: Generation) -> bool:
    if options.gate_input is not None:
        return options.gate_input
    return generation is Generation.V2_5 and options.tool_behavior != "non_blocking"


def _stops(options: GoogleOptions, generation: Generation, notes: list[str]) -> bool:
    if options.stop_generating and generation is Generation.V3_1:
        notes.append("this model can't be asked to stop: stop_generating is left out")
        return False
    return options.stop_generating


def _realtime_input(options: GoogleOptions) -> _Json:
    detection: _Json = {"disabled": True}
    if options.turns == "auto":
        vad = options.turn_detection
        start, end = vad.start_sensitivity, vad.end_sensitivity
        detection = _filled(
            disabled=False,
            startOfSpeechSensitivity=f"START_SENSITIVITY_{start.upper()}" if start else None,
            endOfSpeechSensitivity=f"END_SENSITIVITY_{end.upper()}" if end else None,
            prefixPaddingMs=vad.prefix_padding_ms,
            silenceDurationMs=vad.silence_duration_ms,
        )
    handling = "START_OF_ACTIVITY_INTERRUPTS" if options.interrupts else "NO_INTERRUPTION"
    return {"automaticActivityDetection": detection, "activityHandling": handling}


def _tools(
    tools: Sequence[ToolSpec],
    server_tools: Sequence[ServerTool],
    behavior: str | None,
    notes: list[str],
    work: Work,
) -> list[_Json]:
    functions = []
    check_names(tools, _TOOL_NAMES, {})
    for tool in tools:
        parameters, more_notes = convert_parameters(tool.name, tool.parameters, work)
        notes += more_notes
        functions.append(
            _filled(
                name=tool.name,
                description=tool.description or None,
                parameters=parameters,
                behavior=behavior,
            )
        )
    declared: list[_Json] = [{"functionDeclarations": functions}] if functions else []
    return [*declared, *({tool.type: tool.settings} for tool in server_tools)]
