"""Drives a bridge: a session's client on one side, a provider's WebSocket on the other.

The tasks, all within `ProviderDriver.run`:

- the listener takes the client's commands, and one more waits for the end of the client's session;
- the connector holds a connection to the provider whenever the bridge wants one, and a driver moves it;
- the clock calls the bridge at its deadlines.

The bridge's output to the client waits in the core of the session, whose own writer sends it. No task here
knows the rules of either protocol. Each reports an event to the bridge and then wakes the others, which check
whether they have something to do.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec

import anyio
from anyio.lowlevel import checkpoint

from speko_anyio._net.dialing import dial
from speko_anyio._net.driver import Driver
from speko_anyio._net.event_loop import clock
from speko_anyio._net.lifetime import Lifetime
from speko_anyio._net.proxies import ProxyOption
from speko_anyio._net.tasks import TaskGroup, Wakeup
from speko_anyio.errors import APIConnectionError, ConfigurationError
from speko_anyio.protocol._commands import Command
from speko_anyio.protocol._state import State
from speko_anyio.protocol.errors import HandshakeError, SpekoError
from speko_anyio.protocol.url import parse_url
from speko_anyio.providers._connection import ProviderConnection
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.bridge._errors import as_told

from ._session import ServerSession

logger: Final = logging.getLogger("speko_anyio.gateway")

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
        self._now = clock()
        self._bridge = bridge
        self._make_connection = make_connection
        self._where = parse_url(url)
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        self._proxy: ProxyOption = proxy
        self._secrets = secrets
        self._connection: ProviderConnection | None = None
        self.provider_has_room: Wakeup = Wakeup()
        """Rings when the provider may accept more input."""
        self._changed = Wakeup()
        self.deadline_changed: Wakeup = Wakeup()
        """Rings when the bridge's next deadline may be another."""
        self._armed: float | None = None
        self._turns_heard = 0
        self._dialling: anyio.CancelScope | None = None
        self._driver: Driver | None = None

    async def run(self) -> None:
        """Serve until the session is over on both sides. Cancelled, it drops the provider at once."""
        bridge = self._bridge
        async with TaskGroup(f"session {self._session.session_id}") as tasks:
            for work in (self._listen, self._await_end, self._connect, self._keep_time):
                tasks.start_soon(work)
            while bridge.goodbye is None and not bridge.done:
                await self._changed.wait()
            if (goodbye := bridge.goodbye) is not None:
                await self._session.close_when_sent(goodbye.code, goodbye.reason)
            while not bridge.done:
                await self._changed.wait()
            tasks.cancel_scope.cancel()

    def report(self, happened: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Call a method of the provider's connection, and let the bridge handle its events.

        A driver that calls this looks at the connection afterwards, so it is not woken here.
        """
        with self._bridge.at(self._now()):
            happened(*args, **kwargs)
        self._wake_tasks()

    def _wake(self) -> None:
        """Wake all tasks that have something to do. Call it after every change of the bridge."""
        self._wake_tasks()
        if self._driver is not None:
            self._driver.core_changed()

    def _wake_tasks(self) -> None:
        bridge, connection = self._bridge, self._connection
        if bridge.stats.turns_heard != self._turns_heard:
            self._turns_heard = bridge.stats.turns_heard
            self._session.turn_ended()
        self._session.core_changed()
        self.provider_has_room.ring()
        if bridge.wanted is not None or bridge.goodbye is not None or bridge.done:
            self._changed.ring()
        if self._dialling is not None and connection is not None and connection.state is _CLOSED:
            self._dialling.cancel()
        if bridge.next_deadline() != self._armed:
            self.deadline_changed.ring()

    # The client

    async def _listen(self) -> None:
        bridge = self._bridge
        try:
            async for command in self._session:
                self._receive_command(command)
                while bridge.client_must_wait:
                    await self.provider_has_room.wait()
        except SpekoError:
            pass  # the client broke the protocol: `_await_end` reports it

    async def _await_end(self) -> None:
        # In a task of its own: `_listen` does not read while the provider accepts no input.
        self._receive_command(await self._session.wait_closed())

    def _receive_command(self, command: Command) -> None:
        self._bridge.receive_command(command, self._now())
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
            bridge.attach(connection, self._now())
            self._wake()
            await self._hold(connection)
            self._connection = None
            self._log_failure(connection)

    def _log_failure(self, connection: ProviderConnection) -> None:
        """Log the failure in the provider's words, without keys, accounts and hosts."""
        failure, error = connection.dialect.failure, connection.error
        if failure is not None:
            words = f"{failure.code}: {failure.message}"
        elif isinstance(error, HandshakeError) and error.status is not None:
            words = str(error)
        else:
            return
        words = as_told(words, self._secrets)
        logger.warning("session %s: the provider's connection failed: %s", self._session.session_id, words)

    async def _hold(self, connection: ProviderConnection) -> None:
        driver = await self._dial(connection)
        if driver is None:
            return
        lifetime = Lifetime(self._session.session_id)
        driver.attach(_Leg(self, connection, lifetime), close_timeout=LAST_WRITE)
        driver.start(lifetime)
        await lifetime.enter()
        self._driver = driver
        failure: BaseException | None = None
        try:
            await driver.wait_closed()
        except BaseException as error:  # noqa: BLE001 - raised by `exit`
            failure = error
        finally:
            self._driver = None
        await lifetime.exit(failure, leave=checkpoint, abort=driver.abort, wait_gone=driver.wait_gone)

    async def _dial(self, connection: ProviderConnection) -> Driver | None:
        """Connect to the provider's host.

        None when that failed, which was reported to the bridge, or when the connection is no longer wanted.
        """
        with anyio.CancelScope() as self._dialling:
            try:
                return await dial(
                    self._where,
                    connect_timeout=self._connect_timeout,
                    ssl_context=self._ssl_context,
                    proxy=self._proxy,
                )
            except (APIConnectionError, ConfigurationError) as error:
                # Log it for the operator: the client must not learn the provider's address.
                logger.warning("session %s: %s", self._session.session_id, error)
                self.report(connection.receive_lost, "the provider can't be reached")
            finally:
                self._dialling = None
        return None

    @property
    def provider_must_wait(self) -> bool:
        """Whether to stop reading from the provider, because enough waits for the client."""
        return self._bridge.provider_must_wait and not self._session.ending

    async def wait_for_client(self) -> None:
        """Wait until the client has room for more of the provider's output."""
        while self.provider_must_wait:
            await self._session.wait_for_less()

    # Time

    async def _keep_time(self) -> None:
        while True:
            self._armed = deadline = self._bridge.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                await self.deadline_changed.wait()
            self._bridge.handle_timeout(self._now())
            self._wake()


class _Leg:
    """The provider's `connection` as a `Driven`; the bridge handles its events after every call.

    Its deadlines are among the bridge's, which `ProviderDriver` keeps. See `Driven` for the members.
    """

    def __init__(self, owner: ProviderDriver, connection: ProviderConnection, lifetime: Lifetime) -> None:
        self._owner = owner
        self._connection = connection
        self._lifetime = lifetime
        self._space_made: Callable[[], None]
        self.behind: bool = False
        self.peer_left: bool = True
        self.deadline: float | None = None

    def watch_space(self, call: Callable[[], None]) -> None:
        self._space_made = call

    # State

    @property
    def connecting(self) -> bool:
        return self._connection.state is State.CONNECTING

    @property
    def done(self) -> bool:
        return self._connection.state is _CLOSED

    @property
    def error(self) -> SpekoError:
        error = self._connection.error
        assert error is not None, "asked of a connection that is not over"
        return error

    @property
    def full(self) -> bool:
        return self._owner.provider_must_wait

    @property
    def has_output(self) -> bool:
        return self._connection.has_output

    # Moving

    @property
    def data_to_send(self) -> Callable[[], bytes]:
        return self._take

    def _take(self) -> bytes:
        data = self._connection.data_to_send()
        if data:
            self._owner.provider_has_room.ring()
        return data

    def receive_data(self, data: bytes) -> bool:
        self._owner.report(self._connection.receive_data, data)
        return True

    def catch_up(self) -> None:
        """Do nothing: all is taken at once."""

    def receive_eof(self) -> None:
        self._owner.report(self._connection.receive_eof)

    def receive_lost(self, reason: str, cause: Exception) -> None:
        self._owner.report(self._connection.receive_lost, reason)

    def send_failed(self) -> None:
        self._owner.report(self._connection.send_failed)

    def handle_timeout(self, now: float) -> None:
        """Do nothing: see the class."""

    def abort(self, reason: str) -> bytes:
        if not self.done:
            self._connection.receive_lost(reason)
        return b""

    # Waiting for the client

    def reading_paused(self) -> None:
        # No pong is seen while nothing is read, so silence proves nothing.
        self._connection.suspend_keepalive()
        self._owner.deadline_changed.ring()
        self._lifetime.spawn(self._wait_for_client)

    def reading_resumed(self) -> None:
        self._connection.resume_keepalive()
        self._owner.deadline_changed.ring()

    async def _wait_for_client(self) -> None:
        await self._owner.wait_for_client()
        self._space_made()
