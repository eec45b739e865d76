"""The tool calls of a bridged session: one book for the client, over all connections to the provider."""

from __future__ import annotations

from typing import Final

from ..recent_ids import RecentIds

_REMEMBERED: Final = 1024
"""Ids that are not given to another call."""


class CallNames:
    """Which call of the provider's each of the client's is; None stands for one that nobody waits for."""

    __slots__ = ("_limit", "_names", "_used", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, str | None] = {}
        self._used = RecentIds(_REMEMBERED)
        self._waiting: set[str] = set()

    def __len__(self) -> int:
        """How many calls the client was given and has not answered, nor may forget."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the client has as many calls open as it may."""
        return len(self._waiting) >= self._limit

    def issue(self, provider_id: str) -> str:
        """A new call: its id for the client. It is the provider's own, unless that was used before: another
        connection counts anew."""
        call_id = provider_id
        number = 1
        while call_id in self._names or call_id in self._used:
            number += 1
            call_id = f"{provider_id}-{number}"
        self._used.add(call_id)
        self._names[call_id] = provider_id
        self._waiting.add(call_id)
        while len(self._names) > 2 * self._limit:
            del self._names[next(name for name in self._names if name not in self._waiting)]
        return call_id

    def answer(self, call_id: str) -> str | None:
        """The client has a result: the provider's id of the call, None if nobody waits for it."""
        self._waiting.discard(call_id)
        return self._names.pop(call_id, None)

    def make_moot(self) -> None:
        """An interruption: results are still taken, but the client need not give them."""
        self._waiting.clear()

    def disconnect(self) -> None:
        """The connection that made the calls is gone: no result can reach it."""
        self._names = dict.fromkeys(self._names)
