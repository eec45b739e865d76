"""Sessions that mask with a masker of one's choice: in C, where `websockets` is installed, or in Python."""

from __future__ import annotations

import sys
from typing import Final

import pytest

from speko_anyio.protocol import _masking as masking
from speko_anyio.protocol import _websocket as websocket

_MASKERS: Final = {masking.mask.__name__: masking.mask, "mask_in_python": masking.mask_in_python}

MASKERS: Final = tuple(_MASKERS)
"""Names of those that are here."""


def use_masker(name: str, patch: pytest.MonkeyPatch) -> None:
    """Makes the core mask with that masker, in sessions that begin from now on."""
    # `masking` itself is one of them: its keys have the form that the masker wants.
    modules = [
        module
        for path, module in sorted(sys.modules.items())
        if path.startswith("speko_anyio.protocol.") and hasattr(module, "mask")
    ]
    assert {masking, websocket} < set(modules)
    for module in modules:
        patch.setattr(module, "mask", _MASKERS[name])
