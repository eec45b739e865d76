"""Both maskers: whatever is asserted of bytes holds with the one in C and with the one in Python."""

from __future__ import annotations

import sys

import pytest

import speko_anyio.protocol.masking as masking_module
from speko_anyio.protocol.masking import mask_in_python

MODULES_THAT_MASK = [
    module
    for name, module in sorted(sys.modules.items())
    if name.startswith("speko_anyio.protocol.") and module is not masking_module and hasattr(module, "mask")
]


@pytest.fixture(params=["c", "python"])
def masker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the core mask with that masker."""
    in_c = request.param == "c"
    mask = pytest.importorskip("websockets.speedups").apply_mask if in_c else mask_in_python
    assert MODULES_THAT_MASK
    for module in MODULES_THAT_MASK:
        monkeypatch.setattr(module, "mask", mask)
