"""One backend matrix for every test that awaits: asyncio, eager tasks where there are any, uvloop, trio."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.event_loops import EVENT_LOOPS, event_loop

# The same examples in each run, so that a change is judged by what it does and not by luck, and each part's
# coverage is the same as well. New examples are what `nox -s deep` looks for.
settings.register_profile("fast", max_examples=50, deadline=None, print_blob=True, derandomize=True)
settings.register_profile(
    "deep", max_examples=100_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_finish() -> None:
    # Hidden from the collector, which would look at each of the thousands of tests again and again: with
    # them, one collection takes a tenth of a second.
    gc.collect()
    gc.freeze()


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The backend a test runs on: every test marked `anyio` runs on each event loop."""
    return event_loop(request.param)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxies this machine has, the tests talk to the loopback."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
