"""The fuzz target holds for its seeds and for what the fuzzer found, so that it can't rot."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.machines import driver

from . import receive

SEEDS = list(receive.seeds())


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_seed(seed: bytes) -> None:
    receive.receive(seed)


CORPUS = sorted(Path(__file__).with_name("corpus").iterdir())
"""Inputs that reached code which no seed reaches."""


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 200


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_the_fuzzer_found(path: Path) -> None:
    receive.receive(path.read_bytes())


def test_mutated_seeds() -> None:
    dice = random.Random(1)
    for seed in SEEDS:
        mutated = bytearray(seed)
        for _ in range(3):
            mutated[dice.randrange(2, len(mutated))] = dice.randrange(256)
        receive.receive(bytes(mutated))


def test_target_tells_a_broken_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "DOCUMENTED", ())
    with pytest.raises(Exception, match="handshake"):
        receive.receive(b"\x09\x05HTTP/9\r\n\r\n")
