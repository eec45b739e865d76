"""A server for one client, built on the core and a threaded socket; it knows one token."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Literal, Self, TypeAlias

from speko_anyio.protocol import (
    AudioIn,
    Close,
    Command,
    Commit,
    HandshakeError,
    ServerConnection,
    ToolResult,
    UpgradeRequest,
)
from tests.support.patience import PATIENCE

from .wire import Wire

TOKEN = "the.one_token-it~knows"

Behaviour: TypeAlias = Literal["talk", "mute", "vanish", "deaf"]
"""- talk: echo audio; on `Commit` tell what was understood and call a tool; tell the result; answer the
  client's close;
- mute: take the TCP connection and never say a byte;
- vanish: hang up on `Commit`, without a closing handshake;
- deaf: as talk, but leave the client's close unanswered and the connection open."""


class FakeServer:
    """Listens from its making; serves its one client in a thread while it is entered."""

    def __init__(self, behaviour: Behaviour = "talk") -> None:
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._run, name="fake server")
        self._failure: BaseException | None = None
        self.commands: list[Command] = []
        """All that the client said, but for its `UpgradeRequest`."""

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"ws://{host}:{port}/stream"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(2 * PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()
        if self._failure is not None and value is None:
            raise self._failure

    def _run(self) -> None:
        try:
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                if self._behaviour == "mute":
                    _drain(sock)
                else:
                    self._serve(sock)
        except BaseException as failure:  # noqa: BLE001 - raised again in the test's thread
            self._failure = failure

    def _serve(self, sock: socket.socket) -> None:
        session = ServerConnection()
        wire = Wire(sock, session)
        request = wire.next_event()
        assert isinstance(request, UpgradeRequest)
        if request.subprotocols != (TOKEN,):
            session.refuse(401, '{"error": "unknown token", "code": "UNAUTHORIZED"}')
            assert isinstance(wire.error(), HandshakeError)
            wire.finish()
            return
        session.accept()
        session.send_ready()
        while True:
            command = wire.next_event()
            self.commands.append(command)
            match command:
                case AudioIn(pcm=pcm):
                    session.send_audio(pcm)
                case Commit() if self._behaviour == "vanish":
                    return
                case Commit():
                    session.send_transcript("user", "What is the weather?", final=True)
                    session.send_tool_call("call-1", "get_weather", '{"city": "Oslo"}')
                case ToolResult(output=output):
                    session.send_transcript("assistant", f"The tool says {output}.", final=True)
                    if self._behaviour == "deaf":
                        wire.flush()
                        _drain(sock)
                        return
                case Close():
                    wire.finish()
                    return


def _drain(sock: socket.socket) -> None:
    """Read until the client hangs up."""
    try:
        while sock.recv(65_536):
            pass
    except ConnectionError:
        pass  # it hung up in a hurry
