"""JSON text to frames and commands and back: the documented wire, and everything that is not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from speko_anyio.protocol import (
    Clear,
    Commit,
    EndTurn,
    Error,
    Interrupt,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    ToolCall,
    ToolResult,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol.codec import (
    ClientMessage,
    End,
    MalformedMessage,
    ServerMessage,
    UseExtensions,
    check_depth,
    decode_from_client,
    decode_from_server,
    encode,
    error_text,
)

from .helpers import says

FROM_SERVER: dict[str, ServerMessage] = {
    '{"t":"ready","inputSampleRate":16000,"outputSampleRate":24000}': Ready(16000, 24000),
    '{"t":"ready","inputSampleRate":16000,"outputSampleRate":24000,"extensions":["usage","new"]}': Ready(
        16000, 24000, ("usage", "new")
    ),
    '{"t":"transcript","role":"user","text":"hi","final":true}': Transcript("user", "hi", True),
    '{"t":"transcript","role":"assistant","text":"","final":false}': Transcript(),
    '{"t":"tool_call","callId":"c1","name":"f","arguments":"{\\"a\\":1}"}': ToolCall("c1", "f", '{"a":1}'),
    '{"t":"server_tool_call","id":"s1","name":"f","status":"started"}': ServerToolCall("s1", "f", "started"),
    '{"t":"server_tool_call","id":"s1","name":"f","status":"completed"}': ServerToolCall(
        "s1", "f", "completed"
    ),
    '{"t":"server_tool_call","id":"s1","name":"f","status":"failed"}': ServerToolCall("s1", "f", "failed"),
    '{"t":"interruption","at":"user"}': Interruption("user"),
    '{"t":"interruption","at":"assistant"}': Interruption("assistant"),
    '{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}': Usage(1, 2),
    '{"t":"response","status":"done"}': ResponseEnd("done"),
    '{"t":"response","status":"interrupted"}': ResponseEnd("interrupted"),
    '{"t":"response","status":"failed","reason":"content_filter"}': ResponseEnd("failed", "content_filter"),
    '{"t":"error","code":"E","message":"m"}': Error("E", "m"),
    '{"t":"end","reason":"done"}': End("done"),
}

FROM_CLIENT: dict[str, Commit | Clear | EndTurn | Interrupt | ToolResult | UseExtensions] = {
    '{"t":"control","action":"commit"}': Commit(),
    '{"t":"control","action":"clear"}': Clear(),
    '{"t":"control","action":"end_turn"}': EndTurn(),
    '{"t":"interrupt"}': Interrupt(),
    '{"t":"tool_result","callId":"c1","output":"42"}': ToolResult("c1", "42"),
    '{"t":"extensions","use":["usage"]}': UseExtensions(["usage"]),
}

DEFAULTS: dict[str, ServerMessage] = {
    "ready": Ready(0, 0),
    "transcript": Transcript("assistant", "", False),
    "tool_call": ToolCall("", "", ""),
    "server_tool_call": ServerToolCall("", "", "started"),
    "interruption": Interruption("user"),
    "usage": Usage(0, 0),
    "error": Error("UNKNOWN", ""),
    "end": End(""),
}


# What the protocol has


@pytest.mark.parametrize(("text", "message"), FROM_SERVER.items())
def test_a_servers_message(text: str, message: ServerMessage) -> None:
    assert decode_from_server(text) == message
    assert encode(message) == text


@pytest.mark.parametrize(("text", "command"), FROM_CLIENT.items())
def test_a_clients_message(
    text: str, command: Commit | Clear | EndTurn | Interrupt | ToolResult | UseExtensions
) -> None:
    assert decode_from_client(text) == command
    assert encode(command) == text


def test_the_tables_above_leave_no_message_out() -> None:
    assert {type(message) for message in FROM_SERVER.values()} == set(ServerMessage.__args__)
    assert {json.loads(text)["t"] for text in FROM_CLIENT} == {
        kind.__struct_config__.tag for kind in ClientMessage.__args__
    }


@pytest.mark.parametrize(("tag", "message"), DEFAULTS.items())
def test_a_missing_field_takes_its_default(tag: str, message: ServerMessage) -> None:
    assert decode_from_server(f'{{"t":"{tag}"}}') == message


def test_a_result_without_fields() -> None:
    assert decode_from_client('{"t":"tool_result"}') == ToolResult("", "")


@pytest.mark.parametrize(("text", "message"), FROM_SERVER.items())
def test_order_space_and_unknown_fields_do_not_matter(text: str, message: ServerMessage) -> None:
    fields = {"new": {"deep": [1, None]}, **dict(reversed(json.loads(text).items())), "t2": 1.5e300}
    assert decode_from_server("\r\n\t " + json.dumps(fields, indent=2) + " \n") == message


def test_the_last_of_duplicate_fields_counts() -> None:
    assert decode_from_server('{"t":"transcript","text":"a","text":"b"}') == Transcript(text="b")


def test_escapes_and_characters_beyond_ascii() -> None:
    text = '{"t":"transcript","text":"\\u00fc \\ud83d\\ude00 \u00fc \U0001f600 \\"\\\\\\/\\b\\n"}'
    assert decode_from_server(text) == Transcript(text='\u00fc \U0001f600 \u00fc \U0001f600 "\\/\b\n')
    assert encode(Transcript(text="\u00fc\U0001f600\x00")) == (
        '{"t":"transcript","role":"assistant","text":"\u00fc\U0001f600\\u0000","final":false}'
    )


# What a newer peer may say


@pytest.mark.parametrize("text", ['{"t":"new"}', '{"t":"","x":1}', '{"x":[{}],"t":"Ready"}'])
def test_an_unknown_t(text: str) -> None:
    unknown = Unknown(json.loads(text)["t"], text)
    assert decode_from_server(text) == unknown
    assert decode_from_client(text) == unknown


def test_what_travels_the_other_way_is_unknown() -> None:
    assert decode_from_server('{"t":"interrupt"}') == Unknown("interrupt", '{"t":"interrupt"}')
    assert decode_from_client('{"t":"ready"}') == Unknown("ready", '{"t":"ready"}')


@pytest.mark.parametrize(
    "text",
    [
        '{"t":"transcript","role":"system","text":"x"}',
        '{"t":"transcript","role":""}',
        '{"t":"server_tool_call","status":"queued"}',
        '{"t":"interruption","at":"timer"}',
        '{"t":"response"}',
        '{"t":"response","status":"abandoned","reason":"x"}',
        '{"t":"usage","inputAudioTokens":1.5}',
        '{"t":"usage","outputAudioTokens":1e300}',
    ],
)
def test_a_value_this_version_does_not_know(text: str) -> None:
    assert decode_from_server(text) == Unknown(json.loads(text)["t"], text)


@pytest.mark.parametrize("action", ["", "pause", "COMMIT"])
def test_an_unknown_action(action: str) -> None:
    text = f'{{"t":"control","action":"{action}"}}'
    assert decode_from_client(text) == Unknown("control", text)


def test_no_action() -> None:
    assert decode_from_client('{"t":"control"}') == Unknown("control", '{"t":"control"}')


def test_a_negative_count_is_unknown() -> None:
    text = '{"t":"usage","inputAudioTokens":-1}'
    assert decode_from_server(text) == Unknown("usage", text)


@pytest.mark.parametrize("digits", [18, 19, 20, 30, 4000])
def test_huge_counts_are_whole_numbers_still(digits: int) -> None:
    assert decode_from_server(f'{{"t":"usage","inputAudioTokens":{"9" * digits}}}') == Usage(10**digits - 1)


def test_huge_numbers_in_unknown_fields_are_nobodys_business() -> None:
    assert decode_from_server(f'{{"t":"error","x":{"9" * 5000},"y":1e400}}') == Error()


# What is none of this protocol's

NOT_A_MESSAGE = {
    "empty": "",
    "only space": " \n",
    "no JSON": "hello",
    "single quotes": "{'t':'TAG'}",
    "cut short": '{"t":"TAG"',
    "cut in a string": '{"t":"TAG',
    "trailing junk": '{"t":"TAG"} x',
    "two messages": '{"t":"TAG"}{"t":"TAG"}',
    "trailing comma": '{"t":"TAG",}',
    "byte order mark": '\ufeff{"t":"TAG"}',
    "NaN": '{"t":"TAG","x":NaN}',
    "NaN in an unknown message": '{"t":"new","x":NaN}',
    "leading zero": '{"t":"TAG","x":01}',
    "raw control character": '{"t":"TAG","x":"\x01"}',
    "raw half of a pair": '{"t":"TAG","x":"\ud800"}',
    "raw half in an unknown message": '{"t":"new","x":"\udfff"}',
    "escaped half of a pair": '{"t":"TAG","x":"\\ud800"}',
    "escaped half before more text": '{"t":"TAG","x":"\\ud800 and more text"}',
    "escaped other half": '{"t":"TAG","x":"\\udc00 x"}',
    "escaped half in an unknown message": '{"t":"new","x":"\\ud800 and more text"}',
    "escaped half in t": '{"t":"\\ud800"}',
    "null": "null",
    "true": "true",
    "a number": "1",
    "a string": '"TAG"',
    "an array": '[{"t":"TAG"}]',
    "no t": '{"T":"TAG"}',
    "an empty object": "{}",
    "t is a number": '{"t":1}',
    "t is null": '{"t":null}',
    "t is an object": '{"t":{"t":"TAG"}}',
    "t is an array": '{"t":["TAG"]}',
}
"""TAG stands for one that the receiver knows."""

WRONG_TYPES_FROM_SERVER = [
    '{"t":"ready","inputSampleRate":"16000"}',
    '{"t":"ready","inputSampleRate":16000.5}',
    '{"t":"ready","outputSampleRate":null}',
    '{"t":"ready","outputSampleRate":true}',
    '{"t":"transcript","role":1}',
    '{"t":"transcript","role":null}',
    '{"t":"transcript","text":1}',
    '{"t":"transcript","text":null}',
    '{"t":"transcript","final":1}',
    '{"t":"transcript","final":"true"}',
    '{"t":"tool_call","callId":7}',
    '{"t":"tool_call","name":null}',
    '{"t":"tool_call","arguments":{"a":1}}',
    '{"t":"server_tool_call","id":7}',
    '{"t":"server_tool_call","name":[]}',
    '{"t":"server_tool_call","status":0}',
    '{"t":"interruption","at":0}',
    '{"t":"usage","inputAudioTokens":"1"}',
    '{"t":"usage","inputAudioTokens":true}',
    '{"t":"usage","outputAudioTokens":null}',
    '{"t":"usage","outputAudioTokens":1e400}',  # no double holds it
    f'{{"t":"usage","outputAudioTokens":{"9" * 5000}}}',
    '{"t":"response","status":1}',
    '{"t":"response","status":null}',
    '{"t":"response","status":"done","reason":[]}',
    '{"t":"error","code":500}',
    '{"t":"error","message":{}}',
    '{"t":"end","reason":1}',
    # An unknown value in one field does not excuse a wrong type in another.
    '{"t":"transcript","role":"system","text":1}',
]

WRONG_TYPES_FROM_CLIENT = [
    '{"t":"control","action":1}',
    '{"t":"control","action":null}',
    '{"t":"tool_result","callId":1}',
    '{"t":"tool_result","callId":"c1","output":{"a":1}}',
    '{"t":"tool_result","callId":"c1","output":null}',
]


@pytest.mark.parametrize("text", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE.keys())
@pytest.mark.parametrize(
    ("decode", "tag"), [(decode_from_server, "ready"), (decode_from_client, "interrupt")]
)
def test_not_a_message(decode: Callable[[str], object], tag: str, text: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(text.replace("TAG", tag))
    assert str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", WRONG_TYPES_FROM_SERVER)
def test_wrong_types_from_a_server(text: str) -> None:
    with pytest.raises(MalformedMessage, match=r"(Expected|out of range).* - at `\$\.\w+`"):
        decode_from_server(text)


@pytest.mark.parametrize("text", WRONG_TYPES_FROM_CLIENT)
def test_wrong_types_from_a_client(text: str) -> None:
    with pytest.raises(MalformedMessage, match=r"Expected .* - at `\$\.\w+`"):
        decode_from_client(text)


@pytest.mark.parametrize(
    ("text", "reason"), [('{"t":"ready"', "truncated"), ("hello", "malformed"), ("{}", "missing .*`t`")]
)
def test_the_reason_says_what_is_wrong(text: str, reason: str) -> None:
    for decode in (decode_from_server, decode_from_client):
        with pytest.raises(MalformedMessage, match=reason):
            decode(text)


def test_the_reason_names_the_field_and_not_its_value() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_from_client('{"t":"tool_result","callId":"s3cret","output":17}')
    assert str(caught.value) == "Expected `str`, got `int` - at `$.output`"


# Duplicates of the discriminator are a case of their own: msgspec looks at the first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"t":"transcript","t":"transcript","text":"a"}', Transcript(text="a")),
        ('{"t":"transcript","t":"new"}', Unknown("new", '{"t":"transcript","t":"new"}')),
        ('{"t":"new","t":"transcript"}', Unknown("transcript", '{"t":"new","t":"transcript"}')),
    ],
)
def test_a_second_t(text: str, expected: object) -> None:
    assert decode_from_server(text) == expected


@pytest.mark.parametrize("text", ['{"t":"ready","t":"end"}', '{"t":1,"t":"end"}', '{"t":"new","t":1}'])
def test_a_second_t_that_makes_no_message(text: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_from_server(text)


# Nesting


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """A message of that many levels in all, its own object included."""
    return '{"t":"new","x":' + opening * (levels - 1) + "0" + closing * (levels - 1) + "}"


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("max_depth", [1, 2, 5, 64])
def test_nesting_up_to_the_limit_and_no_further(brackets: tuple[str, str], max_depth: int) -> None:
    text = nested(max_depth, *brackets)
    check_depth(text, max_depth)
    assert decode_from_server(text) == Unknown("new", text)
    assert decode_from_client(text) == Unknown("new", text)
    with says(f"it is nested deeper than {max_depth} levels", MalformedMessage):
        check_depth(nested(max_depth + 1, *brackets), max_depth)


def test_brackets_side_by_side_do_not_nest() -> None:
    text = '{"t":"new","x":[' + ",".join(["[]", "{}"] * 200) + "]}"
    check_depth(text, 3)
    with says("it is nested deeper than 2 levels", MalformedMessage):
        check_depth(text, 2)


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_the_depth_falls_and_rises_again(brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    deep = opening * 3 + "0" + closing * 3
    text = f'{{"t":"new","x":[{deep},{deep},{deep}]}}'
    check_depth(text, 5)
    for deeper in (
        f'{{"t":"new","x":[{deep},{opening}{deep}{closing}]}}',
        f'{{"t":"new","x":{deep},"y":[0,{opening}{deep}{closing}]}}',
        f'{{"t":"new","x":[{opening}0{closing},[{deep}]]}}',
    ):
        with says("it is nested deeper than 5 levels", MalformedMessage):
            check_depth(deeper, 5)


@pytest.mark.parametrize("string", ["[" * 500, "{" * 500, '\\"' + "[" * 500, "\\\\\\" + '"' + "[{" * 300])
def test_brackets_in_strings_do_not_count(string: str) -> None:
    text = f'{{"t":"transcript","text":"{string}"}}'
    check_depth(text, 2)
    assert decode_from_server(text) == Transcript(text=json.loads(f'"{string}"'))


def test_brackets_behind_a_string_that_ends_in_a_backslash_do_count() -> None:
    text = '{"t":"new","s":"\\\\","x":' + "[" * 65 + "]" * 65 + "}"
    with says("it is nested deeper than 64 levels", MalformedMessage):
        check_depth(text, 64)


@pytest.mark.parametrize("text", ["[" * 200_000, nested(100_000)])
def test_more_brackets_than_any_stack(text: str) -> None:
    with says("it is nested deeper than 64 levels", MalformedMessage):
        check_depth(text, 64)


@pytest.mark.parametrize("decode", [decode_from_server, decode_from_client])
def test_the_decoders_own_stack_is_a_limit_too(decode: Callable[[str], object]) -> None:
    with says("it is nested too deeply", MalformedMessage):
        decode(nested(100_000))


def test_the_reason_names_half_of_a_pair() -> None:
    for text in ('{"t":"ready","x":"\ud800"}', '{"t":"new","x":"\udfff"}'):
        with says("it holds half of a surrogate pair", MalformedMessage):
            decode_from_server(text)


# Out


def test_half_of_a_pair_is_not_encoded() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(ToolResult("c1", "\ud800"))


# The body of an HTTP error


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("", ""),
        ('{"error":"bad token","code":"UNAUTHORIZED"}', "bad token"),
        ('{"error":"","code":"X"}', '{"error":"","code":"X"}'),
        ('{"message":"x"}', '{"message":"x"}'),
        ('{"error":7}', '{"error":7}'),
        ("<html>\r\n  <h1>No</h1>\n</html>", "<html> <h1>No</h1> </html>"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "\u2026"),
        ('{"error":"' + "x" * 300 + '"}', "x" * 200 + "\u2026"),
        ('{"error":"\\ud800 and more"}', '{"error":"\\ud800 and more"}'),
        ("[" * 100_000, "[" * 200 + "\u2026"),
        ("\ud800", "\ud800"),
    ],
    ids=range(12),
)
def test_one_line_of_an_errors_body(body: str, line: str) -> None:
    assert error_text(body) == line
