"""What holds for every carrier: odd, hostile and misplaced messages, pieces of audio, and the errors."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import pickle
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol.errors import LocalProtocolError, RemoteProtocolError
from speko_anyio.telephony import (
    CARRIERS,
    CallAudio,
    CallEnded,
    CallStarted,
    CarrierStream,
    Digit,
    Marked,
    SignatureError,
    SignedRequest,
    g711,
)
from speko_anyio.telephony._fields import MAX_MESSAGE, MAX_PARAMETER, MAX_PARAMETERS, Fields, Odd
from tests.providers.oddities import ANY_JSON

from . import lines

NAMES = tuple(CARRIERS)
JSON_NAMES = ("twilio", "telnyx", "plivo")

NEEDED = {
    "twilio": {"event", "start.streamSid", "start.mediaFormat.encoding", "media.payload", "media.track"},
    "telnyx": {
        *("event", "start.media_format.encoding", "start.media_format.sample_rate"),
        *("media.payload", "media.track"),
    },
    "plivo": {
        *("event", "start.streamId", "start.mediaFormat.encoding", "start.mediaFormat.sampleRate"),
        *("media.payload", "media.track"),
    },
    "vonage": {"event", "content-type"},
}
"""Fields without which a message means something else or nothing, and the objects that hold them."""


def paths(message: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in message.items():
        yield above + name
        if isinstance(value, dict):
            yield from paths(value, f"{above}{name}.")


def unneeded(name: str) -> list[tuple[int, str]]:
    """Return each message's number and the path of each of its fields that the call can go on without."""
    needed = NEEDED[name]
    return [
        (number, path)
        for number, message in enumerate(lines.CALLS[name]())
        if isinstance(message, dict)
        for path in paths(message)
        if not any(one == path or one.startswith(f"{path}.") for one in needed)
    ]


def kinds(stream: CarrierStream, messages: list[str | bytes]) -> list[type]:
    return [type(event) for message in messages for event in stream.receive_message(message)]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_names_are_those_of_the_streams(name: str) -> None:
    assert CARRIERS[name].name == name
    assert CARRIERS[name].has_marks


def test_a_carrier_says_what_a_server_of_its_webhook_must_know(name: str) -> None:
    carrier = CARRIERS[name]
    assert carrier.environment_variable.startswith(f"{name.upper()}_")
    assert carrier.environment_variable.endswith(carrier.signed_with.upper().replace(" ", "_"))
    assert "URL" in carrier.webhook_setting or "webhook" in carrier.webhook_setting
    fields = {carrier.call_id_field, carrier.caller_field, carrier.called_field}
    assert len(fields) == 3
    carrier.check_secret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")


@given(st.data(), st.sampled_from(NAMES))
def test_any_json_in_any_unneeded_field_changes_no_more_than_that_field(
    data: st.DataObject, name: str
) -> None:
    number, path = data.draw(st.sampled_from(unneeded(name)))
    messages = lines.CALLS[name]()
    wire = [lines.on_the_wire(message) for message in messages]
    wire[number] = lines.changed(messages[number], path, data.draw(ANY_JSON))
    stream = CARRIERS[name]()
    found = kinds(stream, wire)
    whole = kinds(CARRIERS[name](), [lines.on_the_wire(message) for message in messages])
    # A mark without a usable name and a digit that is none are left out.
    assert [kind for kind in found if kind not in (Marked, Digit)] == [
        kind for kind in whole if kind not in (Marked, Digit)
    ]
    assert len(whole) - len(found) in (0, 1)
    assert stream.started is not None
    repr(stream.started).encode()
    json.dumps(stream.started.parameters, ensure_ascii=False).encode()


@given(ANY_JSON, st.sampled_from(NAMES))
def test_any_json_gives_events_or_the_documented_error(value: object, name: str) -> None:
    for stream in (CARRIERS[name](), lines.answered(name)):
        if isinstance(value, dict):
            assert stream.receive_message(json.dumps(value)) == []
        else:
            with pytest.raises(RemoteProtocolError, match="not a JSON object") as caught:
                stream.receive_message(json.dumps(value))
            assert caught.value.close_code == 1007


@given(st.binary(max_size=300) | st.text(max_size=300), st.sampled_from(NAMES))
def test_any_bytes_and_any_text_give_events_or_the_documented_error(message: str | bytes, name: str) -> None:
    for stream in (CARRIERS[name](), lines.answered(name)):
        with contextlib.suppress(RemoteProtocolError):
            assert {type(event) for event in stream.receive_message(message)} <= {CallAudio}


def test_text_with_half_of_a_pair_is_mended(name: str) -> None:
    message = json.dumps(of_kind(name, Marked), ensure_ascii=False).replace("my label", "my \ud83d")
    assert lines.answered(name).receive_message(message) == [Marked("my \ufffd")]
    data = message.encode(errors="surrogatepass")
    if name != "vonage":
        assert lines.answered(name).receive_message(data) == [Marked("my \ufffd")]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "can't be read: it is not JSON"),
        ("[]", "can't be read: it is not a JSON object"),
        ('{"event":' + "[" * 60_000, "can't be read: it is nested too deeply"),
        ("{" * 100, "can't be read: it is not JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(name: str, message: str, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"a message of {name} {problem}"):
        CARRIERS[name]().receive_message(message)


def test_a_message_over_the_limit_is_refused_before_it_is_read(name: str) -> None:
    stream = lines.answered(name)
    with pytest.raises(RemoteProtocolError, match=f"{name} sent a message of 65537 bytes") as caught:
        stream.receive_message("x" * (MAX_MESSAGE + 1))
    assert caught.value.close_code == 1009
    with pytest.raises(RemoteProtocolError):
        stream.receive_message(bytes(MAX_MESSAGE + 1))


def test_an_event_that_is_unknown_is_counted_and_ignored(name: str) -> None:
    stream = lines.answered(name)
    for message in ('{"event":"hologram"}', '{"event":null}', "{}", '{"event":["media"]}'):
        assert stream.receive_message(message) == []
    assert stream.unknown == 4
    assert stream.odd_fields == 1


def test_what_comes_before_the_start_is_counted_and_ignored(name: str) -> None:
    stream = CARRIERS[name]()
    rest = [
        message
        for message in lines.CALLS[name]()
        if isinstance(message, bytes) or message["event"] not in ("connected", "start", "websocket:connected")
    ]
    for message in rest:
        assert stream.receive_message(lines.on_the_wire(message)) == []
    assert stream.out_of_order == len(rest)
    assert stream.unknown == stream.odd_fields == 0
    assert not stream.ended


def test_only_the_first_start_counts(name: str) -> None:
    stream = lines.answered(name)
    first = stream.started
    (start,) = [
        message
        for message in lines.CALLS[name]()
        if isinstance(message, dict) and message["event"] in ("start", "websocket:connected")
    ]
    assert stream.receive_message(lines.on_the_wire(start)) == []
    assert stream.started is first
    assert stream.out_of_order == 1


@pytest.mark.parametrize("name", JSON_NAMES)
def test_nothing_follows_the_end(name: str) -> None:
    stream = CARRIERS[name]()
    wire = [lines.on_the_wire(message) for message in lines.CALLS[name]()]
    assert kinds(stream, wire)[-1] is CallEnded
    assert stream.ended
    assert kinds(stream, wire) == []
    assert stream.out_of_order == len(wire)
    # What is under way can still be sent.
    assert stream.audio(b"\0\0" * 160)


@pytest.mark.parametrize("name", JSON_NAMES)
def test_sequence_numbers_that_go_back_are_counted(name: str) -> None:
    stream = lines.answered(name)
    (media,) = [message for message in lines.CALLS[name]() if message["event"] == "media"]
    field = "sequence_number" if name == "telnyx" else "sequenceNumber"
    for number in (7, "8", 6, "7", 9, 9, None, "x", -1, 2.5, 10**30, True):
        (event,) = stream.receive_message(lines.changed(media, field, number))
        assert isinstance(event, CallAudio)
    assert stream.out_of_order == 3
    assert stream.odd_fields == 5


@pytest.mark.parametrize("name", JSON_NAMES)
@pytest.mark.parametrize("payload", ["AAA", "AA=A", "A===", "AA==AA==", "AA-_", "é", "AA\n==", "====", " "])
def test_a_payload_that_is_not_base64_is_refused(name: str, payload: str) -> None:
    (media,) = [message for message in lines.CALLS[name]() if message["event"] == "media"]
    with pytest.raises(RemoteProtocolError, match=f"payload of a media message of {name} is not base64"):
        lines.answered(name).receive_message(lines.changed(media, "media.payload", payload))


@pytest.mark.parametrize("name", JSON_NAMES)
@pytest.mark.parametrize(
    ("path", "value"), [("media.payload", None), ("media.payload", 7), ("media", {}), ("media", [])]
)
def test_audio_without_a_payload_is_refused(name: str, path: str, value: object) -> None:
    (media,) = [message for message in lines.CALLS[name]() if message["event"] == "media"]
    with pytest.raises(RemoteProtocolError, match=f"{name} sent a media message without a payload"):
        lines.answered(name).receive_message(lines.changed(media, path, value))


@pytest.mark.parametrize("name", JSON_NAMES)
def test_the_other_track_is_ignored_and_an_odd_one_is_the_callers(name: str) -> None:
    stream = lines.answered(name)
    (media,) = [message for message in lines.CALLS[name]() if message["event"] == "media"]
    assert stream.receive_message(lines.changed(media, "media.track", "outbound")) == []
    assert stream.receive_message(lines.changed(media, "media.payload", "")) == []
    tracks: list[Any] = ["inbound_track", None, 7, []]
    for track in tracks:
        assert kinds(stream, [lines.changed(media, "media.track", track)]) == [CallAudio]


def of_kind(name: str, kind: type) -> dict[str, Any]:
    """Return the message of a call that gives this event."""
    stream = CARRIERS[name]()
    for message in lines.CALLS[name]():
        if [type(event) for event in stream.receive_message(lines.on_the_wire(message))] == [kind]:
            return dict(message)
    raise AssertionError(kind)


DIGIT = {"twilio": "dtmf.digit", "telnyx": "dtmf.digit", "plivo": "dtmf.digit", "vonage": "digit"}
MARK = {"twilio": "mark.name", "telnyx": "mark.name", "plivo": "name", "vonage": "payload.name"}


def test_every_key_of_a_telephone(name: str) -> None:
    stream = lines.answered(name)
    message = of_kind(name, Digit)
    for digit in "0123456789*#ABCD":
        assert stream.receive_message(lines.changed(message, DIGIT[name], digit)) == [Digit(digit)]
    assert stream.receive_message(lines.changed(message, DIGIT[name], "d")) == [Digit("D")]
    assert stream.receive_message(lines.changed(message, DIGIT[name], 5)) == [Digit("5")]
    assert stream.odd_fields == 0
    others: list[Any] = ["E", "12", "x" * 1000, "\u0661", True, [1], {"1": 1}]
    for odd in others:
        assert stream.receive_message(lines.changed(message, DIGIT[name], odd)) == []
    assert stream.odd_fields == 7


def test_the_name_of_a_mark(name: str) -> None:
    stream = lines.answered(name)
    message = of_kind(name, Marked)
    for mark in ("7", "a b", "é", "x" * 256):
        assert stream.receive_message(lines.changed(message, MARK[name], mark)) == [Marked(mark)]
    assert stream.receive_message(lines.changed(message, MARK[name], "\ud83d")) == [Marked("\ufffd")]
    others: list[Any] = ["", None, "x" * 257, [], True]
    for odd in others:
        assert stream.receive_message(lines.changed(message, MARK[name], odd)) == []
    assert stream.odd_fields == 3


def parameters_of(name: str, parameters: dict[str, Any]) -> tuple[dict[str, str], int]:
    """Return the parameters that a call has with these, without those of every call; and the odd fields."""
    stream = CARRIERS[name]()
    start = copy.deepcopy(of_kind(name, CallStarted))
    if name == "vonage":
        start = {"event": start["event"], "content-type": start["content-type"], **parameters}
    elif name == "plivo":
        start["extra_headers"] = parameters
    else:
        start["start"]["custom_parameters" if name == "telnyx" else "customParameters"] = parameters
    (event,) = stream.receive_message(json.dumps(start))
    assert isinstance(event, CallStarted)
    return event.parameters, stream.odd_fields


def test_parameters_are_text(name: str) -> None:
    odd: dict[str, Any] = {
        "n": 1,
        "f": 1.5,
        "b": True,
        "z": None,
        "l": [1, "ü"],
        "o": {"a": {}},
        "s\ud800": "\udc00",
        "": "e",
    }
    assert parameters_of(name, odd) == (
        {
            "n": "1",
            "f": "1.5",
            "b": "true",
            "z": "null",
            "l": '[1, "ü"]',
            "o": '{"a": {}}',
            "s\ufffd": "\ufffd",
            "": "e",
        },
        0,
    )


def test_parameters_are_bounded(name: str) -> None:
    long = "x" * (MAX_PARAMETER + 1)
    assert parameters_of(name, {"a": long, long: "b", "c": long[1:]}) == ({"c": long[1:]}, 2)
    many = {str(number): "" for number in range(MAX_PARAMETERS + 9)}
    found, odd = parameters_of(name, many)
    assert (list(found), odd) == (list(many)[:MAX_PARAMETERS], 9)


def test_a_parameter_nested_too_deeply_is_left_out() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    odd = Odd()
    assert Fields({"deep": deep, "a": "b"}, odd).parameters() == {"a": "b"}
    assert odd.count == 1


def test_before_the_start_nothing_can_be_sent(name: str) -> None:
    stream = CARRIERS[name]()
    for send in (lambda: stream.audio(b"\0\0"), lambda: stream.mark("m"), stream.clear, stream.flush):
        with pytest.raises(
            LocalProtocolError, match="the call has not started yet; wait for the CallStarted"
        ):
            send()


def test_half_a_sample_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="keep the odd byte"):
        lines.answered(name).audio(b"abc")


def test_an_array_of_samples_is_taken(name: str) -> None:
    samples: Any = array("h", [0] * 480)
    assert lines.answered(name).audio(samples) == lines.answered(name).audio(bytes(960))
    floats: Any = array("f", [0.5])
    with pytest.raises(TypeError, match="an array of floating-point numbers"):
        lines.answered(name).audio(floats)


def sent_pcm(stream: CarrierStream, messages: list[str | bytes]) -> list[bytes]:
    """Return the audio of each message, as it is on the line."""
    found = []
    for message in messages:
        if isinstance(message, bytes):
            found.append(message)
        else:
            media = json.loads(message)["media"]
            found.append(g711.ulaw_to_pcm(base64.b64decode(media["payload"], validate=True)))
    return found


PIECES = st.lists(st.integers(0, 2000).map(lambda samples: 2 * samples), max_size=6)


@given(PIECES, st.sampled_from(NAMES))
def test_audio_goes_out_whole_however_it_is_cut(sizes: list[int], name: str) -> None:
    whole = g711.ulaw_to_pcm(bytes(range(256)) * 100)[: sum(sizes)]
    stream = lines.answered(name)
    frame = round(stream.sample_rate * 0.02) * 2 if name in ("telnyx", "vonage") else 2
    sent: list[bytes] = []
    at = 0
    for size in sizes:
        pieces = sent_pcm(stream, stream.audio(whole[at : at + size]))
        at += size
        assert all(len(piece) % frame == 0 and piece for piece in pieces)
        sent += pieces
        assert stream.unsent == at - len(b"".join(sent)) < frame
    held = stream.unsent
    rest = sent_pcm(stream, stream.flush())
    assert len(rest) == (held > 0)
    assert stream.unsent == 0
    sent += rest
    assert all(len(piece) <= stream.sample_rate * 2 for piece in sent)
    if name == "vonage":
        assert {len(piece) for piece in sent} <= {frame}
    assert b"".join(sent) == whole + bytes((frame - held) % frame if held else 0)


def test_long_audio_is_cut(name: str) -> None:
    stream = lines.answered(name)
    pieces = sent_pcm(stream, stream.audio(bytes(stream.sample_rate * 2 * 3)))
    assert len(pieces) == (150 if name == "vonage" else 3)
    assert len(b"".join(pieces)) == stream.sample_rate * 6


def test_a_clear_drops_what_is_held_back(name: str) -> None:
    stream = lines.answered(name)
    stream.audio(b"\0\0" * 3)
    stream.clear()
    assert stream.unsent == 0
    assert stream.flush() == []


@pytest.mark.parametrize("url", ["", "voice.example.com", "http://a.example", "javascript:alert(1)"])
def test_a_url_that_is_not_a_websockets_is_refused(name: str, url: str) -> None:
    with pytest.raises(LocalProtocolError, match="must begin with wss://"):
        CARRIERS[name].connect_answer(url)


@pytest.mark.parametrize(
    ("url", "parameters", "told"),
    [
        (None, None, "the URL of a media stream must be text, not NoneType"),
        ("wss://a.example", ["id"], "the parameters of a call must be a dict, not list"),
        ("wss://a.example", {"id": 7}, "the parameter 'id' of a call must be text, not int"),
        ("wss://a.example", {7: "id"}, "the parameter '7' of a call must be text, not int"),
    ],
)
def test_what_is_no_text_is_told_in_one_sentence(name: str, url: Any, parameters: Any, told: str) -> None:
    with pytest.raises(TypeError) as caught:
        CARRIERS[name].connect_answer(url, parameters)
    assert str(caught.value) == told


@pytest.mark.parametrize("secret", ["", None, b"bytes"])
def test_no_request_is_checked_without_a_secret(name: str, secret: Any) -> None:
    """Anybody can make a signature with an empty secret."""
    headers = {
        **SIGNED_HEADERS,
        "Telnyx-Signature-Ed25519": "s",
        "Telnyx-Timestamp": "0",
        "Authorization": "Bearer a.b.c",
    }
    request = SignedRequest(method="POST", url="https://a.example/", headers=headers)
    with pytest.raises(LocalProtocolError, match=r"there is no secret .*; set it|not an Ed25519 key"):
        CARRIERS[name].verify(request, secret, now=0.0)


SIGNED_HEADERS = {
    "X-Twilio-Signature": "s",
    "X-Plivo-Signature-V3": "s",
    "X-Plivo-Signature-V3-Nonce": "n",
}


@pytest.mark.parametrize("name", ["twilio", "plivo"])
def test_a_request_with_an_invalid_url_is_refused(name: str) -> None:
    request = SignedRequest(method="POST", url="https://[x", headers=SIGNED_HEADERS)
    with pytest.raises(SignatureError, match="its URL is not valid"):
        CARRIERS[name].verify(request, "s", now=0.0)


def test_no_number_digit_or_audio_is_shown(name: str) -> None:
    stream = CARRIERS[name]()
    shown = "".join(
        repr(event)
        for message in lines.CALLS[name]()
        for event in stream.receive_message(lines.on_the_wire(message))
    )
    assert "5550100" not in shown
    assert "'1'" not in shown
    assert "x00" not in shown
    assert f"CallStarted({name}, call_id=" in shown
    assert "<320 bytes>" in shown or "<640 bytes>" in shown


def test_events_and_errors_survive_pickling(name: str) -> None:
    stream = CARRIERS[name]()
    for message in lines.CALLS[name]():
        for event in stream.receive_message(lines.on_the_wire(message)):
            assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("name", NAMES)
def test_who_signs_the_handshake_of_a_websocket(name: str) -> None:
    signs = CARRIERS[name].signs_websocket
    assert signs(["host"]) == (name == "twilio")
    assert signs(["host", "X-Plivo-Signature-V3"]) == (name in ("twilio", "plivo"))


SECOND_STARTS: dict[str, dict[str, Any]] = {
    "twilio": {"event": "start", "start": {"streamSid": "other"}},
    "telnyx": {
        "event": "start",
        "stream_id": "other",
        "start": {"media_format": {"encoding": "L16", "sample_rate": 48_000}},
    },
    "plivo": {
        "event": "start",
        "start": {"streamId": "other", "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16_000}},
    },
    "vonage": {"event": "websocket:connected", "content-type": "audio/l16;rate=24000"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_second_start_changes_nothing(name: str) -> None:
    once, twice = lines.answered(name), lines.answered(name)
    broken: dict[str, Any] = {"event": "start", "start": {}, "content-type": "audio/x"}
    if name == "vonage":
        broken["event"] = "websocket:connected"
    assert twice.receive_message(json.dumps(broken)) == []
    assert twice.receive_message(json.dumps(SECOND_STARTS[name])) == []
    assert twice.out_of_order == once.out_of_order + 2
    pcm = bytes(range(256)) * 20
    media = next(
        message
        for message in lines.CALLS[name]()
        if isinstance(message, bytes) or message["event"] == "media"
    )
    acts: tuple[Callable[[CarrierStream], object], ...] = (
        lambda stream: stream.audio(pcm),
        lambda stream: stream.flush(),
        lambda stream: stream.mark("1"),
        lambda stream: stream.clear(),
        lambda stream: stream.receive_message(lines.on_the_wire(media)),
    )
    for act in acts:
        assert act(once) == act(twice)
