"""Meetings of the core, in either role, with a foreign peer in the other, over loopback TCP."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from speko_anyio.protocol import ClientConnection, ServerConnection, UpgradeRequest
from tests.support.patience import PATIENCE

from .peers import PROGRAMS, NodePeer, Peer, ThreadPeer
from .script import TOKEN, Report, Role, Step
from .wire import Wire


@pytest.fixture(scope="session")
def ws_modules(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory outside the sources in which npm has installed ws, kept in pytest's cache."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node's ws: node and npm are not installed")
    cache = getattr(pytestconfig, "cache", None)
    where = Path(cache.mkdir("speko-interop-node")) if cache else tmp_path_factory.mktemp("node")
    if not (where / "node_modules" / "ws" / "package.json").exists():
        install = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--prefix",
            str(where),
            "ws@8",
        ]
        try:
            subprocess.run(install, capture_output=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
        except subprocess.SubprocessError as error:
            pytest.skip(f"Node's ws: npm could not install it: {error}")
    return where


class Meeting:
    """The core and its peer. `session` is in the role that the test asked for."""

    def __init__(self, session: ClientConnection | ServerConnection, wire: Wire[Any], peer: Peer) -> None:
        self.session = session
        self.wire = wire
        self.peer = peer

    def open(self) -> None:
        """Come to the point where both may talk; as a server, `Ready` is said."""
        if isinstance(self.session, ServerConnection):
            request = self.wire.next_event()
            assert isinstance(request, UpgradeRequest)
            assert request.subprotocols == (TOKEN,)
            self.session.accept()
            self.session.send_ready()
            self.wire.flush()

    def finish(self) -> Report:
        """Hang up, as one does after the end, and hear how it was for the peer."""
        self.wire.finish()
        return self.peer.report()


Meet: TypeAlias = Callable[..., AbstractContextManager[Meeting]]


@pytest.fixture
def meet(request: pytest.FixtureRequest) -> Meet:
    """``meet(peer, role, *steps, cut=None)``: the core in `role`, the peer doing `steps` in the other."""

    @contextmanager
    def meet(kind: str, role: Role, *steps: Step, cut: int | None = None) -> Iterator[Meeting]:
        def start(url: str = "") -> Peer:
            theirs: Role = "client" if role == "server" else "server"
            if kind == "ws":
                return NodePeer(request.getfixturevalue("ws_modules"), theirs, steps, url)
            return ThreadPeer(PROGRAMS[kind, theirs], steps, url)

        if role == "client":
            with start() as peer:
                address = ("127.0.0.1", peer.port)
                client = ClientConnection(f"ws://127.0.0.1:{address[1]}/stream", TOKEN)
                with Wire(socket.create_connection(address, PATIENCE), client, cut=cut) as wire:
                    yield Meeting(client, wire, peer)
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.settimeout(PATIENCE)
                with start(f"ws://127.0.0.1:{listener.getsockname()[1]}/stream") as peer:
                    server = ServerConnection()
                    with Wire(listener.accept()[0], server, cut=cut) as server_wire:
                        yield Meeting(server, server_wire, peer)

    return meet
