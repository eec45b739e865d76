"""A client's handshake beneath any dialect: any number of subprotocols, and secrets of any kind."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import wsproto
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request

from speko_anyio.protocol import (
    NEED_DATA,
    ClientProtocol,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
    SpekoError,
    State,
    _engine,
)
from speko_anyio.protocol._client_websocket import ClientWebSocket

URL = "ws://provider.example/v1?model=m"


class Client(ClientWebSocket[ClientProtocol]):
    """The Speko session, let in by other means than its token."""

    def __init__(self, subprotocols: Sequence[str] = (), secrets: Sequence[str] = (), **headers: str) -> None:
        super().__init__(
            ClientProtocol(state=State.CONNECTING),
            URL,
            subprotocols=subprotocols,
            headers=list(headers.items()),
            secrets=secrets,
            advice="check the key",
            entropy=bytes,
            ping_interval=None,
        )


def answer(client: Client, event: Any) -> Request:
    """Have a stock wsproto server take the client's request and answer with `event`; returns the request."""
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(client.data_to_send())
    (request,) = server.events()
    assert isinstance(request, Request)
    client.receive_data(server.send(event))
    return request


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [((), None), (("a", "b"), "b"), (("a", "b"), "a"), (("a", "b"), None), (("a",), None)],
)
def test_the_server_takes_one_of_those_offered_or_none(offered: tuple[str, ...], chosen: str | None) -> None:
    client = Client(offered)
    request = answer(client, AcceptConnection(subprotocol=chosen))
    assert tuple(request.subprotocols) == offered
    assert request.target == "/v1?model=m"
    assert client.next_event() is NEED_DATA
    assert client.state is State.OPEN


def test_without_an_offer_there_is_no_header_for_it() -> None:
    assert b"sec-websocket-protocol" not in Client().data_to_send().lower()


@pytest.mark.parametrize("offered", [(), ("a", "b")])
def test_a_choice_that_was_not_offered(offered: tuple[str, ...]) -> None:
    client = Client(offered)
    head = client.data_to_send()
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(head)
    accepted = server.send(AcceptConnection())
    client.receive_data(accepted.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: c\r\n\r\n"))
    with pytest.raises(RemoteProtocolError, match=r"unrecognized subprotocol c$"):
        client.next_event()


def test_headers_are_sent() -> None:
    request = answer(Client(Authorization="Bearer sk-1"), AcceptConnection())
    assert (b"authorization", b"Bearer sk-1") in request.extra_headers


def test_no_secret_is_in_a_refusal() -> None:
    client = Client(secrets=("", "sk-1", "sk-1234"))
    head = client.data_to_send()
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(head)
    refusal = server.send(RejectConnection(status_code=401, has_body=True))
    refusal += server.send(RejectData(data=b"neither sk-1234 nor sk-1"))
    client.receive_data(refusal)
    with pytest.raises(HandshakeError) as caught:
        client.next_event()
    assert str(caught.value) == (
        "the server refused the session with HTTP 401 (neither <token> nor <token>); check the key"
    )


def test_no_secret_is_in_the_error_of_a_broken_answer() -> None:
    client = Client(("realtime", "key.sk-1234"), secrets=("sk-1234",))
    head = client.data_to_send()
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(head)
    accepted = server.send(AcceptConnection(subprotocol="realtime"))
    client.receive_data(accepted.replace(b"Protocol: realtime", b"Protocol: realtime, key.sk-1234"))
    with pytest.raises(RemoteProtocolError) as caught:
        client.next_event()
    assert str(caught.value).endswith("unrecognized subprotocol realtime, key.<token>")


@pytest.mark.parametrize("offered", [(), ("a",), ("a", "b c")])
def test_the_request_is_the_one_that_wsproto_makes(offered: tuple[str, ...]) -> None:
    headers = {"User-Agent": "test/1", "X-Empty": "", "X-Spaces": " a  b "}
    ours = Client(offered, **headers).data_to_send()
    stock = WSConnection(ConnectionType.CLIENT).send(
        Request(
            host="provider.example",
            target="/v1?model=m",
            subprotocols=list(offered),
            extra_headers=[(name.encode(), value.strip().encode()) for name, value in headers.items()],
        )
    )
    key = re.compile(rb"(?<=Sec-WebSocket-Key: )\S+")
    assert key.search(ours) is not None
    assert ours == key.sub(base64.b64encode(bytes(16)), stock)


@pytest.mark.parametrize("offered", [("a\r\nX-Other: b",), ("a\n",), ("é",), (" a",), ("a ",), ("\x00",)])
def test_a_subprotocol_that_cannot_be_sent(offered: tuple[str, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="a subprotocol can't be sent: it must be visible ASCII"):
        Client(offered)


USUAL = {
    "upgrade": b"websocket",
    "Connection": b"Upgrade",
    "Sec-WebSocket-Accept": b"ICX+Yqv66kxgM0FcWaLWlFLwTAI=",
    "Sec-WebSocket-Protocol": b"b",
    "Server": b"picows",
}
"""What a server answers to a key of zeros."""


def head(fields: Iterable[tuple[str, bytes]], status: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
    return b"\r\n".join([status, *(name.encode() + b": " + value for name, value in fields), b"", b""])


def outcome(answer: bytes) -> tuple[State, str]:
    """The state of a client after `answer`, and what its error says."""
    client = Client(("a", "b"))
    client.receive_data(answer + b"\x81\x00")
    client.receive_eof()
    try:
        while client.next_event() is not NEED_DATA:
            pass
    except SpekoError as error:
        return client.state, f"{type(error).__name__}: {error}"
    return client.state, ""


def test_the_usual_answer_is_taken_without_wsproto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wsproto, "WSConnection")
    client = Client(("a", "b"))
    client.receive_data(head(USUAL.items()))
    assert client.next_event() is NEED_DATA
    assert client.state is State.OPEN


VALUES = (
    *(
        b"websocket",
        b"WebSocket",
        b"Upgrade",
        b"upgrade, keep-alive",
        b"a",
        b"b",
        b"c",
        b"a, b",
        b"",
        b"\tb ",
    ),
    *(b"ICX+Yqv66kxgM0FcWaLWlFLwTAI=", b"icx+yqv66kxgm0fcwalwlflwtai=", b"chunked", b"0"),
    *(b"\xff", b"b\x00", b"x\r\n y"),
)
NAMES = (
    *(*USUAL, *map(str.upper, USUAL), "Sec-WebSocket-Extensions", "Content-Length", "Transfer-Encoding"),
    *("X-Other", "X Other", "", "Set-Cookie"),
)
STATUSES = (
    *(b"HTTP/1.1 101", b"HTTP/1.1 101 ", b"HTTP/1.0 101 X", b"HTTP/1.1 1010", b"HTTP/1.1 200 OK"),
    *(b"HTTP/1.1  101 X", b"http/1.1 101 X", b"HTTP/1.1 101 \xff", b"HTTP/1.1 101\tX"),
)


@example([("SEC-WEBSOCKET-ACCEPT", USUAL["Sec-WebSocket-Accept"])], set(), STATUSES[0], False)
@given(
    changes=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=2),
    dropped=st.sets(st.sampled_from(sorted(USUAL)), max_size=1),
    status=st.just(b"HTTP/1.1 101 Switching Protocols") | st.sampled_from(STATUSES),
    bare=st.booleans(),
)
@settings(max_examples=300)
def test_any_answer_is_judged_as_wsproto_judges_it(
    changes: list[tuple[str, bytes]], dropped: set[str], status: bytes, bare: bool
) -> None:
    fields = [(name, value) for name, value in USUAL.items() if name not in dropped] + changes
    answer = head(fields, status)
    if bare:
        answer = answer.replace(b"\r\n", b"\n")
    ours = outcome(answer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "_accepts", lambda head, offer: False)
        assert outcome(answer) == ours
