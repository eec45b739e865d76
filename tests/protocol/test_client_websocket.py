"""A client's handshake beneath any dialect: any number of subprotocols, and secrets of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request

from speko_anyio.protocol import (
    NEED_DATA,
    ClientProtocol,
    HandshakeError,
    RemoteProtocolError,
    State,
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
