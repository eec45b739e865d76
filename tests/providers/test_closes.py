"""The table of closes, row by row: words first, then what came before, then the code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import Close, ErrorFrame, ResponseEnd, SessionExpired, SpekoError, State
from speko_anyio.protocol.close_codes import MAX_REASON
from speko_anyio.providers import codes
from speko_anyio.providers._closes import Moment, Service, Verdict, judge, judge_failure

from . import bridge_talk, google_talk, realtime_talk
from .google_talk import Talk as GoogleTalk
from .realtime_talk import created, done, error, speech

GOAWAY = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal "
    "once the server has ended the session"
)
SIXTY = "Your session hit the maximum duration of 60 minutes."
EVERY_CODE = (1000, 1001, 1007, 1008, 1011)

GOOGLE: list[tuple[Moment, int, str, str | None, bool]] = [
    # (moment, code, words, resulting code, whether another connection may continue)
    *[(Moment.IDLE, code, "The operation was aborted.", codes.EXPIRED, True) for code in EVERY_CODE],
    *[(Moment.ANSWERING, code, "The operation was aborted.", codes.EXPIRED, True) for code in EVERY_CODE],
    *[(Moment.RESUMING, code, "The operation was aborted.", codes.UNAVAILABLE, True) for code in EVERY_CODE],
    *[
        (Moment.ANSWERING, code, "The operation was cancelled.", codes.UNAVAILABLE, True)
        for code in EVERY_CODE
    ],
    *[(Moment.LEAVING, code, "The operation was canceled.", codes.EXPIRED, True) for code in EVERY_CODE],
    *[(Moment.LEAVING, code, GOAWAY[:MAX_REASON], codes.EXPIRED, True) for code in EVERY_CODE],
    (Moment.IDLE, 1008, GOAWAY[:40], codes.EXPIRED, True),
    (Moment.IDLE, 1008, "  THE   OPERATION\n was ABORTED ", codes.EXPIRED, True),
    (Moment.IDLE, 1007, "DEADLINE_EXCEEDED", codes.EXPIRED, True),
    (Moment.IDLE, 1008, "The service is currently unavailable.", codes.UNAVAILABLE, True),
    (Moment.SETUP, 1011, "The service is currently unavailable.", codes.UNAVAILABLE, True),
    (Moment.SETUP, 1011, "Internal error encountered.", codes.INTERNAL_ERROR, True),
    (Moment.RESUMING, 1011, "Internal error encountered.", codes.INTERNAL_ERROR, True),
    (Moment.RESUMING, 1008, "Internal error encountered.", codes.INTERNAL_ERROR, True),
    (Moment.RESUMING, 1011, "", codes.INTERNAL_ERROR, True),
    (Moment.RESUMING, 1001, "", codes.UNAVAILABLE, True),
    # Unknown words.
    (Moment.LEAVING, 1008, "Die Verbindung wurde abgebrochen", codes.EXPIRED, True),
    (Moment.LEAVING, 1000, "", codes.EXPIRED, True),
    # The end of the connection's time was announced: whatever code it comes with.
    *[
        (Moment.LEAVING, code, words, codes.EXPIRED, True)
        for code in (1002, 1003, 1007, 1008, 1009, 4000)
        for words in ("", "Irgendwas", "Connection closed due to inactivity")
    ],
    (Moment.LEAVING, 1008, "It violates our usage policies", codes.INVALID_REQUEST, False),
    (Moment.LEAVING, 4000, "API key revoked", codes.UNAUTHORIZED, False),
    (Moment.LEAVING, 1002, "Your prepayment credits are depleted.", codes.QUOTA_EXCEEDED, False),
    (Moment.IDLE, 1001, "Auf Wiedersehen", codes.EXPIRED, True),
    (Moment.ANSWERING, 1000, "", None, False),
    (Moment.ANSWERING, 1000, "Vorgang abgebrochen", codes.UNAVAILABLE, True),
    (Moment.IDLE, 1000, "", None, False),
    (Moment.IDLE, 1008, "", codes.INVALID_REQUEST, False),
    (Moment.IDLE, 4000, "", codes.UNNAMED, False),
    # Lasting faults.
    (Moment.LEAVING, 1008, "You exceeded your current quota", codes.QUOTA_EXCEEDED, False),
    (Moment.LEAVING, 1007, "Request contains an invalid argument.", codes.INVALID_REQUEST, False),
    (Moment.SETUP, 1007, "API key expired. Please renew the API key.", codes.UNAUTHORIZED, False),
    (Moment.IDLE, 1008, "API key expired. Please renew the API key.", codes.UNAUTHORIZED, False),
    (Moment.RESUMING, 1008, "The ephemeral token has expired", codes.UNAUTHORIZED, False),
    (Moment.RESUMING, 1011, "RESOURCE_EXHAUSTED", codes.QUOTA_EXCEEDED, False),
    (
        Moment.SETUP,
        1008,
        "Publisher Model `projects/my-project/locations/us-central1/publishers/google/models/gemini-live",
        codes.MODEL_NOT_FOUND,
        False,
    ),
]

MONEY = [
    "Your prepayment credits are depleted. Please go to AI Studio to manage your project",
    "Your team 0a1b has either used all available credits or reached its monthly spending limit.",
    "Your newly created team doesn't have any credits yet.",
    "You have exceeded your monthly spend limit",
    "This project has exceeded its monthly spending cap.",
    "Insufficient credits",
    "You have run out of credits",
    "Payment required",
]

OTHERS: list[tuple[Service, Moment, int, str, str | None, bool]] = [
    *[
        (Service.OPENAI, moment, 1001, SIXTY, codes.EXPIRED, True)
        for moment in (Moment.IDLE, Moment.ANSWERING)
    ],
    (Service.OPENAI, Moment.IDLE, 1000, SIXTY.upper(), codes.EXPIRED, True),
    (Service.OPENAI, Moment.LEAVING, 1001, "Ihre Sitzung ist zu Ende", codes.EXPIRED, True),
    (Service.OPENAI, Moment.IDLE, 1001, "", codes.UNAVAILABLE, True),
    (Service.OPENAI, Moment.ANSWERING, 1000, "", None, False),
    (Service.OPENAI, Moment.SETUP, 1000, "", codes.CONFIGURATION_REFUSED, False),
    (Service.OPENAI, Moment.SETUP, 3000, "invalid_request_error.invalid_api_key", codes.UNAUTHORIZED, False),
    (
        Service.OPENAI,
        Moment.SETUP,
        4000,
        "invalid_request_error.model_not_found",
        codes.MODEL_NOT_FOUND,
        False,
    ),
    (Service.OPENAI, Moment.IDLE, 1008, "insufficient_quota", codes.QUOTA_EXCEEDED, False),
    *[
        (service, moment, code, words, codes.QUOTA_EXCEEDED, False)
        for service in Service
        for moment in Moment
        for code in (1008, 1011)
        for words in MONEY
    ],
    (
        Service.OPENAI,
        Moment.IDLE,
        1007,
        "Invalid value: no field 'credits' in tool 'credit_limit'",
        codes.INVALID_REQUEST,
        False,
    ),
    (Service.OPENAI, Moment.SETUP, 1013, "rate_limit_exceeded", codes.RATE_LIMITED, True),
    (Service.XAI, Moment.IDLE, 1000, "Session exceeded its maximum duration", codes.EXPIRED, True),
    (Service.XAI, Moment.IDLE, 1011, "max_duration", codes.EXPIRED, True),
    (
        Service.XAI,
        Moment.IDLE,
        1000,
        "Conversation timed out after 900.0 seconds due to inactivity",
        codes.IDLE_TIMEOUT,
        False,
    ),
    (Service.XAI, Moment.ANSWERING, 1000, "", None, False),
    (Service.XAI, Moment.ANSWERING, 1000, "Opération annulée", codes.UNAVAILABLE, True),
    (Service.XAI, Moment.IDLE, 1011, "", codes.INTERNAL_ERROR, True),
    (Service.XAI, Moment.IDLE, 1001, "", codes.UNAVAILABLE, True),
    (Service.XAI, Moment.IDLE, 1012, "", codes.UNAVAILABLE, True),
    (Service.XAI, Moment.IDLE, 1000, "", None, False),
    (Service.XAI, Moment.SETUP, 1008, "Too many concurrent sessions", codes.RATE_LIMITED, True),
]

STALE = [
    (1007, "Request contains an invalid argument."),
    (1008, "Requested entity was not found."),
    (1007, "Invalid session handle"),
    (1008, "The session resumption handle has expired."),
    (1008, "Session not found"),
    (1011, "conversation c0ffee does not exist"),
    (1001, SIXTY),
    (1000, "max_duration"),
    (1011, "Conversation timed out after 900.0 seconds due to inactivity"),
    (1008, "Unbekannter Vorgang"),
    (1000, ""),
    (4004, ""),
]


@pytest.mark.parametrize(("moment", "code", "reason", "name", "retry"), GOOGLE)
def test_googles(moment: Moment, code: int, reason: str, name: str | None, retry: bool) -> None:
    assert judge(Service.GOOGLE, code, reason, moment) == Verdict(name, retry)


@pytest.mark.parametrize(("service", "moment", "code", "reason", "name", "retry"), OTHERS)
def test_the_others(
    service: Service, moment: Moment, code: int, reason: str, name: str | None, retry: bool
) -> None:
    assert judge(service, code, reason, moment) == Verdict(name, retry)


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize(("code", "reason"), STALE)
def test_a_handle_that_is_refused(service: Service, code: int, reason: str) -> None:
    verdict = judge(service, code, reason, Moment.RESUMING)
    assert verdict.stale
    assert not verdict.retry
    assert not judge(service, code, reason, Moment.SETUP).stale


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("moment", Moment)
def test_every_close_has_a_verdict(service: Service, moment: Moment) -> None:
    for code in (*range(1000, 1016), 3000, 4000, 4999):
        for reason in ("", "ничего", "?" * MAX_REASON):
            verdict = judge(service, code, reason, moment)
            assert verdict.code is None or verdict.code in codes.ALL
            assert not (verdict.retry and verdict.stale)
            assert not verdict.stale or moment is Moment.RESUMING


def test_what_an_error_event_means() -> None:
    assert judge_failure(codes.NOT_READY, Moment.SETUP) == Verdict(codes.NOT_READY, retry=True)
    assert judge_failure(codes.INTERNAL_ERROR, Moment.RESUMING).retry
    assert judge_failure(codes.CONFIGURATION_REFUSED, Moment.RESUMING).stale
    assert not judge_failure(codes.UNAUTHORIZED, Moment.RESUMING).stale
    assert judge_failure(codes.EXPIRED, Moment.SETUP).retry
    assert judge_failure(codes.EXPIRED, Moment.RESUMING).stale
    assert judge_failure(codes.CONFIGURATION_REFUSED, Moment.SETUP) == Verdict(codes.CONFIGURATION_REFUSED)
    assert judge_failure(codes.INTERNAL_ERROR, Moment.IDLE) == Verdict(codes.INTERNAL_ERROR)


# The dialects consult the table


def events(talk: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            event = talk.dialect.next_event()
        except SpekoError:
            return found
        found.append(event)


@pytest.mark.parametrize("make", [realtime_talk.openai, realtime_talk.xai])
def test_the_time_limit_without_an_error_event(make: Any) -> None:
    talk = make().make_ready()
    talk.dialect.receive_close(1001, SIXTY)
    told, close = events(talk)
    assert isinstance(told, ErrorFrame)
    assert told.code == codes.EXPIRED
    assert SIXTY[:-1] in told.message
    assert close == Close(1001, codes.EXPIRED, "remote")
    assert close.expired
    assert isinstance(talk.dialect.error, SessionExpired)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (SIXTY, codes.EXPIRED),
        ("Session exceeded its maximum duration", codes.EXPIRED),
        ("Conversation timed out after 900.0 seconds due to inactivity", codes.IDLE_TIMEOUT),
    ],
)
@pytest.mark.parametrize("kind", [None, "error", "invalid_request_error"])
@pytest.mark.parametrize("make", [realtime_talk.openai, realtime_talk.xai])
def test_an_end_that_is_announced_in_words_alone(
    make: Any, kind: str | None, message: str, reason: str
) -> None:
    talk = make().make_ready()
    assert talk.hear(error(None, message, type=kind)) == []
    talk.dialect.receive_close(1001, "")
    assert talk.frames() == [Close(1001, reason, "remote")]


def test_what_only_speaks_of_a_duration_announces_no_end() -> None:
    talk = realtime_talk.openai().make_ready()
    talk.hear(error("invalid_value", "The silence exceeds its maximum duration."))
    assert talk.dialect.state is State.OPEN


@pytest.mark.parametrize("make", [realtime_talk.openai, realtime_talk.xai])
@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("server_error", "The server had an error while processing your request", codes.UNAVAILABLE),
        ("internal_error", "", codes.UNAVAILABLE),
        (None, "The service is temporarily unavailable", codes.UNAVAILABLE),
        ("invalid_request_error", "timed out: no such parameter", codes.CONFIGURATION_REFUSED),
    ],
)
def test_an_error_that_answers_the_configuration(
    make: Any, kind: str | None, message: str, code: str
) -> None:
    talk = make()
    talk.hear({"type": "session.created"})
    [told] = talk.hear(error(None, message, type=kind))
    assert told.code == code
    assert judge_failure(code, talk.dialect.moment).retry is (code == codes.UNAVAILABLE)


def test_the_time_limit_in_words_that_nobody_knows() -> None:
    talk = realtime_talk.openai().make_ready()
    talk.wait(3540)
    talk.dialect.receive_close(1001, "La sesión alcanzó la duración máxima")
    assert events(talk)[-1].expired


def test_xai_in_the_middle_of_an_answer() -> None:
    talk = realtime_talk.xai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20))
    talk.dialect.receive_close(1000, "request cancelled")
    assert talk.dialect.verdict == Verdict(codes.UNAVAILABLE, retry=True)
    assert talk.frames()[-1] == Close(1000, codes.UNAVAILABLE, "remote")


def test_xai_when_the_answer_is_over() -> None:
    talk = realtime_talk.xai().make_ready()
    talk.hear(created("r1"), speech("r1", "a1", 20), done("r1"))
    talk.dialect.receive_close(1000, "bye")
    assert talk.frames()[-1] == Close(1000, "bye", "remote")


def test_vertex_in_the_middle_of_an_answer() -> None:
    talk = GoogleTalk()
    talk.hear({"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}}, google_talk.speech(b"\1\0"))
    talk.dialect.receive_close(1000, "The operation was cancelled.")
    assert talk.dialect.resumption == "h"
    assert talk.dialect.failure is not None
    assert talk.dialect.failure.code == codes.UNAVAILABLE


@pytest.mark.parametrize("make", [realtime_talk.openai, realtime_talk.xai])
def test_an_acceptance_that_comes_too_late_is_none(make: Any) -> None:
    talk = make()
    talk.hear({"type": "session.created"})
    talk.wait(10.1)
    assert talk.dialect.failure.code == codes.NOT_READY
    assert talk.hear({"type": "session.updated"}) == []
    assert talk.dialect.moment is Moment.SETUP


def test_an_acceptance_of_geminis_that_comes_too_late_is_none() -> None:
    talk = GoogleTalk(ready=False)
    talk.wait(10.1)
    assert talk.dialect.failure is not None
    assert talk.hear(google_talk.READY) == []


# So does the bridge

WORDS = st.sampled_from(
    [
        "",
        "The operation was aborted.",
        "The operation was cancelled.",
        "Internal error encountered.",
        "The service is currently unavailable.",
        "Deadline expired before operation could complete.",
        "Request contains an invalid argument.",
        "Requested entity was not found.",
        "You exceeded your current quota",
        "API key expired. Please renew the API key.",
        GOAWAY[:MAX_REASON],
        SIXTY,
        "Something that nobody knows",
    ]
)
CLOSES = st.tuples(st.sampled_from([1000, 1001, 1005, 1006, 1007, 1008, 1011, 1012, 1013, 4000]), WORDS)


@given(first=CLOSES, answering=st.booleans(), leaving=st.booleans(), then=st.lists(CLOSES, max_size=5))
def test_a_bridge_acts_on_every_verdict(
    first: tuple[int, str], answering: bool, leaving: bool, then: list[tuple[int, str]]
) -> None:
    talk = bridge_talk.google()
    handle = {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}}
    talk.hear(google_talk.heard("Hello"), google_talk.speech(b"\1\0"), handle)
    if not answering:
        talk.hear(google_talk.COMPLETE, handle)
    if leaving:
        talk.hear(google_talk.said("And"), {"goAway": {"timeLeft": "50s"}})
    talk.wait(40)
    if talk.bridge.provider is None or talk.provider.state is not State.OPEN:
        return  # it moved
    verdict = judge(Service.GOOGLE, *first, talk.provider.moment)
    frames = talk.provider_closes(*first)
    tries, resumption = 0, "h"
    for close in then:
        if not (verdict.retry or verdict.stale) or (tries > 2 and not verdict.stale):
            break
        if verdict.stale:
            assert [frame.code for frame in frames if isinstance(frame, ErrorFrame)][
                -1
            ] == "PROVIDER_CONVERSATION_LOST"
            resumption = ""
        else:
            assert not [frame for frame in frames if isinstance(frame, Close)]
        talk.wait(2)
        talk.connect()
        tries += 1
        assert talk.resumptions[-1] == (resumption or None)
        verdict = judge(Service.GOOGLE, *close, Moment.RESUMING if resumption else Moment.SETUP)
        frames = talk.provider_closes(*close)
    if not (verdict.retry or verdict.stale) or (tries > 2 and not verdict.stale):
        assert talk.is_done()
        assert isinstance(frames[-1], Close)
        assert frames[-1].reason == (verdict.code or "provider_closed")
        assert sum(isinstance(frame, ResponseEnd) for frame in frames) <= 1
    else:
        talk.wait(2)
        assert talk.wants_connection()
