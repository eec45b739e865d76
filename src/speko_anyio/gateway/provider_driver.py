"""What moves a bridge: a session's client on one side, a provider's WebSocket on the other.

The tasks, all within `ProviderDriver.run`:

- the listener takes the client's commands, and one more waits for the client to be gone;
- the speaker (the caller itself) says to the client what the bridge has for it;
- the connector holds a connection to the provider whenever the bridge wants one, with a reader and a writer;
- the clock calls the bridge at its deadlines.

None of them knows a rule of either protocol. Each tells the bridge what happened and then wakes the others,
which look for themselves whether there is something to do.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from speko_anyio.errors import APIConnectionError, ConfigurationError
from speko_anyio.net.dialing import open_stream
from speko_anyio.net.transport import TRANSPORT_ERRORS, describe
from speko_anyio.protocol.errors import HandshakeError, SpekoError
from speko_anyio.protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Interruption,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.protocol.state import State
from speko_anyio.protocol.tokens import hide
from speko_anyio.protocol.url import parse_url
from speko_anyio.providers.bridge.queue import CUT_OFF

from .wakeup import Wakeup

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from anyio.abc import ByteStream

    from speko_anyio.net.proxies import ProxyOption
    from speko_anyio.providers.bridge import Bridge, ClientFrame
    from speko_anyio.providers.connection import ProviderConnection

    from .session import ServerSession

logger: Final = logging.getLogger(__name__)

READ_SIZE: Final = 65_536
"""Bytes asked of the provider's stream at a time."""

LAST_WRITE: Final = 2.0
"""Seconds for what is still to be written to a provider when its connection is over."""

_CLOSED: Final = State.CLOSED


class ProviderDriver:
    """Serves one `session` through `bridge`.

    - `make_connection`: makes the core of a new connection; its argument is the handle to resume an earlier
      one with, or None.
    - `url`: where to connect.
    - `secrets`: texts that the log must not show. The other parameters are as in `SessionOptions`.
    """

    def __init__(
        self,
        session: ServerSession,
        bridge: Bridge,
        *,
        make_connection: Callable[[str | None], ProviderConnection],
        url: str,
        connect_timeout: float,
        ssl_context: ssl.SSLContext | None,
        proxy: ProxyOption,
        secrets: Sequence[str] = (),
    ) -> None:
        self._session = session
        self._bridge = bridge
        self._make_connection = make_connection
        self._where = parse_url(url)
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        self._proxy: ProxyOption = proxy
        self._secrets = secrets
        self._connection: ProviderConnection | None = None
        self._to_say = Wakeup()
        self._to_connect = Wakeup()
        self._to_write = Wakeup()
        self._may_hear = Wakeup()
        self._may_read = Wakeup()
        self._clock = Wakeup()
        self._armed: float | None = None
        self._turns_heard = 0
        self._saying: anyio.CancelScope | None = None
        self._dialling: anyio.CancelScope | None = None
        self._writing: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Serve until the session is over on both sides. Cancelled, it drops the provider at once."""
        async with anyio.create_task_group() as tasks:
            for work in (self._listen, self._await_end, self._connect, self._keep_time):
                tasks.start_soon(work)
            await self._speak()
            tasks.cancel_scope.cancel()

    @contextmanager
    def _telling(self) -> Iterator[float]:
        """Around everything that is told to the bridge, or to the provider's core through it: gives the time,
        and afterwards wakes whoever has something to do. No await in it."""
        now = anyio.current_time()
        yield now
        bridge, connection = self._bridge, self._connection
        if bridge.stats.turns_heard != self._turns_heard:
            self._turns_heard = bridge.stats.turns_heard
            self._session.turn_ended()
        self._to_say.ring()
        self._to_connect.ring()
        if connection is not None and (connection.has_output or connection.state is _CLOSED):
            self._to_write.ring()
        if not bridge.client_must_wait:
            self._may_hear.ring()
        if not bridge.provider_must_wait or connection is None or connection.state is _CLOSED:
            self._may_read.ring()
        if bridge.next_deadline() != self._armed:
            self._clock.ring()
        if self._saying is not None and bridge.urgent:
            self._saying.cancel()
        if connection is not None and connection.state is _CLOSED:
            if self._dialling is not None:
                self._dialling.cancel()
            if self._writing is not None:
                self._writing.deadline = min(self._writing.deadline, now + LAST_WRITE)

    # The client

    async def _listen(self) -> None:
        bridge = self._bridge
        try:
            async for command in self._session:
                with self._telling() as now:
                    bridge.receive_command(command, now)
                while bridge.client_must_wait:
                    await self._may_hear.wait()
        except SpekoError:
            pass  # the client broke the protocol: `_await_end` tells

    async def _await_end(self) -> None:
        # On its own: while a provider does not take what the client says, nobody listens to the client.
        closed = await self._session.wait_closed()
        with self._telling() as now:
            self._bridge.receive_command(closed, now)

    async def _speak(self) -> None:
        bridge = self._bridge
        while True:
            frame = bridge.next_frame()
            if frame is None:
                if bridge.done:
                    return
                await self._to_say.wait()
                continue
            self._may_read.ring()
            with anyio.CancelScope() as scope:
                self._saying = scope
                await self._say(frame)
            self._saying = None
            if scope.cancelled_caught:
                await self._cut_in(frame)

    async def _cut_in(self, unsaid: ClientFrame) -> None:
        """An interruption came while `unsaid` waited for the client to take what was sent before: it goes
        ahead. Speech, and calls that nobody waits for any more, are not said at all."""
        overtaken = [unsaid]
        while (frame := self._bridge.next_frame()) is not None:
            if type(frame) is Interruption:
                await self._say(frame)
                break
            overtaken.append(frame)
        for frame in overtaken:
            if type(frame) not in CUT_OFF:
                await self._say(frame)

    async def _say(self, frame: ClientFrame) -> None:
        session = self._session
        try:
            match frame:
                case Audio(pcm=pcm):
                    await session.send_audio(pcm)
                case Transcript(role=role, text=text, final=final):
                    await session.send_transcript(role, text, final=final)
                case ToolCall(call_id=call_id, name=name, arguments=arguments):
                    await session.send_tool_call(call_id, name, arguments)
                case ServerToolCall(id=id, name=name, status=status):
                    await session.send_server_tool_call(id, name, status)
                case Interruption(at=at):
                    await session.send_interruption(at)
                case Usage(input_audio_tokens=heard, output_audio_tokens=said):
                    await session.send_usage(heard, said)
                case ResponseEnd(status=end, reason=why):
                    await session.send_response_end(end, why)
                case ErrorFrame(code=code, message=message):
                    await session.send_error(code, message)
                case Close(code=code, reason=reason):
                    await session.close(code, reason)
        except SpekoError:
            pass  # the session ended first, which `_await_end` tells

    # The provider

    async def _connect(self) -> None:
        """Hold a connection to the provider whenever one is wanted."""
        bridge = self._bridge
        while True:
            if bridge.wanted is None:
                await self._to_connect.wait()
                continue
            self._connection = connection = self._make_connection(bridge.wanted.resumption)
            with self._telling() as now:
                bridge.attach(connection, now)
            await self._hold(connection)
            self._connection = None
            self._log_failure(connection)

    def _log_failure(self, connection: ProviderConnection) -> None:
        """Log the failure for the operator, in the provider's words. The client's error leaves out keys and
        accounts."""
        failure, error = connection.failure, connection.error
        if failure is not None:
            words = f"{failure.code}: {failure.message}"
        elif isinstance(error, HandshakeError) and error.status is not None:
            words = str(error)
        else:
            return
        words = hide(words, self._secrets, "***")
        logger.warning("session %s: the provider's connection failed: %s", self._session.session_id, words)

    async def _hold(self, connection: ProviderConnection) -> None:
        stream = await self._dial(connection)
        if stream is None:
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, connection, stream)
                with anyio.CancelScope() as self._writing:
                    await self._write(connection, stream)
                tasks.cancel_scope.cancel()
        finally:
            self._writing = None
            await anyio.aclose_forcefully(stream)

    async def _dial(self, connection: ProviderConnection) -> ByteStream | None:
        """A stream to the provider's host; None when there is none, which the bridge was told, or when nobody
        wants one any more."""
        with anyio.CancelScope() as self._dialling:
            try:
                return await open_stream(
                    self._where,
                    connect_timeout=self._connect_timeout,
                    ssl_context=self._ssl_context,
                    proxy=self._proxy,
                )
            except (APIConnectionError, ConfigurationError) as error:
                # For the operator: the client is not told where the provider is.
                logger.warning("session %s: %s", self._session.session_id, error)
                with self._telling() as now, self._bridge.at(now):
                    connection.receive_lost("the provider can't be reached")
            finally:
                self._dialling = None
        return None

    async def _read(self, connection: ProviderConnection, stream: ByteStream) -> None:
        bridge = self._bridge
        while connection.state is not _CLOSED:
            if bridge.provider_must_wait:
                await self._wait_for_the_client(connection)
            try:
                data = await stream.receive(READ_SIZE)
            except anyio.EndOfStream:
                with self._telling() as now, bridge.at(now):
                    connection.receive_eof()
            except TRANSPORT_ERRORS as error:
                with self._telling() as now, bridge.at(now):
                    connection.receive_lost(f"the connection broke ({describe(error)})")
            else:
                with self._telling() as now, bridge.at(now):
                    connection.receive_data(data)

    async def _wait_for_the_client(self, connection: ProviderConnection) -> None:
        # No pong is seen while we don't read, so silence proves nothing.
        connection.suspend_keepalive()
        self._clock.ring()
        while self._bridge.provider_must_wait and connection.state is not _CLOSED:
            await self._may_read.wait()
        connection.resume_keepalive()
        self._clock.ring()

    async def _write(self, connection: ProviderConnection, stream: ByteStream) -> None:
        """Write what there is to write, until the connection is over."""
        while True:
            if data := connection.data_to_send():
                self._may_hear.ring()
                try:
                    await stream.send(data)
                except TRANSPORT_ERRORS:
                    with self._telling() as now, self._bridge.at(now):
                        connection.send_failed()
                    return
            elif connection.state is _CLOSED:
                return
            else:
                await self._to_write.wait()

    # Time

    async def _keep_time(self) -> None:
        while True:
            self._armed = deadline = self._bridge.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                await self._clock.wait()
            with self._telling() as now:
                self._bridge.handle_timeout(now)
