"""Dialling for real, over the loopback: plain, TLS, refused, and a peer that reads and writes as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSListener

from speko_anyio import (
    APIConnectionError,
    Audio,
    Close,
    ConnectionClosed,
    Ready,
    RealtimeSession,
    Speko,
    SpekoError,
    open_session,
)
from speko_anyio._net import asyncio_driver, trio_driver
from speko_anyio._net.contexts import never_swallows
from speko_anyio._net.dialing import dial
from speko_anyio.protocol import NEED_DATA, AudioIn, ServerConnection, UpgradeRequest
from speko_anyio.protocol.url import parse_url
from speko_anyio.testing._streams import stream_pair
from speko_anyio.testing.server import grant
from tests.support.drivers import raw_socket, settled

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4


async def echo(stream: ByteStream) -> None:
    """A server in a task of its own that says everything twice, and reads nothing while it writes."""
    core = ServerConnection(ping_interval=None)
    async with stream:
        try:
            while True:
                while (event := core.next_event()) is not NEED_DATA:
                    if isinstance(event, UpgradeRequest):
                        core.accept()
                        core.send_ready()
                    elif isinstance(event, AudioIn):
                        core.send_audio(event.pcm)
                        core.send_audio(event.pcm)
                    if data := core.data_to_send():
                        await stream.send(data)
                core.receive_data(await stream.receive())
        except (SpekoError, anyio.BrokenResourceError, anyio.EndOfStream):
            if data := core.data_to_send():
                await stream.send(data)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_cancelled_block_says_goodbye_on_a_real_connection(secure: bool) -> None:
    ends: list[Close | None] = []

    async def serve(stream: ByteStream) -> None:
        core = ServerConnection(ping_interval=None)
        async with stream:
            with contextlib.suppress(SpekoError, anyio.BrokenResourceError, anyio.EndOfStream):
                while True:
                    while (event := core.next_event()) is not NEED_DATA:
                        if isinstance(event, UpgradeRequest):
                            core.accept()
                            core.send_ready()
                        if data := core.data_to_send():
                            await stream.send(data)
                    core.receive_data(await stream.receive())
        ends.append(core.closed)

    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = TLSListener(tcp, server, standard_compatible=False) if secure else tcp
    port = tcp.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            url = f"{'wss' if secure else 'ws'}://localhost:{port}/s"
            for option in (True, None):
                with anyio.CancelScope() as scope:
                    async with open_session(grant(url), ssl_context=client, proxy=option) as session:
                        await session.receive()
                        await session.send_audio(PCM)
                        scope.cancel()
                        await anyio.sleep_forever()
            while len(ends) < 2:
                await checkpoint()
            tasks.cancel_scope.cancel()
    assert ends == [Close(1001, "client_cancelled", "remote")] * 2


@never_swallows
async def serving(context: ssl.SSLContext | None = None) -> AsyncGenerator[int, None]:
    """An echo server on the loopback; gives its port."""
    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port: int = tcp.extra(anyio.abc.SocketAttribute.local_port)
    listener = tcp if context is None else TLSListener(tcp, context, standard_compatible=False)
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, echo)
            yield port
            tasks.cancel_scope.cancel()


async def talk(session: RealtimeSession) -> None:
    await session.send_audio(PCM)
    frames = [await session.receive() for _ in range(3)]
    assert frames == [Ready(24_000, 24_000), Audio(PCM, 24_000), Audio(PCM, 24_000)]
    await session.close()
    assert session.closed == Close(1000, "client_closed", "local")


async def test_a_session_over_tcp() -> None:
    async with serving() as port, open_session(grant(f"ws://127.0.0.1:{port}/s")) as session:
        await talk(session)


async def test_nagles_algorithm_is_off() -> None:
    async with serving() as port:
        where = parse_url(f"ws://localhost:{port}/")
        driver = await dial(where, connect_timeout=5.0, ssl_context=None)
        assert raw_socket(driver).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await driver.aclose_forcefully()


@pytest.mark.parametrize("way", ["leave", "fail", "cancel", "peer gone"])
async def test_a_block_that_is_left_leaves_no_task_no_timer_and_no_socket(way: str) -> None:
    async with serving() as port:
        # What an event loop opens once, and keeps.
        async with open_session(grant(f"ws://127.0.0.1:{port}/s"), proxy=None):
            pass
        await settled()
        before = len(anyio.get_running_tasks()), open_files(), timers()
        with anyio.CancelScope() as scope, contextlib.suppress(ZeroDivisionError):
            async with open_session(grant(f"ws://127.0.0.1:{port}/s"), proxy=None) as session:
                await session.send_audio(PCM)
                session.on(lambda frame: None)
                match way:
                    case "fail":
                        raise ZeroDivisionError
                    case "cancel":
                        scope.cancel()
                        await checkpoint()
                    case "peer gone":
                        with socket.socket(fileno=os.dup(raw_socket(session._driver).fileno())) as same:
                            same.shutdown(socket.SHUT_RD)
                        assert [type(frame) async for frame in session][-1] is Close
        await settled()
        assert (len(anyio.get_running_tasks()), open_files(), timers()) == before


def open_files() -> int:
    return len([*Path("/dev/fd").iterdir()])


def timers() -> int:
    """How many timers of an event loop wait; only asyncio's own tells."""
    try:
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    except (RuntimeError, AttributeError):
        return 0
    return sum(not handle.cancelled() for handle in scheduled)


async def test_a_server_that_talks_first_is_no_websocket() -> None:
    async def introduce_itself(stream: ByteStream) -> None:
        async with stream:
            await stream.send(b"SSH-2.0-OpenSSH_9.6\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, introduce_itself)
        with anyio.fail_after(10), pytest.raises(SpekoError):
            async with open_session(grant(f"ws://127.0.0.1:{port}/s")):
                raise AssertionError("opened")
        tasks.cancel_scope.cancel()


async def test_a_session_over_tls() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with serving(server) as port:
        opened = grant(f"wss://localhost:{port}/s")
        async with open_session(opened, ssl_context=client) as session:
            await talk(session)
        with pytest.raises(APIConnectionError, match=rf"TLS with localhost:{port} failed"):
            async with open_session(opened):
                raise AssertionError("opened")


async def test_tls_with_somebody_who_speaks_none() -> None:
    async def hang_up(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang_up)
        with anyio.fail_after(10), pytest.raises(APIConnectionError, match=f"127.0.0.1:{port}"):
            async with open_session(grant(f"wss://127.0.0.1:{port}/s")):
                raise AssertionError("opened")
        tasks.cancel_scope.cancel()


async def test_a_server_without_tls_is_recognised() -> None:
    async def answer(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    advice = "write http:// instead of https://, or ws:// instead of wss://"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        with anyio.fail_after(10), pytest.raises(APIConnectionError, match=advice):
            async with open_session(grant(f"wss://127.0.0.1:{port}/s")):
                raise AssertionError("opened")
        async with Speko("key", f"https://127.0.0.1:{port}", max_retries=0) as speko:
            with anyio.fail_after(10), pytest.raises(APIConnectionError, match=advice):
                await speko.realtime.create_session(provider="local", model="any")
        tasks.cancel_scope.cancel()


async def test_tls_that_fails_leaves_no_socket_open() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    open_before: list[int] = []
    # What an event loop opens once, and keeps, it opens in the first round.
    for _ in range(3):
        async with serving(context) as port:
            with pytest.raises(APIConnectionError, match="TLS with"):
                async with open_session(grant(f"wss://127.0.0.1:{port}/s"), proxy=None):
                    raise AssertionError("opened")
        await settled()
        open_before.append(open_files())
    assert open_before[1] == open_before[2]


async def test_a_port_where_nobody_listens() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    await listener.aclose()
    with anyio.fail_after(10), pytest.raises(APIConnectionError, match="can't be reached") as caught:
        async with open_session(grant(f"ws://127.0.0.1:{port}/s")):
            raise AssertionError("opened")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "Errno" in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("All attempts failed"), "All attempts failed"),
        (anyio.EndOfStream(), "EndOfStream"),
    ],
)
async def test_whatever_stops_it_is_one_error(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: object, **kwargs: object) -> None:
        await checkpoint()
        raise error

    monkeypatch.setattr(trio_driver, "connect_socket", fail)
    monkeypatch.setattr(asyncio_driver, "connect_socket", fail)
    with pytest.raises(APIConnectionError, match=r"speko\.test:443 can't be reached") as caught:
        async with open_session(grant()):
            raise AssertionError("opened")
    assert words in str(caught.value)


async def test_of_several_addresses_the_first_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ConnectionRefusedError(111, "refused")

    async def fail(*args: object, **kwargs: object) -> None:
        await checkpoint()
        raise OSError("All connection attempts failed") from ExceptionGroup("", [refused, OSError("other")])

    monkeypatch.setattr(trio_driver, "connect_socket", fail)
    monkeypatch.setattr(asyncio_driver, "connect_socket", fail)
    with pytest.raises(APIConnectionError, match=r"\[Errno 111\] refused") as caught:
        async with open_session(grant()):
            raise AssertionError("opened")
    assert caught.value.__cause__ is refused


async def test_a_peer_that_reads_nothing_while_it_writes_does_not_stop_us() -> None:
    mine, theirs = stream_pair(capacity=512)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo, theirs)
            async with open_session(grant(), stream=mine) as session:

                async def send() -> None:
                    for _ in range(50):
                        await session.send_audio(PCM)

                async with anyio.create_task_group() as senders:
                    senders.start_soon(send)
                    frames = [await session.receive() for _ in range(101)]
                    assert frames[1:] == [Audio(PCM, 24_000)] * 100


async def test_a_host_that_reads_nothing_more_stops_the_sender_and_not_the_leaving() -> None:
    """Over sockets, whose buffers are the system's: the sender waits once they are full, and is told."""

    def open_and_sulk() -> None:
        # A socket of the system's: what anyio serves is read by asyncio before anybody asks.
        core = ServerConnection(ping_interval=None)
        connection, _ = listener.accept()
        connections.append(connection)
        connection.settimeout(30)
        while not isinstance(core.next_event(), UpgradeRequest):
            core.receive_data(connection.recv(65_536))
        core.accept()
        core.send_ready()
        connection.sendall(core.data_to_send())

    connections: list[socket.socket] = []
    sent = 0
    told: list[ConnectionClosed] = []

    async def send(session: RealtimeSession) -> None:
        nonlocal sent
        try:
            while True:
                await session.send_audio(bytes(65_536))
                sent += 1
        except ConnectionClosed as error:
            told.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(30):
        listener.settimeout(30)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, open_and_sulk)
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/s"
            async with open_session(grant(url), proxy=None, close_timeout=0.05) as session:
                assert isinstance(await session.receive(), Ready)
                tasks.start_soon(send, session)
                before = -1
                while sent > before:
                    before = sent
                    await settled()
                assert told == []
            assert session.closed is not None
            assert session.closed.code == 1006
            while not told:
                await checkpoint()
    (connection,) = connections
    connection.close()
