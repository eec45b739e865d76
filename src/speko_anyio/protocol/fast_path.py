"""What the two levels of a session share so that audio can pass by both at little cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_NO_FRAME: Final = -1
"""A `head`, and a `usual_size`, that no frame has."""


class FastPath:
    """When a frame of audio may become an event without the dialect, and how such a frame looks.

    The dialect says what event audio is, and whether it wants to see the next audio itself (`want_next`,
    `skip_next`). The byte level says how frames begin (`open`), and when a message in pieces is under way
    (`pause`, `resume`). Audio passes by the dialect while neither objects.
    """

    __slots__ = (
        "_head",
        "_paused",
        "_wanted",
        "head",
        "make_audio",
        "more_may_come",
        "odd",
        "sample_rate",
        "start_of_payload",
        "usual_size",
        "usual_start",
    )

    def __init__(self) -> None:
        # For the dialect
        self.make_audio: Callable[[bytes, int], Any] | None = None
        """Makes the event of whole samples and their rate; None where binary messages are no audio."""
        self.sample_rate = 0
        """Samples a second of the audio that comes in."""
        self.odd = b""
        """Half a sample that waits for its other half."""
        self.more_may_come = True
        """Whether the peer may say more: False once its input, or the session, has ended."""
        # For the byte level: such frames are final, binary, without extensions, with a length of two bytes
        # and with the mask bit of our role. `head` is their first two bytes as a number.
        self.head = _NO_FRAME
        self.start_of_payload = 0
        # The last read that was exactly one such frame of whole samples: its size and its first four bytes.
        # In a live conversation the next read looks the same, and is recognised by that at once.
        self.usual_size = _NO_FRAME
        self.usual_start = b""
        self._head = _NO_FRAME
        self._wanted = False
        self._paused = False

    def want_next(self) -> None:
        """Dialect: let the next audio come to me."""
        self._wanted = True
        self._update()

    def skip_next(self) -> None:
        """Dialect: audio may pass me by."""
        self._wanted = False
        self._update()

    def open(self, head: int, start_of_payload: int) -> None:
        """Byte level: from now on frames may come, those of audio in this form."""
        self._head = head
        self.start_of_payload = start_of_payload
        self._update()

    def pause(self) -> None:
        """Byte level: a message in pieces is under way."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Byte level: the next frame begins a message."""
        self._paused = False
        self._update()

    def end(self) -> None:
        """Dialect: the session is over."""
        self.more_may_come = False
        self._head = _NO_FRAME
        self._update()

    def _update(self) -> None:
        closed = self.make_audio is None or self._wanted or self._paused
        self.head = _NO_FRAME if closed else self._head
        self.usual_size = _NO_FRAME
