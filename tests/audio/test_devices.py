"""Microphone and loudspeaker over a stand-in for sounddevice: no sound card, but real threads."""

from __future__ import annotations

import importlib
import random
import sys
import threading
from array import array
from contextlib import AsyncExitStack
from itertools import dropwhile
from pathlib import Path
from typing import Any

import anyio
import pytest

from speko_anyio import Audio, Interruption, SpekoError
from speko_anyio.audio import DeviceError, Microphone, Speaker
from speko_anyio.audio import _devices as devices
from speko_anyio.audio._pcm import rms_dbfs, samples, to_bytes
from speko_anyio.audio.wav import read_wav
from tests.support.sound import FakeSound, FakeStream, PortAudioError, check_whole, hum, sound

pytestmark = pytest.mark.anyio

__all__ = ["sound"]

BLOCK = 960
"""Bytes of 20 ms at 24 kHz."""


def pcm(value: int, size: int = BLOCK) -> bytes:
    return bytes([value]) * size


async def test_the_microphone_gives_what_was_recorded_in_pieces_of_20_ms(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Microphone(device="headset") as microphone:
            (stream,) = sound.inputs
            assert stream.options["samplerate"] == 24_000
            assert stream.options["device"] == "headset"
            assert stream.options["blocksize"] == 480
            stream.record(pcm(1), pcm(2, BLOCK // 2), pcm(3, BLOCK // 2))
            assert await anext(microphone) == pcm(1)
            assert await anext(microphone) == pcm(2, BLOCK // 2) + pcm(3, BLOCK // 2)
            async with anyio.create_task_group() as tasks:

                async def listen() -> None:
                    assert await anext(microphone) == pcm(4)

                tasks.start_soon(listen)
                await anyio.wait_all_tasks_blocked()
                stream.record(pcm(4))
            assert microphone.overruns == 0
    assert stream.closed


async def test_a_device_of_another_rate_is_converted(sound: FakeSound) -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    sound.rates = (48_000,)
    with anyio.fail_after(5):
        async with Microphone() as microphone, Speaker() as speaker:
            (stream,) = sound.inputs
            assert (stream.options["samplerate"], stream.options["blocksize"]) == (48_000, 960)
            stream.record(*[pcm(1, 1920)] * 5)
            assert len(await anext(microphone)) == BLOCK
            (stream,) = sound.outputs
            assert stream.options["samplerate"] == 48_000
            speaker.feed(Audio(pcm(0, BLOCK), 24_000))
            speaker.playback.end_of_speech()
            stream.play(1920)
            assert speaker.playback.played_ms == 20


async def test_speech_at_the_pace_of_speech_does_not_click(sound: FakeSound) -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    sound.rates = (48_000,)
    speech = hum(24_000, 0.5)
    heard: list[bytes] = []
    with anyio.fail_after(5):
        async with Speaker() as speaker:
            (stream,) = sound.outputs
            for at in range(0, len(speech), BLOCK):
                speaker.feed(Audio(speech[at : at + BLOCK], 24_000))
                heard.append(stream.play(1920))
            speaker.playback.end_of_speech()
            while speaker.playback.buffered_ms:
                heard.append(stream.play(1920))
    check_whole(b"".join(dropwhile(lambda block: block == bytes(1920), heard)), speech, 24_000, 48_000)


async def test_draining_plays_what_a_conversion_holds_back(sound: FakeSound) -> None:
    pytest.importorskip("soxr", reason="needs soxr")
    sound.rates = (48_000,)
    with anyio.fail_after(5):
        async with Speaker() as speaker, anyio.create_task_group() as tasks:
            (stream,) = sound.outputs
            speaker.feed(Audio(pcm(1, BLOCK), 24_000))
            tasks.start_soon(speaker.drain)
            await anyio.wait_all_tasks_blocked()
            stream.play(1920)
            assert speaker.playback.played_ms == 20


async def test_speech_that_nobody_takes_is_lost_from_its_old_end_and_counted(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Microphone() as microphone:
            sound.inputs[0].record(*(pcm(number) for number in range(103)))
            sound.inputs[0].record(pcm(0), overflow=True)
            assert microphone.overruns == 5
            assert await anext(microphone) == pcm(4)


async def test_a_microphone_that_goes_away_is_an_error_behind_what_it_heard(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Microphone() as microphone:
            sound.inputs[0].record(pcm(1))
            sound.inputs[0].vanish()
            assert await anext(microphone) == pcm(1)
            for _ in range(2):
                with pytest.raises(DeviceError, match="the microphone stopped; check"):
                    await anext(microphone)


async def test_leaving_ends_the_iteration_wherever_it_waits(sound: FakeSound) -> None:
    heard: list[bytes] = []
    microphone = Microphone()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            async with microphone:

                async def listen() -> None:
                    heard.append(await anext(microphone))
                    heard.extend([piece async for piece in microphone])
                    heard.append(b"end")

                tasks.start_soon(listen)
                sound.inputs[0].record(pcm(1))
                while not heard:
                    await anyio.wait_all_tasks_blocked()
        with pytest.raises(StopAsyncIteration):
            await anext(microphone)
    assert heard == [pcm(1), b"end"]


async def test_a_microphone_can_be_cancelled_and_loses_nothing(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Microphone() as microphone:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(microphone)
            sound.inputs[0].record(pcm(1))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(microphone)
            assert scope.cancelled_caught
            assert await anext(microphone) == pcm(1)


async def test_the_speaker_plays_what_it_is_fed_and_falls_silent_when_interrupted(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Speaker(device=3) as speaker:
            (stream,) = sound.outputs
            assert stream.options["device"] == 3
            assert stream.play(BLOCK) == pcm(0)
            speaker.feed(Audio(pcm(1, 3 * BLOCK), 24_000))
            assert stream.play(BLOCK) == pcm(1)
            assert speaker.underruns == 0
            speaker.feed(Interruption())
            assert stream.play(BLOCK, underflow=True) == pcm(0)
            assert speaker.underruns == 1
            assert (speaker.playback.played_ms, speaker.playback.dropped_ms) == (20, 40)
    assert stream.closed


async def test_draining_waits_until_everything_was_heard(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        async with Speaker() as speaker, anyio.create_task_group() as tasks:
            await speaker.drain()
            speaker.feed(Audio(pcm(1, 2 * BLOCK), 24_000))
            drained = anyio.Event()

            async def drain() -> None:
                await speaker.drain()
                drained.set()

            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            sound.outputs[0].play(BLOCK)
            await anyio.wait_all_tasks_blocked()
            assert not drained.is_set()
            sound.outputs[0].play(BLOCK)
            await drained.wait()


async def test_a_speaker_that_goes_away_is_an_error_when_it_is_fed_and_ends_the_draining(
    sound: FakeSound,
) -> None:
    with anyio.fail_after(5):
        async with Speaker() as speaker, anyio.create_task_group() as tasks:
            speaker.feed(Audio(pcm(1), 24_000))
            tasks.start_soon(speaker.drain)
            await anyio.wait_all_tasks_blocked()
            sound.outputs[0].vanish()
            with pytest.raises(DeviceError, match="the loudspeaker stopped; check"):
                speaker.feed(Interruption())


@pytest.mark.parametrize("kind", [Microphone, Speaker])
async def test_no_device_is_one_readable_line(sound: FakeSound, kind: type[Microphone | Speaker]) -> None:
    sound.rates, sound.own_rate = (), None
    with pytest.raises(DeviceError, match=r"^no (microphone|loudspeaker) could be opened \(Error querying"):
        async with kind():
            raise AssertionError("it opened")
    assert issubclass(DeviceError, SpekoError)


@pytest.mark.parametrize("error", [PortAudioError("Device\nunavailable"), ValueError("no such device")])
async def test_a_device_that_does_not_start_is_closed(sound: FakeSound, error: Exception) -> None:
    sound.start_error = error
    with pytest.raises(DeviceError, match=r"unavailable|no such") as caught:
        async with Microphone():
            raise AssertionError("it opened")
    assert "\n" not in str(caught.value)
    assert sound.inputs[0].closed


async def test_a_bug_in_sounddevice_comes_out_as_it_is(sound: FakeSound) -> None:
    sound.start_error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        async with Speaker():
            raise AssertionError("it opened")
    assert sound.outputs[0].closed


async def test_without_sounddevice_or_portaudio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceError, match="with the extra `audio`"):
        async with Microphone():
            raise AssertionError("it opened")

    def no_library(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", no_library)
    with pytest.raises(DeviceError, match=r"PortAudio library not found.*libportaudio2"):
        async with Speaker():
            raise AssertionError("it opened")


async def test_leaving_closes_the_device_also_when_cancelled(sound: FakeSound) -> None:
    with anyio.fail_after(5):
        with anyio.CancelScope() as scope:
            async with Microphone(), Speaker():
                scope.cancel()
                await anyio.sleep_forever()
    assert sound.inputs[0].closed
    assert sound.outputs[0].closed


async def test_a_driver_that_hangs_is_left_behind(sound: FakeSound, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CLOSE_TIMEOUT", 0.01)
    go = threading.Event()
    try:
        with anyio.fail_after(5):
            async with Speaker():
                monkeypatch.setattr(sound.outputs[0], "abort", lambda ignore_errors: go.wait(10))
    finally:
        go.set()


async def test_a_driver_that_hangs_while_it_opens_holds_up_nobody_who_is_cancelled(
    sound: FakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = threading.Event(), threading.Event()
    start = FakeStream.start

    def hang(stream: FakeStream) -> None:
        opening.set()
        assert go_on.wait(10)
        start(stream)

    async def open_it() -> None:
        async with Microphone():
            raise AssertionError("opened")

    monkeypatch.setattr(FakeStream, "start", hang)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
            while not opening.is_set():
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        (stream,) = sound.inputs
        assert not stream.closed
        go_on.set()
        while not stream.closed:
            await anyio.lowlevel.checkpoint()


async def test_a_device_that_opened_just_as_it_was_cancelled_is_closed(
    sound: FakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sync = anyio.to_thread.run_sync

    async def run_and_be_cancelled(function: Any, *args: Any, **options: Any) -> None:
        await run_sync(function, *args, **options)
        if not scope.cancel_called:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_and_be_cancelled)
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with Microphone():
            raise AssertionError("opened")
    assert scope.cancelled_caught
    assert sound.inputs[0].closed


class Studio:
    """A loudspeaker and a microphone in a room: what is played is heard again, at half the level."""

    def __init__(self, sound: FakeSound, monkeypatch: pytest.MonkeyPatch, *, delay: float = 0.05) -> None:
        self._sound = sound
        self._now = 0.0
        self._heard = bytearray(bytes(2 * round(delay * 24_000)))
        monkeypatch.setattr(devices, "perf_counter", lambda: self._now)

    def block(self) -> bytes:
        """Let 20 ms pass; return the echo that was recorded."""
        self._now += 0.01
        if self._sound.outputs and not self._sound.outputs[-1].closed:
            values = samples(self._sound.outputs[-1].play(BLOCK))
            self._heard += to_bytes(array("h", (value // 2 for value in values)))
        else:
            self._heard += bytes(BLOCK)
        self._now += 0.01
        echo = bytes(self._heard[:BLOCK])
        del self._heard[:BLOCK]
        microphone = self._sound.inputs[-1]
        times = microphone.options["samplerate"] // 24_000
        microphone.record(to_bytes(array("h", (value for value in samples(echo) for _ in range(times)))))
        return echo


async def left_over(studio: Studio, microphone: Microphone, speaker: Speaker, speech: bytes) -> float:
    """Return by how many dB the microphone hears the last second of `speech` less than it sounded."""
    speaker.feed(Audio(speech, 24_000))
    echo, left = bytearray(), bytearray()
    while len(left) < len(speech):
        echo += studio.block()
        left += await anext(microphone)
    return rms_dbfs(bytes(echo[-48_000:])) - rms_dbfs(bytes(left[-48_000:]))


@pytest.fixture
def speech() -> bytes:
    """Four seconds."""
    pytest.importorskip("soxr", reason="needs soxr")
    pytest.importorskip("pywebrtc_audio", reason="needs pywebrtc-audio")
    wav = Path(__file__).parents[1] / "data" / "speech" / "weather-in-oslo.wav"
    return (read_wav(wav, sample_rate=24_000).pcm * 3)[:192_000]


@pytest.mark.parametrize("first", ["speaker", "microphone"])
async def test_the_speakers_echo_is_cancelled(
    first: str, sound: FakeSound, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(sound, monkeypatch)
    speaker = Speaker()
    microphone = Microphone(echo_cancellation=speaker)
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            for device in (speaker, microphone) if first == "speaker" else (microphone, speaker):
                await stack.enter_async_context(device)
            assert await left_over(studio, microphone, speaker, speech) > 25
        async with Speaker() as speaker, Microphone() as microphone:
            assert await left_over(studio, microphone, speaker, speech) < 3


async def test_a_speaker_that_is_opened_again_is_still_cancelled(
    sound: FakeSound, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(sound, monkeypatch)
    speaker = Speaker()
    with anyio.fail_after(60):
        async with Microphone(echo_cancellation=speaker) as microphone:
            for _ in range(2):
                async with speaker:
                    assert await left_over(studio, microphone, speaker, speech) > 25
                for _ in range(20):
                    studio.block()
                    await anext(microphone)


async def test_devices_of_two_rates_are_cancelled(
    sound: FakeSound, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(sound, monkeypatch)
    sound.rates = (48_000,)
    monkeypatch.setattr(sound, "check_output_settings", lambda **_options: None)
    with anyio.fail_after(60):
        async with Speaker() as speaker, Microphone(echo_cancellation=speaker) as microphone:
            assert sound.inputs[-1].options["samplerate"] == 48_000
            assert sound.outputs[-1].options["samplerate"] == 24_000
            for _ in range(3):
                studio.block()  # that the conversion may hold back
            assert await left_over(studio, microphone, speaker, speech) > 20


async def test_noise_is_suppressed_with_and_without_a_speaker(sound: FakeSound, speech: bytes) -> None:
    dice = random.Random(3)
    noise = to_bytes(array("h", (round(dice.gauss(0, 300)) for _ in range(24_000))))
    with anyio.fail_after(60):
        for speaker in (None, Speaker()):
            async with Microphone(echo_cancellation=speaker, noise_suppression=True) as microphone:
                left = b""
                for at in range(0, 4 * len(noise), BLOCK):
                    sound.inputs[-1].record(noise[at % len(noise) :][:BLOCK])
                    left = await anext(microphone) + left[: len(noise) // 2]
                assert rms_dbfs(left) < rms_dbfs(noise) - 4


async def test_a_closed_microphone_takes_nothing_from_the_speaker(
    sound: FakeSound, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Speaker()
    microphone = Microphone(echo_cancellation=speaker)
    for _ in range(2):
        async with microphone, Microphone(echo_cancellation=speaker):
            assert len(speaker._far_ends) == 2
        assert not speaker._far_ends
    sound.start_error = PortAudioError("unavailable")
    with pytest.raises(DeviceError):
        await microphone.__aenter__()
    assert not speaker._far_ends


@pytest.mark.parametrize("options", [{"echo_cancellation": True}, {"echo_cancellation": "speaker"}])
def test_echo_cancellation_takes_the_speaker(options: dict[str, Any]) -> None:
    with pytest.raises(
        TypeError, match=r"must be the Speaker that plays the assistant's audio, not (bool|str)"
    ):
        Microphone(**options)


@pytest.mark.parametrize("options", [{"echo_cancellation": Speaker()}, {"noise_suppression": True}])
async def test_without_pywebrtc_audio_it_says_what_to_install(
    options: dict[str, Any], sound: FakeSound, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("soxr", reason="needs numpy")
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(ImportError, match=r"need pywebrtc-audio, which is not installed; .*`audio`"):
        await Microphone(**options).__aenter__()
    assert not sound.inputs
