"""PCM16 audio: microphone and loudspeaker (`Microphone`, `Speaker`), arithmetic (`pcm`), WAV files (`wav`)
and streaming sample rate conversion (`resample`).

Importing this package, or any module of it, imports neither sounddevice nor soxr nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .devices import DeviceError, Microphone, Speaker

__all__ = ["DeviceError", "Microphone", "Speaker"]


def __getattr__(name: str) -> object:
    # Lazily: the arithmetic is of use without an event loop.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import devices

    value: object = getattr(devices, name)
    globals()[name] = value
    return value
