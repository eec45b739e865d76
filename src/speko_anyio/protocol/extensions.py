"""What two ends may say beyond the plain protocol: offered by the server, taken up by the client.

The server's `Ready` carries the names of what it offers. A client that knows some of them says so once, in
its answer to that `Ready`, ``{"t": "extensions", "use": ["usage"]}``, and only then does the server use them.
So a peer that knows nothing of this sees the plain protocol and nothing else. Names that a side does not know
are passed over.
"""

from __future__ import annotations

from typing import Final

USAGE: Final = "usage"
"""The end of each answer as a message of its own, `ResponseEnd`."""

KNOWN: Final = (USAGE,)
"""What this version can offer and take up."""

_MAX_NAMES: Final = 64
"""Names of one message that are read: far more than there will be."""


def read_names(value: object) -> tuple[str, ...]:
    """The names in a peer's list of them, each once; whatever is not a name is passed over."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(dict.fromkeys(name for name in value[:_MAX_NAMES] if isinstance(name, str)))
