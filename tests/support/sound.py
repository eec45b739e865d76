"""A stand-in for the module sounddevice: its devices do what a test says, its callbacks come from threads.

Also a sound in which a gap is seen.
"""

from __future__ import annotations

import math
import sys
import threading
import types
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio.audio.resample import Resampler


def hum(sample_rate: int, seconds: float) -> bytes:
    """PCM16 mono of a sine of 300 Hz."""
    return b"".join(
        round(9_000 * math.sin(2 * math.pi * 300 * n / sample_rate)).to_bytes(2, "little", signed=True)
        for n in range(round(sample_rate * seconds))
    )


def check_whole(heard: bytes, speech: bytes, source_rate: int, rate: int) -> int:
    """Check that `heard`, at `rate`, is all of `speech`, without a gap; return how many bytes that are."""
    straight = Resampler(source_rate, rate)
    expected = array("h", straight.push(speech) + straight.flush())
    samples = array("h", heard)
    assert len(samples) >= len(expected)
    # soxr computes with floats, which the cutting into pieces may round to a neighbouring value.
    assert max(abs(got - want) for got, want in zip(samples, expected, strict=False)) <= 1
    return 2 * len(expected)


class PortAudioError(Exception):
    pass


class Status:
    def __init__(self, *, input_overflow: bool = False, output_underflow: bool = False) -> None:
        self.input_overflow = input_overflow
        self.output_underflow = output_underflow


class FakeStream:
    """One open device. `call` is what PortAudio's thread does."""

    def __init__(self, sound: FakeSound, **options: Any) -> None:
        self.options = options
        self.running = False
        self.closed = False
        self._sound = sound

    def start(self) -> None:
        if self._sound.start_error is not None:
            raise self._sound.start_error
        self.running = True
        if self._sound.inputs and self._sound.outputs:
            self._sound.opened.set()

    def abort(self, ignore_errors: bool) -> None:
        if self.running:
            self.vanish()

    def close(self, ignore_errors: bool) -> None:
        self.closed = True

    def vanish(self) -> None:
        """The device goes away."""
        self.running = False
        in_thread(self.options["finished_callback"])

    def record(self, *blocks: bytes, overflow: bool = False) -> None:
        """The microphone hears `blocks`."""

        def call() -> None:
            for block in blocks:
                self.options["callback"](memoryview(block), 0, None, Status(input_overflow=overflow))

        in_thread(call)

    def play(self, size: int, *, underflow: bool = False) -> bytes:
        """What the loudspeaker plays in the next `size` bytes."""
        data = bytearray(size)
        status = Status(output_underflow=underflow)
        in_thread(lambda: self.options["callback"](memoryview(data), 0, None, status))
        return bytes(data)


class FakeSound(types.ModuleType):
    """The module. Devices can do `rates`, and have `own_rate`; None means that there is no device."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.rates: tuple[int, ...] = (24_000, 48_000)
        self.own_rate: int | None = 48_000
        self.start_error: Exception | None = None
        self.inputs: list[FakeStream] = []
        self.outputs: list[FakeStream] = []
        self.opened = threading.Event()
        """Set when both a microphone and a loudspeaker run."""

    def RawInputStream(self, **options: Any) -> FakeStream:  # noqa: N802 - the module's own name
        self.inputs.append(FakeStream(self, **options))
        return self.inputs[-1]

    def RawOutputStream(self, **options: Any) -> FakeStream:  # noqa: N802 - the module's own name
        self.outputs.append(FakeStream(self, **options))
        return self.outputs[-1]

    def check_input_settings(self, *, samplerate: int, **_options: Any) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    check_output_settings = check_input_settings

    def query_devices(self, device: int | str | None, kind: str) -> dict[str, Any]:
        if self.own_rate is None:
            raise PortAudioError("Error querying device -1")
        return {"name": f"fake {kind}", "default_samplerate": float(self.own_rate)}


def in_thread(function: Callable[[], None]) -> None:
    """Call `function` in another thread, and wait for it."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "a callback of a device must not wait"


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    """sounddevice, as the code under test will import it."""
    fake = FakeSound()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
