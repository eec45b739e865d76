"""One connection to a double of any provider: pure, with time as an argument.

The transport calls `start`, `receive`, `receive_close` and `advance` with the time, sends the messages from
`take`, and calls again at `next_deadline`.
"""

from __future__ import annotations

import abc
import heapq
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec

from ...protocol._outbox import CloseMessage
from ...providers._endpoint import Endpoint
from ._script import Die, Expire, Hangup, Pace, Reply, ReplyStep, Send, Wait, steps

Json: TypeAlias = dict[str, Any]

DEATH: Final = "death"
"""An output of `take`: drop the connection without a goodbye."""

Output: TypeAlias = str | bytes | CloseMessage | Literal["death"]


class Request(msgspec.Struct, frozen=True):
    """The opening request of a client."""

    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()

    @classmethod
    def to(cls, endpoint: Endpoint) -> Request:
        """Return the request of a client that connects to `endpoint`."""
        parts = urlsplit(endpoint.url)
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        return cls(target, endpoint.headers, endpoint.subprotocols)

    @property
    def path(self) -> str:
        """The path without the query."""
        return urlsplit(self.target).path

    def header(self, name: str) -> str | None:
        """Return the value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def query(self, name: str) -> str | None:
        """Return the value of a query parameter."""
        return next(iter(parse_qs(urlsplit(self.target).query).get(name, ())), None)


class Refusal(msgspec.Struct, frozen=True):
    """The answer to a request that is refused: an HTTP error instead of a WebSocket."""

    status: int
    message: str

    @property
    def body(self) -> str:
        """The body, in the providers' form."""
        return json.dumps({"error": {"message": self.message, "type": "invalid_request_error"}})


class Replies:
    """What all connections of a double share: remaining replies, the user's words, counters, handles."""

    def __init__(self, replies: Sequence[Reply], *, then: Reply, user_says: Sequence[str]) -> None:
        self._replies = iter([steps(reply) for reply in replies])
        self._then = steps(then)
        self._user_says = iter(user_says)
        self._counters: dict[str, Iterator[int]] = {}
        self.handles: set[str] = set()
        """Handles with which a connection may resume another (Gemini)."""

    def next_reply(self) -> tuple[ReplyStep, ...]:
        """Return the answer to the next turn."""
        return next(self._replies, self._then)

    def next_words(self) -> str:
        """Return the user's words in the next turn."""
        return next(self._user_says, "Hello there.")

    def number(self, kind: str) -> int:
        """Return 1, 2, 3..., counting each `kind` separately."""
        return next(self._counters.setdefault(kind, itertools.count(1)))


Play: TypeAlias = Iterator[float]
"""A reply in progress: each step does a part and yields the seconds until the next."""


class DoubleSession(abc.ABC):
    """One client's connection. Its history stays here for assertions:

    - `request`: the opening request.
    - `received` and `sent`: every message, decoded.
    - `audio`: the user's audio.
    - `closed`: the close code and reason, None while the connection lives; 1006 when it was cut.
    """

    binary: ClassVar[bool] = False
    """Whether JSON goes out in binary frames."""

    def __init__(self, request: Request, script: Replies, pace: Pace) -> None:
        self.request = request
        self.received: list[Json] = []
        self.sent: list[Json] = []
        self.audio: bytearray = bytearray()
        self.closed: tuple[int, str] | None = None
        self.on_output: Callable[[], None] = lambda: None
        """Called when there is output to take or another deadline, for a driver that waits."""
        self._script = script
        self._pace = pace
        self._now = 0.0
        self._outputs: list[Output] = []
        self._plays: list[tuple[float, int, Play]] = []
        self._order = itertools.count()

    # For the transport

    def start(self, now: float) -> None:
        """Begin, once the WebSocket is open."""
        self._now = now
        self._opened()

    def receive(self, message: str | bytes, now: float) -> None:
        """Take one WebSocket message of the client."""
        self.advance(now)
        if self.closed is not None:
            return
        if isinstance(message, bytes) and self._hear(message):
            self.on_output()
            return
        try:
            decoded = json.loads(message)
        except ValueError:
            decoded = None
        if isinstance(decoded, dict):
            self.received.append(decoded)
            self._receive(decoded)
        else:
            self._receive_nonsense()
        self.on_output()

    def receive_close(self, code: int, reason: str = "") -> None:
        """Receive the client's close, or 1006 if its connection broke. An ended session stays as it was."""
        if self.closed is None:
            self._end(code, reason)

    def advance(self, now: float) -> None:
        """Do what is due at `now`."""
        while self._plays and self._plays[0][0] <= now and self.closed is None:
            due, _, play = heapq.heappop(self._plays)
            self._now = due
            self._resume(play)
        self._now = max(self._now, now)

    def next_deadline(self) -> float | None:
        """Return when to call `advance`; None: not before a message comes."""
        return self._plays[0][0] if self._plays else None

    def take(self) -> list[Output]:
        """Return the output to send, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # For the test; each takes effect at once

    def send(self, *messages: Json) -> None:
        """Send this message unchanged."""
        for message in messages:
            self._send(message)
        self.on_output()

    def close(self, code: int = 1011, reason: str = "Internal error encountered.") -> None:
        """Close the WebSocket. Does nothing once the session is over."""
        if self.closed is None:
            self._outputs.append(CloseMessage(code, reason))
            self._end(code, reason)
            self.on_output()

    def die(self) -> None:
        """Drop the connection without a goodbye. Does nothing once the session is over."""
        if self.closed is None:
            self._outputs.append(DEATH)
            self._end(1006, "")
            self.on_output()

    @abc.abstractmethod
    def expire(self) -> None:
        """End a session that reached the provider's time limit."""

    # For the providers

    @abc.abstractmethod
    def _opened(self) -> None:
        """Send the first messages, once the WebSocket is open."""

    @abc.abstractmethod
    def _receive(self, message: Json) -> None:
        """Act on a message."""

    def _hear(self, message: bytes) -> bool:
        """Take a binary message as audio; return whether it is."""
        return False

    @abc.abstractmethod
    def _receive_nonsense(self) -> None:
        """Answer a message that is not a JSON object."""

    def _send(self, message: Json) -> None:
        if self.closed is not None:
            return
        text = json.dumps(message, separators=(",", ":"))
        self.sent.append(message)
        self._outputs.append(text.encode() if self.binary else text)

    def _end(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._plays.clear()

    def _begin(self, play: Play) -> Play:
        """Do the first part of `play` now, and the others when they are due."""
        self._resume(play)
        return play

    def _resume(self, play: Play) -> None:
        delay = next(play, None)
        if delay is not None and self.closed is None:
            heapq.heappush(self._plays, (self._now + delay, next(self._order), play))

    def _stop(self, play: Play | None) -> None:
        """Drop the rest of `play`."""
        self._plays = [entry for entry in self._plays if entry[2] is not play]
        heapq.heapify(self._plays)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def play() -> Play:
            yield seconds
            act()

        self._begin(play())

    def _play_common(self, step: ReplyStep) -> Play:
        """Play a step that is the same for all providers."""
        match step:
            case Wait(seconds=seconds):
                yield seconds
            case Die(after_ms=after_ms):
                if after_ms:
                    self._later(after_ms / 1000, self.die)
                else:
                    self.die()
            case Hangup(code=code, reason=reason):
                self.close(code, reason)
            case Expire():
                self.expire()
            case _:
                assert isinstance(step, Send)
                self.send(*(dict(message) for message in step.messages))


def pieces(text: str, count: int) -> list[str]:
    """Split `text` into about `count` parts of whole words, each with its leading space; at least one."""
    words = text.split(" ")
    size = max(1, -(-len(words) // max(1, count)))
    groups = [" ".join(words[start : start + size]) for start in range(0, len(words), size)]
    return [groups[0], *(f" {group}" for group in groups[1:])]
