"""The handles that resume a Gemini session, and what they lack: they become stale while the model answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from ...protocol._commands import ImageIn, TextIn
from .._held_input import held_size
from . import _events as wire
from ._config import Configuration

_MAX_CONTEXT: Final = 4 * 1024 * 1024
"""Bytes of context to keep for the next connection. Handles come within seconds of it."""


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


class Carried:
    """What outlives a connection of a session, for the one that resumes it.

    The setup of a connection is that of the session as updated. Context that was given after the last fresh
    handle is given again, since the handle may lack it.
    """

    __slots__ = ("_context", "_size", "configuration")

    def __init__(self, configuration: Configuration) -> None:
        self.configuration: Configuration = configuration
        self._context: deque[TextIn | ImageIn] = deque()
        self._size = 0

    @property
    def context(self) -> tuple[TextIn | ImageIn, ...]:
        """Texts and pictures that the handle may lack, oldest first."""
        return tuple(self._context)

    def add(self, command: TextIn | ImageIn) -> None:
        """Keep context that was accepted; beyond 4 MiB the oldest is forgotten."""
        if self.configuration.resumable:
            self._context.append(command)
            self._size += held_size(command)
            while self._size > _MAX_CONTEXT:
                self._size -= held_size(self._context.popleft())

    def keep_only(self, context: Iterable[TextIn | ImageIn]) -> None:
        """Forget all context but this, because a fresh handle has it."""
        if self._context:
            self._context = deque(context)
            self._size = sum(map(held_size, self._context))
