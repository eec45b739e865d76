"""The driver for trio by itself: over real sockets, plain and with TLS, and who reads."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
import trustme

from speko_anyio import (
    Audio,
    Close,
    ConnectionClosed,
    Frame,
    Ready,
    RealtimeSession,
    open_session,
)
from speko_anyio._net import trio_driver
from speko_anyio._net.driver import SENDS_PER_TURN
from speko_anyio._net.tasks import TaskGroup
from speko_anyio._net.tls import TLS
from speko_anyio._net.trio_driver import TrioDriver
from speko_anyio.client._pump import Pump
from speko_anyio.errors import InternalError
from speko_anyio.protocol import NEED_DATA, AudioIn, Commit, ServerConnection, UpgradeRequest
from speko_anyio.protocol.url import parse_url
from speko_anyio.testing.server import connected, grant
from tests.support.drivers import driven, settled
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4
PING = b"\x89\x00"

_AUTHORITY = trustme.CA()
_SERVER, _CLIENT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
_AUTHORITY.issue_cert("127.0.0.1").configure_cert(_SERVER)
_AUTHORITY.configure_trust(_CLIENT)


@pytest.fixture
def anyio_backend() -> Any:
    return "trio", {}


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def secure(request: Any) -> bool:
    return bool(request.param)


class Peer:
    """A server's end of a socket. Blocks nobody: it writes what it is told to, and takes what has come."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.core = ServerConnection(ping_interval=None)
        self.heard: list[object] = []
        self.size = 0

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(self.core.data_to_send() + b"".join(frames))

    def take(self) -> None:
        """Take what has come."""
        while True:
            try:
                data = self.socket.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            if not data:
                break
            self.size += len(data)
            self.core.receive_data(data)
        while (event := self.core.next_event()) is not NEED_DATA:
            self.heard.append(event)


async def handshake(connection: socket.socket) -> ssl.SSLSocket:
    """Do a server's handshake; if it fails, close the connection."""
    secured = _SERVER.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            else:
                return secured
    except BaseException:
        secured.close()
        raise


@asynccontextmanager
async def over_sockets(secure: bool = False, **options: Any) -> AsyncIterator[tuple[RealtimeSession, Peer]]:
    async def serve(connection: socket.socket) -> Peer:
        peer = Peer(await handshake(connection) if secure else connection)
        while not (peer.heard and isinstance(peer.heard[0], UpgradeRequest)):
            await trio.lowlevel.wait_readable(peer.socket)
            peer.take()
        peer.core.accept()
        peer.core.send_ready()
        peer.send()
        return peer

    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(PATIENCE):
        listener.setblocking(False)
        peers: list[Peer] = []

        async def accept() -> None:
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            connection.setblocking(False)
            peers.append(await serve(connection))

        async with TaskGroup("the peer") as tasks:
            tasks.start_soon(accept)
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{listener.getsockname()[1]}/s"
            async with open_session(
                grant(url), ssl_context=_CLIENT, close_timeout=0.05, **options
            ) as session:
                assert isinstance(session._driver, TrioDriver)
                assert isinstance(await session.receive(), Ready)
                with peers[0].socket:
                    yield session, peers[0]
                    await session.close()


def piece(number: int) -> Audio:
    return Audio(number.to_bytes(2, "little"), 24_000)


async def test_readers_that_come_and_go_at_any_moment_lose_nothing(secure: bool) -> None:
    random.seed(7)
    async with over_sockets(secure) as (session, peer), session.frames(Audio) as stream:
        heard: list[list[Frame]] = [[], []]
        count = 400

        async def read(index: int) -> None:
            while len(heard[index]) < count:
                with trio.CancelScope(deadline=trio.current_time() + random.random() * 0.001):
                    frame = await (session.receive() if index else anext(stream))
                    heard[index].append(frame)
                if random.random() < 0.2:
                    await trio.sleep(random.random() * 0.001)

        async with trio.open_nursery() as tasks:
            for index in range(2):
                tasks.start_soon(read, index)
            for number in range(count):
                peer.core.send_audio(piece(number).pcm)
                peer.send()
                if random.random() < 0.5:
                    await trio.sleep(random.random() * 0.0005)
        assert heard == [[piece(number) for number in range(count)]] * 2


@pytest.mark.parametrize("handler", [False, True])
async def test_a_session_that_nobody_reads_answers_pings_and_sees_the_close(
    handler: bool, secure: bool
) -> None:
    async with over_sockets(secure) as (session, peer):
        frames: list[Frame] = []
        if handler:
            session.on(frames.append)
        for _ in range(3):
            peer.send(PING)
            with trio.fail_after(1):
                await trio.lowlevel.wait_readable(peer.socket)
            assert peer.socket.recv(100)[:2] == b"\x8a\x80"
        peer.core.close(4001, "enough")
        peer.send()
        await session._driver.wait_closed()
        assert session.closed == Close(4001, "enough", "remote")
        if handler:
            await settled()
            assert frames == [session.closed]


async def test_more_than_the_system_takes_is_written_in_order_with_replies_between(secure: bool) -> None:
    async with over_sockets(secure) as (session, peer):
        assert isinstance(session._driver, TrioDriver)
        session._driver._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        pieces = [bytes([number]) * 250_000 for number in range(1, 41)]

        async def send() -> None:
            for pcm in pieces:
                await session.send_audio(pcm)
            await session.commit()

        async with trio.open_nursery() as tasks:
            tasks.start_soon(send)
            await settled()
            written = session.stats().bytes_sent
            assert written < 10_000_000
            peer.send(PING)
            await settled()
            while not (peer.heard and isinstance(peer.heard[-1], Commit)):
                await trio.lowlevel.wait_readable(peer.socket)
                peer.take()
        assert b"".join(event.pcm for event in peer.heard if isinstance(event, AudioIn)) == b"".join(pieces)
        assert session.closed is None
        # What the session wrote, as without TLS.
        assert session.stats().bytes_sent == peer.size


async def test_a_goodbye_that_came_before_the_connection_broke_is_heard(secure: bool) -> None:
    async with over_sockets(secure) as (session, peer):
        await session.send_audio(PCM)
        peer.core.send_audio(PCM)
        peer.send()
        assert await session.receive() == Audio(PCM, 24_000)
        # Nobody has read it when the send fails. With bytes unread, a close resets the connection.
        peer.core.close(4002, "gone")
        peer.send()
        peer.socket.close()
        with pytest.raises(ConnectionClosed, match="4002"):
            await session.send_audio(PCM)
        assert session.closed == Close(4002, "gone", "remote")


async def test_a_peer_that_ends_tls_but_not_the_connection_has_left() -> None:
    async with over_sockets(secure=True) as (session, peer):
        assert isinstance(peer.socket, ssl.SSLSocket)
        peer.core.send_audio(PCM)
        peer.send()
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.socket.unwrap()
        assert await session.receive() == Audio(PCM, 24_000)
        last = await session.receive()
        assert isinstance(last, Close)
        assert last.code == 1006


async def test_a_broken_record_ends_the_session_after_what_came_before_it() -> None:
    async with over_sockets(secure=True) as (session, peer):
        peer.core.send_audio(PCM)
        peer.send()
        with socket.socket(fileno=os.dup(peer.socket.fileno())) as below:
            below.send(b"no record at all")
        assert await session.receive() == Audio(PCM, 24_000)
        last = await session.receive()
        assert isinstance(last, Close)
        assert last.code == 1006
        assert "the connection broke" in last.reason


async def test_a_server_that_is_not_trusted_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(PATIENCE):
        where = parse_url(f"wss://127.0.0.1:{listener.getsockname()[1]}/")

        async def connect() -> None:
            with pytest.raises(ssl.SSLCertVerificationError):
                await trio_driver.connect(where, ssl_context=ssl.create_default_context())

        async with trio.open_nursery() as tasks:
            tasks.start_soon(connect)
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            connection.setblocking(False)
            with pytest.raises(ssl.SSLError, match="ALERT"):
                await handshake(connection)


class Broken:
    """A socket whose peer is gone when the handshake has failed."""

    def __init__(self, connected: socket.socket) -> None:
        self.connected = connected
        self.sends = 0

    def fileno(self) -> int:
        return self.connected.fileno()

    def recv(self, size: int) -> bytes:
        return self.connected.recv(size)

    def send(self, data: bytes) -> int:
        self.sends += 1
        if self.sends == 1:
            return self.connected.send(data)
        raise BrokenPipeError


async def test_why_a_server_is_not_trusted_is_told_although_the_alert_breaks() -> None:
    ours, theirs = socket.socketpair()
    tls = TLS(ssl.create_default_context(), "127.0.0.1")
    broken: Any = Broken(ours)

    async def serve() -> None:
        with pytest.raises(ssl.SSLError):
            await handshake(theirs)

    async def fail() -> None:
        with ours, pytest.raises(ssl.SSLCertVerificationError):
            await trio_driver._handshake(broken, tls)

    ours.setblocking(False)
    theirs.setblocking(False)
    with anyio.fail_after(PATIENCE):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(serve)
            tasks.start_soon(fail)
    assert broken.sends == 2


async def test_a_handshake_that_is_cancelled_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(PATIENCE):
        where = parse_url(f"wss://127.0.0.1:{listener.getsockname()[1]}/")
        async with trio.open_nursery() as tasks:
            tasks.start_soon(lambda: trio_driver.connect(where, ssl_context=_CLIENT))
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            connection.settimeout(5)
            await trio.lowlevel.wait_readable(connection)
            tasks.cancel_scope.cancel()
        with connection:
            assert connection.recv(65_536)
            assert not connection.recv(1)


async def test_a_bug_in_the_reading_of_a_waiter_comes_out_of_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(pump: Pump, data: bytes) -> bool:
        raise ZeroDivisionError

    with pytest.raises(InternalError, match="ZeroDivisionError"):  # noqa: PT012 - of the whole block
        async with over_sockets() as (session, peer):
            monkeypatch.setattr(Pump, "receive_data", fail)
            peer.send(PING)
            await session.receive()


async def test_a_host_that_cannot_be_reached_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await trio_driver.connect(parse_url(f"ws://127.0.0.1:{port}/"), ssl_context=None)


class TestWhoReads:
    """In memory, in virtual time."""

    @pytest.fixture
    def anyio_backend(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        return driven(("virtual trio", "native"), monkeypatch)

    async def test_waiters_that_come_back_at_once_read_for_themselves(self) -> None:
        async with connected(within=60) as (session, server):
            driver = session._driver
            assert isinstance(driver, TrioDriver)
            readers: list[object] = []

            async def read() -> None:
                async for _ in session:
                    pass

            async with trio.open_nursery() as tasks:
                tasks.start_soon(read)
                # With the keeper's read it is a matter of luck who comes first to the next one.
                for _ in range(100):
                    await settled()
                    readers.append(driver._reader)
                    server.core.send_audio(PCM)
                    server.flush()
                tasks.cancel_scope.cancel()
            assert readers[-1] is session._inbox._waiter

    async def test_the_keeper_takes_over_when_a_waiter_does_something_else(self) -> None:
        async with connected(within=60) as (session, server):
            driver = session._driver
            assert isinstance(driver, TrioDriver)

            async def read() -> None:
                async for _ in session:
                    await trio.sleep(1)

            async with trio.open_nursery() as tasks:
                tasks.start_soon(read)
                for _ in range(10):
                    server.core.send_audio(PCM)
                    server.flush()
                    await trio.sleep(0.1)
                    assert driver._reader is trio_driver._KEEPER
                    start = trio.current_time()
                    server.core.send_interruption()
                    server.raw(server.core.data_to_send() + PING)
                    await settled()
                    assert bytes(server.wire[-6:-4]) == b"\x8a\x80"
                    assert trio.current_time() == start
                    await trio.sleep(3)
                assert session.stats().interruptions == 10
                tasks.cancel_scope.cancel()

    async def test_leaving_a_session_that_was_just_read_takes_no_time(self) -> None:
        async with connected(within=60) as (session, _):
            assert isinstance(await session.receive(), Ready)
            start = trio.current_time()
        assert trio.current_time() == start
        assert session.closed == Close(1000, "client_closed", "local")

    async def test_sends_in_a_row_let_others_run_and_sends_between_reads_cost_no_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns = 0

        async def counted() -> None:
            nonlocal turns
            turns += 1
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(trio_driver, "checkpoint", counted)
        async with connected(within=60) as (session, server):
            session.on(lambda frame: None)
            await settled()
            for _ in range(4 * SENDS_PER_TURN):
                await session.send_audio(PCM)
            assert turns == 4
            await session.send_audio(PCM)
            turns = 0
            for _ in range(4 * SENDS_PER_TURN):
                server.core.send_audio(PCM)
                server.flush()
                await settled()
                await session.send_audio(PCM)
            assert turns == 0
