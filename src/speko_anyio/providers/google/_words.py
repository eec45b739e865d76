"""The transcripts of a Gemini session: joins fragments without ids, and completes each text once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...protocol._codec import mended
from ...protocol.frames import Role, Transcript
from .._growing_text import GrowingText
from . import _events as wire

LATE_WORDS_TIMEOUT: Final = 2.0
"""Seconds after which words that came after the end of their turn count as complete, since nothing marks
their end. They are transcribed in one go, unlike ongoing speech. Words of the assistant that come later than
this belong to another answer."""

SETTLED_TIMEOUT: Final = 10.0
"""Seconds after which unanswered words of the user no longer hold anything up."""


class Speech:
    """The text that `role` is saying."""

    __slots__ = ("_interim", "_role", "_text")

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._text = GrowingText()
        self._interim = ""

    @property
    def speaking(self) -> bool:
        """Whether there is text that is not complete."""
        return bool(self._text.size or self._interim)

    def add(self, fragment: str) -> Transcript | None:
        """Add to the text, and return a transcript of all of it.

        Returns None if nothing is added, or if a later transcript will include it. The space before the first
        word is not part of the text.
        """
        fragment = fragment if self._text.size else fragment.lstrip()
        if not fragment:
            return None
        self._interim = ""
        whole = self._text.add(fragment)
        # A fragment may end within a surrogate pair, whose other half begins the next fragment.
        text = whole and mended(whole, more=True)
        return Transcript(self._role, text, False) if text else None

    def interim(self, text: str) -> Transcript | None:
        """Return the text plus an interim ending, which the next fragment or interim text replaces.

        Returns None if the ending is the same as before, or if the text is too long to be sent each time.
        """
        if text == self._interim:
            return None
        self._interim = text
        if self._text.long:
            return None
        return Transcript(self._role, mended(self._text.whole() + text, more=True).lstrip(), False)

    def finish(self) -> Transcript | None:
        """Complete the text and begin the next one; None when there is no text."""
        text = self._text.whole() or self._interim.lstrip()
        self._text = GrowingText()
        self._interim = ""
        return Transcript(self._role, mended(text), True) if text else None


class UserWords:
    """The user's words. An answer completes them, although transcription may come later.

    `emit` takes the transcripts. `start_timer` and `stop_timer` have names of timers: when ``words`` expires,
    call `finish`, and when ``settled`` expires, call `settle`.
    """

    __slots__ = ("_due", "_emit", "_settled", "_speech", "_start_timer", "_stop_timer")

    def __init__(
        self,
        emit: Callable[[Transcript | None], None],
        start_timer: Callable[[str, float], None],
        stop_timer: Callable[[str], None],
    ) -> None:
        self._emit = emit
        self._start_timer = start_timer
        self._stop_timer = stop_timer
        self._speech = Speech("user")
        self._due = False
        """Whether the model answered the user before any words of the question came."""
        self._settled = False

    @property
    def speaking(self) -> bool:
        """Whether there are words that are not complete."""
        return self._speech.speaking

    @property
    def unsettled(self) -> bool:
        """Whether the words are still so recent that the end of the connection would cut them off."""
        return self._speech.speaking and not self._settled

    def receive(self, words: wire.Transcription, *, in_turn: bool) -> None:
        """Add words; `in_turn`: they may be of a turn that the client has yet to end, or to see answered."""
        self._emit(self._speech.add(words.text))
        if words.finished:
            self._emit(self._speech.finish())
            self._due = False
        self._await_more(in_turn)

    def receive_interim(self, words: wire.Transcription, *, in_turn: bool) -> None:
        """Like `receive`, for words that later ones replace."""
        self._emit(self._speech.interim(words.text))
        self._await_more(in_turn)

    def _await_more(self, in_turn: bool) -> None:
        self._settled = False
        self._start_timer("settled", SETTLED_TIMEOUT)
        # If no words had come of the turn that was answered last, these belong to it.
        if self._due and not in_turn and self._speech.speaking:
            self._start_timer("words", LATE_WORDS_TIMEOUT)
        else:
            self._stop_timer("words")

    def finish(self) -> None:
        """Complete the text, because the model answers it or because it came late."""
        words = self._speech.finish()
        self._emit(words)
        self._due = words is None
        self._stop_timer("words")

    def cut_in(self) -> None:
        """Note that the user interrupts the answer: words that come now are not of the last question."""
        self._due = False
        self._stop_timer("words")

    def settle(self) -> None:
        """Note that the words, though incomplete, no longer delay anything."""
        self._settled = True

    def take(self) -> Transcript | None:
        """Take the text that is not complete: the session has ended."""
        return self._speech.finish()
