"""Vonage's WebSockets, webhooks and answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest

from speko_anyio.protocol.errors import LocalProtocolError, RemoteProtocolError
from speko_anyio.telephony import (
    CallAudio,
    CallStarted,
    Digit,
    Marked,
    SignatureError,
    SignedRequest,
    VonageStream,
)

from . import lines


def test_a_call() -> None:
    stream = VonageStream()
    messages = lines.vonage(level={"a": [1]})
    events = [event for message in messages for event in stream.receive_message(lines.on_the_wire(message))]
    assert events == [
        CallStarted(
            carrier="vonage",
            call_id="00000000-0000-0000-0000-000000000001",
            stream_id="",
            parameters={
                "uuid": "00000000-0000-0000-0000-000000000001",
                "from": "15550100001",
                "to": "15550100002",
                "level": '{"a": [1]}',
            },
            caller="15550100001",
            called="15550100002",
            sample_rate=16000,
        ),
        CallAudio(messages[1]),
        Digit("1"),
        Marked("my label"),
    ]
    assert (stream.odd_fields, stream.unknown, stream.out_of_order) == (0, 0, 0)
    assert not stream.ended


def test_what_is_sent() -> None:
    stream = lines.answered("vonage")
    pcm = bytes(range(256)) * 5
    assert stream.audio(pcm) == [pcm[:640], pcm[640:]]
    assert json.loads(stream.mark("a 1")) == {"action": "notify", "payload": {"name": "a 1"}}
    assert json.loads(stream.clear()) == {"action": "clear"}
    assert stream.audio(b"\1\1") == []
    assert stream.flush() == [b"\1\1" + bytes(638)]


@pytest.mark.parametrize(
    ("content_type", "rate"),
    [
        ("audio/l16;rate=8000", 8000),
        ("audio/l16;rate=16000", 16000),
        ("audio/L16; rate=24000", 24000),
        ("audio/l16", 16000),
        ("", 16000),
    ],
)
def test_the_first_message_tells_the_rate(content_type: str, rate: int) -> None:
    stream = VonageStream()
    stream.receive_message(json.dumps(lines.vonage(content_type)[0]))
    assert stream.sample_rate == rate
    assert [len(frame) for frame in stream.audio(bytes(rate * 2))] == [rate // 50 * 2] * 50


@pytest.mark.parametrize(
    "content_type",
    ["audio/l16;rate=44100", "audio/opus", "audio/l16;rate=", "audio/l16;rate=\u0661", "x" * 99],
)
def test_another_format_is_refused(content_type: str) -> None:
    if content_type.endswith("rate="):
        VonageStream().receive_message(json.dumps(lines.vonage(content_type)[0]))  # no rate is the usual one
        return
    with pytest.raises(RemoteProtocolError, match=f"vonage announced {content_type[:39]}.*, which can't be"):
        VonageStream().receive_message(json.dumps(lines.vonage(content_type)[0]))


def test_half_a_sample_is_cut_off_and_counted() -> None:
    stream = lines.answered("vonage")
    assert stream.receive_message(b"abc") == [CallAudio(b"ab")]
    assert stream.receive_message(b"a") == []
    assert stream.receive_message(b"") == []
    assert stream.odd_fields == 2


def test_a_call_without_parameters_has_no_ids() -> None:
    (event,) = VonageStream().receive_message('{"event":"websocket:connected"}')
    assert event == CallStarted(carrier="vonage", call_id="", stream_id="", sample_rate=16000)


# Signatures

SECRET = "0123456789abcdef" * 4
NOW = 1_800_000_000.0
BODY = b'{"from":"15550100001","to":"15550100002","uuid":"1"}'
QUERY = "to=15550100002&from=1555+%C3%A9&empty="


def claims(content: bytes | None = BODY, **changes: Any) -> dict[str, Any]:
    made = {"iat": int(NOW) - 2, "jti": "j", "iss": "Vonage", "api_key": "k", "application_id": "a"}
    if content is not None:
        made["payload_hash"] = hashlib.sha256(content).hexdigest()
    return {**made, **changes}


def webhook(token: str, *, body: bytes = BODY, query: str = "") -> SignedRequest:
    return SignedRequest(
        method="POST" if body else "GET",
        url=f"https://voice.example.com/telephony/vonage?{query}",
        headers={"authorization": f"Bearer {token}"},
        body=body,
    )


def sign(made: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(made, secret, algorithm=algorithm)


def test_a_webhook_is_signed_with_the_hash_of_its_body() -> None:
    VonageStream.verify(webhook(sign(claims())), SECRET, now=NOW)
    VonageStream.verify(webhook(sign(claims(exp=NOW + 1))), SECRET, now=NOW)
    upper = claims()["payload_hash"].upper()
    VonageStream.verify(webhook(sign(claims(payload_hash=upper))), SECRET, now=NOW)


def test_a_get_is_signed_with_the_hash_of_its_query_as_json() -> None:
    content = '{"to":"15550100002","from":"1555 é","empty":""}'.encode()
    VonageStream.verify(webhook(sign(claims(content)), body=b"", query=QUERY), SECRET, now=NOW)
    VonageStream.verify(webhook(sign(claims(b"")), body=b"", query=QUERY), SECRET, now=NOW)
    VonageStream.verify(webhook(sign(claims(None)), body=b"", query=QUERY), SECRET, now=NOW)
    with pytest.raises(SignatureError):
        VonageStream.verify(webhook(sign(claims(content)), body=b"", query=QUERY + "x"), SECRET, now=NOW)


def forged(header: Any, made: Any, secret: str = SECRET) -> str:
    """Sign anything, whatever it says of itself."""
    parts = [
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")
        for part in (header, made)
    ]
    signed = b".".join(parts)
    signature = base64.urlsafe_b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    return (signed + b"." + signature.rstrip(b"=")).decode()


GOOD = sign(claims())
HEADER, CLAIMS, SIGNATURE = GOOD.split(".")
HS256 = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(
    "request_",
    [
        webhook(sign(claims(), "another" * 10)),
        webhook(sign(claims(), algorithm="HS512")),
        webhook(f"{HEADER}.{CLAIMS}."),
        webhook(f"{HEADER}.{CLAIMS}"),
        webhook(f"{base64.urlsafe_b64encode(json.dumps({'alg': 'none'}).encode()).decode()}.{CLAIMS}."),
        webhook(GOOD, body=BODY + b" "),
        webhook("x"),
        webhook(".."),
        webhook("\udcff.é.x"),
        webhook(forged(HS256, claims()) + "x" * 9000),
        webhook(forged(HS256, b"no JSON")),
        webhook(forged(HS256, [])),
        webhook(forged(HS256, {"iat": "soon"})),
        webhook(forged(HS256, {})),
        webhook(forged({}, claims())),
        webhook(forged(b"\xff", claims())),
        webhook(forged(HS256, b"")[:-44] + "AAAAA" + "."),
    ],
)
def test_a_forgery_is_refused_without_a_secret_in_the_error(request_: SignedRequest) -> None:
    with pytest.raises(SignatureError, match="not that of Vonage") as caught:
        VonageStream.verify(request_, SECRET, now=NOW)
    assert SECRET not in str(caught.value)
    assert GOOD not in repr(request_)


@pytest.mark.parametrize("algorithm", ["none", "HS512", "hs256", ""])
def test_another_algorithm_is_refused_even_if_the_signature_fits(algorithm: str) -> None:
    with pytest.raises(SignatureError, match="is not HS256"):
        VonageStream.verify(webhook(forged({"alg": algorithm}, claims())), SECRET, now=NOW)


def test_a_token_may_not_be_long_even_if_the_signature_fits() -> None:
    VonageStream.verify(webhook(forged(HS256, claims(x="y" * 5000))), SECRET, now=NOW)
    with pytest.raises(SignatureError, match="not that of Vonage"):
        VonageStream.verify(webhook(forged(HS256, claims(x="y" * 7000))), SECRET, now=NOW)


def test_the_hash_of_the_query_does_not_do_for_a_body() -> None:
    content = '{"to":"15550100002","from":"1555 é","empty":""}'.encode()
    with pytest.raises(SignatureError, match="not that of Vonage"):
        VonageStream.verify(webhook(sign(claims(content)), query=QUERY), SECRET, now=NOW)


@pytest.mark.parametrize("made", [{"iat": NOW - 301}, {"iat": NOW + 301}])
def test_an_old_signature_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(SignatureError, match="300 s are allowed"):
        VonageStream.verify(webhook(sign(claims(**made))), SECRET, now=NOW)
    with pytest.raises(SignatureError, match="has expired"):
        VonageStream.verify(webhook(sign(claims(exp=NOW))), SECRET, now=NOW)


def test_a_body_has_to_be_signed_too() -> None:
    with pytest.raises(SignatureError, match="signed the request without its body"):
        VonageStream.verify(webhook(sign(claims(None))), SECRET, now=NOW)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {GOOD}"}])
def test_a_request_without_a_signature_is_refused(headers: dict[str, str]) -> None:
    request = SignedRequest(method="GET", url="wss://a.example", headers=headers)
    with pytest.raises(SignatureError, match="has no Authorization with a token, which Vonage sends"):
        VonageStream.verify(request, SECRET, now=NOW)


def test_the_answer_connects_the_call() -> None:
    answer = VonageStream.connect_answer("wss://voice.example.com/media?t=1", {"uuid": "1", "n": "ü\n"})
    assert answer.content_type == "application/json"
    assert json.loads(answer.body) == [
        {
            "action": "connect",
            "endpoint": [
                {
                    "type": "websocket",
                    "uri": "wss://voice.example.com/media?t=1",
                    "content-type": "audio/l16;rate=16000",
                    "headers": {"uuid": "1", "n": "ü\n"},
                }
            ],
        }
    ]
    with pytest.raises(LocalProtocolError, match="must begin with wss://"):
        VonageStream.connect_answer("https://a.example")
