"""Both maskers: whatever is asserted of bytes holds with the one in C and with the one in Python."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import speko_anyio.protocol.masking as masking_module
from speko_anyio.protocol.masking import exclusive_or_in_python, mask_in_python


def users_of(name: str) -> list[ModuleType]:
    """The modules of the core that import `name` from `masking`."""
    return [
        module
        for path, module in sorted(sys.modules.items())
        if path.startswith("speko_anyio.protocol.") and module is not masking_module and hasattr(module, name)
    ]


IN_PYTHON = {"mask": mask_in_python, "exclusive_or": exclusive_or_in_python}


@pytest.fixture(params=["c", "python"])
def masker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the core mask with that masker."""
    for name, in_python in IN_PYTHON.items():
        apply = in_python
        if request.param == "c":
            apply = pytest.importorskip("websockets.speedups").apply_mask
        modules = users_of(name)
        assert modules
        for module in modules:
            monkeypatch.setattr(module, name, apply)
