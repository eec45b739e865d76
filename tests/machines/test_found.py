"""What the proofs of this folder have found, in its smallest form, so that it stays found."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio.protocol import (
    ClientConnection,
    ConnectionClosed,
    Limits,
    LocalProtocolError,
    ServerConnection,
    State,
    UpgradeRequest,
)

from . import driver
from .strategies import FIN, TEXT, chunks, frame

ROLES = [pytest.param(True, id="client"), pytest.param(False, id="server")]


def opened(*, client: bool, limits: Limits | None = None, **options: Any) -> Any:
    """A connection in its session, at time 0, with nothing to take."""
    connection = driver.make(client=client, limits=limits or Limits(), **options)
    connection.receive_data(driver.opening(client=client))
    driver.drain(connection, ServerConnection.accept)
    connection.data_to_send()
    connection.handle_timeout(0.0)
    return connection


@pytest.mark.parametrize("client", ROLES)
def test_last_byte_of_the_handshake_may_come_alone(client: bool) -> None:
    connection = driver.make(client=client, limits=Limits())
    opening = driver.opening(client=client)
    for piece in (opening[:-1], opening[-1:]):
        connection.receive_data(piece)
        driver.drain(connection, ServerConnection.accept)
    assert connection.state is State.OPEN


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
def test_an_interim_response_is_skipped(status: bytes) -> None:
    client = driver.make(client=True, limits=Limits())
    client.receive_data(b"HTTP/1.1 " + status + b"\r\n\r\n" + driver.response_bytes())
    driver.drain(client)
    assert client.state is State.OPEN


def test_cuts_do_not_change_what_is_told_of_a_refusal() -> None:
    body = b'{"error":"' + b"y" * 5000 + b'"}'
    refusal = b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    told = set()
    for sizes in (None, [1000], [1]):
        client = driver.make(client=True, limits=Limits())
        _, error, _ = driver.drive(client, chunks(refusal, sizes), eof=False)
        told.add(str(error))
    assert len(told) == 1


def test_timer_stopped_by_an_earlier_one_does_not_come() -> None:
    server = opened(client=False, ttl=5.0, ping_interval=6.0)
    server.handle_timeout(10.0)
    peer = driver.StockPeer(reads_from_client=False)
    assert [wire[0] for _, wire in peer.read(server.data_to_send())] == ["text", "close"]
    assert server.state is State.CLOSING


def test_nothing_is_pinged_after_sending_failed() -> None:
    client = opened(client=True, ping_interval=6.0)
    client.send_failed()
    client.handle_timeout(7.0)
    client.handle_timeout(14.0)
    assert client.data_to_send() == b""


def test_no_close_is_said_after_sending_failed() -> None:
    client = opened(client=True)
    client.send_failed()
    client.receive_data(b"\x83\x00")
    _, error = driver.drain(client)
    assert error is not None
    assert client.data_to_send() == b""


def test_interruption_drops_audio_only_when_it_is_said() -> None:
    server = opened(client=False, limits=Limits(max_outbox=100), extensions=())
    server.send_ready()
    server.data_to_send()
    server.send_error("x", "w" * 50)
    server.send_audio(b"\1\2")
    try:
        server.send_interruption()
    except LocalProtocolError:
        said = False
    else:
        said = True
    read = driver.StockPeer(reads_from_client=False).read(server.data_to_send())
    assert (("binary", b"\1\2") in [wire for _, wire in read]) is not said


def test_interruption_leaves_the_count_of_queued_payload_right() -> None:
    server = opened(client=False, limits=Limits(max_outbox=200), extensions=())
    server.send_ready()
    server.send_audio(b"\0\0")
    server.send_interruption()
    said = len(
        '{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000}{"t":"interruption","at":"user"}'
    )
    server.send_audio(bytes(200 - said))
    with pytest.raises(LocalProtocolError):
        server.send_audio(b"\0\0")


def test_every_verb_after_the_end_gives_the_same_error() -> None:
    server = opened(client=False)
    server.send_ready()
    server.send_tool_call("a", "f", "{}")
    server.receive_eof()
    _, error = driver.drain(server)
    for verb in (server.send_ready, lambda: server.send_tool_call("a", "f", "{}"), server.send_interruption):
        with pytest.raises(ConnectionClosed) as raised:
            verb()
        assert raised.value is error


def test_peer_cannot_put_off_its_end_by_announcing_it_again() -> None:
    client: ClientConnection = opened(client=True, close_timeout=5.0)
    for now in (0.0, 4.0, 8.0):
        client.receive_data(frame(FIN | TEXT, b'{"t":"end","reason":"soon"}', masked=False))
        driver.drain(client)
        client.handle_timeout(now)
    assert client.state is State.CLOSED


def test_empty_read_is_no_sign_of_life() -> None:
    client = opened(client=True, ping_interval=6.0, ping_timeout=6.0)
    client.handle_timeout(6.5)
    client.handle_timeout(6.5)
    assert client.data_to_send() != b"", "no ping was sent"
    client.receive_data(b"")
    client.handle_timeout(13.0)
    assert client.state is State.CLOSED


def test_client_that_does_not_wait_for_the_answer_fills_no_memory() -> None:
    server = driver.make(client=False, limits=Limits())
    server.receive_data(driver.request_bytes())
    assert type(server.next_event()) is UpgradeRequest
    _, error, _ = driver.drive(server, [bytes(100_000)] * 10, eof=False)
    assert type(error) in driver.DOCUMENTED
    assert driver.deep_size(server) < 300_000
