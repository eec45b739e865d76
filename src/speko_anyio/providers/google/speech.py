"""What one side of a Gemini session says: fragments without ids, made into texts that are final once."""

from __future__ import annotations

from ...protocol.codec import mended
from ...protocol.frames import Role, Transcript


class Speech:
    """The text that `role` is saying."""

    __slots__ = ("_interim", "_role", "_text")

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._text = ""
        self._interim = ""

    @property
    def speaking(self) -> bool:
        """Whether there is text that is not complete."""
        return bool(self._text or self._interim)

    def add(self, fragment: str) -> Transcript | None:
        """More of the text; None when it is empty. The space before the first word is no part of it."""
        fragment = fragment if self._text else fragment.lstrip()
        if not fragment:
            return None
        self._interim = ""
        # A fragment may end within a surrogate pair, whose other half begins the next fragment.
        self._text += fragment
        text = mended(self._text, more=True)
        return Transcript(self._role, text, False) if text else None

    def interim(self, text: str) -> Transcript | None:
        """What the text may go on with; the next fragment or interim text replaces it."""
        if text == self._interim:
            return None
        self._interim = text
        return Transcript(self._role, mended(self._text + text, more=True).lstrip(), False)

    def finish(self) -> Transcript | None:
        """The text is complete and the next one begins; None when there is none."""
        text, self._text = self._text or self._interim.lstrip(), ""
        self._interim = ""
        return Transcript(self._role, mended(text), True) if text else None
