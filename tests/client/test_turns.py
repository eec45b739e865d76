"""A hostile server's reads: taken in turns, so that none of them holds the loop, and in linear time."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from speko_anyio import Audio, Close, Frame, Transcript
from speko_anyio.client._pump import Pump
from speko_anyio.protocol import ClientConnection, State, ToolCall
from speko_anyio.protocol import _codec as codec
from tests.protocol.helpers import BINARY, CONTINUATION, PING, PONG, TEXT, frame, open_pair

READ = 65_536
"""Bytes of the longest read."""

FRAMES_PER_TURN = 64
EVENTS_PER_TURN = 128


def server_frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return frame(opcode, payload, masked=False, fin=fin)


def call(number: int) -> bytes:
    return server_frame(TEXT, codec.encode(ToolCall(f"c{number}", "f", "{}")).encode())


AUDIO = server_frame(BINARY, b"\0\0")
INTERRUPTION = server_frame(TEXT, b'{"t":"interruption","at":"user"}')

KINDS: dict[str, bytes] = {
    "pings": server_frame(PING) * 500 + AUDIO,
    "long pings": server_frame(PING, bytes(125)) * 500 + AUDIO,
    "pongs": server_frame(PONG) * 500 + AUDIO,
    "interruptions": INTERRUPTION,
    "interruptions of audio": AUDIO + INTERRUPTION,
    "interruptions of text": server_frame(TEXT, b'{"t":"x"}') + INTERRUPTION,
    "tiny audio": AUDIO,
    "odd audio": server_frame(BINARY, b"\0"),
    "empty audio": server_frame(BINARY),
    "empty fragments": server_frame(BINARY, fin=False)
    + server_frame(CONTINUATION, fin=False) * 500
    + server_frame(CONTINUATION, b"\0\0"),
    "tiny texts": server_frame(TEXT, b'{"t":"x"}'),
    "transcripts": server_frame(TEXT, b'{"t":"transcript","role":"user","text":"a","final":false}'),
    "tool calls": b"".join(map(call, range(256))) + INTERRUPTION,
    "half a message": server_frame(BINARY, bytes(800_000))[:-1],
}


def fill(kind: str, size: int) -> bytes:
    unit = KINDS[kind]
    return unit * max(1, size // len(unit))


class Counted:
    """A pump in an open session whose core counts its work."""

    def __init__(self) -> None:
        client, _ = open_pair(client=ClientConnection("ws://speko.test/s", "token", ping_interval=None))
        self.core = client
        self.parsed = 0
        self.delivered = 0
        self.pump = Pump(client, max_buffer=1 << 40, on_frame=lambda _: None)

    def count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self.core, "_parse_one", self.counting(self.core._parse_one))
        put = self.pump.inbox.put

        def counting_put(frame: Frame) -> bool:
            self.delivered += 1
            return put(frame)

        monkeypatch.setattr(self.pump, "_consumers", [_Consumer(self.pump.inbox, counting_put)])

    def counting(self, parse: Callable[[], bool]) -> Callable[[], bool]:
        def parse_one() -> bool:
            self.parsed += 1
            return parse()

        return parse_one

    def turns(self, data: bytes) -> list[tuple[int, int]]:
        """What each turn parsed and delivered of one read."""
        turns = []
        work: Callable[[], Any] = lambda: self.pump.receive_data(data)  # noqa: E731
        while True:
            before = self.parsed, self.delivered
            work()
            self.core.data_to_send()
            turns.append((self.parsed - before[0], self.delivered - before[1]))
            if not self.pump.behind:
                return turns
            work = self.pump.catch_up


class _Consumer:
    def __init__(self, inbox: Any, put: Callable[[Frame], bool]) -> None:
        self._inbox = inbox
        self.put = put

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inbox, name)


@pytest.mark.parametrize("kind", KINDS)
def test_no_turn_does_much_of_a_long_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    counted.count(monkeypatch)
    data = fill(kind, READ)
    turns = counted.turns(data)
    assert counted.core.state is State.OPEN
    # The parser is called once more, and finds nothing left.
    assert max(parsed for parsed, _ in turns) <= FRAMES_PER_TURN + 1
    assert max(delivered for _, delivered in turns) <= EVENTS_PER_TURN
    if kind != "half a message":
        assert len(turns) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_turns_change_nothing_of_what_arrives(kind: str) -> None:
    data = fill(kind, READ)
    at_once = Counted()
    at_once.core.yield_after(1 << 60, lambda: None)
    for start in range(0, len(data), 100):
        at_once.pump.receive_data(data[start : start + 100])
    in_turns = Counted()
    in_turns.turns(data)
    assert list(in_turns.pump.inbox.snapshot()) == list(at_once.pump.inbox.snapshot())


def seconds(kind: str, size: int) -> float:
    """CPU time of taking so many bytes, in reads of the usual size."""
    data = fill(kind, size)
    best = inf
    for _ in range(3):
        counted = Counted()
        begin = time.process_time()
        for start in range(0, len(data), READ):
            counted.turns(data[start : start + READ])
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("kind", KINDS)
def test_four_times_as_much_takes_about_four_times_as_long(kind: str) -> None:
    small = {"empty fragments": 20_000, "long pings": 1_000_000}.get(kind, 50_000)
    assert seconds(kind, 4 * small) < 6 * seconds(kind, small)


def test_a_long_message_arrives_in_linear_time_however_it_is_cut() -> None:
    def taken(size: int) -> float:
        data = server_frame(BINARY, bytes(size))
        best = inf
        for _ in range(3):
            counted = Counted()
            begin = time.process_time()
            for start in range(0, len(data), 64):
                counted.pump.receive_data(data[start : start + 64])
            best = min(best, time.process_time() - begin)
            assert counted.pump.inbox.size > size
        return best

    assert taken(800_000) < 6 * taken(200_000)


def driven(data: bytes) -> Counted:
    """A pump that got a long read and has taken its first turn."""
    counted = Counted()
    counted.pump.receive_data(data)
    assert counted.pump.behind
    return counted


def kinds(counted: Counted) -> list[type]:
    return [type(frame) for frame in counted.pump.inbox.snapshot()]


LONG = AUDIO * 1000


def test_a_connection_that_breaks_while_it_is_behind_loses_nothing_of_before() -> None:
    counted = driven(LONG)
    counted.pump.receive_lost("gone", OSError())
    assert kinds(counted) == [Audio] * 1000 + [Close]
    assert counted.pump.done


def test_a_goodbye_among_what_is_left_is_not_turned_into_a_loss() -> None:
    counted = driven(LONG + server_frame(8, b"\x03\xe8bye"))
    counted.pump.receive_lost("gone", OSError())
    assert counted.core.closed == Close(1000, "bye", "remote")
    assert counted.pump.error.__cause__ is None


def test_a_failed_write_and_a_hang_up_while_it_is_behind_lose_nothing() -> None:
    counted = driven(LONG)
    counted.pump.send_failed()
    assert kinds(counted) == [Audio] * 1000 + [Close]
    counted = driven(LONG)
    counted.pump.receive_eof()
    assert not counted.pump.done
    while counted.pump.behind:
        counted.pump.catch_up()
    assert kinds(counted) == [Audio] * 1000 + [Close]
    assert counted.pump.done


def test_an_abort_while_it_is_behind_ends_it_at_once() -> None:
    counted = driven(LONG)
    counted.pump.abort("cancelled")
    assert kinds(counted)[-1] is Close
    assert counted.pump.done


def test_more_bytes_while_it_is_behind_come_after_the_others() -> None:
    text = server_frame(TEXT, b'{"t":"transcript","role":"user","text":"last","final":true}')
    counted = driven(LONG)
    counted.pump.receive_data(text)
    while counted.pump.behind:
        counted.pump.catch_up()
    assert counted.pump.inbox.snapshot() == (
        *[Audio(b"\0\0", 24_000)] * 1000,
        Transcript("user", "last", True),
    )
