"""Acoustic echo cancellation and noise suppression by WebRTC's audio processing (extra ``audio``).

pywebrtc-audio and numpy are imported when one of the classes is made.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

from .._extras import install_extra
from ..protocol._pcm import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Buffer, is_sample_rate, pcm_bytes
from ..protocol.mint import DEFAULT_SAMPLE_RATE
from . import _pcm as pcm16

_FRAMES_A_SECOND: Final = 100
"""WebRTC processes 10 ms at a time."""


class EchoCanceller:
    """Removes the loudspeaker's sound from what a microphone hears; no device, no clock.

    The *near end* is the microphone's audio, the *far end* the audio that the loudspeaker plays. Pass both as
    they happen::

        canceller = EchoCanceller()
        clean = canceller.process(near, far)

    It is the canceller of WebRTC (AEC3), which browsers use. It learns the delay and the acoustics of the
    room by itself, in about a second of the far end's speech, and keeps what the user says over it. It also
    removes sound below about 100 Hz.

    The audio is PCM16 mono. `Microphone` has an option that does all this.

    - `sample_rate`: samples a second of both ends.
    - `noise_suppression`: also reduce steady noise, such as that of a fan, by about 6 dB.

    Raises:
        ValueError: the rate is not one of 8000 to 192000 samples a second.
        ImportError: pywebrtc-audio is not installed.
    """

    def __init__(self, *, sample_rate: int = DEFAULT_SAMPLE_RATE, noise_suppression: bool = False) -> None:
        self._frames = _Frames(2, sample_rate, echo_cancellation=True, noise_suppression=noise_suppression)

    def process(self, near: Buffer, far: Buffer) -> bytes:
        """Return `near` without the echo of `far`, as far as it makes whole frames of 10 ms.

        The rest waits for the next call, so the result does not depend on how the audio was cut into pieces.
        The far end must not be late: its echo in `near` has to come after it, by up to 0.4 seconds.

        - `near`: what the microphone recorded.
        - `far`: what was played meanwhile; silence, if nothing was.

        ValueError if one is longer than the other, or for half a sample.
        """
        near, far = pcm_bytes(near), pcm_bytes(far)
        if len(near) != len(far):
            raise ValueError(
                f"the near end has {len(near)} bytes and the far end {len(far)}; pass as much of both, "
                "with silence where nothing was played"
            )
        return self._frames.process(near, far)

    def reset(self) -> None:
        """Forget the room and the audio that waits."""
        self._frames.reset()


class NoiseSuppressor:
    """Reduces steady noise, such as that of a fan, by about 6 dB, and sound below about 100 Hz.

    The audio is PCM16 mono. Use `EchoCanceller` to cancel echo, too.

    - `sample_rate`: samples a second.

    Raises as `EchoCanceller`.
    """

    def __init__(self, *, sample_rate: int = DEFAULT_SAMPLE_RATE) -> None:
        self._frames = _Frames(1, sample_rate, noise_suppression=True, high_pass_filter=True)

    def process(self, pcm: Buffer) -> bytes:
        """Return `pcm` with less noise, as far as it makes whole frames of 10 ms; the rest waits.

        ValueError for half a sample.
        """
        return self._frames.process(pcm_bytes(pcm))

    def reset(self) -> None:
        """Forget the noise and the audio that waits."""
        self._frames.reset()


class _Frames:
    """WebRTC's processing of one stream, or of two in step, cut into its frames."""

    def __init__(self, streams: int, sample_rate: int, **features: bool) -> None:
        if not is_sample_rate(sample_rate):
            raise ValueError(
                f"the sample rate is {sample_rate}; "
                f"pass {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} samples a second"
            )
        self._numpy = _import("numpy")
        # WebRTC's frames are whole samples. It gets 22000 instead of 22050 samples a second, which only makes
        # the room seem 0.2 % larger.
        rate = sample_rate // _FRAMES_A_SECOND * _FRAMES_A_SECOND
        self._size = rate // _FRAMES_A_SECOND * pcm16.SAMPLE_BYTES
        # Any: its types are numpy's, which this package must not depend on.
        self._processor: Any = _import("pywebrtc_audio").AudioProcessor(sample_rate=rate, **features)
        # The lowest bit of the far end is random. In digital silence WebRTC's filters decay to denormal
        # numbers, and would take 12 times as long whenever the assistant is quiet.
        samples = rate // _FRAMES_A_SECOND
        self._dither: Any = self._numpy.random.default_rng(0).integers(0, 2, samples, dtype="<i2")
        self._waiting = tuple(bytearray() for _ in range(streams))

    def process(self, *streams: bytes) -> bytes:
        """Take as much of each stream; return whole frames of the first, processed."""
        for waiting, pcm in zip(self._waiting, streams, strict=True):
            if len(pcm) % pcm16.SAMPLE_BYTES:
                raise ValueError(f"{len(pcm)} bytes are not whole PCM16 samples; pass an even number")
            waiting += pcm
        size = len(self._waiting[0]) // self._size * self._size
        if not size:
            return b""
        np = self._numpy
        near, *far = [np.frombuffer(bytes(waiting[:size]), dtype="<i2") for waiting in self._waiting]
        for waiting in self._waiting:
            del waiting[:size]
        dithered = [(pcm.reshape(-1, len(self._dither)) ^ self._dither).ravel() for pcm in far]
        return bytes(self._processor.process(near, *dithered).tobytes())

    def reset(self) -> None:
        for waiting in self._waiting:
            waiting.clear()
        self._processor.reset()


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"echo cancellation and noise suppression need pywebrtc-audio, which is not installed; "
            f"{install_extra('audio')}",
            name=name,
        ) from error
