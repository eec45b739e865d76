"""JSON text to frames and commands and back: the documented wire, and everything that is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import (
    Capabilities,
    Clear,
    ClientProtocol,
    Commit,
    EndTurn,
    ErrorFrame,
    ImageIn,
    Interrupt,
    Interruption,
    Played,
    Ready,
    Respond,
    ResponseEnd,
    Say,
    ServerProtocol,
    ServerToolCall,
    State,
    TextIn,
    ToolCall,
    ToolResult,
    Transcript,
    Unknown,
    Update,
    Usage,
)
from speko_anyio.protocol._codec import (
    ClientCommand,
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
    is_laborious,
    mended,
)
from speko_anyio.protocol._tokens import shown
from speko_anyio.protocol.mint import ToolSpec

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
    '{"t":"ready","inputSampleRate":16000,"outputSampleRate":24000,"extensions":["text"],'
    '"capabilities":{"text":true,"say":"verbatim","update":["voice"],"inputRates":[16000]}}': Ready(
        16000,
        24000,
        ("text",),
        Capabilities(text=True, say="verbatim", update=("voice",), input_rates=(16000,)),
    ),
    '{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2,"inputTextTokens":3,"outputTextTokens":4,'
    '"inputImageTokens":5,"cachedAudioTokens":6,"cachedTextTokens":7,"outputReasoningTokens":8,'
    '"seconds":1.5}': Usage(1, 2, 3, 4, 5, 6, 7, 8, 1.5),
    '{"t":"response","status":"done"}': ResponseEnd("done"),
    '{"t":"response","status":"interrupted"}': ResponseEnd("interrupted"),
    '{"t":"response","status":"failed","reason":"content_filter"}': ResponseEnd("failed", "content_filter"),
    '{"t":"error","code":"E","message":"m"}': ErrorFrame("E", "m"),
    '{"t":"end","reason":"done"}': End("done"),
}

FROM_CLIENT: dict[str, ClientCommand | UseExtensions] = {
    '{"t":"control","action":"commit"}': Commit(),
    '{"t":"control","action":"clear"}': Clear(),
    '{"t":"control","action":"end_turn"}': EndTurn(),
    '{"t":"interrupt"}': Interrupt(),
    '{"t":"tool_result","callId":"c1","output":"42"}': ToolResult("c1", "42"),
    '{"t":"extensions","use":["usage"]}': UseExtensions(["usage"]),
    '{"t":"text","text":"hi","role":"system","respond":false}': TextIn("hi", "system"),
    '{"t":"image","mimeType":"image/png","data":"iVBORw==","respond":true}': ImageIn(
        "image/png", b"\x89PNG", True
    ),
    '{"t":"respond"}': Respond(),
    '{"t":"respond","instructions":"briefly"}': Respond("briefly"),
    '{"t":"say","text":"hello"}': Say("hello"),
    '{"t":"update","systemPrompt":"Be kind.","tools":[{"name":"f","description":"","parameters":{}}],'
    '"voice":"Ara","turns":"manual"}': Update(
        system_prompt="Be kind.", tools=(ToolSpec(name="f"),), voice="Ara", turns="manual"
    ),
    '{"t":"update","tools":[]}': Update(tools=()),
    '{"t":"played","ms":1234}': Played(1234),
}

DEFAULTS: dict[str, ServerMessage] = {
    "ready": Ready(0, 0),
    "transcript": Transcript("assistant", "", False),
    "tool_call": ToolCall("", "", ""),
    "server_tool_call": ServerToolCall("", "", "started"),
    "interruption": Interruption("user"),
    "usage": Usage(0, 0),
    "error": ErrorFrame("UNKNOWN", ""),
    "end": End(""),
}


# What the protocol has


@pytest.mark.parametrize(("text", "message"), FROM_SERVER.items())
def test_a_servers_message(text: str, message: ServerMessage) -> None:
    assert decode_from_server(text) == message
    assert encode(message) == text


@pytest.mark.parametrize(("text", "command"), FROM_CLIENT.items())
def test_a_clients_message(text: str, command: ClientCommand | UseExtensions) -> None:
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


@pytest.mark.parametrize("count", [2**53, 2**64, 10**30 - 1, 10**4000 - 1], ids=range(4))
def test_a_count_beyond_what_all_parsers_read_is_odd(count: int) -> None:
    # Sums of numbers with thousands of digits can't even be shown.
    odd: list[str] = []
    text = f'{{"t":"usage","inputAudioTokens":{count},"outputAudioTokens":{2**53 - 1}}}'
    assert decode_from_server(text, odd) == Usage(0, 2**53 - 1)
    assert odd == ["inputAudioTokens"]


def test_huge_numbers_in_unknown_fields_are_nobodys_business() -> None:
    assert decode_from_server(f'{{"t":"error","x":{"9" * 5000},"y":1e400}}') == ErrorFrame()


# Odd values in non-essential fields


@pytest.mark.parametrize(
    ("count", "read"),
    [
        ("3.0", 3),
        ("1e3", 1000),
        ('"3"', 3),
        ("0.0", 0),
        ("1.5", 0),
        ("-1", 0),
        ("-1.0", 0),
        ("1e300", 0),
        ("1e400", 0),
        ("9" * 5000, 0),
        ("null", 0),
        ("true", 0),
        ('"many"', 0),
        ('"\\ud83d"', 0),
        ("[1]", 0),
        ('{"audio":1}', 0),
    ],
    ids=range(16),
)
def test_a_count_that_is_odd_costs_neither_the_session_nor_the_end_of_the_answer(
    count: str, read: int
) -> None:
    odd: list[str] = []
    text = f'{{"t":"usage","inputAudioTokens":7,"outputAudioTokens":{count}}}'
    assert decode_from_server(text, odd) == Usage(7, read)
    assert odd[-1:] == ["outputAudioTokens"]
    text = f'{{"outputAudioTokens":7,"inputAudioTokens":{count},"t":"usage"}}'
    assert decode_from_server(text) == Usage(read, 7)


@pytest.mark.parametrize(
    ("seconds", "read"),
    [
        ('"1.5"', 1.5),
        ('"3"', 3.0),
        ("-1", 0.0),
        ("-0.5", 0.0),
        ('"inf"', 0.0),
        ('"nan"', 0.0),
        ("1e400", 0.0),
        ("null", 0.0),
        ("true", 0.0),
        ("[1]", 0.0),
    ],
    ids=range(10),
)
def test_odd_seconds_are_read_as_counts_are(seconds: str, read: float) -> None:
    odd: list[str] = []
    text = f'{{"t":"usage","outputReasoningTokens":7,"seconds":{seconds}}}'
    assert decode_from_server(text, odd) == Usage(output_reasoning_tokens=7, seconds=read)
    assert odd[-1:] == ["seconds"]


def test_whole_seconds_are_not_odd() -> None:
    odd: list[str] = []
    assert decode_from_server('{"t":"usage","seconds":3}', odd) == Usage(seconds=3.0)
    assert odd == []


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    field=st.sampled_from(msgspec.structs.fields(Usage)),
)
def test_no_value_of_a_count_is_an_error(value: object, field: msgspec.structs.FieldInfo) -> None:
    text = json.dumps({"t": "usage", field.encode_name: value})
    try:
        json.loads(text, parse_constant=lambda _: pytest.fail("not JSON"))
    except pytest.fail.Exception:
        return
    odd: list[str] = []
    usage = decode_from_server(text, odd)
    assert isinstance(usage, Usage)
    kinds = int | float if field.name == "seconds" else int
    most = math.inf if field.name == "seconds" else 2**53 - 1
    if isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= most:
        read = float(value) if field.name == "seconds" else value
        assert (getattr(usage, field.name), odd) == (read, [])
    else:
        assert odd


def test_two_different_t_are_no_usage_whatever_its_counts() -> None:
    text = '{"t":"new","t":"usage","inputAudioTokens":null}'
    assert decode_from_server(text) == Unknown("usage", text)


@pytest.mark.parametrize(
    ("escaped", "whole"),
    [
        ("\\ud83d", "\ufffd"),
        ("\\ud83d and more", "\ufffd and more"),
        ("\\uDE00 x", "\ufffd x"),
        ("\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
        ("\\ude00\\ud83d", "\ufffd\ufffd"),
        ("\\uD83D\\uDE00\\ud83d", "\U0001f600\ufffd"),
        ("\\ud83d\\n\\u00e9", "\ufffd\n\u00e9"),
        ("\\\\ud83d\\ud83d", "\\ud83d\ufffd"),
        ("\\\\\\ud83d", "\\\ufffd"),
        ("\\ud83dude00", "\ufffdude00"),
    ],
)
def test_half_of_a_pair_costs_its_character_and_no_more(escaped: str, whole: str) -> None:
    odd: list[str] = []
    said = f'{{"t":"transcript","text":"{escaped}","final":true}}'
    assert decode_from_server(said, odd) == Transcript("assistant", whole, True)
    assert decode_from_server(f'{{"t":"error","x":"{escaped}"}}', odd) == ErrorFrame()
    assert decode_from_client(f'{{"t":"tool_result","callId":"c","output":"{escaped}"}}', odd) == ToolResult(
        "c", whole
    )
    new = f'{{"t":"new","x":["{escaped}"]}}'
    assert decode_from_server(new, odd) == Unknown("new", new)
    assert decode_from_client(new, odd) == Unknown("new", new)
    assert decode_from_client(f'{{"t":"control","action":"commit","x":"{escaped}"}}', odd) == Commit()
    assert len(odd) == 6


@given(
    st.lists(st.sampled_from(["\\ud83d", "\\uDE00", "\\\\", "\\n", "x", "ud83d", "\U0001f600"]), max_size=12)
)
def test_any_mix_of_halves_is_read_as_python_reads_it(parts: list[str]) -> None:
    text = f'{{"t":"transcript","text":"{"".join(parts)}"}}'
    assert decode_from_server(text) == Transcript(text=mended(json.loads(text)["text"]))


def test_the_id_of_a_call_is_not_guessed() -> None:
    with says("the id of a tool call holds half of a surrogate pair", MalformedMessage):
        decode_from_server('{"t":"tool_call","callId":"\\ud83d","name":"f","arguments":"{}"}')
    text = '{"t":"tool_call","callId":"c1","name":"f","arguments":"{\\"a\\":\\"\\ud83d\\"}"}'
    assert decode_from_server(text) == ToolCall("c1", "f", '{"a":"\ufffd"}')


def test_half_of_a_pair_excuses_no_wrong_type() -> None:
    with pytest.raises(MalformedMessage):
        decode_from_server('{"t":"error","code":1,"x":"\\ud800"}')
    with pytest.raises(MalformedMessage):
        decode_from_client('{"t":"control","action":1,"x":"\\ud800"}')
    said = '{"t":"transcript","role":"narrator","text":"\\ud800"}'
    assert decode_from_server(said) == Unknown("transcript", said)


def test_what_was_forgiven_is_counted() -> None:
    client, server = ClientProtocol(), ServerProtocol()
    for message in (
        '{"t":"ready","extensions":7}',
        '{"t":"usage","inputAudioTokens":null,"outputAudioTokens":2.0}',
        '{"t":"transcript","text":"\\ud83d"}',
        '{"t":"transcript","text":"plain"}',
    ):
        client.receive_message(message)
    assert client.odd_fields == 4
    server.receive_message('{"t":"tool_result","callId":"c","output":"\\ud83d"}')
    assert server.odd_fields == 1
    assert client.state is server.state is State.OPEN


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
        ("x" * 201, "x" * 199 + "\u2026"),
        ('{"error":"' + "x" * 300 + '"}', "x" * 199 + "\u2026"),
        ('{"error":"\\ud800 and more"}', '{"error":"\\ud800 and more"}'),
        ("[" * 100_000, "[" * 199 + "\u2026"),
        ("\ud800", "\\ud800"),  # as it can be printed
    ],
    ids=range(12),
)
def test_one_line_of_an_errors_body(body: str, line: str) -> None:
    assert shown(error_text(body), limit=200) == line


def test_valid_text_stays_as_it_is() -> None:
    assert mended("caf\u00e9 \U0001f600") == "caf\u00e9 \U0001f600"


def test_a_first_half_waits_for_the_second_when_more_follows() -> None:
    assert mended("a\ud83d", more=True) == "a"
    assert mended("a\ud83d") == "a\ufffd"
    assert mended("a\ud83d\ude00", more=True) == "a\U0001f600"
    assert mended("\ude00a", more=True) == "\ufffda"


class Uncounted(str):
    __slots__ = ()

    def count(self, *_: object) -> int:
        raise AssertionError("counting looks at every character")


def test_brackets_of_a_picture_are_not_counted_character_by_character() -> None:
    """Five megabytes of base64 would hold the event loop for as long as all the rest of decoding them."""
    text = Uncounted('{"t":"image","mimeType":"image/png","data":"' + "A" * 10_000 + '"}')
    check_depth(text, 256)
    assert not is_laborious(text)
