"""The base of all providers' doubles, and the code that serves them. It has no rules of any provider."""

from __future__ import annotations

import abc
import itertools
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, Final, Generic, TypeVar

import anyio
from anyio.abc import ByteStream, Listener
from anyio.streams.tls import TLSListener

from ..._net.contexts import never_swallows
from ..._net.http import Answer
from ..._net.tasks import TaskGroup
from ._double_session import DEATH, DoubleSession, Refusal, Replies, Request
from ._posts import PostSocket
from ._script import COMMON, CallTools, Fail, Pace, RateLimit, Reply, RunTool, Say, Silent, steps
from ._server_socket import ServerSocket

SessionT = TypeVar("SessionT", bound=DoubleSession)

_READ_SIZE: Final = 65_536
_GOODBYE_TIMEOUT: Final = 2.0
"""Seconds that the client gets to answer a close."""

_BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class ProviderDouble(abc.ABC, Generic[SessionT]):
    """A scripted server that imitates a provider's protocol, errors and peculiarities included.

    - `replies`: its answers, one after the other, over all its connections; after the last one it answers
      `then`.
    - `user_says`: the transcripts of the user's turns, one after the other.
    - `api_key`: the only key that it accepts, in each way that the provider accepts one.
    - `pace`: how fast it is.
    - `refuse`: the answers to the first requests instead of a WebSocket, such as ``Refusal(429, "...")``.

    Unless turns are manual, it detects them by the loudness of the audio (`tone` is loud enough). Serve it on
    loopback with `serve`, over any byte stream with `handle`, or drive the pure session that `open` gives.
    `sessions` has every connection so far, with all of its messages.
    """

    provider: ClassVar[str]
    _can: ClassVar[frozenset[type]] = COMMON | {Say, CallTools, RunTool, Fail, RateLimit, Silent}
    """The steps that this double supports."""
    _session_type: type[SessionT]

    def __init__(
        self,
        replies: Sequence[Reply] = (),
        *,
        then: Reply = Say("All right.", 0.4),  # noqa: B008  # frozen
        user_says: Sequence[str] = (),
        api_key: str = "test-key",
        pace: Pace = Pace(),  # noqa: B008  # frozen
        refuse: Sequence[Refusal] = (),
    ) -> None:
        for step in itertools.chain(*map(steps, (*replies, then))):
            if type(step) not in self._can:
                raise ValueError(f"{self.provider} does nothing like {step!r}; take another step")
        self.api_key = api_key
        self.sessions: list[SessionT] = []
        self.refused: list[Request] = []
        """Requests that were refused."""
        self._script = Replies(replies, then=then, user_says=user_says)
        self._pace = pace
        self._refusals = iter(refuse)

    @property
    def session(self) -> SessionT:
        """The latest connection."""
        return self.sessions[-1]

    # Pure

    @abc.abstractmethod
    def judge(self, request: Request) -> Refusal | None:
        """Return why this request is refused a WebSocket; None to accept it."""

    @abc.abstractmethod
    def subprotocol(self, request: Request) -> str | None:
        """Return the offered subprotocol that the server accepts."""

    def answer_post(self, request: Request, body: bytes) -> Answer:
        """Answer an HTTP request beside the WebSockets."""
        refusal = Refusal(404, f"There is nothing at {request.path}.")
        return Answer(refusal.status, {"content-type": "application/json"}, refusal.body.encode())

    def open(self, request: Request, now: float = 0.0) -> SessionT:
        """Make a new connection without any I/O."""
        session = self._session_type(request, self._script, self._pace)
        self.sessions.append(session)
        session.start(now)
        return session

    # Over anyio

    @never_swallows
    async def serve(
        self, port: int = 0, *, ssl_context: ssl.SSLContext | None = None
    ) -> AsyncGenerator[str, None]:
        """Listen on 127.0.0.1 while the block runs; `port` 0 takes a free one.

        Yields the base URL, ``ws://127.0.0.1:PORT``, or ``wss`` with an `ssl_context` for servers; it accepts
        any path. Leaving the block drops all connections.
        """
        plain = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        own_port = plain.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
        listener: Listener[ByteStream] = plain
        if ssl_context is not None:
            listener = TLSListener(plain, ssl_context, standard_compatible=False)
        scheme = "ws" if ssl_context is None else "wss"
        async with listener, TaskGroup("the provider's double") as tasks:
            tasks.start_soon(listener.serve, self.handle)
            yield f"{scheme}://127.0.0.1:{own_port}"
            tasks.cancel_scope.cancel()

    async def handle(self, stream: ByteStream) -> None:
        """Serve one client over `stream`, which is closed in the end.

        A broken connection raises nothing.
        """
        async with stream:
            socket = ServerSocket()
            try:
                data = await stream.receive(_READ_SIZE)
                if data.startswith(b"POST "):
                    await self._serve_post(stream, data)
                    return
                socket.receive(data)
                request = await self._handshake(stream, socket)
                if request is not None:
                    await _Driver(stream, socket, self.open(request, anyio.current_time())).run()
            except _BROKEN:
                pass

    async def _serve_post(self, stream: ByteStream, data: bytes) -> None:
        socket = PostSocket()
        socket.receive(data)
        while (found := socket.request()) is None:
            if socket.over:
                return
            socket.receive(await stream.receive(_READ_SIZE))
        request, body = found
        await stream.send(socket.answer(self.answer_post(request, body)))

    async def _handshake(self, stream: ByteStream, socket: ServerSocket) -> Request | None:
        while (request := socket.request()) is None:
            if socket.over:
                return None
            socket.receive(await stream.receive(_READ_SIZE))
        refusal = next(self._refusals, None) or self.judge(request)
        if refusal is not None:
            self.refused.append(request)
            await stream.send(socket.refuse(refusal.status, refusal.body))
            return None
        await stream.send(socket.accept(self.subprotocol(request)))
        return request


class _Driver:
    """Moves bytes between one client and one session."""

    def __init__(self, stream: ByteStream, socket: ServerSocket, session: DoubleSession) -> None:
        self._stream = stream
        self._socket = socket
        self._session = session
        self._news = anyio.Event()

    async def run(self) -> None:
        self._session.on_output = self._tell
        try:
            async with TaskGroup("the provider's double") as tasks:
                tasks.start_soon(self._read, tasks.cancel_scope)
                await self._write()
                tasks.cancel_scope.cancel()
        finally:
            self._session.receive_close(1006)

    def _tell(self) -> None:
        self._news.set()

    async def _read(self, scope: anyio.CancelScope) -> None:
        session, socket = self._session, self._socket
        try:
            while True:
                for message in socket.messages():
                    session.receive(message, anyio.current_time())
                if socket.closed is not None:
                    session.receive_close(*socket.closed)
                    self._tell()
                    return
                socket.receive(await self._stream.receive(_READ_SIZE))
                self._tell()  # it may have been a ping
        except _BROKEN:
            scope.cancel()

    async def _write(self) -> None:
        session, socket = self._session, self._socket
        while True:
            self._news = anyio.Event()
            session.advance(anyio.current_time())
            outputs = session.take()
            if outputs or socket.has_replies:
                data = b"".join(socket.frame(output) for output in outputs if output != DEATH)
                try:
                    await self._stream.send(data + socket.replies())
                except _BROKEN:
                    return
                if DEATH in outputs:
                    return
                continue  # more may have come meanwhile
            if session.closed is not None:
                if socket.closed is None:
                    with anyio.move_on_after(_GOODBYE_TIMEOUT):
                        await self._goodbye()
                return
            await self._wait(session.next_deadline())

    async def _goodbye(self) -> None:
        """Wait for the client's close, after ours was sent."""
        while self._socket.closed is None:
            self._news = anyio.Event()
            await self._news.wait()

    async def _wait(self, deadline: float | None) -> None:
        """Wait until something changes, or until `deadline`."""
        if deadline is None:
            await self._news.wait()
            return
        with anyio.move_on_after(deadline - anyio.current_time()):
            await self._news.wait()
