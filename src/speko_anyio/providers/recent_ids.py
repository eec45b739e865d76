"""Bounded memory: the newest names, to recognise repeats and latecomers."""

from __future__ import annotations

from typing import Any


def drop_oldest(mapping: dict[Any, Any], limit: int) -> None:
    """Remove the oldest entry of `mapping` if there are more than `limit`: call it after each addition."""
    if len(mapping) > limit:
        del mapping[next(iter(mapping))]


class RecentIds:
    """A set that holds the newest `limit` names."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, None] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def discard(self, name: str) -> None:
        """Forget `name`."""
        self._names.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._names.clear()

    def add(self, name: str) -> bool:
        """Remember `name`; return False if it was known."""
        if name in self._names:
            return False
        self._names[name] = None
        drop_oldest(self._names, self._limit)
        return True
