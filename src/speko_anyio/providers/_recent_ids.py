"""A bounded set of recent ids, to recognise repeated and late events."""

from __future__ import annotations

from typing import Any


def drop_oldest(mapping: dict[Any, Any], limit: int) -> None:
    """Remove the oldest entry of `mapping` if it has more than `limit`. Call this after each addition."""
    if len(mapping) > limit:
        del mapping[next(iter(mapping))]


class RecentIds:
    """A set of the newest `limit` ids."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, None] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def discard(self, name: str) -> None:
        """Remove `name`, if present."""
        self._names.pop(name, None)

    def clear(self) -> None:
        """Remove all ids."""
        self._names.clear()

    def add(self, name: str) -> bool:
        """Add `name`; return False if it was there already."""
        if name in self._names:
            return False
        self._names[name] = None
        drop_oldest(self._names, self._limit)
        return True
