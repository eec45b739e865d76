"""The calls that audio takes through the package stay few: ``benchmarks/walks.py`` counts them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "walks.py"


@pytest.fixture(scope="module")
def walks() -> Any:
    spec = importlib.util.spec_from_file_location("walks", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["walks"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["walks"]


@pytest.mark.parametrize(("name", "calls"), [("openai", 155), ("xai", 162), ("google", 190)])
def test_seven_events_of_a_provider_reach_the_client(walks: Any, name: str, calls: int) -> None:
    walk = anyio.run(walks.provider_to_client, name)
    assert walks.EVENTS == 7
    assert walk.total <= calls, walk.calls.most_common()
    assert len(walk.files) <= 16, walk.files


def test_a_client_sends_and_hears_audio(walks: Any) -> None:
    sending, hearing = anyio.run(walks.client_sends_and_hears)
    assert sending.total <= 5, sending.calls.most_common()
    assert hearing.total <= 19, hearing.calls.most_common()
    assert len(sending.files) <= 4
    assert len(hearing.files) <= 6
