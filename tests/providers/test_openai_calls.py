"""Phone calls that reach OpenAI over SIP, without I/O: webhooks, requests, and the session that joins."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._exceptions import InvalidWebhookSignatureError
from openai.types.realtime.realtime_session_create_request import RealtimeSessionCreateRequest
from openai.types.webhooks import RealtimeCallIncomingWebhookEvent
from pydantic import TypeAdapter

from speko_anyio.protocol import (
    Audio,
    Close,
    Digit,
    ErrorFrame,
    Interruption,
    LocalProtocolError,
    Ready,
    ResponseEnd,
    ToolCall,
    Transcript,
    Unknown,
    Update,
)
from speko_anyio.protocol.errors import SignatureError
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.openai import OpenAIOptions, SemanticVad, ServerVad
from speko_anyio.providers.openai_calls import (
    CallRequest,
    IncomingCall,
    OpenAICallDialect,
    SipHeader,
    accept_call,
    call_endpoint,
    hang_up_call,
    read_webhook,
    refer_call,
    reject_call,
)
from speko_anyio.testing.providers import (
    CallTools,
    Joined,
    OpenAIDouble,
    OpenAISession,
    Pace,
    PhoneCall,
    Reply,
    Request,
    Say,
    Silent,
    tone,
)

from .realtime_talk import WEATHER, check_openai, check_openai_server, extras
from .realtime_talk import openai as openai_session

KEY = "sk-test-0123456789"
MODEL = "gpt-realtime-2.1"
NOW = 1_790_000_000.0
SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes....").decode()
CONFIG = SessionConfig(
    provider="openai", model=MODEL, voice="marin", system_prompt="Be brief.", tools=(WEATHER,)
)


def signed(body: bytes, *, secret: str = SECRET, at: float = NOW, webhook_id: str = "wh_1") -> dict[str, str]:
    """The headers of a webhook, as the Standard Webhooks specification signs it."""
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    content = f"{webhook_id}.{int(at)}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": f"v1,{signature}",
    }


def event(**changes: Any) -> bytes:
    data = {
        "call_id": "rtc_u1",
        "sip_headers": [
            {"name": "From", "value": '"Ann" <sip:+15550100@sip.example.com>;tag=9'},
            {"name": "To", "value": "<tel:+15550199>"},
            {"name": "X-Queue", "value": "sales"},
        ],
        "sip_media_security": "srtp",
    }
    whole = {
        "object": "event",
        "id": "evt_1",
        "type": "realtime.call.incoming",
        "created_at": int(NOW),
        "data": data,
    }
    return json.dumps({**whole, **changes}).encode()


# The webhook


def test_a_webhook_announces_a_call() -> None:
    body = event()
    TypeAdapter(RealtimeCallIncomingWebhookEvent).validate_json(body)
    call = read_webhook(body, signed(body), SECRET, now=NOW)
    assert call == IncomingCall(
        call_id="rtc_u1",
        webhook_id="wh_1",
        created_at=int(NOW),
        sip_headers=(
            SipHeader("From", '"Ann" <sip:+15550100@sip.example.com>;tag=9'),
            SipHeader("To", "<tel:+15550199>"),
            SipHeader("X-Queue", "sales"),
        ),
        media_security="srtp",
    )
    assert call is not None
    assert (call.caller, call.called) == ("+15550100", "+15550199")
    assert call.header("x-QUEUE") == "sales"
    assert call.header("none") == ""
    assert "5550" not in repr(call)


@pytest.mark.parametrize(
    ("address", "user"),
    [
        ("sip:bob@example.com", "bob"),
        ("<SIPS:+15550100;phone-context=x@h>", "+15550100"),
        ("sip:example.com", ""),
        ("", ""),
        ("<sip:" + "a" * 100_000, ""),
    ],
)
def test_the_user_of_an_address(address: str, user: str) -> None:
    assert IncomingCall(call_id="c", sip_headers=(SipHeader("from", address),)).caller == user


def test_openai_and_we_agree_on_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    theirs = openai.OpenAI(api_key="x", webhook_secret=SECRET)
    body = event()
    theirs.webhooks.unwrap(body, signed(body))
    with pytest.raises(InvalidWebhookSignatureError):
        theirs.webhooks.unwrap(body + b" ", signed(body))


def test_names_of_headers_have_any_case_and_a_secret_any_form() -> None:
    body = event()
    headers = {name.title(): value for name, value in signed(body, secret="plain").items()}
    assert read_webhook(body, headers, "plain", now=NOW) is not None


def test_a_secret_that_is_rotated_out_signs_too() -> None:
    body = event()
    headers = signed(body)
    headers["webhook-signature"] = f"v1,AAAA v1a,x {headers['webhook-signature']}"
    assert read_webhook(body, headers, SECRET, now=NOW) is not None


@pytest.mark.parametrize("change", ["body", "id", "time", "secret", "version", "none"])
def test_what_openai_did_not_sign_is_refused(change: str) -> None:
    body = event()
    headers = signed(body)
    secret = SECRET
    match change:
        case "body":
            body += b" "
        case "id":
            headers["webhook-id"] = "wh_2"
        case "time":
            headers["webhook-timestamp"] = str(int(NOW) + 1)
        case "secret":
            secret = "whsec_AAAA"
        case "version":
            headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
        case "none":
            headers["webhook-signature"] = "v1,"
    with pytest.raises(SignatureError, match="signature does not match; check that the secret"):
        read_webhook(body, headers, secret, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_request_without_a_signature_is_refused(name: str) -> None:
    body = event()
    headers = signed(body)
    del headers[name]
    with pytest.raises(SignatureError, match="which OpenAI sends"):
        read_webhook(body, headers, SECRET, now=NOW)


@pytest.mark.parametrize("late", [301.0, -301.0])
def test_an_old_webhook_is_refused(late: float) -> None:
    body = event()
    with pytest.raises(SignatureError, match="and 300 s are allowed; check this machine's clock"):
        read_webhook(body, signed(body), SECRET, now=NOW + late)
    assert read_webhook(body, signed(body), SECRET, now=NOW + late * 0.99) is not None


@pytest.mark.parametrize("stamp", ["", "1e9", "-5", "nan", "inf", "9" * 16, "١٧٩", " 1790000000"])
def test_a_time_is_a_number_of_seconds(stamp: str) -> None:
    body = event()
    with pytest.raises(SignatureError):
        read_webhook(body, {**signed(body), "webhook-timestamp": stamp}, SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["whsec_not base64", "whsec_é", "whsec_", ""])
def test_an_unusable_secret_is_ours_to_mend(secret: str) -> None:
    body = event()
    with pytest.raises(LocalProtocolError, match="secret"):
        read_webhook(body, signed(body), secret, now=NOW)


def test_other_events_are_none() -> None:
    body = event(type="live.transport.incoming", data={"session_id": "s"})
    assert read_webhook(body, signed(body), SECRET, now=NOW) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"\xff", event(data={}), event(data=None), event(data={"call_id": 5}), b"[" * 5000],
)
def test_an_unknown_form_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError, match="unknown form"):
        read_webhook(body, signed(body), SECRET, now=NOW)


@given(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature"]), st.text(max_size=40)
    ),
)
def test_nothing_but_a_signature_passes(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(SignatureError):
        read_webhook(body, headers, SECRET, now=NOW)


# The requests


def endpoint(action: str | None = "accept", call_id: str = "rtc_u1", **options: str) -> Any:
    return call_endpoint(KEY, call_id, action, **options)


def test_a_call_is_accepted_with_a_whole_configuration() -> None:
    options = OpenAIOptions(
        turn_detection=SemanticVad(), provider_extra={"audio": {"output": {"speed": 1.1}}}
    )
    request = accept_call(endpoint(), CONFIG, options)
    assert request.url == "https://api.openai.com/v1/realtime/calls/rtc_u1/accept"
    assert request.headers == (("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json"))
    body = json.loads(request.body)
    model = TypeAdapter(RealtimeSessionCreateRequest).validate_python(body)
    assert list(extras(model)) == []
    assert body["model"] == MODEL
    assert body["instructions"] == "Be brief."
    assert body["audio"]["output"] == {"voice": "marin", "speed": 1.1}
    assert "format" not in body["audio"]["input"]  # that of the phone line
    assert body["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]
    assert request.notes == ()
    assert KEY not in repr(request)


def test_parameters_that_a_call_can_not_honour_are_told() -> None:
    config = msgspec.structs.replace(
        CONFIG, temperature=0.5, input_sample_rate=16000, output_sample_rate=24000
    )
    notes = accept_call(endpoint(), config, OpenAIOptions()).notes
    assert len(notes) == 3
    assert "the rate of the phone line: 16000 is left out" in notes[1]


@pytest.mark.parametrize(
    ("config", "options", "match"),
    [
        (msgspec.structs.replace(CONFIG, model="gpt-live-1"), OpenAIOptions(), "another protocol"),
        (msgspec.structs.replace(CONFIG, system_prompt="\ud800"), OpenAIOptions(), "surrogate"),
        (CONFIG, OpenAIOptions(provider_extra={"x": object()}), "can't be used"),
        (
            msgspec.structs.replace(
                CONFIG, tools=(ToolSpec(name="f", description="", parameters={"x": object()}),)
            ),
            OpenAIOptions(),
            "can't be written as JSON",
        ),
    ],
)
def test_an_unusable_configuration_is_refused(
    config: SessionConfig, options: OpenAIOptions, match: str
) -> None:
    with pytest.raises(LocalProtocolError, match=match):
        accept_call(endpoint(), config, options)


def test_the_other_requests() -> None:
    assert reject_call(endpoint("reject")).body == b'{"status_code":603}'
    assert reject_call(endpoint("reject"), 486).body == b'{"status_code":486}'
    assert refer_call(endpoint("refer"), "tel:+15550100").body == b'{"target_uri":"tel:+15550100"}'
    request = hang_up_call(endpoint("hangup", base_url="http://localhost:8000/v2", path="/rt"))
    assert request == CallRequest(
        url="http://localhost:8000/v2/rt/calls/rtc_u1/hangup",
        headers=(("Authorization", f"Bearer {KEY}"),),
        secrets=(KEY,),
    )


@pytest.mark.parametrize("status", [200, 299, 700, "486", None, 486.0])
def test_a_call_is_rejected_with_a_sip_status(status: Any) -> None:
    with pytest.raises(LocalProtocolError, match="SIP status"):
        reject_call(endpoint("reject"), status)


@pytest.mark.parametrize("uri", ["", "+15550100", "http://x", "tel:", "tel:1 2", "sip:a@b\r\nX: y"])
def test_a_call_is_transferred_to_a_phone(uri: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"tel: or sip: URI"):
        refer_call(endpoint("refer"), uri)


@pytest.mark.parametrize("call_id", ["", ".", "..", "x" * 513, "\ud800"])
@pytest.mark.parametrize("action", [None, "accept"])
def test_a_call_has_an_id(call_id: str, action: str | None) -> None:
    with pytest.raises(LocalProtocolError):
        endpoint(action, call_id)


def test_an_id_stays_in_its_place() -> None:
    assert endpoint("accept", "a/../b?c#d").url.endswith("/calls/a%2F..%2Fb%3Fc%23d/accept")
    assert endpoint(None, "a&b=c").url == "wss://api.openai.com/v1/realtime?call_id=a%26b%3Dc"


# The session


class Talk:
    """An accepted call, and a session that has joined it."""

    def __init__(
        self,
        *replies: Reply,
        config: SessionConfig = CONFIG,
        options: OpenAIOptions = OpenAIOptions(),  # noqa: B008  # frozen
        tools: bool = True,
        **double: Any,
    ) -> None:
        self.double = OpenAIDouble(replies, api_key=KEY, **double)
        self.call: PhoneCall = self.double.ring()
        accepting = accept_call(endpoint("accept", self.call.call_id), config, options)
        asked = Request("/v1" + accepting.url.partition("/v1")[2], accepting.headers)
        assert self.double.answer_post(asked, accepting.body).status_code == 200
        self.dialect = OpenAICallDialect((WEATHER,) if tools else (), model=MODEL, options=options)
        session = self.double.open(Request.to(endpoint(None, self.call.call_id)))
        self.joined: Joined[OpenAISession] = Joined(self.dialect, session)

    @property
    def frames(self) -> list[Any]:
        return [emitted.frame for emitted in self.joined.emitted]

    @property
    def sent(self) -> list[str]:
        """The types of what the client sent, after the configuration."""
        return [message["type"] for message in self.joined.session.received[1:]]

    def run(self, seconds: float = 5.0) -> list[Any]:
        frames = self.joined.run(seconds)
        self.dialect.playback.clock(self.joined.now)  # as before any verb
        for message in self.joined.session.sent:
            check_openai_server(message)
        for message in self.joined.session.received:
            check_openai(message)
        return frames


def kinds(frames: list[Any]) -> Iterator[type]:
    return (type(frame) for frame in frames)


def test_a_session_joins_without_another_configuration() -> None:
    talk = Talk()
    assert talk.frames == [Ready(24_000, 24_000)]
    (update,) = talk.joined.session.received
    assert update["session"].keys() == {"type", "tools"}
    assert talk.dialect.capabilities.input_rates == ()
    assert talk.dialect.capabilities.text


def test_a_session_without_tools_keeps_those_of_the_call() -> None:
    talk = Talk(tools=False)
    assert talk.joined.session.received[0]["session"] == {"type": "realtime"}
    assert [tool["name"] for tool in talk.joined.session.config["tools"]] == ["get_weather"]


def test_a_turn_of_the_caller_is_answered_on_the_line() -> None:
    talk = Talk(Say("It is sunny.", 1.0), user_says=["How is the weather?"])
    talk.call.speak(tone(0.4, 24_000) + bytes(48_000))
    frames = talk.run()
    assert Transcript("user", "How is the weather?", True) in frames
    assert Transcript("assistant", "It is sunny.", True) in frames
    assert ResponseEnd("done") in frames
    assert Audio not in kinds(frames)
    assert talk.sent == []


def test_audio_is_refused_and_the_session_goes_on() -> None:
    talk = Talk()
    with pytest.raises(
        LocalProtocolError, match=r"between the phone line and the provider.*say or send_text"
    ):
        talk.dialect.send_audio(bytes(480))
    talk.dialect.say("Hello!")
    assert Transcript("assistant", "Hello!", True) in talk.run()


def test_audio_that_comes_anyway_is_dropped() -> None:
    talk = Talk()
    delta = {
        "type": "response.output_audio.delta",
        "response_id": "r",
        "item_id": "i",
        "content_index": 0,
        "delta": "AAAA",
    }
    talk.joined.session.send(delta)
    assert Audio not in kinds(talk.joined.run(0.1))


def test_keys_are_digits() -> None:
    talk = Talk()
    for key in "0*#d":
        talk.call.press(key)
    talk.call.press("x")
    *digits, odd = talk.run(0.1)
    assert digits == [Digit("0"), Digit("*"), Digit("#"), Digit("D")]
    assert isinstance(odd, Unknown)
    assert repr(digits[0]) == "Digit(...)"


def test_a_tool_is_called_and_answered() -> None:
    talk = Talk(CallTools([("get_weather", {"city": "Oslo"})]), Say("Sunny."))
    talk.dialect.send_text("How is Oslo?")
    (call,) = (frame for frame in talk.run() if isinstance(frame, ToolCall))
    talk.dialect.send_tool_result(call.call_id, "sunny")
    assert Transcript("assistant", "Sunny.", True) in talk.run()
    assert [*talk.joined.session.results.values()] == ["sunny"]


SLOW = Pace(speed=1.0)


@pytest.mark.parametrize("pace", [SLOW, Pace(speed=20.0)], ids=["while it is made", "while it is played"])
def test_the_caller_interrupts(pace: Pace) -> None:
    talk = Talk(Say("A long story, told slowly.", 10.0), Silent(), pace=pace)
    talk.dialect.respond()
    talk.run(2.0)
    talk.call.speak(tone(0.2, 24_000))
    frames = talk.run(0.5)
    assert frames.count(Interruption("user")) == 1
    assert "response.cancel" not in talk.sent  # OpenAI stops by itself, and truncates
    assert "output_audio_buffer.clear" not in talk.sent
    talk.call.speak(bytes(48_000) + tone(0.2, 24_000))
    assert Interruption("user") not in talk.run(0.5)


def test_speech_after_the_answer_was_played_interrupts_nothing() -> None:
    talk = Talk(Say("Short.", 1.0), Silent())
    talk.dialect.respond()
    talk.run(3.0)
    talk.call.speak(tone(0.2, 24_000))
    assert Interruption("user") not in talk.run(0.5)


@pytest.mark.parametrize("pace", [SLOW, Pace(speed=20.0)], ids=["while it is made", "while it is played"])
def test_the_program_interrupts(pace: Pace) -> None:
    talk = Talk(Say("A long story, told slowly.", 10.0), pace=pace)
    talk.dialect.respond()
    talk.run(2.0)
    talk.dialect.interrupt()
    assert talk.run(0.5).count(Interruption("assistant")) == 1
    cancelled = ["response.cancel"] if pace is SLOW else []
    assert talk.sent[1:] == [*cancelled, "conversation.item.truncate", "output_audio_buffer.clear"]
    ((_, heard),) = talk.joined.session.truncations
    assert 1900 <= heard <= 2000
    assert talk.joined.session.sent[-1]["type"] in ("output_audio_buffer.cleared", "rate_limits.updated")
    talk.dialect.interrupt()
    assert talk.run(0.5) == []


def test_a_text_of_the_user_cuts_in() -> None:
    talk = Talk(Say("A long story.", 10.0), Say("Yes?"))
    talk.dialect.respond()
    talk.run(2.0)
    talk.dialect.send_text("Stop!")
    frames = talk.run()
    assert Interruption("user") in frames
    assert Transcript("assistant", "Yes?", True) in frames
    assert talk.joined.session.errors == []


def test_a_line_that_is_cleared_is_an_interruption() -> None:
    talk = Talk(Say("A long story.", 10.0))
    talk.dialect.respond()
    talk.run(2.0)
    talk.joined.session.send(
        {"type": "output_audio_buffer.cleared", "event_id": "e", "response_id": "resp_1"}
    )
    assert Interruption("user") in talk.run(0.5)


def test_no_silence_is_appended_for_a_commit() -> None:
    talk = Talk()
    talk.dialect.commit()
    talk.run(3.0)
    assert talk.sent == []


def test_a_commit_ends_the_speech_that_is_heard() -> None:
    talk = Talk(Say("Yes."))
    talk.call.speak(tone(0.4, 24_000))
    talk.run(0.1)
    talk.dialect.commit()
    assert Transcript("assistant", "Yes.", True) in talk.run()
    assert talk.sent[0] == "input_audio_buffer.commit"


def test_turns_are_those_that_the_call_was_accepted_with() -> None:
    manual = OpenAIOptions(turns="manual")
    talk = Talk(Say("Yes."), options=manual)
    joined = OpenAICallDialect((), model=MODEL)  # one can join without knowing
    session = talk.double.open(Request.to(endpoint(None, talk.call.call_id)))
    conversation = Joined(joined, session)
    talk.call.speak(tone(0.4, 24_000))
    joined.commit()
    assert Transcript("assistant", "Yes.", True) in conversation.run(5.0)


@pytest.mark.parametrize(
    ("audio", "silence"),
    [
        (None, 800),
        ({"input": {}}, 800),
        (
            {
                "input": {
                    "turn_detection": {
                        "type": "server_vad",
                        "silence_duration_ms": 200,
                        "idle_timeout_ms": None,
                    }
                }
            },
            500,
        ),
        ({"input": {"turn_detection": {"type": "a new one"}}}, 800),
        ({"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": "long"}}}, 800),
    ],
)
def test_odd_reports_of_turns_count_as_our_options(audio: Any, silence: int) -> None:
    dialect = OpenAICallDialect((), model=MODEL, options=OpenAIOptions(turn_detection=ServerVad()))
    dialect.receive_message(json.dumps({"type": "session.updated", "session": {"audio": audio}}))
    assert dialect.next_event() == Ready(24_000, 24_000)
    assert dialect._user.rules.silence_ms == silence
    assert dialect._user.rules.auto


def test_instructions_of_one_answer_are_added_to_those_of_the_call() -> None:
    talk = Talk(Say("Hi."))
    talk.dialect.respond("Greet.")
    talk.run()
    assert talk.joined.session.requests[0]["instructions"] == "Be brief.\n\nGreet."


def test_an_update_leaves_the_format_of_the_line() -> None:
    talk = Talk()
    talk.dialect.update(Update(turns="manual", system_prompt="Be long."))
    talk.run()
    assert talk.joined.session.errors == []
    assert talk.joined.session.config["audio"]["input"]["turn_detection"] is None
    assert talk.joined.session.config["audio"]["output"]["format"] == {"type": "audio/pcmu"}


def test_the_end_of_the_call_ends_the_session() -> None:
    talk = Talk()
    talk.call.hang_up()
    assert talk.run(0.1) == [Close(1000, "", "remote")]


def test_a_refused_configuration_ends_the_session() -> None:
    talk = Talk()
    dialect = OpenAICallDialect((), model=MODEL)
    error = {
        "type": "error",
        "error": {"type": "invalid_request_error", "code": "unknown_parameter", "message": "No."},
    }
    dialect.receive_message(json.dumps(error))
    assert isinstance(dialect.next_event(), ErrorFrame)
    assert talk.call.state == "answered"


def test_digits_come_in_any_session() -> None:
    talk = openai_session().make_ready()
    assert talk.hear({"type": "input_audio_buffer.dtmf_event_received", "event": "5", "received_at": 1}) == [
        Digit("5")
    ]


def test_an_address_of_a_megabyte_is_read_no_further_than_its_beginning() -> None:
    filled = "sip:" * 250_000
    for address, caller in ((f"<sip:ann@x>{filled}", "ann"), (f"{filled}<sip:ann@x>", "")):
        call = IncomingCall(call_id="rtc_1", sip_headers=(SipHeader("From", address),))
        began = time.process_time()
        assert call.caller == caller
        assert time.process_time() - began < 0.1
