"""The fuzz targets hold for mutated inputs, and tell a parser that does not keep its word."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from speko_anyio.protocol import url

from . import bridges, carriers, mutation, parsers

TARGETS = (*parsers.TARGETS, *bridges.TARGETS, *carriers.TARGETS)


@pytest.mark.parametrize(("name", "target"), TARGETS, ids=[name for name, _ in TARGETS])
def test_target(name: str, target: Callable[[random.Random], None]) -> None:
    for number in range(60):
        target(random.Random(f"{name} {number}"))


def test_an_undocumented_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(address: str) -> None:
        raise KeyError(address)

    monkeypatch.setattr(url, "parse_url", broken)
    with pytest.raises(KeyError):
        mutation.keep_fuzzing(parsers.TARGETS[-2:], 5.0, 0)


def test_slow_and_large_work_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "SECONDS", 0.0)
    with pytest.raises(AssertionError, match=r"0\.0 s for 'x'"), mutation.bounded("x"):
        sum(range(100_000))
    monkeypatch.setattr(mutation, "SECONDS", 9.0)
    monkeypatch.setattr(mutation, "MEMORY", -1)
    with pytest.raises(AssertionError, match="MiB for 'x'"), mutation.bounded("x"):
        pass
