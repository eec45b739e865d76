"""Voice activity: whether 20 ms of audio are speech."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from .._extras import install_extra
from . import _pcm as pcm16

FRAME_SECONDS: Final = 0.02

IsSpeech: TypeAlias = Callable[[bytes], bool]
"""Whether a frame of 20 ms, PCM16 mono at the stream's rate, is speech. Called for each frame, in order."""

_WEBRTC_RATES: Final = {8_000: 1, 16_000: 1, 24_000: 3, 32_000: 1, 48_000: 1}
"""The rates that `webrtc_vad` takes, and how many samples are averaged to one: the detector has no 24 kHz,
and looks at 8 kHz in any case."""

_LEVEL_SAMPLES: Final = 80
"""Samples of a frame that are enough to tell how loud it is: all of them would take four times as long."""

_MEMORY: Final = 1.0
"""Seconds in which speech has a gap, if only between syllables, and steady noise has none."""


def webrtc_vad(
    sample_rate: int, *, aggressiveness: int = 3, margin: float = 6.0, loudness_floor: float = -50.0
) -> IsSpeech:
    """Make WebRTC's voice activity detector, which tells speech from noise by its spectrum.

    It costs about 10 us a frame. It has state, so each stream needs its own.

    Args:
        sample_rate: 8, 16, 24, 32 or 48 kHz.
        aggressiveness: 0 to 3. 3 takes the least noise for speech; the others also run on for up to 300 ms
            after speech.
        margin: dB by which speech is louder than the background, the softest frame of the last second.
        loudness_floor: dBFS under which a frame is never speech, because the detector takes synthetic noise
            at any level for speech.

    Raises:
        ValueError: for another sample rate or aggressiveness.
        ImportError: the extra ``local`` is not installed.
    """
    if sample_rate not in _WEBRTC_RATES:
        rates = ", ".join(map(str, _WEBRTC_RATES))
        raise ValueError(f"webrtc_vad takes a sample rate of {rates}, not {sample_rate}; resample the audio")
    if aggressiveness not in range(4):
        raise ValueError(f"aggressiveness is 0, 1, 2 or 3, not {aggressiveness}")
    try:
        webrtcvad = importlib.import_module("webrtcvad")
    except ImportError as error:
        raise ImportError(
            f"detecting speech needs webrtcvad, which is not installed; {install_extra('local')}",
            name="webrtcvad",
        ) from error
    detector = webrtcvad.Vad(aggressiveness)
    is_loud = energy_vad(margin=margin, loudness_floor=loudness_floor)
    averaged = _WEBRTC_RATES[sample_rate]
    rate = sample_rate // averaged

    def is_speech(frame: bytes) -> bool:
        # Both adapt to every frame.
        loud = is_loud(frame)
        return bool(detector.is_speech(pcm16.downmix(frame, averaged), rate)) and loud

    return is_speech


def energy_vad(*, margin: float = 9.0, loudness_floor: float = -50.0) -> IsSpeech:
    """Make a voice activity detector that compares the loudness with that of the background.

    The background is the softest frame of the last second: speech has gaps, if only between syllables, and
    steady noise has none. Steady noise that begins suddenly therefore counts as speech for a second, and a
    voice in the background at any time. It needs no package and costs about 8 us a frame. It has state, so
    each stream needs its own.

    Args:
        margin: dB by which speech is louder than the background.
        loudness_floor: dBFS under which a frame is never speech.
    """
    frames = round(_MEMORY / FRAME_SECONDS)
    # A stream that begins with speech has had no silence to compare it with.
    levels = deque([pcm16.SILENCE_DBFS] * frames, maxlen=frames)

    def is_speech(frame: bytes) -> bool:
        level = level_of(frame)
        levels.append(level)
        return level >= max(loudness_floor, min(levels) + margin)

    return is_speech


def level_of(frame: bytes) -> float:
    """Return about how loud a frame is, in dBFS: the RMS of some of its samples."""
    step = max(1, len(frame) // pcm16.SAMPLE_BYTES // _LEVEL_SAMPLES)
    return pcm16.rms_dbfs(memoryview(frame).cast("h")[::step].tobytes())
