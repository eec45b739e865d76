"""The client's tool calls in a bridged session, over all connections to the provider."""

from __future__ import annotations

from typing import Final

from .._recent_ids import RecentIds, drop_oldest

_REMEMBERED: Final = 1024
"""The most recent ids, which no other call may get."""


class CallNames:
    """Maps the client's call ids to the provider's; None stands for a call whose connection is gone."""

    __slots__ = ("_limit", "_names", "_numbers", "_used", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, str | None] = {}
        self._used = RecentIds(_REMEMBERED)
        self._numbers: dict[str, int] = {}
        """The number that the latest call with each of the provider's ids got."""
        self._waiting: set[str] = set()

    def __len__(self) -> int:
        """Count the calls that wait for the client's result."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the client has as many calls open as it may."""
        return len(self._waiting) >= self._limit

    def issue(self, provider_id: str) -> str:
        """Open a call and return its id for the client.

        It is the provider's own, unless that was used before, since each connection numbers its calls anew.
        """
        call_id = provider_id
        while call_id in self._names or call_id in self._used:
            self._numbers[provider_id] = number = self._numbers.pop(provider_id, 1) + 1
            drop_oldest(self._numbers, _REMEMBERED)
            call_id = f"{provider_id}-{number}"
        self._used.add(call_id)
        self._names[call_id] = provider_id
        self._waiting.add(call_id)
        while len(self._names) > 2 * self._limit:
            del self._names[next(name for name in self._names if name not in self._waiting)]
        return call_id

    def answer(self, call_id: str) -> str | None:
        """Close the call that the client answers; return the provider's id, or None if no call waits."""
        self._waiting.discard(call_id)
        return self._names.pop(call_id, None)

    def abandon_open(self) -> None:
        """Stop waiting for the open calls after an interruption; their results are still taken."""
        self._waiting.clear()

    def disconnect(self) -> None:
        """Forget where results go: the connection that made the calls is gone."""
        self._names = dict.fromkeys(self._names)
