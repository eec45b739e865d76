"""How sessions with Gemini end: every failure is a close, and gets a code of ours."""

from __future__ import annotations

import pytest

from speko_anyio.protocol import Close, ConnectionClosed, ErrorFrame

from .google_talk import READY, Talk, frames

NOT_YET: list[tuple[int, str, str]] = [
    (1007, "API key not valid. Please pass a valid API key.", "provider_unauthorized"),
    (1008, "Method doesn't allow unregistered callers. Please use API Key", "provider_unauthorized"),
    (1008, "models/nope is not found for API version v1beta, or is not", "provider_model_not_found"),
    (1007, "models/x is not found", "provider_model_not_found"),
    (1007, "Invalid JSON payload received. Unknown name \"x\" at 'setup'", "provider_configuration_refused"),
    (1007, "Request contains an invalid argument.", "provider_configuration_refused"),
    (1008, "Requested entity was not found.", "provider_entity_not_found"),
    (1008, "Operation is not implemented, or supported, or enabled.", "provider_operation_refused"),
    (1011, "You exceeded your current quota", "provider_quota_exceeded"),
    (1008, "Resource has been exhausted", "provider_quota_exceeded"),
    (1000, "", "provider_configuration_refused"),
    (4000, "", "provider_error"),
]

LATER: list[tuple[int, str, str, bool]] = [
    (1001, "", "provider_session_expired", True),
    (1011, "Deadline expired before operation could complete.", "provider_session_expired", True),
    (1011, "The operation was aborted.", "provider_session_expired", True),
    (1011, "Internal error encountered.", "provider_internal_error", True),
    (1011, "Quota exceeded for the project", "provider_quota_exceeded", False),
    (1007, "Request contains an invalid argument.", "provider_invalid_request", False),
    (1007, "The API key of my tool", "provider_invalid_request", False),
    (1008, "Operation is not implemented, or supported, or enabled.", "provider_operation_refused", True),
    (1008, "Requested entity was not found.", "provider_entity_not_found", True),
    (1008, "", "provider_invalid_request", False),
    (1012, "", "provider_unavailable", True),
    (1013, "", "provider_unavailable", True),
    (1005, "", "provider_unavailable", True),
    (1002, "", "provider_error", False),
    (4000, "who knows", "provider_error", False),
]

HANDLE = {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}}
AWAY = {"goAway": {"timeLeft": "50s"}}


def check_failure(talk: Talk, code: int, reason: str, name: str) -> None:
    talk.dialect.receive_close(code, reason)
    error, close = frames(talk.dialect)
    assert isinstance(error, ErrorFrame)
    assert error == talk.dialect.failure
    assert error.code == name
    assert (reason.rstrip(".") or f"close code {code}") in error.message
    assert close == Close(code, name, "remote")
    assert isinstance(talk.dialect.error, ConnectionClosed)


@pytest.mark.parametrize(("code", "reason", "name"), NOT_YET)
def test_before_it_was_ready(code: int, reason: str, name: str) -> None:
    talk = Talk(ready=False)
    check_failure(talk, code, reason, name)
    assert talk.dialect.resumption is None


@pytest.mark.parametrize(("code", "reason", "name", "resumable"), LATER)
def test_later(code: int, reason: str, name: str, resumable: bool) -> None:
    talk = Talk()
    talk.hear(HANDLE)
    check_failure(talk, code, reason, name)
    assert (talk.dialect.resumption is not None) is resumable


@pytest.mark.parametrize("code", [1000, 1011])
def test_an_announced_end(code: int) -> None:
    talk = Talk()
    talk.hear(HANDLE, AWAY)
    check_failure(talk, code, "Internal error encountered.", "provider_session_expired")
    assert talk.dialect.resumption is not None


def test_an_ordinary_end() -> None:
    talk = Talk()
    talk.hear(HANDLE)
    talk.dialect.receive_close(1000, "bye")
    assert frames(talk.dialect) == [Close(1000, "bye", "remote")]
    assert talk.dialect.failure is None
    assert talk.dialect.resumption is None


def test_our_own_end_is_no_failure() -> None:
    talk = Talk()
    talk.hear(HANDLE)
    talk.dialect.close(1000, "client_closed")
    talk.dialect.receive_close(1011, "Internal error")
    assert talk.dialect.resumption == "h"
    assert frames(talk.dialect) == [Close(1000, "client_closed", "local")]
    assert talk.dialect.failure is None
    talk.dialect.receive_close(1011, "again")
    assert frames(talk.dialect) == []


def test_a_lost_connection() -> None:
    talk = Talk()
    talk.hear(HANDLE)
    talk.dialect.receive_lost()
    assert frames(talk.dialect) == [Close(1006, "the connection was lost", "transport")]
    assert talk.dialect.resumption is not None
    assert talk.hear(READY) == []
