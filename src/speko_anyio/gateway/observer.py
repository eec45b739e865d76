"""What happens in a gateway, for whoever counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import SessionOutcome


class Observer:
    """Told of what happens, as it happens; this one ignores it. Never blocks, never raises."""

    def minted(self, status: int) -> None:
        """A mint was answered with this HTTP status."""

    def started(self, provider: str) -> None:
        """A session is open."""

    def answered(self, provider: str, seconds: float) -> None:
        """The first audio of an answer went out, so long after the user's turn."""

    def failed(self, provider: str, code: str) -> None:
        """A client was told an error."""

    def ended(self, provider: str, outcome: SessionOutcome, seconds: float) -> None:
        """A session that was open is over, after so long."""
