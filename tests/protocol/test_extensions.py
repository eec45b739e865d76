"""Extensions of the plain protocol: offered, accepted, and derived where nobody offers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    ClientConnection,
    ClientProtocol,
    Command,
    Commit,
    Frame,
    Interruption,
    LocalProtocolError,
    Ready,
    ResponseEnd,
    ServerConnection,
    ServerProtocol,
    State,
    ToolCall,
    Transcript,
    Unknown,
    UpgradeRequest,
    Usage,
)
from speko_anyio.protocol._session import MAX_HELD_ENDS

TAKE_UP = '{"t":"extensions","use":["usage"]}'
USAGE = '{"t":"usage"}'
INTERRUPTION = '{"t":"interruption","at":"user"}'
CALL = '{"t":"tool_call","callId":"c1","name":"f","arguments":"{}"}'
WORDS = '{"t":"transcript","role":"assistant","text":"hi","final":true}'
PCM = bytes(960)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def received(session: ClientProtocol | ServerProtocol, *messages: str | bytes) -> list[Frame | Command]:
    for message in messages:
        session.receive_message(message)
    events: list[Frame | Command] = []
    while (event := session.next_event()) is not NEED_DATA:
        events.append(event)
    return events


def offering(*names: str) -> ServerProtocol:
    server = ServerProtocol(extensions=names)
    server.send_ready()
    return server


def ready(*names: object) -> str:
    return json.dumps(
        {"t": "ready", "inputSampleRate": 24000, "outputSampleRate": 24000, "extensions": names},
        separators=(",", ":"),
    )


# Offered and accepted


def test_what_is_offered_is_taken_up_once() -> None:
    server, client = offering("usage"), ClientProtocol()
    (offer,) = server.messages_to_send()
    assert offer == ready("usage")
    assert received(client, ready("usage")) == [Ready(24_000, 24_000, ("usage",))]
    assert client.messages_to_send() == [TAKE_UP]
    assert received(client, ready("usage")) == [Ready(24_000, 24_000, ("usage",))]
    assert client.messages_to_send() == []
    # It is not a command of the user, so it gives no event.
    assert received(server, TAKE_UP) == []
    server.send_response_end("incomplete", "max_output_tokens")
    (end,) = server.messages_to_send()
    assert isinstance(end, str)
    assert received(client, end) == [ResponseEnd("incomplete", "max_output_tokens")]


def test_names_that_are_not_known_are_visible_and_not_taken_up() -> None:
    client = ClientProtocol()
    assert received(client, ready("resume", "text")) == [Ready(24_000, 24_000, ("resume", "text"))]
    assert client.messages_to_send() == []
    client = ClientProtocol()
    assert received(client, ready("resume", "usage")) == [Ready(24_000, 24_000, ("resume", "usage"))]
    assert client.messages_to_send() == [TAKE_UP]


def test_a_plain_server_offers_nothing_and_sends_nothing_of_it() -> None:
    server = ServerProtocol()
    server.send_ready()
    server.send_response_end("done")
    assert received(server, TAKE_UP) == [Unknown("extensions", TAKE_UP)]
    server.send_response_end("failed", "why")
    assert server.messages_to_send() == ['{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000}']


def test_a_client_that_takes_nothing_up_sees_the_plain_protocol_and_nothing_piles_up() -> None:
    server = offering("usage")
    server.messages_to_send()
    for _ in range(10_000):
        server.send_response_end("done")
    server.send_usage(1, 2)
    assert server.messages_to_send() == ['{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}']
    received(server, TAKE_UP)
    assert len(server.messages_to_send()) == MAX_HELD_ENDS


def test_ends_that_were_told_before_the_client_could_answer_come_in_their_order() -> None:
    server = offering("usage")
    server.send_response_end("done")
    server.send_response_end("failed", "why")
    server.messages_to_send()
    assert received(server, '{"t":"extensions","use":["new","usage"]}', TAKE_UP) == []
    server.send_response_end("interrupted")
    assert server.messages_to_send() == [
        '{"t":"response","status":"done"}',
        '{"t":"response","status":"failed","reason":"why"}',
        '{"t":"response","status":"interrupted"}',
    ]


def test_nothing_is_sent_on_account_of_it_once_the_session_closes() -> None:
    server = offering("usage")
    server.send_response_end("done")
    server.close()
    server.messages_to_send()
    assert received(server, TAKE_UP) == []
    assert server.messages_to_send() == []
    client = ClientProtocol()
    client.close()
    client.messages_to_send()
    assert received(client, ready("usage")) == [Ready(24_000, 24_000, ("usage",))]
    assert client.messages_to_send() == []


@pytest.mark.parametrize("use", ["null", "true", '"usage"', '{"usage":1}', "[1,null,[]]", "[]"])
def test_what_takes_nothing_up_is_no_error(use: str) -> None:
    server = offering("usage")
    assert received(server, f'{{"t":"extensions","use":{use}}}', '{"t":"extensions"}') == []
    server.messages_to_send()
    server.send_response_end("done")
    assert server.messages_to_send() == []
    assert server.state is State.OPEN


@given(value=JSON)
def test_no_value_of_what_is_offered_costs_the_session(value: Any) -> None:
    text = json.dumps(
        {"t": "ready", "inputSampleRate": 16000, "outputSampleRate": 24000, "extensions": value}
    )
    client = ClientProtocol()
    (event,) = received(client, text)
    assert isinstance(event, Ready)
    assert (event.input_sample_rate, event.output_sample_rate) == (16_000, 24_000)
    names = [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
    assert set(event.extensions) <= set(names)
    assert len(event.extensions) <= 64
    server = offering("usage")
    assert received(server, json.dumps({"t": "extensions", "use": value})) == []


def test_a_ready_with_a_wrong_rate_is_an_error_whatever_it_offers() -> None:
    client = ClientProtocol()
    client.receive_message('{"t":"ready","inputSampleRate":"16000","extensions":[1]}')
    assert client.state is State.CLOSED


@pytest.mark.parametrize("kind", [ServerProtocol, ServerConnection])
def test_only_what_this_version_knows_can_be_offered(kind: Any) -> None:
    with pytest.raises(LocalProtocolError, match="'resume' is not an extension"):
        kind(extensions=["usage", "resume"])


@pytest.mark.parametrize("offers", [(), ("usage",)])
def test_an_end_is_checked_whether_it_is_sent_or_not(offers: tuple[str, ...]) -> None:
    server = offering(*offers)
    with pytest.raises(
        LocalProtocolError, match="status must be one of done, interrupted, incomplete, failed"
    ):
        server.send_response_end("cancelled")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason must be a str"):
        server.send_response_end("failed", None)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="half of a surrogate pair"):
        server.send_response_end("failed", "\ud800")
    with pytest.raises(LocalProtocolError, match="ready was not sent"):
        ServerProtocol(extensions=offers).send_response_end("done")


# Derived with a plain service


def plain_client() -> ClientProtocol:
    client = ClientProtocol()
    received(client, ready())
    assert client.messages_to_send() == []
    return client


def ends(events: list[Frame | Command]) -> list[str]:
    return [event.status for event in events if isinstance(event, ResponseEnd)]


def test_usage_ends_an_answer() -> None:
    assert received(plain_client(), PCM, USAGE, WORDS, USAGE) == [
        Audio(PCM, 24_000),
        Usage(),
        ResponseEnd("done"),
        Transcript("assistant", "hi", True),
        Usage(),
        ResponseEnd("done"),
    ]


def test_an_interrupted_answer_ends_once() -> None:
    assert received(plain_client(), PCM, INTERRUPTION, WORDS, USAGE, PCM, USAGE) == [
        Audio(PCM, 24_000),
        Interruption("user"),
        ResponseEnd("interrupted"),
        Transcript("assistant", "hi", True),
        Usage(),
        Audio(PCM, 24_000),
        Usage(),
        ResponseEnd("done"),
    ]


def test_who_interrupts_what_is_over_ends_nothing() -> None:
    assert ends(received(plain_client(), PCM, USAGE, INTERRUPTION, PCM, USAGE)) == ["done", "done"]


def test_a_cut_answer_without_usage_does_not_take_the_next_one_s() -> None:
    assert ends(received(plain_client(), PCM, INTERRUPTION, PCM, USAGE)) == ["interrupted", "done"]
    assert ends(received(plain_client(), PCM, INTERRUPTION, CALL, USAGE)) == ["interrupted", "done"]


def test_an_end_that_nobody_asked_for_is_unknown() -> None:
    text = '{"t":"response","status":"done"}'
    assert received(plain_client(), PCM, text, USAGE)[1:] == [
        Unknown("response", text),
        Usage(),
        ResponseEnd("done"),
    ]


def test_where_ends_are_told_none_is_derived() -> None:
    client = ClientProtocol()
    assert ends(received(client, ready("usage"), PCM, USAGE, PCM, INTERRUPTION, USAGE)) == []
    assert ends(received(client, '{"t":"response","status":"failed"}')) == ["failed"]


ANSWERS = st.lists(
    st.tuples(
        st.integers(1, 3),  # pieces of audio
        st.sampled_from(["usage", "interruption", "interruption and usage"]),
        st.booleans(),  # a transcript that comes late
    ),
    max_size=6,
)


@given(
    answers=ANSWERS, cuts=st.lists(st.sampled_from([1, 2, 7, 400, 5_000]), min_size=1), offers=st.booleans()
)
def test_every_answer_with_audio_ends_once_also_over_bytes(
    answers: list[tuple[int, str, bool]], cuts: list[int], offers: bool
) -> None:
    server = ServerConnection(extensions=("usage",) if offers else ())
    client = ClientConnection("ws://speko.test/s", "token")
    server.receive_data(client.data_to_send())
    assert isinstance(server.next_event(), UpgradeRequest)
    server.accept()
    server.send_ready()
    expected: list[str] = []
    events: list[Frame | Command] = []
    for pieces, end, late in answers:
        for _ in range(pieces):
            server.send_audio(PCM)
        if end != "usage":
            # The audio that the interruption would drop was sent before.
            events += carry(server, client, cuts)
            server.send_interruption()
        if late:
            server.send_transcript("assistant", "late", final=True)
        if end != "interruption":
            server.send_usage(1, 2)
        expected.append("done" if end == "usage" else "interrupted")
        server.send_response_end("done" if end == "usage" else "interrupted")
    events += carry(server, client, cuts)
    assert ends(events) == expected


def carry(server: ServerConnection, client: ClientConnection, cuts: list[int]) -> list[Frame | Command]:
    """Exchange everything between both sides, in pieces; returns the client's events."""
    events: list[Frame | Command] = []
    for _ in range(3):
        data = server.data_to_send()
        position = number = 0
        while position < len(data):
            size = cuts[number % len(cuts)]
            client.receive_data(data[position : position + size])
            position, number = position + size, number + 1
            while (event := client.next_event()) is not NEED_DATA:
                events.append(event)
        server.receive_data(client.data_to_send())
        assert server.next_event() is NEED_DATA
    return events


def test_the_client_s_own_messages_keep_their_order_behind_it() -> None:
    client = ClientProtocol()
    client.send_audio(PCM)
    received(client, ready("usage"))
    client.commit()
    assert client.messages_to_send() == [PCM, TAKE_UP, '{"t":"control","action":"commit"}']
    server = offering("usage")
    assert received(server, PCM, TAKE_UP, '{"t":"control","action":"commit"}')[1:] == [Commit()]


def test_a_call_under_way_is_no_end() -> None:
    assert received(plain_client(), CALL, INTERRUPTION) == [ToolCall("c1", "f", "{}"), Interruption("user")]
