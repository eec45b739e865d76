"""PCM16 audio: devices, playback, arithmetic, WAV files and resampling.

- `Microphone`, `Speaker`: this computer's;
- `Playback`: a buffer for unplayed audio;
- `pcm`: arithmetic; `wav`: files; `resample`: streaming sample rate conversion.

Importing this package, or any module of it, imports neither sounddevice nor soxr nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._devices import DeviceError, Microphone, Speaker
    from ._playback import Flushed, Playback

__all__ = ["DeviceError", "Flushed", "Microphone", "Playback", "Speaker"]


lazy_exports(
    __name__,
    {
        "_devices": "DeviceError Microphone Speaker",
        "_playback": "Flushed Playback",
    },
)
