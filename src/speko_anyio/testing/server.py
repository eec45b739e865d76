"""A Speko server in memory: the core's own server role, answering within the client's writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Unpack

import anyio

from .._net.contexts import never_swallows
from ..client._parameters import SessionOptions
from ..client._realtime import open_session
from ..client._session import RealtimeSession
from ..client.tools import AnyTool
from ..protocol import (
    NEED_DATA,
    Close,
    Command,
    ServerConnection,
    SpekoError,
    UpgradeRequest,
)
from ..protocol.capabilities import Capabilities
from ..protocol.mint import SessionGrant
from ._streams import MemoryStream, Pipe

TOKEN = "wst_0123456789abcdef"  # noqa: S105 - it opens nothing
"""The token of every grant made here."""


def grant(ws_url: str = "wss://speko.test/v1/sessions/s1/stream") -> SessionGrant:
    """Make a grant like that of a mint; nothing listens at `ws_url`."""
    return SessionGrant(
        session_id="s1",
        ws_url=ws_url,
        ws_token=TOKEN,
        expires_at="2030-01-01T00:00:00Z",
        input_sample_rate=24_000,
        output_sample_rate=24_000,
    )


class FakeServer:
    """The peer of one client whose stream is `stream`.

    It has no task: it acts when the client writes and when a test calls it.

    - `core`: the server's side; queue with its verbs, then `flush`.
    - `commands`: what the client said, in order; `on_command` is called with each.
    - `greet`: called for the upgrade request; by default accepts it and sends `ready`.
    - `answers`: whether the server answers at all; set it to False for a peer that is stuck.
    """

    def __init__(
        self,
        *,
        max_receive: int = 65_536,
        input_sample_rate: int = 24_000,
        output_sample_rate: int = 24_000,
        extensions: Iterable[str] = (),
        capabilities: Capabilities | None = None,
    ) -> None:
        self.to_client: Pipe = Pipe()
        self.from_client: Pipe = Pipe()
        self.from_client.sink = self._received
        self.stream: MemoryStream = MemoryStream(self.to_client, self.from_client, max_receive=max_receive)
        self.core: ServerConnection = ServerConnection(
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            ping_interval=None,
            extensions=extensions,
            capabilities=capabilities,
        )
        self.commands: list[Command] = []
        self.on_command: Callable[[Command], None] | None = None
        self.greet: Callable[[], None] = self.accept
        self.answers = True
        self.wire: bytearray = bytearray()

    @property
    def closed(self) -> Close | None:
        return self.core.closed

    def accept(self) -> None:
        self.core.accept()
        self.core.send_ready()

    def flush(self) -> None:
        """Send what the core has queued."""
        if data := self.core.data_to_send():
            self.to_client.write(data)

    def raw(self, data: bytes) -> None:
        """Send raw bytes, bypassing the core."""
        self.to_client.write(data)

    def hang_up(self) -> None:
        """Close the connection without a goodbye."""
        self.to_client.end()

    def client_left(self) -> None:
        """Ignore that the client has closed its side of the connection; `FakePeer` does not."""

    def take_events(self) -> None:
        """Record the core's events, and send its answers."""
        try:
            while (event := self.core.next_event()) is not NEED_DATA:
                if isinstance(event, UpgradeRequest):
                    self.greet()
                    continue
                self.commands.append(event)
                if self.on_command is not None:
                    self.on_command(event)
        except SpekoError:
            pass  # the session is over; see `closed`
        self.flush()
        if self.core.error is not None:
            self.hang_up()

    def _received(self, data: bytes) -> None:
        self.wire += data
        if not self.answers:
            return
        if data:
            self.core.receive_data(data)
            self.take_events()
        else:
            self.client_left()


@never_swallows
async def connected(
    server: FakeServer | None = None,
    *,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    within: float = 5.0,
    **options: Unpack[SessionOptions],
) -> AsyncGenerator[tuple[RealtimeSession, FakeServer], None]:
    """Open a session in memory; yields it and its server. TimeoutError after `within` seconds."""
    server = server or FakeServer()
    with anyio.fail_after(within):
        options.setdefault("stream", server.stream)
        async with open_session(grant(), tools=tools, ttl_seconds=ttl_seconds, **options) as session:
            yield session, server
