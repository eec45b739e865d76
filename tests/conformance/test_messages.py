"""Every message of whole conversations, both ways, is one that the provider has published.

A dialect talks with the double of its provider, whatever the configuration and whatever is done. What the
dialect says is checked against the provider's types, and so is what the double says: an honest double is
what makes the first half worth anything.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import LocalProtocolError
from speko_anyio.providers.google import GoogleOptions
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.realtime import _events as realtime_events
from speko_anyio.providers.xai import XAIOptions
from speko_anyio.testing.providers import CallTools, GoogleSession, Pace, RealtimeDoubleSession, Say
from tests.providers import google_talk, realtime_talk
from tests.testing.providers.call import DIALECTS, DOUBLES, Call, config

from . import strategies
from .xai_events import check_xai_server

CHECKS: dict[str, tuple[Any, Any]] = {
    "openai": (realtime_talk.check_openai, realtime_talk.check_openai_server),
    "xai": (realtime_talk.check_xai, check_xai_server),
    "google": (google_talk.check, google_talk.check_server),
}

BENIGN = {
    "conversation_already_has_active_response",
    "input_audio_buffer_commit_empty",
    "response_cancel_not_active",
}
"""What a race may come to; OpenAI refuses anything else for a reason."""


def check(session: Any, provider: str) -> None:
    """AssertionError or ValidationError unless all that was said is as published."""
    outbound, inbound = CHECKS[provider]
    for message in session.received:
        outbound(message)
    for message in session.sent:
        inbound(message)


def do(talk: Call[Any], deed: strategies.Deed) -> None:
    name, argument = deed
    match name:
        case "speak" | "pause" | "run":
            getattr(talk, name)(argument)
        case "answer":
            for call_id in talk.dialect.open_calls:
                talk.dialect.send_tool_result(call_id, '{"celsius":7}' if len(call_id) % 2 else "seven")
        case _:
            getattr(talk.dialect, name)()
    talk.run(0)


@pytest.mark.parametrize("provider", sorted(DOUBLES))
@given(data=st.data())
def test_whatever_is_done(provider: str, data: st.DataObject) -> None:
    chosen = data.draw(strategies.configs(provider))
    options = data.draw(strategies.OPTIONS[provider])
    try:
        dialect = DIALECTS[provider](chosen, options=options)
    except LocalProtocolError:
        return  # a configuration that is refused is not sent
    double = DOUBLES[provider](data.draw(strategies.replies(provider)), pace=Pace(speed=5.0))
    talk: Call[Any] = Call(double, dialect)
    for deed in data.draw(strategies.deeds):
        do(talk, deed)
    talk.run(30)
    check(talk.session, provider)
    assert talk.session.closed is None
    if isinstance(talk.session, RealtimeDoubleSession):
        assert {error.get("code") for error in talk.session.errors} <= BENIGN | {None}
    if provider == "xai":
        assert all(
            "active response" in error["message"] or "too small" in error["message"]
            for error in talk.session.errors
        )


ON_A_LINE = {"output_audio_buffer.clear"}
"""What only a session that joins a phone call says: see ``tests/providers/test_openai_calls.py``."""

SPOKEN = {
    "openai": {str(kind.__struct_config__.tag) for kind in realtime_events.ClientEvent.__subclasses__()}
    - ON_A_LINE,
}
SPOKEN["xai"] = SPOKEN["openai"]
SPOKEN["google"] = {
    "setup",
    "audio",
    "audioStreamEnd",
    "activityStart",
    "activityEnd",
    "clientContent",
    "toolResponse",
}


def kinds(session: Any) -> set[str]:
    """What kinds of messages the client said."""
    if isinstance(session, GoogleSession):
        return {
            inner
            for message in session.received
            for name, value in message.items()
            for inner in (value if name == "realtimeInput" else [name])
        }
    return {message["type"] for message in session.received}


CONVERSATIONS: list[tuple[str, Any]] = [
    ("openai", OpenAIOptions()),
    ("openai", OpenAIOptions(turns="manual")),
    ("xai", XAIOptions()),
    ("xai", XAIOptions(turns="manual")),
    ("google", GoogleOptions(stop_generating=True)),
    ("google", GoogleOptions(turns="manual")),
]


def converse(provider: str, options: Any) -> Any:
    """A conversation in which everything happens that a client can do."""
    calls = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})]
    double = DOUBLES[provider]([CallTools(calls), Say("word " * 20, 5.0)], pace=Pace(speed=5.0))
    talk: Call[Any] = Call(double, DIALECTS[provider](config(provider), options=options))
    deeds: list[strategies.Deed] = [
        ("speak", 0.5), ("clear", 0), ("speak", 0.5), ("commit", 0), ("pause", 1.0), ("run", 3.0),
        ("answer", 0), ("run", 0.5), ("interrupt", 0), ("run", 4.0), ("speak", 0.5), ("end_turn", 0),
        ("run", 0.0), ("interrupt", 0), ("run", 5.0),
    ]  # fmt: skip
    for deed in deeds:
        do(talk, deed)
    return talk.session


@pytest.mark.parametrize("provider", sorted(DOUBLES))
def test_nothing_that_can_be_said_is_left_out(provider: str) -> None:
    said: set[str] = set()
    for name, options in CONVERSATIONS:
        if name == provider:
            session = converse(provider, options)
            check(session, provider)
            said |= kinds(session)
    assert said == SPOKEN[provider]


def test_a_session_that_goes_on_where_another_was() -> None:
    double = DOUBLES["google"]([Say("First.", 0.2), Say("Second.", 0.2)])
    first: Call[Any] = Call(double, DIALECTS["google"](config("google")))
    first.ask()
    handle = first.dialect.resumption
    second: Call[Any] = Call(double, DIALECTS["google"](config("google"), resumption_handle=handle))
    second.ask()
    assert second.session.resumed_from == handle is not None
    check(second.session, "google")
    options = XAIOptions(resumption=True)
    double = DOUBLES["xai"]([Say("First.", 0.2), Say("Second.", 0.2)])
    before: Call[Any] = Call(double, DIALECTS["xai"](config("xai"), options=options))
    conversation_id = before.dialect.provider_session.conversation_id
    after: Call[Any] = Call(
        double, DIALECTS["xai"](config("xai"), options=options), conversation_id=conversation_id
    )
    after.ask()
    assert conversation_id is not None
    assert after.session.request.query("conversation_id") == conversation_id
    check(after.session, "xai")
    assert after.said("assistant") == ["First."]
