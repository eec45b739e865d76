"""`BargeInDetector` with recorded speech, echoes and noise at the rate of a phone line."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speko_anyio.audio import BargeInDetector, gain, mix, rms_dbfs
from speko_anyio.telephony.g711 import pcm_to_ulaw, ulaw_to_pcm
from speko_anyio.testing import mumble
from speko_anyio.testing.providers import tone
from tests.support.noise import RECORDINGS, Noise, noise_only, scene

RATE = 8000
FRAME = 320
SECONDS = 8.0


def pcm(seconds: float) -> int:
    """Return the bytes of so much audio."""
    return round(seconds * RATE) * 2


@cache
def assistant(pitch: float = 210.0) -> bytes:
    """What the assistant says: a voice without words, and a recorded one."""
    recorded = scene("librivox-0880", None, 0, RATE)
    said = recorded.pcm[pcm(recorded.start) : pcm(recorded.end)]
    return (said + mumble(SECONDS, sample_rate=RATE, pitch=pitch, seed=5))[: pcm(SECONDS)]


def recorded(name: str, level: float) -> bytes:
    """Return the speech of a recording, from its first syllable on."""
    heard = scene(name, None, 0, RATE)
    said = heard.pcm[pcm(heard.start) : pcm(heard.end)]
    return gain(said, level - rms_dbfs(said))


def line(sound: bytes, at: float = 0.0, *, floor: float = -60.0) -> bytes:
    """Return what comes from a phone: `sound` after `at` seconds, some noise, and µ-law."""
    noise = noise_only("pink", floor, SECONDS, RATE)
    heard = mix(bytes(pcm(at)) + sound, noise)[: pcm(SECONDS)]
    return ulaw_to_pcm(pcm_to_ulaw(heard))


def cuts(detector: BargeInDetector, user: bytes, playing: bytes | None = None) -> list[float]:
    """Return the times in seconds at which it hears an interruption."""
    playing = assistant() if playing is None else playing
    return [
        (at + FRAME) / 2 / RATE
        for at in range(0, len(user), FRAME)
        if detector.push(user[at : at + FRAME], playing[at : at + FRAME])
    ]


def echo(loss: float, delay: float) -> bytes:
    return line(gain(bytes(pcm(delay)) + assistant(), -loss))


@pytest.mark.parametrize("level", [-20.0, -26.0])
@pytest.mark.parametrize("at", [1.0, 3.0, 4.7])
@pytest.mark.parametrize("name", RECORDINGS[:2])
def test_speech_over_the_assistant_is_an_interruption(name: str, at: float, level: float) -> None:
    said = recorded(name, level)
    (first, *_) = cuts(BargeInDetector(RATE), line(said, at))
    # Gaps between words count up to 0.2 seconds.
    assert at + 0.48 <= first <= at + 0.8


def test_over_an_echo_too() -> None:
    user = mix(line(recorded("go-forward-ten-meters", -20.0), 3.0), gain(assistant(), -25.0))
    (first, *_) = cuts(BargeInDetector(RATE), user)
    assert 3.48 <= first <= 3.8


@pytest.mark.parametrize("backchannel", [0.0, 0.2, 0.3])
def test_it_is_as_fast_as_it_is_asked_to_be(backchannel: float) -> None:
    user = line(mumble(2.0, sample_rate=RATE, seed=1), 3.0)
    (first, *_) = cuts(BargeInDetector(RATE, backchannel=backchannel), user)
    assert 3.0 + backchannel <= first <= 3.0 + max(backchannel, 0.06) + 0.06


def test_speech_while_the_assistant_is_silent_is_a_turn_and_no_interruption() -> None:
    user = line(recorded("go-forward-ten-meters", -20.0), 3.0)
    assert cuts(BargeInDetector(RATE), user, bytes(len(user))) == []


@pytest.mark.parametrize("since", [0.9, 1.2, 1.5, 1.8])
def test_who_talks_on_when_the_assistant_begins_interrupts_it(since: float) -> None:
    user = line(mumble(4.0, sample_rate=RATE, seed=1), since)
    playing = bytes(pcm(2.0)) + assistant()[: pcm(SECONDS - 2.0)]
    (first, *_) = cuts(BargeInDetector(RATE), user, playing)
    assert 2.0 + 0.5 <= first <= 2.0 + 0.7


@pytest.mark.parametrize("length", [0.1, 0.3, 0.45])
def test_a_backchannel_does_not_interrupt(length: float) -> None:
    uh_huh = mumble(length, sample_rate=RATE, seed=1)
    assert cuts(BargeInDetector(RATE), line((uh_huh + bytes(pcm(1.0))) * 3, 2.0)) == []


@pytest.mark.parametrize("loss", [0.0, 6.0, 12.0, 16.0, 25.0])
@pytest.mark.parametrize("delay", [0.02, 0.15, 0.237, 0.411, 0.6])
def test_an_echo_does_not_interrupt(loss: float, delay: float) -> None:
    assert cuts(BargeInDetector(RATE), echo(loss, delay)) == []


@pytest.mark.parametrize("level", [-40.0, -20.0])
@pytest.mark.parametrize("noise", ["white", "pink"])
def test_noise_does_not_interrupt(noise: Noise, level: float) -> None:
    sound = noise_only(noise, level, SECONDS, RATE)
    assert cuts(BargeInDetector(RATE), line(sound)) == []
    for length in (0.6, 2.0):
        assert cuts(BargeInDetector(RATE), line(sound[: pcm(length)], 2.0)) == []


def test_tones_do_not_interrupt() -> None:
    assert cuts(BargeInDetector(RATE), line(tone(3.0, RATE), 2.0)) == []


def test_people_in_the_background_do_not_interrupt() -> None:
    assert cuts(BargeInDetector(RATE), line(noise_only("babble", -46.0, SECONDS, RATE))) == []


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_any_rate(rate: int) -> None:
    user = bytes(rate * 4) + mumble(2.0, sample_rate=rate, seed=1)
    playing = mumble(5.0, sample_rate=rate, pitch=210.0, seed=2)
    detector = BargeInDetector(rate)
    size = rate // 50 * 2
    found = [detector.push(user[at : at + size], playing[at : at + size]) for at in range(0, len(user), size)]
    assert found.index(True) * 0.02 == pytest.approx(2.5, abs=0.1)


def test_a_detector_of_speech_can_be_chosen() -> None:
    user = line(mumble(2.0, sample_rate=RATE, seed=1), 3.0)
    assert cuts(BargeInDetector(RATE, is_speech=lambda _: False), user) == []
    assert cuts(BargeInDetector(RATE, is_speech=lambda _: True), user) != []


@pytest.mark.parametrize("backchannel", [-0.1, float("nan"), float("inf")])
def test_a_time_is_a_time(backchannel: float) -> None:
    with pytest.raises(ValueError, match="backchannel"):
        BargeInDetector(RATE, backchannel=backchannel)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 2000).map(lambda samples: 2 * samples), min_size=1, max_size=8))
def test_packets_of_any_length(sizes: list[int]) -> None:
    """Frames are frames, however they are packed; so an interruption is found in the same one."""
    user = line(mumble(2.0, sample_rate=RATE, seed=1), 1.0)[: pcm(3.0)]
    playing = assistant()
    detector = BargeInDetector(RATE)
    (expected, *_) = cuts(BargeInDetector(RATE), user)
    before = at = 0
    for size in itertools.cycle(sizes):
        before, at = at, at + size
        if detector.push(user[before:at], playing[before:at]):
            break
        assert at < len(user)
    assert before / 2 / RATE <= expected + 0.1
    assert at / 2 / RATE >= expected - 0.1


def test_it_keeps_little() -> None:
    detector = BargeInDetector(RATE)
    for _ in range(1000):
        detector.push(b"\0\0", assistant()[: pcm(0.2)])
    assert len(detector._unframed_playing) <= pcm(0.5)
    said = recorded("librivox-0880", -20.0)
    for at in range(0, pcm(SECONDS), FRAME):
        detector.push(said[at : at + FRAME].ljust(FRAME, b"\1"), b"")
        assert len(detector._turns._turn) <= pcm(1.3)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=6))
def test_it_compares_seldom_whatever_it_hears(pattern: list[tuple[int, int]]) -> None:
    """A comparison takes as long as ten packets."""
    compared: list[int] = []

    class Counting(BargeInDetector):
        def _is_steady(self) -> bool:
            return False

        def _is_echo(self) -> bool:
            compared.append(1)
            return super()._is_echo()

    loud = b"\0\x20" * (FRAME // 2)
    frames = b"".join(loud * talk + bytes(FRAME * pause) for talk, pause in pattern)
    if not frames:
        return
    user = (frames * (pcm(20.0) // len(frames) + 1))[: pcm(20.0)]
    detector = Counting(RATE)
    for at in range(0, len(user), FRAME):
        detector.push(user[at : at + FRAME], bytes(FRAME - 2) + b"\1\1")
    assert len(compared) <= 30
