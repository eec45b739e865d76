"""PCM16 audio: microphone and loudspeaker (`Microphone`, `Speaker`), a buffer for playback (`Playback`),
arithmetic (`pcm`), WAV files (`wav`) and streaming sample rate conversion (`resample`).

Importing this package, or any module of it, imports neither sounddevice nor soxr nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .devices import DeviceError, Microphone, Speaker
    from .playback import Flushed, Playback

__all__ = ["DeviceError", "Flushed", "Microphone", "Playback", "Speaker"]


__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "devices": "DeviceError Microphone Speaker",
        "playback": "Flushed Playback",
    },
)
