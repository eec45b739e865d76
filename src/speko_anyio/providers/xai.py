"""xAI Grok Voice as a dialect, and where to connect for it.

Its events have OpenAI's names and habits of their own: a transcript of the user is completed several times, a
response that the user interrupts may never end, usage and voice are in other places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Unpack

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..protocol._commands import TurnMode, Update
from ..protocol.capabilities import UPDATABLE, Capabilities
from ..protocol.errors import LocalProtocolError
from ..protocol.frames import Frame, Transcript
from ..protocol.mint import DEFAULT_SAMPLE_RATE, SessionConfig, ToolSpec
from . import codes
from ._closes import Service
from ._endpoint import AuthStyle, Endpoint, provider_endpoint
from ._options import NameRule, ProviderOptions, ServerTool, checked, filled
from ._provider import DialectOptions
from ._recent_ids import RecentIds
from .models import dated
from .realtime import Flavor, RealtimeDialect
from .realtime._events import UserCompleted
from .realtime._settings import Change, Configuration, pcm_format
from .realtime._tools import AnyTool, convert_tools
from .realtime._transcripts import first_part, part_of
from .realtime._user import SILENCE_MARGIN_MS, TurnRules, UserText, UserWords

__all__ = ["ServerTool", "XAIDialect", "XAIOptions", "XAIVad", "xai_capabilities", "xai_endpoint"]

_WHO: Final = "xAI Grok Voice"

_RATES: Final = (8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Of PCM, in samples a second."""

_TOOL_NAMES: Final = NameRule("xAI", re.compile(r".*\S.*", re.DOTALL), "a name that is not blank")
"""xAI documents no rule, and none has been reported."""

_INNER_TOOLS: Final = {
    "web_search": ("web_search_with_snippets", "browse_page"),
    "x_search": ("x_user_search", "x_keyword_search", "x_semantic_search", "x_thread_fetch"),
    "file_search": ("collections_search",),
    "collections_search": ("file_search",),
    "code_interpreter": ("code_execution",),
    "code_execution": ("code_interpreter",),
}
"""Names that xAI's own tools use internally: a function with one of them makes the first response fail."""

_INNER_TOOLS_BY_SETTING: Final = {
    "enable_image_understanding": "view_image",
    "enable_video_understanding": "view_x_video",
}


class XAIVad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="server_vad"):
    """xAI's turn detection."""

    threshold: Annotated[float, Meta(ge=0.1, le=0.9)] = 0.85
    """Higher needs louder speech."""
    prefix_padding_ms: Annotated[int, Meta(ge=0)] = 333
    """Audio before the detected speech that belongs to it."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500
    """Silence that ends a turn."""
    idle_timeout_ms: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Silence after which the model speaks unprompted."""


_Keyterm = Annotated[str, Meta(min_length=1, max_length=50)]


class XAIOptions(ProviderOptions, frozen=True, kw_only=True):
    """Options that only xAI has. An omitted option means the service's default."""

    turns: TurnMode = "auto"
    turn_detection: XAIVad = XAIVad()
    """Only in auto mode."""
    transcription_model: str | None = "grok-transcribe"
    """Transcribes the user's speech while it is spoken; None for transcripts after the speech."""
    language_hint: str | None = None
    """The language of the user's speech, such as ``ja`` or ``es-MX``; xAI ignores an unknown one."""
    keyterms: Annotated[tuple[_Keyterm, ...], Meta(max_length=100)] | None = None
    """Names and terms to expect in the user's speech."""
    speed: Annotated[float, Meta(ge=0.7, le=1.5)] | None = None
    """Of the assistant's speech; 1 is normal."""
    replace: dict[str, str] | None = None
    """Pronunciation: phrases of the assistant and what is spoken in their place. Transcripts don't change."""
    reasoning_effort: Literal["none", "high"] | None = None
    """Overrides the `reasoning_effort` of `XAI`, which is part of the URL."""
    binary_audio: bool = False
    """Whether audio travels as binary messages, which are smaller than JSON and cheaper to handle."""
    resumption: bool = False
    """Whether the conversation can be resumed, for 30 minutes; see `xai_endpoint`."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that xAI runs: ``web_search``, ``x_search``, ``file_search``, ``mcp``."""


_DEFAULT_OPTIONS: Final = XAIOptions()


def xai_endpoint(
    api_key: str,
    model: str,
    *,
    base_url: str = "wss://api.x.ai/v1",
    path: str = "/realtime",
    conversation_id: str | None = None,
    reasoning_effort: str | None = None,
    auth: AuthStyle = "header",
) -> Endpoint:
    """Return where and how to connect, with a key or an ephemeral token.

    - `base_url`: may have any path and query of its own; `path` is appended to its path.
    - `conversation_id`: of an earlier session's `provider_session`, to resume it; `XAIOptions.resumption`
      must be on in both.

    Raises `LocalProtocolError` for unusable parameters.
    """
    if not model:
        raise LocalProtocolError(
            "xAI needs the name of a model (it silently takes another), and it is empty; "
            "pass for example grok-voice-latest"
        )
    query = [("model", model)]
    if conversation_id is not None:
        query.append(("conversation_id", conversation_id))
    if reasoning_effort is not None:
        query.append(("reasoning.effort", reasoning_effort))
    return provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=query,
        auth=auth,
        subprotocols=("xai-client-secret.",),
    )


_REMEMBERED_TEXTS: Final = 256
"""Texts of the user that are remembered, so that a late word of one of them begins no new turn."""


class XAIWords(UserWords):
    """The user's transcripts, which xAI completes again and again as the user goes on after pauses.

    The latest text becomes final when the model speaks, or when another text of the user begins.
    """

    def __init__(self) -> None:
        super().__init__()
        self.awaits_assistant: bool = True
        self._known = RecentIds(_REMEMBERED_TEXTS)
        self._current: str | None = None
        """The name of the latest text, which may still grow unless it is answered."""
        self._answered = False
        self._complete: str | None = None
        """The latest text, if it was completed and may still grow."""

    def speech_started(self, item_id: str | None) -> list[Transcript]:
        final: list[Transcript] = []
        self.awaits_assistant = True
        if item_id is not None:
            final = self._go_on_with(first_part(item_id))
            self._answered = False
        return [*final, *super().speech_started(item_id)]

    def committed(self, item_id: str | None) -> list[Transcript]:
        final = [] if item_id is None else self._go_on_with(first_part(item_id))
        return [*final, *super().committed(item_id)]

    def receive(self, event: UserText) -> Sequence[Frame]:
        part = part_of(event)
        final = self._go_on_with(part)
        if not isinstance(event, UserCompleted):
            return [*final, *super().receive(event)]
        text = event.transcript or ""
        if event.status == "in_progress":
            return [*final, *self._texts.replace(part, text)]
        if self._answered or part != self._current:
            # It is late: the speech that would have made it final has come already.
            return [*final, *self._texts.finish(part, text)]
        self._complete = text
        return [*final, *self._texts.replace(part, text)]

    def assistant_speaks(self, *, user_speaking: bool) -> list[Transcript]:
        self._answered = not user_speaking
        # An answered text stays so until the user speaks again.
        self.awaits_assistant = user_speaking
        return self._settle()

    def response_over(self) -> list[Transcript]:
        final = self._settle()
        self._answered = True
        # The other texts were never completed, and a whole turn has passed since.
        return [*final, *self._texts.finish_all(but=self._current)]

    def _go_on_with(self, part: str) -> list[Transcript]:
        """Note that the user's words belong to this text: if it is new, the earlier ones are final."""
        if not self._known.add(part):
            return []
        final = self._settle()
        self._current = part
        self._answered = False
        self.awaits_assistant = True
        return final

    def _settle(self) -> list[Transcript]:
        """Return the latest text as final, if it was completed."""
        if self._complete is None or self._current is None:
            return []
        text, self._complete = self._complete, None
        return self._texts.finish(self._current, text)


_FULL: Final = Capabilities(
    text=True,
    image=False,
    respond=True,
    say="verbatim",
    update=UPDATABLE,
    history=True,
    manual_turns=True,
    interrupt=True,
    truncate=True,
    resume="handle",
    text_output=False,
    server_tools=True,
    full_duplex=False,
    input_rates=_RATES,
    output_rates=_RATES,
)
"""What all models of Grok Voice can do. Truncation is best effort: it is sent, and reports differ on whether
it has an effect."""


def xai_capabilities(model: str) -> Capabilities:
    """Return what a session with `model` can do; an unknown model counts as one of Grok Voice.

    `Capabilities.resume` needs `XAIOptions.resumption`.
    """
    return dated(_FULL, model)


def within(capabilities: Capabilities, options: XAIOptions) -> Capabilities:
    """Return `capabilities` without what the options switch off."""
    return capabilities if options.resumption else msgspec.structs.replace(capabilities, resume="no")


_FLAVOR: Final = Flavor(
    service=Service.XAI,
    words=XAIWords,
    metadata_key=None,
    names_things=False,
    early_commits=False,
    complete_arguments=True,
    endings={"max_duration": codes.EXPIRED, "timeout": codes.IDLE_TIMEOUT},
)


def XAIDialect(  # noqa: N802 - to its callers it is a class
    config: SessionConfig,
    *,
    options: XAIOptions = _DEFAULT_OPTIONS,
    ttl: float | None = None,
    **session: Unpack[DialectOptions],
) -> RealtimeDialect:
    """Make a session with xAI over WebSocket messages.

    - `config`: the session's parameters; its `provider` and `model` are for `xai_endpoint`. Audio is PCM16
      mono at the rates that it says, by default 24 kHz.
    - `options`: those that only xAI has.
    - `ttl`: seconds until the session ends, if known: xAI has changed its limit more than once.
    - `session`: see `DialectOptions`.

    Raises `LocalProtocolError` when the configuration can't be used; `notes` lists what the provider can't
    honour. The session is OPEN from the start: the WebSocket is the caller's.
    """
    return RealtimeDialect(
        flavor=_FLAVOR,
        configuration=_configure(config, options),
        input_sample_rate=config.input_sample_rate or DEFAULT_SAMPLE_RATE,
        output_sample_rate=config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        ttl=ttl,
        resumable=options.resumption,
        **session,
    )


# The configuration as it is sent


def _reserved_names(server_tools: Sequence[ServerTool]) -> Iterator[tuple[str, str]]:
    """Yield the names that functions can't have, each with the enabled tool that uses it."""
    for tool in server_tools:
        for name in (tool.type, *_INNER_TOOLS.get(tool.type, ())):
            yield name, tool.type
        for setting, name in _INNER_TOOLS_BY_SETTING.items():
            if tool.settings.get(setting):
                yield name, tool.type


_NEEDS_REGION: Final = {"es": "MX", "pt": "BR"}
"""Languages that xAI accepts only with a region, and one of them."""


def _configure(config: SessionConfig, options: XAIOptions) -> Configuration:
    """Convert the session's parameters for xAI; raises `LocalProtocolError` when they can't be used."""
    options = checked(options, XAIOptions, "xAI")
    if config.output == "text":
        raise LocalProtocolError(f'{_WHO} always speaks, so it has no output="text"; leave that out')
    tools, notes = _tools(config.tools, options)
    if config.temperature is not None:
        notes = ("xAI documents no temperature: left out", *notes)
    if options.language_hint in _NEEDS_REGION:
        hint = options.language_hint
        region = f"{hint}-{_NEEDS_REGION[hint]}"
        notes = (
            f"xAI ignores the language_hint {hint!r}: add a region, such as {region}",
            *notes,
        )
    transport = "binary" if options.binary_audio else None
    transcription = filled(
        model=options.transcription_model, language_hint=options.language_hint, keyterms=options.keyterms
    )
    heard = filled(
        format=pcm_format(config.input_sample_rate or DEFAULT_SAMPLE_RATE),
        transport=transport,
        transcription=transcription or None,
    )
    spoken = filled(
        format=pcm_format(config.output_sample_rate or DEFAULT_SAMPLE_RATE),
        transport=transport,
        speed=options.speed,
    )
    effort = options.reasoning_effort
    session = filled(
        instructions=config.system_prompt,
        voice=config.voice,
        # Always sent: xAI's default differs from its documentation.
        turn_detection=_turn_detection(options),
        audio={"input": heard, "output": spoken},
        tools=tools or None,
        replace=options.replace,
        reasoning=None if effort is None else {"effort": effort},
        resumption={"enabled": True} if options.resumption else None,
    )
    return Configuration(
        who=_WHO,
        capabilities=within(xai_capabilities(config.model), options),
        session=session,
        extra=options.provider_extra,
        rules=_rules(options),
        instructions=config.system_prompt or "",
        change=lambda update: _change(update, options),
        locks_voice=False,
        binary_audio=options.binary_audio,
        notes=notes,
    )


def _change(update: Update, options: XAIOptions) -> Change:
    """Convert a change of the open session."""
    session: dict[str, Any] = {}
    rules = None
    notes: tuple[str, ...] = ()
    if not isinstance(update.system_prompt, UnsetType):
        session["instructions"] = update.system_prompt
    if not isinstance(update.voice, UnsetType):
        session["voice"] = update.voice
    if not isinstance(update.tools, UnsetType):
        session["tools"], notes = _tools(update.tools, options)
    if not isinstance(update.turns, UnsetType):
        options = msgspec.structs.replace(options, turns=update.turns)
        session["turn_detection"] = _turn_detection(options)
        rules = _rules(options)
    return Change(session, rules, notes)


def _tools(tools: Sequence[ToolSpec], options: XAIOptions) -> tuple[tuple[AnyTool, ...], tuple[str, ...]]:
    reserved = dict(_reserved_names(options.server_tools))
    return convert_tools(tools, options.server_tools, _TOOL_NAMES, reserved)


def _turn_detection(options: XAIOptions) -> XAIVad | dict[str, None]:
    return options.turn_detection if options.turns == "auto" else {"type": None}


def _rules(options: XAIOptions) -> TurnRules:
    return TurnRules(
        auto=options.turns == "auto",
        silence_ms=options.turn_detection.silence_duration_ms + SILENCE_MARGIN_MS,
    )
