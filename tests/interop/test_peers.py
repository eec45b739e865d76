"""The core understands, and is understood by, the WebSocket libraries of the world, in both roles."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    ClientConnection,
    Close,
    HandshakeError,
    RemoteProtocolError,
    ServerConnection,
    State,
    ToolCall,
    Unknown,
    UpgradeRequest,
)
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE
from tests.support.patience import PATIENCE

from .conftest import Meet
from .script import TOKEN, Role, Step, fingerprint, payload

SIZES = (0, 1, 125, 126, 127, 960, 65_535, 65_536, 200_000)
"""Around every border of RFC 6455's three forms of length."""

CLOSES = [(1000, ""), (1001, "going away"), (3000, "a library's"), (4999, "é" * 61 + "!")]
"""Codes of each class; a reason as long as a close frame holds."""

LAST = Unknown("last", '{"t": "last"}')
SAY_LAST = Step("text", text=LAST.raw)

both_roles = pytest.mark.parametrize("role", ["client", "server"])
all_peers = pytest.mark.parametrize("kind", ["websockets", "aiohttp", "ws"])
peers_that_fragment = pytest.mark.parametrize("kind", ["websockets", "ws"])
whole_and_in_bytes = pytest.mark.parametrize("cut", [None, 1], ids=["whole", "bytewise"])


def text_of(size: int) -> str:
    """A well-formed text message of so many bytes that this version does not know."""
    return json.dumps({"t": "x", "pad": "." * (size - len('{"t": "x", "pad": ""}'))})


def audio(events: Sequence[object]) -> bytes:
    return b"".join(event.pcm for event in events if isinstance(event, (Audio, AudioIn)))


def texts(events: Sequence[object]) -> list[str]:
    return [event.raw for event in events if isinstance(event, Unknown)]


def tell_time(session: ClientConnection | ServerConnection, now: float) -> None:
    while (deadline := session.next_deadline()) is not None and deadline <= now:
        session.handle_timeout(now)


def receive(role: Role, count: int) -> Step:
    """The peer receives so many messages; a client our `Ready` before."""
    return Step("receive", count + (role == "server"))


@all_peers
@both_roles
@whole_and_in_bytes
def test_messages_of_every_size_arrive(meet: Meet, kind: str, role: Role, cut: int | None) -> None:
    said = [text_of(size) for size in SIZES if size > 100]
    steps = [*(Step("binary", size) for size in SIZES), *(Step("text", text=text) for text in said), SAY_LAST]
    with meet(kind, role, *steps, cut=cut) as meeting:
        meeting.open()
        events = meeting.wire.until(LAST)
        meeting.session.close(1000, "enough")
        assert meeting.wire.until_close() == [Close(1000, "enough", "local")]
        report = meeting.finish()
    # An odd message leaves half a sample for the next: the stream is what must arrive unchanged.
    assert audio(events) == b"".join(payload(size) for size in SIZES)
    assert texts(events) == [*said, LAST.raw]
    assert report.subprotocol == TOKEN
    assert report.code == 1000


@all_peers
@both_roles
def test_messages_of_every_size_are_understood(meet: Meet, kind: str, role: Role) -> None:
    sizes = (0, 2, 124, 126, 128, 960, 65_534, 65_536, 200_000)  # whole samples, as audio must be
    lengths = (0, 30, 94, 95, 96, 97, 98, 65_503, 65_504, 65_505, 65_506, 100_000)
    calls = [
        Step("text", text=json.dumps({"t": "tool_call", "callId": f"{length:06}", "name": "f"}))
        for length in lengths
    ]
    # A long piece is split, so that a control message need not wait behind it; an empty one says nothing.
    audio_messages = [
        fingerprint(payload(size)[start : start + MAX_AUDIO_MESSAGE])
        for size in sizes
        for start in range(0, size, MAX_AUDIO_MESSAGE)
    ]
    count = len(audio_messages) + len(lengths)
    steps = [*(calls if role == "client" else []), SAY_LAST, receive(role, count)]
    with meet(kind, role, *steps) as meeting:
        session = meeting.session
        meeting.open()
        events = meeting.wire.until(LAST)
        for size in sizes:
            session.send_audio(payload(size))
        for length in lengths:
            if isinstance(session, ClientConnection):
                session.send_tool_result(f"{length:06}", "." * length)
            else:
                session.send_transcript("user", "." * length, final=False)
        meeting.wire.flush()
        session.close(1000, "enough")
        meeting.wire.until_close()
        report = meeting.finish()
    received = report.received if role == "client" else report.received[1:]
    assert len([event for event in events if isinstance(event, ToolCall)]) == len(steps) - 2
    assert list(received[: len(audio_messages)]) == audio_messages
    field = "output" if role == "client" else "text"
    said = [json.loads(text) for text in received[len(audio_messages) :]]
    assert [message[field] for message in said] == ["." * length for length in lengths]


@peers_that_fragment
@both_roles
@whole_and_in_bytes
def test_fragments_are_joined_and_pings_between_them_answered(
    meet: Meet, kind: str, role: Role, cut: int | None
) -> None:
    sizes = (0, 1, 125, 126, 0, 65_536, 2, 960)
    pieces = ('{"t": "f', "ü", "", "€", "𝄞" * 100, '", "n": 1}')
    steps = [Step("fragments", sizes=sizes), Step("fragments", pieces=pieces), SAY_LAST]
    with meet(kind, role, *steps, cut=cut) as meeting:
        meeting.open()
        events = meeting.wire.until(LAST)
        meeting.session.close()
        meeting.wire.until_close()
        report = meeting.finish()
    assert audio(events) == b"".join(map(payload, sizes))
    assert texts(events) == ["".join(pieces), LAST.raw]
    # The peer went on only after each pong, so these came back while its messages were incomplete.
    assert report.pongs == len(sizes) + len(pieces) - 2


@all_peers
@both_roles
def test_pings_are_answered_with_their_payload(meet: Meet, kind: str, role: Role) -> None:
    ready = [receive(role, 0)] if role == "server" else []
    with meet(kind, role, *ready, Step("ping", 0), Step("ping", 125), Step("ping", 4), SAY_LAST) as meeting:
        meeting.open()
        assert meeting.wire.until(LAST) == [LAST]
        meeting.session.close()
        meeting.wire.until_close()
        assert meeting.finish().pongs == 3


@all_peers
@both_roles
def test_our_pings_are_answered(meet: Meet, kind: str, role: Role) -> None:
    ready = [receive(role, 0)] if role == "server" else []
    with meet(kind, role, *ready, SAY_LAST) as meeting:
        session, wire = meeting.session, meeting.wire
        meeting.open()
        wire.until(LAST)
        # The keepalive's clock is ours to tell: silence until it pings. Then the only byte that can come is
        # the pong, and without it the session would be over at the last instant told.
        now = time.monotonic()
        while not session.has_output:
            now += 20
            tell_time(session, now)
            assert session.state is State.OPEN
        wire.flush()
        wire.sock.settimeout(PATIENCE)
        session.receive_data(wire.sock.recv(1024))
        assert session.next_event() is NEED_DATA
        tell_time(session, now + 20)
        assert session.state is State.OPEN
        session.close()
        wire.until_close()
        assert meeting.finish().code == 1000


@all_peers
@both_roles
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_our_close_is_understood(meet: Meet, kind: str, role: Role, code: int, reason: str) -> None:
    with meet(kind, role, SAY_LAST) as meeting:
        meeting.open()
        meeting.wire.until(LAST)
        meeting.session.close(code, reason)
        assert meeting.wire.until_close() == [Close(code, reason, "local")]
        report = meeting.finish()
    assert (report.code, report.reason) == (code, reason)


@all_peers
@both_roles
@whole_and_in_bytes
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_peers_close_is_understood_and_answered(
    meet: Meet, kind: str, role: Role, code: int, reason: str, cut: int | None
) -> None:
    with meet(kind, role, SAY_LAST, Step("close", code=code, text=reason), cut=cut) as meeting:
        meeting.open()
        assert meeting.wire.until_close() == [LAST, Close(code, reason, "remote")]
        report = meeting.finish()
    assert report.code == code  # the answer carries it back


@both_roles
def test_a_close_without_a_code_is_understood_and_answered(meet: Meet, role: Role) -> None:
    with meet("ws", role, Step("close")) as meeting:
        meeting.open()
        assert meeting.wire.until_close() == [Close(1005, "", "remote")]
        assert meeting.finish().code == 1005


@all_peers
@both_roles
def test_both_sides_close_at_once(meet: Meet, kind: str, role: Role) -> None:
    with meet(kind, role, SAY_LAST, Step("close", code=4002, text="theirs"), cut=1) as meeting:
        meeting.open()
        meeting.wire.until(LAST)
        # The peer's close is on its way, or here and not yet looked at. Ours is no answer to it.
        meeting.session.close(4001, "ours")
        assert meeting.wire.until_close() == [Close(4001, "ours", "local")]
        assert meeting.finish().code == 4001


@all_peers
@both_roles
@whole_and_in_bytes
def test_a_peer_that_dies_within_a_frame_is_no_clean_end(
    meet: Meet, kind: str, role: Role, cut: int | None
) -> None:
    ready = [receive(role, 0)] if role == "server" else []
    with meet(kind, role, *ready, SAY_LAST, Step("die"), cut=cut) as meeting:
        meeting.open()
        last, close = meeting.wire.until_close()
        assert last == LAST
        assert close == Close(1006, "the connection was lost in the middle of a message", "transport")
        meeting.finish()


@all_peers
@both_roles
def test_the_peer_learns_what_it_did_wrong(meet: Meet, kind: str, role: Role) -> None:
    wrong = Step("text", text='{"t": "error", "code": 7}' if role == "client" else '{"t": 7}')
    with meet(kind, role, wrong) as meeting:
        meeting.open()
        assert [type(event) for event in meeting.wire.until_close()] == [Close]
        assert isinstance(meeting.wire.error(), RemoteProtocolError)
        report = meeting.finish()
    assert report.code == 1007
    assert report.reason.startswith("the peer sent a text message that is not of this protocol")


@all_peers
def test_a_refused_client_sees_the_status(meet: Meet, kind: str) -> None:
    with meet(kind, "server") as meeting:
        session = meeting.session
        assert isinstance(session, ServerConnection)
        assert isinstance(meeting.wire.next_event(), UpgradeRequest)
        session.refuse(401, "no such token")
        assert isinstance(meeting.wire.error(), HandshakeError)
        assert meeting.finish().refused == 401


@all_peers
def test_compression_is_declined(meet: Meet, kind: str) -> None:
    with meet(kind, "server", receive("server", 0)) as meeting:
        session = meeting.session
        assert isinstance(session, ServerConnection)
        request = meeting.wire.next_event()
        assert isinstance(request, UpgradeRequest)
        session.accept()
        session.send_ready()
        answer = session.data_to_send()
        meeting.wire.sock.sendall(answer)
        session.close()
        meeting.wire.until_close()
        report = meeting.finish()
    assert b"sec-websocket-extensions" not in answer.lower()
    assert report.extensions == ""


def test_compression_is_never_offered() -> None:
    request = ClientConnection("ws://host/", TOKEN).data_to_send()
    assert request.startswith(b"GET / HTTP/1.1\r\n")
    assert b"sec-websocket-extensions" not in request.lower()
