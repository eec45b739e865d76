"""Telnyx's media streams, webhooks and answers."""

from __future__ import annotations

import base64
import json
import struct
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speko_anyio.protocol.errors import LocalProtocolError, RemoteProtocolError
from speko_anyio.telephony import (
    CallAudio,
    CallEnded,
    CallStarted,
    Digit,
    Marked,
    SignatureError,
    SignedRequest,
    TelnyxStream,
    g711,
)

from . import lines


def test_a_call() -> None:
    stream = TelnyxStream()
    events = [event for message in lines.telnyx() for event in stream.receive_message(json.dumps(message))]
    assert events == [
        CallStarted(
            carrier="telnyx",
            call_id="v2:0000000000000000",
            stream_id="00000000-0000-0000-0000-000000000001",
            parameters={"customer_id": "customer_123"},
            caller="+15550100001",
            called="+15550100002",
            sample_rate=8000,
        ),
        CallAudio(g711.ulaw_to_pcm(lines.ULAW)),
        Digit("1"),
        Marked("my label"),
        CallEnded(),
    ]
    assert (stream.odd_fields, stream.unknown, stream.out_of_order) == (0, 0, 0)


def test_a_start_of_another_carrier_is_refused() -> None:
    for start in (lines.twilio()[1], lines.plivo()[0]):
        with pytest.raises(
            RemoteProtocolError, match="without a stream_id; check that the call is one of Telnyx"
        ):
            TelnyxStream().receive_message(json.dumps(start))


def test_what_is_sent() -> None:
    stream = lines.answered("telnyx")
    (media,) = stream.audio(g711.ulaw_to_pcm(lines.ULAW))
    assert json.loads(media) == {
        "event": "media",
        "media": {"payload": base64.b64encode(lines.ULAW.replace(b"\x7f", b"\xff")).decode()},
    }
    assert json.loads(stream.mark("a 1")) == {"event": "mark", "mark": {"name": "a 1"}}
    assert stream.clear() == '{"event":"clear"}'


def open_with(media_format: Any, stream: TelnyxStream | None = None) -> TelnyxStream:
    stream = stream or TelnyxStream()
    stream.receive_message(json.dumps(lines.telnyx(media_format=media_format)[1]))
    return stream


def hear(stream: TelnyxStream, data: bytes) -> bytes:
    message = lines.changed(lines.telnyx()[2], "media.payload", base64.b64encode(data).decode())
    (event,) = stream.receive_message(message)
    assert isinstance(event, CallAudio)
    return event.pcm


def say(stream: TelnyxStream, pcm: bytes) -> bytes:
    (message,) = stream.audio(pcm)
    return base64.b64decode(json.loads(message)["media"]["payload"])


PCM = struct.pack("<320h", *range(-16000, 16000, 100))
SWAPPED = struct.pack(">320h", *range(-16000, 16000, 100))


def test_a_call_in_a_law_is_answered_in_u_law_as_the_answer_asked() -> None:
    stream = open_with({"encoding": "PCMA", "sample_rate": 8000})
    assert stream.sample_rate == 8000
    assert hear(stream, lines.ULAW) == g711.alaw_to_pcm(lines.ULAW)
    assert say(stream, PCM) == g711.pcm_to_ulaw(PCM)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_l16_is_in_network_byte_order_both_ways(rate: int) -> None:
    stream = open_with({"encoding": "L16", "sample_rate": rate})
    assert stream.started is not None
    assert stream.sample_rate == stream.started.sample_rate == rate
    assert hear(stream, SWAPPED) == PCM
    frame = rate // 50 * 2
    whole = PCM[: len(PCM) - len(PCM) % frame]
    if whole:
        assert say(stream, PCM) == SWAPPED[: len(whole)]
    (rest,) = [*stream.audio(PCM[: frame - stream.unsent])] or stream.flush()
    assert len(base64.b64decode(json.loads(rest)["media"]["payload"])) % frame == 0


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000])
def test_a_message_has_whole_frames_of_at_least_20_ms(rate: int) -> None:
    stream = open_with({"encoding": "L16", "sample_rate": rate})
    for message in stream.audio(bytes(rate * 5 // 2 * 2)):
        size = len(base64.b64decode(json.loads(message)["media"]["payload"]))
        assert 0.02 * 2 * rate <= size <= 2 * rate
        assert size % (-(-rate // 50) * 2) == 0


def test_half_a_sample_of_l16_is_cut_off_and_counted() -> None:
    stream = open_with({"encoding": "L16", "sample_rate": 16000})
    assert hear(stream, SWAPPED + b"x") == PCM
    assert stream.odd_fields == 1
    message = lines.changed(lines.telnyx()[2], "media.payload", base64.b64encode(b"x").decode())
    assert stream.receive_message(message) == []


def test_the_codec_of_the_answer_can_be_chosen() -> None:
    stream = open_with({"encoding": "PCMU", "sample_rate": 8000}, TelnyxStream(codec="PCMA"))
    assert say(stream, PCM) == g711.pcm_to_alaw(PCM)
    assert hear(stream, lines.ULAW) == g711.ulaw_to_pcm(lines.ULAW)
    with pytest.raises(
        LocalProtocolError, match="'OPUS' is not a codec for Telnyx; choose PCMU, PCMA or L16"
    ):
        TelnyxStream(codec="OPUS")  # type: ignore[arg-type]


@pytest.mark.parametrize("media_format", [None, {}, {"encoding": "pcmu", "sample_rate": None}, 7])
def test_a_format_that_is_not_told_is_u_law(media_format: Any) -> None:
    stream = open_with(media_format)
    assert hear(stream, lines.ULAW) == g711.ulaw_to_pcm(lines.ULAW)
    assert stream.sample_rate == 8000


def test_the_rate_of_g711_is_always_8_khz() -> None:
    assert open_with({"encoding": "PCMU", "sample_rate": 16000}).sample_rate == 8000


@pytest.mark.parametrize(
    ("media_format", "problem"),
    [
        (
            {"encoding": "OPUS", "sample_rate": 16000},
            "announced OPUS audio, which can't be decoded; start the",
        ),
        ({"encoding": "x" * 99}, "announced x{39}… audio"),
        (
            {"encoding": "L16", "sample_rate": 7999},
            "announced the sample rate 7999, which no session can have",
        ),
        ({"encoding": "L16", "sample_rate": 10**18}, "announced the sample rate 1000000000000000000"),
    ],
)
def test_a_format_that_can_not_be_decoded_is_refused(media_format: Any, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        open_with(media_format)


def test_numbers_may_be_parameters() -> None:
    stream = TelnyxStream()
    parameters = {"from": "a", "to": "b"}
    message = lines.telnyx(**{"from": None, "to": "", "custom_parameters": parameters})[1]
    (event,) = stream.receive_message(json.dumps(message))
    assert isinstance(event, CallStarted)
    assert (event.caller, event.called) == ("a", "b")


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (
            {"code": 100003, "title": "malformed_frame", "detail": "The frame\nis \x1b[2J"},
            "The frame is \\x1b[2J",
        ),
        ({"code": 100003, "title": "malformed_frame"}, "malformed_frame"),
        ({"code": 100003}, "100003"),
        ({"detail": "x" * 999}, "x" * 199 + "…"),
        (None, ""),
    ],
)
def test_the_latest_complaint_is_kept_and_the_call_goes_on(payload: Any, told: str) -> None:
    stream = lines.answered("telnyx")
    assert stream.receive_message(json.dumps({"event": "error", "payload": payload})) == []
    assert stream.last_error == told
    assert not stream.ended


# Signatures

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
BODY = b'{"data":{"event_type":"call.initiated"}}'
NOW = 1_800_000_000.0


def sign(made: str, body: bytes = BODY) -> str:
    return base64.b64encode(KEY.sign(made.encode() + b"|" + body)).decode()


def webhook(signature: str, made: str, body: bytes = BODY) -> SignedRequest:
    return SignedRequest(
        method="POST",
        url="https://voice.example.com/telephony/telnyx",
        headers={"Telnyx-Signature-Ed25519": signature, "Telnyx-Timestamp": made},
        body=body,
    )


@pytest.mark.parametrize("age", [0, 299, -299])
def test_a_webhook_is_signed_with_its_time(age: int) -> None:
    made = str(int(NOW) - age)
    TelnyxStream.verify(webhook(sign(made), made), PUBLIC, now=NOW)


MADE = str(int(NOW))


@pytest.mark.parametrize(
    "request_",
    [
        webhook(sign(MADE), MADE, BODY + b" "),
        webhook(sign(MADE), str(int(NOW) + 1)),
        webhook(sign("x"), "x"),
        webhook("AAAA", MADE),
        webhook("~", MADE),
        webhook("é", MADE),
        webhook(sign(MADE), "\ud800"),
    ],
)
def test_a_forgery_is_refused(request_: SignedRequest) -> None:
    with pytest.raises(SignatureError, match="not that of Telnyx") as caught:
        TelnyxStream.verify(request_, PUBLIC, now=NOW)
    assert PUBLIC not in str(caught.value)


@pytest.mark.parametrize(("age", "made"), [(301, None), (-301, None), (0, "nan"), (0, "inf"), (0, "-1e999")])
def test_an_old_signature_is_refused(age: int, made: str | None) -> None:
    made = made or str(int(NOW) - age)
    with pytest.raises(SignatureError, match="300 s are allowed; check this machine's clock"):
        TelnyxStream.verify(webhook(sign(made), made), PUBLIC, now=NOW)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "telnyx-signature-ed25519"),
        ({"telnyx-timestamp": "1"}, "telnyx-signature-ed25519"),
        ({"telnyx-signature-ed25519": "x"}, "telnyx-timestamp"),
    ],
)
def test_a_request_without_a_signature_is_refused(headers: dict[str, str], named: str) -> None:
    request = SignedRequest(method="GET", url="wss://a.example", headers=headers)
    with pytest.raises(SignatureError, match=f"has no {named}, which Telnyx sends"):
        TelnyxStream.verify(request, PUBLIC, now=NOW)


@pytest.mark.parametrize("key", ["", "AAAA", "not base64", PUBLIC + PUBLIC])
def test_a_key_that_is_none_is_the_callers_fault(key: str) -> None:
    with pytest.raises(LocalProtocolError, match="not an Ed25519 key in base64; copy it from the portal"):
        TelnyxStream.verify(webhook(sign(MADE), MADE), key, now=NOW)
    with pytest.raises(LocalProtocolError, match="not an Ed25519 key"):
        TelnyxStream.check_secret(key)


def test_without_cryptography_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(LocalProtocolError, match="without the package cryptography; install it"):
        TelnyxStream.verify(webhook(sign(MADE), MADE), PUBLIC, now=NOW)
    with pytest.raises(LocalProtocolError, match="install it"):
        TelnyxStream.check_secret(PUBLIC)


def test_the_answer_connects_the_call_in_both_directions() -> None:
    answer = TelnyxStream.connect_answer("wss://voice.example.com/media?a=1&b=2", {"customer_id": "1 2"})
    assert answer.content_type == "application/xml"
    (stream,) = ET.fromstring(answer.body).iter("Stream")
    assert stream.attrib == {
        "url": "wss://voice.example.com/media?a=1&b=2",
        "track": "inbound_track",
        "codec": "PCMU",
        "bidirectionalMode": "rtp",
        "bidirectionalCodec": "PCMU",
    }
    assert [parameter.attrib for parameter in stream] == [{"name": "customer_id", "value": "1 2"}]
