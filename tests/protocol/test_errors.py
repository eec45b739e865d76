from __future__ import annotations

import copy
import pickle

import pytest

from speko_anyio.protocol import (
    ConnectionClosed,
    HandshakeError,
    Initiator,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    SessionExpired,
    SpekoError,
)


def test_the_hierarchy() -> None:
    assert ProtocolError.__bases__ == HandshakeError.__bases__ == ConnectionClosed.__bases__ == (SpekoError,)
    assert LocalProtocolError.__bases__ == RemoteProtocolError.__bases__ == (ProtocolError,)
    assert SessionExpired.__bases__ == (ConnectionClosed,)
    assert SpekoError.__bases__ == (Exception,)


def test_a_remote_error_carries_the_close_code() -> None:
    error = RemoteProtocolError("the peer did it", close_code=1007)
    assert (str(error), error.close_code) == ("the peer did it", 1007)


def test_a_handshake_error_carries_the_status_when_there_was_an_answer() -> None:
    assert HandshakeError("no").status is None
    assert HandshakeError("no", status=401).status == 401


@pytest.mark.parametrize(
    ("initiated_by", "who"),
    [("local", "this side"), ("remote", "the peer"), ("transport", "a lost connection")],
)
def test_closed_says_who_ended_it_and_what_to_do(initiated_by: Initiator, who: str) -> None:
    error = ConnectionClosed(code=1000, reason="done", initiated_by=initiated_by)
    assert str(error) == f"the session was ended by {who} with code 1000: done; open a new one to go on"
    assert (error.code, error.reason, error.initiated_by) == (1000, "done", initiated_by)


def test_closed_without_a_reason() -> None:
    error = ConnectionClosed(code=1005, reason="", initiated_by="remote")
    assert str(error) == "the session was ended by the peer with code 1005; open a new one to go on"


ERRORS = [
    LocalProtocolError("mine"),
    HandshakeError("no", status=401),
    pytest.param(
        RemoteProtocolError("theirs", close_code=1002),
    ),
    pytest.param(
        ConnectionClosed(code=1000, reason="done", initiated_by="local"),
    ),
    SessionExpired(code=1000, reason="session_expired", initiated_by="remote"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes(error: SpekoError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
