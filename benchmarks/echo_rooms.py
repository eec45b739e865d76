"""Rooms in which a microphone hears a loudspeaker, simulated: impulse responses, devices and their clocks.

Audio is float64 at `RATE` samples a second, where 32768 is full scale.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from speko_anyio.audio._far_end import FarEnd

Signal: TypeAlias = npt.NDArray[np.float64]

RATE: Final = 24_000
BLOCK: Final = RATE // 50
"""Samples of 20 ms, as the devices record and play them."""

SPEECH_DBFS: Final = -23.0
"""RMS level of speech, pauses excluded: that of broadcasts."""
NOISE_DBFS: Final = -66.0
"""RMS level of the microphone's noise."""


class Room(NamedTuple):
    name: str
    reverberation: float
    """Seconds in which sound decays by 60 dB."""
    echo_db: float
    """Level of the loudspeaker's sound at the microphone, relative to what was played."""
    size: float
    """Seconds until sound has crossed it, which spaces the first reflections."""


SMALL: Final = Room("small room", 0.2, -12.0, 0.006)
LIVELY: Final = Room("lively room", 0.6, -6.0, 0.017)
ROOMS: Final = (SMALL, LIVELY)


def impulse_response(room: Room) -> Signal:
    """Return the direct sound, eight early reflections and a noisy, decaying tail; always the same."""
    noise = np.random.default_rng(17)
    length = round(room.reverberation * RATE)
    time = np.arange(length) / RATE
    response = 0.05 * noise.standard_normal(length) * 10 ** (-3 * time / room.reverberation)
    response[: round(room.size / 2 * RATE)] = 0.0
    response[0] = 1.0
    for number in range(1, 9):
        at = round(room.size * number * (0.6 + 0.4 * noise.random()) * RATE)
        if at < length:
            response[at] += 0.7**number * noise.choice((-1.0, 1.0))
    return np.asarray(response * 10 ** (room.echo_db / 20) / np.sqrt(np.sum(response**2)))


def echo(played: Signal, room: Room, delay: float) -> Signal:
    """Return what the microphone hears of `played`, `delay` seconds later; as long as `played`."""
    response = impulse_response(room)
    size = len(played) + len(response)
    heard = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(response, size), size)
    return shifted(heard, round(delay * RATE))[: len(played)]


def shifted(signal: Signal, samples: int) -> Signal:
    """Delay `signal`; it gets longer."""
    return np.concatenate((np.zeros(samples), signal))


def noise(samples: int) -> Signal:
    """Return the microphone's noise; always the same."""
    return np.random.default_rng(4).standard_normal(samples) * 32768 * 10 ** (NOISE_DBFS / 20)


def speech(pcm: bytes) -> Signal:
    """Return recorded speech at `SPEECH_DBFS`."""
    signal = np.frombuffer(pcm, "<i2").astype(np.float64)
    return signal * 32768 * 10 ** (SPEECH_DBFS / 20) / rms(signal[loud(signal)])


def loud(signal: Signal) -> npt.NDArray[np.bool_]:
    """Return which samples belong to 20 ms within 30 dB of the loudest 20 ms."""
    blocks = np.pad(signal, (0, -len(signal) % BLOCK)).reshape(-1, BLOCK)
    power = np.mean(blocks**2, axis=1)
    return np.repeat(power > power.max() / 1000, BLOCK)[: len(signal)]


def rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(signal**2))) if len(signal) else 0.0


def to_pcm(signal: Signal) -> bytes:
    return np.clip(np.rint(signal), -32768, 32767).astype("<i2").tobytes()


def from_pcm(pcm: bytes) -> Signal:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def erle(heard: Signal, left: Signal, counted: npt.NDArray[np.bool_]) -> float:
    """Return the echo return loss enhancement in dB: by how much less echo is `left` than was `heard`.

    Only `counted` samples count, such as those in which somebody spoke.
    """
    return 20 * float(np.log10(rms(heard[counted]) / max(rms(left[counted]), 1e-3)))


class Devices(NamedTuple):
    """A loudspeaker and a microphone with clocks and threads of their own."""

    latency: float = 0.06
    """Seconds from the loudspeaker's callback with a sample to the microphone's callback with its echo, the
    way through the air excluded."""
    drift: float = 0.0
    """By how much the loudspeaker's clock is faster than the microphone's."""
    jitter: float = 0.0
    """Seconds by which a callback may be late."""
    burst: int = 1
    """Blocks that the loudspeaker takes at once."""


def record(
    played: Signal, near: Signal, room: Room, devices: Devices, process: Callable[[bytes, bytes, int], bytes]
) -> tuple[Signal, Signal]:
    """Play and record at once, block by block; return the echo that was heard, and what `process` returned.

    `played` is by the loudspeaker's clock, `near`, what the user says, by the microphone's.
    """
    by_the_microphone = np.asarray(soxr.resample(played, RATE * (1 + devices.drift), RATE))
    heard = echo(by_the_microphone, room, devices.latency)
    samples = min(len(heard), len(near)) // BLOCK * BLOCK
    heard = heard[:samples]
    recorded = to_pcm(heard + near[:samples] + noise(samples))
    far_end = FarEnd(RATE)
    left = bytearray()
    pcm = to_pcm(played)
    size = BLOCK * 2
    for now, kind, number in _callbacks(samples // BLOCK, devices):
        block = slice(number * size, (number + 1) * size)
        if kind == "play":
            far_end.put(pcm[block].ljust(size, b"\0"), RATE, now)
        else:
            left += process(recorded[block], *far_end.take(size, now))
    return heard[: len(left) // 2], from_pcm(bytes(left))


def _callbacks(blocks: int, devices: Devices) -> Iterator[tuple[float, str, int]]:
    """Return the callbacks in order: when, of which device, with which of its blocks."""
    dice = random.Random(6)
    calls: list[tuple[float, str, int]] = []
    for device, period, phase, burst in (
        ("play", 0.02 / (1 + devices.drift), 0.0, devices.burst),
        ("record", 0.02, 0.013, 1),
    ):
        at = 0.0
        for number in range(blocks + 50 * burst):
            due = (number // burst * burst) * period + phase
            at = max(at, due + dice.random() * devices.jitter)
            calls.append((at, device, number))
    return (call for call in sorted(calls) if call[1] == "play" or call[2] < blocks)
