"""How to install an optional dependency, for every error about a missing one."""

from __future__ import annotations


def install_extra(*extras: str) -> str:
    """Return an instruction such as "install speko-anyio with the extra `gateway`".

    It is true before and after publication.
    """
    noun = "extra" if len(extras) == 1 else "extras"
    names = ",".join(extras)
    return f"install speko-anyio with the {noun} `{names}` (in a checkout: pip install '.[{names}]')"
