"""Frames in and out, limits, the end of the transport and time: the byte level beneath the session."""

from __future__ import annotations

import array
import struct
from typing import Any

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    Close,
    Commit,
    ConnectionClosed,
    Dialect,
    ErrorFrame,
    Expiring,
    Interrupt,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ServerConnection,
    State,
    Unknown,
    WebSocketCore,
)
from speko_anyio.protocol._engine import HandshakeEvent
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE
from tests.support.maskers import MASKERS, use_masker

from .helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Connection,
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
    xor,
)

with_each_masker = pytest.mark.usefixtures("masker")

both_roles = pytest.mark.parametrize("role", ["client", "server"])

SIZES = [0, 1, 2, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537]


BROKEN = "the peer broke the WebSocket protocol (RFC 6455): "
FOREIGN = "the peer sent a text message that is not of this protocol: "


def audio(role: str, pcm: bytes) -> Audio | AudioIn:
    """The event that `pcm` is to that role."""
    return Audio(pcm, 24_000) if role == "client" else AudioIn(pcm, 24_000)


def feed(connection: Connection, role: str, opcode: int, payload: bytes = b"", **how: Any) -> None:
    connection.receive_data(frame_for(role, opcode, payload, **how))


def sent(connection: Connection) -> list[tuple[int, bytes]]:
    return parse_frames(connection.data_to_send())


def assert_violated(connection: Connection, code: int, reason: str) -> None:
    """The peer was told so, in one close frame, and every further call says it. A `reason` that ends in a
    colon is followed by words of wsproto's or msgspec's own."""
    close = only_event(connection)
    assert isinstance(close, Close)
    assert (close.code, close.initiated_by) == (code, "local")
    if reason.endswith(": "):
        assert close.reason.startswith(reason)
        assert len(close.reason) > len(reason)
    else:
        assert close.reason == reason
    ((opcode, payload),) = [item for item in sent(connection) if item[0] == CLOSE]
    assert opcode == CLOSE
    assert payload[:2] == struct.pack(">H", code)
    assert close.reason.encode().startswith(payload[2:])
    assert connection.state is State.CLOSED
    for _ in range(10):
        with pytest.raises(RemoteProtocolError) as caught:
            connection.next_event()
        assert (caught.value.close_code, str(caught.value)) == (code, close.reason)


# Whole messages


@with_each_masker
@both_roles
@pytest.mark.parametrize("size", SIZES)
def test_a_binary_frame_of_every_form_of_length(role: str, size: int) -> None:
    connection = opened(role)
    pcm = (bytes(range(251)) * 262)[:size]
    feed(connection, role, BINARY, pcm)
    assert drain(connection) == ([audio(role, pcm[: size & ~1])] if size > 1 else [])
    feed(connection, role, BINARY, b"xy" if size % 2 == 0 else b"x")
    last = b"xy" if size % 2 == 0 else pcm[-1:] + b"x"
    assert drain(connection) == [audio(role, last)]


@with_each_masker
@both_roles
@pytest.mark.parametrize("size", [0, 1, 2, 97, 98, 99, 100, 65_507, 65_508, 65_509, 65_510])
def test_a_text_frame_of_every_form_of_length(role: str, size: int) -> None:
    connection = opened(role)
    text = '{"t":"new","pad":"' + "\u00e9" * (size // 2) + "x" * (size % 2) + '"}'
    feed(connection, role, TEXT, text.encode())
    assert drain(connection) == [Unknown("new", text)]


@with_each_masker
@both_roles
@pytest.mark.parametrize("size", [size for size in SIZES if size % 2 == 0])
def test_audio_out_in_every_form_of_length(role: str, size: int) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    pcm = (bytes(range(251)) * 262)[:size]
    connection.send_audio(pcm)
    frames = sent(connection)
    assert {opcode for opcode, _ in frames} <= {BINARY}
    assert b"".join(payload for _, payload in frames) == pcm


@with_each_masker
@both_roles
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda pcm: memoryview(pcm).cast("h")])
def test_audio_of_the_same_size_again_and_again(role: str, kind: Any) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    random = fixed_entropy()
    for size in (2, 4, 126, 640, 640, 882, 960, 4_800, 32_768, 65_536, 960, 882, 0, 960, 1_920, 960):
        for _ in range(3):
            pcm = random.randbytes(size)
            connection.send_audio(kind(pcm))
            frames = sent(connection)
            assert [opcode for opcode, _ in frames] == [BINARY] * -(-size // MAX_AUDIO_MESSAGE)
            assert b"".join(payload for _, payload in frames) == pcm


@both_roles
def test_audio_of_the_usual_size_is_held_to_the_outbox_too(role: str) -> None:
    connection = opened(role, limits=Limits(max_outbox=1_500))
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
    connection.data_to_send()
    for _ in range(3):
        connection.send_audio(bytes(640))
        connection.send_audio(bytes(640))
        with pytest.raises(LocalProtocolError, match="outbox"):
            connection.send_audio(bytes(640))
        assert sent(connection) == [(BINARY, bytes(640))] * 2


@both_roles
def test_audio_of_the_usual_size_is_held_to_the_state_too(role: str) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
    for _ in range(2):
        connection.send_audio(bytes(640))
    connection.close()
    with pytest.raises(ConnectionClosed):
        connection.send_audio(bytes(640))


def test_all_maskers_send_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []
    for name in MASKERS:
        use_masker(name, monkeypatch)
        connection, _ = open_pair(client(entropy=fixed_entropy().randbytes))
        for size in (960, 960, 960, 882, 882, 2, 2, 960):
            connection.send_audio(bytes(size))
            connection.send_audio(bytes(size))
            connection.commit()
        streams.append(connection.data_to_send())
    assert len(set(streams)) == 1


@with_each_masker
@both_roles
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000])
def test_any_cut_gives_the_same_events(role: str, size: int) -> None:
    data = b"".join(
        frame_for(role, opcode, payload, **how)
        for opcode, payload, how in (
            (BINARY, bytes(960), {}),
            (BINARY, b"", {}),
            (BINARY, bytes(961), {}),
            (TEXT, b'{"t":"new"}', {}),
            (PING, b"1", {}),
            (BINARY, b"abc", {"fin": False}),
            (PING, b"2", {}),
            (CONTINUATION, b"", {"fin": False}),
            (CONTINUATION, b"defg", {}),
            (PONG, b"", {}),
            (TEXT, '{"t":"\u00e9'.encode()[:-1], {"fin": False}),
            (CONTINUATION, "\u00e9".encode()[1:] + b'"}', {}),
            (BINARY, bytes(127), {}),
            (CLOSE, struct.pack(">H", 1000) + b"bye", {}),
        )
    )
    odd = b"\0"
    expected = [
        audio(role, bytes(960)),
        audio(role, bytes(960)),
        Unknown("new", '{"t":"new"}'),
        audio(role, odd + b"abcdefg"),
        Unknown("\u00e9", '{"t":"\u00e9"}'),
        audio(role, bytes(126)),
        Close(1000, "bye", "remote"),
    ]
    connection = opened(role)
    events = []
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size])
        if connection.closed is None:
            events += drain(connection)
    assert events == expected
    assert sent(connection) == [(PONG, b"1"), (PONG, b"2"), close_frame(1000, "bye")]


@with_each_masker
@both_roles
def test_many_reads_before_the_first_event(role: str) -> None:
    connection = opened(role)
    data = frame_for(role, BINARY, bytes(200)) * 3 + frame_for(role, TEXT, b'{"t":"new"}')
    for start in range(0, len(data), 50):
        connection.receive_data(data[start : start + 50])
    assert drain(connection) == [audio(role, bytes(200))] * 3 + [Unknown("new", '{"t":"new"}')]


@with_each_masker
@both_roles
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_received_and_change_afterwards(role: str, kind: Any) -> None:
    connection = opened(role)
    data = bytearray(frame_for(role, BINARY, b"abcd" * 50))
    connection.receive_data(kind(data))
    data[:] = bytes(len(data))
    assert drain(connection) == [audio(role, b"abcd" * 50)]


@with_each_masker
@both_roles
def test_an_empty_read_is_nothing(role: str) -> None:
    connection = opened(role)
    connection.receive_data(b"")
    assert connection.next_event() is NEED_DATA
    assert connection.state is State.OPEN


@with_each_masker
def test_a_frames_audio_has_the_rate_of_ready() -> None:
    connection = opened("client")
    feed(connection, "client", BINARY, bytes(200))
    feed(connection, "client", TEXT, b'{"t":"ready","outputSampleRate":16000}')
    feed(connection, "client", BINARY, bytes(200))
    assert drain(connection) == [Audio(bytes(200), 24_000), Ready(24_000, 16_000), Audio(bytes(200), 16_000)]


@with_each_masker
@both_roles
def test_an_odd_byte_is_carried_between_frames_of_any_size(role: str) -> None:
    connection = opened(role)
    for payload in (b"a" * 201, b"b" * 200, b"c", b"d" * 127, b"e" * 2):
        feed(connection, role, BINARY, payload)
    events = drain(connection)
    pcm = [event.pcm for event in events if isinstance(event, (Audio, AudioIn))]
    assert [len(piece) % 2 for piece in pcm] == [0] * 5
    assert b"".join(pcm) == b"a" * 201 + b"b" * 200 + b"c" + b"d" * 127 + b"e"


@with_each_masker
@both_roles
def test_an_odd_first_byte_alone_is_no_event(role: str) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, b"a" * 127)
    feed(connection, role, BINARY, b"")
    assert drain(connection) == [audio(role, b"a" * 126)]


def masked_by(role: str, key: bytes, data: bytes) -> bytes:
    """A server's frame with another masking key; a client's as it is."""
    if role == "client":
        return data
    head = 4  # that of all the frames here
    return data[:head] + key + xor(xor(data[head + 4 :], KEY), key)


@with_each_masker
@both_roles
def test_a_stream_of_reads_that_all_look_alike(role: str) -> None:
    connection = opened(role, limits=Limits(max_control_frames=1))
    for size in (126, 960, 960, 1920, 960, 65_534, 65_534):
        for step in range(4):
            pcm = bytes([step]) * size
            key = bytes([step, 0, 255, size & 0xFF])
            connection.receive_data(masked_by(role, key, frame_for(role, BINARY, pcm)))
            assert connection.next_event() == audio(role, pcm)
            assert connection.next_event() is NEED_DATA
            feed(connection, role, PONG)  # one more in a row would be a flood
            assert connection.next_event() is NEED_DATA
    assert connection.state is State.OPEN


def after_many_alike(role: str, read: bytes) -> Connection:
    """A connection that got `read` behind some reads of 960 bytes of audio each."""
    connection = opened(role)
    for _ in range(3):
        feed(connection, role, BINARY, bytes(960))
        assert drain(connection) == [audio(role, bytes(960))]
    connection.receive_data(read)
    return connection


@both_roles
def test_a_read_that_has_the_size_of_the_others_but_is_something_else(role: str) -> None:
    text = '{"t":"new"}'.ljust(960)
    connection = after_many_alike(role, frame_for(role, TEXT, text.encode()))
    assert drain(connection) == [Unknown("new", text)]
    connection = after_many_alike(role, frame_for(role, BINARY, bytes(959)) + b"\x82")
    assert drain(connection) == [audio(role, bytes(958))]
    connection = after_many_alike(role, frame_for(role, BINARY, b"ab" * 480, fin=False))
    assert drain(connection) == []
    feed(connection, role, CONTINUATION)
    assert drain(connection) == [audio(role, b"ab" * 480)]


@both_roles
def test_a_read_that_begins_like_the_others_but_has_another_size(role: str) -> None:
    usual = frame_for(role, BINARY, bytes(960))
    connection = after_many_alike(role, usual[:-1])
    assert drain(connection) == []
    connection.receive_data(usual[-1:])
    assert drain(connection) == [audio(role, bytes(960))]
    connection = after_many_alike(role, usual * 2)
    assert drain(connection) == [audio(role, bytes(960))] * 2
    for _ in range(2):  # and two of them at a time are no frame of their own
        connection.receive_data(usual * 2)
        assert drain(connection) == [audio(role, bytes(960))] * 2


@both_roles
@pytest.mark.parametrize(
    ("opcode", "how"),
    [
        (BINARY, {"rsv": 0x40}),
        (BINARY, {"length_bytes": 8}),
        (CONTINUATION, {}),
        (CLOSE, {}),
        (PING, {}),
    ],
)
def test_a_bad_frame_among_reads_that_look_alike(role: str, opcode: int, how: dict[str, Any]) -> None:
    connection = after_many_alike(role, frame_for(role, opcode, bytes(960), **how))
    assert_violated(connection, 1002, BROKEN)


@both_roles
def test_a_frame_masked_the_wrong_way_among_reads_that_look_alike(role: str) -> None:
    connection = after_many_alike(role, frame(BINARY, bytes(960), masked=role == "client"))
    assert_violated(connection, 1002, BROKEN)


@with_each_masker
@both_roles
def test_reads_that_look_alike_in_the_middle_of_something_else(role: str) -> None:
    connection = opened(role)
    usual = frame_for(role, BINARY, bytes(960))

    def alike() -> None:
        connection.receive_data(usual)
        assert drain(connection) == [audio(role, bytes(960))]

    alike()
    alike()
    # Half a sample shifts what follows.
    feed(connection, role, BINARY, b"a")
    connection.receive_data(usual)
    assert drain(connection) == [audio(role, b"a" + bytes(959))]
    feed(connection, role, BINARY, b"b")
    assert drain(connection) == [audio(role, b"\0b")]
    alike()
    # Two reads that were not looked at one by one.
    connection.receive_data(usual)
    connection.receive_data(usual)
    assert drain(connection) == [audio(role, bytes(960))] * 2
    alike()
    # The tail of a message.
    long = frame_for(role, BINARY, usual * 2)
    connection.receive_data(long[: -len(usual)])
    assert drain(connection) == []
    connection.receive_data(long[-len(usual) :])
    assert drain(connection) == [audio(role, usual * 2)]
    alike()
    # A message in pieces.
    feed(connection, role, BINARY, b"ab", fin=False)
    connection.receive_data(frame_for(role, CONTINUATION, bytes(960)))
    assert drain(connection) == [audio(role, b"ab" + bytes(960))]
    alike()
    feed(connection, role, BINARY, b"ab", fin=False)
    assert drain(connection) == []
    connection.receive_data(usual)
    assert_violated(connection, 1002, BROKEN)


class Plain(Dialect[bytes | str]):
    """A dialect whose binary messages are no audio."""

    def _receive_text(self, text: str) -> None:
        self.events.append(text)

    def _receive_binary(self, data: bytes) -> bytes:
        return data


class Raw(WebSocketCore[bytes | str, Plain]):
    """That dialect over bytes, its WebSocket handshake left out."""

    def __init__(self) -> None:
        super().__init__(Plain(state=State.CONNECTING), client=True, ping_interval=None)
        self._opened()

    def _receive_handshake(self, event: HandshakeEvent) -> None:
        raise AssertionError(event)

    def _handshake_timed_out(self) -> None:
        raise AssertionError


def test_where_binary_messages_are_no_audio_they_are_left_to_the_dialect() -> None:
    connection = Raw()
    for payload in (bytes(200), bytes(200), b"odd", b""):
        connection.receive_data(frame(BINARY, payload, masked=False))
        assert connection.next_event() == payload
    connection.receive_data(frame(TEXT, b"text", masked=False))
    assert connection.next_event() == "text"


# Text must be UTF-8 and of this protocol


@with_each_masker
@both_roles
@pytest.mark.parametrize(
    "payload",
    [b"\xff", b'{"t":"\xc3"}', b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b'{"t":"new"}\xe2\x82'],
    ids=["no start", "cut short", "surrogate", "overlong", "beyond", "cut at the end"],
)
@pytest.mark.parametrize("fragmented", [False, True])
def test_text_that_is_not_utf8(role: str, payload: bytes, fragmented: bool) -> None:
    connection = opened(role)
    if fragmented:
        feed(connection, role, TEXT, payload[:1], fin=False)
        feed(connection, role, CONTINUATION, payload[1:])
    else:
        feed(connection, role, TEXT, payload)
    assert_violated(connection, 1007, BROKEN + "it sent text that is not UTF-8")


@with_each_masker
@both_roles
def test_text_that_is_not_of_this_protocol(role: str) -> None:
    connection = opened(role)
    feed(connection, role, TEXT, b"[]")
    assert_violated(connection, 1007, FOREIGN + "Expected `object`, got `array`")


# Fragments


@with_each_masker
@both_roles
def test_a_message_in_fragments_with_pings_between(role: str) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, b"ab", fin=False)
    feed(connection, role, PING, b"one")
    feed(connection, role, CONTINUATION, b"c", fin=False)
    assert connection.next_event() is NEED_DATA
    assert sent(connection) == [(PONG, b"one")]
    feed(connection, role, PONG, b"unasked")
    feed(connection, role, CONTINUATION, b"d")
    assert drain(connection) == [audio(role, b"abcd")]
    feed(connection, role, BINARY, bytes(200))
    assert drain(connection) == [audio(role, bytes(200))]


@with_each_masker
@both_roles
def test_a_character_may_be_split_between_fragments(role: str) -> None:
    connection = opened(role)
    text = '{"t":"\U0001f600"}'
    data = text.encode()
    for index in range(len(data)):
        opcode = TEXT if index == 0 else CONTINUATION
        feed(connection, role, opcode, data[index : index + 1], fin=index == len(data) - 1)
    assert drain(connection) == [Unknown("\U0001f600", text)]


@with_each_masker
@both_roles
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(CONTINUATION, b"x", {})], 1002),
        ([(BINARY, b"x", {"fin": False}), (BINARY, b"y", {})], 1002),
        ([(BINARY, b"x", {"fin": False}), (TEXT, b"y", {})], 1002),
        ([(TEXT, b"x", {"fin": False}), (BINARY, bytes(200), {})], 1002),
        ([(BINARY, b"x", {"fin": False}), (CONTINUATION, b"y", {}), (CONTINUATION, b"z", {})], 1002),
    ],
)
def test_fragments_that_do_not_fit_together(
    role: str, frames: list[tuple[int, bytes, dict[str, Any]]], code: int
) -> None:
    connection = opened(role)
    for opcode, payload, how in frames:
        assert all(isinstance(event, (Audio, AudioIn)) for event in drain(connection))
        feed(connection, role, opcode, payload, **how)
    assert_violated(connection, code, BROKEN)


# Frames that RFC 6455 forbids


@with_each_masker
@both_roles
@pytest.mark.parametrize(
    ("opcode", "payload", "how"),
    [
        (0x3, b"", {}),
        (0x7, b"x" * 200, {}),
        (0xB, b"", {}),
        (0xF, b"", {}),
        (BINARY, b"ab", {"rsv": 0x40}),
        (BINARY, bytes(200), {"rsv": 0x20}),
        (TEXT, b"{}", {"rsv": 0x10}),
        (PING, b"", {"rsv": 0x40}),
        (BINARY, b"x" * 125, {"length_bytes": 2}),
        (BINARY, b"x" * 200, {"length_bytes": 8}),
        (BINARY, b"x" * 65_535, {"length_bytes": 8}),
        (TEXT, b"{}", {"length_bytes": 2}),
        (TEXT, b"{}", {"length_bytes": 8}),
        (PING, b"", {"fin": False}),
        (PING, b"x" * 126, {}),
        (CLOSE, b"x" * 126, {}),
        (CLOSE, b"\x03", {}),
    ],
)
def test_a_frame_that_the_rfc_forbids(role: str, opcode: int, payload: bytes, how: dict[str, Any]) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, b"ab")
    feed(connection, role, opcode, payload, **how)
    feed(connection, role, BINARY, b"never seen")
    assert connection.next_event() == audio(role, b"ab")
    assert_violated(connection, 1002, BROKEN)


@with_each_masker
@both_roles
@pytest.mark.parametrize("payload", [b"ab", bytes(200), bytes(70_000)], ids=len)
@pytest.mark.parametrize(("opcode", "copies"), [(BINARY, 1), (BINARY, 2), (PING, 1)])
def test_a_frame_masked_the_wrong_way(role: str, opcode: int, copies: int, payload: bytes) -> None:
    connection = opened(role)
    bad = frame(opcode, payload if opcode == BINARY else b"", masked=role == "client")
    connection.receive_data(bad * copies)
    assert_violated(connection, 1002, BROKEN)


@with_each_masker
@both_roles
@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_a_length_with_its_top_bit_set(role: str, size: int) -> None:
    connection = opened(role)
    mask_bit = 0x80 if role == "server" else 0
    connection.receive_data(struct.pack(">BBQ", 0x82, mask_bit | 127, size))
    assert_violated(connection, 1002, BROKEN)


@with_each_masker
@both_roles
def test_a_bad_frame_is_judged_by_its_header(role: str) -> None:
    connection = opened(role)
    connection.receive_data(frame_for(role, 0x3, bytes(1000))[:2])
    assert_violated(connection, 1002, BROKEN)


@with_each_masker
@both_roles
def test_what_precedes_a_bad_byte_is_delivered_before_its_error(role: str) -> None:
    connection = opened(role)
    good = (
        frame_for(role, BINARY, bytes(960))
        + frame_for(role, PING, b"p")
        + frame_for(role, TEXT, b'{"t":"x"}')
    )
    connection.receive_data(good + b"\xff\xff" + good)
    assert connection.next_event() == audio(role, bytes(960))
    assert connection.next_event() == Unknown("x", '{"t":"x"}')
    assert connection.state is State.OPEN
    assert_violated(connection, 1002, BROKEN)


@both_roles
def test_nothing_behind_a_bad_fragment_is_looked_at(role: str) -> None:
    connection = opened(role)
    feed(connection, role, TEXT, b"[", fin=False)
    feed(connection, role, CONTINUATION, b"]")
    assert_violated(connection, 1007, FOREIGN + "Expected `object`, got `array`")
    feed(connection, role, BINARY, bytes(200))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


# Close frames


@both_roles
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 3000, 4401, 4999])
@pytest.mark.parametrize("reason", ["", "because \u00e9"])
def test_the_peer_closes(role: str, code: int, reason: str) -> None:
    connection = opened(role)
    feed(connection, role, CLOSE, struct.pack(">H", code) + reason.encode())
    assert only_event(connection) == Close(code, reason, "remote")
    assert sent(connection) == [close_frame(code, reason)]
    assert connection.state is State.CLOSED
    with pytest.raises(ConnectionClosed):
        connection.next_event()


@both_roles
def test_the_peer_closes_without_a_code(role: str) -> None:
    connection = opened(role)
    feed(connection, role, CLOSE)
    assert only_event(connection) == Close(1005, "", "remote")
    assert sent(connection) == [(CLOSE, b"")]


@both_roles
@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000, 65_535])
def test_the_peer_closes_with_a_code_it_may_not_send(role: str, code: int) -> None:
    connection = opened(role)
    feed(connection, role, CLOSE, struct.pack(">H", code))
    assert_violated(connection, 1002, BROKEN)


@both_roles
def test_the_peer_closes_with_a_reason_that_is_not_utf8(role: str) -> None:
    connection = opened(role)
    feed(connection, role, CLOSE, struct.pack(">H", 1000) + b"\xff")
    assert_violated(connection, 1007, BROKEN + "it sent text that is not UTF-8")


@both_roles
def test_nothing_behind_a_close_is_looked_at(role: str) -> None:
    connection = opened(role)
    connection.receive_data(
        frame_for(role, CLOSE, b"\x03\xe8") + frame_for(role, BINARY, bytes(200)) + b"\xff\xff"
    )
    assert drain(connection) == [Close(1000, "", "remote")]
    connection.receive_data(frame_for(role, BINARY, bytes(200)))
    connection.receive_data(frame_for(role, BINARY, bytes(200)))
    connection.receive_eof()
    for _ in range(3):
        with pytest.raises(ConnectionClosed):
            connection.next_event()
    assert sent(connection) == [close_frame(1000)]


@both_roles
def test_our_close_and_its_answer(role: str) -> None:
    connection = opened(role)
    connection.close(4000, "x" * 200)
    assert sent(connection)[-1] == close_frame(4000, "x" * 123)
    feed(connection, role, BINARY, bytes(200))
    feed(connection, role, PING, b"still there?")
    assert drain(connection) == [audio(role, bytes(200))]
    feed(connection, role, CLOSE, struct.pack(">H", 4000))
    assert only_event(connection) == Close(4000, "x" * 200, "local")
    assert connection.data_to_send() == b""


@both_roles
def test_a_reason_is_cut_between_characters(role: str) -> None:
    connection = opened(role)
    connection.close(1000, "\u20ac" * 50)
    assert sent(connection)[-1] == close_frame(1000, "\u20ac" * 41)


@both_roles
def test_a_bad_frame_after_our_close_ends_it_without_another(role: str) -> None:
    connection = opened(role)
    connection.close(1000, "bye")
    connection.data_to_send()
    connection.receive_data(b"\xff\xff")
    close = only_event(connection)
    assert isinstance(close, Close)
    assert close.code == 1002
    assert connection.data_to_send() == b""


# Pings


@with_each_masker
@both_roles
@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
def test_a_ping_is_answered_with_its_payload(role: str, payload: bytes) -> None:
    connection = opened(role)
    feed(connection, role, PING, payload)
    assert drain(connection) == []
    assert sent(connection) == [(PONG, payload)]


@with_each_masker
@both_roles
def test_replies_keep_their_place_in_the_outbox(role: str) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    connection.send_audio(bytes(200))
    feed(connection, role, PING, b"p")
    assert connection.next_event() is NEED_DATA
    connection.send_audio(bytes(2))
    assert sent(connection) == [(BINARY, bytes(200)), (PONG, b"p"), (BINARY, bytes(2))]


# Limits


@both_roles
@pytest.mark.parametrize("limit", [100, 500, 70_000, 100_000])
def test_a_binary_message_of_the_limit_passes_and_one_more_byte_does_not(role: str, limit: int) -> None:
    connection = opened(role, limits=Limits(max_message_size=limit))
    feed(connection, role, BINARY, bytes(limit))
    assert only_event(connection) == audio(role, bytes(limit))
    # Its header is enough: the payload is not waited for.
    connection.receive_data(frame_for(role, BINARY, bytes(limit + 1))[:14])
    assert_violated(connection, 1009, f"the peer sent a binary message of more than {limit} bytes")


@both_roles
def test_a_text_message_of_the_limit_passes_and_one_more_byte_does_not(role: str) -> None:
    text = '{"t":"\u00e9"}'
    connection = opened(role, limits=Limits(max_text_size=len(text.encode())))
    feed(connection, role, TEXT, text.encode())
    assert only_event(connection) == Unknown("\u00e9", text)
    feed(connection, role, TEXT, text.encode() + b" ")
    assert_violated(connection, 1009, "the peer sent a text message of more than 10 bytes")


@both_roles
@pytest.mark.parametrize(("opcode", "kind"), [(BINARY, "binary"), (TEXT, "text")])
def test_the_limit_counts_the_fragments_of_a_message_together(role: str, opcode: int, kind: str) -> None:
    connection = opened(role, limits=Limits(max_message_size=200, max_text_size=200))
    feed(connection, role, opcode, b" " * 50, fin=False)
    feed(connection, role, CONTINUATION, b" " * 100, fin=False)
    assert connection.next_event() is NEED_DATA
    connection.receive_data(frame_for(role, CONTINUATION, b" " * 51)[:2])
    assert_violated(connection, 1009, f"the peer sent a {kind} message of more than 200 bytes")


@both_roles
def test_the_size_of_one_message_does_not_count_for_the_next(role: str) -> None:
    connection = opened(role, limits=Limits(max_message_size=200))
    for _ in range(3):
        feed(connection, role, BINARY, bytes(100), fin=False)
        feed(connection, role, CONTINUATION, bytes(100))
        feed(connection, role, BINARY, bytes(200))
    assert drain(connection) == [audio(role, bytes(200))] * 6


@both_roles
@pytest.mark.parametrize("last", [False, True])
def test_a_message_may_come_in_so_many_fragments_and_no_more(role: str, last: bool) -> None:
    connection = opened(role, limits=Limits(max_fragments=3))
    for _ in range(2):
        feed(connection, role, BINARY, b"a", fin=False)
        feed(connection, role, CONTINUATION, fin=False)
        feed(connection, role, CONTINUATION, b"b")
    assert drain(connection) == [audio(role, b"ab")] * 2
    feed(connection, role, BINARY, fin=False)
    for _ in range(2):
        feed(connection, role, CONTINUATION, fin=False)
    feed(connection, role, CONTINUATION, b"ab", fin=last)
    assert_violated(connection, 1008, "the peer sent a message in more than 3 fragments")


@both_roles
def test_control_frames_are_no_part_of_a_message_at_its_limits(role: str) -> None:
    connection = opened(role, limits=Limits(max_fragments=2, max_message_size=200))
    feed(connection, role, BINARY, bytes(100), fin=False)
    feed(connection, role, CONTINUATION, bytes(100), fin=False)
    for opcode in (PING, PONG, CLOSE):
        feed(connection, role, opcode, struct.pack(">H", 1001) + b"bye")
    assert drain(connection) == [Close(1001, "bye", "remote")]


@both_roles
@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_flood_of_control_frames(role: str, opcode: int) -> None:
    connection = opened(role, limits=Limits(max_control_frames=5))
    for _ in range(5):
        feed(connection, role, opcode)
    assert connection.next_event() is NEED_DATA
    feed(connection, role, opcode)
    assert_violated(connection, 1008, "the peer sent more than 5 control frames and no message")


@both_roles
@pytest.mark.parametrize("message", [(BINARY, b""), (BINARY, bytes(200)), (TEXT, b'{"t":"x"}')])
def test_a_message_ends_the_count_of_control_frames(role: str, message: tuple[int, bytes]) -> None:
    connection = opened(role, limits=Limits(max_control_frames=2))
    for _ in range(5):
        for opcode, payload in ((PING, b""), (PONG, b""), message):
            feed(connection, role, opcode, payload)
            drain(connection)
    assert connection.state is State.OPEN


@both_roles
def test_pongs_that_the_peer_does_not_read(role: str) -> None:
    # What each costs is its payload, and 64 bytes for being an object at all.
    for size, count in ((125, 3), (0, 9)):
        connection = opened(role, limits=Limits(max_outbox=count * (size + 64)))
        for _ in range(2):  # once they are taken, there is room again
            for _ in range(count):
                feed(connection, role, PING, bytes(size))
                assert connection.next_event() is NEED_DATA
            assert sent(connection) == [(PONG, bytes(size))] * count
        for _ in range(count):
            feed(connection, role, PING, bytes(size))
        assert connection.next_event() is NEED_DATA
        feed(connection, role, PING, bytes(size))
        assert_violated(connection, 1008, "the peer sends pings and does not read what we send")


@both_roles
def test_pongs_and_what_the_caller_queues_do_not_take_each_others_room(role: str) -> None:
    connection = opened(role, limits=Limits(max_outbox=128))
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    connection.send_audio(bytes(128))
    for _ in range(2):
        feed(connection, role, PING)
    assert connection.next_event() is NEED_DATA
    assert sent(connection) == [(BINARY, bytes(128)), (PONG, b""), (PONG, b"")]
    for _ in range(2):
        feed(connection, role, PING)
    assert connection.next_event() is NEED_DATA
    connection.send_audio(bytes(128))
    assert connection.state is State.OPEN


INTERRUPTION = '{"t":"interruption","at":"user"}'


def test_pongs_take_no_room_of_the_callers_after_an_interruption_either() -> None:
    _, server = open_pair(server=ServerConnection(limits=Limits(max_outbox=1000)))
    server.send_ready()
    server.data_to_send()
    for _ in range(5):
        server.receive_data(frame(PING, bytes(125), masked=True))
    assert server.next_event() is NEED_DATA
    server.send_interruption()
    server.send_audio(bytes(1000 - len(INTERRUPTION)))
    with pytest.raises(LocalProtocolError, match="would wait to be sent"):
        server.send_audio(bytes(2))


@pytest.mark.parametrize("size", [2, 124, 126, 200, 32_768, 70_000])
def test_dropped_audio_gives_back_the_room_it_took_to_the_byte(size: int) -> None:
    _, server = open_pair(server=ServerConnection(limits=Limits(max_outbox=100_000)))
    server.send_ready()
    server.data_to_send()
    server.send_error("E", "m")
    server.send_audio(bytes(size))
    server.send_audio(bytes(size & 0xFFF))
    server.send_interruption()
    left = 100_000 - len('{"t":"error","code":"E","message":"m"}') - len(INTERRUPTION)
    assert left % 2 == 0
    server.send_audio(bytes(left))
    with pytest.raises(LocalProtocolError, match="would wait to be sent"):
        server.send_audio(bytes(2))


@both_roles
def test_the_outbox_is_full_at_its_limit(role: str) -> None:
    connection = opened(role, limits=Limits(max_outbox=1000))
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    connection.send_audio(bytes(600))
    connection.send_audio(bytes(400))
    for size in (2, 200):
        with pytest.raises(
            LocalProtocolError, match=r"1000 bytes \(max_outbox\) would wait to be sent; pass less at a time"
        ):
            connection.send_audio(bytes(size))
    assert sent(connection) == [(BINARY, bytes(600)), (BINARY, bytes(400))]
    connection.send_audio(bytes(1000))


@with_each_masker
@both_roles
def test_any_buffer_is_sent_by_its_bytes_and_may_change_once_it_is_queued(role: str) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    pcm = bytes(range(250)) * 2
    shorts = array.array("h", pcm)
    strided = bytearray(1000)
    strided[::2] = pcm
    for buffer in (bytearray(pcm), shorts, strided):
        connection.send_audio(memoryview(buffer)[:: 2 if buffer is strided else 1])
        memoryview(buffer).cast("B")[:] = bytes(len(memoryview(buffer).cast("B")))
    assert sent(connection) == [(BINARY, pcm)] * 3


@both_roles
@pytest.mark.parametrize("size", [1, 127, 201, 65_535])
def test_an_odd_number_of_bytes_is_not_sent(role: str, size: int) -> None:
    connection = opened(role)
    if role == "server":
        connection.send_ready()  # type: ignore[union-attr]
        connection.data_to_send()
    with pytest.raises(LocalProtocolError, match=f"two bytes a sample, but this has {size} bytes"):
        connection.send_audio(bytes(size))
    assert not connection.has_output


def test_a_server_that_is_not_ready_sends_no_audio() -> None:
    connection = opened("server")
    with pytest.raises(LocalProtocolError, match=r"ready was not sent yet; call send_ready\(\) first"):
        connection.send_audio(bytes(200))
    assert not connection.has_output


def test_an_interruption_drops_the_audio_that_is_queued_and_nothing_else() -> None:
    client, server = open_pair()
    server.send_ready()
    server.send_audio(bytes(2))
    server.send_audio(bytes(200))
    server.receive_data(frame(PING, b"p", masked=True))
    assert server.next_event() is NEED_DATA
    server.send_error("E", "m")
    server.send_audio(bytes(70_000))
    server.send_interruption()
    server.send_audio(b"ab")
    data = server.data_to_send()
    assert [opcode for opcode, _ in parse_frames(data)] == [TEXT, PONG, TEXT, TEXT, BINARY]
    client.receive_data(data)
    assert drain(client) == [
        Ready(24_000, 24_000),
        ErrorFrame("E", "m"),
        Interruption(),
        Audio(b"ab", 24_000),
    ]


def test_dropped_audio_makes_room_in_the_outbox() -> None:
    server = opened("server", limits=Limits(max_outbox=1000))
    server.send_ready()  # type: ignore[union-attr]
    server.send_audio(bytes(800))
    server.send_interruption()  # type: ignore[union-attr]
    server.send_audio(bytes(800))
    with pytest.raises(LocalProtocolError):
        server.send_audio(bytes(800))


# The transport's end


@both_roles
def test_the_peer_hangs_up(role: str) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, bytes(200))
    connection.receive_eof()
    assert drain(connection) == [
        audio(role, bytes(200)),
        Close(1006, "the peer hung up without a closing handshake", "transport"),
    ]
    for _ in range(10):
        with pytest.raises(ConnectionClosed, match="by a lost connection with code 1006"):
            connection.next_event()


@both_roles
def test_the_peer_hangs_up_behind_reads_that_all_look_alike(role: str) -> None:
    connection = after_many_alike(role, b"")
    connection.receive_eof()
    assert only_event(connection) == Close(1006, "the peer hung up without a closing handshake", "transport")


@both_roles
@pytest.mark.parametrize("left", [1, 2, 5, 100])
def test_the_peer_hangs_up_in_the_middle_of_a_frame(role: str, left: int) -> None:
    connection = opened(role)
    connection.receive_data(frame_for(role, BINARY, bytes(200))[:-left])
    connection.receive_eof()
    assert only_event(connection) == Close(
        1006, "the connection was lost in the middle of a message", "transport"
    )


@both_roles
def test_the_peer_hangs_up_between_fragments(role: str) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, b"ab", fin=False)
    connection.receive_eof()
    assert only_event(connection) == Close(
        1006, "the connection was lost in the middle of a message", "transport"
    )


@pytest.mark.parametrize(
    "cut",
    [
        [],
        pytest.param(
            [204],
        ),
    ],
    ids=["one read", "two reads"],
)
def test_the_middle_of_a_message_is_known_however_it_came(cut: list[int]) -> None:
    connection = opened("client")
    data = frame(BINARY, bytes(200), masked=False) + b"\x82"
    for start, end in zip([0, *cut], [*cut, len(data)], strict=True):
        connection.receive_data(data[start:end])
    connection.receive_eof()
    close = drain(connection)[-1]
    assert isinstance(close, Close)
    assert close.reason == "the connection was lost in the middle of a message"


@both_roles
def test_the_peer_hangs_up_after_our_close(role: str) -> None:
    connection = opened(role)
    connection.close(1000, "bye")
    connection.receive_eof()
    close = only_event(connection)
    assert isinstance(close, Close)
    assert (close.code, close.initiated_by) == (1006, "local")


@both_roles
def test_what_was_received_is_delivered_after_a_failed_send(role: str) -> None:
    connection = opened(role)
    feed(connection, role, BINARY, bytes(200))
    feed(connection, role, TEXT, b'{"t":"x"}')
    connection.close(1000, "bye")
    connection.send_failed()
    assert connection.state is State.CLOSING
    assert connection.data_to_send() == b""
    assert drain(connection) == [
        audio(role, bytes(200)),
        Unknown("x", '{"t":"x"}'),
        Close(1006, "sending failed", "local"),
    ]
    assert connection.data_to_send() == b""


@both_roles
def test_after_a_failed_send_nothing_can_be_said(role: str) -> None:
    connection = opened(role)
    connection.send_failed()
    connection.send_failed()
    for _ in range(10):
        with pytest.raises(ConnectionClosed, match="a lost connection with code 1006: sending failed"):
            connection.send_audio(bytes(200))
    connection.close(1000, "bye")
    assert connection.data_to_send() == b""
    assert drain(connection) == [Close(1006, "sending failed", "transport")]
    connection.send_failed()
    with pytest.raises(ConnectionClosed):
        connection.next_event()


@both_roles
def test_after_a_failed_send_the_peer_may_have_said_why(role: str) -> None:
    connection = opened(role)
    feed(connection, role, PING, b"p")
    feed(connection, role, CLOSE, struct.pack(">H", 1008) + b"too slow")
    connection.send_failed()
    assert drain(connection) == [Close(1008, "too slow", "remote")]
    assert connection.data_to_send() == b""


@both_roles
def test_a_bad_frame_after_a_failed_send_is_not_answered(role: str) -> None:
    connection = opened(role)
    connection.receive_data(b"\xff\xff")
    connection.send_failed()
    drain(connection)
    assert connection.data_to_send() == b""


@both_roles
def test_no_ping_is_sent_after_a_failed_send(role: str) -> None:
    connection = opened(role, ping_interval=20.0)
    connection.handle_timeout(0.0)
    connection.send_failed()
    connection.handle_timeout(20.0)
    assert connection.data_to_send() == b""


# Time


@both_roles
def test_a_silent_peer_is_pinged_and_then_cut_off(role: str) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    connection.handle_timeout(100.0)
    assert connection.next_deadline() == 120.0
    connection.handle_timeout(119.9)
    assert connection.data_to_send() == b""
    connection.handle_timeout(120.5)
    assert sent(connection) == [(PING, b"")]
    # The peer's time to answer counts from then, without another look at the clock.
    assert connection.next_deadline() == 130.5
    connection.handle_timeout(130.5)
    reason = "keepalive: no byte from the peer within 10 s of a ping"
    assert only_event(connection) == Close(1006, reason, "transport")
    assert sent(connection) == [close_frame(1011, "keepalive timeout")]
    assert connection.next_deadline() is None


@both_roles
@pytest.mark.parametrize("sign", [(PONG, b""), (BINARY, bytes(200)), (PING, b"")])
def test_any_frame_is_a_sign_of_life(role: str, sign: tuple[int, bytes]) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0)
    assert sent(connection) == [(PING, b"")]
    feed(connection, role, *sign)
    drain(connection)
    connection.data_to_send()
    let_time_pass(connection, 25.0, 49.0)
    assert connection.state is State.OPEN
    assert connection.data_to_send() == b""
    let_time_pass(connection, 49.0, 50.0)
    assert sent(connection) == [(PING, b"")]


@both_roles
def test_half_a_frame_is_a_sign_of_life(role: str) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0)
    connection.receive_data(frame_for(role, BINARY, bytes(200))[:1])
    let_time_pass(connection, 29.0, 30.0)
    assert connection.state is State.OPEN


@both_roles
def test_an_empty_read_is_no_sign_of_life(role: str) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0)
    connection.receive_data(b"")
    let_time_pass(connection, 29.0, 30.0)
    assert connection.state is State.CLOSED


@both_roles
def test_a_peer_that_talks_is_not_pinged(role: str) -> None:
    connection = opened(role, ping_interval=20.0)
    for now in range(0, 300, 10):
        feed(connection, role, BINARY, bytes(200))
        drain(connection)
        let_time_pass(connection, float(now), float(now))
    assert connection.data_to_send() == b""


@both_roles
def test_without_an_interval_there_are_no_pings(role: str) -> None:
    connection = opened(role, ping_interval=None)
    assert connection.next_deadline() is None
    connection.suspend_keepalive()
    connection.resume_keepalive()
    assert connection.next_deadline() is None


@both_roles
@pytest.mark.parametrize("pinged", [False, True])
def test_a_peer_is_not_blamed_while_nobody_reads(role: str, pinged: bool) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0 if pinged else 19.0)
    assert len(sent(connection)) == pinged
    connection.suspend_keepalive()
    connection.handle_timeout(100.0)
    # It is pinged on, so that the system notices when it is gone.
    for now in (120.0, 140.0, 160.0):
        assert connection.next_deadline() == now
        connection.handle_timeout(now)
        assert sent(connection) == [(PING, b"")]
    assert connection.state is State.OPEN
    connection.resume_keepalive()
    connection.handle_timeout(1000.0)
    assert connection.next_deadline() == 1020.0
    let_time_pass(connection, 1020.0, 1029.0)
    assert sent(connection) == [(PING, b"")]
    let_time_pass(connection, 1030.0, 1030.0)
    assert connection.closed is not None


@both_roles
def test_pings_that_nobody_answers_do_not_pile_up(role: str) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    connection.suspend_keepalive()
    let_time_pass(connection, 0.0, 1000.0)
    assert sent(connection) == [(PING, b"")]


@both_roles
def test_resuming_gives_the_peer_a_whole_interval_even_when_a_pong_was_due(role: str) -> None:
    connection = opened(role, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0)
    assert sent(connection) == [(PING, b"")]
    connection.resume_keepalive()
    let_time_pass(connection, 25.0, 44.0)
    assert (connection.state, connection.data_to_send()) == (State.OPEN, b"")
    let_time_pass(connection, 45.0, 45.0)
    assert sent(connection) == [(PING, b"")]


@both_roles
def test_keepalive_is_not_resumed_in_a_session_that_ends(role: str) -> None:
    connection = opened(role, close_timeout=5.0)
    connection.suspend_keepalive()
    connection.close()
    connection.handle_timeout(0.0)
    connection.resume_keepalive()
    assert connection.next_deadline() == 5.0
    connection.handle_timeout(5.0)
    assert only_event(connection) == Close(1006, "the peer did not answer the close in time", "local")
    connection.resume_keepalive()
    assert connection.next_deadline() is None


@both_roles
def test_after_a_close_there_is_no_keepalive(role: str) -> None:
    connection = opened(role, ping_interval=20.0, close_timeout=100.0)
    connection.handle_timeout(0.0)
    connection.close()
    connection.data_to_send()
    connection.handle_timeout(50.0)
    assert connection.data_to_send() == b""
    assert connection.next_deadline() == 150.0


@both_roles
def test_the_end_is_announced_ahead(role: str) -> None:
    connection = opened(role, ping_interval=None, ttl=300.0, warn_before=60.0)
    connection.handle_timeout(1000.0)
    assert connection.next_deadline() == 1240.0
    connection.handle_timeout(1240.0)
    assert only_event(connection) == Expiring(60.0)


def test_the_time_to_live_counts_from_the_opening() -> None:
    server = ServerConnection(ping_interval=None, ttl=300.0)
    server.handle_timeout(0.0)
    assert server.next_deadline() == 10.0  # the handshake's
    open_pair(server=server)
    server.handle_timeout(5.0)
    assert server.next_deadline() == 245.0


def test_a_server_ends_the_session_when_its_time_is_up() -> None:
    client, server = open_pair(server=ServerConnection(ttl=30.0, ping_interval=None))
    let_time_pass(server, 0.0, 30.0)
    client.receive_data(server.data_to_send())
    assert drain(client) == [Close(1000, "session_expired", "remote")]
    server.receive_data(client.data_to_send())
    assert drain(server) == [Expiring(30.0), Close(1000, "session_expired", "local")]


def test_nothing_is_sent_behind_the_close_of_an_expired_session() -> None:
    server = opened("server", ttl=19.0, ping_interval=20.0)
    server.handle_timeout(0.0)
    server.handle_timeout(100.0)
    assert sent(server)[-1] == close_frame(1000, "session_expired")


@both_roles
def test_a_session_that_was_lost_does_not_expire_as_well(role: str) -> None:
    connection = opened(role, ttl=95.0, warn_before=60.0, ping_interval=20.0, ping_timeout=10.0)
    let_time_pass(connection, 0.0, 20.0)
    assert sent(connection) == [(PING, b"")]
    connection.handle_timeout(100.0)
    close = only_event(connection)
    assert isinstance(close, Close)
    assert close.reason.startswith("keepalive: ")
    assert sent(connection) == [close_frame(1011, "keepalive timeout")]
    with pytest.raises(ConnectionClosed):
        connection.next_event()


@both_roles
def test_a_timeout_too_early_does_nothing(role: str) -> None:
    connection = opened(role, ttl=300.0)
    for _ in range(5):
        connection.handle_timeout(0.0)
    assert connection.next_event() is NEED_DATA
    assert connection.data_to_send() == b""


# Verbs in frames


@with_each_masker
def test_each_verb_is_one_frame() -> None:
    client, server = open_pair()
    client.commit()
    client.interrupt()
    assert sent(client) == [(TEXT, b'{"t":"control","action":"commit"}'), (TEXT, b'{"t":"interrupt"}')]
    client.commit()
    client.interrupt()
    server.receive_data(client.data_to_send())
    assert drain(server) == [Commit(), Interrupt()]


@with_each_masker
def test_a_frame_written_by_hand_is_what_a_client_sends() -> None:
    # Holds the writer in ``helpers.py``, and so every test here, to the core's own.
    client, _ = open_pair()
    client.send_audio(bytes(range(200)))
    data = client.data_to_send()
    key = data[4:8]
    ours = frame(BINARY, bytes(range(200)), masked=True)
    assert data[:4] == ours[:4]
    assert bytes(a ^ b for a, b in zip(data[8:], key * 50, strict=True)) == bytes(
        a ^ b for a, b in zip(ours[8:], KEY * 50, strict=True)
    )
