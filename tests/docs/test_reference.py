"""The reference has every public name."""

from __future__ import annotations

import inspect
import re
from types import ModuleType

import pytest

import speko_anyio
import speko_anyio.audio
import speko_anyio.gateway

from .programs import DOCS

LISTED = set(re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("package", [speko_anyio, speko_anyio.gateway, speko_anyio.audio])
def test_the_reference_has_every_class_and_function(package: ModuleType) -> None:
    missing = []
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            module = value.__module__
            if module not in LISTED and f"{module}.{value.__qualname__}" not in LISTED:
                missing.append(name)
    assert missing == []
