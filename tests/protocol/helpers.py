"""What the tests of the core share: a handshaken pair, frames written by hand, and draining."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    ClientConnection,
    Close,
    Command,
    Frame,
    LocalProtocolError,
    ServerConnection,
    UpgradeRequest,
)

URL: Final = "ws://gateway.example/v1/stream"
TOKEN: Final = "tok-5f2a"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY: Final = b"\x11\x22\x33\x44"

Connection = ClientConnection | ServerConnection


def client(**options: Any) -> ClientConnection:
    return ClientConnection(URL, TOKEN, **options)


def handshake(client: ClientConnection, server: ServerConnection) -> None:
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), UpgradeRequest)
    server.accept()
    client.receive_data(server.data_to_send())
    assert client.next_event() is NEED_DATA


def open_pair(
    client: ClientConnection | None = None, server: ServerConnection | None = None
) -> tuple[ClientConnection, ServerConnection]:
    """A client and a server, each as given or with default options, after their handshake."""
    client = client or ClientConnection(URL, TOKEN)
    server = server or ServerConnection()
    handshake(client, server)
    return client, server


def opened(role: str, **options: Any) -> Connection:
    """One side of a handshaken pair, the side that `role` names, built with `options`."""
    if role == "client":
        return open_pair(client=ClientConnection(URL, TOKEN, **options))[0]
    return open_pair(server=ServerConnection(**options))[1]


def drain(connection: Connection) -> list[Frame | Command]:
    """Every event there is; stops behind `Close`, after which `next_event` would raise."""
    events: list[Frame | Command] = []
    while (event := connection.next_event()) is not NEED_DATA:
        events.append(event)
        if isinstance(event, Close):
            break
    return events


def let_time_pass(connection: Connection, start: float, end: float) -> None:
    """Call `handle_timeout` at every deadline from `start` to `end`, as a caller with a clock does."""
    now = start
    while now <= end:
        connection.handle_timeout(now)
        deadline = connection.next_deadline()
        if deadline is None:
            return
        now = max(now, deadline)


def trickle(connection: Connection, data: bytes, size: int = 1) -> list[Frame | Command]:
    """The events of `data` received `size` bytes at a time; raises what `next_event` raises."""
    events: list[Frame | Command] = []
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size])
        events += drain(connection)
    return events


def only_event(connection: Connection) -> Frame | Command:
    (event,) = drain(connection)
    return event


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    masked: bool,
    fin: bool = True,
    rsv: int = 0,
    length_bytes: int | None = None,
) -> bytes:
    """One WebSocket frame, written independently of the core. `length_bytes` (0, 2, 8) forces the form of
    the length, also a longer one than RFC 6455 allows."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if length_bytes == 0:
        head += bytes([mask_bit | size])
    elif length_bytes == 2:
        head += bytes([mask_bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    return head + KEY + xor(payload, KEY)


def frame_for(role: str, opcode: int, payload: bytes = b"", **how: Any) -> bytes:
    """A frame as the peer of `role` writes it: clients mask."""
    return frame(opcode, payload, masked=role == "server", **how)


def xor(data: bytes, key: bytes) -> bytes:
    keys = key * (len(data) // 4 + 1)
    wide = int.from_bytes(data, "big") ^ int.from_bytes(keys[: len(data)], "big")
    return wide.to_bytes(len(data), "big")


def parse_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and unmasked payload of each frame in `data`; they must be whole, final and unfragmented."""
    return list(_parse_frames(data))


def _parse_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        assert data[0] & 0xF0 == 0x80
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = struct.unpack(">H", data[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack(">Q", data[2:10])[0], 10
        key = b"\0\0\0\0"
        if data[1] & 0x80:
            key, at = data[at : at + 4], at + 4
        payload = data[at : at + size]
        assert len(payload) == size
        yield data[0] & 0x0F, xor(payload, key)
        data = data[at + size :]


def close_frame(code: int, reason: str = "") -> tuple[int, bytes]:
    """A close frame as `parse_frames` shows it."""
    return CLOSE, struct.pack(">H", code) + reason.encode()


@contextlib.contextmanager
def says(text: str, error: type[Exception] = LocalProtocolError) -> Iterator[None]:
    """An error of that very text must come."""
    with pytest.raises(error) as caught:
        yield
    assert str(caught.value) == text


def fixed_entropy(seed: int = 1) -> random.Random:
    """A source whose `randbytes` gives the same bytes every time."""
    return random.Random(seed)
