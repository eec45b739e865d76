"""Write a table of how each provider supports every parameter, command and frame of a session.

``python docs/provider_table.py`` writes ``provider-table.md`` beside this file; a test asserts that it is
up to date. The contents are observed: the script configures the dialects, lets them talk with the doubles of
their providers, and records their messages.
"""

from __future__ import annotations

import base64
import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from speko_anyio.protocol import Close, CloseMessage, Interruption, LocalProtocolError, Transcript
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers._endpoint import Endpoint
from speko_anyio.providers._provider import ProviderDialect
from speko_anyio.providers.google import (
    GoogleDialect,
    GoogleOptions,
    GoogleVad,
    google_capabilities,
    google_endpoint,
)
from speko_anyio.providers.openai import (
    OpenAIDialect,
    OpenAIOptions,
    ServerTool,
    ServerVad,
    openai_capabilities,
    openai_endpoint,
)
from speko_anyio.providers.realtime._events import IGNORED
from speko_anyio.providers.xai import XAIDialect, XAIOptions, XAIVad, xai_capabilities, xai_endpoint
from speko_anyio.testing.providers import (
    CallTools,
    Die,
    Emitted,
    Expire,
    Fail,
    GoAway,
    GoogleDouble,
    Joined,
    OpenAIDouble,
    Pace,
    ProviderDouble,
    Request,
    RunTool,
    Say,
    Send,
    XAIDouble,
    tone,
)

PAGE: Final = Path(__file__).with_name("provider-table.md")

Json: TypeAlias = dict[str, Any]


class Provider(NamedTuple):
    """Everything that the script needs of one provider."""

    title: str
    model: str
    dialect: Callable[..., ProviderDialect]
    double: Callable[..., ProviderDouble[Any]]
    options: type[msgspec.Struct]
    endpoint: Callable[[SessionConfig], Endpoint]
    values: Json
    """For each option a value that is not the default."""


_EXTRA: Final = {"provider_extra": {"include": []}, "client_extra": True}
_AS_OPENAI: Final = {
    "turns": "manual",
    "server_tools": (ServerTool("mcp"),),
}

PROVIDERS: Final = {
    "openai": Provider(
        "OpenAI Realtime",
        "gpt-realtime-2",
        OpenAIDialect,
        OpenAIDouble,
        OpenAIOptions,
        lambda config: openai_endpoint("test-key", config.model),
        {
            **_EXTRA,
            **_AS_OPENAI,
            "turn_detection": ServerVad(threshold=0.9),
            "transcription_model": "gpt-live-transcribe",
            "transcription_language": "en",
            "transcription_prompt": "names of ships",
            "transcription_languages": ("en", "no"),
            "transcription_keywords": ("Fram",),
            "transcription_delay": "high",
            "transcription_logprobs": True,
            "noise_reduction": "near_field",
            "noise_reduction_strength": 0.5,
            "truncation": "disabled",
            "tracing": "auto",
            "speed": 1.2,
            "tool_choice": "none",
            "max_output_tokens": 100,
            "reasoning_effort": "low",
            "parallel_tool_calls": False,
            "approval_tool": "approve",
        },
    ),
    "xai": Provider(
        "xAI Grok Voice",
        "grok-voice-latest",
        XAIDialect,
        XAIDouble,
        XAIOptions,
        lambda config: xai_endpoint("test-key", config.model),
        {
            **_EXTRA,
            **_AS_OPENAI,
            "turn_detection": XAIVad(threshold=0.5),
            "transcription_model": None,
            "language_hint": "en",
            "keyterms": ("Fram",),
            "speed": 1.2,
            "replace": {"Fram": "Frahm"},
            "reasoning_effort": "none",
            "binary_audio": True,
            "resumption": True,
        },
    ),
    "google": Provider(
        "Gemini Live",
        "gemini-3.8-live",
        GoogleDialect,
        GoogleDouble,
        GoogleOptions,
        lambda config: google_endpoint("test-key"),
        {
            **_AS_OPENAI,
            "turn_detection": GoogleVad(start_sensitivity="low"),
            "interrupts": False,
            "input_transcription": False,
            "output_transcription": False,
            "max_output_tokens": 100,
            "thinking_budget": 0,
            "thinking_level": "low",
            "tool_behavior": "non_blocking",
            "gate_input": False,
            "stop_generating": True,
            "native_input_rate": True,
            "resumption": False,
            "compression": False,
            "transcription_languages": ("de-DE",),
            "transcription_keywords": ("Speko",),
            "language_code": "de-DE",
            "top_p": 0.9,
            "top_k": 40,
            "seed": 1,
            "tool_scheduling": "when_idle",
            "turn_coverage": "activity",
            "media_resolution": "low",
            "safety_settings": {"harassment": "only_high"},
            "compression_trigger_tokens": 32_000,
            "compression_target_tokens": 8_000,
            "server_tools": (ServerTool("googleSearch"),),
            "provider_extra": {"labels": {"team": "voice"}},
            "client_extra": True,
        },
    ),
}

OTHER_MODELS: Final = {
    "thinking_budget": "gemini-2.5-flash-native-audio-latest",
    "thinking_level": "gemini-3.1-flash-live-preview",
}
"""Models for options that the model above does not support."""

NEEDS: Final[dict[str, Json]] = {
    "transcription_prompt": {"transcription_model": "gpt-live-transcribe"},
    "transcription_languages": {"transcription_model": "gpt-live-transcribe"},
    "transcription_keywords": {"transcription_model": "gpt-live-transcribe"},
    "noise_reduction_strength": {"noise_reduction": "near_field"},
}
"""Options that have an effect only together with another."""

PARAMETERS: Final[Json] = {
    "model": "another-model",
    "voice": "a voice",
    "system_prompt": "You are terse.",
    "temperature": 0.5,
    "input_sample_rate": 16_000,
    "output_sample_rate": 16_000,
    "tools": (ToolSpec(name="f", parameters={"properties": {"x": {"type": "string"}}}),),
    "output": "text",
}
"""For each parameter a value that is not the default."""


# Configurations


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a message to its values by path; lists stay as they are."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def opening(name: str, config: SessionConfig, options: Json) -> tuple[Json, tuple[str, ...]]:
    """Collect all values sent up to the user's first audio, by path, and the dialect's notes."""
    provider = PROVIDERS[name]
    dialect = provider.dialect(config, options=provider.options(**options))
    endpoint = provider.endpoint(config)
    joined = Joined(dialect, provider.double().open(Request.to(endpoint)))
    dialect.send_audio(bytes(960))
    joined.run(0.0)
    said: Json = {}
    for message in joined.session.received:
        said |= {path: value for path, value in leaves(message) if path not in ("type", "event_id")}
    query = endpoint.url.partition("?")[2]
    return {**said, "the address": query}, dialect.notes


def change(name: str, before: tuple[SessionConfig, Json], after: tuple[SessionConfig, Json]) -> str:
    """Find where the second configuration changes the messages; add the dialect's notes, or its error."""
    old, old_notes = opening(name, *before)
    try:
        new, new_notes = opening(name, *after)
    except LocalProtocolError as error:
        return f"*{error}*"
    paths = [path for path in {**old, **new} if old.get(path, ...) != new.get(path, ...)]
    shown = _together([_whole(path, old, new) for path in paths if path not in ("audio", _BLOB)])
    where = ", ".join(path if " " in path else f"`{path}`" for path in shown)
    notes = "; ".join(note for note in new_notes if note not in old_notes)
    return "; ".join(filter(None, (where, f"*{notes}*" if notes else ""))) or NOWHERE


NOWHERE: Final = "no field; it acts locally"

_BLOB: Final = "realtimeInput.audio.data"


def _whole(path: str, old: Json, new: Json) -> str:
    """Return the shortest prefix of `path` that only one of the two contains."""
    parts = path.split(".")
    for size in range(1, len(parts)):
        start = ".".join(parts[:size])
        inside = [any(p == start or p.startswith(f"{start}.") for p in said) for said in (old, new)]
        if not all(inside):
            return start
    return path


def _together(paths: Sequence[str]) -> list[str]:
    """Remove repetitions from `paths`, and replace several paths of an object by the object's."""
    parents = collections.Counter(path.rpartition(".")[0] for path in dict.fromkeys(paths))
    objects = {parent for parent, count in parents.items() if parent and (count > 1 or parent in paths)}
    joined = (path.rpartition(".")[0] if path.rpartition(".")[0] in objects else path for path in paths)
    return list(dict.fromkeys(joined))


def parameter_rows() -> Iterator[list[str]]:
    """Return the rows of the parameters."""
    for parameter, value in PARAMETERS.items():
        cells = []
        for name, provider in PROVIDERS.items():
            config = SessionConfig(provider=name, model=provider.model)
            cells.append(
                change(name, (config, {}), (msgspec.structs.replace(config, **{parameter: value}), {}))
            )
        yield [f"`{parameter}`", *cells]


def option_rows(name: str) -> Iterator[list[str]]:
    """Return the rows of one provider's options."""
    provider = PROVIDERS[name]
    for field in msgspec.structs.fields(provider.options):
        model = OTHER_MODELS.get(field.name, provider.model)
        config = SessionConfig(provider=name, model=model, tools=PARAMETERS["tools"])
        known = provider.options.__struct_fields__
        before = {name: value for name, value in NEEDS.get(field.name, {}).items() if name in known}
        after = {**before, field.name: provider.values[field.name]}
        yield [f"`{field.name}`", change(name, (config, before), (config, after))]


# Conversations


class Mode(NamedTuple):
    """A provider that ends turns itself, or not."""

    provider: str
    turns: str

    @property
    def title(self) -> str:
        return f"{PROVIDERS[self.provider].title}, {self.turns}"


MODES: Final = [Mode(name, turns) for name in PROVIDERS for turns in ("auto", "manual")]

TWO_CALLS: Final = CallTools([("f", {"x": "1"}), ("f", {"x": "2"})])


class Talk(Joined[Any]):
    """One conversation; `by_command` holds the messages that a command caused, by its name."""

    def __init__(self, mode: Mode, replies: Sequence[Any] = (), *, speed: float = 20.0) -> None:
        provider = PROVIDERS[mode.provider]
        self.mode = mode
        config = SessionConfig(provider=mode.provider, model=provider.model, tools=PARAMETERS["tools"])
        dialect = provider.dialect(config, options=provider.options(turns=mode.turns))
        double = provider.double(replies, pace=Pace(speed=speed))
        self.by_command: list[tuple[str, Emitted]] = []
        super().__init__(dialect, double.open(Request.to(provider.endpoint(config))))

    def speak(self, *, pause: bool = False) -> None:
        rate = self.dialect.input_sample_rate
        self.dialect.send_audio(tone(0.5, rate) + bytes(2 * rate if pause else 0))
        self.run(0.0)

    def ask(self) -> None:
        """Send a whole turn, up to the beginning of its answer."""
        self.speak(pause=True)
        if self.mode.turns == "manual":
            self.dialect.commit()
        self.run(0.0)

    def command(self, name: str, act: Callable[[], None]) -> list[Json]:
        """Return the messages that it causes."""
        said, told = len(self.session.received), len(self.emitted)
        act()
        self.run(0.0)
        self.by_command += [(name, one) for one in self.emitted[told:] if one.cause is None]
        received: list[Json] = self.session.received[said:]
        return received


def kind(message: Json | CloseMessage) -> str:
    """Return the name to look up in the provider's documentation."""
    if isinstance(message, CloseMessage):
        return "the close of the WebSocket"
    if "type" in message:
        return f"`{message['type']}`"
    names = [name for name in message if name != "usageMetadata"] or list(message)
    inner = message[names[0]]
    parts = [names[0]]
    if names[0] in ("serverContent", "realtimeInput"):
        parts += sorted(inner)[:1]
    return f"`{'.'.join(parts)}`"


def is_silence(message: Json) -> bool:
    """Return whether `message` is silent audio."""
    blob = message.get("audio") or message.get("realtimeInput", {}).get("audio", {}).get("data")
    return blob is not None and not any(base64.b64decode(blob))


def said(messages: Sequence[Json]) -> str:
    """Describe the client's messages without consecutive repetitions."""
    kinds = [kind(message) + (" (silence)" if is_silence(message) else "") for message in messages]
    return ", ".join(name for name, _ in itertools.groupby(kinds)) or "no message; it acts locally"


def commands(mode: Mode) -> Iterator[tuple[str, str]]:
    """Return each command and the messages that it sends."""
    talk = Talk(mode)
    pcm = tone(0.5, talk.dialect.input_sample_rate)
    yield "audio", said(talk.command("audio", lambda: talk.dialect.send_audio(pcm)))
    for name in ("commit", "end_turn", "clear"):
        talk = Talk(mode)
        talk.speak()
        yield f"`{name}` while the user speaks", said(talk.command(name, getattr(talk.dialect, name)))
    talk = Talk(mode)
    yield "`commit` while nobody speaks", said(talk.command("commit", talk.dialect.commit))
    talk = Talk(mode, [Say("word " * 20, 10.0)], speed=2.0)
    talk.ask()
    talk.run(1.0)
    yield "`interrupt` while the assistant speaks", said(talk.command("interrupt", talk.dialect.interrupt))
    talk = Talk(mode, [Say("word " * 20, 10.0)])
    talk.ask()
    talk.run(1.0)
    text = "`interrupt` when all is generated and not yet played"
    yield text, said(talk.command("interrupt", talk.dialect.interrupt))
    talk = Talk(mode, [TWO_CALLS])
    talk.ask()
    first, last = talk.dialect.open_calls
    for text, call_id in (("first", first), ("last", last)):
        result = talk.command("tool_result", lambda c=call_id: talk.dialect.send_tool_result(c, "{}"))  # type: ignore[misc]
        yield f"`tool_result`, the {text} of two", said(result)


VERBS: Final[dict[str, tuple[str, Callable[[ProviderDialect], None]]]] = {
    "`send_text`, context": ("text", lambda dialect: dialect.send_text("Oslo.", respond=False)),
    "`send_text`, a question": ("text", lambda dialect: dialect.send_text("Where?")),
    "`send_image`": ("image", lambda dialect: dialect.send_image(b"\x89PNG", mime_type="image/png")),
    "`respond`": ("respond", lambda dialect: dialect.respond("Greet the user.")),
    "`say`": ("say", lambda dialect: dialect.say("Good morning!")),
    "`update`": ("update", lambda dialect: dialect.update(Update(system_prompt="Be brief."))),
}
"""Commands that not every service takes, each with the name of its extension."""


def extension_commands(mode: Mode) -> Iterator[tuple[str, str]]:
    """Return each of `VERBS` and the messages that it sends."""
    for name, (extension, act) in VERBS.items():
        talk = Talk(mode)
        if talk.dialect.capabilities.takes(extension):
            yield name, said(talk.command(extension, functools.partial(act, talk.dialect)))
        else:
            yield name, "not supported"
    talk = Talk(mode, [Say("word " * 20, 10.0)], speed=2.0)
    if talk.dialect.capabilities.text:
        talk.ask()
        talk.run(1.0)
        sent = said(talk.command("text", lambda: talk.dialect.send_text("Where?")))
        yield "`send_text`, a question while the assistant speaks", sent


FAMILIES: Final[list[tuple[str, Capabilities]]] = [
    *(
        (model, openai_capabilities(model))
        for model in ("gpt-realtime-2.1", "gpt-realtime", "gpt-4o-realtime-preview")
    ),
    ("grok-voice-latest", xai_capabilities("grok-voice-latest")),
    *(
        (model, google_capabilities(model))
        for model in (
            "gemini-2.5-flash-native-audio-latest",
            "gemini-3.1-flash-live-preview",
            "gemini-3.8-live",
            "gemini-3.8-live-extended-thinking",
        )
    ),
]
"""One model of each family."""


def capability_rows() -> Iterator[list[str]]:
    """Return the rows of the capabilities."""
    for field in Capabilities.__struct_fields__:
        values = [getattr(able, field) for _, able in FAMILIES]
        cells = [
            ", ".join(map(str, value)) if isinstance(value, tuple) else _SHOWN.get(value, str(value))
            for value in values
        ]
        yield [f"`{field}`", *(cell or "no" for cell in cells)]


_SHOWN: Final[dict[Any, str]] = {True: "yes", False: "no", None: "not announced"}


def command_rows() -> Iterator[list[str]]:
    """Return the rows of the commands."""
    columns = [{**dict(commands(mode)), **dict(extension_commands(mode))} for mode in MODES]
    for name in columns[0]:
        yield [name, *(column.get(name, "not supported") for column in columns)]


def label(frame: Any) -> str:
    """Return the kind of a frame, as detailed as the table."""
    match frame:
        case Transcript(role=role, final=final):
            return f"`Transcript` {role}, {'final' if final else 'partial'}"
        case Interruption(at=at):
            return f"`Interruption` {at}"
    return f"`{type(frame).__name__}`"


ON_A_LINE: Final[list[dict[str, Any]]] = [
    {"type": "input_audio_buffer.dtmf_event_received", "event": "5"},
    *({"type": f"output_audio_buffer.{what}"} for what in ("started", "stopped", "cleared")),
]
"""What OpenAI and xAI report of a phone line."""


def conversations(name: str) -> Iterator[Talk]:
    """Play conversations that together contain every message of a provider."""
    auto = Mode(name, "auto")
    talk = Talk(
        auto, [[RunTool("search"), Say("Hello there, it is sunny.", 1.0)], Say("Yes.", 0.2), TWO_CALLS]
    )
    for _ in range(3):
        talk.ask()
        talk.run(5.0)
    for call_id in talk.dialect.open_calls:
        talk.dialect.send_tool_result(call_id, "{}")
    talk.run(5.0)
    talk.command("close", talk.dialect.close)
    yield talk
    for answer, interrupts in (
        (Say("word " * 20, 10.0), True),
        (Say("word " * 20, 10.0), False),
        (TWO_CALLS, False),
    ):
        talk = Talk(auto, [answer], speed=2.0)
        talk.ask()
        talk.run(1.0)
        if interrupts:
            talk.command("interrupt", talk.dialect.interrupt)
        else:
            talk.speak()
        talk.run(1.0)
        yield talk
    own: list[Any] = [GoAway()]
    if name != "google":
        own = [Send([{"type": "error", "error": {"code": "server_error", "message": "Sorry."}}, *ON_A_LINE])]
    for step in (*own, Fail(), Expire(), Die()):
        talk = Talk(auto, [step])
        talk.ask()
        talk.run(5.0)
        yield talk
    talk = Talk(auto)
    talk.run(3600.0)
    yield talk


FRAMES: Final = [
    "`Ready`",
    "`Audio`",
    "`Transcript` user, partial",
    "`Transcript` user, final",
    "`Transcript` assistant, partial",
    "`Transcript` assistant, final",
    "`ToolCall`",
    "`ServerToolCall`",
    "`Interruption` user",
    "`Interruption` assistant",
    "`Usage`",
    "`ResponseEnd`",
    "`ErrorFrame`",
    "`Digit`",
    "`Expiring`",
    "`Close`",
]

OVER: Final = "the loss of the connection"


def causes(name: str) -> dict[str, list[str]]:
    """Return the messages that produce each kind of frame."""
    found: dict[str, list[str]] = {frame: [] for frame in FRAMES}
    for talk in conversations(name):
        own = {id(one.frame): f"the command `{command}`" for command, one in talk.by_command}
        for emitted in talk.emitted:
            of_itself = OVER if isinstance(emitted.frame, Close) else "a timer"
            cause = (
                kind(emitted.cause) if emitted.cause is not None else own.get(id(emitted.frame), of_itself)
            )
            places = found[label(emitted.frame)]
            if cause not in places:
                places.append(cause)
    return found


def without_frame(name: str) -> list[str]:
    """Return the kinds of messages that never produced a frame."""
    giving = {cause for places in causes(name).values() for cause in places}
    heard = {kind(message) for talk in conversations(name) for message in talk.session.sent}
    if name != "google":
        heard |= {f"`{event}`" for event in IGNORED}
    return sorted(heard - giving)


def frame_rows() -> Iterator[list[str]]:
    """Return the rows of the frames."""
    columns = [causes(name) for name in PROVIDERS]
    for frame in FRAMES:
        yield [frame, *(", ".join(column[frame]) or "never" for column in columns)]


# The page


def table(head: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    """Return a table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def markdown() -> str:
    """Return the page."""
    titles = [provider.title for provider in PROVIDERS.values()]
    lines = [
        "<!-- Written by docs/provider_table.py, which watches the code; don't edit. -->",
        "",
        "# What each provider supports",
        "",
        "This page shows how the library maps parameters, commands and frames to the messages of a provider.",
        "It is generated: a script runs the library against the [test doubles](provider-doubles.md) of the",
        "providers and records what is sent.",
        "",
        "## Session parameters",
        "",
        "Each cell names the field that a parameter sets. A note in italics says what happens to a parameter",
        "that the provider does not support; the library logs it as a warning.",
        "",
        *table(["parameter", *titles], parameter_rows()),
    ]
    for name, provider in PROVIDERS.items():
        lines += [
            "",
            f"## Options of {provider.title}",
            "",
            f"These are the fields of `{provider.options.__name__}` and what they set.",
            "",
            *table(["option", "field of the provider"], option_rows(name)),
        ]
    lines += [
        "",
        "## Capabilities",
        "",
        "This is what a session with one model of each family can do. A program finds the same record in",
        "`session.capabilities`, and before a session in `capabilities(model)` of an account. `say` is word",
        "for word (`verbatim`), or the model is instructed to say it (`instructed`).",
        "",
        *table(["capability", *(f"`{model}`" for model, _ in FAMILIES)], capability_rows()),
        "",
        "## Commands",
        "",
        "Each cell names the messages that a command sends, when the provider detects the end of turns",
        "(auto) and when the client ends them (manual).",
        "",
        *table(["command", *(mode.title for mode in MODES)], command_rows()),
        "",
        "## Frames",
        "",
        "Each cell names the messages of the provider that produce a frame.",
        "",
        *table(["frame", *titles], frame_rows()),
        "",
        "## Messages without a frame",
        "",
        "These messages only change the library's state, or need no action. Any message that is not on this",
        "page is delivered as `Unknown`.",
        "",
    ]
    for name, provider in PROVIDERS.items():
        lines.append(f"- {provider.title}: {', '.join(without_frame(name))}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    PAGE.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
