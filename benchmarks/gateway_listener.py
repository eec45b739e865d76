"""A handler for ``hostile.py``: it takes everything that a client of a conversation can send."""

from __future__ import annotations

from speko_anyio.gateway import ServerSession, takes
from speko_anyio.protocol import Capabilities


@takes(
    Capabilities(
        text=True,
        image=True,
        respond=True,
        say="verbatim",
        update=("system_prompt", "tools", "turns"),
        history=True,
        truncate=True,
    )
)
async def listen(session: ServerSession) -> None:
    """Take every command, and do nothing with it."""
    async for _ in session:
        pass
