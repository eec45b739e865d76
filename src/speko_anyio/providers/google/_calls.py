"""The tool calls of a Gemini session, and the tools that Google runs itself.

The answer to a call must name the tool, and may come when it is no longer wanted.
"""

from __future__ import annotations

from typing import NamedTuple

from ...protocol._calls import Calls
from ...protocol.frames import ServerToolCall
from .._recent_ids import RecentIds


class Answer(NamedTuple):
    """What the answer to a call must contain."""

    name: str
    wire_id: str | None
    """The provider's id of the call; None if it gave none (Vertex AI); then the answer has no id either."""


class NamedCalls:
    """The calls of one session by the id that the caller knows."""

    __slots__ = ("_by_wire_id", "_calls", "_cancelled", "_made_up", "_names", "_recent")

    def __init__(self, limit: int) -> None:
        self._calls = Calls(limit)
        self._names: dict[str, Answer] = {}
        self._by_wire_id: dict[str | None, list[str]] = {}
        """The keys of `_names`, oldest first, by the provider's id."""
        self._cancelled = RecentIds(limit)
        self._recent = RecentIds(2 * limit)
        self._made_up = 0

    def __contains__(self, call_id: object) -> bool:
        """Whether a result for `call_id` would be accepted, even if the call was abandoned."""
        return call_id in self._names

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of the calls that wait for a result, oldest first."""
        return self._calls.open

    @property
    def full(self) -> bool:
        """Whether no further call may be issued before one is answered."""
        return self._calls.full

    def is_open(self, wire_id: str) -> bool:
        """Whether a call with this id waits for its result, so that another one is a repeat.

        After the answer, or once the call was given up, the provider may reuse the id for another call.
        """
        return self._open_by(wire_id) is not None

    def issue(self, wire_id: str, name: str) -> str:
        """Record a new call, for which there is room, and return the caller's id.

        The id is made up if the provider gave none, or one whose earlier call may still get a result.
        """
        call_id = wire_id
        while not call_id or call_id in self._names or (wire_id != call_id and call_id in self._recent):
            self._made_up += 1
            call_id = f"call-{self._made_up}"
        self._recent.add(call_id)
        self._calls.issue(call_id)
        self._names[call_id] = Answer(name, wire_id or None)
        self._by_wire_id.setdefault(wire_id or None, []).append(call_id)
        return call_id

    def cancel(self, wire_id: str) -> str | None:
        """Give up a call by the provider's id, and return the caller's id; None if no such call is open."""
        call_id = self._open_by(wire_id)
        if call_id is None:
            # An interruption may have abandoned it already.
            names = self._by_wire_id.get(wire_id, ())
            call_id = next((name for name in reversed(names) if name in self._calls), None)
        if call_id is not None:
            self._calls.answer(call_id)
            self._cancelled.add(call_id)
            self._forget_settled()
        return call_id

    def _open_by(self, wire_id: str) -> str | None:
        return next(filter(self._calls.is_open, self._by_wire_id.get(wire_id, ())), None)

    def answer_to(self, call_id: str) -> Answer | None:
        """Return what the answer to an existing call must contain; None if the call was cancelled."""
        return self._names[call_id] if call_id in self._calls else None

    def forget(self, call_id: str) -> None:
        """Forget a call that was answered, or not delivered."""
        if call_id in self._calls:
            self._calls.answer(call_id)
        if call_id in self._names:
            del self._names[call_id]
            self._index()

    def abandon_open(self) -> None:
        """Record an interruption: results are still accepted, but the open calls are abandoned."""
        self._calls.abandon_open()
        self._forget_settled()

    def _forget_settled(self) -> None:
        """Keep names only of calls whose result may still come."""
        self._names = {
            call_id: answer
            for call_id, answer in self._names.items()
            if call_id in self._calls or call_id in self._cancelled
        }
        self._index()

    def _index(self) -> None:
        self._by_wire_id = {}
        for call_id, answer in self._names.items():
            self._by_wire_id.setdefault(answer.wire_id, []).append(call_id)


class ServerTools:
    """The tools that Google has run for the answer, each reported once."""

    __slots__ = ("_count", "_ended", "_names")

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._ended = False
        self._count = 0

    def completed(self, name: str, *, new_answer: bool) -> ServerToolCall | None:
        """Report that `name` has run, unless that was reported.

        `new_answer`: another answer has begun, or was prompted. Until then, results that come after the end
        of an answer belong to it.
        """
        if self._ended and new_answer:
            self._ended = False
            self._names.clear()
        if name in self._names:
            return None
        self._names.add(name)
        self._count += 1
        return ServerToolCall(f"{name}-{self._count}", name, "completed")

    def end_answer(self) -> None:
        """Record that the answer is over."""
        self._ended = True
