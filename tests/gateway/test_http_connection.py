"""What clients leave open: all of it is answered or cut within its deadline, and does not hold up the end."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketStream
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from speko_anyio.gateway import ServerSession, running_gateway
from speko_anyio.gateway import _http_connection as http_connection
from speko_anyio.gateway import _uvicorn_server as uvicorn_server
from speko_anyio.gateway._http_connection import SECONDS, Wait
from speko_anyio.protocol import AudioIn, Close, HandshakeError, Ready
from speko_anyio.protocol.mint import SessionGrant

from .support import KEY, Recorder, make_gateway, mint, raw_client, raw_http, raw_tcp

pytestmark = pytest.mark.anyio

SOON = 0.25
"""Seconds, in place of each deadline."""

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
MINT = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n" % KEY.encode()
OPENING = (
    b"GET /v1/realtime/x HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def _opening_of(grant: SessionGrant) -> bytes:
    """The whole head of the request that opens the session."""
    path = b"/%s " % grant.session_id.encode()
    token = b"sec-websocket-protocol: %s\r\n\r\n" % grant.ws_token.encode()
    return OPENING.replace(b"/x ", path) + token


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for wait in Wait:
        monkeypatch.setitem(SECONDS, wait, SOON)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"G", b"408"),
        (b"\r\n", b"400"),
        (GET, b"408"),
        (b"\x16", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), b"400"),
        (GET + b"x: " + b"a" * 9000 + b"\r\n\r\n", b"200"),
        (GET + b"".join(b"x-%d: a\r\n" % number for number in range(200)) + b"\r\n", b"200"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (GET + b"x: " + b"a" * (16 << 10), b"400"),
        (OPENING + b"x: " + b"a" * (16 << 10), b"400"),
        (GET + b"content-length: 1000\r\n\r\nx", b"200"),
        (b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx", b"404"),
        (b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx", b"401"),
        (
            b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
            b"401",
        ),
        (b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\nx", b"401"),
        (OPENING + b"content-length: 5\r\n\r\nhello", b"400"),
        (OPENING + b"content-length: 500\r\n\r\nhello", b"400"),
        (OPENING + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"400"),
        (OPENING.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n", b"400"),
        (OPENING, b"408"),
        (OPENING + b"\r\n", b"401"),
        (OPENING + b"content-length: 0\r\n\r\n", b"401"),
        (OPENING + b"x: " + b"a" * 9000 + b"\r\n\r\n", b"401"),
        (OPENING + b"".join(b"x-%d: a\r\n" % number for number in range(200)) + b"\r\n", b"401"),
        (OPENING.replace(b"/x ", b"/" + b"x" * 9000 + b" ") + b"\r\n", b"401"),
        (OPENING.replace(b"/x ", b"/x/y ") + b"\r\n", b"404"),
        (OPENING.replace(b"GET", b"POST") + b"\r\n", b"400"),
        (OPENING.replace(b"13", b"12") + b"\r\n", b"400"),
        (OPENING.replace(b"sec-websocket-key", b"x") + b"\r\n", b"400"),
    ],
)
async def test_every_opening_is_answered_or_cut(sent: bytes, status: bytes) -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            answer = await raw_http(url, *([sent] if sent else []))
    assert answer[9:12] == status


async def test_frames_that_come_with_the_opening_are_heard() -> None:
    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url:
            grant = await mint(url)
            frames = b"\x82\x84" + bytes(4) + b"abcd" + b"\x88\x82" + bytes(4) + b"\x03\xe8"
            assert (await raw_http(url, _opening_of(grant) + frames)).startswith(b"HTTP/1.1 101")
            await recorder.wait_done()
    assert recorder.commands == [AudioIn(b"abcd", 24000), Close(1000, "", "remote")]


@pytest.mark.usefixtures("hasty")
async def test_a_session_may_follow_an_answer_on_its_connection() -> None:
    """The deadline of a client that does not read its answer ends with the upgrade."""
    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url:
            opening = _opening_of(await mint(url))
            async with raw_tcp(url) as stream:
                await stream.send(GET + b"\r\n" + opening)
                assert b"HTTP/1.1 101" in await _receive_past(stream, b'"ready"')
                await anyio.sleep(3 * SOON)
                await stream.send(b"\x88\x82" + bytes(4) + b"\x03\xe8")
                await recorder.wait_done()
    assert recorder.commands == [Close(1000, "", "remote")]


@pytest.mark.usefixtures("hasty")
async def test_a_session_behind_an_unread_answer_holds_no_more_than_another() -> None:
    """Nothing that the handler sends is buffered without limit, as the transport is full from the start."""
    sent = 0

    async def talk(session: ServerSession) -> None:
        nonlocal sent
        for _ in range(200):
            await session.send_audio(bytes(100_000))
            sent += 100_000

    async def big(request: Request) -> Response:
        return Response(bytes(32 << 20))

    gateway = make_gateway({"echo": talk})
    gateway.app.add_route("/big", big)
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url:
            opening = _opening_of(await mint(url))
            async with raw_tcp(url) as stream:
                await stream.send(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n" + opening)
                await anyio.sleep(4 * SOON)
                assert sent < 1_000_000
                # Once it is read, the session goes on.
                heard = await _receive_past(stream, b'"ready"')
                assert b"HTTP/1.1 101" in heard
                while sent < 20_000_000:
                    await stream.receive()


@pytest.mark.usefixtures("hasty")
async def test_between_requests_there_is_a_deadline_too() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            assert (await raw_http(url, GET + b"\r\n")).count(b"HTTP/1.1 200") == 1
            answer = await raw_http(url, GET + b"\r\n" + GET + b"\r\n" + GET)
            assert answer.count(b"HTTP/1.1 200") == 2
            assert answer.count(b"HTTP/1.1 408") == 1


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_comes_bit_by_bit_has_one_deadline() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, raw_tcp(url) as stream:
            assert await _answer_to_a_flood(stream, GET + b"x: ", b"a", every=SOON / 10) == b"408"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (GET, b"200"),
        (b"POST /nothing HTTP/1.1\r\nhost: x\r\n", b"404"),
        (b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\n", b"401"),
        (b"DELETE /v1/sessions HTTP/1.1\r\nhost: x\r\n", b"405"),
    ],
)
@pytest.mark.parametrize("every", [0.0, SOON / 10])
async def test_a_body_that_nobody_reads_is_cut(head: bytes, status: bytes, every: float) -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, raw_tcp(url) as stream:
            size = b"content-length: 1000000000000\r\n\r\n"
            assert await _answer_to_a_flood(stream, head + size, bytes(10_000), every=every) == status


async def test_the_rest_of_a_body_is_not_even_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of it would be a gigabyte."""
    monkeypatch.setitem(SECONDS, Wait.REST, 1.0)
    sent = 0
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, raw_tcp(url) as stream:
            try:
                await stream.send(GET + b"content-length: 1000000000000\r\n\r\n")
                while True:
                    await stream.send(bytes(65_536))
                    sent += 65_536
            except anyio.BrokenResourceError:
                pass
    # And what the system takes in advance, on both sides.
    assert sent < http_connection.MAX_REST + (24 << 20)


async def test_a_body_that_ends_in_time_does_not_end_the_connection() -> None:
    post = b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, raw_tcp(url) as stream:
            await stream.send(post)
            answer = await _receive(stream, b"}")
            await stream.send(bytes(100_000) + GET + b"connection: close\r\n\r\n")
            answer += await _receive(stream, b'"}')
    assert answer.count(b"HTTP/1.1 404") == answer.count(b"HTTP/1.1 200") == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
async def test_an_answer_that_nobody_reads_is_cut(connection: bytes) -> None:
    gateway = make_gateway()
    done = threading.Event()

    async def big(request: Request) -> Response:
        return Response(bytes(64 << 20), background=BackgroundTask(done.set))

    gateway.app.add_route("/big", big)
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url, raw_tcp(url) as stream:
            await stream.send(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: %s\r\n\r\n" % connection)
            assert await anyio.to_thread.run_sync(done.wait, 10)
            await anyio.sleep(2 * SOON)
            with pytest.raises(anyio.BrokenResourceError):
                # Reset, so that the system does not keep the rest either.
                await _receive(stream, b"the end")


async def test_an_answer_that_is_read_slowly_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part that is taken begins the time anew."""
    monkeypatch.setitem(SECONDS, Wait.READER, 2.0)
    gateway = make_gateway()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield bytes(65_536)

    async def big(request: Request) -> Response:
        return StreamingResponse(parts())

    gateway.app.add_route("/big", big)
    got = 0
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url, raw_tcp(url) as stream:
            await stream.send(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            try:
                while True:
                    got += len(await stream.receive())
                    await anyio.sleep(0.01)
            except anyio.EndOfStream:
                pass
    assert got > 400 * 65_536


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"404"),
        (MINT + b"transfer-encoding: chunked\r\n\r\n", None),
        (GET + b"\r\n", b"200"),
        (b"GET /v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n" % KEY.encode(), b"200"),
    ],
)
async def test_nonsense_is_no_error_of_the_gateway_at_any_time(
    sent: bytes, status: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn answers it a second time, and asyncio then logs a traceback."""
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            for wait in (True, False):
                async with raw_tcp(url) as stream:
                    await stream.send(sent)
                    if wait and status is not None:
                        assert (await stream.receive())[9:12] == status
                    await stream.send(b"nonsense\r\n\r\n")
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await _receive(stream, b"the end")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# How many


async def test_of_too_many_that_wait_the_oldest_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_WAITING", 3)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(raw_tcp(url)) for _ in range(3)]
            await _ask(streams[0])  # now it is the youngest
            await stack.enter_async_context(raw_tcp(url))
            await _gone(streams[1])
            for stream in (streams[0], streams[2]):
                await _ask(stream)


async def test_a_request_under_way_is_not_cut_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_WAITING", 1)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, AsyncExitStack() as stack:
            asking = await stack.enter_async_context(raw_tcp(url))
            body = b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"}}'
            await asking.send(MINT + b"content-length: %d\r\n\r\n" % len(body))
            others = [await stack.enter_async_context(raw_tcp(url)) for _ in range(3)]
            await _gone(others[0])
            await _gone(others[1])
            await asking.send(body)
            assert (await asking.receive())[9:12] == b"201"


@pytest.mark.parametrize("most", [1, 3])
async def test_only_so_many_connections_are_open(
    most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_connection, "descriptor_limit", lambda: 2 * most)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(raw_tcp(url)) for _ in range(most + 5)]
            for stream in streams[:5]:
                await _gone(stream)
            for stream in streams[5:]:
                await _ask(stream)
            assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == [
                f"{most} connections are open, and more would need most of the descriptors; raise `ulimit -n`"
            ]


async def test_without_anybody_who_waits_a_new_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "descriptor_limit", lambda: 2)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, raw_tcp(url) as asking:
            body = b'{"mode":"s2s","s2s":{"provider":"echo","model":"m"}}'
            await asking.send(MINT + b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % len(body))
            assert (await asking.receive())[9:12] == b"100"
            async with raw_tcp(url) as refused:
                await _gone(refused)
            await asking.send(body)
            assert (await asking.receive())[9:12] == b"201"


async def test_a_gateway_full_of_sessions_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "descriptor_limit", lambda: 8)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, AsyncExitStack() as stack:
            for _ in range(2):  # those that wait take nobody's place
                await stack.enter_async_context(raw_tcp(url))
            for _ in range(3):
                grant = await mint(url)
                client = await stack.enter_async_context(raw_client(grant.ws_url, grant.ws_token))
                assert isinstance(await client.hear(), Ready)
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as refused:
                with pytest.raises(HandshakeError, match="503"):
                    await refused.hear()
            assert (await raw_http(url, GET + b"connection: close\r\n\r\n"))[9:12] == b"200"


@pytest.mark.parametrize("opening", [OPENING, OPENING.replace(b"13", b"12")], ids=["no token", "broken"])
async def test_openings_that_were_refused_count_until_they_are_gone(
    opening: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "descriptor_limit", lambda: 8)
    statuses = []
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, AsyncExitStack() as stack:
            for _ in range(4):
                stream = await stack.enter_async_context(raw_tcp(url))
                await stream.send(opening + b"\r\n")
                statuses.append((await stream.receive())[9:12])
            # The clients hang up before the gateway stops, which waits for them.
            await stack.aclose()
    assert statuses[-1] == b"503"
    assert len(set(statuses[:-1])) == 1


async def test_descriptors_without_a_limit_set_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "descriptor_limit", lambda: math.inf)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)


# The end


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        GET,
        GET + b"content-length: 100\r\n\r\n",
        MINT + b"content-length: 100\r\n\r\n{",
        OPENING,
        OPENING + b"x: " + b"a" * 9000 + b"\r\n\r\n",
        OPENING + b"content-length: 5\r\n\r\nhello",
        (GET + b"\r\n") * 500,
        b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_what_is_left_open_does_not_hold_up_the_end(
    sent: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uvicorn_server, "SHUTDOWN_TIMEOUT", SOON)
    gateway = make_gateway()

    async def big(request: Request) -> Response:
        return Response(bytes(64 << 20))

    gateway.app.add_route("/big", big)
    with anyio.fail_after(20):
        async with AsyncExitStack() as stack:
            async with running_gateway(gateway) as url:
                stream = await stack.enter_async_context(raw_tcp(url))
                if sent:
                    await stream.send(sent)
                await anyio.sleep(SOON)
            # And nothing of it is left.
            got = 0
            try:
                while True:
                    got += len(await stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
            assert got < 64 << 20
    assert [record for record in caplog.records if record.exc_info] == []


async def _receive(stream: SocketStream, end: bytes) -> bytes:
    received = bytearray()
    while not received.endswith(end):
        received += await stream.receive()
    return bytes(received)


async def _receive_past(stream: SocketStream, what: bytes) -> bytes:
    received = bytearray()
    before = 0
    while received.find(what, max(0, before - len(what))) < 0:
        before = len(received)
        received += await stream.receive()
    return bytes(received)


async def _ask(stream: SocketStream) -> None:
    await stream.send(GET + b"\r\n")
    assert (await _receive(stream, b"}"))[9:12] == b"200"


async def _gone(stream: SocketStream) -> None:
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await stream.receive()


async def _answer_to_a_flood(stream: SocketStream, head: bytes, more: bytes, *, every: float) -> bytes:
    """The status of the answer, while `more` is sent again and again until the connection is cut."""
    answer = b""
    await stream.send(head)
    async with anyio.create_task_group() as tasks:

        async def flood() -> None:
            try:
                while True:
                    await stream.send(more)
                    await anyio.sleep(every)
            except anyio.BrokenResourceError:
                pass

        async def read() -> None:
            nonlocal answer
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

        tasks.start_soon(flood)
        tasks.start_soon(read)
    return answer[9:12]
