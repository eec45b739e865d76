"""The handshake in both roles, and a whole session between the two."""

from __future__ import annotations

import base64
import functools
import inspect
import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import (
    DEFAULT_LIMITS,
    NEED_DATA,
    Audio,
    AudioIn,
    Clear,
    ClientConnection,
    ClientProtocol,
    Close,
    Commit,
    ConnectionClosed,
    EndTurn,
    ErrorFrame,
    Expiring,
    HandshakeError,
    Interrupt,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    ServerConnection,
    ServerProtocol,
    ServerToolCall,
    SpekoError,
    State,
    ToolCall,
    ToolResult,
    Transcript,
    UpgradeRequest,
    Usage,
)
from speko_anyio.protocol._engine import MAX_HEAD
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE
from speko_anyio.protocol._tokens import MAX_TOKEN

from .helpers import (
    BINARY,
    TEXT,
    TOKEN,
    URL,
    client,
    close_frame,
    drain,
    fixed_entropy,
    frame,
    frame_for,
    let_time_pass,
    only_event,
    open_pair,
    opened,
    parse_frames,
    says,
    trickle,
)

with_each_masker = pytest.mark.usefixtures("masker")


def waiting_client(**options: Any) -> ClientConnection:
    """A client whose opening request is on its way."""
    connection = client(**options)
    connection.data_to_send()
    return connection


def asked_server(**options: Any) -> ServerConnection:
    """A server with a request to answer."""
    server = ServerConnection(**options)
    server.receive_data(client().data_to_send())
    assert isinstance(server.next_event(), UpgradeRequest)
    return server


def answer(server: ServerConnection, request: bytes) -> bytes:
    """What `server` answers when it accepts `request`."""
    server.receive_data(request)
    server.next_event()
    server.accept()
    return server.data_to_send()


def exchange(client: ClientConnection, server: ServerConnection) -> None:
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())


# The opening request


def test_the_opening_request() -> None:
    entropy = fixed_entropy()
    nonce = base64.b64encode(fixed_entropy().randbytes(16))
    connection = client(entropy=entropy.randbytes, headers=[("User-Agent", "test/1")])
    assert connection.state is State.CONNECTING
    head, *fields = connection.data_to_send().decode().removesuffix("\r\n\r\n").split("\r\n")
    assert head == "GET /v1/stream HTTP/1.1"
    assert sorted(field.lower() for field in fields) == sorted(
        [
            "host: gateway.example",
            "upgrade: websocket",
            "connection: upgrade",
            f"sec-websocket-key: {nonce.decode().lower()}",
            "sec-websocket-version: 13",
            f"sec-websocket-protocol: {TOKEN}",
            "user-agent: test/1",
        ]
    )
    assert connection.data_to_send() == b""
    assert connection.next_event() is NEED_DATA


def test_the_token_is_not_in_the_request_line() -> None:
    assert TOKEN not in client().data_to_send().decode().splitlines()[0]


@pytest.mark.parametrize(("url", "token"), [("http://h/", TOKEN), (URL, "not a token")])
def test_a_bad_url_or_token_makes_no_connection(url: str, token: str) -> None:
    with pytest.raises(LocalProtocolError):
        ClientConnection(url, token)


BAD_HEADERS = [[("x", "a\r\nInjected: yes")], [("x y", "z")], [("Sec-WebSocket-Protocol", "z")]]
"""More of them in ``test_headers.py``."""


@pytest.mark.parametrize("headers", BAD_HEADERS)
def test_headers_that_http_cannot_carry_make_no_connection(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(LocalProtocolError):
        client(headers=headers)


def test_nothing_can_be_said_before_the_handshake_is_done() -> None:
    connection = waiting_client()
    text = "the session is not open yet; wait for the handshake, then send"
    with says(text):
        connection.send_audio(b"ab")
    server = asked_server()
    for verb in (
        server.send_ready,
        lambda: server.send_audio(bytes(200)),
        lambda: server.send_error("E", "m"),
    ):
        with says(text):
            verb()
    assert connection.data_to_send() == server.data_to_send() == b""


# Both sides together


@with_each_masker
def test_a_whole_session() -> None:
    client, server = open_pair()
    assert {client.state, server.state} == {State.OPEN}
    server.send_ready()
    client.send_audio(bytes(960))
    client.commit()
    exchange(client, server)
    assert drain(client) == [Ready(24_000, 24_000)]
    assert drain(server) == [AudioIn(bytes(960), 24_000), Commit()]
    server.send_tool_call("c1", "f", "{}")
    server.send_audio(b"\x01\x00" * 480)
    exchange(client, server)
    assert drain(client) == [ToolCall("c1", "f", "{}"), Audio(b"\x01\x00" * 480, 24_000)]
    client.send_tool_result("c1", "42")
    client.close(1000, "client_closed")
    exchange(client, server)
    assert drain(server) == [ToolResult("c1", "42"), Close(1000, "client_closed", "remote")]
    exchange(client, server)
    assert drain(client) == [Close(1000, "client_closed", "local")]
    assert {client.state, server.state} == {State.CLOSED}


def test_a_server_closes_with_a_reason_longer_than_a_close_frame() -> None:
    client, server = open_pair()
    server.send_ready()
    server.close(1011, "because " * 40)
    exchange(client, server)
    assert drain(client)[-1] == Close(1011, "because " * 40, "remote")
    exchange(client, server)
    assert only_event(server) == Close(1011, "because " * 40, "local")


@pytest.mark.parametrize("first", ["client", "server"])
def test_closes_that_cross(first: str) -> None:
    client, server = open_pair()
    client.close(1000, "client's")
    server.close(1001, "server's")
    from_client, from_server = client.data_to_send(), server.data_to_send()
    client.receive_data(from_server)
    server.receive_data(from_client)
    assert only_event(client) == Close(1000, "client's", "local")
    assert only_event(server) == Close(1001, "server's", "local")
    assert client.data_to_send() == server.data_to_send() == b""


@with_each_masker
@pytest.mark.parametrize(
    "size", [0, 2, 124, 126, 128, 960, 4_800, MAX_AUDIO_MESSAGE, MAX_AUDIO_MESSAGE + 2, 70_000]
)
def test_audio_of_every_form_of_length_both_ways(size: int) -> None:
    client, server = open_pair()
    server.send_ready()
    server.data_to_send()
    pcm = random.Random(size).randbytes(size)
    client.send_audio(pcm)
    server.send_audio(pcm)
    exchange(client, server)
    assert b"".join(event.pcm for event in drain(client) if isinstance(event, Audio)) == pcm
    assert b"".join(event.pcm for event in drain(server) if isinstance(event, AudioIn)) == pcm


@with_each_masker
def test_a_client_masks_every_frame_with_a_new_key_and_a_server_none() -> None:
    client, server = open_pair()
    server.send_ready()
    server.send_audio(bytes(200))
    client.send_audio(bytes(200))
    client.send_audio(bytes(200))
    client.commit()
    sent = client.data_to_send()
    keys = {sent[4:8], sent[212:216], sent[418:422]}
    assert len(keys) == 3
    assert sent[8:208] == sent[4:8] * 50
    assert [opcode for opcode, _ in parse_frames(sent)] == [BINARY, BINARY, TEXT]
    assert server.data_to_send().endswith(b"\x82\x7e\x00\xc8" + bytes(200))


def test_half_of_the_bytes_is_enough_for_half_of_the_events() -> None:
    client, server = open_pair()
    client.send_audio(bytes(960))
    client.commit()
    data = client.data_to_send()
    server.receive_data(data[:970])
    assert drain(server) == [AudioIn(bytes(960), 24_000)]
    server.receive_data(data[970:])
    assert drain(server) == [Commit()]


def test_one_byte_at_a_time() -> None:
    client, server = ClientConnection(URL, TOKEN), ServerConnection()
    (asked,) = trickle(server, client.data_to_send())
    assert isinstance(asked, UpgradeRequest)
    server.accept()
    assert trickle(client, server.data_to_send()) == []
    assert client.state is State.OPEN
    server.send_ready()
    server.send_audio(bytes(300))
    server.close(1000, "done")
    assert trickle(client, server.data_to_send()) == [
        Ready(24_000, 24_000),
        Audio(bytes(300), 24_000),
        Close(1000, "done", "remote"),
    ]
    assert trickle(server, client.data_to_send()) == [Close(1000, "done", "local")]


def test_what_follows_the_handshake_in_the_same_read_is_not_lost() -> None:
    connection, server = client(), ServerConnection()
    server.receive_data(connection.data_to_send() + frame(BINARY, b"ab", masked=True))
    assert isinstance(server.next_event(), UpgradeRequest)
    assert server.next_event() is NEED_DATA
    server.accept()
    assert server.next_event() == AudioIn(b"ab", 24_000)
    server.send_ready()
    connection.receive_data(server.data_to_send())
    assert connection.next_event() == Ready(24_000, 24_000)


def test_what_follows_a_head_does_not_count_as_head() -> None:
    connection, server = client(), ServerConnection()
    data = answer(server, connection.data_to_send())
    server.send_ready()
    server.send_audio(bytes(70_000))
    connection.receive_data(data + server.data_to_send())
    events = drain(connection)
    assert events[0] == Ready(24_000, 24_000)
    assert sum(len(event.pcm) for event in events[1:] if isinstance(event, Audio)) == 70_000


OPTIONS: dict[str, Any] = {
    "input_sample_rate": 24_000,
    "output_sample_rate": 24_000,
    "limits": DEFAULT_LIMITS,
    "handshake_timeout": 10.0,
    "ping_interval": 20.0,
    "ping_timeout": 20.0,
    "close_timeout": 5.0,
    "ttl": None,
    "warn_before": 60.0,
    "entropy": os.urandom,
}


@pytest.mark.parametrize("kind", [ClientConnection, ServerConnection])
def test_the_defaults_are_the_documented_ones(kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert {name: defaults[name] for name in OPTIONS} == OPTIONS
    assert {parameters[name].kind for name in OPTIONS} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(defaults) - set(OPTIONS) == (
        {"url", "token", "headers"} if kind is ClientConnection else {"extensions", "capabilities"}
    )
    for level in (ClientProtocol, ServerProtocol):
        shared = inspect.signature(level).parameters
        own = {"state", "extensions", "capabilities"}
        assert {name: shared[name].default for name in shared if name not in own} == {
            name: value for name, value in OPTIONS.items() if name in shared
        }
    for server in (ServerProtocol, ServerConnection):
        assert inspect.signature(server).parameters["extensions"].default == ()
        assert inspect.signature(server).parameters["capabilities"].default is None


def test_every_option_arrives() -> None:
    options: dict[str, Any] = {
        "input_sample_rate": 16_000,
        "output_sample_rate": 48_000,
        "limits": Limits(max_outbox=1),
        "ttl": 100.0,
        "warn_before": 30.0,
        "ping_interval": None,
    }
    for connection in open_pair(ClientConnection(URL, TOKEN, **options), ServerConnection(**options)):
        assert (connection.input_sample_rate, connection.output_sample_rate) == (16_000, 48_000)
        assert connection.limits == Limits(max_outbox=1)
        connection.handle_timeout(0.0)
        assert connection.next_deadline() == 70.0
        connection.handle_timeout(70.0)
        assert only_event(connection) == Expiring(30.0)


@with_each_masker
def test_a_session_replays_byte_for_byte() -> None:
    def play() -> list[bytes]:
        client = ClientConnection(URL, TOKEN, entropy=fixed_entropy().randbytes, ping_interval=20.0)
        server = ServerConnection(entropy=fixed_entropy(2).randbytes)
        wire = [client.data_to_send()]
        wire.append(answer(server, wire[0]))
        client.receive_data(wire[1])
        assert client.next_event() is NEED_DATA
        client.send_audio(bytes(960))
        client.commit()
        wire.append(client.data_to_send())
        client.receive_data(frame(0x9, b"ping", masked=False))
        assert client.next_event() is NEED_DATA
        wire.append(client.data_to_send())
        let_time_pass(client, 0.0, 40.0)
        wire.append(client.data_to_send())
        client.close(1000, "bye")
        wire.append(client.data_to_send())
        return wire

    first, second = play(), play()
    assert first == second
    assert [bool(data) for data in first] == [True] * 6


def test_by_default_no_two_sessions_are_alike() -> None:
    assert client().data_to_send() != client().data_to_send()


# A client and the server's answer


def respond(status: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body


def test_a_refusal_with_the_documented_body() -> None:
    connection = waiting_client()
    body = b'{"error":"token expired","code":"UNAUTHORIZED"}'
    connection.receive_data(respond("401 Unauthorized", f"content-length: {len(body)}", body=body))
    for _ in range(10):
        with pytest.raises(HandshakeError) as caught:
            connection.next_event()
        assert caught.value.status == 401
        assert str(caught.value) == (
            "the server refused the session with HTTP 401 (token expired); mint a new one and open it in time"
        )
        assert connection.error is caught.value
    assert connection.state is State.CLOSED
    assert connection.closed is None
    assert connection.next_deadline() is None
    with pytest.raises(HandshakeError):
        connection.send_audio(b"ab")


@pytest.mark.parametrize(
    ("form", "size"),
    [
        ("length", 1),
        pytest.param("length", 7),
        ("length", 40),
        ("chunked", 1),
        ("chunked", 7),
        ("chunked", 40),
    ],
)
def test_a_refusal_in_pieces(form: str, size: int) -> None:
    body = b'{"error":"no such session","code":"NOT_FOUND"}'
    if form == "length":
        data = respond("404 Not Found", f"content-length: {len(body)}", body=body)
    else:
        chunks = b"5\r\n" + body[:5] + b"\r\n%x\r\n" % (len(body) - 5) + body[5:] + b"\r\n0\r\n\r\n"
        data = respond("404 Not Found", "transfer-encoding: chunked", body=chunks)
    connection = waiting_client()
    with pytest.raises(HandshakeError, match=r"with HTTP 404 \(no such session\); mint a new one"):
        trickle(connection, data, size)


@pytest.mark.parametrize(
    "data",
    [
        respond("503 Service Unavailable", "content-length: 0"),
        respond("503 Service Unavailable", "content-length: 0", body=b"junk behind it"),
        respond("503 Service Unavailable", "connection: close"),
        respond("503"),
    ],
)
def test_a_refusal_without_a_body(data: bytes) -> None:
    connection = waiting_client()
    connection.receive_data(data)
    connection.receive_eof()
    with pytest.raises(HandshakeError, match=r"refused the session with HTTP 503; mint") as caught:
        connection.next_event()
    assert caught.value.status == 503


def test_the_server_hangs_up_in_the_middle_of_a_refusal() -> None:
    connection = waiting_client()
    connection.receive_data(respond("403 Forbidden", "content-length: 100", body=b"too bus"))
    assert connection.next_event() is NEED_DATA
    connection.receive_eof()
    with pytest.raises(HandshakeError, match=r"HTTP 403 \(too bus\)"):
        connection.next_event()


@pytest.mark.parametrize("pieces", [1, 8])
def test_a_long_refusal_is_cut(pieces: int) -> None:
    body = b"word " * 2000
    data = respond("500 X", f"content-length: {len(body)}", body=body)
    connection = waiting_client()
    size = len(data) // pieces + 1
    with pytest.raises(HandshakeError, match="HTTP 500") as caught:
        trickle(connection, data, size)
    assert len(str(caught.value)) < 400


def test_a_refusal_of_any_bytes() -> None:
    connection = waiting_client()
    connection.receive_data(respond("500 X", "content-length: 4", body=b"no\xff\xfe"))
    with pytest.raises(HandshakeError, match="HTTP 500 \\(no\ufffd\ufffd\\);"):
        connection.next_event()


def test_the_token_in_a_refusal_is_crossed_out() -> None:
    connection = waiting_client()
    body = f"{TOKEN} is not {TOKEN}".encode()
    connection.receive_data(respond("401 X", f"content-length: {len(body)}", body=body))
    with pytest.raises(HandshakeError, match=r"HTTP 401 \(<token> is not <token>\);"):
        connection.next_event()


def test_a_refusal_says_the_same_however_it_is_cut() -> None:
    body = b'{"padding":"' + b"x" * 6000 + b'","error":"no"}'
    data = respond("500 X", f"content-length: {len(body)}", body=body)
    texts = set()
    for size in (len(data), 500):
        connection = waiting_client()
        with pytest.raises(HandshakeError) as caught:
            trickle(connection, data, size)
        texts.add(str(caught.value))
    assert len(texts) == 1


INTERIM = st.sampled_from(
    [
        respond("100 Continue"),
        respond("102 Processing"),
        respond("103 Early Hints", "link: </a.css>; rel=preload", "link: </b.css>; rel=preload"),
        b"HTTP/1.1 199\n\n",
    ]
)


@given(interim=st.lists(INTERIM, min_size=1, max_size=20), size=st.integers(1, 200))
def test_interim_answers_are_skipped_however_they_are_cut(interim: list[bytes], size: int) -> None:
    connection, server = client(), ServerConnection()
    data = b"".join(interim) + answer(server, connection.data_to_send())
    server.send_ready()
    assert trickle(connection, data + server.data_to_send(), size) == [Ready(24_000, 24_000)]
    assert connection.state is State.OPEN


@given(interim=st.lists(INTERIM, min_size=1, max_size=5), size=st.integers(1, 200))
def test_a_refusal_behind_interim_answers_is_told(interim: list[bytes], size: int) -> None:
    connection = waiting_client()
    with pytest.raises(HandshakeError, match="HTTP 429"):
        trickle(connection, b"".join(interim) + respond("429 X", "content-length: 0"), size)


def test_interim_answers_without_end_are_cut_off() -> None:
    connection = waiting_client()
    interim = respond("100 Continue")
    fitting = interim * (MAX_HEAD // len(interim))
    assert trickle(connection, fitting, len(interim)) == []
    with pytest.raises(RemoteProtocolError, match="its HTTP head is longer than 16384 bytes"):
        trickle(connection, interim)


def test_a_server_takes_no_answer_for_a_request() -> None:
    server = ServerConnection()
    server.receive_data(respond("100 Continue"))
    with pytest.raises(RemoteProtocolError, match=r"it is not an HTTP/1\.1 request"):
        server.next_event()


GOOD_ANSWER = (
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: " + TOKEN + "\r\n\r\n"
)


def answered(change: Callable[[bytes], bytes]) -> ClientConnection:
    """A client after the right answer, as `change` has changed it."""
    connection = client()
    right = answer(ServerConnection(), connection.data_to_send())
    assert change(right) != right
    connection.receive_data(change(right))
    return connection


@pytest.mark.parametrize(
    "name",
    [b"Sec-WebSocket-Accept", b"Upgrade", b"Connection"],
)
def test_an_answer_without_its_proof(name: bytes) -> None:
    connection = answered(lambda data: data.replace(name + b":", b"X-Other:", 1))
    with pytest.raises(
        RemoteProtocolError, match="the server's answer is not a WebSocket handshake: "
    ) as caught:
        connection.next_event()
    assert caught.value.close_code == 1002
    assert connection.state is State.CLOSED
    assert connection.data_to_send() == b""


def test_a_wrong_accept() -> None:
    connection = waiting_client()
    connection.receive_data(GOOD_ANSWER.replace("ACCEPT", "bm90IHJpZ2h0IGF0IGFsbCE=").encode())
    with pytest.raises(RemoteProtocolError, match="not a WebSocket handshake: Bad accept token"):
        connection.next_event()


@pytest.mark.parametrize("value", ["other", TOKEN.upper(), TOKEN + ", other", "other, " + TOKEN])
def test_a_subprotocol_that_was_not_offered(value: str) -> None:
    connection = answered(lambda data: data.replace(TOKEN.encode(), value.encode()))
    with pytest.raises(RemoteProtocolError, match="unrecognized subprotocol"):
        connection.next_event()


def test_no_subprotocol_at_all_is_tolerated() -> None:
    connection = answered(
        lambda data: data.replace(b"Sec-WebSocket-Protocol: " + TOKEN.encode() + b"\r\n", b"")
    )
    assert connection.next_event() is NEED_DATA
    assert connection.state is State.OPEN


def test_an_extension_that_was_not_offered() -> None:
    connection = answered(
        lambda data: data.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    )
    with pytest.raises(RemoteProtocolError, match="unrecognized extension"):
        connection.next_event()


@pytest.mark.parametrize(
    ("echo", "where"),
    [
        (
            lambda token: respond(
                "401 X", "content-length: 40", body=f"{token} is no token".ljust(40).encode()
            ),
            "body",
        ),
        (lambda token: respond("401 X", f"x-echo: {token}", "content-length: 0"), "header"),
        (lambda token: f"HTTP/1.1 {token}\r\n\r\n".encode(), "status line"),
        (lambda token: f"{token}\r\n\r\n".encode(), "garbage"),
        pytest.param(
            lambda token: respond(
                "401 X", "content-length: 220", body=f"{'x' * 194} {token}".ljust(220).encode()
            ),
            "cut in the body",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_token_is_in_no_error(echo: Callable[[str], bytes], where: str) -> None:
    connection = ClientConnection(URL, "s3cret-token")
    connection.data_to_send()
    connection.receive_data(echo("s3cret-token"))
    connection.receive_eof()
    with pytest.raises(SpekoError) as caught:
        connection.next_event()
    assert "s3cr" not in str(caught.value)
    assert "s3cret-token" not in repr(connection.error)


def test_the_token_is_not_in_the_error_of_a_wrong_subprotocol() -> None:
    connection = answered(lambda data: data.replace(TOKEN.encode(), TOKEN.encode() + b", other"))
    with pytest.raises(RemoteProtocolError, match=r"unrecognized subprotocol <token>, other$") as caught:
        connection.next_event()
    assert TOKEN not in str(caught.value)


# Bytes that are no handshake, to either role

GARBAGE = {
    "zeros": bytes(64) + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "empty lines": b"\r\n\r\n",
    "bare line feeds": b"\n\n",
    "words": b"hello there\r\n\r\n",
    "bad header": b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    "space in a name": b"HTTP/1.1 101 X\r\nupgrade : websocket\r\n\r\n",
    "not HTTP/1": b"GET / HTTP/9.9\r\n\r\n",
    "the other way": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("garbage", [data for name, data in GARBAGE.items() if name != "the other way"])
def test_garbage_instead_of_an_answer(garbage: bytes) -> None:
    connection = waiting_client()
    connection.receive_data(garbage)
    with pytest.raises(RemoteProtocolError, match="the server's answer is not a WebSocket handshake"):
        connection.next_event()


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_instead_of_a_request(garbage: bytes) -> None:
    server = ServerConnection()
    server.receive_data(garbage)
    for _ in range(10):
        with pytest.raises(RemoteProtocolError) as caught:
            server.next_event()
        assert server.error is caught.value
    why = "Bad HTTP message" if garbage is GARBAGE["bad header"] else "it is not an HTTP/1.1 request"
    assert str(server.error) == f"the client's request is not a WebSocket handshake: {why}"
    assert isinstance(server.error, RemoteProtocolError)
    assert server.error.close_code == 1002
    head, _, body = server.data_to_send().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert f"content-length: {len(body)}" in head
    assert "connection: close" in head
    assert body == str(server.error)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"GET", b"POST", 1),
        lambda data: re.sub(rb"(?i)upgrade: websocket", b"Upgrade: h2c", data),
        lambda data: data.replace(b"Connection: Upgrade", b"Connection: close"),
        lambda data: data.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"),
        lambda data: data.replace(b"Sec-WebSocket-Key", b"X-Key"),
        lambda data: data.replace(b"Host", b"X-Host"),
    ],
)
def test_a_request_that_asks_for_something_else(change: Callable[[bytes], bytes]) -> None:
    server = ServerConnection()
    request = client().data_to_send()
    assert change(request) != request
    server.receive_data(change(request))
    with pytest.raises(RemoteProtocolError, match="the client's request is not a WebSocket handshake"):
        server.next_event()
    assert server.data_to_send().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "field",
    [b"Host: \xff\xfe", b"Sec-WebSocket-Protocol: \xff", b"Upgrade: \xe9", b"Sec-WebSocket-Extensions: \xff"],
)
def test_a_request_with_bytes_beyond_ascii(field: bytes) -> None:
    name = field.split(b":")[0]
    lines = [line for line in client().data_to_send().split(b"\r\n") if not line.startswith(name)]
    server = ServerConnection()
    server.receive_data(b"\r\n".join([lines[0], field, *lines[1:]]))
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    why = "Missing header, 'Upgrade: " if name == b"Upgrade" else "a header of its handshake is not ASCII"
    assert str(caught.value).startswith(f"the client's request is not a WebSocket handshake: {why}")
    assert str(caught.value).endswith(why) or name == b"Upgrade"
    assert caught.value.close_code == 1002
    assert server.data_to_send().startswith(b"HTTP/1.1 400 ")


def test_an_answer_with_bytes_beyond_ascii() -> None:
    connection = answered(
        lambda data: data.replace(b"upgrade: ", b"upgrade: \xff").replace(b"Upgrade: ", b"Upgrade: \xff")
    )
    with pytest.raises(RemoteProtocolError, match="not a WebSocket handshake"):
        connection.next_event()


def test_a_server_may_get_any_bytes_in_other_headers() -> None:
    server = ServerConnection()
    server.receive_data(client().data_to_send().replace(b"\r\n\r\n", b"\r\nX-Name: caf\xe9\r\n\r\n"))
    request = server.next_event()
    assert isinstance(request, UpgradeRequest)
    assert ("x-name", "caf\xe9") in request.headers


@pytest.mark.parametrize("make", [waiting_client, ServerConnection], ids=["client", "server"])
@pytest.mark.parametrize("size", [1000, 20_000])
def test_a_head_without_end(make: Callable[[], ClientConnection | ServerConnection], size: int) -> None:
    connection = make()
    start = b"GET / HTTP/1.1\r\n" if isinstance(connection, ServerConnection) else b"HTTP/1.1 101 X\r\n"
    data = start + b"x: y\r\n" * 4000
    with pytest.raises(RemoteProtocolError, match="its HTTP head is longer than 16384 bytes") as caught:
        trickle(connection, data, size)
    assert caught.value.close_code == 1008


def test_a_head_of_exactly_the_limit_passes() -> None:
    request = client().data_to_send()
    padding = 16_384 - len(request) - len("x: \r\n")
    for more, outcome in ((0, UpgradeRequest), (1, RemoteProtocolError)):
        server = ServerConnection()
        server.receive_data(request.removesuffix(b"\r\n") + b"x: " + b"y" * (padding + more) + b"\r\n\r\n")
        if outcome is UpgradeRequest:
            assert isinstance(server.next_event(), UpgradeRequest)
        else:
            with pytest.raises(RemoteProtocolError):
                server.next_event()


def test_an_end_of_the_head_may_be_split_between_reads() -> None:
    request = client().data_to_send()
    for cut in range(1, 5):
        server = ServerConnection()
        server.receive_data(request[:-cut])
        assert server.next_event() is NEED_DATA
        server.receive_data(request[-cut:])
        assert isinstance(server.next_event(), UpgradeRequest)


# The server's answer


def test_the_request_as_the_server_sees_it() -> None:
    server = ServerConnection()
    server.receive_data(ClientConnection("ws://h:99/a?b=c", TOKEN, headers=[("X-A", "1")]).data_to_send())
    request = server.next_event()
    assert isinstance(request, UpgradeRequest)
    assert (request.target, request.host, request.subprotocols) == ("/a?b=c", "h:99", (TOKEN,))
    assert ("x-a", "1") in request.headers


def test_accept_answers_with_the_token_and_only_it() -> None:
    server = asked_server()
    server.accept(headers=[("X-Node", "n1")])
    head, *fields = server.data_to_send().decode().lower().splitlines()
    assert head.startswith("http/1.1 101 ")
    assert [field for field in fields if "protocol:" in field] == [f"sec-websocket-protocol: {TOKEN}"]
    assert "x-node: n1" in fields
    assert server.state is State.OPEN


def test_of_several_subprotocols_the_first_is_taken() -> None:
    server = ServerConnection()
    server.receive_data(client().data_to_send().replace(TOKEN.encode(), TOKEN.encode() + b", speko.v1"))
    request = server.next_event()
    assert isinstance(request, UpgradeRequest)
    assert request.subprotocols == (TOKEN, "speko.v1")
    server.accept()
    assert f"sec-websocket-protocol: {TOKEN}\r\n" in server.data_to_send().decode().lower()


def test_without_a_token_there_is_nothing_to_accept() -> None:
    server = ServerConnection()
    server.receive_data(client().data_to_send().replace(b"Sec-WebSocket-Protocol", b"X-Other"))
    assert isinstance(server.next_event(), UpgradeRequest)
    with says("the client offers no usable token; refuse it with 401"):
        server.accept()
    assert server.state is State.CONNECTING
    server.refuse(401, "no token")
    assert server.data_to_send().startswith(b"HTTP/1.1 401 Unauthorized\r\n")


@pytest.mark.parametrize(
    "value", [b"", b" ", b",", b"a b", b"a/b", b", a", b"a b, good", b"a" * (MAX_TOKEN + 1)], ids=range(8)
)
def test_what_is_no_token_is_not_accepted(value: bytes) -> None:
    server = ServerConnection()
    server.receive_data(client().data_to_send().replace(b" " + TOKEN.encode(), b" " + value))
    assert isinstance(only_event(server), UpgradeRequest)
    with says("the client offers no usable token; refuse it with 401"):
        server.accept()
    assert (server.state, server.data_to_send()) == (State.CONNECTING, b"")
    server.refuse(401, "no token")
    assert server.data_to_send().startswith(b"HTTP/1.1 401 Unauthorized\r\n")


def test_the_longest_token_is_accepted() -> None:
    client, server = open_pair(client=ClientConnection(URL, "a" * MAX_TOKEN))
    assert {client.state, server.state} == {State.OPEN}


@pytest.mark.parametrize(
    ("body", "kind"), [("no", "text/plain; charset=utf-8"), ('{"error":"no"}', "application/json")]
)
def test_refuse_answers_with_http(body: str, kind: str) -> None:
    server = asked_server()
    server.refuse(401, body, headers=[("retry-after", "3")])
    data = server.data_to_send()
    assert (
        data
        == (
            f"HTTP/1.1 401 Unauthorized\r\nretry-after: 3\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
        ).encode()
    )
    assert server.state is State.CLOSED
    for _ in range(10):
        with pytest.raises(HandshakeError) as caught:
            server.next_event()
        assert str(caught.value) == f"the client was refused with HTTP 401: {body}"
        assert caught.value.status == 401
    refused = waiting_client()
    refused.receive_data(data)
    with pytest.raises(HandshakeError, match=r"HTTP 401 \(no\)"):
        refused.next_event()


def test_refuse_by_frame_accepts_only_to_say_why_not() -> None:
    refused, server = client(), ServerConnection()
    server.receive_data(refused.data_to_send())
    assert isinstance(only_event(server), UpgradeRequest)
    server.refuse_by_frame(ErrorFrame("UNAUTHORIZED", "no " * 100), 4401)
    assert (server.state, server.next_deadline()) == (State.CLOSED, None)
    for _ in range(3):
        with pytest.raises(HandshakeError, match="the client was refused with close code 4401: no no"):
            server.next_event()
    refused.receive_data(server.data_to_send())
    assert refused.next_event() == ErrorFrame("UNAUTHORIZED", "no " * 100)
    assert refused.next_event() == Close(4401, ("no " * 100)[:123], "remote")
    assert not server.has_output


@pytest.mark.parametrize("value", [b"", b" ", b",", b"a b", b"a, b", b", a"], ids=range(6))
def test_refuse_by_frame_takes_whatever_is_offered(value: bytes) -> None:
    for offer in (b"Sec-WebSocket-Protocol: " + value, b"X-Other: x"):
        server = ServerConnection()
        request = client().data_to_send()
        server.receive_data(request.replace(b"Sec-WebSocket-Protocol: " + TOKEN.encode(), offer))
        assert isinstance(only_event(server), UpgradeRequest)
        server.refuse_by_frame(ErrorFrame("NO", "no"), 4401)
        assert server.data_to_send().startswith(b"HTTP/1.1 101 ")


def test_refuse_by_frame_needs_a_code_that_may_be_sent() -> None:
    server = asked_server()
    with says("1006 is not a close code that may be sent; use 1000 or one from 4000 to 4999"):
        server.refuse_by_frame(ErrorFrame("NO", "no"), 1006)
    server.accept()


@pytest.mark.parametrize("body", ["\u00e9", "\ud800"])
def test_the_length_of_a_refusal_is_in_bytes(body: str) -> None:
    server = asked_server()
    server.refuse(403, body)
    head, _, content = server.data_to_send().partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in head


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.accept(),
        lambda s: s.refuse(401, "no"),
        lambda s: s.refuse_by_frame(ErrorFrame("NO", "no"), 4401),
    ],
)
def test_only_a_request_is_answered_and_only_once(call: Callable[[ServerConnection], None]) -> None:
    nothing_yet = ServerConnection()
    accepted = asked_server()
    accepted.accept()
    accepted.data_to_send()
    for server in (nothing_yet, accepted):
        state = server.state
        with says("there is no upgrade request to answer; wait for the UpgradeRequest event"):
            call(server)
        assert (server.state, server.data_to_send()) == (state, b"")
    refused = asked_server()
    refused.refuse(403, "no")
    for _ in range(3):
        with pytest.raises(HandshakeError, match="HTTP 403"):
            call(refused)


def test_a_session_that_is_over_is_not_answered() -> None:
    _, server = open_pair()
    server.receive_lost()
    with pytest.raises(ConnectionClosed):
        server.accept()


@pytest.mark.parametrize("headers", BAD_HEADERS)
@pytest.mark.parametrize("verb", ["accept", "refuse"])
def test_headers_that_http_cannot_carry_are_refused(verb: str, headers: list[tuple[str, str]]) -> None:
    server = asked_server()
    call = server.accept if verb == "accept" else functools.partial(server.refuse, 401, "no")
    with pytest.raises(LocalProtocolError):
        call(headers=headers)
    server.accept()


@pytest.mark.parametrize("status", [42, 101, 200, 204, 226, 499, 999])
def test_a_refusal_is_an_http_error(status: int) -> None:
    server = asked_server()
    with says(f"{status} is not an HTTP status for a refusal; use 401 or 503"):
        server.refuse(status, "no")
    server.accept()


@pytest.mark.parametrize("status", [300, 308, 400, 511])
def test_the_first_and_the_last_status_that_refuses(status: int) -> None:
    server = asked_server()
    server.refuse(status, "no")
    assert server.data_to_send().startswith(f"HTTP/1.1 {status} ".encode())
    assert server.state is State.CLOSED


@pytest.mark.parametrize("size", [1, 4096, 20_000])
def test_a_client_that_does_not_wait_for_the_answer_is_limited(size: int) -> None:
    server = asked_server()
    assert trickle(server, bytes(MAX_HEAD), size) == []
    assert (server.state, server.data_to_send()) == (State.CONNECTING, b"")
    server.receive_data(b"\0")
    with pytest.raises(RemoteProtocolError) as caught:
        server.next_event()
    assert str(caught.value) == (
        "the client's request is not a WebSocket handshake: it sends more than 16384 bytes before the answer"
    )
    assert caught.value.close_code == 1008
    assert server.data_to_send().startswith(b"HTTP/1.1 400 Bad Request\r\n")


# Giving up


def test_a_client_gives_up_on_a_silent_server() -> None:
    connection = waiting_client(handshake_timeout=10.0)
    connection.handle_timeout(100.0)
    assert connection.next_deadline() == 110.0
    connection.handle_timeout(109.9)
    assert connection.next_event() is NEED_DATA
    connection.handle_timeout(110.0)
    for _ in range(10):
        with says("no session: the server did not answer the handshake in time; try again", HandshakeError):
            connection.next_event()
        assert isinstance(connection.error, HandshakeError)
        assert connection.error.status is None
    assert connection.next_deadline() is None


@pytest.mark.parametrize("make", [ServerConnection, asked_server], ids=["nothing", "unanswered"])
def test_a_server_gives_up_on_a_handshake_that_is_not_done(make: Callable[..., ServerConnection]) -> None:
    server = make(handshake_timeout=10.0)
    server.handle_timeout(0.0)
    server.handle_timeout(10.0)
    reason = "no session: the client did not complete the handshake in time"
    with says(f"{reason}; wait for another", HandshakeError):
        server.next_event()
    head, _, body = server.data_to_send().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert body == reason


def test_the_handshake_timer_ends_with_the_handshake() -> None:
    client, server = open_pair(
        client=ClientConnection(URL, TOKEN, ping_interval=None), server=ServerConnection(ping_interval=None)
    )
    assert client.next_deadline() is server.next_deadline() is None


@pytest.mark.parametrize(
    "make", [waiting_client, ServerConnection, asked_server], ids=["client", "server", "asked"]
)
@pytest.mark.parametrize("some", [b"", b"H"])
def test_the_peer_hangs_up_before_the_handshake_is_done(
    make: Callable[[], ClientConnection | ServerConnection], some: bytes
) -> None:
    connection = make()
    connection.receive_data(some)
    connection.receive_eof()
    for _ in range(10):
        with pytest.raises(HandshakeError, match=r"no session: .*; try again"):
            connection.next_event()
    assert connection.closed is None


@pytest.mark.parametrize("make", [client, asked_server], ids=["client", "server"])
def test_sending_the_handshake_fails(make: Callable[[], ClientConnection | ServerConnection]) -> None:
    connection = make()
    connection.send_failed()
    assert connection.data_to_send() == b""
    for _ in range(10):
        with says("no session: sending the handshake failed; try again", HandshakeError):
            connection.next_event()


@pytest.mark.parametrize("make", [waiting_client, asked_server], ids=["client", "server"])
def test_closing_before_the_handshake_is_done(
    make: Callable[[], ClientConnection | ServerConnection],
) -> None:
    connection = make()
    connection.close(1000, "changed my mind")
    connection.close(1001, "again")
    assert connection.state is State.CLOSED
    assert connection.data_to_send() == b""
    for _ in range(10):
        with pytest.raises(ConnectionClosed, match="by this side with code 1000: changed my mind"):
            connection.next_event()
    assert connection.closed is None
    assert connection.next_deadline() is None


@pytest.mark.parametrize("make", [waiting_client, asked_server], ids=["client", "server"])
def test_a_failed_handshake_stays_as_it_is(make: Callable[[], ClientConnection | ServerConnection]) -> None:
    connection = make()
    connection.receive_lost("cable cut")
    error = connection.error
    assert str(error) == "no session: cable cut; try again"
    connection.receive_data(b"HTTP/1.1 401 X\r\n\r\n")
    connection.receive_eof()
    connection.send_failed()
    connection.close()
    connection.handle_timeout(1e9)
    with pytest.raises(HandshakeError) as caught:
        connection.next_event()
    assert caught.value is error
    assert connection.data_to_send() == b""


@with_each_masker
def test_a_goodbye_after_the_servers_end_hides_nothing_and_is_said_once() -> None:
    client, server = open_pair()
    server.close(1000, "session_expired")
    data = server.data_to_send()
    end = frame(TEXT, b'{"t":"end","reason":"session_expired"}', masked=False)
    assert data.startswith(end)
    client.receive_data(end)
    assert client.next_event() is NEED_DATA
    client.close(4000, "client_closed")
    assert parse_frames(client.data_to_send()) == [close_frame(4000, "client_closed")]
    client.receive_data(data.removeprefix(end))
    assert only_event(client) == Close(1000, "session_expired", "remote")
    assert client.data_to_send() == b""


# What does not belong to a session over bytes


def test_verbs_and_facts_are_the_dialects() -> None:
    client, server = open_pair()
    server.input_sample_rate, server.output_sample_rate = 16_000, 48_000
    server.send_ready()
    for said in (
        Audio(b"ab", 48_000),
        Transcript("user", "hi", True),
        ToolCall("c1", "f", "{}"),
        ServerToolCall("s1", "g", "started"),
        Usage(1, 2),
        ErrorFrame("CODE", "words"),
    ):
        server.send(said)
    server.send_transcript("assistant", "ho", final=False)
    server.send_tool_call("c2", "f", "{}")
    server.send_server_tool_call("s1", "g", "completed")
    server.send_usage(3, 4)
    server.send_response_end("done")  # only for those who accept it
    server.send_error("CODE", "more")
    client.receive_data(server.data_to_send())
    assert drain(client) == [
        Ready(16_000, 48_000),
        Audio(b"ab", 48_000),
        Transcript("user", "hi", True),
        ToolCall("c1", "f", "{}"),
        ServerToolCall("s1", "g", "started"),
        Usage(1, 2),
        ResponseEnd("done"),
        ErrorFrame("CODE", "words"),
        Transcript("assistant", "ho", False),
        ToolCall("c2", "f", "{}"),
        ServerToolCall("s1", "g", "completed"),
        Usage(3, 4),
        ResponseEnd("done"),
        ErrorFrame("CODE", "more"),
    ]
    assert [client.open_calls, server.open_calls] == [("c1", "c2")] * 2
    client.commit()
    client.end_turn()
    client.clear()
    client.interrupt()
    client.send_tool_result("c1", "1")
    server.receive_data(client.data_to_send())
    assert drain(server) == [Commit(), EndTurn(), Clear(), Interrupt(), ToolResult("c1", "1")]
    assert (client.odd_fields, server.odd_fields) == (0, 0)
    server.send_interruption("assistant")
    client.receive_data(server.data_to_send())
    assert drain(client) == [Interruption("assistant")]
    assert [*client.open_calls, *server.open_calls] == []
    assert client.limits == server.limits == Limits()


def test_the_message_level_is_not_reached_by_name() -> None:
    """A session over bytes has a dialect and is none: what takes or gives whole messages is not there."""
    for connection in open_pair():
        for name in ("messages_to_send", "next_message", "receive_message", "receive_close"):
            assert not hasattr(connection, name)
            assert hasattr(connection.dialect, name)


def test_the_servers_close_goes_out_in_one_piece_with_its_reason() -> None:
    _, server = open_pair()
    server.close(4401, "token used before")
    assert parse_frames(server.data_to_send()) == [
        (TEXT, b'{"t":"end","reason":"token used before"}'),
        close_frame(4401, "token used before"),
    ]


def test_a_clients_attributes_are_stored_inline() -> None:
    """With 30 of them CPython 3.11 keeps a dict instead, and decoding a frame takes a twelfth longer."""
    assert len(vars(client())) < 30


def test_half_a_sample_goes_before_audio_of_the_usual_size() -> None:
    server = opened("server")
    usual, odd = b"\1\2" * 480, b"\3\4\5"
    messages = [usual, usual, odd, usual, usual, odd, usual, usual]
    heard = b""
    for message in messages:
        server.receive_data(frame_for("server", BINARY, message))
        for event in drain(server):
            assert isinstance(event, AudioIn)
            heard += event.pcm
    assert heard == b"".join(messages)
