"""Extensions of the plain protocol: the server offers them, the client uses or accepts them.

The server's `Ready` lists the names of its extensions; a peer that knows nothing of extensions sees only the
plain protocol. There are two kinds:

- commands that the client may send once they were offered, each named like its message: `COMMANDS`;
- `USAGE` changes what the server sends, so the client must accept it first: ``{"t": "extensions", "use":
  ["usage"]}``.

Each side ignores names that it does not know.
"""

from __future__ import annotations

from typing import Final

TEXT: Final = "text"
"""`TextIn`: an item of the conversation in writing."""
IMAGE: Final = "image"
"""`ImageIn`: a picture."""
RESPOND: Final = "respond"
"""`Respond`: the assistant speaks without a turn of the user."""
SAY: Final = "say"
"""`Say`: the assistant says a given text."""
UPDATE: Final = "update"
"""`Update`: the session's settings change while it is open."""
PLAYED: Final = "played"
"""`Played`: how much of the assistant's audio was heard."""
USAGE: Final = "usage"
"""The end of each answer as a message of its own, `ResponseEnd`, and all counts of `Usage`."""

COMMANDS: Final = (TEXT, IMAGE, RESPOND, SAY, UPDATE, PLAYED)
"""The extensions that are commands; each is also the ``t`` of its message."""

KNOWN: Final = (*COMMANDS, USAGE)
"""The extensions that this version can offer, and use or accept."""

_MAX_NAMES: Final = 64
"""The most names that are read from one message: far more than will ever exist."""


def read_names(value: object) -> tuple[str, ...]:
    """Return the names in a peer's list, without duplicates; ignore anything that is not a name."""
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(dict.fromkeys(name for name in value[:_MAX_NAMES] if isinstance(name, str)))
