"""The user's turn in these protocols: how it ends, and how far it is."""

from __future__ import annotations

import msgspec


class TurnRules(msgspec.Struct, frozen=True, kw_only=True):
    """How turns end in a session, as its configuration says."""

    auto: bool
    """Whether the provider detects turns."""
    silence_ms: int = 0
    """Digital silence that surely ends a turn, when the provider detects them by silence."""
    semantic: bool = False
    """Whether the provider judges by meaning, so that silence may take seconds to end a turn."""
    interrupts: bool = True
    """Whether the provider stops its response when the user speaks."""
    creates: bool = True
    """Whether the provider answers a turn that it detected by itself."""


class Turn:
    """The user's turn as far as we know it."""

    __slots__ = ("awaiting_commit", "item", "muted", "silence_repeated", "speaking", "uncommitted", "watched")

    def __init__(self) -> None:
        self.speaking = False
        """The provider hears speech that has not become an item yet."""
        self.awaiting_commit = False
        """When the audio has become an item, a response is wanted from us."""
        self.uncommitted = 0
        """Bytes of audio that were sent and have not become an item."""
        self.watched = 0
        """The value of `uncommitted` when an answer began to wait for the end of the user's speech."""
        self.muted = False
        """Whether we sent silence for a user whose speech is open but who sends no audio."""
        self.item: str | None = None
        """The name of the text of the current speech, until it becomes an item."""
        self.silence_repeated = False
        """Whether the silence that was to end the turn was sent a second time."""
