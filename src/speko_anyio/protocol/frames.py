"""What the server says to the client: one frozen Struct per frame.

Every frame of the Speko protocol is here, plus four that are not JSON on the wire: `Audio`, a binary
message; `Digit`, which only some providers report; `Expiring`, which the core makes when the session's end
draws near; and `Close`, which it makes exactly once, last. All of them are immutable, compare by value and
work in ``match``::

    match frame:
        case Audio(pcm=pcm):
            play(pcm)
        case Transcript(role="user", text=text, final=True):
            print(text)

The defaults are those that the published SDKs apply when a message lacks a field (speko-protocol,
"Server to client"). Names are snake_case here and camelCase on the wire.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from .capabilities import Capabilities
from .errors import Initiator as Initiator

Role: TypeAlias = Literal["user", "assistant"]
"""Who spoke."""

ToolStatus: TypeAlias = Literal["started", "completed", "failed"]
"""The progress of a tool that runs on the server."""

ResponseStatus: TypeAlias = Literal["done", "interrupted", "incomplete", "failed"]
"""How an answer ended: complete; cut off by the user; cut short by a limit or a filter; failed."""


SESSION_EXPIRED: Final = "session_expired"
"""Reason with which a server closes a session after ``ttl_seconds``; the code is 1000."""

PROVIDER_SESSION_EXPIRED: Final = "provider_session_expired"
"""Reason with which a session closes at its provider's time limit; the code is 1001."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""A number of things: a whole number that every JSON parser reads exactly. Python writes sums of numbers with
thousands of digits neither as text nor as JSON."""

Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
"""A duration, never below zero."""


class Ready(
    msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="ready", omit_defaults=True
):
    """The session accepts audio now; always the server's first frame."""

    input_sample_rate: int = 0
    """Samples a second of the PCM16 that the client sends; a received `Ready` always has a value."""
    output_sample_rate: int = 0
    """Samples a second of the PCM16 that the server sends; a received `Ready` always has a value."""
    extensions: tuple[str, ...] = ()
    """The extensions that the server offers, including any that this version does not know."""
    capabilities: Capabilities | None = None
    """What the session can do, if the server says so; `ClientProtocol.capabilities` is complete."""


class Audio(msgspec.Struct, frozen=True, gc=False):
    """A piece of the assistant's speech."""

    pcm: bytes
    """PCM16, little-endian, mono: whole samples, so always an even number of bytes."""
    sample_rate: int
    """Samples a second."""

    def __repr__(self) -> str:
        return f"Audio(pcm=<{len(self.pcm)} bytes>, sample_rate={self.sample_rate})"


class Transcript(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="transcript"):
    """A transcript of speech; a partial one is replaced by the next of the same role."""

    role: Role = "assistant"
    text: str = ""
    final: bool = False
    """Whether this is the last version of the text."""


class ToolCall(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="tool_call"):
    """The model asks the client to run a function; answer it once, by `call_id`."""

    call_id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON text, as the model wrote it: not checked against the tool's schema."""


class ServerToolCall(
    msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="server_tool_call"
):
    """News of a tool that runs on the server; it needs no answer."""

    id: str = ""
    name: str = ""
    status: ToolStatus = "started"


class Interruption(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="interruption"):
    """The assistant was cut off: drop audio that was received and not yet played."""

    at: Role = "user"
    """Who cut in."""


class Usage(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="usage"):
    """Tokens spent since the last `Usage`; a count that the provider does not report is 0.

    Without the extension ``usage`` there are only the two counts of audio.
    """

    input_audio_tokens: Count = 0
    output_audio_tokens: Count = 0
    input_text_tokens: Count = 0
    output_text_tokens: Count = 0
    input_image_tokens: Count = 0
    cached_audio_tokens: Count = 0
    """The part of `input_audio_tokens` that came from the provider's cache."""
    cached_text_tokens: Count = 0
    """The part of `input_text_tokens` that came from the provider's cache."""
    output_reasoning_tokens: Count = 0
    seconds: Seconds = 0.0
    """What providers that charge by time report, in seconds."""

    def __add__(self, other: Usage) -> Usage:
        """Return what was spent in both."""
        counts = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Usage(*(one + another for one, another in counts))


class ResponseEnd(
    msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="response", omit_defaults=True
):
    """The end of an answer, exactly one for each answer, whatever the provider reports: count turns by it.

    It follows all of the answer's audio. Don't rely on `Usage` for this: some providers leave it out.

    A service that offers the extension ``usage`` sends it. For any other service, the client's core derives
    it: ``done`` from each `Usage`, and ``interrupted`` from an `Interruption` of an answer whose audio has
    begun. A later `Usage` for that answer yields no second one.
    """

    status: ResponseStatus
    reason: str = ""
    """Why the answer is not complete, in the provider's words; empty if no reason was given."""


class ErrorFrame(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="error"):
    """The server reports a failure; the session goes on unless a `Close` follows."""

    code: str = "UNKNOWN"
    message: str = ""


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """A well-formed message that this version does not know, or that answers nothing we asked.

    A newer peer is not an error (speko-protocol, "Rules"); nor is it hidden.
    """

    t: str
    """The message's discriminator."""
    raw: str
    """The whole message: JSON text."""


DIGITS: Final = frozenset("0123456789*#ABCD")
"""The keys of a telephone, each one character."""


class Digit(msgspec.Struct, frozen=True, gc=False):
    """The user pressed a key of their telephone (DTMF). Never on the Speko wire."""

    digit: str
    """One of `DIGITS`: ``0`` to ``9``, ``*``, ``#``, or ``A`` to ``D``."""

    def __repr__(self) -> str:
        return "Digit(...)"  # it may be part of a card's number


class Expiring(msgspec.Struct, frozen=True, gc=False):
    """The session reaches its time limit soon. Made by the core's timer; never on the wire."""

    seconds: float
    """Seconds until the session ends."""


class Close(msgspec.Struct, frozen=True, gc=False):
    """The session is over. Exactly one, always last."""

    code: int
    """WebSocket close code (RFC 6455 section 7.4); 1005 when the peer gave none, 1006 when the
    transport died without a closing handshake."""
    reason: str
    initiated_by: Initiator

    @property
    def expired(self) -> bool:
        """Whether the session reached a time limit, its own or its provider's."""
        return self.reason in (SESSION_EXPIRED, PROVIDER_SESSION_EXPIRED)


Frame: TypeAlias = (
    Ready
    | Audio
    | Transcript
    | ToolCall
    | ServerToolCall
    | Interruption
    | Usage
    | ResponseEnd
    | ErrorFrame
    | Unknown
    | Digit
    | Expiring
    | Close
)
"""Anything a client receives."""
