"""The libraries that can hold a session's WebSocket, behind one small interface.

Each is used as its documentation shows. The interface's parts are the contender's own methods wherever they
fit. A contender is imported in the function that needs it, so that a process imports only that one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import anyio
from client_server import PCM, READY, TOKEN

COMMIT: Final = '{"t":"control","action":"commit"}'

OURS: Final = "speko-anyio"
OURS_AWAITED: Final = "speko-anyio, awaited"
SPEKOAI: Final = "spekoai"
WEBSOCKETS: Final = "websockets"
AIOHTTP: Final = "aiohttp"
PICOWS: Final = "picows"
PICOWS_AWAITED: Final = "picows, awaited"
HTTPX_WS: Final = "httpx-ws"
TRIO_WEBSOCKET: Final = "trio-websocket"
RAW: Final = "(raw socket)"
FRAMED: Final = "(raw socket, framed)"
PACER: Final = "(tasks and timers)"


class Tally:
    """Audio messages received."""

    __slots__ = ("count", "until")

    def __init__(self, until: int = -1) -> None:
        self.count = 0
        self.until = until
        """The count at which listening stops; never if negative."""


class Line:
    """An open session."""

    __slots__ = ("commit", "is_audio", "receiver", "send")

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[object]],
        commit: Callable[[], Awaitable[object]],
        receiver: Callable[[], Callable[[], Awaitable[Any]]],
        is_audio: Callable[[Any], bool],
    ) -> None:
        self.send = send
        self.commit = commit
        self.receiver = receiver
        """Returns the function that receives a message."""
        self.is_audio = is_audio

    async def listen(self, tally: Tally) -> None:
        """Receive messages and count those with audio."""
        receive, is_audio = self.receiver(), self.is_audio
        while tally.count != tally.until:
            if is_audio(await receive()):
                tally.count += 1


Connect = Callable[[str], AbstractAsyncContextManager[Line]]


def _is_bytes(message: object) -> bool:
    return type(message) is bytes


@asynccontextmanager
async def nothing(url: str) -> AsyncIterator[Line]:
    """Open no session, to measure the cost of this interface itself."""

    async def never(*_: object) -> None:
        raise AssertionError("there is nobody")

    yield Line(never, never, lambda: never, _is_bytes)


def _ours(*, awaited: bool) -> Connect:
    """Return this client: messages are counted in a plain handler, or in an iteration if `awaited`."""
    from speko_anyio import Audio, RealtimeSession, open_session
    from speko_anyio.protocol.mint import SessionGrant

    def is_audio(frame: object) -> bool:
        return type(frame) is Audio

    class OurLine(Line):
        __slots__ = ("_session",)

        def __init__(self, session: RealtimeSession) -> None:
            super().__init__(session.send_audio, session.commit, lambda: session.__anext__, is_audio)
            self._session = session

        async def listen(self, tally: Tally) -> None:
            if awaited:
                await super().listen(tally)
                return
            enough = anyio.Event()

            def count(frame: object) -> None:
                if type(frame) is Audio:
                    tally.count += 1
                    if tally.count == tally.until:
                        enough.set()

            stop = self._session.on(count)
            try:
                await enough.wait()
            finally:
                stop()

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        grant = SessionGrant(session_id="s", ws_url=url, ws_token=TOKEN, expires_at="2100-01-01T00:00:00Z")
        async with open_session(grant) as session:
            yield OurLine(session)

    return connect


def _spekoai() -> Connect:
    from spekoai.models import RealtimeSessionInfo
    from spekoai.realtime import open_realtime_session

    def is_audio(frame: Any) -> bool:
        return bool(frame["type"] == "audio")

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        grant = {"mode": "s2s", "sessionId": "s", "wsUrl": url, "wsToken": TOKEN}
        info = RealtimeSessionInfo.model_validate({**grant, "expiresAt": "2100-01-01T00:00:00Z"})
        async with await open_realtime_session(info) as session:
            yield Line(session.send_audio, session.commit, lambda: aiter(session).__anext__, is_audio)

    return connect


def _websockets() -> Connect:
    from websockets.asyncio.client import connect as open_websocket

    return _websockets_by(open_websocket)


def _websockets_on_trio() -> Connect:
    from websockets.trio.client import connect as open_websocket

    return _websockets_by(open_websocket)


def _websockets_by(open_websocket: Any) -> Connect:
    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        async with open_websocket(url, subprotocols=[TOKEN]) as websocket:
            yield Line(websocket.send, partial(websocket.send, COMMIT), lambda: websocket.recv, _is_bytes)

    return connect


def _aiohttp() -> Connect:
    import aiohttp

    client: aiohttp.ClientSession | None = None
    binary = aiohttp.WSMsgType.BINARY

    def is_audio(message: Any) -> bool:
        return message.type is binary

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        nonlocal client
        if client is None:
            client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with client.ws_connect(url, protocols=[TOKEN]) as websocket:
            yield Line(
                websocket.send_bytes,
                partial(websocket.send_str, COMMIT),
                lambda: websocket.receive,
                is_audio,
            )

    return connect


def _httpx_ws() -> Connect:
    import httpx
    import wsproto.events
    from httpx_ws import AsyncWebSocketSession, aconnect_ws

    client: httpx.AsyncClient | None = None

    def is_audio(event: object) -> bool:
        return type(event) is wsproto.events.BytesMessage

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        nonlocal client
        if client is None:
            client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        async with aconnect_ws(
            url, client, subprotocols=[TOKEN], session_class=AsyncWebSocketSession
        ) as websocket:
            yield Line(
                websocket.send_bytes,
                partial(websocket.send_text, COMMIT),
                lambda: websocket.receive,
                is_audio,
            )

    return connect


def _trio_websocket() -> Connect:
    from trio_websocket import open_websocket_url

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        async with open_websocket_url(url, subprotocols=[TOKEN]) as websocket:
            yield Line(
                websocket.send_message,
                partial(websocket.send_message, COMMIT),
                lambda: websocket.get_message,
                _is_bytes,
            )

    return connect


def _picows(*, awaited: bool) -> Connect:
    """Return picows behind the interface, although it has callbacks only.

    Messages are counted in a callback. To receive a single message, and with `awaited` to count as well, the
    callback fills a queue and wakes a future: the least that the others do.
    """
    from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Listener(WSListener):
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.messages: deque[bytes] = deque()
            self.waiting: asyncio.Future[None] | None = None
            self.writable: asyncio.Future[None] | None = None
            self.tally: Tally | None = None

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type != WSMsgType.BINARY:
                return
            payload = frame.get_payload_as_bytes()
            if self.tally is None:
                self.messages.append(payload)
            else:
                self.tally.count += 1
                if self.tally.count != self.tally.until:
                    return
            if self.waiting is not None and not self.waiting.done():
                self.waiting.set_result(None)

        def pause_writing(self) -> None:
            self.writable = self.loop.create_future()

        def resume_writing(self) -> None:
            if self.writable is not None:
                self.writable.set_result(None)
                self.writable = None

    class PicowsLine(Line):
        __slots__ = ("_listener",)

        def __init__(self, transport: WSTransport, listener: Listener) -> None:
            async def send(pcm: bytes) -> None:
                transport.send(WSMsgType.BINARY, pcm)
                if listener.writable is not None:
                    await listener.writable

            async def commit() -> None:
                transport.send(WSMsgType.TEXT, COMMIT.encode())

            async def receive() -> bytes:
                while not listener.messages:
                    listener.waiting = listener.loop.create_future()
                    await listener.waiting
                return listener.messages.popleft()

            super().__init__(send, commit, lambda: receive, _is_bytes)
            self._listener = listener

        async def listen(self, tally: Tally) -> None:
            if awaited:
                await super().listen(tally)
            else:
                self._listener.tally = tally
                self._listener.waiting = self._listener.loop.create_future()
                await self._listener.waiting

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        transport, listener = await ws_connect(Listener, url, extra_headers={"Sec-WebSocket-Protocol": TOKEN})
        assert isinstance(listener, Listener)
        try:
            yield PicowsLine(transport, listener)
        finally:
            transport.send_close(WSCloseCode.OK, b"")
            transport.disconnect()
            await transport.wait_disconnected()

    return connect


_MASK: Final = b"abcd"


def _masked(head: bytes, payload: bytes) -> bytes:
    return head + _MASK + bytes(octet ^ _MASK[index % 4] for index, octet in enumerate(payload))


_AUDIO_FRAME: Final = _masked(b"\x82\xfe" + len(PCM).to_bytes(2), PCM)
_COMMIT_FRAME: Final = _masked(bytes((0x81, 0x80 | len(COMMIT))), COMMIT.encode())
_AUDIO_SIZE: Final = 4 + len(PCM)
"""Bytes of a message from the server."""


def _request(url: str) -> tuple[int, bytes]:
    address, _, path = url.removeprefix("ws://").partition("/")
    lines = (
        f"GET /{path} HTTP/1.1",
        f"Host: {address}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {TOKEN}",
    )
    return int(address.rpartition(":")[2]), "\r\n".join((*lines, "", "")).encode()


def _opened(read: bytes) -> bool:
    """Return whether the whole response to the handshake was read, and `ready` after it."""
    return read.endswith(READY)


class _Framing:
    """The least that any WebSocket client does for a message of audio: no session, no limits, no events."""

    def __init__(self) -> None:
        from websockets.speedups import apply_mask

        # Keys must be unpredictable (RFC 6455 section 5.3), and a system call for each would cost more.
        blocks = (os.urandom(256) for _ in itertools.count())
        self._next_key = itertools.chain.from_iterable(map(struct.Struct("4s").iter_unpack, blocks)).__next__
        self._mask: Callable[[bytes, bytes], bytes] = apply_mask
        self._rest = b""

    def frame(self, pcm: bytes) -> bytes:
        """Return the frame of a message."""
        key: bytes
        (key,) = self._next_key()
        return b"\x82\xfe" + len(pcm).to_bytes(2) + key + self._mask(pcm, key)

    def payloads(self, data: bytes) -> list[bytes]:
        """Take a read; return the payloads of all frames that are whole by now."""
        if self._rest:
            data = self._rest + data
        payloads = []
        start, available = 0, len(data)
        while available - start >= 4:
            head, size = _HEAD(data, start)
            end = start + 4 + size
            if head != 0x827E:
                raise ValueError("not a frame of audio")
            if end > available:
                break
            payloads.append(data[start + 4 : end])
            start = end
        self._rest = data[start:]
        return payloads


_HEAD: Final = struct.Struct(">HH").unpack_from


def _raw(*, framed: bool) -> Connect:
    """Return the floor: callbacks that write prepared frames and count the bytes received.

    With `framed`, messages are framed, masked and parsed as well. On uvloop, whose transports are compiled,
    the callbacks are a protocol's; on asyncio, the loop's own for a socket, which take the least.
    """
    loop: asyncio.AbstractEventLoop
    buffer = memoryview(bytearray(65_536))

    class Counter(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.size = 0
            self.enough = 0
            self.head: bytes | None = b""
            self.waiting: asyncio.Future[None] = loop.create_future()
            self.writable: asyncio.Future[None] | None = None
            self.tally: Tally | None = None
            self.framing = _Framing() if framed else None

        def get_buffer(self, sizehint: int) -> memoryview:
            return buffer

        def buffer_updated(self, nbytes: int) -> None:
            if self.head is not None:
                self.head += buffer[:nbytes]
                if _opened(self.head):
                    self.head = None
                    self.waiting.set_result(None)
                return
            if self.framing is None:
                self.size += nbytes
            else:
                for payload in self.framing.payloads(bytes(buffer[:nbytes])):
                    if _is_bytes(payload):  # for the call of a handler
                        self.size += 4 + len(payload)
            if self.tally is not None:
                self.tally.count = self.size // _AUDIO_SIZE
            if self.size >= self.enough and not self.waiting.done():
                self.waiting.set_result(None)

        def pause_writing(self) -> None:
            self.writable = loop.create_future()

        def resume_writing(self) -> None:
            if self.writable is not None:
                self.writable.set_result(None)
                self.writable = None

        async def wait(self, messages: int) -> None:
            self.enough = messages * _AUDIO_SIZE
            if self.size < self.enough:
                self.waiting = loop.create_future()
                await self.waiting

    class Wire:
        """A socket that calls a `Counter`, without a transport."""

        def __init__(self, sock: socket.socket, counter: Counter) -> None:
            self._sock = sock
            self._counter = counter
            self._rest = b""
            loop.add_reader(sock.fileno(), self._readable)

        def _readable(self) -> None:
            self._counter.buffer_updated(self._sock.recv_into(buffer))

        def write(self, data: bytes) -> None:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._rest = data[sent:]
                self._counter.pause_writing()
                loop.add_writer(self._sock.fileno(), self._writable)

        def _writable(self) -> None:
            self._rest = self._rest[self._sock.send(self._rest) :]
            if not self._rest:
                loop.remove_writer(self._sock.fileno())
                self._counter.resume_writing()

        def abort(self) -> None:
            loop.remove_reader(self._sock.fileno())
            self._sock.close()

    class RawLine(Line):
        __slots__ = ("_counter",)

        def __init__(self, write: Callable[[bytes], None], counter: Counter) -> None:
            async def send_prepared(pcm: bytes) -> None:
                write(_AUDIO_FRAME)
                if counter.writable is not None:
                    await counter.writable

            async def send_framed(pcm: bytes) -> None:
                write(frame(pcm))
                if counter.writable is not None:
                    await counter.writable

            async def commit() -> None:
                write(_COMMIT_FRAME)

            async def receive() -> bytes:
                await counter.wait(1)
                counter.size -= _AUDIO_SIZE
                return PCM

            send = send_prepared
            if counter.framing is not None:
                frame, send = counter.framing.frame, send_framed
            super().__init__(send, commit, lambda: receive, _is_bytes)
            self._counter = counter

        async def listen(self, tally: Tally) -> None:
            self._counter.tally = tally
            await self._counter.wait(tally.until if tally.until >= 0 else 1 << 40)

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        nonlocal loop
        loop = asyncio.get_running_loop()
        port, request = _request(url)
        transport: asyncio.Transport | Wire
        if isinstance(loop, asyncio.SelectorEventLoop):
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            counter = Counter()
            transport = Wire(sock, counter)
        else:
            transport, counter = await loop.create_connection(Counter, "127.0.0.1", port)
        try:
            transport.write(request)
            await counter.waiting
            yield RawLine(transport.write, counter)
        finally:
            transport.abort()

    return connect


def _raw_on_trio(*, framed: bool) -> Connect:
    """Return the floor on trio: a socket that waits until it is readable, then reads without a wait.

    With `framed`, messages are framed, masked and parsed as well; otherwise prepared bytes are written, and
    bytes counted.
    """
    import trio

    async def receive_some(sock: socket.socket, size: int) -> bytes:
        # A read that finds nothing, as `trio.SocketStream` tries first, costs a system call and an exception.
        await trio.lowlevel.wait_readable(sock)
        return sock.recv(size)

    async def send_all(sock: socket.socket, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            try:
                sent += sock.send(data[sent:] if sent else data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)

    class RawLine(Line):
        __slots__ = ("_sock",)

        def __init__(self, sock: socket.socket) -> None:
            async def send(pcm: bytes) -> None:
                await send_all(sock, _AUDIO_FRAME)

            async def receive() -> bytes:
                left = _AUDIO_SIZE
                while left:
                    left -= len(await receive_some(sock, left))
                return PCM

            super().__init__(send, partial(send_all, sock, _COMMIT_FRAME), lambda: receive, _is_bytes)
            self._sock = sock

        async def listen(self, tally: Tally) -> None:
            size = 0
            while tally.count != tally.until:
                size += len(await receive_some(self._sock, 65_536))
                tally.count = size // _AUDIO_SIZE

    class FramedLine(Line):
        __slots__ = ("_payloads", "_sock")

        def __init__(self, sock: socket.socket) -> None:
            framing = _Framing()
            frame, payloads = framing.frame, framing.payloads
            waiting: deque[bytes] = deque()

            async def send(pcm: bytes) -> None:
                await send_all(sock, frame(pcm))

            async def receive() -> bytes:
                while not waiting:
                    waiting.extend(payloads(await receive_some(sock, 65_536)))
                return waiting.popleft()

            super().__init__(send, partial(send_all, sock, _COMMIT_FRAME), lambda: receive, _is_bytes)
            self._sock = sock
            self._payloads = payloads

        async def listen(self, tally: Tally) -> None:
            payloads, is_audio = self._payloads, self.is_audio
            while tally.count != tally.until:
                for payload in payloads(await receive_some(self._sock, 65_536)):
                    if is_audio(payload):
                        tally.count += 1

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        port, request = _request(url)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        # The socket itself: trio's stream and socket check and lock in every call.
        sock = socket.socket(fileno=os.dup(stream.socket.fileno()))
        await stream.aclose()
        sock.setblocking(False)
        with sock:
            await send_all(sock, request)
            read = b""
            while not _opened(read):
                read += await receive_some(sock, 4096)
            yield FramedLine(sock) if framed else RawLine(sock)

    return connect


def _pacer() -> Connect:
    """Return no session: the application's tasks and timers by themselves, since `send` does nothing."""

    class Paced(Line):
        __slots__ = ("_tally",)

        def __init__(self) -> None:
            async def send(pcm: bytes) -> None:
                self._tally.count += 1

            async def never() -> None:
                raise AssertionError("there is nobody")

            super().__init__(send, never, lambda: never, _is_bytes)
            self._tally = Tally()

        async def listen(self, tally: Tally) -> None:
            self._tally = tally
            await anyio.sleep_forever()

    @asynccontextmanager
    async def connect(url: str) -> AsyncIterator[Line]:
        yield Paced()

    return connect


class Contender(NamedTuple):
    connect: dict[str, Callable[[], Connect]]
    """By event loop."""
    needs: str
    """The package that must be installed."""
    imports: dict[str, str]
    """The import statement of a program that uses it, by event loop."""


ASYNCIO: Final = "asyncio"
UVLOOP: Final = "uvloop"
TRIO: Final = "trio"
LOOPS: Final = (ASYNCIO, UVLOOP, TRIO)


def _on_asyncio(connect: Callable[[], Connect]) -> dict[str, Callable[[], Connect]]:
    return {ASYNCIO: connect, UVLOOP: connect}


CONTENDERS: Final = {
    OURS: Contender(
        dict.fromkeys(LOOPS, partial(_ours, awaited=False)),
        "speko_anyio",
        {
            ASYNCIO: "import asyncio; from speko_anyio import Speko, open_session",
            TRIO: "import trio; from speko_anyio import Speko, open_session",
        },
    ),
    OURS_AWAITED: Contender(dict.fromkeys(LOOPS, partial(_ours, awaited=True)), "speko_anyio", {}),
    SPEKOAI: Contender(
        _on_asyncio(_spekoai), "spekoai", {ASYNCIO: "import asyncio; from spekoai import AsyncSpeko"}
    ),
    WEBSOCKETS: Contender(
        {**_on_asyncio(_websockets), TRIO: _websockets_on_trio},
        "websockets",
        {
            ASYNCIO: "from websockets.asyncio.client import connect",
            TRIO: "from websockets.trio.client import connect",
        },
    ),
    AIOHTTP: Contender(_on_asyncio(_aiohttp), "aiohttp", {ASYNCIO: "from aiohttp import ClientSession"}),
    PICOWS: Contender(
        _on_asyncio(partial(_picows, awaited=False)), "picows", {ASYNCIO: "from picows import ws_connect"}
    ),
    PICOWS_AWAITED: Contender(_on_asyncio(partial(_picows, awaited=True)), "picows", {}),
    HTTPX_WS: Contender(
        dict.fromkeys(LOOPS, _httpx_ws),
        "httpx_ws",
        {
            ASYNCIO: "import asyncio, httpx; from httpx_ws import aconnect_ws",
            TRIO: "import trio, httpx; from httpx_ws import aconnect_ws",
        },
    ),
    TRIO_WEBSOCKET: Contender(
        {TRIO: _trio_websocket}, "trio_websocket", {TRIO: "from trio_websocket import open_websocket_url"}
    ),
    RAW: Contender(
        {**_on_asyncio(partial(_raw, framed=False)), TRIO: partial(_raw_on_trio, framed=False)},
        "asyncio",
        {ASYNCIO: "import asyncio", TRIO: "import trio"},
    ),
    FRAMED: Contender(
        {**_on_asyncio(partial(_raw, framed=True)), TRIO: partial(_raw_on_trio, framed=True)},
        "websockets",
        {},
    ),
    PACER: Contender(dict.fromkeys(LOOPS, _pacer), "anyio", {}),
}


def installed(loop: str) -> list[str]:
    """Return the names of the installed contenders that support that event loop."""
    if importlib.util.find_spec(loop) is None:
        return []
    return [
        name
        for name, contender in CONTENDERS.items()
        if loop in contender.connect and importlib.util.find_spec(contender.needs) is not None
    ]


@asynccontextmanager
async def our_api(base_url: str) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[object]]]:
    """Yield a function that mints a session and opens it."""
    from speko_anyio import Speko

    async with Speko(api_key="sk_bench", base_url=base_url) as speko:
        yield partial(speko.realtime.connect, provider="openai", model="gpt-realtime-2.1")


@asynccontextmanager
async def spekoai_api(base_url: str) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[object]]]:
    """Yield a function that mints a session and opens it."""
    from spekoai import AsyncSpeko
    from spekoai.models import RealtimeConnectParams

    async with AsyncSpeko(api_key="sk_bench", base_url=base_url) as speko:

        @asynccontextmanager
        async def connect() -> AsyncIterator[object]:
            wanted = RealtimeConnectParams(provider="openai", model="gpt-realtime-2.1")
            async with await speko.connect_realtime(wanted) as session:
                yield session

        yield connect


APIS: Final = {OURS: our_api, SPEKOAI: spekoai_api}
"""The contenders that mint sessions."""
