"""The far end on its way to the microphone: alignment, whatever callbacks and clocks do."""

from __future__ import annotations

import importlib
import random
import threading
from typing import Any

import pytest

from speko_anyio.audio import _far_end as module
from speko_anyio.audio._far_end import FarEnd
from speko_anyio.audio._pcm import samples, to_bytes
from tests.audio.test_echo import far, rooms, says, settled

__all__ = ["far", "rooms", "says"]

RATE = 24_000
BLOCK = 480
"""Samples of 20 ms."""
SIZE = 2 * BLOCK


def numbered(block: int, *, count: int = BLOCK) -> bytes:
    """Samples that say where they are, from 1."""
    values = (1 + (block * count + sample) % 30_000 for sample in range(count))
    return to_bytes(module_array(values))


def module_array(values: Any) -> Any:
    return importlib.import_module("array").array("h", values)


def run(plan: list[tuple[float, str]]) -> tuple[FarEnd, list[bytes]]:
    """Call back as `plan` says, each device with a block."""
    far_end = FarEnd(RATE)
    taken: list[bytes] = []
    put = 0
    for now, what in sorted(plan):
        if what == "play":
            far_end.put(numbered(put), RATE, now)
            put += 1
        else:
            pcm, rate = far_end.take(SIZE, now)
            assert rate == RATE
            assert len(pcm) == SIZE
            taken.append(pcm)
    return far_end, taken


def played(blocks: int, *, behind: float) -> bytes:
    """What is taken of `blocks` blocks by a microphone that is so many seconds behind."""
    return (bytes(2 * round(behind * RATE)) + b"".join(map(numbered, range(blocks))))[: blocks * SIZE]


@pytest.mark.parametrize("phase", [0.0, 0.001, 0.007, 0.013, 0.0195])
def test_of_steady_callbacks_nothing_is_lost(phase: float) -> None:
    plan = [(0.02 * n, "play") for n in range(500)] + [
        (0.02 * n + phase + 1e-6, "record") for n in range(500)
    ]
    _, taken = run(plan)
    # A block, since its end is played when the next one is put, and 2 ms in which that may be late.
    assert b"".join(taken) == played(500, behind=0.022 - phase)


def test_before_the_loudspeaker_starts_there_is_silence() -> None:
    plan = [(0.02 * n, "record") for n in range(10)]
    plan += [(0.1 + 0.02 * n - 0.005, "play") for n in range(10)]
    _, taken = run(plan)
    assert taken[:5] == [bytes(SIZE)] * 5
    assert b"".join(taken[5:]) == played(5, behind=0.017)


def test_a_few_late_callbacks_leave_gaps_and_nothing_moves() -> None:
    late = {7: 0.015, 20: 0.009, 90: 0.019, 110: 0.012}
    plan = [(0.02 * n + late.get(n, 0), "play") for n in range(200)]
    plan += [(0.02 * n + 0.004, "record") for n in range(200)]
    _, taken = run(plan)
    steady = played(200, behind=0.018)
    got = b"".join(taken)
    right = [got[at : at + SIZE] == steady[at : at + SIZE] for at in range(0, len(got), SIZE)]
    assert [number for number, same in enumerate(right) if not same] == [7, 20, 90, 110]
    assert got[7 * SIZE : 8 * SIZE] == steady[7 * SIZE :][: 2 * round(0.018 * RATE)] + bytes(
        2 * round(0.002 * RATE)
    )


def test_many_late_callbacks_move_it_once() -> None:
    plan = [(0.02 * n + (0.012 if n % 5 == 0 else 0), "play") for n in range(300)]
    plan += [(0.02 * n + 0.008, "record") for n in range(300)]
    _, taken = run(plan)
    got, size = b"".join(taken), 50 * SIZE
    assert got[:size] != played(300, behind=0.014)[:size]
    assert got[size:] == played(300, behind=0.020)[size:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_callbacks_that_vary_a_lot_move_little_in_vain(seed: int) -> None:
    dice = random.Random(seed)
    plan = [
        (0.02 * number + phase + dice.random() * 0.03, what)
        for number in range(3_000)
        for phase, what in ((0.0, "play"), (0.013, "record"))
    ]
    far_end = FarEnd(RATE)
    moves = 0
    for now, what in sorted(plan):
        if what == "play":
            far_end.put(bytes(SIZE), RATE, now)
        else:
            before = far_end._next
            far_end.take(SIZE, now)
            moves += before is not None and far_end._next != before + BLOCK
    assert moves <= 5  # within a minute


def test_a_stopped_loudspeaker_is_silent_and_begins_anew() -> None:
    plan = [(0.02 * n, "play") for n in range(10)] + [(5 + 0.02 * n, "play") for n in range(10)]
    plan += [(0.02 * n + 0.012, "record") for n in range(260)]
    _, taken = run(plan)
    assert b"".join(taken[:10]) == played(10, behind=0.010)
    assert set(taken[11:250]) == {bytes(SIZE)}
    begun = bytes(2 * 240) + b"".join(numbered(n) for n in range(10, 20))
    assert b"".join(taken[250:]) == begun[: 10 * SIZE]


def test_another_rate_is_another_beginning() -> None:
    far_end = FarEnd(RATE)
    far_end.put(numbered(0), RATE, 0.0)
    assert far_end.take(SIZE, 0.012) == (played(1, behind=0.010), RATE)
    far_end.put(numbered(0, count=882), 44_100, 0.02)
    pcm, rate = far_end.take(SIZE, 0.032)
    assert (len(pcm), rate) == (2 * 882, 44_100)
    assert pcm == (bytes(2 * 441) + numbered(0, count=882))[: 2 * 882]


def test_takes_of_odd_lengths_last_as_long_as_what_was_recorded() -> None:
    far_end = FarEnd(16_000)
    taken = 0
    for number in range(1_000):
        far_end.put(bytes(441 * 2), 22_050, number * 0.02)
        taken += len(far_end.take(2 * (319 + number % 3), number * 0.02 + 0.001)[0]) // 2
    assert taken == pytest.approx(1_000 * 441, abs=2)


def test_what_nobody_takes_is_forgotten() -> None:
    far_end = FarEnd(RATE)
    for number in range(10_000):
        far_end.put(numbered(number), RATE, number * 0.02)
    assert len(far_end._audio) <= 2 * RATE
    pcm, _ = far_end.take(SIZE, 9_999 * 0.02 + 0.002)
    assert pcm == numbered(9_998)


@pytest.mark.parametrize("lost", [0.3, -0.12])
def test_audio_that_a_device_lost_is_made_up_for(lost: float) -> None:
    # After 2 seconds the microphone loses 0.3 seconds; or the loudspeaker 0.12, less than a stop.
    plan = [(0.02 * n + (-lost if lost < 0 and n >= 100 else 0), "play") for n in range(500)]
    plan += [(0.02 * n + 0.002 + (lost if lost > 0 and n >= 100 else 0), "record") for n in range(500)]
    _, taken = run([(now, what) for now, what in plan if now < 9.9])
    shift = -round(lost / 0.02) if lost < 0 else 0
    ahead = round(lost / 0.02) if lost > 0 else 0
    for number in range(250, 400):
        assert taken[number] == numbered(number - 1 - shift + ahead)


@pytest.mark.parametrize("drift", [0.001, -0.001])
def test_clocks_that_drift_apart(drift: float, rooms: Any, far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    np = importlib.import_module("numpy")
    played = np.concatenate((far, far, far, far, far))
    assert cancelled(rooms, played, rooms.Devices(latency=0.02, drift=drift)) > 15
    monkeypatch.setattr(module, "_WINDOW", 10**9)
    assert cancelled(rooms, played, rooms.Devices(latency=0.02, drift=drift)) < 10


@pytest.mark.parametrize(("jitter", "drift"), [(0.0, 0.0), (0.004, 0.0001), (0.004, -0.0001), (0.01, 0.0)])
def test_callbacks_of_real_threads_and_clocks(jitter: float, drift: float, rooms: Any, far: Any) -> None:
    assert cancelled(rooms, far, rooms.Devices(drift=drift, jitter=jitter)) > 25


def test_a_loudspeaker_that_takes_many_blocks_at_once(rooms: Any, far: Any) -> None:
    assert cancelled(rooms, far, rooms.Devices(latency=0.15, burst=5)) > 25


def cancelled(rooms: Any, played: Any, devices: Any) -> float:
    """Return by how many dB the echo is reduced in the last six seconds."""
    np = importlib.import_module("numpy")
    echo, resampling = (
        importlib.import_module(f"speko_anyio.audio.{name}") for name in ("_echo", "resample")
    )
    path = module.EchoPath(echo.EchoCanceller(), resampling.Resampler(RATE, RATE))
    heard, left = rooms.record(played, np.zeros(len(played)), rooms.SMALL, devices, path.process)
    counted = settled(rooms, heard)
    counted[: -6 * RATE] = False
    return float(rooms.erle(heard, left, counted))


def test_both_threads_at_once() -> None:
    far_end = FarEnd(RATE)
    done = threading.Event()

    def play() -> None:
        number = 0
        while not done.is_set():
            far_end.put(numbered(number), RATE, number * 0.02)
            number += 1

    thread = threading.Thread(target=play)
    thread.start()
    try:
        for number in range(2_000):
            pcm, _ = far_end.take(SIZE, number * 0.02)
            assert len(pcm) == SIZE
            assert len(samples(pcm)) == BLOCK
    finally:
        done.set()
        thread.join(10)
    assert not thread.is_alive()
