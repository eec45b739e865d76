"""WebSocket libraries doing the same work: payloads into frames, and frames into payloads.

Each peer is called through what it offers to applications or, if that needs an event loop, through the
nearest layer below it, with a transport that only takes the bytes. The docstring of each says which of its
work is left out; in doubt more of a peer's work is left out than of ours. Every loop binds its methods to
local names first, ours and theirs alike.

The times exclude reading from a socket. The loops do not fetch replies (pongs and the like) after decoding,
though the contracts of ours and of websockets demand it: here are no replies to fetch.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeVar
from unittest import mock

from measuring import Case

from speko_anyio.protocol import _client_websocket as client_websocket
from speko_anyio.protocol import _framing as framing
from speko_anyio.protocol import _masking as masking
from speko_anyio.protocol import _websocket as websocket
from speko_anyio.protocol._commands import AudioIn, UpgradeRequest
from speko_anyio.protocol._connection import ClientConnection, ServerConnection
from speko_anyio.protocol._dialect import NEED_DATA
from speko_anyio.protocol.frames import Audio

SIZES = (640, 960, 4_800)
"""Bytes of payload: 20 ms of PCM16 at 16 kHz and at 24 kHz, 100 ms at 24 kHz."""

READ_SIZE = 64 * 1024

ENCODE = "encode, client"
DECODE = "decode, client, one frame a read"
DECODE_MANY = "decode, client, 64 KiB reads"
DECODE_MASKED = "decode, server, one frame a read"
_IN_TURN = f"{' and '.join(f'{size:,}' for size in SIZES)} bytes in turn"
ENCODE_MIXED = f"{ENCODE}, {_IN_TURN}"
DECODE_MIXED = f"{DECODE}, {_IN_TURN}"
"""These two show what it costs a core to remember the size of the last frame."""

OURS = "speko-anyio"
OURS_IN_PYTHON = "speko-anyio, no C masker"
WSPROTO = "wsproto"
WEBSOCKETS = "websockets"
WEBSOCKETS_IN_PYTHON = "websockets, no C masker"
PICOWS = "picows"
PICOWS_IN_PLACE = "picows, read in place"
AIOHTTP = "aiohttp"
FLOOR = "(floor)"

_T = TypeVar("_T")
_RATE = 24_000
_KEY = b"\x12\xab\x34\xcd"

Encode = Callable[[Iterable[bytes]], bytes]
"""Turns each payload into a masked binary frame; returns the last frame."""
Decode = Callable[[Iterable[bytes]], bytes]
"""Turns each read into payloads, as the library hands them to an application; returns the last payload."""


def task(kind: str, size: int) -> str:
    return f"{kind}, {size:,} bytes"


def frame(payload: bytes, key: bytes = b"") -> bytes:
    """Return a final binary frame, built directly by RFC 6455 section 5.2; masked if there is a key."""
    assert 125 < len(payload) < 65_536
    head = struct.pack(">BBH", 0x82, 126 | (0x80 if key else 0), len(payload)) + key
    return head + (_exclusive_or(payload, key) if key else payload)


def unframe(data: bytes) -> bytes:
    """Return the payload of such a frame, which must be masked."""
    first, second, size = struct.unpack_from(">BBH", data)
    assert (first, second, size) == (0x82, 0xFE, len(data) - 8)
    return _exclusive_or(data[8:], data[4:8])


def _exclusive_or(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


class Contender(NamedTuple):
    """One library, or one way to use it. A task that it does not have is None."""

    name: str
    encode: Encode | None
    decode: Decode | None
    decode_many: Decode | None
    decode_masked: Decode | None
    around: Callable[[], AbstractContextManager[object]] = nullcontext


# Ours


def _sessions() -> tuple[ClientConnection, ServerConnection]:
    client = ClientConnection("wss://localhost/session", "token", ping_interval=None)
    server = ServerConnection(ping_interval=None)
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), UpgradeRequest)
    server.accept()
    client.receive_data(server.data_to_send())
    assert client.next_event() is NEED_DATA
    return client, server


def _our_encode() -> Encode:
    client, _ = _sessions()

    def encode(payloads: Iterable[bytes]) -> bytes:
        send_audio = client.send_audio
        data_to_send = client.data_to_send
        data = b""
        for payload in payloads:
            send_audio(payload)
            data = data_to_send()
        return data

    return encode


def _our_decode(session: ClientConnection | ServerConnection) -> Decode:
    def decode(reads: Iterable[bytes]) -> bytes:
        receive_data = session.receive_data
        next_event = session.next_event
        need_data = NEED_DATA
        payload = b""
        for data in reads:
            receive_data(data)
            while (event := next_event()) is not need_data:
                payload = event.pcm  # type: ignore[union-attr]
        return payload

    return decode


def _without_c_masker() -> AbstractContextManager[object]:
    patches = ExitStack()
    for module in (masking, client_websocket, websocket, framing):
        patches.enter_context(mock.patch.object(module, "mask", masking.mask_in_python))
    return patches


def _ours() -> Iterator[Contender]:
    decode = _our_decode(_sessions()[0])
    decode_many = _our_decode(_sessions()[0])
    if masking.mask is not masking.mask_in_python:
        yield Contender(OURS, _our_encode(), decode, decode_many, _our_decode(_sessions()[1]))
        decode = decode_many = None  # type: ignore[assignment]  # measured already: they mask nothing
    with _without_c_masker():  # the masker in Python has keys of another form
        yield Contender(
            OURS_IN_PYTHON, _our_encode(), decode, decode_many, _our_decode(_sessions()[1]), _without_c_masker
        )


def _floor() -> Iterator[Contender]:
    """Yield the least that a core in Python which delivers our events has to do.

    That is the copy, the exclusive-or and the object: no state, no check, and calls into C only.
    """
    mask = masking.mask
    pack = struct.Struct(">HH4s").pack

    def encode(payloads: Iterable[bytes]) -> bytes:
        data = b""
        for payload in payloads:
            data = pack(0x82FE, len(payload), _KEY) + mask(payload, _KEY)
        return data

    def decode(reads: Iterable[bytes]) -> bytes:
        payload = b""
        for data in reads:
            payload = Audio(data[4:], _RATE).pcm
        return payload

    def decode_masked(reads: Iterable[bytes]) -> bytes:
        payload = b""
        for data in reads:
            payload = AudioIn(mask(data[8:], data[4:8]), _RATE).pcm
        return payload

    yield Contender(FLOOR, encode, decode, None, decode_masked)


# Peers


def _wsproto() -> Iterator[Contender]:
    """Yield `wsproto.connection.Connection`. Left out: turning the bytearray it delivers into bytes."""
    from wsproto.connection import CLIENT, SERVER, Connection
    from wsproto.events import BytesMessage

    sender = Connection(CLIENT)

    def encode(payloads: Iterable[bytes]) -> bytes:
        send = sender.send
        data = b""
        for payload in payloads:
            data = send(BytesMessage(payload))
        return data

    def decoder(kind: Any) -> Decode:
        receiver = Connection(kind)

        def decode(reads: Iterable[bytes]) -> bytes:
            receive_data = receiver.receive_data
            events = receiver.events
            pieces: list[Any] = []
            payload: Any = b""
            for data in reads:
                receive_data(data)
                for event in events():
                    # A frame split between two reads comes in two pieces, for the application to join.
                    if not event.message_finished:  # type: ignore[attr-defined]
                        pieces.append(event.data)  # type: ignore[attr-defined]
                    elif pieces:
                        payload = b"".join([*pieces, event.data])  # type: ignore[attr-defined]
                        pieces.clear()
                    else:
                        payload = event.data  # type: ignore[attr-defined]
            return payload  # type: ignore[no-any-return]

        return decode

    yield Contender(WSPROTO, encode, decoder(CLIENT), decoder(CLIENT), decoder(SERVER))


def _websockets() -> Iterator[Contender]:
    """Yield `websockets.protocol.Protocol`, its sans-I/O core, with the masker in C and with that in Python.

    Left out: turning the bytearray it delivers into bytes, which its own adapters do.
    """
    from websockets import frames, utils
    from websockets.protocol import CLIENT, SERVER, Protocol

    def encoder() -> Encode:
        sender = Protocol(CLIENT)

        def encode(payloads: Iterable[bytes]) -> bytes:
            send_binary = sender.send_binary
            data_to_send = sender.data_to_send
            data = b""
            for payload in payloads:
                send_binary(payload)
                (data,) = data_to_send()
            return data

        return encode

    def decoder(side: Any) -> Decode:
        receiver = Protocol(side)

        def decode(reads: Iterable[bytes]) -> bytes:
            receive_data = receiver.receive_data
            events_received = receiver.events_received
            payload: Any = b""
            for data in reads:
                receive_data(data)
                for event in events_received():
                    payload = event.data  # type: ignore[union-attr]
            return payload  # type: ignore[no-any-return]

        return decode

    yield Contender(WEBSOCKETS, encoder(), decoder(CLIENT), decoder(CLIENT), decoder(SERVER))
    if vars(frames)["apply_mask"] is not utils.apply_mask:

        def in_python() -> AbstractContextManager[object]:
            return mock.patch.object(frames, "apply_mask", utils.apply_mask)

        yield Contender(WEBSOCKETS_IN_PYTHON, encoder(), None, None, decoder(SERVER), in_python)


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Drive a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class _FakeProtocol:
    """The attributes that aiohttp's reader and writer need of the protocol above them."""

    _paused = False
    _reading_paused = False


class _FakeTransport:
    """Takes written bytes and keeps the last. The timed calls go straight into C."""

    def __init__(self) -> None:
        self.written: deque[bytes] = deque(maxlen=1)
        self.write = self.written.append
        self.is_closing = bool


def _aiohttp() -> Iterator[Contender]:
    """Yield aiohttp's WebSocketWriter, and its WebSocketReader with the queue that it fills.

    The reader is in Cython if the wheel has that. Left out: the event loop, and all that `receive` and
    `send_bytes` of its WebSocket responses do above these two.
    """
    from aiohttp import WSMsgType
    from aiohttp._websocket.reader import WebSocketDataQueue
    from aiohttp.http_websocket import WebSocketReader, WebSocketWriter

    loop: Any = None  # only needed to make a future, when a reader has to wait
    transport = _FakeTransport()

    async def make_writer() -> WebSocketWriter:
        return WebSocketWriter(_FakeProtocol(), transport, use_mask=True)  # type: ignore[arg-type]

    writer = _run(make_writer())

    async def send_all(payloads: Iterable[bytes]) -> bytes:
        send_frame = writer.send_frame
        opcode = WSMsgType.BINARY
        for payload in payloads:
            await send_frame(payload, opcode)
        return transport.written[0]

    def encode(payloads: Iterable[bytes]) -> bytes:
        return _run(send_all(payloads))

    def decoder() -> Decode:
        queue = WebSocketDataQueue(_FakeProtocol(), 2**16, loop=loop)  # type: ignore[arg-type]
        reader = WebSocketReader(queue, 2**20, compress=False, decode_text=True)
        waiting = queue._buffer  # no public attribute says whether `read` would wait

        async def read_all(reads: Iterable[bytes]) -> bytes:
            feed_data = reader.feed_data
            read = queue.read
            payload: Any = b""
            for data in reads:
                feed_data(data)
                while waiting:
                    payload = (await read()).data
            return payload  # type: ignore[no-any-return]

        def decode(reads: Iterable[bytes]) -> bytes:
            return _run(read_all(reads))

        return decode

    yield Contender(AIOHTTP, encode, decoder(), decoder(), decoder())


class _FakeSocket:
    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: int) -> None:
        pass

    def getsockopt(self, *_: int) -> int:
        return 0


class _FakeTlsTransport(_FakeTransport):
    """A transport with TLS: without it picows would call send(2) on the socket itself."""

    def get_extra_info(self, name: str) -> object:
        return {"socket": _FakeSocket(), "ssl_object": self}.get(name)

    def get_write_buffer_size(self) -> int:
        return 0


def _picows() -> Iterator[Contender]:
    """Yield picows: its asyncio protocol, called as an event loop does, and the transport for applications.

    Its protocol, in Cython, parses in its own buffer, which an event loop lets the kernel fill. Here each
    read is copied into it, since all contenders start from `bytes`. "In place" leaves out that copy, as on
    a socket: one frame is copied once and announced again and again. (A masked frame is unmasked in the
    buffer, so every other time it comes out masked; the work is the same.)
    """
    import picows
    from picows.picows import WSProtocol  # type: ignore[attr-defined]  # missing in its stub

    class Listener(picows.WSListener):
        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            self.payload = b""

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            self.payload = frame.get_payload_as_bytes()

    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.WARNING)
    loop = asyncio.new_event_loop()  # its constructor needs a running one, its hot paths do not

    async def connect(client: bool) -> tuple[Any, Listener, _FakeTlsTransport]:
        listener = Listener()
        protocol = WSProtocol(
            "localhost", "/", client, lambda request, response=None: listener, logger, True, None,
            False, 1.0, 1.0, picows.WSAutoPingStrategy.PING_WHEN_IDLE, True, 2**20, None, 2 * READ_SIZE,
        )  # fmt: skip
        transport = _FakeTlsTransport()
        protocol.connection_made(transport)
        answer = _accepted(transport.written[0]) if client else _UPGRADE
        protocol.get_buffer(-1)[: len(answer)] = answer
        protocol.buffer_updated(len(answer))
        return protocol, listener, transport

    protocol, _, transport = loop.run_until_complete(connect(True))
    sender = protocol.transport

    def encode(payloads: Iterable[bytes]) -> bytes:
        send = sender.send
        binary = picows.WSMsgType.BINARY
        for payload in payloads:
            send(binary, payload)
        return transport.written[0]

    def decoder(client: bool) -> Decode:
        protocol, listener, _ = loop.run_until_complete(connect(client))

        def decode(reads: Iterable[bytes]) -> bytes:
            get_buffer = protocol.get_buffer
            buffer_updated = protocol.buffer_updated
            for data in reads:
                size = len(data)
                get_buffer(-1)[:size] = data
                buffer_updated(size)
            return listener.payload

        return decode

    def decoder_in_place(client: bool) -> Decode:
        protocol, listener, _ = loop.run_until_complete(connect(client))

        def decode(reads: Iterable[bytes]) -> bytes:
            get_buffer = protocol.get_buffer
            buffer_updated = protocol.buffer_updated
            reads = iter(reads)
            data = next(reads)
            size = len(data)
            get_buffer(-1)[:size] = data
            buffer_updated(size)
            for _ in reads:
                get_buffer(-1)
                buffer_updated(size)
            return listener.payload

        return decode

    yield Contender(PICOWS, encode, decoder(True), decoder(True), decoder(False))
    yield Contender(PICOWS_IN_PLACE, None, decoder_in_place(True), None, decoder_in_place(False))
    loop.close()


_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _accepted(request: bytes) -> bytes:
    """Return the response that accepts an upgrade request."""
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def contenders() -> list[Contender]:
    """Return all that are installed, ours first."""
    found = list(_ours())
    for peers in (_wsproto, _websockets, _picows, _aiohttp, _floor):
        try:
            found += peers()
        except ImportError as error:
            print(f"not measured: {error}")
    return found


def check(contender: Contender) -> None:
    """Check that it does the whole task: every payload arrives unchanged."""
    with contender.around():
        for size in SIZES:
            payloads = [os.urandom(size) for _ in range(200)]
            if contender.encode is not None:
                for payload in payloads[:5]:
                    _same(contender, ENCODE, unframe(contender.encode([payload])), payload)
            if contender.decode is not None:
                for payload in payloads[:5]:
                    _same(contender, DECODE, contender.decode([frame(payload)]), payload)
                    _same(contender, DECODE, contender.decode([frame(payload)] * 3), payload)
            if contender.decode_masked is not None:
                for payload in payloads[:5]:
                    data = frame(payload, _KEY)
                    _same(contender, DECODE_MASKED, contender.decode_masked([data]), payload)
            if contender.decode_many is not None:
                for upto in range(1, len(payloads) + 1):
                    # A decoder returns the last payload only: make each the last of some stream.
                    reads = _reads(payloads[:upto])
                    _same(contender, DECODE_MANY, contender.decode_many(reads), payloads[upto - 1])


def _same(contender: Contender, kind: str, got: object, wanted: bytes) -> None:
    if got != wanted:
        raise AssertionError(f"{contender.name} fails to {kind}: the payload does not arrive as it was sent")


def _reads(payloads: Iterable[bytes]) -> list[bytes]:
    stream = b"".join(map(frame, payloads))
    return [stream[start : start + READ_SIZE] for start in range(0, len(stream), READ_SIZE)]


def cases() -> list[Case]:
    """Return every contender with every task and size, checked."""
    found: list[Case] = []
    for contender in contenders():
        check(contender)
        for size in SIZES:
            found += _cases_of(contender, size)
        payloads = [os.urandom(size) for size in SIZES]
        if contender.encode is not None:
            work = _in_turn(contender.encode, payloads)
            found.append(Case(ENCODE_MIXED, contender.name, work, len(payloads), contender.around))
        # "In place" repeats a single frame.
        if contender.decode is not None and contender.name != PICOWS_IN_PLACE:
            reads = [frame(payload) for payload in payloads]
            work = _in_turn(contender.decode, reads)
            found.append(Case(DECODE_MIXED, contender.name, work, len(reads), contender.around))
    return found


def _cases_of(contender: Contender, size: int) -> Iterator[Case]:
    payload = os.urandom(size)
    name, around = contender.name, contender.around
    for kind, work, data in (
        (ENCODE, contender.encode, payload),
        (DECODE, contender.decode, frame(payload)),
        (DECODE_MASKED, contender.decode_masked, frame(payload, _KEY)),
    ):
        if work is not None:
            yield Case(task(kind, size), name, _repeated(work, data), around=around)
    if (many := contender.decode_many) is not None:
        count = 4 * READ_SIZE // size
        reads = _reads([payload] * count)
        yield Case(task(DECODE_MANY, size), name, _in_turn(many, reads), count, around)


def _repeated(work: Callable[[Iterable[bytes]], bytes], data: bytes) -> Callable[[int], object]:
    return lambda times: work(repeat(data, times))


def _in_turn(work: Decode, reads: Sequence[bytes]) -> Callable[[int], object]:
    return lambda times: work(chain.from_iterable(repeat(reads, times)))
