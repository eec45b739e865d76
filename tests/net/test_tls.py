"""TLS as a function of bytes, against a server of the standard library's."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio._net.tls import TLS

_AUTHORITY = trustme.CA()
_SERVER, _CLIENT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
_AUTHORITY.issue_cert("speko.test").configure_cert(_SERVER)
_AUTHORITY.configure_trust(_CLIENT)

MORE_THAN_A_RECORD = bytes(range(256)) * 300


class Server:
    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.end = _SERVER.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def receive(self, data: bytes) -> None:
        self._incoming.write(data)

    def output(self) -> bytes:
        return self._outgoing.read()

    def write(self, data: bytes) -> bytes:
        """Return the records for `data`."""
        while data:
            data = data[self.end.write(data) :]
        return self.output()

    def read(self) -> bytes:
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                parts.append(self.end.read(100_000))
        return b"".join(parts)

    def leave(self) -> bytes:
        """Return the record that says goodbye."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.end.unwrap()
        return self.output()


def opened() -> tuple[TLS, Server]:
    """Both sides after the handshake."""
    client, server = TLS(_CLIENT, "speko.test"), Server()
    while not client.handshake():
        server.receive(client.output())
        with contextlib.suppress(ssl.SSLWantReadError):
            server.end.do_handshake()
        client.receive(server.output())
    server.receive(client.output())
    server.end.do_handshake()
    return client, server


def heard(client: TLS, reads: Iterable[bytes]) -> bytes:
    """Return all that the client reads out of `reads`."""
    said = b""
    for data in reads:
        with contextlib.suppress(BlockingIOError):
            said += client.open(data)
    return said


@pytest.mark.parametrize("said", [b"x", MORE_THAN_A_RECORD])
def test_both_sides_understand_each_other(said: bytes) -> None:
    client, server = opened()
    for _ in range(2):
        assert client.open(server.write(said)) == said
        server.receive(client.seal(said))
        assert server.read() == said
    assert client.seal(b"") == b""
    assert not client.over


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=5), st.integers(1, 70_000))
def test_records_may_come_in_pieces_of_any_size(sizes: list[int], read: int) -> None:
    client, server = opened()
    wire = b"".join(server.write(bytes([size % 256]) * size) for size in sizes)
    reads = [wire[start : start + read] for start in range(0, len(wire), read)]
    assert heard(client, reads) == b"".join(bytes([size % 256]) * size for size in sizes)


def test_part_of_a_record_is_nothing_yet() -> None:
    client, server = opened()
    wire = server.write(b"hello")
    with pytest.raises(BlockingIOError):
        client.open(wire[:-1])
    assert client.open(wire[-1:]) == b"hello"


@pytest.mark.parametrize("together", [True, False])
def test_a_goodbye_ends_what_the_peer_says(together: bool) -> None:
    client, server = opened()
    said, goodbye = server.write(b"hello"), server.leave()
    if together:
        assert client.open(said + goodbye) == b"hello"
    else:
        assert client.open(said) == b"hello"
        assert not client.over
        assert client.open(goodbye) == b""
    assert client.over
    assert client.open(b"") == b""


def test_an_end_without_a_goodbye_is_an_end() -> None:
    client, server = opened()
    assert client.open(server.write(b"hello")) == b"hello"
    with pytest.raises(BlockingIOError):
        client.open(server.write(b"cut off")[:9])
    assert client.open(b"") == b""
    assert client.over


def test_a_forged_record_takes_nothing_away_that_came_before_it() -> None:
    client, server = opened()
    said, forged = server.write(b"hello"), bytearray(server.write(b"world"))
    forged[-1] ^= 1
    assert client.open(said + forged) == b"hello"
    assert client.over
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
            client.open(b"")


def test_a_forged_record_alone_is_an_error_at_once() -> None:
    client, server = opened()
    forged = bytearray(server.write(b"world"))
    forged[-1] ^= 1
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
        client.open(bytes(forged))


@pytest.mark.parametrize(("context", "host"), [(ssl.create_default_context(), "speko.test"), (_CLIENT, "x")])
def test_a_server_that_is_not_trusted_is_told_so(context: ssl.SSLContext, host: str) -> None:
    client, server = TLS(context, host), Server()
    assert not client.handshake()
    server.receive(client.output())
    with pytest.raises(ssl.SSLWantReadError):
        server.end.do_handshake()
    client.receive(server.output())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.handshake()
    server.receive(client.output())
    with pytest.raises(ssl.SSLError, match="ALERT"):
        server.end.do_handshake()
