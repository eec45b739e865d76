"""Events of a gateway, for metrics to count."""

from __future__ import annotations

from .store import SessionOutcome


class Instrumentation:
    """Is called when something happens in a gateway; never blocks, never raises. This one ignores it all."""

    def minted(self, status: int) -> None:
        """Note the HTTP status that a mint was answered with."""

    def called(self, carrier: str, status: int) -> None:
        """Note the HTTP status that the webhook of a phone call was answered with."""

    def connected(self, carrier: str, status: int) -> None:
        """Note that the WebSocket of a phone call became a session, 101, or the status of its refusal."""

    def started(self, provider: str) -> None:
        """Note that a session is open."""

    def answered(self, provider: str, seconds: float) -> None:
        """Note the seconds from the end of the user's turn to the first audio of the answer."""

    def failed(self, provider: str, code: str) -> None:
        """Note the code of an error that a client was sent."""

    def ended(self, provider: str, outcome: SessionOutcome, seconds: float) -> None:
        """Note that a session is over, after `seconds`."""
