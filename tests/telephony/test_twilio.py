"""Twilio's media streams, webhooks and answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest

from speko_anyio.protocol.errors import LocalProtocolError, RemoteProtocolError
from speko_anyio.telephony import (
    CallAudio,
    CallEnded,
    CallStarted,
    Digit,
    Marked,
    SignatureError,
    SignedRequest,
    TwilioStream,
    g711,
)

from . import lines

TOKEN = "0123456789abcdef0123456789abcdef"
URL = "https://voice.example.com/telephony/twilio"
FORM = {"CallSid": "CA1", "From": "+15550100001", "To": "+15550100002", "Digits": "1 2&3", "Empty": ""}


def test_a_call() -> None:
    stream = TwilioStream()
    events = [event for message in lines.twilio() for event in stream.receive_message(json.dumps(message))]
    assert events == [
        CallStarted(
            carrier="twilio",
            call_id="CA00000000000000000000000000000001",
            stream_id="MZ00000000000000000000000000000001",
            parameters={"from": "+15550100001", "to": "+15550100002", "FirstName": "Jane"},
            caller="+15550100001",
            called="+15550100002",
            sample_rate=8000,
        ),
        CallAudio(g711.ulaw_to_pcm(lines.ULAW)),
        Digit("1"),
        Marked("my label"),
        CallEnded(),
    ]
    assert stream.started == events[0]
    assert stream.ended
    assert (stream.odd_fields, stream.unknown, stream.out_of_order) == (0, 0, 0)


def test_what_is_sent() -> None:
    stream = lines.answered("twilio")
    sid = "MZ00000000000000000000000000000001"
    pcm = g711.ulaw_to_pcm(lines.ULAW)
    (media,) = stream.audio(pcm)
    assert json.loads(media) == {
        "event": "media",
        "streamSid": sid,
        "media": {"payload": base64.b64encode(lines.ULAW.replace(b"\x7f", b"\xff")).decode()},
    }
    mark = json.loads(stream.mark("a 1"))
    assert mark == {"event": "mark", "streamSid": sid, "mark": {"name": "a 1"}}
    assert json.loads(stream.clear()) == {"event": "clear", "streamSid": sid}
    assert all(isinstance(message, str) for message in (media, stream.mark(""), stream.clear()))
    assert stream.unsent == 0
    assert stream.flush() == []


def test_without_numbers_the_call_has_none() -> None:
    stream = TwilioStream()
    (event,) = stream.receive_message(json.dumps(lines.twilio(customParameters={})[1]))
    assert isinstance(event, CallStarted)
    assert (event.caller, event.called, event.parameters) == ("", "", {})


def test_the_stream_may_be_named_beside_the_start() -> None:
    stream = TwilioStream()
    message = lines.twilio(streamSid=None)[1]
    (event,) = stream.receive_message(json.dumps(message))
    assert isinstance(event, CallStarted)
    assert event.stream_id == "MZ00000000000000000000000000000001"


def test_a_start_without_a_stream_is_refused() -> None:
    message = lines.twilio(streamSid=None)[1]
    del message["streamSid"]
    with pytest.raises(RemoteProtocolError, match="without a streamSid"):
        TwilioStream().receive_message(json.dumps(message))


def test_another_encoding_is_refused() -> None:
    message = lines.changed(lines.twilio()[1], "start.mediaFormat.encoding", "audio/opus\n")
    with pytest.raises(RemoteProtocolError, match="announced audio/opus audio instead of audio/x-mulaw"):
        TwilioStream().receive_message(message)


# Signatures


def sign(signed: str, token: str = TOKEN) -> str:
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def webhook(signature: str, **changes: Any) -> SignedRequest:
    fields: dict[str, Any] = {
        "method": "POST",
        "url": URL,
        "headers": {"x-twilio-signature": signature},
        "body": urlencode(FORM).encode(),
    }
    return SignedRequest(**{**fields, **changes})


def test_the_example_of_twilios_documentation() -> None:
    """https://www.twilio.com/docs/usage/webhooks/webhooks-security, "Example Request"."""
    form = {
        "Digits": "1234",
        "To": "+18005551212",
        "From": "+14158675310",
        "Caller": "+14158675310",
        "CallSid": "CA1234567890ABCDE",
    }
    request = SignedRequest(
        method="POST",
        url="https://example.com/myapp.php?foo=1&bar=2",
        headers={"X-Twilio-Signature": "L/OH5YylLD5NRKLltdqwSvS0BnU="},
        body=urlencode(form).encode(),
    )
    TwilioStream.verify(request, "12345")


SIGNED = URL + "CallSidCA1Digits1 2&3EmptyFrom+15550100001To+15550100002"


def test_a_webhook_is_signed_with_its_sorted_fields() -> None:
    TwilioStream.verify(webhook(sign(SIGNED)), TOKEN)


def test_values_of_a_repeated_field_are_sorted_and_count_once() -> None:
    body = b"b=2&" + b"&".join(b"a=%d" % number for number in (7, 3, 9, 1, 7, 8, 2, 6, 4, 5, 7))
    signed = "".join(f"a{number}" for number in range(1, 10)) + "b2"
    TwilioStream.verify(webhook(sign(URL + signed), body=body), TOKEN)


@pytest.mark.parametrize("port", ["", ":443", ":8443"])
def test_the_url_may_have_been_signed_without_its_port_or_with_the_usual_one(port: str) -> None:
    url = URL.replace(".com", f".com{port}")
    for signed in {URL, url}:
        TwilioStream.verify(webhook(sign(signed), url=url, body=b""), TOKEN)
    signed = URL.replace(".com", ".com:443")
    TwilioStream.verify(webhook(sign(signed), url=URL, body=b""), TOKEN)


@pytest.mark.parametrize(
    "signed",
    [
        "wss://voice.example.com/telephony/twilio",
        "wss://voice.example.com/telephony/twilio/",
        "https://voice.example.com/telephony/twilio",
        "wss://voice.example.com:443/telephony/twilio",
    ],
)
def test_a_websockets_handshake(signed: str) -> None:
    for url in ("wss://voice.example.com/telephony/twilio", "wss://voice.example.com/telephony/twilio/"):
        request = webhook(sign(signed), method="GET", url=url, body=b"")
        if url.endswith("/") and signed.startswith("https"):
            signed += "/"
            request = webhook(sign(signed), method="GET", url=url, body=b"")
        TwilioStream.verify(request, TOKEN)


def test_a_json_body_is_signed_by_its_hash_in_the_url() -> None:
    body = b'{"CallSid":"CA1"}'
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    TwilioStream.verify(webhook(sign(url), url=url, body=body), TOKEN)
    with pytest.raises(SignatureError):
        TwilioStream.verify(webhook(sign(url), url=url, body=body + b" "), TOKEN)
    with pytest.raises(SignatureError):
        TwilioStream.verify(webhook(sign(URL), url=url, body=body), TOKEN)


@pytest.mark.parametrize(
    "request_",
    [
        webhook(sign(SIGNED, "another")),
        webhook(sign(SIGNED), url=URL + "/x"),
        webhook(sign(SIGNED), url=URL + "/"),
        webhook(sign(SIGNED), url=URL.replace("https", "http")),
        webhook(sign(SIGNED), url=URL + "?a=b"),
        webhook(sign(SIGNED), body=urlencode({**FORM, "To": "+15550100003"}).encode()),
        webhook(sign(SIGNED), body=b""),
        webhook(sign(SIGNED).rstrip("=")),
        webhook("é\udcff"),
    ],
)
def test_a_forgery_is_refused_without_a_secret_in_the_error(request_: SignedRequest) -> None:
    with pytest.raises(SignatureError, match="not that of Twilio for this URL") as caught:
        TwilioStream.verify(request_, TOKEN)
    for secret in (TOKEN, sign(SIGNED), "+1555"):
        assert secret not in str(caught.value)
        assert secret not in repr(request_)


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": ""}])
def test_a_request_without_a_signature_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureError, match="has no X-Twilio-Signature, which Twilio sends"):
        TwilioStream.verify(webhook("", headers=headers), TOKEN)


@pytest.mark.parametrize("body", [b"\xff", b"a", b"&".join([b"a=1"] * 1001)])
def test_a_body_that_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError, match="its body is not a form"):
        TwilioStream.verify(webhook(sign(SIGNED), body=body), TOKEN)


# The answer


def test_the_answer_connects_the_call_in_both_directions() -> None:
    answer = TwilioStream.connect_answer("wss://voice.example.com/media", {"token": "a&b", "näme": "<\">'"})
    assert answer.content_type == "application/xml"
    root = ET.fromstring(answer.body)
    assert [element.tag for element in root.iter()] == [
        *("Response", "Connect", "Stream", "Parameter", "Parameter")
    ]
    (stream,) = root.iter("Stream")
    assert stream.attrib == {"url": "wss://voice.example.com/media"}
    assert [parameter.attrib for parameter in stream] == [
        {"name": "token", "value": "a&b"},
        {"name": "näme", "value": "<\">'"},
    ]
    assert TwilioStream.connect_answer("wss://a.example").body.endswith(
        '<Stream url="wss://a.example"></Stream></Connect></Response>'
    )


@pytest.mark.parametrize(
    ("url", "parameters", "problem"),
    [
        ("https://a.example", {}, "must begin with wss://"),
        ("wss://a.example/x?token=1", {}, "drops the query"),
        ("wss://a.example/\n", {}, "the URL holds a control character"),
        ("wss://a.example", {"a\0": ""}, "the name of a parameter holds a control character"),
        ("wss://a.example", {"a": "\ud800"}, "the value of the parameter 'a' holds a control character"),
        ("wss://a.example", {"name": "x" * 497}, "the parameter 'name' is too long"),
    ],
)
def test_what_twilio_would_refuse_is_refused_before(
    url: str, parameters: dict[str, str], problem: str
) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        TwilioStream.connect_answer(url, parameters)
