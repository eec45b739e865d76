"""What a session has counted."""

from __future__ import annotations

import msgspec


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one session, since its start."""

    bytes_received: int
    """Bytes read from the transport."""
    bytes_sent: int
    """Bytes written to the transport."""
    frames_received: int
    audio_bytes_received: int
    """PCM16 in the received `Audio` frames."""
    audio_bytes_sent: int
    frames_dropped: int
    """Frames received and never delivered to `receive`: mostly audio that an interruption made stale."""
    audio_bytes_dropped: int
    frames_buffered: int
    """Frames that wait for `receive`."""
    bytes_buffered: int
    """What they hold, as ``max_buffer`` counts it."""
