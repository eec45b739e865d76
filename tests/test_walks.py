"""The calls that audio takes through the package stay few: ``benchmarks/walks.py`` counts them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import anyio
import pytest

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(_BENCHMARKS)
    return importlib.import_module("walks")


@pytest.mark.parametrize(("name", "calls"), [("openai", 148), ("xai", 148), ("google", 148)])
def test_seven_events_of_a_provider_reach_the_client(walks: Any, name: str, calls: int) -> None:
    walk = anyio.run(walks.provider_to_client, name)
    assert walks.EVENTS == 7
    assert walk.total <= calls, walk.calls.most_common()
    assert len(walk.files) <= 15, walk.files


def test_a_client_sends_and_hears_audio(walks: Any) -> None:
    sending, hearing, handling = anyio.run(walks.client_sends_and_hears)
    assert sending.total <= 5, sending.calls.most_common()
    assert hearing.total <= 11, hearing.calls.most_common()
    assert handling.total <= 5, handling.calls.most_common()
    assert len(sending.files) <= 4
    assert len(hearing.files) <= 5
    assert len(handling.files) <= 3
