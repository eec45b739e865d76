"""Which tool calls wait for a result: the coupling between a `ToolCall` and its `ToolResult`.

A call is *open* from the moment it is issued until it is answered. An interruption *abandons* the open
calls: the model may no longer wait for them. An abandoned call can still be answered (the model keeps what
it learns), and it no longer counts against the limit; when there are too many, the oldest are forgotten.
"""

from __future__ import annotations

from .errors import LocalProtocolError


class Calls:
    """The calls of one session, by id. Both roles keep the same record."""

    __slots__ = ("_abandoned", "_limit", "_open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # dicts for their order: the oldest abandoned call is forgotten first.
        self._open: dict[str, None] = {}
        self._abandoned: dict[str, None] = {}

    def __contains__(self, call_id: object) -> bool:
        """Whether a result for `call_id` would be accepted."""
        return call_id in self._open or call_id in self._abandoned

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of the calls that wait for a result, oldest first."""
        return tuple(self._open)

    def is_open(self, call_id: str) -> bool:
        """Whether the call waits for a result."""
        return call_id in self._open

    @property
    def full(self) -> bool:
        """Whether no further call may be issued before one is answered."""
        return len(self._open) >= self._limit

    def issue(self, call_id: str) -> None:
        """Open a call. The caller has checked that the id is new and that there is room."""
        self._abandoned.pop(call_id, None)
        self._open[call_id] = None

    def answer(self, call_id: str) -> None:
        """Take note of a result; the id may be used again."""
        if call_id in self._open:
            del self._open[call_id]
        else:
            del self._abandoned[call_id]

    def abandon_open(self) -> None:
        """Abandon the open calls after an interruption."""
        self._abandoned.update(self._open)
        self._open.clear()
        while len(self._abandoned) > self._limit:
            del self._abandoned[next(iter(self._abandoned))]


def no_open_call(call_id: str) -> LocalProtocolError:
    """Return the error for a result that no call waits for."""
    return LocalProtocolError(
        f"no tool call {call_id!r} is open; answer each received call once, by its own id"
    )
