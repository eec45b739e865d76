"""The handles that resume a Gemini session, and which become stale while the model answers."""

from __future__ import annotations

from . import _events as wire


class Resumption:
    """The newest handle of a session, and whether it covers the whole conversation.

    `handle` is the one that this session began with.
    """

    __slots__ = ("_was_fresh", "fresh", "handle")

    def __init__(self, handle: str | None) -> None:
        self.handle = handle or None
        """Handle with which a new session can resume this one, for 2 hours; None if there is none."""
        self.fresh: bool = False
        """Whether the handle covers the whole conversation: not while the model answers or waits for a
        tool."""
        self._was_fresh = False
        """Whether the handle was fresh when the answer began, and nothing has outdated it since."""

    def receive(self, update: wire.ResumptionUpdate) -> bool:
        """Take a handle from the provider; return whether it is fresh, which it is not during generation."""
        self.fresh = self._was_fresh = bool(update.resumable and update.new_handle)
        if self.fresh:
            self.handle = update.new_handle
        return self.fresh

    def begin_answer(self) -> None:
        """Record that an answer begins, which the handle does not hold."""
        self._was_fresh, self.fresh = self.fresh, False

    def retract_answer(self) -> None:
        """Record that what began was no answer, so the handle is as fresh as before."""
        self.fresh = self.fresh or self._was_fresh

    def call_tool(self) -> None:
        """Record that the model calls a tool."""
        self.fresh = False

    def outdate(self) -> None:
        """Record that we said something that the handle does not hold."""
        self.fresh = self._was_fresh = False
