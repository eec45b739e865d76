"""A real gateway's handler as the script of a fake one: both ends of an application in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import BrokenResourceError

from ..gateway._capabilities import capabilities_of
from ..gateway._session import serve_session
from ..protocol import _codec as codec
from ..protocol._commands import AudioIn, Command, UpgradeRequest
from ..protocol._extensions import USAGE
from ..protocol._outbox import CloseMessage
from ..protocol.errors import ConnectionClosed
from ..protocol.frames import Audio, Close, Expiring, Ready, Unknown
from ..protocol.mint import SessionConfig

if TYPE_CHECKING:
    from ..gateway._session import Handler
    from ._peer import FakePeer, Step

_UNMINTED: Final = SessionConfig(provider="fake", model="fake")
"""The configuration of a session that was not minted."""


def run_handler(handler: Handler) -> Step:
    """Run a gateway's handler, ``async def handler(session: ServerSession)``, as a whole script.

    The session has the buffers and interruptions of a real gateway. When the handler returns, the session is
    closed with 1000; when it raises, the test fails. As in a gateway, the client is offered only what the
    handler declares (`takes`), unless the `FakePeer` was made with other extensions or capabilities.
    """
    return HandlerScript(handler)


class HandlerScript:
    """The script of `run_handler`, which has a part before the handshake."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def prepare(self, peer: FakePeer) -> None:
        """Let the peer offer what the handler declares."""
        peer.offer(capabilities_of(self._handler, peer.config or _UNMINTED))

    async def __call__(self, peer: FakePeer) -> None:
        config = peer.config or _UNMINTED
        async with serve_session(
            _Transport(peer),
            session_id="fake",
            config=config,
            capabilities=capabilities_of(self._handler, config),
        ) as session:
            await self._handler(session)


class _Transport:
    """A `MessageTransport` whose other side is the client of a `FakePeer`."""

    def __init__(self, peer: FakePeer) -> None:
        self._peer = peer
        self._begun = False

    async def receive(self) -> str | bytes | CloseMessage | None:
        if not self._begun:
            # The real client accepts extensions at the peer's core, which relays the handler's messages.
            self._begun = True
            return codec.encode(codec.UseExtensions((USAGE,)))
        try:
            return _message(await self._peer.receive())
        except ConnectionClosed:
            return None

    async def send(self, message: str | bytes) -> None:
        try:
            self._send(message)
        except ConnectionClosed:
            # The client left, and the session does not know yet.
            raise BrokenResourceError from None

    def _send(self, message: str | bytes) -> None:
        peer = self._peer
        if isinstance(message, bytes):
            peer.send(Audio(message, peer.core.output_sample_rate))
            return
        frame = codec.decode_from_server(message)
        # The peer said `ready` as it accepted the client, and says `end` as it closes.
        if not isinstance(frame, Ready | codec.End):
            peer.send(frame)

    async def close(self, code: int, reason: str) -> None:
        self._peer.close(code, reason)


def _message(command: Command) -> str | bytes | CloseMessage | None:
    """Return the WebSocket message of `command`."""
    match command:
        case AudioIn(pcm=pcm):
            return pcm
        case Unknown(raw=text):
            return text
        case Close(code=code, reason=reason, initiated_by=who):
            return None if who == "transport" else CloseMessage(code, reason)
        case _:
            assert not isinstance(command, Expiring | UpgradeRequest)
            return codec.encode(command)
