"""How much a client may say in a time, and how a server takes what it says in turns."""

from __future__ import annotations

from math import inf

import pytest

from speko_anyio.protocol import NEED_DATA, Limits, ServerConnection, ServerProtocol, State
from speko_anyio.protocol._budget import Budget
from speko_anyio.protocol._dialect import OVER_BUDGET
from speko_anyio.protocol._timers import AT_ONCE

from .helpers import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Connection,
    client,
    drain,
    frame_for,
    opened,
)

LIMITS = Limits(max_messages_per_second=100, max_messages_at_once=1000, max_control_frames=5000)

PCM = bytes(960)

MESSAGES = {
    "audio": frame_for("server", BINARY, PCM),
    "tiny audio": frame_for("server", BINARY, b"\0\0"),
    "odd audio": frame_for("server", BINARY, b"\0"),
    "empty": frame_for("server", BINARY),
    "ping": frame_for("server", PING),
    "pong": frame_for("server", PONG),
    "known text": frame_for("server", TEXT, b'{"t":"commit"}'),
    "unknown text": frame_for("server", TEXT, b'{"t":"what"}'),
    "fragments": frame_for("server", BINARY, fin=False)
    + frame_for("server", CONTINUATION, fin=False) * 8
    + frame_for("server", CONTINUATION, b"\0\0"),
}


def test_without_a_rate_it_is_never_due_and_always_kept() -> None:
    budget = Budget()
    budget.spent = 10**9
    assert not budget.due
    assert budget.keeps(0.0)
    assert budget.spent == 0


def test_a_burst_and_what_time_gives_back() -> None:
    budget = Budget(10, 100)
    budget.spent = 100
    assert budget.due
    assert budget.keeps(0.0)
    budget.spent = 10
    assert budget.keeps(1.0)
    budget.spent = 11
    assert not budget.keeps(2.0)


def test_it_saves_no_more_than_a_burst() -> None:
    budget = Budget(10, 100)
    assert budget.keeps(0.0)
    budget.spent = 101
    assert not budget.keeps(3600.0)


def test_it_is_due_long_before_it_is_used_up() -> None:
    assert Budget(10, 100).look_at == 100
    assert Budget(10, 100_000).look_at == 256
    assert Budget().look_at == inf


def talk(connection: Connection, data: bytes, *, times: int, every: float, start: float = 0.0) -> float:
    """Receive `data` again and again, `every` so many seconds, as a driver does; return the time after."""
    now = start
    for _ in range(times):
        if connection.state is State.CLOSED:
            break
        connection.receive_data(data)
        drain(connection)
        connection.data_to_send()
        deadline = connection.next_deadline()
        if deadline is not None and deadline <= now:
            connection.handle_timeout(now)
        now += every
    return now


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_kind_of_message_is_bounded(kind: str) -> None:
    connection = opened("server", limits=LIMITS)
    talk(connection, MESSAGES[kind], times=1000 + 256 + 1, every=0.0)
    closed = connection.closed
    assert closed is not None
    assert (closed.code, closed.reason, closed.initiated_by) == (1008, OVER_BUDGET, "local")


@pytest.mark.parametrize("kind", MESSAGES)
def test_no_kind_of_message_is_refused_within_the_rate(kind: str) -> None:
    frames = 10 if kind == "fragments" else 1
    connection = opened("server", limits=LIMITS)
    talk(connection, MESSAGES[kind], times=3000, every=0.012 * frames)
    assert connection.state is State.OPEN


def test_speech_at_twice_real_time_in_pieces_of_10_ms_and_what_a_stall_of_a_minute_holds_back() -> None:
    connection = opened("server", ping_interval=None)
    speech = frame_for("server", BINARY, bytes(480))
    now = talk(connection, speech, times=200 * 120, every=0.005)
    now = talk(connection, speech, times=200 * 60, every=0.0, start=now)
    talk(connection, speech, times=200 * 120, every=0.005, start=now)
    assert connection.state is State.OPEN


def test_a_client_does_not_hold_its_server_to_it() -> None:
    connection = opened("client", limits=LIMITS)
    for opcode, payload in ((BINARY, PCM), (BINARY, b"\0\0"), (TEXT, b'{"t":"what"}')):
        talk(connection, frame_for("client", opcode, payload), times=3000, every=0.0)
    assert connection.state is State.OPEN


def test_who_never_tells_the_time_refuses_nobody() -> None:
    connection = opened("server", limits=LIMITS, ping_interval=None)
    for _ in range(5000):
        connection.receive_data(MESSAGES["tiny audio"])
        drain(connection)
    assert connection.next_deadline() == AT_ONCE
    assert connection.state is State.OPEN


def test_at_message_level_too() -> None:
    for message in (b"", b"\0\0", PCM, '{"t":"what"}', '{"t":"commit"}'):
        session = ServerProtocol(limits=LIMITS)
        session.send_ready()
        for _ in range(1000):
            session.receive_message(message)
        assert session.next_deadline() == AT_ONCE
        session.handle_timeout(0.0)
        assert (session.state, session.next_deadline()) == (State.OPEN, None)
        session.receive_message(message)
        session.handle_timeout(0.0)
        assert session.closed is not None
        assert (session.closed.code, session.closed.reason) == (1008, OVER_BUDGET)
        for _ in range(1000):  # after the end it counts nothing
            session.receive_message(message)
        session.handle_timeout(0.0)
        assert session.closed.reason == OVER_BUDGET


def test_a_breach_after_the_end_changes_nothing() -> None:
    session = ServerProtocol(limits=LIMITS)
    session.budget.spent = 1001
    session.receive_lost("gone")
    session.handle_timeout(0.0)
    assert session.closed is not None
    assert session.closed.reason == "gone"


# Turns


def unread(connection: Connection) -> bool:
    return connection.unread


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind != "audio"])
def test_a_long_read_is_parsed_in_turns(kind: str) -> None:
    data = MESSAGES[kind] * 30
    at_once = opened("server")
    at_once.receive_data(data)
    expected = drain(at_once)

    stops: list[bool] = []
    connection = opened("server")
    connection.yield_after(7, lambda: stops.append(unread(connection)))
    connection.receive_data(data)
    events = drain(connection)
    while unread(connection):
        events += drain(connection)
    assert events == expected
    frames = 300 if kind == "fragments" else 30
    assert stops == [True] * ((frames - 1) // 7)
    assert connection.data_to_send() == at_once.data_to_send()


def test_what_is_unread() -> None:
    connection = opened("server")
    assert not unread(connection)
    connection.receive_data(MESSAGES["ping"] + MESSAGES["audio"][:5])
    assert unread(connection)
    assert connection.next_event() is NEED_DATA
    assert not unread(connection)  # half a frame
    connection.receive_data(MESSAGES["audio"][5:] + MESSAGES["known text"])
    drain(connection)
    assert not unread(connection)
    connection.receive_data(MESSAGES["audio"][:5])
    drain(connection)
    connection.receive_eof()
    assert unread(connection)  # the end
    drain(connection)
    assert not unread(connection)


def test_an_event_that_waits_in_the_dialect_is_unread() -> None:
    connection = opened("server")
    connection.dialect.receive_message(PCM)
    assert unread(connection)
    drain(connection)
    assert not unread(connection)


def test_a_handshake_is_never_unread() -> None:
    server = ServerConnection()
    server.receive_data(client().data_to_send()[:20])
    assert server.next_event() is NEED_DATA
    assert not unread(server)


def test_speech_between_control_frames_ends_their_run_also_across_a_look_at_the_time() -> None:
    connection = opened("server", limits=Limits(max_control_frames=2), ping_interval=None)
    for look in (False, True) * 20:
        connection.receive_data(MESSAGES["ping"] * 2 + MESSAGES["audio"])
        drain(connection)
        if look:
            connection.handle_timeout(0.0)
    assert connection.state is State.OPEN
    connection.receive_data(MESSAGES["ping"] * 2)
    drain(connection)
    connection.handle_timeout(0.0)
    connection.receive_data(MESSAGES["ping"])
    drain(connection)
    assert connection.closed is not None
    assert connection.closed.code == 1008
