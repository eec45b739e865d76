"""Microphone and loudspeaker of this computer, through sounddevice (extra ``audio``).

sounddevice is imported when a device is opened. It calls back in a thread of PortAudio's own,
which must never wait. So nothing there takes longer than copying 20 ms of audio: the microphone puts it into
a bounded buffer and wakes the reader, the speaker reads from a `Playback`. To cancel echo, the speaker also
hands what it plays to the microphone; the cancelling itself is the reader's work.
"""

from __future__ import annotations

import abc
import importlib
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread

from .._extras import install_extra
from ..protocol.errors import SpekoError
from ..protocol.frames import Frame
from ..protocol.mint import DEFAULT_SAMPLE_RATE
from ._echo import EchoCanceller, NoiseSuppressor
from ._far_end import EchoPath, FarEnd
from ._pcm import SAMPLE_BYTES
from ._playback import DEFAULT_MAX_BUFFER, Playback
from ._thread_signal import ThreadSignal
from .resample import Resampler

BLOCK_SECONDS: Final = 0.02
"""Seconds of audio in one callback and in one piece from the microphone; telephony uses the same."""

MAX_UNHEARD_SECONDS: Final = 2.0
"""Seconds of speech that a microphone buffers. A reader that lags further behind is not in a conversation."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a device may take to stop; a driver that hangs must not hang the program."""

Device: TypeAlias = int | str | None
"""A device as sounddevice names it: a number, a part of its name, or None for the system's choice.
``python -m sounddevice`` lists them."""


_Direction: TypeAlias = Literal["input", "output"]
_NAMES: Final[dict[_Direction, str]] = {"input": "microphone", "output": "loudspeaker"}

# Any: sounddevice has no types.
_Callback: TypeAlias = Callable[[Any, int, Any, Any], None]

_Block: TypeAlias = tuple[bytes, bytes, int]
"""What the microphone recorded, what the loudspeaker played meanwhile, and the latter's rate."""

_Cleaning: TypeAlias = Callable[[bytes, bytes, int], bytes]
"""Takes the parts of a `_Block`; returns the audio that is ready, at the rate that the user wants."""


class DeviceError(SpekoError):
    """A microphone or a loudspeaker can't be used."""


class _DeviceBlock(abc.ABC):
    """A device that is open and runs for the length of an ``async with`` block."""

    _direction: ClassVar[_Direction]

    def __init__(self, sample_rate: int, device: Device) -> None:
        self._wanted = sample_rate
        self._device = device
        self._stream: _Stream | None = None

    async def __aenter__(self) -> Self:
        self._signal = ThreadSignal()
        try:
            self._stream = await _open(
                self._direction, self._device, self._wanted, self._prepare, self._signal
            )
        except BaseException:
            self._signal.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        self._signal.close()
        if stream is not None:
            await stream.aclose()

    @abc.abstractmethod
    def _prepare(self, rate: int) -> _Callback:
        """Prepare for the device's rate; return the function to call with its blocks, in a thread."""


class Microphone(_DeviceBlock):
    """This computer's microphone, as PCM16 mono in pieces of 20 ms.

    Use it with ``async with``, and iterate over it, one task at a time::

        async with Microphone() as microphone:
            async for pcm in microphone:
                await session.send_audio(pcm)

    - `sample_rate`: samples a second of the pieces, whatever the device can do.
    - `device`: which one, see `Device`.
    - `echo_cancellation`: the speaker whose sound to remove from what is recorded, so that an assistant does
      not hear itself; see `EchoCanceller`. The speaker may be opened before or after the microphone.
    - `noise_suppression`: whether to reduce steady noise; see `NoiseSuppressor`.

    Entering raises `DeviceError` when there is no such device or sounddevice is not installed, and
    ImportError when a rate has to be converted and soxr is missing, or pywebrtc-audio for one of the last two
    options. The iteration raises `DeviceError` when the device goes away, and ends when the block is left.
    """

    _direction = "input"

    def __init__(
        self,
        *,
        sample_rate: int = DEFAULT_SAMPLE_RATE,
        device: Device = None,
        echo_cancellation: Speaker | None = None,
        noise_suppression: bool = False,
    ) -> None:
        super().__init__(sample_rate, device)
        if not isinstance(echo_cancellation, Speaker | None):
            raise TypeError(
                "echo_cancellation must be the Speaker that plays the assistant's audio, "
                f"not {type(echo_cancellation).__name__}"
            )
        self.sample_rate = sample_rate
        """Samples a second of the audio that iteration returns."""
        self.overruns: int = 0
        """How often speech was lost, because it was not read in time or the computer was too slow."""
        self._size = round(sample_rate * BLOCK_SECONDS) * SAMPLE_BYTES
        self._speaker = echo_cancellation
        self._far_end: FarEnd | None = None
        self._noise_suppression = noise_suppression
        self._blocks: deque[_Block] = deque()
        self._piece = bytearray()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._speaker is not None and self._far_end is not None:
            self._speaker._far_ends += (self._far_end,)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._speaker is not None:
            self._speaker._far_ends = tuple(
                end for end in self._speaker._far_ends if end is not self._far_end
            )
        await super().__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        waited = False
        while len(self._piece) < self._size:
            if self._stream is None:
                raise StopAsyncIteration
            if self._blocks:
                self._piece += self._clean(*self._blocks.popleft())
            elif self._stream.stopped:
                raise DeviceError("the microphone stopped; check that it is still connected")
            else:
                waited = True
                try:
                    await self._signal.wait()
                except anyio.ClosedResourceError:
                    raise StopAsyncIteration from None
        if not waited:
            await anyio.lowlevel.checkpoint()
        piece = bytes(self._piece[: self._size])
        del self._piece[: self._size]
        return piece

    def _prepare(self, rate: int) -> _Callback:
        resampler = Resampler(rate, self.sample_rate)
        clean: _Cleaning
        if self._speaker is not None:
            canceller = EchoCanceller(sample_rate=self.sample_rate, noise_suppression=self._noise_suppression)
            self._far_end = FarEnd(rate)
            clean = EchoPath(canceller, resampler).process
        elif self._noise_suppression:
            suppressor = NoiseSuppressor(sample_rate=self.sample_rate)
            clean = lambda near, _far, _rate: suppressor.process(resampler.push(near))  # noqa: E731 - one of three
        else:
            clean = lambda near, _far, _rate: resampler.push(near)  # noqa: E731 - one of three
        self._clean = clean
        return self._called

    def _called(self, data: Any, _frames: int, _time: object, status: Any) -> None:
        """Take a block that was recorded. Called in PortAudio's thread."""
        if status.input_overflow:
            self.overruns += 1
        if len(self._blocks) >= MAX_UNHEARD_SECONDS / BLOCK_SECONDS:
            self._blocks.popleft()
            self.overruns += 1
        near = bytes(data)
        far, far_rate = b"", 0
        if self._far_end is not None:
            far, far_rate = self._far_end.take(len(near), perf_counter())
        self._blocks.append((near, far, far_rate))
        self._signal.set()


class Speaker(_DeviceBlock):
    """The loudspeaker of this computer, playing the audio of a session.

    Use it with ``async with``, and give it to the session as a handler::

        async with Speaker() as speaker:
            session.on(speaker.feed)

    - `sample_rate`: samples a second to ask the device for. If it does not support them, its own rate is used
      and the audio is converted.
    - `device`: which one, see `Device`.
    - `max_buffer`: see `Playback`.

    Entering raises the errors that entering a `Microphone` does. Leaving the block silences it at once; to
    hear the rest, call `drain` first.
    """

    _direction = "output"

    def __init__(
        self,
        *,
        sample_rate: int = DEFAULT_SAMPLE_RATE,
        device: Device = None,
        max_buffer: int = DEFAULT_MAX_BUFFER,
    ) -> None:
        super().__init__(sample_rate, device)
        self.underruns: int = 0
        """How often the computer was too slow for the device; silence between answers does not count."""
        self._far_ends: tuple[FarEnd, ...] = ()
        self._max_buffer = max_buffer
        self._draining = False

    @property
    def playback(self) -> Playback:
        """The buffer that it plays from, which knows how much of which turn was heard."""
        return self._playback

    def feed(self, frame: Frame) -> None:
        """Take a frame of any kind: see `Playback.feed`. `DeviceError` when the device went away."""
        if self._stream is not None and self._stream.stopped:
            raise DeviceError("the loudspeaker stopped; check that it is still connected")
        self._playback.feed(frame)

    async def drain(self) -> None:
        """Wait until everything fed so far has been played, or until the device goes away."""
        self._draining = True
        if self._stream is not None:
            self._playback.end_of_speech()
        while self._stream is not None and not self._stream.stopped and self._playback.buffered_ms:
            await self._signal.wait()
        self._draining = False

    def _prepare(self, rate: int) -> _Callback:
        self._playback = Playback(sample_rate=rate, max_buffer=self._max_buffer)
        return self._called

    def _called(self, data: Any, _frames: int, _time: object, status: Any) -> None:
        """Fill a block that is to be played. Called in PortAudio's thread."""
        if status.output_underflow:
            self.underruns += 1
        data[:] = pcm = self._playback.read(len(data))
        for far_end in self._far_ends:
            far_end.put(pcm, self._playback.sample_rate, perf_counter())
        if self._draining:
            self._signal.set()


class _Stream:
    """An open device, running."""

    def __init__(self, signal: ThreadSignal) -> None:
        self.stopped = False
        """Whether it stopped by itself."""
        self._signal = signal
        self._stream: Any = None
        # Guards the next two: `start` runs in a worker thread and may cross with `give_up`.
        self._lock = threading.Lock()
        self._running = False
        self._unwanted = False

    def start(
        self, direction: _Direction, device: Device, wanted: int, prepare: Callable[[int], _Callback]
    ) -> None:
        """Open the device and run it; after `give_up` close it again. Blocks."""
        sounddevice = _import()
        try:
            rate = _rate(sounddevice, direction, device, wanted)
            kind = sounddevice.RawInputStream if direction == "input" else sounddevice.RawOutputStream
            self._stream = kind(
                samplerate=rate,
                blocksize=round(rate * BLOCK_SECONDS),
                device=device,
                channels=1,
                dtype="int16",
                latency="low",
                callback=prepare(rate),
                finished_callback=self._finished,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            self._close()
            why = " ".join(str(error).split())
            raise DeviceError(
                f"no {_NAMES[direction]} could be opened ({why}); `python -m sounddevice` lists the devices"
            ) from error
        except BaseException:
            self._close()
            raise
        with self._lock:
            self._running = True
            unwanted = self._unwanted
        if unwanted:
            self._close()

    def give_up(self) -> bool:
        """Abandon `start`; return whether the device runs already, so that the caller has to close it."""
        with self._lock:
            self._unwanted = True
            return self._running

    async def aclose(self) -> None:
        """Stop at once, also when cancelled; a driver that hangs is abandoned."""
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await anyio.to_thread.run_sync(self._close, abandon_on_cancel=True)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)

    def _finished(self) -> None:
        self.stopped = True
        self._signal.set()


async def _open(
    direction: _Direction,
    device: Device,
    wanted: int,
    prepare: Callable[[int], _Callback],
    signal: ThreadSignal,
) -> _Stream:
    """Open a device in a worker thread, since it takes a while.

    `prepare` is called with the rate of the device, and returns the function to call with its blocks. When
    cancelled, it does not wait for the driver: the thread closes the device once it is open.
    """
    stream = _Stream(signal)
    try:
        await anyio.to_thread.run_sync(
            stream.start, direction, device, wanted, prepare, abandon_on_cancel=True
        )
    except BaseException:
        if stream.give_up():
            await stream.aclose()
        raise
    return stream


def _rate(sounddevice: Any, direction: _Direction, device: Device, wanted: int) -> int:
    """Return the rate `wanted`, or the device's own if it does not support that."""
    check = sounddevice.check_input_settings if direction == "input" else sounddevice.check_output_settings
    try:
        check(device=device, channels=1, dtype="int16", samplerate=wanted)
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(device, direction)["default_samplerate"])
    return wanted


def _import() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ImportError:
        raise DeviceError(
            f"microphone and loudspeaker need sounddevice, which is not installed; {install_extra('audio')}"
        ) from None
    except OSError as error:
        # sounddevice's wheels for Linux don't include PortAudio.
        raise DeviceError(
            f"PortAudio can't be loaded ({error}); install it: libportaudio2 on Debian, portaudio elsewhere"
        ) from None
