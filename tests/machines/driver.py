"""Connections made ready for a test, driven with bytes, and what they said in terms that compare."""

from __future__ import annotations

import base64
import gc
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from speko_anyio.protocol import (
    NEED_DATA,
    ClientConnection,
    Close,
    ConnectionClosed,
    HandshakeError,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    ServerConnection,
    SpekoError,
    State,
    UpgradeRequest,
)
from speko_anyio.protocol._extensions import KNOWN

AnyConnection: TypeAlias = ClientConnection | ServerConnection
Setup: TypeAlias = Callable[[ServerConnection], None]
Wire: TypeAlias = tuple[Any, ...]
"""What a frame says: ("text", str), ("binary" | "ping" | "pong", bytes) or ("close", int, str)."""

TOKEN = "tok.en-1"
URL = "ws://speko.test/session?id=1"

DOCUMENTED = (RemoteProtocolError, HandshakeError, ConnectionClosed)
"""What `next_event` may raise."""


def counting_entropy() -> Callable[[int], bytes]:
    """Entropy that repeats from run to run, and never gives the same four bytes twice within one."""
    state = 0

    def entropy(count: int) -> bytes:
        nonlocal state
        out = bytearray()
        while len(out) < count:
            state += 1
            out += hashlib.sha256(state.to_bytes(8, "big")).digest()[:16]
        return bytes(out[:count])

    return entropy


def make_client(limits: Limits, **options: Any) -> ClientConnection:
    """A client whose request is the same each time."""
    return ClientConnection(URL, TOKEN, limits=limits, entropy=counting_entropy(), **options)


def request_bytes() -> bytes:
    """A client's half of the handshake."""
    return make_client(Limits()).data_to_send()


def response_bytes() -> bytes:
    """A server's half of the handshake, as an answer to `request_bytes`."""
    _, _, rest = request_bytes().lower().partition(b"sec-websocket-key: ")
    start = len(request_bytes()) - len(rest)
    key = request_bytes()[start:].split(b"\r\n")[0]
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key + guid).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: " + TOKEN.encode() + b"\r\n\r\n"
    )


def make(*, client: bool, limits: Limits, **options: Any) -> AnyConnection:
    """A connection before its handshake; a client's request is already taken."""
    if not client:
        options.setdefault("extensions", KNOWN)
        return ServerConnection(limits=limits, entropy=counting_entropy(), **options)
    connection = make_client(limits, **options)
    connection.data_to_send()
    return connection


def opening(*, client: bool) -> bytes:
    """The bytes that open a connection of `make`."""
    return response_bytes() if client else request_bytes()


def accept_and_greet(server: ServerConnection) -> None:
    """What the server under test says first: two calls are open. A client without a token is refused."""
    try:
        server.accept()
    except LocalProtocolError:
        server.refuse(401, "no token")
        return
    server.send_ready()
    server.send_tool_call("a", "f", "{}")
    server.send_tool_call("b", "g", "{}")


# Frames out of bytes, by a reading of RFC 6455 that is not the core's


class Shape(NamedTuple):
    """What the header of a frame says."""

    first: int
    size: int
    header: int
    """Bytes of the header, without the masking key."""
    end: int
    """Bytes of the whole frame."""


def shape(data: bytes | bytearray) -> Shape | None:
    """The shape of the frame at the start of `data`; None when its header is not all there."""
    if len(data) < 2:
        return None
    size = data[1] & 0x7F
    extended = {126: 2, 127: 8}.get(size, 0)
    if len(data) < 2 + extended:
        return None
    if extended:
        size = int.from_bytes(data[2 : 2 + extended], "big")
    header = 2 + extended
    return Shape(data[0], size, header, header + (4 if data[1] & 0x80 else 0) + size)


def split_frames(data: bytes) -> Iterator[bytes]:
    """Whole frames; AssertionError when something is left over."""
    while data:
        found = shape(data)
        assert found is not None, "a frame was cut off"
        assert found.end <= len(data), "a frame was cut off"
        yield data[: found.end]
        data = data[found.end :]


class StockPeer:
    """A stock wsproto connection that reads what the core of the other role writes."""

    def __init__(self, *, reads_from_client: bool) -> None:
        self._head_seen = False
        self._stock = Connection(ConnectionType.SERVER if reads_from_client else ConnectionType.CLIENT)
        self._closed = False
        self._text = ""
        self._audio = b""
        self.keys: list[bytes] = []
        """Masking keys seen, in order."""

    def read(self, data: bytes) -> list[tuple[int, Wire]]:
        """What `data`, whole frames, says: (end of the frame in `data`, what it says)."""
        position = 0
        said: list[tuple[int, Wire]] = []
        for raw in split_frames(data):
            assert not self._closed, "a frame follows the close frame"
            position += len(raw)
            found = shape(raw)
            assert found is not None
            if raw[1] & 0x80:
                self.keys.append(raw[found.header : found.header + 4])
            self._stock.receive_data(raw)
            said += [(position, wire) for event in self._stock.events() for wire in self._said(event)]
        return said

    def _said(self, event: object) -> Iterator[Wire]:
        match event:
            case TextMessage(data=text, message_finished=finished):
                self._text += text
                if finished:
                    yield ("text", self._text)
                    self._text = ""
            case BytesMessage(data=data, message_finished=finished):
                self._audio += bytes(data)
                if finished:
                    yield ("binary", self._audio)
                    self._audio = b""
            case Ping(payload=payload):
                yield ("ping", bytes(payload))
            case Pong(payload=payload):
                yield ("pong", bytes(payload))
            case CloseConnection(code=code, reason=reason):
                assert self._stock.state.name == "REMOTE_CLOSING", (
                    f"wsproto calls the output broken: {reason}"
                )
                self._closed = True
                yield ("close", int(code), reason or "")
            case _:
                raise AssertionError(event)


# Driving


def drain(connection: AnyConnection, setup: Setup = accept_and_greet) -> tuple[list[Any], SpekoError | None]:
    """Every event there is, and the error that ends them, if they end. A request is answered by `setup`."""
    events: list[Any] = []
    while True:
        ended: SpekoError | None = None
        event: Any = None
        try:
            event = connection.next_event()
        except DOCUMENTED as error:
            ended = error
        if ended is not None:
            assert connection.error is ended
            return events, ended
        if event is NEED_DATA:
            return events, None
        if isinstance(event, UpgradeRequest):
            assert isinstance(connection, ServerConnection)
            setup(connection)
            continue
        assert not any(isinstance(earlier, Close) for earlier in events), "something follows Close"
        events.append(event)


def drive(
    connection: AnyConnection,
    pieces: Iterable[bytes],
    *,
    eof: bool,
    pull: Literal["each time", "at the end"] = "each time",
    setup: Setup = accept_and_greet,
) -> tuple[list[Any], SpekoError | None, bytes]:
    """Feed and drain. Returns the events, the final error and the bytes to send."""
    events: list[Any] = []
    out = bytearray()
    for piece in pieces:
        connection.receive_data(piece)
        if pull == "each time":
            events += drain(connection, setup)[0]
            out += connection.data_to_send()
    if eof:
        if pull == "at the end":  # what was said before must not fall with the connection
            events += drain(connection, setup)[0]
            out += connection.data_to_send()
        connection.receive_eof()
    more, error = drain(connection, setup)
    out += connection.data_to_send()
    return events + more, error, bytes(out)


def comparable_error(error: SpekoError | None) -> tuple[Any, ...] | None:
    """An error as its type, its words and its attributes."""
    return None if error is None else (type(error), str(error), tuple(sorted(vars(error).items())))


def check_end(connection: AnyConnection, events: list[Any], error: SpekoError | None) -> None:
    """What holds after the last event of any connection."""
    if error is None:
        assert connection.state is not State.CLOSED
        assert not any(isinstance(event, Close) for event in events)
        return
    assert connection.state is State.CLOSED
    assert connection.next_deadline() is None
    closes = [event for event in events if isinstance(event, Close)]
    if isinstance(error, HandshakeError):
        assert closes == []
    elif connection.closed is not None:
        assert closes == [connection.closed]
        assert events[-1] is closes[0]
    connection.receive_data(b"\x82\x00")
    connection.receive_eof()
    for _ in range(2):
        again = drain(connection)
        assert again == ([], error), "the end is not sticky"


def deep_size(root: object) -> int:
    """Bytes that `root` keeps alive, whatever its attributes are called; shared code is not counted."""
    code = (type, types.ModuleType, types.FunctionType, types.CodeType)
    # Tracebacks, and the frames of generators under a tracer, lead to the caller, which is not the core's.
    shared = (*code, types.TracebackType, types.FrameType)
    seen: set[int] = set()
    todo = [root]
    total = 0
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, shared):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        todo += [] if isinstance(item, (bytes, str, bytearray)) else gc.get_referents(item)
    return total
