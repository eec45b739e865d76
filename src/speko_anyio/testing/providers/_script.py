"""The scripts of doubles: how each answers, as plain values.

A *reply* is one step or a sequence of steps, and answers one turn; each response that a double begins takes
the next reply of its script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias


@dataclass(frozen=True)
class Say:
    """The assistant speaks: `text` is the transcript, and the audio is a tone of `seconds`."""

    text: str
    seconds: float = 1.0


@dataclass(frozen=True)
class CallTools:
    """The model calls functions, all in one response: each a name and its arguments."""

    calls: Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class RunTool:
    """A tool that the provider runs itself; on Gemini, which reports only results, it always succeeds."""

    name: str
    failed: bool = False


@dataclass(frozen=True)
class Wait:
    """The provider pauses."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """The response fails, and the session goes on.

    `code` is the provider's error code, None for a usual one. On Gemini it is the ``turnCompleteReason``, and
    `message` is not sent.
    """

    code: str | None = None
    message: str = "The server had an error while processing your request."


@dataclass(frozen=True)
class Incomplete:
    """The response stops early: ``max_output_tokens`` or ``content_filter``. Not on Gemini."""

    reason: str = "max_output_tokens"


@dataclass(frozen=True)
class RateLimit:
    """The provider's rate limit was hit: the response fails, or on Gemini the session ends."""


@dataclass(frozen=True)
class Silent:
    """No response begins, although one is due."""


@dataclass(frozen=True)
class Die:
    """The connection breaks without a close, `after_ms` milliseconds after this step is reached.

    The rest of the reply continues meanwhile.
    """

    after_ms: float = 0.0


@dataclass(frozen=True)
class Hangup:
    """The provider closes the WebSocket with this code and reason."""

    code: int = 1011
    reason: str = "Internal error encountered."


@dataclass(frozen=True)
class Expire:
    """The session reaches the provider's time limit: its message for that, then its close."""


@dataclass(frozen=True)
class GoAway:
    """Gemini only: announce that the connection ends in `seconds`."""

    seconds: float = 50.0


@dataclass(frozen=True)
class Send:
    """Send these messages unchanged, for anything that no other step can express."""

    messages: Sequence[Mapping[str, Any]]


ReplyStep: TypeAlias = (
    Say
    | CallTools
    | RunTool
    | Wait
    | Fail
    | Incomplete
    | RateLimit
    | Silent
    | Die
    | Hangup
    | Expire
    | GoAway
    | Send
)
COMMON: Final[frozenset[type]] = frozenset({Wait, Die, Hangup, Expire, Send})
"""The steps that are the same for all providers."""

Reply: TypeAlias = ReplyStep | Sequence[ReplyStep]


def steps(reply: Reply) -> tuple[ReplyStep, ...]:
    """Return the steps of `reply`."""
    return tuple(reply) if isinstance(reply, Sequence) else (reply,)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The speed of a double. All in seconds, except `speed`."""

    latency: float = 0.0
    """From the end of the turn to the first part of the answer."""
    speed: float = 20.0
    """Seconds of audio sent per second: providers generate faster than playback."""
    chunk: float = 0.1
    """Audio in one message; providers send 30 ms to 900 ms."""
    transcription: float = 0.05
    """From the end of the user's turn to its transcript, which a separate, slower model makes."""
