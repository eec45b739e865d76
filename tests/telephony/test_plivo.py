"""Plivo's audio streams, webhooks and answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
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
    PlivoStream,
    SignatureError,
    SignedRequest,
    g711,
)

from . import lines

ID = "00000000-0000-0000-0000-000000000001"
PCM = struct.pack("<320h", *range(-16000, 16000, 100))


def test_a_call() -> None:
    stream = PlivoStream()
    events = [event for message in lines.plivo() for event in stream.receive_message(json.dumps(message))]
    assert events == [
        CallStarted(
            carrier="plivo",
            call_id="00000000-0000-0000-0000-000000000002",
            stream_id=ID,
            parameters={"from": "15550100001", "to": "15550100002", "userId": "12345"},
            caller="15550100001",
            called="15550100002",
            sample_rate=8000,
        ),
        CallAudio(g711.ulaw_to_pcm(lines.ULAW)),
        Digit("1"),
        Marked("my label"),
        CallEnded(),
    ]
    assert (stream.odd_fields, stream.unknown, stream.out_of_order) == (0, 0, 0)


def test_what_is_sent() -> None:
    stream = lines.answered("plivo")
    (media,) = stream.audio(g711.ulaw_to_pcm(lines.ULAW))
    assert json.loads(media) == {
        "event": "playAudio",
        "streamId": ID,
        "media": {
            "contentType": "audio/x-mulaw",
            "sampleRate": 8000,
            "payload": base64.b64encode(lines.ULAW.replace(b"\x7f", b"\xff")).decode(),
        },
    }
    assert json.loads(stream.mark("a 1")) == {"event": "checkpoint", "streamId": ID, "name": "a 1"}
    assert json.loads(stream.clear()) == {"event": "clearAudio", "streamId": ID}


@pytest.mark.parametrize("rate", [8000, 16000])
def test_l16_goes_both_ways_as_it_is(rate: int) -> None:
    stream = PlivoStream()
    media_format = {"encoding": "audio/x-l16;rate=1", "sampleRate": str(rate)}
    stream.receive_message(json.dumps(lines.plivo(mediaFormat=media_format)[0]))
    assert stream.sample_rate == rate
    message = lines.changed(lines.plivo()[1], "media.payload", base64.b64encode(PCM + b"x").decode())
    assert stream.receive_message(message) == [CallAudio(PCM)]
    assert stream.odd_fields == 1
    (media,) = stream.audio(PCM)
    assert json.loads(media)["media"] == {
        "contentType": "audio/x-l16",
        "sampleRate": rate,
        "payload": base64.b64encode(PCM).decode(),
    }


@pytest.mark.parametrize(
    ("media_format", "problem"),
    [
        (
            {"encoding": "audio/x-mulaw", "sampleRate": 16000},
            "audio/x-mulaw audio at 16000 Hz, which can't be",
        ),
        ({"encoding": "audio/opus", "sampleRate": 8000}, "announced audio/opus audio at 8000 Hz"),
        ({"encoding": "audio/x-l16", "sampleRate": 24000}, "audio/x-l16 audio at 24000 Hz"),
    ],
)
def test_a_format_that_can_not_be_decoded_is_refused(media_format: Any, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        PlivoStream().receive_message(json.dumps(lines.plivo(mediaFormat=media_format)[0]))


def test_the_stream_may_be_named_beside_the_start() -> None:
    message = {**lines.plivo(streamId=None)[0], "streamId": "s"}
    (event,) = PlivoStream().receive_message(json.dumps(message))
    assert isinstance(event, CallStarted)
    assert event.stream_id == "s"
    del message["streamId"]
    with pytest.raises(RemoteProtocolError, match="without a streamId"):
        PlivoStream().receive_message(json.dumps(message))


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("userId=12345;sessionId=abc-xyz", {"userId": "12345", "sessionId": "abc-xyz"}),
        ("test1=12,test2=123", {"test1": "12", "test2": "123"}),
        ("{X-PH-a: 1, X-PH-b: 2}", {"a": "1", "b": "2"}),
        ('{"X-PH-a":"1","b":"2"}', {"a": "1", "b": "2"}),
        ({"a": "1", "b": 2}, {"a": "1", "b": "2"}),
        ("a=1=2", {"a": "1=2"}),
        ("a=", {"a": ""}),
        ("", {}),
        ("a", {}),
        ("{}", {}),
        (None, {}),
        ("s\ud83d=\ud83d", {"s\ufffd": "\ufffd"}),
        (";".join(f"a{n}={n}" for n in range(70)), {f"a{n}": str(n) for n in range(64)}),
        ("a=" + "x" * 4097 + ";b=1", {"b": "1"}),
    ],
)
def test_extra_headers_are_the_parameters(text: Any, parameters: dict[str, str]) -> None:
    (event,) = PlivoStream().receive_message(json.dumps(lines.plivo(text)[0]))
    assert isinstance(event, CallStarted)
    assert event.parameters == parameters


# Signatures

TOKEN = "0123456789abcdef0123456789abcdef"
URL = "https://voice.example.com/telephony/plivo"
FORM = {"CallUUID": "1", "From": "15550100001", "To": "15550100002", "Digits": "1 2&3"}
SORTED = "CallUUID1Digits1 2&3From15550100001To15550100002"


def sign(signed: str, nonce: str = "n", token: str = TOKEN) -> str:
    """Sign as https://github.com/plivo/plivo-python/blob/master/plivo/utils/signature_v3.py does."""
    return base64.b64encode(
        hmac.new(token.encode(), f"{signed}.{nonce}".encode(), hashlib.sha256).digest()
    ).decode()


def request_to(
    url: str, signature: str, *, body: bytes = b"", header: str = "X-Plivo-Signature-V3", nonce: str = "n"
) -> SignedRequest:
    headers = {header.lower(): signature, "X-Plivo-Signature-V3-Nonce": nonce}
    return SignedRequest(method="POST" if body else "GET", url=url, headers=headers, body=body)


@pytest.mark.parametrize(
    ("url", "form", "signed"),
    [
        (URL, FORM, f"{URL}?{SORTED}"),
        (f"{URL}?b=2&a=x+y&a=1", FORM, f"{URL}?a=1&a=x y&b=2.{SORTED}"),
        (f"{URL}?b=2&a=", {}, f"{URL}?a=&b=2"),
        (URL, {}, URL),
        ("wss://voice.example.com/media?t=1", {}, "wss://voice.example.com/media?t=1"),
        ("wss://voice.example.com/media?t=1", {}, "https://voice.example.com/media?t=1"),
    ],
)
def test_a_request_is_signed_with_its_sorted_query_and_fields(
    url: str, form: dict[str, str], signed: str
) -> None:
    body = urlencode(form).encode()
    PlivoStream.verify(request_to(url, sign(signed), body=body), TOKEN)
    with pytest.raises(SignatureError):
        PlivoStream.verify(request_to(url, sign(signed), body=body), "another")


def test_one_of_several_signatures_is_enough() -> None:
    PlivoStream.verify(request_to(URL, f"x, {sign(URL)},y"), TOKEN)
    PlivoStream.verify(request_to(URL, sign(URL), header="X-Plivo-Signature-Ma-V3"), TOKEN)


@pytest.mark.parametrize(
    "request_",
    [
        request_to(URL, sign(URL), nonce="m"),
        request_to(URL + "/", sign(URL)),
        request_to(URL + "?a=1", sign(URL)),
        request_to(URL.replace("https", "http"), sign(URL)),
        request_to(URL, sign(f"{URL}?{SORTED}"), body=urlencode({**FORM, "To": "1"}).encode()),
        request_to(URL, sign(URL)[:-1]),
        request_to(URL, "\udcff", nonce="\udcff"),
    ],
)
def test_a_forgery_is_refused_without_a_secret_in_the_error(request_: SignedRequest) -> None:
    with pytest.raises(SignatureError, match="not that of Plivo") as caught:
        PlivoStream.verify(request_, TOKEN)
    assert TOKEN not in str(caught.value)
    assert sign(URL) not in repr(request_) + str(caught.value)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "X-Plivo-Signature-V3"),
        ({"X-Plivo-Signature-V3-Nonce": "n", "X-Plivo-Signature-V3": ","}, "X-Plivo-Signature-V3"),
        ({"X-Plivo-Signature-V3": "x"}, "X-Plivo-Signature-V3-Nonce"),
    ],
)
def test_a_request_without_a_signature_is_refused(headers: dict[str, str], named: str) -> None:
    with pytest.raises(SignatureError, match=f"has no {named}, which Plivo sends"):
        PlivoStream.verify(SignedRequest(method="GET", url=URL, headers=headers), TOKEN)


def test_a_body_or_a_query_that_is_no_form_is_refused() -> None:
    for request in (
        request_to(URL, "x", body=b'{"a":1}'),
        request_to(f"{URL}?{'&'.join(['a=1'] * 1001)}", "x"),
    ):
        with pytest.raises(SignatureError, match="not a form or has too many fields"):
            PlivoStream.verify(request, TOKEN)


# The answer


def test_the_answer_connects_the_call_in_both_directions() -> None:
    answer = PlivoStream.connect_answer("wss://voice.example.com/media?t=a&u=b", {"from": "1", "to": "2"})
    (stream,) = ET.fromstring(answer.body)
    assert answer.content_type == "application/xml"
    assert (stream.tag, stream.text) == ("Stream", "wss://voice.example.com/media?t=a&u=b")
    assert stream.attrib == {
        "bidirectional": "true",
        "keepCallAlive": "true",
        "audioTrack": "inbound",
        "contentType": "audio/x-mulaw;rate=8000",
        "extraHeaders": "from=1,to=2",
    }
    (stream,) = ET.fromstring(PlivoStream.connect_answer("wss://voice.example.com/media").body)
    assert "extraHeaders" not in stream.attrib


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"a": "+1"}, "names and values are of letters and digits only, unlike 'a'; leave out the rest"),
        ({"a": "1+"}, "letters and digits only"),
        ({"a": "1\n"}, "letters and digits only"),
        ({"a": ""}, "letters and digits only"),
        ({"a-b": "1"}, "letters and digits only"),
        ({"a": "é"}, "letters and digits only"),
        ({"a": "x" * 511}, "the parameters have 513 bytes, and Plivo takes 512"),
    ],
)
def test_what_plivo_would_refuse_is_refused_before(parameters: dict[str, str], problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        PlivoStream.connect_answer("wss://a.example", parameters)
