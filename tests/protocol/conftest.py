"""Both maskers: whatever is asserted of bytes holds with the one in C and with the one in Python."""

from __future__ import annotations

import pytest

from tests.support.maskers import MASKERS, use_masker


@pytest.fixture(params=MASKERS)
def masker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the core mask with that masker."""
    use_masker(request.param, monkeypatch)
