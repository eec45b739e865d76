"""Our transport for plain TCP on asyncio does what the loop's own does: each test runs with both."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import ConnectionClosed, Ready, open_session
from speko_anyio._net import asyncio_driver
from speko_anyio._net.asyncio_driver import SocketTransport, _sock_connect
from speko_anyio._net.sockets import drop_unsent
from speko_anyio.protocol import ServerConnection, UpgradeRequest
from speko_anyio.testing.server import grant
from tests.support.drivers import settled

pytestmark = pytest.mark.anyio

MUCH = bytes(range(256)) * 65_536
"""More than the buffers of a connection hold."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorder(asyncio.BufferedProtocol):
    """Notes what a transport tells it."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.received = b""
        self._buffer = bytearray(65_536)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(bytes(self._buffer[:nbytes]))

    def receive(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost" if exc is None else type(exc))

    async def hears(self, *told: object) -> None:
        """Wait until it was told that much; it must be this, and no more."""
        with anyio.fail_after(30):
            while len(self.told) < len(told):
                await checkpoint()
        await settled()
        assert self.told == [*told]

    async def reads(self, data: bytes) -> None:
        with anyio.fail_after(30):
            while len(self.received) < len(data):
                await checkpoint()
        assert self.received == data


Ends = tuple[asyncio.Transport, Recorder, socket.socket]
"""A transport, the protocol that it tells, and the peer's socket."""


@pytest.fixture(params=["ours", "asyncio's"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    transport: asyncio.Transport
    if request.param == "ours":
        transport = SocketTransport(loop, near, recorder, receive=recorder.receive)
        transport.resume_reading()
    else:
        transport, _ = await loop.create_connection(lambda: recorder, sock=near)
        transport.set_write_buffer_limits(0)
    with far:
        yield transport, recorder, far
        if not transport.is_closing():
            transport.abort()
        await settled()
    assert near.fileno() == -1
    assert recorder.told.count("lost") <= 1


async def drained(far: socket.socket) -> bytes:
    """Return everything until the other side ends."""
    whole = bytearray()
    with anyio.fail_after(30):
        while True:
            try:
                data = far.recv(1 << 20)
            except BlockingIOError:
                await checkpoint()
                continue
            if not data:
                return bytes(whole)
            whole += data


async def test_what_comes_is_read_up_to_the_end(ends: Ends) -> None:
    transport, recorder, far = ends
    far.send(b"one")
    await recorder.reads(b"one")
    far.send(b"two")
    far.shutdown(socket.SHUT_WR)
    await recorder.hears("eof", "lost")
    assert recorder.received == b"onetwo"
    assert transport.is_closing()


async def test_reading_pauses_and_goes_on(ends: Ends) -> None:
    transport, recorder, far = ends
    await settled()
    transport.pause_reading()
    transport.pause_reading()
    far.send(b"later")
    await settled()
    assert recorder.received == b""
    transport.resume_reading()
    transport.resume_reading()
    await recorder.reads(b"later")


async def test_a_reset_is_told_to_a_reader(ends: Ends) -> None:
    _, recorder, far = ends
    drop_unsent(far)
    far.close()
    await recorder.hears(ConnectionResetError)


async def test_a_reset_is_told_to_a_writer(ends: Ends) -> None:
    transport, recorder, far = ends
    await settled()
    transport.pause_reading()
    drop_unsent(far)
    far.close()
    with anyio.fail_after(30):
        while not transport.is_closing():
            transport.write(b"data")
            await checkpoint()
    await settled()
    (told,) = recorder.told
    assert told in (ConnectionResetError, BrokenPipeError)
    transport.write(b"more")
    await settled()
    assert recorder.told == [told]


async def test_a_reset_is_told_while_bytes_wait(ends: Ends) -> None:
    transport, recorder, far = ends
    transport.write(MUCH)
    drop_unsent(far)
    far.close()
    with anyio.fail_after(30):
        while len(recorder.told) < 2:
            await checkpoint()
    await settled()
    assert recorder.told[0] == "pause"
    assert recorder.told[1:] in ([ConnectionResetError], [BrokenPipeError])


async def test_what_the_system_does_not_take_waits_in_order(ends: Ends) -> None:
    transport, recorder, far = ends
    transport.write(MUCH)
    transport.write(b"and")
    transport.write(b"more")
    assert recorder.told == ["pause"]
    transport.write_eof()
    assert await drained(far) == MUCH + b"andmore"
    await recorder.hears("pause", "resume")
    far.send(b"heard")
    await recorder.reads(b"heard")


async def test_an_end_without_bytes_that_wait_is_told_at_once(ends: Ends) -> None:
    transport, recorder, far = ends
    assert transport.can_write_eof()
    transport.write(b"last")
    transport.write_eof()
    transport.write_eof()
    assert await drained(far) == b"last"
    assert recorder.told == []


async def test_a_close_writes_what_waits_first(ends: Ends) -> None:
    transport, recorder, far = ends
    transport.write(MUCH)
    transport.close()
    transport.close()
    assert await drained(far) == MUCH
    await recorder.hears("pause", "resume", "lost")


async def test_an_abort_drops_what_waits(ends: Ends) -> None:
    transport, recorder, far = ends
    transport.write(MUCH)
    transport.close()
    transport.abort()
    transport.abort()
    await recorder.hears("pause", "lost")
    transport.write(b"more")
    transport.resume_reading()
    transport.pause_reading()
    transport.write_eof()
    await recorder.hears("pause", "lost")
    assert len(await drained(far)) < len(MUCH)


@pytest.mark.parametrize("ends", ["ours"], indirect=True)  # asyncio's closes its socket twice
async def test_a_protocol_may_write_and_close_where_it_may_write_again(ends: Ends) -> None:
    transport, recorder, far = ends

    def resume_writing() -> None:
        recorder.told.append("resume")
        transport.write(b"last")
        transport.close()

    recorder.resume_writing = resume_writing  # type: ignore[method-assign]
    transport.write(MUCH)
    assert await drained(far) == MUCH + b"last"
    await recorder.hears("pause", "resume", "lost")


async def test_the_socket_is_told(ends: Ends) -> None:
    transport, _, far = ends
    assert transport.get_extra_info("socket").getsockname() == far.getpeername()
    assert transport.get_extra_info("sslcontext") is None


async def test_a_send_that_meets_a_reset_tells_of_the_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells each error once: the next send would only hear of a broken pipe."""
    # On a fast machine the second send would be held, as it comes within microseconds of the first.
    monkeypatch.setattr(asyncio_driver, "_HOLD_WITHIN", -1.0)

    def serve() -> socket.socket:
        core = ServerConnection(ping_interval=None)
        connection, _ = listener.accept()
        connection.settimeout(30)
        while not isinstance(core.next_event(), UpgradeRequest):
            core.receive_data(connection.recv(65_536))
        core.accept()
        core.send_ready()
        connection.sendall(core.data_to_send())
        return connection

    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(30):
        listener.settimeout(30)
        served = asyncio.get_running_loop().run_in_executor(None, serve)
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/s"
        async with open_session(grant(url), proxy=None) as session:
            assert isinstance(await session.receive(), Ready)
            await session.send_audio(b"\0\0")
            connection = await served
            drop_unsent(connection)
            connection.close()
            # No checkpoint: the driver writes before it reads.
            with pytest.raises(ConnectionClosed, match="Connection reset"):
                await session.send_audio(b"\0\0")


class FarAway(socket.socket):
    """A socket whose peer is not on this machine: it is connected a while after `connect`."""

    outcome = 0

    def getpeername(self) -> object:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def getsockopt(self, level: int, name: int, buflen: int = 0) -> Any:
        return self.outcome if name == socket.SO_ERROR else super().getsockopt(level, name)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_socket_that_is_not_connected_at_once_is_waited_for(refused: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, FarAway() as sock, anyio.fail_after(30):
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        if refused:
            sock.outcome = errno.ECONNREFUSED
            with pytest.raises(ConnectionRefusedError):
                await _sock_connect(loop, sock, listener.getsockname())
        else:
            await _sock_connect(loop, sock, listener.getsockname())
            assert sock.send(b"data") == 4
        assert not loop.remove_writer(sock.fileno())
