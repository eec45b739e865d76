"""Public names that load their module on first use, so that importing a package stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from ._extras import install_extra

_ROOT: Final = __name__.partition(".")[0]

_PUBLIC: Final = (
    "",
    ".audio",
    ".audio.wav",
    ".protocol",
    ".protocol.mint",
    ".providers.openai",
    ".providers.openai_calls",
    ".providers.xai",
    ".providers.google",
    ".providers.bridge",
    ".telephony",
    ".recording",
    ".otel",
    ".gateway",
    ".gateway.local",
    ".gateway.engines",
    ".gateway.store",
    ".testing",
    ".testing.providers",
)
"""Where users import from: the nearest to an application first."""


def lazy_exports(
    package: str,
    homes: Mapping[str, str],
    *,
    extra: str = "",
    requires: Collection[str] = (),
) -> None:
    """Give `package`, whose public names live in submodules, a ``__getattr__`` and a ``__dir__`` (PEP 562).

    - `homes` maps each submodule, relative to the package, to the names that come from it,
      separated by spaces.
    - `requires`: top-level modules that `extra` installs; where one is missing, the ImportError says so.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}
    module = sys.modules[package]

    def load(name: str) -> object:
        if name not in home_of:
            if (home := _other_home(package, name)) is not None:
                # Python replaces the text of an AttributeError in `from ... import ...`.
                raise ImportError(f"{package} has no {name}; write `from {home} import {name}`", name=package)
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        try:
            value: object = getattr(import_module(f"{package}.{home_of[name]}"), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in requires:
                raise
            raise ImportError(
                f"the {extra} needs {missing}, which is not installed; {install_extra(extra)}", name=missing
            ) from None
        setattr(module, name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(module), *home_of})

    # Not assigned in the package itself: type checkers would take any name for one of its attributes.
    vars(module).update(__getattr__=load, __dir__=names)


def _other_home(package: str, name: str) -> str | None:
    """Return the public package or module that `name` is imported from, if it is not `package` itself."""
    # The import system asks a package for a submodule in this way before it loads it.
    if name.startswith("_") or find_spec(f"{package}.{name}") is not None:
        return None
    for suffix in _PUBLIC:
        try:
            module = import_module(_ROOT + suffix)
        except ImportError:  # of an extra
            continue
        value = vars(module).get(name)
        if name in getattr(module, "__all__", ()) or getattr(value, "__module__", None) == module.__name__:
            return module.__name__
    return None
