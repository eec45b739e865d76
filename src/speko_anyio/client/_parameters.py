"""The parameters of a session: their types, their checks, and the configuration built from them."""

from __future__ import annotations

import difflib
import math
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast, get_args

import msgspec
from anyio.abc import ByteStream

from .._net.proxies import ProxyOption
from .._observe.observer import ObserverOption
from ..errors import ConfigurationError
from ..protocol._limits import DEFAULT_LIMITS, Limits
from ..protocol._pcm import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, is_sample_rate
from ..protocol.capabilities import Capabilities
from ..protocol.errors import LocalProtocolError
from ..protocol.mint import MintRequest, SampleRate, SessionConfig
from ._history import HistoryItem, check_history
from .tools import AnyTool, Toolbox, ToolErrors

OutputKind: TypeAlias = Literal["audio", "text"]
"""How the assistant answers."""


class SessionParameters(TypedDict, total=False):
    """The parameters of a session besides provider and model. None means the provider's default."""

    voice: str | None
    """The provider's name for the voice."""
    system_prompt: str | None
    """The model's instructions."""
    temperature: float | None
    """A finite number; the provider sets the range."""
    input_sample_rate: SampleRate | None
    """16000 or 24000 samples a second of the PCM16 mono that `send_audio` takes."""
    output_sample_rate: SampleRate | None
    """16000 or 24000 samples a second of the PCM16 mono in `Audio` frames."""
    tools: Iterable[AnyTool]
    """The tools that the model may call: functions, which the session answers, or declarations."""
    output: OutputKind
    """``audio``, the default: the assistant speaks. With ``text`` it writes, and its answers are `Transcript`
    frames alone."""


class MintParameters(SessionParameters, total=False):
    """The parameters of `SessionParameters`, and those of the Speko API alone."""

    metadata: Mapping[str, Any] | None
    """Free form, stored with the session."""
    ttl_seconds: int | None
    """How long the session may last; the server caps it at 1800."""
    agent_id: str | None
    """The id of the agent that the session belongs to."""
    webhook_tags: Mapping[str, str] | None
    """Sent with the webhooks of the session."""


class SessionOptions(TypedDict, total=False):
    """The options of an open session; every time is in seconds."""

    stream: ByteStream | None
    """A byte stream to the server to use instead of connecting; the session owns it and closes it."""
    ssl_context: ssl.SSLContext | None
    """For ``wss`` and ``https://`` proxies; the default trusts the certificates that the system trusts."""
    proxy: ProxyOption
    """The proxy to connect through: ``http://``, ``https://`` or ``socks5://`` with ``user:password@`` where
    it asks for that, or None to connect directly. By default, True, the environment names it: ``HTTPS_PROXY``
    for ``wss``, ``HTTP_PROXY`` for ``ws``, else ``ALL_PROXY``, except for hosts in ``NO_PROXY``."""
    connect_timeout: float
    """For looking up the host, connecting and TLS, all of it also through a proxy; default 10."""
    handshake_timeout: float
    """For the server's answer to the WebSocket request; default 10."""
    close_timeout: float
    """For the peer's answer to the goodbye, and for handlers to take the remaining frames; default 5."""
    ping_interval: float | None
    """Silence after which a ping is sent; None disables the keepalive; default 20."""
    ping_timeout: float
    """For any sign of life after a ping; then the session is lost; default 20."""
    warn_before: float
    """How long before the end by `ttl_seconds` the `Expiring` frame comes; default 60."""
    max_buffer: int
    """Bytes of undelivered frames at which the socket is no longer read; default 3 MiB, which is about a
    minute of 24 kHz audio. A consumer slower than that holds up the server, and its interruptions wait in
    the socket."""
    limits: Limits
    """Bounds on what the peer may send."""
    tool_errors: ToolErrors
    """What to do with the exception of a tool's function, besides telling the model: ``log`` it (default), or
    ``raise`` it, which ends the session and raises it from the ``async with``."""
    history: Sequence[HistoryItem]
    """An earlier conversation to continue, such as the `history` of another session; the service gets it as
    text, before anything else is sent."""
    greeting: str | None
    """What the assistant says first, before the user speaks; see `RealtimeSession.say`."""
    observer: ObserverOption
    """Makes a `SessionObserver`, which sees everything in the session, such as
    `speko_anyio.otel.OpenTelemetry`; or a list of several."""


class ConnectParameters(MintParameters, SessionOptions, total=False):
    """`MintParameters` and `SessionOptions`."""


class AccountParameters(SessionParameters, SessionOptions, total=False):
    """`SessionParameters` and `SessionOptions`."""


_NUMBERS: Final = (
    "connect_timeout",
    "handshake_timeout",
    "close_timeout",
    "ping_interval",
    "ping_timeout",
    "warn_before",
    "max_buffer",
)

_MINTED: Final = ("provider", "model", *MintParameters.__annotations__)
"""Parameters of `Realtime.connect` that are fixed when a session is minted."""

_HABITS: Final = {
    "instructions": "system_prompt",
    "system": "system_prompt",
    "system_instruction": "system_prompt",
    "prompt": "system_prompt",
    "speaker": "voice",
    "voice_id": "voice",
    "functions": "tools",
    "sample_rate": "input_sample_rate",
    "rate": "input_sample_rate",
    "input_rate": "input_sample_rate",
    "output_rate": "output_sample_rate",
    "timeout": "connect_timeout",
    "open_timeout": "connect_timeout",
    "ttl": "ttl_seconds",
    "max_duration": "ttl_seconds",
    "max_queue": "max_buffer",
    "buffer_size": "max_buffer",
    "ssl": "ssl_context",
    "verify": "ssl_context",
    "proxies": "proxy",
    "observers": "observer",
    "tags": "webhook_tags",
    "messages": "history",
    "initial_messages": "history",
    "chat_ctx": "history",
    "first_message": "greeting",
    "welcome_message": "greeting",
    "modalities": "output",
    "output_modalities": "output",
    "response_modalities": "output",
}
"""Other libraries' names for our parameters."""


def session_config(provider: str, model: str, parameters: SessionParameters) -> SessionConfig:
    """Build the configuration of a session.

    `ConfigurationError` when the temperature is not finite, which JSON can't carry.
    """
    for name, text in (("provider", provider), ("model", model)):
        check_text(name, text, required=True)
    voice, system_prompt = parameters.get("voice"), parameters.get("system_prompt")
    for name, optional in (("voice", voice), ("system_prompt", system_prompt)):
        check_text(name, optional)
    temperature = parameters.get("temperature")
    if not (isinstance(temperature, float) and math.isnan(temperature)):
        check_number("temperature", temperature)
    if temperature is not None and not math.isfinite(temperature):
        raise ConfigurationError(f"the temperature is {temperature}; pass a finite number, or None")
    for name in ("input_sample_rate", "output_sample_rate"):
        check_rate(name, parameters.get(name))
    output = parameters.get("output", "audio")
    if output not in get_args(OutputKind):
        raise TypeError(f"output must be one of {', '.join(get_args(OutputKind))}, not {output!r}")
    return SessionConfig(
        provider=provider,
        model=model,
        voice=voice,
        system_prompt=system_prompt,
        temperature=temperature,
        input_sample_rate=parameters.get("input_sample_rate"),
        output_sample_rate=parameters.get("output_sample_rate"),
        tools=Toolbox(tool_list(parameters.get("tools", ()))).specs,
        output=None if output == "audio" else output,
    )


def mint_request(provider: str, model: str, parameters: MintParameters) -> MintRequest:
    """Build the request for a session. Raises as `session_config`."""
    metadata, webhook_tags = parameters.get("metadata"), parameters.get("webhook_tags")
    ttl_seconds, agent_id = parameters.get("ttl_seconds"), parameters.get("agent_id")
    check_json("metadata", metadata)
    check_json("webhook_tags", webhook_tags)
    check_number("ttl_seconds", ttl_seconds)
    check_text("agent_id", agent_id)
    return MintRequest(
        mode="s2s",
        s2s=session_config(provider, model, parameters),
        metadata=None if metadata is None else dict(metadata),
        ttl_seconds=ttl_seconds,
        agent_id=agent_id,
        webhook_tags=None if webhook_tags is None else dict(webhook_tags),
    )


def options_beside(
    kind: type[SessionParameters], given: ConnectParameters | AccountParameters
) -> SessionOptions:
    """Return the items of `given` that are not parameters of `kind`: session options, and unknown names."""
    return cast(
        "SessionOptions", {name: value for name, value in given.items() if name not in kind.__annotations__}
    )


def check_minted(parameters: MintParameters) -> None:
    """Raise TypeError for a name that is not a parameter of minting."""
    for name in parameters:
        if name in SessionOptions.__annotations__:
            raise TypeError(f"{name} is an option of the open session: pass it to connect or open")
        if name not in MintParameters.__annotations__:
            raise TypeError(f"unknown session parameter {name!r}; {_hint(name, _MINTED)}")


def check_options(options: SessionOptions) -> None:
    """Raise TypeError or ValueError, with the option's name, for one that is unknown or can't be used."""
    for name in options:
        if name in _MINTED:
            raise TypeError(
                f"unknown session option {name!r}; {name} is settled at the mint: pass it to "
                "speko.realtime.connect or create_session"
            )
        if name not in SessionOptions.__annotations__:
            known = (*_MINTED, *SessionOptions.__annotations__)
            raise TypeError(f"unknown session option {name!r}; {_hint(name, known)}")
    check_history(options.get("history", ()))
    greeting = options.get("greeting")
    check_text("greeting", greeting)
    if greeting is not None and not greeting.strip():
        raise ValueError("the greeting is blank; pass what the assistant is to say first, or None")
    for name in _NUMBERS:
        check_number(name, options.get(name))
    proxy = options.get("proxy")
    if not (proxy is None or proxy is True or isinstance(proxy, str)):
        raise TypeError(
            f"proxy must be the URL of a proxy, True for the environment's or None for none, not {proxy!r}"
        )
    context = options.get("ssl_context")
    if not (context is None or isinstance(context, ssl.SSLContext)):
        raise TypeError(f"ssl_context must be an ssl.SSLContext, not {type(context).__name__}")
    if not isinstance(options.get("limits", DEFAULT_LIMITS), Limits):
        raise TypeError(
            "limits must be a speko_anyio.protocol.Limits, such as Limits(max_message_size=65536)"
        )


def _hint(name: str, known: tuple[str, ...]) -> str:
    from ..providers.google import GoogleOptions  # the providers are loaded when they are needed
    from ..providers.openai import OpenAIOptions
    from ..providers.xai import XAIOptions

    lower = name.lower()
    if _HABITS.get(lower) in known:
        return f"did you mean {_HABITS[lower]}?"
    for kind in (OpenAIOptions, XAIOptions, GoogleOptions):
        if lower in kind.__struct_fields__:
            account = kind.__name__.removesuffix("Options")
            return (
                f"it is an option of a provider: pass {account}(options={kind.__name__}({lower}=...)), or to "
                f'a gateway metadata={{"provider_options": {{"{account.lower()}": {{"{lower}": ...}}}}}}'
            )
    close = difflib.get_close_matches(lower, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the options are {', '.join(known)}"


def check_beginning(capabilities: Capabilities, history: Sequence[HistoryItem], greeting: str | None) -> None:
    """Raise `LocalProtocolError` if a session with these capabilities takes no such beginning."""
    for name, wanted, possible in (
        ("history", bool(history), capabilities.history),
        ("greeting", greeting is not None, capabilities.say != "no"),
    ):
        if wanted and not possible:
            raise LocalProtocolError(
                f"this service takes no {name}; leave it out, or use a model that takes one, through a "
                "gateway of this library or straight with your own account"
            )


def check_text(name: str, value: object, *, required: bool = False) -> None:
    """Raise TypeError unless `value` is a string, or None if it is not `required`.

    ValueError for a string that UTF-8 can't encode.
    """
    if value is None and not required:
        return
    if not isinstance(value, str):
        hint = "; decode it first" if isinstance(value, bytes | bytearray) else ""
        # Don't show the value: it may be a key.
        raise TypeError(f"{name} must be a string, not {type(value).__name__}{hint}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair, which is not text; remove it") from None


def check_number(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a number or None, ValueError for NaN."""
    if value is None:
        return
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{name} is not a number (NaN); pass a number")


def check_rate(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a whole number or None, ValueError if no session has such a rate."""
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if not is_sample_rate(value):
        raise ValueError(f"{name} must be from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} samples a second")


def check_json(name: str, value: object) -> None:
    """Raise TypeError unless `value` is None or a dict that JSON can carry."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    try:
        msgspec.json.encode(dict(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(
            f"{name} can't be written as JSON ({error}); use strings, numbers, lists and dicts"
        ) from None


def tool_list(tools: Iterable[AnyTool]) -> tuple[AnyTool, ...]:
    """Return `tools` as a tuple; TypeError for a single tool or an object that is not iterable."""
    if callable(tools) or isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        name = getattr(tools, "__name__", None) or type(tools).__name__
        hint = f"a list, such as tools=[{name}]" if callable(tools) else f"a list of functions, not {name}"
        raise TypeError(f"tools must be {hint}")
    return tuple(tools)
