"""Echo cancellation and noise suppression in simulated rooms, with recorded speech."""

from __future__ import annotations

import importlib
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speko_anyio.audio import EchoCanceller, NoiseSuppressor
from speko_anyio.audio._far_end import EchoPath
from speko_anyio.audio.resample import Resampler, resample
from speko_anyio.audio.wav import read_wav

for package in ("numpy", "soxr", "pywebrtc_audio"):
    pytest.importorskip(package, reason="needs the extra `audio`")

SPEECH = Path(__file__).parents[1] / "data" / "speech"
RATE = 24_000


@pytest.fixture(scope="module")
def rooms() -> Any:
    """The simulation that the benchmark uses. Any: the type checkers don't find the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return importlib.import_module("echo_rooms")


@pytest.fixture(scope="module")
def says(rooms: Any) -> Callable[[str], Any]:
    """Return the speech of a file of tests/data."""
    return lambda name: rooms.speech(read_wav(SPEECH / f"{name}.wav", sample_rate=RATE).pcm)


@pytest.fixture(scope="module")
def far(says: Callable[[str], Any]) -> Any:
    """Eight seconds of an assistant's speech."""
    human, voice = says("go-forward-ten-meters"), says("weather-in-oslo")
    return importlib.import_module("numpy").concatenate((human, voice, human, voice))


def settled(rooms: Any, heard: Any) -> Any:
    """Return which samples are speech, after two seconds in which the canceller may learn."""
    counted = rooms.loud(heard)
    counted[: 2 * RATE] = False
    return counted


def left_over(rooms: Any, far: Any, heard: Any, *, played: bytes | None = None, rate: int = RATE) -> float:
    """Return by how many dB the canceller reduces the echo `heard`."""
    near = rooms.to_pcm(heard + rooms.noise(len(heard)))
    canceller = EchoCanceller(sample_rate=rate)
    far_end = resample(rooms.to_pcm(far) if played is None else played, RATE, rate)
    clean = canceller.process(resample(near, RATE, rate), far_end)
    left = rooms.from_pcm(resample(clean, rate, RATE))
    return float(rooms.erle(heard[: len(left)], left, settled(rooms, heard[: len(left)])))


@pytest.mark.parametrize(("room", "least"), [("SMALL", 28.0), ("LIVELY", 20.0)])
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06, 0.12, 0.25, 0.4])
def test_echo_is_cancelled_in_rooms_of_all_delays(
    room: str, least: float, delay: float, rooms: Any, far: Any
) -> None:
    heard = rooms.echo(far, getattr(rooms, room), delay)
    assert left_over(rooms, far, heard) > least


def test_the_measure_shows_a_canceller_that_gets_the_wrong_far_end(rooms: Any, far: Any) -> None:
    heard = rooms.echo(far, rooms.SMALL, 0.02)
    assert left_over(rooms, far, heard, played=bytes(2 * len(far))) < 3
    late = rooms.shifted(far, round(0.06 * RATE))[: len(far)]
    assert left_over(rooms, far, heard, played=rooms.to_pcm(late)) < 10


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_echo_is_cancelled_at_every_rate(rate: int, rooms: Any, far: Any) -> None:
    assert left_over(rooms, far, rooms.echo(far, rooms.SMALL, 0.06), rate=rate) > 20


def test_speech_alone_passes_within_10_ms(rooms: Any, says: Callable[[str], Any]) -> None:
    np = importlib.import_module("numpy")
    near = says("go-forward-ten-meters")
    near = near[: len(near) // 240 * 240]
    clean = rooms.from_pcm(EchoCanceller().process(rooms.to_pcm(near), bytes(2 * len(near))))
    assert len(clean) == len(near)
    likeness = [float(np.dot(clean[delay:], near[: len(near) - delay])) for delay in range(480)]
    delay = likeness.index(max(likeness))
    assert delay <= 0.010 * RATE
    frequencies = np.fft.rfftfreq(len(near), 1 / RATE)
    before, after = (np.abs(np.fft.rfft(signal)) ** 2 for signal in (near, clean))
    for octave in (200, 400, 800, 1_600, 3_200):
        band = (frequencies >= octave) & (frequencies < 2 * octave)
        assert 10 * np.log10(after[band].sum() / before[band].sum()) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("room", ["SMALL", "LIVELY"])
def test_who_talks_over_the_assistant_is_heard(
    room: str, rooms: Any, far: Any, says: Callable[[str], Any]
) -> None:
    np = importlib.import_module("numpy")
    heard = rooms.echo(far, getattr(rooms, room), 0.06)
    user = says("go-forward-ten-meters")
    near = np.zeros(len(far))
    near[5 * RATE : 5 * RATE + len(user)] = user * rooms.rms(heard) / rooms.rms(user)
    silence = bytes(2 * len(far))
    both = EchoCanceller().process(rooms.to_pcm(heard + near + rooms.noise(len(far))), rooms.to_pcm(far))
    alone = EchoCanceller().process(rooms.to_pcm(near + rooms.noise(len(far))), silence)
    kept, whole = rooms.from_pcm(both), rooms.from_pcm(alone)
    talking = rooms.loud(near)[: len(kept)]
    assert 20 * np.log10(rooms.rms(kept[talking]) / rooms.rms(whole[talking])) > -6
    # As loud as before, and mostly the user: the assistant's voice was as loud.
    assert 20 * np.log10(rooms.rms(whole[talking]) / rooms.rms((kept - whole)[talking])) > 2


@pytest.mark.parametrize("near_rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("far_rate", [24_000, 44_100, 48_000])
def test_devices_of_different_rates(near_rate: int, far_rate: int, rooms: Any, far: Any) -> None:
    heard = rooms.echo(far, rooms.SMALL, 0.06)
    near = resample(rooms.to_pcm(heard + rooms.noise(len(heard))), RATE, near_rate)
    played = resample(rooms.to_pcm(far), RATE, far_rate)
    path = EchoPath(EchoCanceller(), Resampler(near_rate, RATE))
    size, far_size = near_rate // 50 * 2, far_rate // 50 * 2
    clean = b"".join(
        path.process(
            near[number * size : (number + 1) * size],
            played[number * far_size : (number + 1) * far_size],
            far_rate,
        )
        for number in range(len(near) // size)
    )
    # Conversions and the canceller together hold back little: the user waits for it.
    assert len(rooms.from_pcm(clean)) >= len(far) - 0.06 * RATE
    left = rooms.from_pcm(clean)
    heard = heard[: len(left)]
    assert rooms.erle(heard, left, settled(rooms, heard)) > 25


def test_a_loudspeaker_of_another_rate_in_between(rooms: Any, far: Any) -> None:
    heard = rooms.echo(far, rooms.SMALL, 0.06)
    near = rooms.to_pcm(heard + rooms.noise(len(heard)))
    pcm = rooms.to_pcm(far)
    other = resample(pcm, RATE, 48_000)
    path = EchoPath(EchoCanceller(), Resampler(RATE, RATE))
    clean = bytearray()
    for number in range(len(near) // 960):
        if 100 <= number < 200:
            clean += path.process(
                near[number * 960 : (number + 1) * 960], other[number * 1920 : (number + 1) * 1920], 48_000
            )
        else:
            clean += path.process(
                near[number * 960 : (number + 1) * 960], pcm[number * 960 : (number + 1) * 960], RATE
            )
    left = rooms.from_pcm(bytes(clean))
    heard = heard[: len(left)]
    assert rooms.erle(heard, left, settled(rooms, heard)) > 25


def test_nothing_is_held_back_for_a_loudspeaker_that_changes_its_rate() -> None:
    path = EchoPath(EchoCanceller(), Resampler(RATE, RATE))
    given = 0
    for number in range(400):
        rate = (44_100, 48_000)[number // 10 % 2]
        given += len(path.process(bytes(960), bytes(rate // 50 * 2), rate))
    assert given > 400 * 960 - 0.06 * RATE * 2


def test_the_result_does_not_depend_on_the_pieces(rooms: Any, far: Any) -> None:
    near, played = rooms.to_pcm(rooms.echo(far, rooms.SMALL, 0.02)), rooms.to_pcm(far)
    whole = EchoCanceller().process(near, played)
    assert len(whole) == len(near) // 480 * 480
    canceller = EchoCanceller()
    sizes = [2, 480, 38, 0, 960, 1_000, 6_002]
    pieces, at = bytearray(), 0
    while at < len(near):
        size = sizes[at % len(sizes)] or 478
        pieces += canceller.process(near[at : at + size], played[at : at + size])
        at += size
    assert pieces == whole
    assert NoiseSuppressor().process(near)[:960] == NoiseSuppressor().process(near[:960])


def test_after_a_reset_it_is_as_new(rooms: Any, far: Any) -> None:
    near, played = rooms.to_pcm(rooms.echo(far, rooms.SMALL, 0.02)), rooms.to_pcm(far)
    canceller = EchoCanceller(noise_suppression=True)
    first = canceller.process(near, played)
    canceller.process(near[:202], played[:202])
    canceller.reset()
    assert canceller.process(near, played) == first
    suppressor = NoiseSuppressor()
    quiet = suppressor.process(near)
    suppressor.process(near[:202])
    suppressor.reset()
    assert suppressor.process(near) == quiet


@pytest.mark.parametrize("kind", ["canceller", "suppressor"])
def test_steady_noise_is_reduced_and_speech_is_not(kind: str, rooms: Any, says: Callable[[str], Any]) -> None:
    np = importlib.import_module("numpy")
    user = says("go-forward-ten-meters")
    speech = np.concatenate((np.zeros(6 * RATE), user))
    fan = rooms.noise(len(speech)) * 10  # 20 dB louder: 43 dB below full scale

    def process(signal: Any) -> Any:
        if kind == "suppressor":
            return rooms.from_pcm(NoiseSuppressor().process(rooms.to_pcm(signal)))
        canceller = EchoCanceller(noise_suppression=True)
        return rooms.from_pcm(canceller.process(rooms.to_pcm(signal), bytes(2 * len(signal))))

    quiet = process(speech + fan)
    before, after = slice(5 * RATE, 6 * RATE), slice(6 * RATE, None)
    assert 20 * np.log10(rooms.rms(fan[before]) / rooms.rms(quiet[before])) > 5
    talking = rooms.loud(user)[: len(quiet) - 6 * RATE]
    change = 20 * np.log10(rooms.rms(quiet[after][talking]) / rooms.rms(user[: len(talking)][talking]))
    assert abs(change) < 2


def test_digital_silence_at_the_far_end_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would cost 12 times the CPU time of speech: the filters decay to denormal numbers.
    np = importlib.import_module("numpy")
    passed: list[Any] = []

    class Processor:
        def __init__(self, **_options: object) -> None:
            pass

        def process(self, near: Any, far: Any) -> Any:
            passed.append((near, far))
            return near

    monkeypatch.setattr(importlib.import_module("pywebrtc_audio"), "AudioProcessor", Processor)
    far = np.array([0, 1, -1, 32767, -32768, -2], "<i2").repeat(80)
    near = far[::-1].copy()
    assert EchoCanceller().process(near.tobytes(), far.tobytes()) == near.tobytes()
    ((got_near, got_far),) = passed
    assert (got_near == near).all()
    changes = got_far.astype(int) - far
    assert set(changes) == {-1, 0, 1}
    assert 8 < np.count_nonzero(changes[:80]) < 72


def test_what_it_refuses() -> None:
    canceller = EchoCanceller()
    with pytest.raises(ValueError, match="near end has 4 bytes and the far end 2; pass as much of both"):
        canceller.process(bytes(4), bytes(2))
    with pytest.raises(ValueError, match="3 bytes are not whole"):
        canceller.process(bytes(3), bytes(3))
    with pytest.raises(TypeError, match="array of floating-point numbers"):
        canceller.process(array("f", [0.0]), bytes(4))  # type: ignore[arg-type]
    # Nothing of that was kept.
    assert canceller.process(bytes(480), bytes(480)) == bytes(480)
    assert canceller.process(array("h", [0] * 240), bytearray(480)) == bytes(480)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 bytes are not whole"):
        NoiseSuppressor().process(bytes(3))


@pytest.mark.parametrize("kind", [EchoCanceller, NoiseSuppressor])
def test_rates_that_no_session_has(kind: type[EchoCanceller | NoiseSuppressor]) -> None:
    for rate in (0, 24, 7_999, 192_001):
        with pytest.raises(ValueError, match=f"the sample rate is {rate}; pass 8000 to 192000"):
            kind(sample_rate=rate)


@pytest.mark.parametrize("kind", [EchoCanceller, NoiseSuppressor])
def test_without_the_package_it_says_what_to_install(
    kind: type[EchoCanceller | NoiseSuppressor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(
        ImportError, match=r"need pywebrtc-audio, which is not installed; .*`audio`"
    ) as caught:
        kind()
    assert caught.value.name == "pywebrtc_audio"
