"""Two sans-IO WebSockets, ours and that of `websockets`, with nothing between them but bytes and a knife."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    ClientConnection,
    Close,
    RemoteProtocolError,
    ServerConnection,
    State,
    Unknown,
    UpgradeRequest,
)

from .script import TOKEN

Ours: TypeAlias = ClientConnection | ServerConnection
Theirs: TypeAlias = ClientProtocol | ServerProtocol

both_roles = pytest.mark.parametrize(
    "ours_is", [ClientConnection, ServerConnection], ids=["client", "server"]
)


class Wire:
    """The two ends, and what has happened at each. `cut` gives the length of the next piece we receive."""

    def __init__(
        self, ours_is: type[Ours], cut: Callable[[], int] = lambda: 1 << 30, path: str = "/s"
    ) -> None:
        url = f"ws://host{path}"
        self.ours: Ours
        self.theirs: Theirs
        if ours_is is ClientConnection:
            self.ours = ClientConnection(url, TOKEN)
            self.theirs = ServerProtocol(subprotocols=[Subprotocol(TOKEN)])
        else:
            self.ours = ServerConnection()
            self.theirs = ClientProtocol(
                parse_uri(url),
                subprotocols=[Subprotocol(TOKEN)],
                extensions=[ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})],
            )
            self.theirs.send_request(self.theirs.connect())
        self.cut = cut
        self.our_events: list[Any] = []
        self.their_events: list[Any] = []

    def deliver_to_us(self, data: bytes) -> None:
        while data:
            size = self.cut()
            self.ours.receive_data(data[:size])
            data = data[size:]
            self.take_events()

    def take_events(self) -> None:
        while self.ours.error is None or not self.our_events or not isinstance(self.our_events[-1], Close):
            event = self.ours.next_event()
            if event is NEED_DATA:
                return
            self.our_events.append(event)
            if isinstance(event, UpgradeRequest):
                assert isinstance(self.ours, ServerConnection)
                self.ours.accept()

    def deliver_to_them(self, data: bytes) -> None:
        self.theirs.receive_data(data)
        for event in self.theirs.events_received():
            self.their_events.append(event)
            if isinstance(event, Request):
                assert isinstance(self.theirs, ServerProtocol)
                self.theirs.send_response(self.theirs.accept(event))

    def run(self) -> None:
        """Until both are silent."""
        while True:
            from_us = self.ours.data_to_send()
            from_them = b"".join(self.theirs.data_to_send())
            if not from_us and not from_them:
                return
            if from_us:
                self.deliver_to_them(from_us)
            self.deliver_to_us(from_them)

    @property
    def their_frames(self) -> list[Frame]:
        return [event for event in self.their_events if isinstance(event, Frame)]


def opened(ours_is: type[Ours], **options: Any) -> Wire:
    wire = Wire(ours_is, **options)
    wire.run()
    assert wire.ours.state is State.OPEN
    return wire


@both_roles
@pytest.mark.parametrize("path", ["/s", "/st"], ids=["even", "odd"])
@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_a_handshake_in_small_pieces(ours_is: type[Ours], path: str, cut: int) -> None:
    wire = opened(ours_is, cut=lambda: cut, path=path)
    assert wire.theirs.subprotocol == TOKEN
    assert wire.theirs.extensions == []


@pytest.mark.parametrize("path", ["/s", "/st"], ids=["even", "odd"])
def test_a_request_in_two_pieces_cut_anywhere(path: str) -> None:
    head = b"".join(Wire(ServerConnection, path=path).theirs.data_to_send())
    for cut in range(1, len(head)):
        server = ServerConnection()
        server.receive_data(head[:cut])
        assert server.next_event() is NEED_DATA
        server.receive_data(head[cut:])
        assert isinstance(server.next_event(), UpgradeRequest), cut


@pytest.mark.parametrize("reason", ["", "x"], ids=["even", "odd"])
def test_an_answer_in_two_pieces_cut_anywhere(reason: str) -> None:
    def answer(client: ClientConnection) -> bytes:
        server = ServerProtocol(subprotocols=[Subprotocol(TOKEN)])
        server.receive_data(client.data_to_send())
        (request,) = server.events_received()
        assert isinstance(request, Request)
        response = server.accept(request)
        assert isinstance(response, Response)
        response.headers["X-Pad"] = reason
        server.send_response(response)
        return b"".join(server.data_to_send())

    for cut in range(1, len(answer(ClientConnection("ws://host/", TOKEN)))):
        client = ClientConnection("ws://host/", TOKEN)
        head = answer(client)
        client.receive_data(head[:cut])
        assert client.next_event() is NEED_DATA
        client.receive_data(head[cut:])
        assert client.next_event() is NEED_DATA
        assert client.state is State.OPEN, cut


messages = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=300),
            st.integers(120, 70_000).map(bytes),
            st.text(max_size=50).map(lambda pad: json.dumps({"t": "x", "pad": pad}, ensure_ascii=False)),
        ),
        st.lists(st.integers(0, 300), max_size=4),  # where it is cut into fragments
        st.booleans(),  # whether pings come between them
    ),
    max_size=6,
)


def fragments(data: bytes, borders: list[int]) -> Iterator[bytes]:
    start = 0
    for border in sorted(borders):
        end = min(max(start, border), len(data))
        yield data[start:end]
        start = end
    yield data[start:]


@both_roles
@given(messages=messages, cuts=st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_what_they_say_is_what_we_hear(
    ours_is: type[Ours], messages: list[tuple[str | bytes, list[int], bool]], cuts: list[int]
) -> None:
    turns = [0]

    def cut() -> int:
        turns[0] += 1
        return cuts[turns[0] % len(cuts)]

    wire = opened(ours_is)
    wire.our_events.clear()
    wire.cut = cut
    theirs = wire.theirs
    pings = 0
    for message, borders, with_pings in messages:
        data = message if isinstance(message, bytes) else message.encode()
        *first, last = fragments(data, borders)
        for number, piece in enumerate([*first, last]):
            fin = number == len(first)
            if number:
                theirs.send_continuation(piece, fin=fin)
            elif isinstance(message, bytes):
                theirs.send_binary(piece, fin=fin)
            else:
                theirs.send_text(piece, fin=fin)
            if with_pings:
                theirs.send_ping(str(pings).encode())
                pings += 1
    wire.run()
    heard = [event for event in wire.our_events if isinstance(event, (Audio, AudioIn))]
    sent = b"".join(message for message, *_ in messages if isinstance(message, bytes))
    assert b"".join(event.pcm for event in heard) == sent[: len(sent) & ~1]
    assert [event for event in wire.our_events if not isinstance(event, (Audio, AudioIn))] == [
        Unknown("x", message) for message, *_ in messages if isinstance(message, str)
    ]
    assert [frame.opcode for frame in wire.their_frames] == [Opcode.PONG] * pings
    assert [bytes(frame.data) for frame in wire.their_frames] == [str(n).encode() for n in range(pings)]


@both_roles
def test_closes_that_cross(ours_is: type[Ours]) -> None:
    wire = opened(ours_is)
    wire.ours.close(4001, "ours")
    wire.theirs.send_close(4002, "theirs")
    wire.run()
    assert wire.our_events[-1] == Close(4001, "ours", "local")
    assert wire.theirs.close_rcvd == CloseFrame(4001, "ours")
    assert wire.theirs.close_sent == CloseFrame(4002, "theirs")
    assert [frame.opcode for frame in wire.their_frames].count(Opcode.CLOSE) == 1


@both_roles
def test_a_close_without_a_code(ours_is: type[Ours]) -> None:
    wire = opened(ours_is)
    wire.theirs.send_close()
    wire.run()
    assert wire.our_events[-1] == Close(1005, "", "remote")
    assert [(frame.opcode, bytes(frame.data)) for frame in wire.their_frames] == [(Opcode.CLOSE, b"")]


@both_roles
def test_a_compressed_frame_that_nobody_agreed_on_breaks_the_protocol(ours_is: type[Ours]) -> None:
    wire = opened(ours_is)
    wire.theirs.extensions = [PerMessageDeflate(False, False, 15, 15)]
    wire.theirs.send_text(b'{"t": "x"}')
    wire.theirs.extensions = []
    wire.run()
    assert isinstance(wire.ours.error, RemoteProtocolError)
    assert wire.theirs.close_rcvd is not None
    assert wire.theirs.close_rcvd.code == 1002


@both_roles
def test_an_end_at_any_byte_is_told_as_one(ours_is: type[Ours]) -> None:
    def talk() -> tuple[Wire, bytes]:
        wire = opened(ours_is)
        wire.theirs.send_binary(bytes(200))
        wire.theirs.send_text(b'{"t": "x", ', fin=False)
        wire.theirs.send_ping(b"?")
        wire.theirs.send_continuation(b'"n": 1}', fin=True)
        return wire, b"".join(wire.theirs.data_to_send())

    first = 204 if ours_is is ClientConnection else 208
    size = len(talk()[1])
    for cut in range(size + 1):
        wire, stream = talk()
        wire.our_events.clear()
        wire.deliver_to_us(stream[:cut])
        wire.ours.receive_eof()
        wire.take_events()
        *before, end = wire.our_events
        assert isinstance(end, Close)
        assert (end.code, end.initiated_by) == (1006, "transport")
        assert len(before) == (cut >= first) + (cut == size)
        assert ("middle" in end.reason) == (cut not in (0, first, size))
