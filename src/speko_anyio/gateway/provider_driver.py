"""Drives a bridge: a session's client on one side, a provider's WebSocket on the other.

The tasks, all within `ProviderDriver.run`:

- the listener takes the client's commands, and one more waits for the end of the client's session;
- the connector holds a connection to the provider whenever the bridge wants one, with a reader and a writer;
- the clock calls the bridge at its deadlines.

What the bridge says to the client waits in the core of the session, whose own writer sends it. No task here
knows a rule of either protocol. Each tells the bridge what happened and then wakes the others, which look for
themselves whether there is something to do.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, ParamSpec

import anyio

from speko_anyio.errors import APIConnectionError, ConfigurationError
from speko_anyio.net.dialing import open_stream
from speko_anyio.net.transport import TRANSPORT_ERRORS, describe
from speko_anyio.protocol.errors import HandshakeError, SpekoError
from speko_anyio.protocol.state import State
from speko_anyio.protocol.tokens import hide
from speko_anyio.protocol.url import parse_url

from .wakeup import Wakeup

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from anyio.abc import ByteStream

    from speko_anyio.net.proxies import ProxyOption
    from speko_anyio.protocol.commands import Command
    from speko_anyio.providers.bridge import Bridge
    from speko_anyio.providers.connection import ProviderConnection

    from .session import ServerSession

logger: Final = logging.getLogger(__name__)

READ_SIZE: Final = 65_536
"""Bytes asked of the provider's stream at a time."""

LAST_WRITE: Final = 2.0
"""Seconds for what is still to be written to a provider when its connection is over."""

_CLOSED: Final = State.CLOSED
_P = ParamSpec("_P")


class ProviderDriver:
    """Serves one `session` through `bridge`, which writes to the core of the session.

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
        self._may_hear = Wakeup()
        self._changed = Wakeup()
        self._to_write = Wakeup()
        self._clock = Wakeup()
        self._armed: float | None = None
        self._turns_heard = 0
        self._dialling: anyio.CancelScope | None = None
        self._writing: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Serve until the session is over on both sides. Cancelled, it drops the provider at once."""
        bridge = self._bridge
        async with anyio.create_task_group() as tasks:
            for work in (self._listen, self._await_end, self._connect, self._keep_time):
                tasks.start_soon(work)
            while bridge.goodbye is None and not bridge.done:
                await self._changed.wait()
            if (goodbye := bridge.goodbye) is not None:
                await self._session.close_when_sent(goodbye.code, goodbye.reason)
            while not bridge.done:
                await self._changed.wait()
            tasks.cancel_scope.cancel()

    def _tell(self, happened: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Tell the core of the provider's connection what happened; the bridge takes what comes of it."""
        with self._bridge.at(anyio.current_time()):
            happened(*args, **kwargs)
        self._wake()

    def _wake(self) -> None:
        """Wake the tasks that have something to do, after everything that the bridge is told."""
        bridge, connection = self._bridge, self._connection
        if bridge.stats.turns_heard != self._turns_heard:
            self._turns_heard = bridge.stats.turns_heard
            self._session.turn_ended()
        self._session.core_changed()
        self._may_hear.ring()
        if bridge.wanted is not None or bridge.goodbye is not None or bridge.done:
            self._changed.ring()
        if connection is not None:
            over = connection.state is _CLOSED
            if over or connection.has_output:
                self._to_write.ring()
            if over and self._dialling is not None:
                self._dialling.cancel()
            if over and self._writing is not None:
                last = anyio.current_time() + LAST_WRITE
                self._writing.deadline = min(self._writing.deadline, last)
        if bridge.next_deadline() != self._armed:
            self._clock.ring()

    # The client

    async def _listen(self) -> None:
        bridge = self._bridge
        try:
            async for command in self._session:
                self._receive_command(command)
                while bridge.client_must_wait:
                    await self._may_hear.wait()
        except SpekoError:
            pass  # the client broke the protocol: `_await_end` tells

    async def _await_end(self) -> None:
        # On its own: while a provider does not take what the client says, nobody listens to the client.
        self._receive_command(await self._session.wait_closed())

    def _receive_command(self, command: Command) -> None:
        self._bridge.receive_command(command, anyio.current_time())
        self._wake()

    # The provider

    async def _connect(self) -> None:
        """Hold a connection to the provider whenever one is wanted."""
        bridge = self._bridge
        while True:
            if bridge.wanted is None:
                await self._changed.wait()
                continue
            self._connection = connection = self._make_connection(bridge.wanted.resumption)
            bridge.attach(connection, anyio.current_time())
            self._wake()
            await self._hold(connection)
            self._connection = None
            self._log_failure(connection)

    def _log_failure(self, connection: ProviderConnection) -> None:
        """Log the failure for the operator, in the provider's words.

        The client's error leaves out keys and accounts.
        """
        failure, error = connection.dialect.failure, connection.error
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
        """Open a stream to the provider's host.

        None when that failed, which the bridge was told, or when nobody wants a stream any more.
        """
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
                self._tell(connection.receive_lost, "the provider can't be reached")
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
                self._tell(connection.receive_eof)
            except TRANSPORT_ERRORS as error:
                self._tell(connection.receive_lost, f"the connection broke ({describe(error)})")
            else:
                self._tell(connection.receive_data, data)

    async def _wait_for_the_client(self, connection: ProviderConnection) -> None:
        # No pong is seen while we don't read, so silence proves nothing.
        connection.suspend_keepalive()
        self._clock.ring()
        await self._session.wait_for_room(self._bridge.limits.to_client)
        connection.resume_keepalive()
        self._clock.ring()

    async def _write(self, connection: ProviderConnection, stream: ByteStream) -> None:
        """Write what the connection has queued, until it is over."""
        while True:
            if data := connection.data_to_send():
                self._may_hear.ring()
                try:
                    await stream.send(data)
                except TRANSPORT_ERRORS:
                    self._tell(connection.send_failed)
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
            self._bridge.handle_timeout(anyio.current_time())
            self._wake()
