"""Every test of an adapter runs on every event loop and over every driver."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.drivers import EVERY_DRIVER, driven


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of the one of all tests."""
    return driven(request.param, monkeypatch)
