"""The fuzz target holds for its seeds, so that it can't rot between the runs of the fuzzer."""

from __future__ import annotations

import random

import pytest

from tests.machines import driver

from . import receive

SEEDS = list(receive.seeds())


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_seed(seed: bytes) -> None:
    receive.receive(seed)


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
