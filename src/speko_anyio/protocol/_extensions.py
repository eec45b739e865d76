"""Extensions of the plain protocol: the server offers them, the client accepts them.

The server's `Ready` lists the names of its extensions. A client that knows some of them replies once, ``{"t":
"extensions", "use": ["usage"]}``, and only then does the server use them. So a peer that knows nothing of
extensions sees only the plain protocol. Each side ignores names that it does not know.
"""

from __future__ import annotations

from typing import Final

USAGE: Final = "usage"
"""The end of each answer as a message of its own, `ResponseEnd`."""

KNOWN: Final = (USAGE,)
"""The extensions that this version can offer and accept."""

_MAX_NAMES: Final = 64
"""The most names that are read from one message: far more than will ever exist."""


def read_names(value: object) -> tuple[str, ...]:
    """Return the names in a peer's list, without duplicates; ignore anything that is not a name."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(dict.fromkeys(name for name in value[:_MAX_NAMES] if isinstance(name, str)))
