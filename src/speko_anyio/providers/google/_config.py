"""Converts a session's parameters to Gemini Live's.

Gemini closes the connection if it or the model does not know a single field. So settings that it
can't honour are left out and noted, and invalid ones are refused before anything is sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Meta

from ...protocol._commands import TurnMode, Update
from ...protocol.errors import LocalProtocolError
from ...protocol.mint import DEFAULT_SAMPLE_RATE, SessionConfig, ToolSpec
from .._options import (
    Laborious,
    NameRule,
    ProviderOptions,
    ServerTool,
    check_names,
    checked,
    filled,
    limited,
    merge_extra,
)
from ..models import end_notes
from . import _events as wire
from ._families import OUTPUT_SAMPLE_RATE, Family, Generation, family_of
from ._schema import Work, convert_parameters

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


HarmCategory: TypeAlias = Literal[
    "harassment", "hate_speech", "sexually_explicit", "dangerous_content", "civic_integrity", "jailbreak"
]

BlockThreshold: TypeAlias = Literal["low_and_above", "medium_and_above", "only_high", "none", "off"]


class GoogleOptions(ProviderOptions, frozen=True, kw_only=True):
    """Options that only Gemini has. Those left out keep the service's default.

    `provider_extra` is merged into ``setup``, and takes precedence.
    """

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
    transcription_languages: tuple[str, ...] = ()
    """Codes of the languages that are spoken (BCP 47), such as ``de-DE``: a hint for both transcriptions.
    Empty: the service finds out."""
    transcription_keywords: tuple[str, ...] = ()
    """Names and words that the transcription of the user's speech should know."""
    language_code: str | None = None
    """Code of the language (BCP 47) in which the model speaks. Native audio models choose it themselves."""
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Limit for one response."""
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Sample only from the likeliest tokens that together have this probability."""
    top_k: Annotated[int, Meta(ge=1)] | None = None
    """Sample only from this many of the likeliest tokens."""
    seed: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    """With the same seed and input, answers vary less."""
    thinking_budget: Annotated[int, Meta(ge=-1)] | None = None
    """In tokens; models 2.5 only."""
    thinking_level: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """Only for models 3.1, and those with extended thinking. The latter reject ``"minimal"`` and have no
    default: None gives them ``"low"``, the quickest."""
    tool_behavior: Literal["blocking", "non_blocking"] | None = None
    """Whether the model waits for a tool's result; the default depends on the model."""
    tool_scheduling: Literal["interrupt", "when_idle", "silent"] | None = None
    """When the model speaks about a tool's result: at once, when it has finished speaking, or not at all.
    Only for tools that it does not wait for."""
    turn_coverage: Literal["activity", "all_input", "activity_and_video"] | None = None
    """Which input belongs to a turn of the user: what came while they spoke, all of it, or all video but only
    the audio of speech. The default depends on the model."""
    media_resolution: Literal["low", "medium", "high"] | None = None
    """How finely the model sees pictures, and so how many tokens one costs."""
    safety_settings: dict[HarmCategory, BlockThreshold] = {}  # noqa: RUF012  # msgspec copies it
    """The probability of harm from which Gemini blocks its own words, as in ``{"harassment": "only_high"}``;
    ``none`` blocks nothing, and ``off`` switches the filter off. Only a gateway's operator may choose it."""
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
    compression_trigger_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Tokens of conversation at which its start is forgotten."""
    compression_target_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Tokens of conversation to keep then; fewer than trigger it."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that Google runs, by Gemini's names: ``googleSearch``, ``urlContext``, ``codeExecution``."""


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
    interrupts: bool
    """Whether the user's turn stops the model."""
    scheduling: str | None
    """When the model is to speak about the result of a tool."""
    transcribed: bool
    """Whether the model's speech is transcribed."""


class Configuration(NamedTuple):
    """A session's parameters as Gemini takes them: the same for every connection of the session."""

    setup: str
    """The first message as JSON text, without `opening`: as objects, tools take up to 22 times as much
    memory."""
    opening: _Json
    """The fields of the setup that depend on whether a session is resumed, as for a new one."""
    resumable: bool
    """Whether the session can continue over another connection."""
    rules: Rules
    family: Family
    model: str
    input_sample_rate: int
    notes: tuple[str, ...]
    behavior: str | None
    """Of the tools, as in their declarations."""
    server_tools: tuple[ServerTool, ...]

    @property
    def announces_history(self) -> bool:
        """Whether a new session begins with an initial history, which the provider waits for."""
        history = self.opening.get("historyConfig")
        return isinstance(history, dict) and bool(history.get("initialHistoryInClientContent"))

    def setup_message(self, handle: str | None) -> str:
        """Return the first message; `handle`: of the session to resume, if there is one.

        Raises `LocalProtocolError` if it can't be resumed.
        """
        if handle and not self.resumable:
            raise LocalProtocolError(
                "a session can't be resumed with resumption off; turn it on, or pass no handle"
            )
        opening = dict(self.opening)
        if handle:
            # The provider has the history, and would wait for another.
            opening.pop("historyConfig", None)
            opening["sessionResumption"] = {**opening["sessionResumption"], "handle": handle}
        if not opening:
            return self.setup
        return f"{self.setup.removesuffix('}}')},{_encoded(opening).removeprefix('{')}}}"

    def updated(self, update: Update) -> tuple[Configuration, str]:
        """Apply `update`, which has only fields that can change; also return the message that says so.

        Raises `LocalProtocolError` for tools that can't be declared.
        """
        changes: _Json = {}
        if update.system_prompt is not UNSET:
            changes["systemInstruction"] = {"parts": [wire.text_part(update.system_prompt)]}
        if update.tools is not UNSET:
            try:
                changes["tools"] = _tools(
                    update.tools, self.server_tools, self.behavior, [], Work(quick=True)
                )
            except Laborious:
                raise LocalProtocolError(
                    "the parameters of the tools take too long to convert in an open session; simplify them, "
                    "or open a new session with them"
                ) from None
        setup = msgspec.json.decode(self.setup)["setup"]
        changed = self._replace(setup=_encoded({"setup": {**setup, **changes}}))
        if self.family.system_role:
            instruction = wire.said("system", *changes["systemInstruction"]["parts"])
            return changed, wire.content([instruction], complete=False)
        if "tools" in changes:
            changes["tools"] = {"tools": changes["tools"]}
        return changed, wire.context_update(changes)


def _encoded(message: _Json) -> str:
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError:
        raise LocalProtocolError(
            "the configuration holds half of a surrogate pair, which UTF-8 can't carry; use whole characters"
        ) from None
    except (TypeError, OverflowError, RecursionError, ValueError):
        raise LocalProtocolError(
            "the tools or the provider_extra hold something that JSON can't carry; their parameters and "
            "settings must be JSON"
        ) from None


def configure(config: SessionConfig, options: GoogleOptions, *, quick: bool = False) -> Configuration:
    """Convert `config`. Also return notes on the changes.

    Raises `LocalProtocolError` when it can't be converted. That may take 0.2 seconds; with `quick`, tools
    that take more than a few milliseconds raise `Laborious` instead.
    """
    options = checked(options, GoogleOptions, "Gemini")
    family = family_of(config.model)
    generation = family.generation
    notes = end_notes(config.model)
    if config.output == "text":
        raise LocalProtocolError(
            "Gemini's Live models answer in speech only; leave out the output, and read the transcripts"
        )
    if config.output_sample_rate not in (None, OUTPUT_SAMPLE_RATE):
        notes.append(
            f"Gemini has output audio at {OUTPUT_SAMPLE_RATE} Hz only: "
            f"{config.output_sample_rate} is resampled"
        )
    behavior = _behavior(options, generation, notes)
    setup = filled(
        model=_model_name(config.model),
        generationConfig=_generation(config, options, generation, notes),
        systemInstruction={"parts": [{"text": config.system_prompt}]} if config.system_prompt else None,
        tools=_tools(config.tools, options.server_tools, behavior, notes, Work(quick=quick)) or None,
        realtimeInputConfig=_realtime_input(options),
        inputAudioTranscription=_transcription(options, user=True) if options.input_transcription else None,
        outputAudioTranscription=(
            _transcription(options, user=False) if options.output_transcription else None
        ),
        contextWindowCompression=_compression(options),
        safetySettings=[
            {
                "category": f"HARM_CATEGORY_{category.upper()}",
                "threshold": "OFF" if threshold == "off" else f"BLOCK_{threshold.upper()}",
            }
            for category, threshold in options.safety_settings.items()
        ]
        or None,
        historyConfig={"initialHistoryInClientContent": True} if family.seeded else None,
    )
    setup = merge_extra(setup, options.provider_extra)
    # Without a handle, too: this makes the provider send handles. A null handle would end the session.
    resumption = setup.pop("sessionResumption", {})
    if not isinstance(resumption, dict):
        raise LocalProtocolError("provider_extra has a sessionResumption that is not an object; correct it")
    history = setup.pop("historyConfig", None)
    opening = filled(historyConfig=history, sessionResumption=resumption if options.resumption else None)
    _encoded(opening)  # fail here, and not when the session opens
    rules = Rules(
        auto=options.turns == "auto",
        silence_ms=options.turn_detection.silence_duration_ms + _SILENCE_MARGIN_MS,
        gates=_gates(options, generation),
        stops=_stops(options, generation, notes),
        transcribed="outputAudioTranscription" in setup and not _is_text_only(setup),
        interrupts=options.interrupts,
        scheduling=_scheduling(options, family, notes),
    )
    input_rate = config.input_sample_rate or DEFAULT_SAMPLE_RATE
    return Configuration(
        setup=_encoded({"setup": setup}),
        opening=opening,
        resumable=options.resumption,
        rules=rules,
        family=family,
        model=config.model,
        input_sample_rate=NATIVE_INPUT_SAMPLE_RATE if options.native_input_rate else input_rate,
        notes=limited(notes),
        behavior=behavior,
        server_tools=options.server_tools,
    )


def _is_text_only(setup: _Json) -> bool:
    """Whether `provider_extra` made the model answer in text only."""
    generation = setup.get("generationConfig")
    return isinstance(generation, dict) and generation.get("responseModalities") == ["TEXT"]


def _model_name(model: str) -> str:
    if not model:
        raise LocalProtocolError(
            "Gemini needs the name of a model, and it is empty; pass for example gemini-3.8-live"
        )
    # Vertex AI has models of publishers inside projects.
    return model if model.startswith(("models/", "projects/", "publishers/")) else f"models/{model}"


def _generation(
    config: SessionConfig, options: GoogleOptions, generation: Generation, notes: list[str]
) -> _Json:
    if config.temperature is not None and not math.isfinite(config.temperature):
        raise LocalProtocolError(
            f"a temperature of {config.temperature} can't be sent; pass a number from 0 to 2"
        )
    voice = {"prebuiltVoiceConfig": {"voiceName": config.voice}} if config.voice else None
    speech = filled(voiceConfig=voice, languageCode=options.language_code)
    resolution = options.media_resolution
    return filled(
        responseModalities=["AUDIO"],
        temperature=config.temperature,
        topP=options.top_p,
        topK=options.top_k,
        seed=options.seed,
        maxOutputTokens=options.max_output_tokens,
        mediaResolution=f"MEDIA_RESOLUTION_{resolution.upper()}" if resolution else None,
        speechConfig=speech or None,
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
    return filled(thinkingBudget=budget, thinkingLevel=level.upper() if level else None)


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


def _scheduling(options: GoogleOptions, family: Family, notes: list[str]) -> str | None:
    if options.tool_scheduling is None:
        return None
    waits = options.tool_behavior == "blocking" or (
        options.tool_behavior is None and family.generation is Generation.V2_5
    )
    if waits or not family.schedules:
        why = "it waits for the results of its tools" if waits else "it takes none"
        notes.append(f"tool_scheduling is left out for this model, since {why}")
        return None
    return options.tool_scheduling.upper()


def _transcription(options: GoogleOptions, *, user: bool) -> _Json:
    return filled(
        languageCodes=list(options.transcription_languages) or None,
        customVocabulary=(list(options.transcription_keywords) or None) if user else None,
    )


def _compression(options: GoogleOptions) -> _Json | None:
    if not options.compression:
        return None
    trigger, target = options.compression_trigger_tokens, options.compression_target_tokens
    if trigger is not None and target is not None and target >= trigger:
        raise LocalProtocolError(
            f"compression_target_tokens is {target}, but must be less than compression_trigger_tokens, which "
            f"is {trigger}; lower it"
        )
    return filled(triggerTokens=trigger, slidingWindow=filled(targetTokens=target))


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
        detection = filled(
            disabled=False,
            startOfSpeechSensitivity=f"START_SENSITIVITY_{start.upper()}" if start else None,
            endOfSpeechSensitivity=f"END_SENSITIVITY_{end.upper()}" if end else None,
            prefixPaddingMs=vad.prefix_padding_ms,
            silenceDurationMs=vad.silence_duration_ms,
        )
    return filled(
        automaticActivityDetection=detection,
        activityHandling="START_OF_ACTIVITY_INTERRUPTS" if options.interrupts else "NO_INTERRUPTION",
        turnCoverage=_COVERAGE[options.turn_coverage] if options.turn_coverage else None,
    )


_COVERAGE: Final = {
    "activity": "TURN_INCLUDES_ONLY_ACTIVITY",
    "all_input": "TURN_INCLUDES_ALL_INPUT",
    "activity_and_video": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
}


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
            filled(
                name=tool.name,
                description=tool.description or None,
                parameters=parameters,
                behavior=behavior,
            )
        )
    declared: list[_Json] = [{"functionDeclarations": functions}] if functions else []
    return [*declared, *({tool.type: tool.settings} for tool in server_tools)]
