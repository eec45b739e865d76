from __future__ import annotations

import importlib
import re
import sys
import threading
from array import array
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from speko_anyio._extras import install_extra
from speko_anyio.audio import _pcm as pcm
from speko_anyio.gateway.local import Synthesizer, UnknownVoiceError, speak_to_pcm
from speko_anyio.gateway.local import _synthesizer as module
from speko_anyio.gateway.local._synthesizer import CACHED_TEXTS, DEFAULT_VOICE, THREADS, _HibariSpeaker

LONG = "Every evening she lit the lamp in the tower, and then she told the sea what she had seen that day."


def loudest(samples: bytes) -> int:
    return max(map(abs, array("h", samples)), default=0)


def pronounced(text: str) -> str:
    speaker = module._speaker(DEFAULT_VOICE)
    assert isinstance(speaker, _HibariSpeaker)
    return re.sub("[ˈˌ ]", "", "".join(speaker.phonemes(text)))


@pytest.mark.speech
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_it_speaks(rate: int) -> None:
    spoken = speak_to_pcm("What time is it?", rate)
    assert 0.5 < pcm.duration(spoken, rate) < 2
    assert -30 < pcm.rms_dbfs(spoken) < -15
    assert loudest(spoken) <= 32_000


@pytest.mark.speech
def test_the_same_text_gets_the_same_samples() -> None:
    first = speak_to_pcm(LONG, 24_000)
    for number in range(CACHED_TEXTS + 1):
        speak_to_pcm(f"Number {number}.", 24_000)
    assert speak_to_pcm(LONG, 24_000) == first


@pytest.mark.speech
def test_speech_begins_at_once_and_ends_with_a_pause() -> None:
    for text, pause in (("Hello!", 0.28), ("Hello,", 0.12), ("hello", 0.04)):
        samples = array("h", speak_to_pcm(text, 24_000))
        loud = [at for at, sample in enumerate(samples) if abs(sample) > 300]
        assert loud[0] < 0.06 * 24_000
        assert pause < (len(samples) - loud[-1]) / 24_000 < pause + 0.12


@pytest.mark.speech
def test_pieces_join_without_a_click() -> None:
    for text in (LONG, "Hello! I am the offline voice. Ask me for the time.", "One, two, three."):
        samples = array("h", speak_to_pcm(text, 24_000))
        assert samples[0] == samples[-1] == 0
        # A cut through speech would be loud beside silence.
        silences = [at for at in range(240, len(samples) - 240) if not any(samples[at : at + 240])]
        for at in silences:
            assert abs(samples[at - 1]) < 100 or not samples[at - 1]


@pytest.mark.speech
@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It is 25 °C.", "It is twenty five degrees Celsius."),
        ("It is 3:25 PM.", "It is three twenty-five P.M."),
        ("7 - 3 = 4.", "seven minus three equals four."),
        ("10/2 = 5.", "ten divided by two equals five."),
        ("6 * 7 = 42.", "six times seven equals forty two."),
        ("2 + 3 is 5.", "two plus three is five."),
        ("2.5 is minus 1,250.", "two point five is minus one thousand two hundred fifty."),
        ("Pages 2-3 now.", "Pages two to three now."),
        ("Today is Monday, March 4.", "Today is Monday, March fourth."),
        ("Dr. Smith.", "doctor Smith."),
    ],
)
def test_numbers_and_abbreviations_are_read(written: str, spoken: str) -> None:
    assert pronounced(written) == pronounced(spoken)


@pytest.mark.speech
@pytest.mark.parametrize("text", ["", "   ", "...", "😀", "\0", "\ud800", "[a](/b/)", "x" * 3_000, "日本語"])
def test_any_text_is_spoken_or_passed_over(text: str) -> None:
    assert len(speak_to_pcm(text, 8_000)) % 2 == 0


@pytest.mark.speech
@pytest.mark.parametrize("voice", ["alloy", "../../etc/passwd", "", "en\0us", "x" * 500])
def test_unknown_voices_are_refused(voice: str) -> None:
    with pytest.raises(UnknownVoiceError, match="has no voice"):
        speak_to_pcm("Hello.", 16_000, voice=voice)


@pytest.mark.speech
def test_a_client_can_not_make_the_gateway_download_a_voice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    voices = importlib.import_module("hibari.voices")
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))
    monkeypatch.setattr(voices, "download", None)
    with pytest.raises(UnknownVoiceError, match="hibari --voice emma"):
        speak_to_pcm("Hello.", 16_000, voice="emma")


@pytest.mark.speech
def test_espeak_ng_speaks_when_it_is_installed_and_its_voice_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("espeakng_loader")
    american = len(speak_to_pcm("nine hundred", 16_000, voice="en-us+f3"))
    assert 0.5 < american / 32_000 < 2
    # It carries its pitch over from call to call, so the same text varies by 3 %; "de" is 8 % shorter.
    assert len(speak_to_pcm("nine hundred", 16_000, voice="de")) != pytest.approx(american, rel=0.04)
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(UnknownVoiceError, match="extra `espeak`"):
        speak_to_pcm("nine hundred", 16_000, voice="de")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(ImportError, match=re.escape(install_extra("local"))):
        speak_to_pcm("hello", 16_000)


@pytest.mark.anyio
@pytest.mark.speech
async def test_speech_is_streamed() -> None:
    async with Synthesizer() as synthesizer:
        pieces = [piece async for piece in synthesizer.synthesize(LONG, 16_000)]
    assert len(pieces) == 2
    assert b"".join(pieces) == speak_to_pcm(LONG, 16_000)


@pytest.mark.anyio
@pytest.mark.speech
async def test_few_pieces_are_synthesized_at_a_time_and_the_event_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, running, most, loop_thread = threading.Lock(), 0, 0, threading.get_ident()
    too_many = threading.Event()

    def speak(*_arguments: Any) -> bytes:
        nonlocal running, most
        assert threading.get_ident() != loop_thread
        with lock:
            running += 1
            most = max(most, running)
            if running > THREADS:
                too_many.set()
        too_many.wait(0.05)
        with lock:
            running -= 1
        return b"\0\0"

    async def use() -> None:
        async for _ in synthesizer.synthesize("One. Two.", 16_000):
            pass

    async with Synthesizer() as synthesizer:
        monkeypatch.setattr(module, "_speak", speak)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(use)
    assert most == THREADS


@pytest.mark.anyio
@pytest.mark.speech
async def test_cancelling_waits_for_one_piece_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[str] = []
    begun, go_on = anyio.Event(), threading.Event()

    def speak(clause: str, *_arguments: Any) -> bytes:
        spoken.append(clause)
        anyio.from_thread.run_sync(begun.set)
        go_on.wait(10)
        return b"\0\0"

    async def use() -> None:
        async with aclosing(synthesizer.synthesize("One. Two. Three.", 16_000)) as pieces:
            async for _ in pieces:
                pass

    async with Synthesizer() as synthesizer:
        monkeypatch.setattr(module, "_speak", speak)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                await begun.wait()
                tasks.cancel_scope.cancel()
                go_on.set()
    assert spoken == ["One."]


@pytest.mark.anyio
@pytest.mark.speech
async def test_another_voice_shares_the_threads() -> None:
    async with Synthesizer() as synthesizer:
        with pytest.raises(UnknownVoiceError):
            await synthesizer.with_voice("nobody")
        second = await synthesizer.with_voice("heart")
        pieces = [piece async for piece in second.synthesize("Yes.", 16_000)]
    assert pieces == [speak_to_pcm("Yes.", 16_000)]


@pytest.mark.anyio
async def test_outside_of_its_context_it_does_not_speak() -> None:
    with pytest.raises(RuntimeError, match="inside `async with Synthesizer"):
        await anext(Synthesizer().synthesize("Yes.", 16_000))


@pytest.mark.anyio
async def test_a_voice_that_there_is_not_is_told_at_startup() -> None:
    with pytest.raises(UnknownVoiceError):
        async with Synthesizer("nobody"):
            raise AssertionError("it runs")
