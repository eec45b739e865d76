"""A client's shortcuts for audio give the same events as the plain way, whatever they are fed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import NEED_DATA, Audio, ClientConnection, Close, Frame, SpekoError
from tests.protocol.helpers import BINARY, CONTINUATION, PING, TEXT, drain, frame, open_pair, opened


def said(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return frame(opcode, payload, masked=False, fin=fin)


PIECE = said(BINARY, bytes(960))
AUDIO = Audio(bytes(960), 24_000)

PARTS = [
    PIECE,
    PIECE * 3,
    said(BINARY, bytes(128)),
    said(BINARY, bytes(126)),
    said(BINARY, bytes(124)),
    said(BINARY, bytes(127)),
    said(BINARY),
    said(BINARY, bytes(70_000)),
    said(BINARY, bytes(200), fin=False) + said(CONTINUATION, bytes(200)),
    said(BINARY, bytes(200), fin=False),
    said(PING, b"x"),
    said(TEXT, b'{"t":"usage"}'),
    said(TEXT, b'{"t":"interruption","at":"user"}'),
    PIECE[:5],
    PIECE[5:],
    b"\x88\x00",
    b"\xff",
]


def client() -> ClientConnection:
    connection, _ = open_pair(client=ClientConnection("ws://speko.test/s", "token", ping_interval=None))
    return connection


class Way:
    """One way to take the events of a session."""

    def __init__(self, *, shortcuts: bool, most: int = 0) -> None:
        self.core = client()
        self.events: list[Frame] = []
        self._shortcuts = shortcuts
        self._most = most

    def receive(self, data: bytes) -> None:
        core = self.core
        if self._shortcuts and (audio := core.receive_audio(data)) is not None:
            self.events.append(audio)
            return
        core.receive_data(data)
        while core.closed is None or core.unread:
            if self._shortcuts:
                events = core.next_events(self._most)
                assert len(events) <= self._most
            else:
                event = core.next_event()
                events = [] if event is NEED_DATA else [event]
            if not events:
                return
            self.events += events


@given(parts=st.lists(st.tuples(st.sampled_from(PARTS), st.booleans()), max_size=30), most=st.integers(1, 8))
def test_they_change_nothing(parts: list[tuple[bytes, bool]], most: int) -> None:
    plain, short = Way(shortcuts=False), Way(shortcuts=True, most=most)
    reads: list[bytes] = []
    for part, joined in parts:
        if reads and joined:
            reads[-1] += part
        else:
            reads.append(part)
    for read in reads:
        for way in (plain, short):
            way.receive(read)
        assert short.events == plain.events
        assert short.core.state is plain.core.state
        assert short.core.unread == plain.core.unread
    assert len(short.core.data_to_send()) == len(plain.core.data_to_send())


def hear(core: ClientConnection) -> None:
    """Have it receive the usual audio; the first piece of an answer is not ordinary."""
    for _ in range(2):
        assert core.receive_audio(PIECE) is None
        core.receive_data(PIECE)
        assert drain(core) == [AUDIO]


def test_a_read_that_is_one_piece_like_the_last_is_taken_at_once() -> None:
    core = client()
    hear(core)
    assert core.receive_audio(PIECE) == AUDIO
    assert core.receive_audio(PIECE[:-1]) is None
    assert core.receive_audio(b"\x81" + PIECE[1:]) is None
    core.receive_data(PIECE[:7])
    assert core.receive_audio(PIECE) is None
    core.receive_data(PIECE[7:])
    assert core.next_events(9) == [AUDIO]
    assert core.next_events(9) == []


def test_it_waits_for_events_that_were_not_taken() -> None:
    core = client()
    hear(core)
    core.receive_data(said(TEXT, b'{"t":"interruption","at":"user"}') + said(TEXT, b'{"t":"usage"}'))
    core.next_event()
    core._events.append(AUDIO)
    core._buffer = b""
    assert core.receive_audio(PIECE) is None


def test_a_burst_comes_in_one_list_up_to_the_limit() -> None:
    core = client()
    core.receive_data(PIECE * 10 + PIECE[:9])
    assert core.next_events(4) == [AUDIO] * 4
    assert core.next_events(100) == [AUDIO] * 6
    assert core.next_events(100) == []
    core.receive_data(PIECE[9:] + PIECE)
    assert core.next_events(100) == [AUDIO] * 2


@pytest.mark.parametrize("behind", [b"", said(PING), said(BINARY, bytes(127)), PIECE[:9]])
def test_a_burst_of_several_sizes_comes_whole(behind: bytes) -> None:
    core = client()
    sizes = [960, 128, 128, 130, 960, 960, 960, 128, 960]
    core.receive_data(b"".join(said(BINARY, bytes(size)) for size in sizes) + behind)
    assert [len(event.pcm) for event in core.next_events(9) if isinstance(event, Audio)] == sizes


def test_it_is_a_sign_of_life_that_ends_a_run_of_control_frames() -> None:
    core = opened("client", ping_interval=5.0, ping_timeout=1.0)
    assert isinstance(core, ClientConnection)
    hear(core)
    core.handle_timeout(0.0)
    core.handle_timeout(5.0)
    assert core.receive_audio(PIECE) == AUDIO
    core.handle_timeout(6.5)
    assert core.closed is None


def test_after_the_end_both_refuse() -> None:
    core = client()
    hear(core)
    core.receive_data(b"\x88\x00")
    (close,) = core.next_events(9)
    assert isinstance(close, Close)
    assert core.receive_audio(PIECE) is None
    with pytest.raises(SpekoError):
        core.next_events(9)
