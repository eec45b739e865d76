"""Speech in noise, always the same samples."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speko_anyio.audio.resample import resample
from speko_anyio.audio.wav import read_wav

SPEECH: Final = Path(__file__).parents[1] / "data" / "speech"
RECORDINGS: Final = ("go-forward-ten-meters", "cards-001", "librivox-0880")
"""Recorded people: see the README beside them."""

Noise: TypeAlias = Literal["white", "pink", "babble"]
Samples: TypeAlias = npt.NDArray[np.float64]

_LEVEL: Final = -23.0
"""dBFS of the speech, as its RMS where somebody speaks."""

_AROUND: Final = 2.0
"""Seconds without speech, before it and after it."""


class Scene(NamedTuple):
    """A recording in noise."""

    pcm: bytes
    """PCM16 mono."""
    start: float
    """Seconds until somebody speaks."""
    end: float
    """Seconds until they have spoken."""


@cache
def scene(recording: str, noise: Noise | None, snr: float, rate: int) -> Scene:
    """Return `recording` with `noise`, `snr` dB softer than the speech, around it and behind it."""
    speech = _samples(recording, rate)
    frame = rate // 50
    frames = speech[: len(speech) // frame * frame].reshape(-1, frame)
    levels = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-9)
    (loud,) = np.nonzero(levels > levels.max() - 25)
    active = frames[loud]
    speech *= 10 ** (_LEVEL / 20) / np.sqrt(np.mean(active**2))
    quiet = np.zeros(round(_AROUND * rate))
    mixed = np.concatenate([quiet, speech, quiet])
    if noise is not None:
        mixed += 10 ** ((_LEVEL - snr) / 20) * _noise(noise, len(mixed), rate)
    return Scene(_to_pcm(mixed), _AROUND + loud[0] * 0.02, _AROUND + (loud[-1] + 1) * 0.02)


@cache
def noise_only(noise: Noise, level: float, seconds: float, rate: int) -> bytes:
    """Return noise of `level` dBFS without speech, PCM16 mono."""
    return _to_pcm(10 ** (level / 20) * _noise(noise, round(seconds * rate), rate))


def _to_pcm(values: Samples) -> bytes:
    return np.clip(np.rint(values * 32768), -32768, 32767).astype("<i2").tobytes()


def _samples(recording: str, rate: int) -> Samples:
    wav = read_wav(SPEECH / f"{recording}.wav")
    pcm = resample(wav.pcm, wav.sample_rate, rate)
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 32768


def _noise(kind: Noise, length: int, rate: int) -> Samples:
    """Return noise of 0 dBFS RMS."""
    random = np.random.default_rng(1)
    if kind == "babble":
        # Eight people who talk backwards, each from elsewhere
        said = np.concatenate([_samples(recording, rate)[::-1] for recording in RECORDINGS])
        voices = [np.roll(said, int(random.integers(len(said)))) for _ in range(8)]
        values = np.resize(np.sum(voices, axis=0), length)
    else:
        spectrum = np.fft.rfft(random.normal(size=length))
        if kind == "pink":
            spectrum /= np.sqrt(np.arange(len(spectrum)).clip(1))
            spectrum[: round(40 * length / rate)] = 0  # as microphones do
        values = np.fft.irfft(spectrum, length)
    return np.asarray(values / np.sqrt(np.mean(values**2)))
