"""The attempts to connect to the provider: which one is wanted, and how many are left."""

from __future__ import annotations

from typing import Final, NamedTuple

from ...protocol.frames import ErrorFrame

RETRY_AFTER: Final = (0.0, 0.5, 2.0)
"""Seconds before each further attempt to connect; after these the session ends."""


class Connect(NamedTuple):
    """A connection to the provider is wanted."""

    resumption: str | None
    """The `resumption` of the previous dialect; None to begin a new conversation."""


class Attempts:
    """The attempts that are left; a connection that lasts restores them."""

    __slots__ = ("count", "resumption", "trouble", "wanted")

    def __init__(self) -> None:
        self.wanted: Connect | None = Connect(None)
        """The connection to make now."""
        self.resumption: str | None = None
        """The handle that the next connection resumes with."""
        self.count: int = 0
        """Attempts since a connection last proved steady, including the attempt that opened it."""
        self.trouble: ErrorFrame | None = None
        """Why the last attempt failed."""

    def begin(self) -> None:
        """Count the attempt that was wanted."""
        self.wanted = None
        self.count += 1

    def want(self) -> None:
        """Ask for the next attempt now."""
        self.wanted = Connect(self.resumption)

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt may be made."""
        return self.count > len(RETRY_AFTER)

    @property
    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        return RETRY_AFTER[self.count - 1]
