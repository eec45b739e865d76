"""The shortcut for audio: state that lets a frame become an event without a call of the dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_NO_FRAME: Final = -1
"""A `head` and a `usual_size` that match no frame."""


class FastPath:
    """Whether a frame of audio may become an event without the dialect, and how such a frame looks.

    The dialect sets which event audio becomes, and whether it has to see the next audio itself (`want_next`,
    `skip_next`). `WebSocketCore` sets how such frames begin (`open`), and when a fragmented message is under
    way (`pause`, `resume`). Audio bypasses the dialect while neither forbids it: the fast path costs one
    comparison then.
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
        # Set by the dialect
        self.make_audio: Callable[[bytes, int], Any] | None = None
        """Makes the event of whole samples and their rate; None if binary messages are not audio."""
        self.sample_rate: int = 0
        """Samples a second of the audio that comes in."""
        self.odd: bytes = b""
        """The first byte of a sample whose second byte is still to come."""
        self.more_may_come: bool = True
        """Whether the peer may say more: False once its input, or the session, has ended."""
        # Set by `WebSocketCore`. The frames are final, binary, without extensions, have a length of two
        # bytes, and the mask bit that the peer's role requires. `head` is their first two bytes as a number.
        self.head: int = _NO_FRAME
        self.start_of_payload: int = 0
        # The last read that was exactly one such frame of whole samples: its size and its first four bytes.
        # In a live conversation the next read looks the same, so two comparisons recognise it.
        self.usual_size: int = _NO_FRAME
        self.usual_start: bytes = b""
        self._head = _NO_FRAME
        self._wanted = False
        self._paused = False

    def want_next(self) -> None:
        """Send the next audio to the dialect. Called by the dialect."""
        self._wanted = True
        self._update()

    def skip_next(self) -> None:
        """Let audio bypass the dialect. Called by the dialect."""
        self._wanted = False
        self._update()

    def keep_half(self, odd: bytes) -> None:
        """Set `odd`. While there is one, no read is usual: that saves a look at it. Called by the dialect."""
        self.odd = odd
        self.usual_size = _NO_FRAME

    def open(self, head: int, start_of_payload: int) -> None:
        """Begin to recognise frames of this form. Called by `WebSocketCore` after the handshake."""
        self._head = head
        self.start_of_payload = start_of_payload
        self._update()

    def pause(self) -> None:
        """Stop while a fragmented message is under way. Called by `WebSocketCore`."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Go on: the next frame begins a message. Called by `WebSocketCore`."""
        self._paused = False
        self._update()

    def end(self) -> None:
        """End with the session. Called by the dialect."""
        self.more_may_come = False
        self._head = _NO_FRAME
        self._update()

    def _update(self) -> None:
        closed = self.make_audio is None or self._wanted or self._paused
        self.head = _NO_FRAME if closed else self._head
        self.usual_size = _NO_FRAME
