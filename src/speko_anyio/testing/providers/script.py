"""What a double does when it is its turn: a script of plain values.

A *reply* is one step or a sequence of steps, and answers one turn; each response that a double begins takes
the next reply of its script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias


@dataclass(frozen=True)
class Say:
    """The assistant speaks: `text` as its transcript, and a tone of that many `seconds` as its audio."""

    text: str
    seconds: float = 1.0


@dataclass(frozen=True)
class CallTools:
    """The model calls functions, all in one response: each a name and its arguments."""

    calls: Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class RunTool:
    """A tool that the provider itself runs; on Gemini, which tells only of results, one that succeeded."""

    name: str
    failed: bool = False


@dataclass(frozen=True)
class Wait:
    """Nothing comes for a while."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """The response fails, and the session goes on.

    `code` is the provider's; None is a usual one. On Gemini it is the ``turnCompleteReason``, and there are
    no messages.
    """

    code: str | None = None
    message: str = "The server had an error while processing your request."


@dataclass(frozen=True)
class Incomplete:
    """The response ends before its end: ``max_output_tokens`` or ``content_filter``. Not on Gemini."""

    reason: str = "max_output_tokens"


@dataclass(frozen=True)
class RateLimit:
    """Too much was asked of the provider: a failed response, or on Gemini the end of the session."""


@dataclass(frozen=True)
class Silent:
    """No response begins, though one was due."""


@dataclass(frozen=True)
class Die:
    """The connection breaks without a close, `after_ms` milliseconds after this step is reached.

    The rest of the reply goes on meanwhile.
    """

    after_ms: float = 0.0


@dataclass(frozen=True)
class Hangup:
    """The provider closes the WebSocket with this code and reason."""

    code: int = 1011
    reason: str = "Internal error encountered."


@dataclass(frozen=True)
class Expire:
    """The session has lasted as long as the provider lets it: its own words for that, then its close."""


@dataclass(frozen=True)
class GoAway:
    """Gemini only: the connection ends in `seconds`, and says so now."""

    seconds: float = 50.0


@dataclass(frozen=True)
class Send:
    """These messages, as they are: for what no other step can say."""

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
"""The steps that are the same whoever is played."""

Reply: TypeAlias = ReplyStep | Sequence[ReplyStep]


def steps(reply: Reply) -> tuple[ReplyStep, ...]:
    """Return the steps of `reply`."""
    return tuple(reply) if isinstance(reply, Sequence) else (reply,)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a double is. Seconds, but for `speed`."""

    latency: float = 0.0
    """From the end of the turn to the first of the answer."""
    speed: float = 20.0
    """Seconds of audio that come in a second: providers generate faster than anybody listens."""
    chunk: float = 0.1
    """Of audio in one message; providers send 30 ms to 900 ms."""
    transcription: float = 0.05
    """From the end of the user's turn until it is written down: a slower model of its own does that."""
