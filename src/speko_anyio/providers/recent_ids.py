"""A memory of the last few names: repeats and latecomers are recognised, and memory stays bounded."""

from __future__ import annotations


class RecentIds:
    """A set that forgets its oldest name when it holds `limit`."""

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
        """Remember `name`; False when it was known."""
        if name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > self._limit:
            del self._names[next(iter(self._names))]
        return True
