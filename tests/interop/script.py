"""What a foreign peer does in a test and what it tells of it, as data: peers have more than one language."""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol, TypeAlias

import msgspec

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.-_~x"
"""The subprotocol of all these tests; base64url, as a JWT has it."""

Role: TypeAlias = Literal["client", "server"]


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to do; `do` names it, see `perform`."""

    do: Literal["binary", "text", "fragments", "ping", "receive", "close", "die"]
    size: int = 0
    text: str = ""
    sizes: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    code: int = 0


class Report(msgspec.Struct, frozen=True):
    """How the session was for the peer."""

    subprotocol: str | None = None
    extensions: str = ""
    received: tuple[str, ...] = ()
    """Text messages as they are, binary ones as `fingerprint`."""
    pongs: int = 0
    """Of its pings, those answered with their own payload."""
    code: int = 0
    reason: str = ""
    refused: int = 0
    """The HTTP status, when there was no session."""


def payload(size: int) -> bytes:
    """What a peer sends when it is told to send so many bytes (the same in ``peer.mjs``)."""
    pattern = bytes((31 * i + size) & 0xFF for i in range(256))
    return (pattern * (size // 256 + 1))[:size]


def fingerprint(data: bytes) -> str:
    """A binary message in a `Report`."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()}"


def beginning_of_a_frame(role: Role) -> bytes:
    """A header that promises 960 bytes, and 100 of them."""
    key = b"" if role == "server" else bytes(4)
    return bytes((0x82, 0x7E if role == "server" else 0xFE)) + (960).to_bytes(2, "big") + key + bytes(100)


class Endpoint(Protocol):
    """A WebSocket of some library, as `perform` needs it.

    - `send_fragments`: one message in pieces, with a ping before each but the first, whose pong is waited
      for; returns the number of pongs.
    - `ping`: returns when the pong with this payload is here.
    - `close`: returns when the closing handshake is done.
    - `closed`: waits for the end; the close code and reason received, 1006 when there was none.
    - `die`: cuts the connection within a frame.
    """

    @property
    def subprotocol(self) -> str | None: ...
    @property
    def extensions(self) -> str: ...
    async def send(self, message: str | bytes) -> None: ...
    async def send_fragments(self, pieces: list[str] | list[bytes]) -> int: ...
    async def ping(self, data: bytes) -> None: ...
    async def receive(self) -> str | bytes: ...
    async def close(self, code: int, reason: str) -> None: ...
    async def closed(self) -> tuple[int, str]: ...
    def die(self) -> None: ...


async def perform(endpoint: Endpoint, steps: tuple[Step, ...]) -> Report:
    """Go through the steps, wait for the end, and tell of it."""
    received = []
    pongs = 0
    subprotocol, extensions = endpoint.subprotocol, endpoint.extensions
    for step in steps:
        match step.do:
            case "binary":
                await endpoint.send(payload(step.size))
            case "text":
                await endpoint.send(step.text)
            case "fragments":
                in_bytes = [payload(size) for size in step.sizes]
                pongs += await endpoint.send_fragments(list(step.pieces) or in_bytes)
            case "ping":
                await endpoint.ping(payload(step.size))
                pongs += 1
            case "receive":
                for _ in range(step.size):
                    message = await endpoint.receive()
                    received.append(message if isinstance(message, str) else fingerprint(message))
            case "close":
                await endpoint.close(step.code, step.text)
            case "die":
                endpoint.die()
    code, reason = await endpoint.closed()
    return Report(subprotocol, extensions, tuple(received), pongs, code, reason)
