"""The session at message level, in both roles."""

from __future__ import annotations

import array
import json
import typing
from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    Clear,
    ClientProtocol,
    Close,
    CloseMessage,
    Commit,
    ConnectionClosed,
    EndTurn,
    ErrorFrame,
    Interrupt,
    Interruption,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    Role,
    ServerProtocol,
    ServerToolCall,
    State,
    ToolCall,
    ToolResult,
    ToolStatus,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from speko_anyio.protocol._session import ServerFrame

from .helpers import says

Session = ClientProtocol | ServerProtocol

READY = '{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000}'


def ready_server(**options: Any) -> ServerProtocol:
    """A server that has said ready, with that taken from its outbox."""
    server = ServerProtocol(**options)
    server.send_ready()
    assert len(server.messages_to_send()) == 1
    return server


def either(role: str, **options: Any) -> Session:
    """A session of that role, in which everything may be said."""
    return ClientProtocol(**options) if role == "client" else ready_server(**options)


def received(session: Session, *messages: str | bytes) -> list[object]:
    """The events that these messages give."""
    for message in messages:
        session.receive_message(message)
    events: list[object] = []
    while (event := session.next_event()) is not NEED_DATA:
        events.append(event)
        if isinstance(event, Close):
            break
    return events


both_roles = pytest.mark.parametrize("role", ["client", "server"])


# Verbs and their wire text


CLIENT_VERBS: dict[str, tuple[Callable[[ClientProtocol], None], str | bytes]] = {
    "send_audio": (lambda client: client.send_audio(b"\x01\x00\x02\x00"), b"\x01\x00\x02\x00"),
    "commit": (lambda client: client.commit(), '{"t":"control","action":"commit"}'),
    "clear": (lambda client: client.clear(), '{"t":"control","action":"clear"}'),
    "end_turn": (lambda client: client.end_turn(), '{"t":"control","action":"end_turn"}'),
    "interrupt": (lambda client: client.interrupt(), '{"t":"interrupt"}'),
    "send_tool_result": (
        lambda client: client.send_tool_result("c1", '{"a":1}'),
        '{"t":"tool_result","callId":"c1","output":"{\\"a\\":1}"}',
    ),
}

SERVER_VERBS: dict[str, tuple[Callable[[ServerProtocol], None], str | bytes]] = {
    "send_audio": (lambda server: server.send_audio(b"\x01\x00"), b"\x01\x00"),
    "send_transcript": (
        lambda server: server.send_transcript("user", "h\u00ef", final=True),
        '{"t":"transcript","role":"user","text":"h\u00ef","final":true}',
    ),
    "send_tool_call": (
        lambda server: server.send_tool_call("c2", "f", "{}"),
        '{"t":"tool_call","callId":"c2","name":"f","arguments":"{}"}',
    ),
    "send_server_tool_call": (
        lambda server: server.send_server_tool_call("s1", "f", "failed"),
        '{"t":"server_tool_call","id":"s1","name":"f","status":"failed"}',
    ),
    "send_interruption": (lambda server: server.send_interruption(), '{"t":"interruption","at":"user"}'),
    "send_usage": (
        lambda server: server.send_usage(3, 4),
        '{"t":"usage","inputAudioTokens":3,"outputAudioTokens":4}',
    ),
    "send_error": (
        lambda server: server.send_error("E", "m"),
        '{"t":"error","code":"E","message":"m"}',
    ),
}


def client_with_call(call_id: str = "c1", **options: Any) -> ClientProtocol:
    client = ClientProtocol(**options)
    assert received(client, f'{{"t":"tool_call","callId":"{call_id}"}}') == [ToolCall(call_id)]
    return client


@pytest.mark.parametrize(("verb", "wire"), CLIENT_VERBS.values(), ids=CLIENT_VERBS.keys())
def test_a_clients_verb(verb: Callable[[ClientProtocol], None], wire: str | bytes) -> None:
    client = client_with_call()
    verb(client)
    assert (client.has_output, client.messages_to_send(), client.has_output) == (True, [wire], False)
    assert client.messages_to_send() == []


@pytest.mark.parametrize(("verb", "wire"), SERVER_VERBS.values(), ids=SERVER_VERBS.keys())
def test_a_servers_verb(verb: Callable[[ServerProtocol], None], wire: str | bytes) -> None:
    server = ready_server()
    verb(server)
    assert server.messages_to_send() == [wire]


def test_every_value_that_the_protocol_knows_may_be_said() -> None:
    server = ready_server()
    roles: tuple[Role, ...] = typing.get_args(Role)
    statuses: tuple[ToolStatus, ...] = typing.get_args(ToolStatus)
    for role in roles:
        server.send_transcript(role, "x", final=False)
        server.send_interruption(role)
    for status in statuses:
        server.send_server_tool_call("s", "f", status)
    server.send_usage(0, 0)
    said = [json.loads(message) for message in server.messages_to_send() if isinstance(message, str)]
    assert [message.get("role") or message.get("at") or message.get("status") for message in said] == [
        *("user", "user", "assistant", "assistant"),
        *("started", "completed", "failed"),
        None,
    ]


def test_ready_says_the_sessions_rates() -> None:
    server = ServerProtocol(input_sample_rate=16_000, output_sample_rate=24_000)
    server.send_ready()
    assert server.messages_to_send() == ['{"t":"ready","inputSampleRate":16000,"outputSampleRate":24000}']


def test_what_is_queued_keeps_its_order() -> None:
    client = ClientProtocol()
    client.send_audio(b"ab")
    client.commit()
    client.send_audio(b"cd")
    client.close(1000, "bye")
    assert client.messages_to_send() == [
        b"ab",
        '{"t":"control","action":"commit"}',
        b"cd",
        CloseMessage(1000, "bye"),
    ]


def test_a_server_announces_its_close_with_the_whole_reason() -> None:
    server = ready_server()
    reason = "because " * 40
    server.close(1000, reason)
    assert server.messages_to_send() == [
        f'{{"t":"end","reason":"{reason}"}}',
        CloseMessage(1000, reason[:123]),
    ]


# What the peer says


def test_every_frame_reaches_the_client() -> None:
    assert received(
        ClientProtocol(),
        READY,
        '{"t":"transcript","role":"user","text":"hi","final":true}',
        b"ab",
        '{"t":"tool_call","callId":"c1","name":"f","arguments":"{}"}',
        '{"t":"server_tool_call","id":"s1","name":"g","status":"completed"}',
        '{"t":"interruption","at":"assistant"}',
        '{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}',
        '{"t":"error","code":"E","message":"m"}',
        '{"t":"brand_new","x":1}',
    ) == [
        Ready(24_000, 24_000),
        Transcript("user", "hi", True),
        Audio(b"ab", 24_000),
        ToolCall("c1", "f", "{}"),
        ServerToolCall("s1", "g", "completed"),
        Interruption("assistant"),
        ResponseEnd("interrupted"),
        Usage(1, 2),
        ErrorFrame("E", "m"),
        Unknown("brand_new", '{"t":"brand_new","x":1}'),
    ]


def test_every_command_reaches_the_server() -> None:
    server = ready_server(input_sample_rate=16_000)
    server.send_tool_call("c1", "f", "{}")
    assert received(
        server,
        b"ab",
        '{"t":"control","action":"commit"}',
        '{"t":"control","action":"clear"}',
        '{"t":"control","action":"end_turn"}',
        '{"t":"control","action":"pause"}',
        '{"t":"interrupt"}',
        '{"t":"tool_result","callId":"c1","output":"42"}',
        '{"t":"brand_new"}',
    ) == [
        AudioIn(b"ab", 16_000),
        Commit(),
        Clear(),
        EndTurn(),
        Unknown("control", '{"t":"control","action":"pause"}'),
        Interrupt(),
        ToolResult("c1", "42"),
        Unknown("brand_new", '{"t":"brand_new"}'),
    ]


@both_roles
@pytest.mark.parametrize(
    "text", ["", "[]", '{"x":1}', '{"t":"tool_call","callId":1}', '{"t":"tool_result"', "\ud800"]
)
def test_a_malformed_message_ends_the_session(role: str, text: str) -> None:
    if role == "server":
        text = text.replace("tool_call", "tool_result")
    session = either(role)
    (close,) = received(session, text)
    assert isinstance(close, Close)
    assert (close.code, close.initiated_by) == (1007, "local")
    assert close.reason.startswith("the peer sent a text message that is not of this protocol: ")
    assert session.messages_to_send() == [CloseMessage(1007, close.reason)]
    with pytest.raises(RemoteProtocolError) as caught:
        session.next_event()
    assert (caught.value.close_code, str(caught.value)) == (1007, close.reason)


def test_what_preceded_a_malformed_message_is_delivered_first() -> None:
    events = received(ClientProtocol(), b"ab", '{"t":"error"}', "junk", b"after")
    assert events[:2] == [Audio(b"ab", 24_000), ErrorFrame()]
    assert isinstance(events[2], Close)


@both_roles
@pytest.mark.parametrize(
    ("message", "kind"), [(b"x" * 11, "binary"), ("x" * 11, "text"), ("\u00e9" * 6, "text")]
)
def test_a_message_over_its_limit_ends_the_session(role: str, message: str | bytes, kind: str) -> None:
    session = either(role, limits=Limits(max_message_size=10, max_text_size=10))
    reason = f"the peer sent a {kind} message of more than 10 bytes"
    assert received(session, message) == [Close(1009, reason, "local")]
    assert session.messages_to_send() == [CloseMessage(1009, reason)]


def test_a_message_of_exactly_its_limit_passes() -> None:
    text = '{"t":"\u00e9"}'
    client = ClientProtocol(limits=Limits(max_message_size=10, max_text_size=len(text.encode())))
    assert received(client, b"x" * 10, text) == [Audio(b"x" * 10, 24_000), Unknown("\u00e9", text)]


@both_roles
def test_nesting_has_its_limit(role: str) -> None:
    session = either(role, limits=Limits(max_json_depth=3))
    assert received(session, '{"t":"new","x":[[0]]}') == [Unknown("new", '{"t":"new","x":[[0]]}')]
    (close,) = received(session, '{"t":"new","x":[[[0]]]}')
    assert isinstance(close, Close)
    assert (close.code, close.reason.rsplit(": ")[-1]) == (1007, "it is nested deeper than 3 levels")


# Ready


def test_a_server_says_ready_first() -> None:
    for name, (verb, _) in SERVER_VERBS.items():
        if name == "send_error":
            continue
        server = ServerProtocol()
        with says("ready was not sent yet; call send_ready() first"):
            verb(server)
        assert not server.has_output
        server.send_ready()
        verb(server)
        assert len(server.messages_to_send()) == 2


def test_an_error_and_a_close_may_come_before_ready() -> None:
    server = ServerProtocol()
    server.send_error("E", "no model")
    server.close(1011, "no model")
    assert server.messages_to_send() == [
        '{"t":"error","code":"E","message":"no model"}',
        '{"t":"end","reason":"no model"}',
        CloseMessage(1011, "no model"),
    ]


def test_ready_is_said_once() -> None:
    server = ready_server()
    with says("ready was sent already; a session has one"):
        server.send_ready()
    assert not server.has_output


def test_a_client_may_talk_before_ready() -> None:
    client = ClientProtocol()
    client.send_audio(b"ab")
    client.commit()
    assert len(client.messages_to_send()) == 2


def test_before_ready_the_sessions_rates_count() -> None:
    rates: dict[str, Any] = {"input_sample_rate": 16_000, "output_sample_rate": 48_000}
    assert received(ClientProtocol(**rates), b"ab") == [Audio(b"ab", 48_000)]
    assert received(ready_server(**rates), b"ab") == [AudioIn(b"ab", 16_000)]


def test_readys_rates_win() -> None:
    client = ClientProtocol(input_sample_rate=24_000, output_sample_rate=24_000)
    events = received(client, b"ab", '{"t":"ready","inputSampleRate":16000,"outputSampleRate":48000}', b"cd")
    assert events == [Audio(b"ab", 24_000), Ready(16_000, 48_000), Audio(b"cd", 48_000)]
    assert (client.input_sample_rate, client.output_sample_rate) == (16_000, 48_000)


def test_a_rate_that_ready_does_not_say_is_the_sessions() -> None:
    client = ClientProtocol(input_sample_rate=16_000, output_sample_rate=24_000)
    assert received(client, '{"t":"ready"}') == [Ready(16_000, 24_000)]
    assert received(client, '{"t":"ready","outputSampleRate":16000}') == [Ready(16_000, 16_000)]


@pytest.mark.parametrize("rate", [MIN_SAMPLE_RATE, MAX_SAMPLE_RATE])
def test_unusual_rates_are_the_peers_business(rate: int) -> None:
    text = f'{{"t":"ready","inputSampleRate":{rate},"outputSampleRate":{rate}}}'
    assert received(ClientProtocol(), text) == [Ready(rate, rate)]


@pytest.mark.parametrize("field", ["inputSampleRate", "outputSampleRate"])
@pytest.mark.parametrize("rate", ["-1", "1", str(MIN_SAMPLE_RATE - 1), str(MAX_SAMPLE_RATE + 1), "9" * 30])
def test_impossible_rates_end_the_session(field: str, rate: str) -> None:
    client = ClientProtocol()
    (close,) = received(client, f'{{"t":"ready","{field}":{rate}}}')
    assert isinstance(close, Close)
    assert close.code == 1007
    assert f"are not between {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE}" in close.reason
    assert (client.input_sample_rate, client.output_sample_rate) == (24_000, 24_000)


def test_a_reason_is_short_whatever_the_peer_sent() -> None:
    (close,) = received(ClientProtocol(), f'{{"t":"ready","inputSampleRate":{"9" * 4000}}}')
    assert isinstance(close, Close)
    assert len(close.reason) < 1000


# Tool calls


def test_calls_are_answered_in_any_order() -> None:
    client = ClientProtocol()
    received(client, *(f'{{"t":"tool_call","callId":"{call_id}"}}' for call_id in "abc"))
    assert list(client.open_calls) == ["a", "b", "c"]
    client.send_tool_result("c", "3")
    client.send_tool_result("a", "1")
    assert list(client.open_calls) == ["b"]


@pytest.mark.parametrize("call_id", ["other", "", "C1"])
def test_a_result_for_an_unknown_call_is_refused(call_id: str) -> None:
    client = client_with_call("c1")
    with says(f"no tool call '{call_id}' is open; answer each received call once, by its own id"):
        client.send_tool_result(call_id, "x")
    assert not client.has_output
    assert list(client.open_calls) == ["c1"]


def test_a_second_result_is_refused() -> None:
    client = client_with_call("c1")
    client.send_tool_result("c1", "x")
    with pytest.raises(LocalProtocolError, match="no tool call 'c1' is open"):
        client.send_tool_result("c1", "y")
    assert len(client.messages_to_send()) == 1


def test_a_repeated_call_is_visible_and_opens_nothing() -> None:
    repeat = '{"t":"tool_call","callId":"c1","name":"again"}'
    client = client_with_call("c1")
    assert received(client, repeat) == [Unknown("tool_call", repeat)]
    assert list(client.open_calls) == ["c1"]


def test_an_answered_id_may_come_again() -> None:
    client = client_with_call("c1")
    client.send_tool_result("c1", "x")
    assert received(client, '{"t":"tool_call","callId":"c1"}') == [ToolCall("c1")]
    assert list(client.open_calls) == ["c1"]


def test_an_interruption_makes_calls_moot_which_may_be_answered_still() -> None:
    client = client_with_call("c1")
    received(client, '{"t":"interruption"}')
    assert list(client.open_calls) == []
    client.send_tool_result("c1", "late")
    assert client.messages_to_send() == ['{"t":"tool_result","callId":"c1","output":"late"}']


def test_a_peer_with_too_many_calls_ends_the_session() -> None:
    client = ClientProtocol(limits=Limits(max_open_calls=2))
    events = received(client, *(f'{{"t":"tool_call","callId":"{call_id}"}}' for call_id in "abc"))
    reason = "the peer has 2 tool calls open and issued another"
    assert events == [ToolCall("a"), ToolCall("b"), Close(1008, reason, "local")]
    assert client.messages_to_send() == [CloseMessage(1008, reason)]


def test_an_interruption_makes_room_for_calls() -> None:
    client = ClientProtocol(limits=Limits(max_open_calls=1))
    call = '{{"t":"tool_call","callId":"{}"}}'
    events = received(client, call.format("a"), '{"t":"interruption"}', call.format("b"))
    assert events == [ToolCall("a"), Interruption(), ToolCall("b")]


def test_a_server_gives_each_call_its_own_id() -> None:
    server = ready_server()
    server.send_tool_call("c1", "f", "{}")
    with says("tool call 'c1' has no result yet; give each call its own id"):
        server.send_tool_call("c1", "g", "{}")
    assert len(server.messages_to_send()) == 1
    assert list(server.open_calls) == ["c1"]


def test_a_moot_calls_id_is_not_used_again_before_its_result() -> None:
    server = ready_server()
    server.send_tool_call("c1", "f", "{}")
    server.send_interruption()
    server.messages_to_send()
    with says("tool call 'c1' has no result yet; give each call its own id"):
        server.send_tool_call("c1", "g", "{}")
    assert not server.has_output
    result = '{"t":"tool_result","callId":"c1","output":"x"}'
    assert received(server, result) == [ToolResult("c1", "x")]
    server.send_tool_call("c1", "g", "{}")
    assert list(server.open_calls) == ["c1"]


def test_a_server_waits_for_results() -> None:
    server = ready_server(limits=Limits(max_open_calls=1))
    server.send_tool_call("c1", "f", "{}")
    with says("1 tool calls are open; wait for a result before the next one"):
        server.send_tool_call("c2", "f", "{}")
    assert received(server, '{"t":"tool_result","callId":"c1","output":"x"}') == [ToolResult("c1", "x")]
    server.send_tool_call("c2", "f", "{}")
    assert list(server.open_calls) == ["c2"]


def test_a_result_that_answers_nothing_is_visible_but_no_result() -> None:
    server = ready_server()
    server.send_tool_call("c1", "f", "{}")
    result = '{"t":"tool_result","callId":"c1","output":"x"}'
    other = '{"t":"tool_result","callId":"c9","output":"x"}'
    assert received(server, other, result, result) == [
        Unknown("tool_result", other),
        ToolResult("c1", "x"),
        Unknown("tool_result", result),
    ]


def test_a_result_may_cross_an_interruption() -> None:
    server = ready_server()
    server.send_tool_call("c1", "f", "{}")
    server.send_interruption()
    assert list(server.open_calls) == []
    assert received(server, '{"t":"tool_result","callId":"c1","output":"x"}') == [ToolResult("c1", "x")]


# Interruption


def test_an_interruption_overtakes_the_audio_that_is_still_queued() -> None:
    server = ready_server()
    server.send_audio(b"ab")
    server.send_transcript("assistant", "so", final=False)
    server.send_audio(b"cd")
    server.send_interruption("assistant")
    server.send_audio(b"ef")
    assert server.messages_to_send() == [
        '{"t":"transcript","role":"assistant","text":"so","final":false}',
        '{"t":"interruption","at":"assistant"}',
        b"ef",
    ]


def test_dropped_audio_makes_room_in_the_outbox() -> None:
    server = ready_server(limits=Limits(max_outbox=100))
    server.send_audio(bytes(60))
    server.send_interruption()
    server.send_audio(bytes(60))
    with pytest.raises(LocalProtocolError):
        server.send_audio(bytes(60))


def test_an_interruption_is_not_held_to_the_limit_of_the_outbox() -> None:
    server = ready_server(limits=Limits(max_outbox=100))
    error = '{"t":"error","code":"E","message":"' + "x" * 63 + '"}'
    server.send_error("E", "x" * 63)
    assert len(error) == 100
    server.send_interruption("user")
    server.send_interruption("assistant")
    with pytest.raises(LocalProtocolError, match=r"100 bytes \(max_outbox\)"):
        server.send_error("E", "m")
    assert server.messages_to_send() == [
        error,
        '{"t":"interruption","at":"user"}',
        '{"t":"interruption","at":"assistant"}',
    ]


def test_interruptions_that_a_client_does_not_read_do_not_pile_up() -> None:
    server = ready_server()
    for _ in range(3):
        server.send_audio(b"ab")
        server.send_interruption()
    assert server.messages_to_send() == ['{"t":"interruption","at":"user"}']
    server.send_interruption()  # that one was read
    server.send_interruption("assistant")
    server.send_transcript("user", "so", final=True)
    server.send_interruption("assistant")
    assert [json.loads(str(message))["t"] for message in server.messages_to_send()] == [
        "interruption",
        "interruption",
        "transcript",
        "interruption",
    ]


def test_an_interruption_counts_in_the_outbox() -> None:
    server = ready_server(limits=Limits(max_outbox=100))
    server.send_interruption()
    server.send_audio(bytes(100 - len('{"t":"interruption","at":"user"}')))
    with pytest.raises(LocalProtocolError, match=r"100 bytes \(max_outbox\)"):
        server.send_audio(bytes(2))


# One message at a time


def test_messages_can_be_taken_one_at_a_time() -> None:
    server = ready_server()
    assert server.next_message() is None
    server.send_audio(b"abcd")
    server.send_transcript("assistant", "é", final=True)
    server.send_audio(b"ef")
    said = '{"t":"transcript","role":"assistant","text":"é","final":true}'
    assert server.queued == 6 + len(said.encode())
    assert server.next_message() == b"abcd"
    assert server.queued == 2 + len(said.encode())
    assert server.next_message() == said
    assert server.queued == 2
    assert server.next_message() == b"ef"
    assert server.queued == 0
    assert server.next_message() is None


def test_an_interruption_overtakes_what_was_not_taken_yet() -> None:
    server = ready_server()
    server.send_audio(b"ab")
    server.send_audio(b"cd")
    assert server.next_message() == b"ab"
    server.send_interruption()
    assert server.next_message() == '{"t":"interruption","at":"user"}'
    assert server.next_message() is None


def test_the_goodbye_is_the_last_message() -> None:
    server = ready_server()
    server.send_audio(b"ab")
    server.close(1000, "done")
    taken = [server.next_message() for _ in range(4)]
    assert taken == [b"ab", '{"t":"end","reason":"done"}', CloseMessage(1000, "done"), None]
    assert server.queued == 0


def test_calls_can_be_withdrawn_until_they_are_taken() -> None:
    server = ready_server(limits=Limits(max_outbox=200))
    server.send_tool_call("c1", "f", "{}")
    assert server.next_message() is not None
    server.send_tool_call("c2", "é", "{}")
    server.send_server_tool_call("s1", "f", "started")
    server.send_audio(b"ab")
    server.withdraw_calls()
    assert server.messages_to_send() == [
        '{"t":"server_tool_call","id":"s1","name":"f","status":"started"}',
        b"ab",
    ]
    server.send_tool_call("c3", "f", "{}")
    server.withdraw_calls()
    server.send_audio(bytes(200))
    assert server.queued == 200


def test_any_frame_is_sent_by_its_verb() -> None:
    server = ready_server(extensions=["usage"])
    server.receive_message('{"t":"extensions","use":["usage"]}')
    frames: list[ServerFrame] = [
        Audio(b"ab", 24_000),
        Transcript("assistant", "so", True),
        ToolCall("c1", "f", "{}"),
        ServerToolCall("s1", "f", "started"),
        Interruption("assistant"),
        Usage(1, 2),
        ResponseEnd("done"),
        ErrorFrame("E", "m"),
        Audio(b"cd", 24_000),
        Close(1000, "bye", "local"),
    ]
    for frame in frames:
        server.send(frame)
    client = ClientProtocol()
    *messages, close = server.messages_to_send()
    assert isinstance(close, CloseMessage)
    client.receive_message('{"t":"ready","extensions":["usage"]}')
    for message in messages:
        assert not isinstance(message, CloseMessage)
        client.receive_message(message)
    client.receive_close(close.code, close.reason)
    heard = list(iter(client.next_event, Close(1000, "bye", "remote")))
    assert heard[1:] == frames[1:-1]
    with pytest.raises(ConnectionClosed):
        server.send(Usage(1, 2))


# Audio and its alignment


@both_roles
def test_an_odd_byte_is_carried_into_the_next_message(role: str) -> None:
    session = either(role)
    kind = Audio if role == "client" else AudioIn
    assert received(session, b"abc", b"d", b"", b"e", b"f", b"gh") == [
        kind(b"ab", 24_000),
        kind(b"cd", 24_000),
        kind(b"ef", 24_000),
        kind(b"gh", 24_000),
    ]


def test_the_two_directions_do_not_share_their_odd_byte() -> None:
    client, server = ClientProtocol(), ready_server()
    assert received(client, b"a") == received(server, b"x") == []
    client.send_audio(b"cd")
    server.send_audio(b"yz")
    assert received(client, *server.messages_to_send()) == [Audio(b"ay", 24_000)]  # type: ignore[arg-type]
    assert received(server, *client.messages_to_send()) == [AudioIn(b"xc", 24_000)]  # type: ignore[arg-type]


def test_an_interruption_forgets_half_a_sample() -> None:
    assert received(ClientProtocol(), b"abc", '{"t":"interruption"}', b"def", b"g") == [
        Audio(b"ab", 24_000),
        Interruption(),
        ResponseEnd("interrupted"),
        Audio(b"de", 24_000),
        Audio(b"fg", 24_000),
    ]


@pytest.mark.parametrize("action", ["commit", "clear", "end_turn"])
def test_a_new_turn_begins_on_a_whole_sample(action: str) -> None:
    events = received(ready_server(), b"abc", f'{{"t":"control","action":"{action}"}}', b"def", b"g")
    assert [events[0], *events[2:]] == [AudioIn(pcm, 24_000) for pcm in (b"ab", b"de", b"fg")]


@both_roles
@pytest.mark.parametrize("size", [1, 127, 961, MAX_AUDIO_MESSAGE + 1])
def test_an_odd_number_of_bytes_is_not_sent(role: str, size: int) -> None:
    session = either(role)
    with says(
        f"audio is PCM16, two bytes a sample, but this has {size} bytes; "
        "send whole samples and keep the odd byte for the next call"
    ):
        session.send_audio(bytes(size))
    assert not session.has_output


@both_roles
def test_no_audio_is_no_message(role: str) -> None:
    session = either(role)
    session.send_audio(b"")
    assert not session.has_output


@both_roles
@pytest.mark.parametrize(
    "pcm",
    [
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(array.array("h", [0x6261, 0x6463])),
        memoryview(b"a-b-c-d-")[::2],
    ],
    ids=["bytearray", "memoryview", "of shorts", "strided"],
)
def test_any_buffer_is_taken_by_its_bytes(role: str, pcm: bytearray | memoryview) -> None:
    session = either(role)
    session.send_audio(pcm)
    assert session.messages_to_send() == [b"abcd"]


@both_roles
def test_a_buffer_may_change_once_it_is_queued(role: str) -> None:
    session = either(role)
    pcm = bytearray(b"abcd")
    session.send_audio(pcm)
    pcm[:] = b"wxyz"
    assert session.messages_to_send() == [b"abcd"]


@both_roles
@pytest.mark.parametrize("pcm", [4, "abcd", None, [1, 2]], ids=str)
def test_what_is_no_buffer_is_not_audio(role: str, pcm: Any) -> None:
    session = either(role)
    with pytest.raises(TypeError):
        session.send_audio(pcm)
    assert not session.has_output


@both_roles
def test_much_audio_is_split(role: str) -> None:
    session = either(role)
    pcm = bytes(range(256)) * (MAX_AUDIO_MESSAGE // 64)
    session.send_audio(pcm + b"ab")
    pieces = session.messages_to_send()
    assert [len(piece) for piece in pieces if isinstance(piece, bytes)] == [MAX_AUDIO_MESSAGE] * 4 + [2]
    assert b"".join(pieces) == pcm + b"ab"  # type: ignore[arg-type]


# Limits of the outbox


@both_roles
def test_the_outbox_is_full_at_its_limit(role: str) -> None:
    session = either(role, limits=Limits(max_outbox=100))
    session.send_audio(bytes(40))
    session.send_audio(bytes(60))
    with says(
        "more than 100 bytes (max_outbox) would wait to be sent; "
        "pass less at a time, or wait until the transport has taken what came before"
    ):
        session.send_audio(bytes(2))
    assert session.messages_to_send() == [bytes(40), bytes(60)]
    session.send_audio(bytes(100))


def test_audio_that_does_not_fit_is_not_sent_in_part() -> None:
    client = ClientProtocol(limits=Limits(max_outbox=2 * MAX_AUDIO_MESSAGE))
    with pytest.raises(LocalProtocolError):
        client.send_audio(bytes(3 * MAX_AUDIO_MESSAGE))
    assert not client.has_output


def test_text_counts_too_and_a_refused_result_leaves_its_call_open() -> None:
    client = client_with_call("c1", limits=Limits(max_outbox=60))
    with pytest.raises(LocalProtocolError, match="would wait to be sent"):
        client.send_tool_result("c1", "x" * 60)
    assert list(client.open_calls) == ["c1"]
    client.send_tool_result("c1", "x")
    assert list(client.open_calls) == []


def test_a_refused_call_is_not_open() -> None:
    server = ready_server(limits=Limits(max_outbox=100))
    with pytest.raises(LocalProtocolError):
        server.send_tool_call("c1", "f", "x" * 100)
    assert list(server.open_calls) == []
    server.send_tool_call("c1", "f", "x")


def test_a_refused_ready_was_not_said() -> None:
    server = ServerProtocol(limits=Limits(max_outbox=100))
    server.send_error("E", "x" * 50)
    with pytest.raises(LocalProtocolError, match="outbox"):
        server.send_ready()
    server.messages_to_send()
    server.send_ready()
    server.send_audio(b"ab")
    assert server.messages_to_send() == [READY, b"ab"]


@both_roles
def test_a_goodbye_fits_always(role: str) -> None:
    session = either(role, limits=Limits(max_outbox=100))
    session.send_audio(bytes(100))
    session.close(1000, "bye")
    assert session.messages_to_send()[-1] == CloseMessage(1000, "bye")


# What callers get wrong: nothing is sent or changed


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda server: server.send_transcript("system", "x", final=True),
            "role must be one of user, assistant, not 'system'",
        ),
        (
            lambda server: server.send_server_tool_call("s", "f", "queued"),
            "status must be one of started, completed, failed, not 'queued'",
        ),
        (
            lambda server: server.send_interruption("nobody"),
            "at must be one of user, assistant, not 'nobody'",
        ),
        (
            lambda server: server.send_usage("1", 2),
            "input_audio_tokens must be a whole number, 0 or more, not '1'",
        ),
        (
            lambda server: server.send_usage(1.5, 2),
            "input_audio_tokens must be a whole number, 0 or more, not 1.5",
        ),
        (
            lambda server: server.send_usage(0, -1),
            "output_audio_tokens must be a whole number, 0 or more, not -1",
        ),
        (
            lambda server: server.send_usage(0, True),
            "output_audio_tokens must be a whole number, 0 or more, not True",
        ),
    ],
)
def test_values_outside_the_protocol_are_refused(call: Callable[[Any], None], text: str) -> None:
    server = ready_server()
    server.send_audio(b"ab")
    with says(text):
        call(server)
    assert server.messages_to_send() == [b"ab"]


@pytest.mark.parametrize(
    ("call", "name", "kind"),
    [
        (lambda server: server.send_transcript("user", None, final=True), "text", "NoneType"),
        (lambda server: server.send_tool_call(1, "f", "{}"), "call_id", "int"),
        (lambda server: server.send_tool_call("c", None, "{}"), "name", "NoneType"),
        (lambda server: server.send_tool_call("c", "f", {"a": 1}), "arguments", "dict"),
        (lambda server: server.send_server_tool_call(1, "f", "started"), "id", "int"),
        (lambda server: server.send_server_tool_call("s", b"f", "started"), "name", "bytes"),
        (lambda server: server.send_error(500, "m"), "code", "int"),
        (lambda server: server.send_error("E", ValueError("m")), "message", "ValueError"),
    ],
)
def test_what_is_not_text_is_refused(call: Callable[[Any], None], name: str, kind: str) -> None:
    server = ready_server()
    with says(f"{name} must be a str, not {kind}; pass structured data as JSON text", TypeError):
        call(server)
    assert not server.has_output
    assert list(server.open_calls) == []


@pytest.mark.parametrize(
    ("call_id", "output", "name"), [(1, "x", "call_id"), ("c1", {"a": 1}, "output"), ("c1", None, "output")]
)
def test_a_result_is_text(call_id: Any, output: Any, name: str) -> None:
    client = client_with_call("c1")
    with pytest.raises(TypeError, match=f"^{name} must be a str, not"):
        client.send_tool_result(call_id, output)
    assert list(client.open_calls) == ["c1"]


def test_a_flag_is_no_text_and_no_number() -> None:
    server: Any = ready_server()
    for final, kind in (("yes", "str"), (1, "int"), (None, "NoneType")):
        with says(f"final must be a bool, not {kind}", TypeError):
            server.send_transcript("user", "x", final=final)
    assert not server.has_output


def test_half_of_a_surrogate_pair_is_refused() -> None:
    client = client_with_call("c1")
    text = "the text holds half of a surrogate pair, which UTF-8 can't carry; send whole characters"
    with says(text):
        client.send_tool_result("c1", "\ud800")
    assert list(client.open_calls) == ["c1"]
    server = ready_server()
    with says(text):
        server.send_transcript("user", "\ud800", final=True)
    assert not client.has_output
    assert not server.has_output


# After the end, or a goodbye


@pytest.mark.parametrize("verb", [verb for verb, _ in CLIENT_VERBS.values()], ids=CLIENT_VERBS.keys())
@pytest.mark.parametrize("over", ["goodbye", "closed", "end", "end and goodbye"])
def test_a_client_says_nothing_after_it_is_over(verb: Callable[[ClientProtocol], None], over: str) -> None:
    client = client_with_call()
    ended_by_the_peer = over.startswith("end")
    if ended_by_the_peer:
        client.receive_message('{"t":"end","reason":"done"}')
    if over != "end":
        client.close(1000, "bye" if ended_by_the_peer else "done")
    if over == "closed":
        client.receive_close(1000)
    queued = client.messages_to_send()
    who = "the peer" if ended_by_the_peer else "this side"
    for _ in range(10):
        with pytest.raises(ConnectionClosed, match=f"by {who} with code 1000: done; open a new one"):
            verb(client)
    assert not client.has_output
    goodbyes = {"goodbye": [CloseMessage(1000, "done")], "end and goodbye": [CloseMessage(1000, "bye")]}
    # What nobody took before the peer's close, nobody hears.
    assert queued == goodbyes.get(over, [])
    assert list(client.open_calls) == ["c1"]


@pytest.mark.parametrize("verb", [verb for verb, _ in SERVER_VERBS.values()], ids=SERVER_VERBS.keys())
@pytest.mark.parametrize("over", ["goodbye", "closed"])
def test_a_server_says_nothing_after_it_is_over(verb: Callable[[ServerProtocol], None], over: str) -> None:
    server = ready_server()
    server.close(1000, "done")
    if over == "closed":
        server.receive_close(1000)
    server.messages_to_send()
    for _ in range(10):
        with pytest.raises(ConnectionClosed, match="with code 1000: done; open a new one"):
            verb(server)
    assert not server.has_output


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(
            lambda server: server.send_ready(),
        ),
        pytest.param(
            lambda server: server.send_tool_call("c1", "f", "{}"),
        ),
        lambda server: server.send_audio(b"odd"),
    ],
    ids=["ready", "tool call", "audio"],
)
def test_after_the_end_no_other_rule_matters(call: Callable[[ServerProtocol], None]) -> None:
    server = ready_server()
    server.send_tool_call("c1", "f", "{}")
    server.receive_lost()
    with pytest.raises(ConnectionClosed):
        call(server)


def test_a_server_that_never_was_ready_says_why_it_ended() -> None:
    server = ServerProtocol()
    server.receive_close(1001, "going")
    with pytest.raises(ConnectionClosed, match="the session was ended by the peer with code 1001: going"):
        server.send_audio(b"ab")


# End and close


def test_the_reason_of_end_becomes_the_reason_of_close() -> None:
    client = ClientProtocol()
    assert received(client, '{"t":"end","reason":"the whole reason"}') == []
    assert client.state is State.CLOSING
    client.receive_close(1000, "the who")
    assert received(client) == [Close(1000, "the whole reason", "remote")]


def test_an_empty_end_counts() -> None:
    client = ClientProtocol()
    client.receive_message('{"t":"end"}')
    client.receive_close(1000, "from the close frame")
    assert client.closed == Close(1000, "", "remote")


def test_what_comes_between_end_and_close_is_delivered() -> None:
    client = ClientProtocol()
    assert received(client, '{"t":"end","reason":"done"}', b"ab", '{"t":"usage"}') == [
        Audio(b"ab", 24_000),
        Usage(),
        ResponseEnd("done"),
    ]


def test_after_end_a_lost_transport_is_the_peers_doing() -> None:
    client = ClientProtocol()
    client.receive_message('{"t":"end","reason":"done"}')
    client.receive_lost()
    assert client.closed == Close(1006, "done", "remote")


def test_a_goodbye_after_end_does_not_hide_who_ended_it() -> None:
    client = ClientProtocol()
    client.receive_message('{"t":"end","reason":"session_expired"}')
    client.close(1000, "client_closed")
    client.receive_close(1000, "session_expired")
    assert client.closed == Close(1000, "session_expired", "remote")


def test_further_ends_do_not_keep_a_session_alive() -> None:
    client = ClientProtocol(close_timeout=5.0)
    for now in range(20):
        client.receive_message('{"t":"end"}')
        client.handle_timeout(float(now))
    assert client.state is State.CLOSED


def test_end_means_nothing_to_a_server() -> None:
    assert received(ready_server(), '{"t":"end","reason":"x"}') == [
        Unknown("end", '{"t":"end","reason":"x"}')
    ]


@both_roles
def test_audio_has_the_rate_of_its_direction_before_any_ready(role: str) -> None:
    if role == "client":
        client = ClientProtocol(input_sample_rate=16_000, output_sample_rate=24_000)
        assert received(client, b"ab") == [Audio(b"ab", 24_000)]
    else:
        server = ServerProtocol(input_sample_rate=16_000, output_sample_rate=24_000)
        assert received(server, b"ab") == [AudioIn(b"ab", 16_000)]


@pytest.mark.parametrize("kind", [ClientProtocol, ServerProtocol])
@pytest.mark.parametrize("rate", [0, -1, 1, MIN_SAMPLE_RATE - 1, MAX_SAMPLE_RATE + 1])
def test_a_session_can_not_be_made_with_an_impossible_rate(kind: type[Session], rate: int) -> None:
    for side in ("input_sample_rate", "output_sample_rate"):
        with pytest.raises(LocalProtocolError, match="from 8000 to 192000 Hz"):
            kind(**{side: rate})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_what_waits_counts_an_overhead_for_each_message() -> None:
    server = ServerProtocol()
    server.send_ready()
    server.messages_to_send()
    for _ in range(100):
        server.send_audio(b"\0\0")
    assert server.queued == 200
    assert server.queued_memory == 200 + 100 * 64
    server.next_message()
    assert server.queued_memory == 198 + 99 * 64


def test_events_are_replaced_in_the_queue_that_the_byte_level_shares() -> None:
    client = ClientProtocol()
    queue = client.events
    client.receive_message('{"t":"interruption"}')
    client.receive_message(b"\1\2")
    client._replace_events(event for event in client.events if isinstance(event, Audio))
    assert client.events is queue
    assert client.next_event() == Audio(b"\1\2", 24_000)
    assert client.next_event() is NEED_DATA
