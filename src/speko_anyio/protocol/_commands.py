"""What the client says to the server: one frozen Struct per command.

Names are snake_case here and camelCase on the wire (speko-protocol, "Client to server").
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .frames import Close, Expiring, Unknown


class UpgradeRequest(msgspec.Struct, frozen=True):
    """A client asks for a WebSocket. Answer with `ServerConnection.accept` or `refuse`."""

    target: str
    """Path and query, as sent."""
    host: str
    subprotocols: tuple[str, ...]
    """As offered, in order; the first one is the session's token (speko-protocol, section 2)."""
    headers: tuple[tuple[str, str], ...]
    """The other header fields, names in lower case."""

    def __repr__(self) -> str:
        # The subprotocols hold the token, the headers may hold more: neither belongs in a log.
        return f"UpgradeRequest(target={self.target!r}, host={self.host!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("target", self.target), ("host", self.host)]


class AudioIn(msgspec.Struct, frozen=True, gc=False):
    """A piece of the user's speech: a binary message."""

    pcm: bytes
    """PCM16, little-endian, mono: whole samples, so always an even number of bytes."""
    sample_rate: int
    """Samples a second."""

    def __repr__(self) -> str:
        return f"AudioIn(pcm=<{len(self.pcm)} bytes>, sample_rate={self.sample_rate})"


class Commit(msgspec.Struct, frozen=True, gc=False):
    """The user's turn is over: take the buffered audio and answer it."""


class Clear(msgspec.Struct, frozen=True, gc=False):
    """Forget the buffered audio that was not committed."""


class EndTurn(msgspec.Struct, frozen=True, gc=False):
    """The user's turn is over, in a session whose server detects turns (VAD)."""


class Interrupt(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="interrupt"):
    """Stop the response in flight."""


class ToolResult(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="tool_result"):
    """The result of a tool call."""

    call_id: str = ""
    output: str = ""
    """Text for the model; a structured result is JSON text."""


Command: TypeAlias = (
    UpgradeRequest | AudioIn | Commit | Clear | EndTurn | Interrupt | ToolResult | Unknown | Expiring | Close
)
"""Anything a server receives; an `UpgradeRequest` comes only at byte level, and only first."""
