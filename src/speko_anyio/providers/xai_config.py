"""A session's parameters as xAI Grok Voice has them: OpenAI's names in other places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..protocol.mint import DEFAULT_SAMPLE_RATE, SessionConfig
from .held_input import TurnMode
from .options import NameRule, ServerTool, checked, or_unset
from .realtime.config import AnyTool, convert_tools
from .realtime.events import ClientEvent, PcmFormat
from .realtime.turns import TurnRules

_SILENCE_MARGIN_MS: Final = 300
"""Silence beyond what the detection asks for, so that it surely notices."""

_TOOL_NAMES: Final = NameRule("xAI", re.compile(r".*\S.*", re.DOTALL), "a name that is not blank")
"""xAI documents no rule, and nobody has reported one."""

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
    """How xAI detects turns."""

    threshold: Annotated[float, Meta(ge=0.1, le=0.9)] = 0.85
    """Higher needs louder speech."""
    prefix_padding_ms: Annotated[int, Meta(ge=0)] = 333
    """Audio ahead of the speech that belongs to it."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500
    """Silence that ends a turn."""
    idle_timeout_ms: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Silence after which the model speaks up by itself."""


class XAIOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only xAI has. Anything left out is the service's own default."""

    turns: TurnMode = "auto"
    turn_detection: XAIVad = XAIVad()
    """Only in auto mode."""
    transcription_model: str | None = "grok-transcribe"
    """Writes down what the user says while it is said; None: what was said comes when it was."""
    resumption: bool = False
    """Whether the conversation can be resumed, for 30 minutes; see `xai_endpoint`."""
    server_tools: tuple[ServerTool, ...] = ()
    """Tools that xAI runs: ``web_search``, ``x_search``, ``file_search``, ``mcp``."""


class _Transcription(msgspec.Struct, frozen=True, gc=False):
    model: str


class _Input(msgspec.Struct, frozen=True, gc=False):
    format: PcmFormat
    transcription: _Transcription | UnsetType = UNSET


class _Output(msgspec.Struct, frozen=True, gc=False):
    format: PcmFormat


class _Audio(msgspec.Struct, frozen=True, gc=False):
    input: _Input
    output: _Output


class _NoDetection(msgspec.Struct, frozen=True, gc=False):
    type: None = None


class _Resumption(msgspec.Struct, frozen=True, gc=False):
    enabled: Literal[True] = True


class _Session(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    instructions: str | UnsetType = UNSET
    voice: str | UnsetType = UNSET
    turn_detection: XAIVad | _NoDetection
    audio: _Audio
    tools: tuple[AnyTool, ...] | UnsetType = UNSET
    resumption: _Resumption | UnsetType = UNSET


class UpdateSession(ClientEvent, frozen=True, tag="session.update"):
    """The configuration."""

    session: _Session


class Configuration(NamedTuple):
    """What a session's parameters come to."""

    session: _Session
    rules: TurnRules
    notes: tuple[str, ...]
    input_sample_rate: int
    output_sample_rate: int


def _reserved_names(server_tools: Sequence[ServerTool]) -> Iterator[tuple[str, str]]:
    """Names that functions can't have, each with the enabled tool that uses it."""
    for tool in server_tools:
        for name in (tool.type, *_INNER_TOOLS.get(tool.type, ())):
            yield name, tool.type
        for setting, name in _INNER_TOOLS_BY_SETTING.items():
            if tool.settings.get(setting):
                yield name, tool.type


def configure(config: SessionConfig, options: XAIOptions) -> Configuration:
    """`config` for xAI. `LocalProtocolError` when it can't be; the notes say what was changed."""
    options = checked(options, "xAI")
    reserved = dict(_reserved_names(options.server_tools))
    tools, notes = convert_tools(config.tools, options.server_tools, _TOOL_NAMES, reserved)
    if config.temperature is not None:
        notes = ("xAI documents no temperature: left out", *notes)
    input_rate = config.input_sample_rate or DEFAULT_SAMPLE_RATE
    output_rate = config.output_sample_rate or DEFAULT_SAMPLE_RATE
    model = options.transcription_model
    auto = options.turns == "auto"
    session = _Session(
        instructions=or_unset(config.system_prompt),
        voice=or_unset(config.voice),
        # Always said: what xAI does without it is not what its documentation says.
        turn_detection=options.turn_detection if auto else _NoDetection(),
        audio=_Audio(
            _Input(PcmFormat(input_rate), UNSET if model is None else _Transcription(model)),
            _Output(PcmFormat(output_rate)),
        ),
        tools=tools or UNSET,
        resumption=_Resumption() if options.resumption else UNSET,
    )
    rules = TurnRules(auto=auto, silence_ms=options.turn_detection.silence_duration_ms + _SILENCE_MARGIN_MS)
    return Configuration(session, rules, notes, input_rate, output_rate)
