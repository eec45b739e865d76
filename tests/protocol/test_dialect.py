"""The life of a session, as every dialect has it: tried on the Speko session, in both roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    ClientProtocol,
    Close,
    CloseMessage,
    ConnectionClosed,
    Dialect,
    ErrorFrame,
    Expiring,
    Initiator,
    RemoteProtocolError,
    ServerProtocol,
    SessionExpired,
    SpekoError,
    State,
)

from .helpers import says

Session = ClientProtocol | ServerProtocol


@pytest.fixture(params=[ClientProtocol, ServerProtocol], ids=["client", "server"])
def make(request: pytest.FixtureRequest) -> Callable[..., Session]:
    """Makes a session of either role."""
    kind: Callable[..., Session] = request.param
    return kind


def goodbyes(session: Session) -> list[CloseMessage]:
    return [message for message in session.messages_to_send() if isinstance(message, CloseMessage)]


def test_a_new_session_is_open_and_quiet(make: Callable[..., Session]) -> None:
    session = make()
    assert session.state is State.OPEN
    assert (session.closed, session.error, session.next_deadline()) == (None, None, None)
    assert not session.has_output
    assert session.next_event() is NEED_DATA


def close_and(session: Session, code: int, then: Callable[[Session], None]) -> None:
    session.close(code, "bye")
    then(session)


def fail_to_send_and(session: Session, then: Callable[[Session], None]) -> None:
    session.send_failed()
    assert session.closed is None
    then(session)


def let_time_pass(session: Session) -> None:
    session.handle_timeout(0.0)
    session.handle_timeout(5.0)


ENDS: dict[str, tuple[Callable[[Session], None], Close, type[SpekoError]]] = {
    "our close": (
        lambda session: close_and(session, 4000, lambda session: session.receive_close(4000, "bye")),
        Close(4000, "bye", "local"),
        ConnectionClosed,
    ),
    "our close, answered by another": (
        lambda session: close_and(session, 1000, lambda session: session.receive_close(1001, "no, I")),
        Close(1000, "bye", "local"),
        ConnectionClosed,
    ),
    "our close, then a lost transport": (
        lambda session: close_and(session, 1000, lambda session: session.receive_lost("cut")),
        Close(1006, "cut", "local"),
        ConnectionClosed,
    ),
    "the peer's close": (
        lambda session: session.receive_close(1001, "going"),
        Close(1001, "going", "remote"),
        ConnectionClosed,
    ),
    "the peer's close without a code": (
        lambda session: session.receive_close(1005),
        Close(1005, "", "remote"),
        ConnectionClosed,
    ),
    "the session's time is up": (
        lambda session: session.receive_close(1000, "session_expired"),
        Close(1000, "session_expired", "remote"),
        SessionExpired,
    ),
    "the provider's time is up": (
        lambda session: session.receive_close(1001, "provider_session_expired"),
        Close(1001, "provider_session_expired", "remote"),
        SessionExpired,
    ),
    "a lost transport": (
        lambda session: session.receive_lost(),
        Close(1006, "the connection was lost", "transport"),
        ConnectionClosed,
    ),
    "a failed send, then a lost transport": (
        lambda session: fail_to_send_and(session, lambda session: session.receive_lost("cut")),
        Close(1006, "sending failed", "transport"),
        ConnectionClosed,
    ),
    "a failed send, then the peer's close": (
        lambda session: fail_to_send_and(session, lambda session: session.receive_close(4000, "enough")),
        Close(4000, "enough", "remote"),
        ConnectionClosed,
    ),
    "a failed send, then the answer to our close": (
        lambda session: close_and(
            session,
            1000,
            lambda session: fail_to_send_and(session, lambda session: session.receive_close(1000)),
        ),
        Close(1000, "bye", "local"),
        ConnectionClosed,
    ),
    "a failed send, then silence": (
        lambda session: fail_to_send_and(session, let_time_pass),
        Close(1006, "sending failed", "transport"),
        ConnectionClosed,
    ),
    "a broken message": (
        lambda session: session.receive_message("{}"),
        Close(
            1007,
            "the peer sent a text message that is not of this protocol: Object missing required field `t`",
            "local",
        ),
        RemoteProtocolError,
    ),
}


@pytest.mark.parametrize(("end", "close", "error"), ENDS.values(), ids=ENDS.keys())
def test_the_end_is_one_close_and_then_the_same_error_for_ever(
    make: Callable[..., Session], end: Callable[[Session], None], close: Close, error: type[SpekoError]
) -> None:
    session = make()
    end(session)
    assert session.state is State.CLOSED
    assert session.closed == close
    assert session.next_event() == close
    assert type(session.error) is error
    session.messages_to_send()
    for _ in range(10):
        with pytest.raises(error) as caught:
            session.next_event()
        assert caught.value is session.error
        with pytest.raises(error) as caught:
            session.send_audio(b"ab")
        assert caught.value is session.error
    if isinstance(session.error, ConnectionClosed):
        assert (session.error.code, session.error.reason) == (close.code, close.reason)
        assert session.error.initiated_by == close.initiated_by


@pytest.mark.parametrize(("end", "close"), [end[:2] for end in ENDS.values()], ids=ENDS.keys())
def test_after_the_end_nothing_more_happens(
    make: Callable[..., Session], end: Callable[[Session], None], close: Close
) -> None:
    session = make(ttl=100.0)
    end(session)
    session.messages_to_send()
    error = session.error
    session.receive_message("junk")
    session.receive_message(b"ab")
    session.receive_close(1001, "again")
    session.receive_lost("again")
    session.send_failed()
    session.close(1001, "again")
    session.handle_timeout(1e9)
    assert session.next_event() == close
    assert (session.closed, session.error, session.state) == (close, error, State.CLOSED)
    assert session.next_deadline() is None
    assert not session.has_output


def test_the_error_does_not_collect_tracebacks() -> None:
    session = ClientProtocol()
    session.receive_lost()
    session.next_event()
    depths = set()
    for _ in range(5):
        with pytest.raises(ConnectionClosed) as caught:
            session.next_event()
        depths.add(len(caught.traceback))
    assert len(depths) == 1


def test_events_before_the_end_are_delivered_first() -> None:
    session = ClientProtocol()
    session.receive_message(b"ab")
    session.receive_message('{"t":"error"}')
    session.receive_lost()
    assert [session.next_event() for _ in range(3)] == [
        Audio(b"ab", 24_000),
        ErrorFrame(),
        Close(1006, "the connection was lost", "transport"),
    ]


@pytest.mark.parametrize(
    "end",
    [lambda session: session.receive_lost(), lambda session: session.receive_close(1001, "going")],
    ids=["lost", "close"],
)
def test_the_peers_end_takes_the_outbox_with_it(
    make: Callable[..., Session], end: Callable[[Session], None]
) -> None:
    session = make()
    session.close()
    end(session)
    assert not session.has_output
    assert session.messages_to_send() == []


def test_a_broken_message_after_our_goodbye_is_not_answered_twice(make: Callable[..., Session]) -> None:
    session = make()
    session.close(1000, "bye")
    session.receive_message("junk")
    assert goodbyes(session) == [CloseMessage(1000, "bye")]
    assert session.state is State.CLOSED


class Strict(Dialect[str]):
    """A dialect of its own: no message at all belongs to it."""

    def _receive_text(self, text: str) -> None:
        self.violated(1008, text)

    def _receive_binary(self, data: bytes) -> str | None:
        return data.decode()


def test_a_long_complaint_is_cut_only_where_it_must_be() -> None:
    session = Strict()
    session.receive_message(b"first")
    session.receive_message("\u20ac" * 100)
    assert session.messages_to_send() == [CloseMessage(1008, "\u20ac" * 41)]
    assert session.next_event() == "first"
    assert session.next_event() == Close(1008, "\u20ac" * 100, "local")
    with says("\u20ac" * 100, RemoteProtocolError):
        session.next_event()


# Closing


def test_only_the_first_close_counts(make: Callable[..., Session]) -> None:
    session = make()
    session.close(4000, "first")
    session.close(4001, "second")
    assert session.state is State.CLOSING
    assert goodbyes(session) == [CloseMessage(4000, "first")]


def test_a_close_has_a_code_and_no_reason_by_default(make: Callable[..., Session]) -> None:
    session = make()
    session.close()
    assert goodbyes(session) == [CloseMessage(1000, "")]


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2000, 5000, 70_000, 1000.5])
def test_a_code_that_may_not_be_sent(make: Callable[..., Session], code: Any) -> None:
    session = make()
    with says(f"{code} is not a close code that may be sent; use 1000 or one from 4000 to 4999"):
        session.close(code)
    assert session.state is State.OPEN
    assert not session.has_output


def test_a_reason_that_utf8_cannot_carry(make: Callable[..., Session]) -> None:
    session = make()
    with says("the close reason holds half of a surrogate pair; send text"):
        session.close(1000, "\udc00")
    assert session.state is State.OPEN
    assert not session.has_output


def test_a_reason_that_is_no_text(make: Callable[..., Session]) -> None:
    session: Any = make()
    for reason, kind in ((None, "NoneType"), (b"bye", "bytes")):
        with says(f"reason must be a str, not {kind}", TypeError):
            session.close(1000, reason)
    assert session.state is State.OPEN
    assert not session.has_output


def test_what_the_peer_says_after_our_goodbye_is_delivered() -> None:
    session = ClientProtocol()
    session.close()
    session.receive_message(b"ab")
    assert session.next_event() == Audio(b"ab", 24_000)
    assert session.state is State.CLOSING


def test_what_the_peer_says_after_a_failed_send_is_delivered(make: Callable[..., Session]) -> None:
    session = make()
    if isinstance(session, ServerProtocol):
        session.send_ready()
    session.send_failed()
    assert session.state is State.CLOSING
    with pytest.raises(ConnectionClosed, match="1006: sending failed"):
        session.send_audio(b"ab")
    session.close(4001, "nobody hears it")
    session.receive_message(b"ab")
    session.receive_close(4000, "enough")
    assert not session.has_output
    audio = AudioIn if isinstance(session, ServerProtocol) else Audio
    assert session.next_event() == audio(b"ab", 24_000)
    assert session.next_event() == Close(4000, "enough", "remote")


def test_a_broken_message_after_a_failed_send_is_not_answered(make: Callable[..., Session]) -> None:
    session = make()
    session.send_failed()
    session.receive_message("junk")
    assert goodbyes(session) == []
    assert session.state is State.CLOSED


def test_a_failed_send_gives_a_peer_that_is_closing_no_more_time(make: Callable[..., Session]) -> None:
    session = make(close_timeout=5.0)
    session.close(1000, "bye")
    session.handle_timeout(0.0)
    session.send_failed()
    session.send_failed()
    assert session.next_deadline() == 5.0
    session.handle_timeout(5.0)
    assert session.closed == Close(1006, "sending failed", "local")


# Time


def test_the_peer_has_its_time_to_answer_a_close(make: Callable[..., Session]) -> None:
    session = make(close_timeout=5.0, ttl=1000.0)
    session.handle_timeout(0.0)
    session.close(1000, "bye")
    session.handle_timeout(10.0)
    assert session.next_deadline() == 15.0
    session.handle_timeout(14.9)
    assert session.state is State.CLOSING
    session.handle_timeout(15.0)
    assert session.next_event() == Close(1006, "the peer did not answer the close in time", "local")


def test_a_peer_that_announced_its_end_has_its_time_to_close() -> None:
    session = ClientProtocol(close_timeout=5.0, ttl=1000.0)
    session.receive_message('{"t":"end","reason":"done"}')
    session.handle_timeout(0.0)
    assert session.next_deadline() == 5.0
    session.handle_timeout(5.0)
    assert session.next_event() == Close(1006, "done", "remote")


def test_an_end_after_our_goodbye_gives_no_more_time() -> None:
    session = ClientProtocol(close_timeout=5.0)
    session.close()
    session.handle_timeout(0.0)
    session.receive_message('{"t":"end"}')
    assert session.next_deadline() == 5.0


def test_without_a_ttl_there_is_no_deadline(make: Callable[..., Session]) -> None:
    assert make(ttl=None).next_deadline() is None


def test_the_end_is_announced_ahead(make: Callable[..., Session]) -> None:
    session = make(ttl=300.0, warn_before=45.0)
    session.handle_timeout(1000.0)
    assert session.next_deadline() == 1255.0
    session.handle_timeout(1254.9)
    assert session.next_event() is NEED_DATA
    session.handle_timeout(1255.0)
    assert session.next_event() == Expiring(45.0)
    assert session.next_event() is NEED_DATA
    assert session.state is State.OPEN


@pytest.mark.parametrize("ttl", [60.0, 59.0, 0.5, 0.0])
def test_the_end_of_a_short_session_is_announced_at_once(make: Callable[..., Session], ttl: float) -> None:
    session = make(ttl=ttl, warn_before=60.0)
    session.handle_timeout(1000.0)
    assert session.next_event() == Expiring(ttl)
    assert session.next_event() is NEED_DATA
    session.handle_timeout(1000.0 + ttl / 2)
    assert session.next_event() is NEED_DATA


def test_a_warning_later_than_the_end_says_that_no_time_is_left() -> None:
    session = ServerProtocol(ttl=300.0, warn_before=60.0)
    session.handle_timeout(0.0)
    session.handle_timeout(400.0)
    assert session.next_event() == Expiring(0.0)
    assert session.next_event() is NEED_DATA
    assert goodbyes(session) == [CloseMessage(1000, "session_expired")]


def test_a_server_ends_the_session_when_its_time_is_up() -> None:
    session = ServerProtocol(ttl=300.0, warn_before=60.0)
    session.handle_timeout(0.0)
    session.handle_timeout(240.0)
    assert session.next_deadline() == 300.0
    session.handle_timeout(301.0)
    # The peer's time to answer counts from then, without another look at the clock.
    assert session.next_deadline() == 306.0
    assert session.messages_to_send() == [
        '{"t":"end","reason":"session_expired"}',
        CloseMessage(1000, "session_expired"),
    ]
    assert session.state is State.CLOSING
    session.receive_close(1000)
    assert session.closed == Close(1000, "session_expired", "local")


def test_a_client_leaves_the_end_to_the_server() -> None:
    session = ClientProtocol(ttl=300.0, warn_before=60.0)
    session.handle_timeout(0.0)
    session.handle_timeout(240.0)
    assert session.next_deadline() is None
    session.handle_timeout(10_000.0)
    assert session.state is State.OPEN


def test_a_late_warning_says_how_long_there_is() -> None:
    session = ClientProtocol(ttl=300.0, warn_before=60.0)
    session.handle_timeout(0.0)
    session.handle_timeout(290.0)
    assert session.next_event() == Expiring(10.0)


def test_an_ending_session_is_not_announced_any_more(make: Callable[..., Session]) -> None:
    session = make(ttl=300.0, warn_before=60.0)
    session.handle_timeout(0.0)
    session.close()
    session.handle_timeout(1.0)
    assert session.next_deadline() == 6.0


@pytest.mark.parametrize("initiated_by", ["local", "remote"])
def test_a_close_that_crosses_ours_ends_the_session(
    make: Callable[..., Session], initiated_by: Initiator
) -> None:
    session = make()
    if initiated_by == "local":
        session.close(1000, "ours")
    session.receive_close(1000, "theirs")
    assert session.closed is not None
    assert session.closed.initiated_by == initiated_by
