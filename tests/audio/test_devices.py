"""Microphone and loudspeaker over a stand-in for sounddevice: no sound card, but real threads."""

from __future__ import annotations

import importlib
import sys
import threading
from itertools import dropwhile
from typing import Any

import anyio
import pytest

from speko_anyio import Audio, Interruption, SpekoError
from speko_anyio.audio import DeviceError, Microphone, Speaker
from speko_anyio.audio import _devices as devices
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
