"""The commands that are extensions, in both roles and at both levels: from text to played."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol import (
    Capabilities,
    ClientConnection,
    ClientProtocol,
    Close,
    CloseMessage,
    Commit,
    ConnectionClosed,
    ErrorFrame,
    ImageIn,
    Limits,
    LocalProtocolError,
    Played,
    Respond,
    Say,
    ServerConnection,
    ServerProtocol,
    State,
    TextIn,
    Unknown,
    Update,
    Usage,
)
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._commands import ExtensionCommand, extension_of
from speko_anyio.protocol._extensions import COMMANDS, KNOWN
from speko_anyio.protocol.mint import ToolSpec

from .helpers import TEXT, drain, frame_for, open_pair, parse_frames, says, trickle
from .test_capabilities import FULL
from .test_extensions import JSON, TAKE_UP, offering, received

WRONG: Any = json.loads("7")
PNG = b"\x89PNG\r\n\x1a\n"
IMAGE_LIMITS = Limits(max_text_size=2000, max_message_size=3000, max_image_size=3000)

Verb = Callable[[ClientProtocol | ClientConnection], None]

SAID: dict[str, tuple[Verb, ExtensionCommand]] = {
    "text": (lambda client: client.send_text("hi"), TextIn("hi", "user", True)),
    "silent text": (lambda client: client.send_text("hi", respond=False), TextIn("hi", "user", False)),
    "context": (lambda client: client.send_text("hi", role="system"), TextIn("hi", "system", False)),
    "said before": (
        lambda client: client.send_text("hi", role="assistant"),
        TextIn("hi", "assistant", False),
    ),
    "note": (
        lambda client: client.send_text("hi", role="system", respond=True),
        TextIn("hi", "system", True),
    ),
    "image": (lambda client: client.send_image(PNG, mime_type="image/png"), ImageIn("image/png", PNG, False)),
    "image to answer": (
        lambda client: client.send_image(memoryview(PNG), mime_type="image/svg+xml", respond=True),  # type: ignore[arg-type]
        ImageIn("image/svg+xml", PNG, True),
    ),
    "respond": (lambda client: client.respond(), Respond("")),
    "respond briefly": (lambda client: client.respond("Be brief."), Respond("Be brief.")),
    "say": (lambda client: client.say("Hello, Ann."), Say("Hello, Ann.")),
    "update": (
        lambda client: client.update(
            Update(system_prompt="", tools=(ToolSpec(name="f", parameters={"type": "object"}),), voice="Ara")
        ),
        Update(system_prompt="", tools=(ToolSpec(name="f", parameters={"type": "object"}),), voice="Ara"),
    ),
    "update of turns": (lambda client: client.update(Update(turns="manual")), Update(turns="manual")),
    "update with a list": (
        lambda client: client.update(Update(tools=[])),  # type: ignore[arg-type]
        Update(tools=()),
    ),
}


def ready_pair(capabilities: Capabilities = FULL, **options: Any) -> tuple[ClientProtocol, ServerProtocol]:
    """A client that has seen `ready`, and its server."""
    client, server = ClientProtocol(**options), ServerProtocol(capabilities=capabilities, **options)
    server.send_ready()
    for message in server.messages_to_send():
        received(client, message)  # type: ignore[arg-type]
    for message in client.messages_to_send():
        received(server, message)  # type: ignore[arg-type]
    return client, server


def errors(server: ServerProtocol) -> list[str]:
    """The codes of the errors that wait to be sent."""
    said = [json.loads(message) for message in server.messages_to_send() if isinstance(message, str)]
    return [message["code"] for message in said if message["t"] == "error"]


# What arrives


@pytest.mark.parametrize(("verb", "command"), SAID.values(), ids=SAID)
def test_what_is_said_arrives(verb: Verb, command: ExtensionCommand) -> None:
    client, server = ready_pair()
    verb(client)
    (message,) = client.messages_to_send()
    assert isinstance(message, str)
    assert json.loads(message)["t"] == extension_of(command)
    assert received(server, message) == [command]
    assert errors(server) == []


@pytest.mark.parametrize(("verb", "command"), SAID.values(), ids=SAID)
def test_it_arrives_as_bytes_too(verb: Verb, command: ExtensionCommand) -> None:
    client, server = open_pair(server=ServerConnection(capabilities=FULL))
    server.send_ready()
    client.receive_data(server.data_to_send())
    drain(client)
    verb(client)
    assert trickle(server, client.data_to_send()) == [command]
    assert client.capabilities == client.dialect.capabilities == FULL


def test_the_order_is_that_of_sending() -> None:
    client, server = ready_pair()
    for text in ("one", "two"):
        client.send_text(text, respond=False)
    client.commit()
    client.say("three")
    events = [event for message in client.messages_to_send() for event in received(server, message)]  # type: ignore[arg-type]
    assert events == [TextIn("one"), TextIn("two"), Commit(), Say("three")]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"t":"text","text":"hi"}', TextIn("hi", "user", False)),
        (
            '{"respond":true,"role":"assistant","text":"\\ud83d","t":"text","new":[1]}',
            TextIn("\ufffd", "assistant", True),
        ),
        ('{"t":"image","mimeType":"image/jpeg","data":"AA=="}', ImageIn("image/jpeg", b"\0", False)),
        ('{"t":"respond","instructions":""}', Respond()),
        ('{"t":"update","voice":"v","mood":null}', Update(voice="v")),
        ('{"t":"played"}', Played(0)),
        ('{"ms":3,"t":"played","item":"x"}', Played(3)),
    ],
    ids=range(7),
)
def test_what_another_client_may_say(text: str, command: ExtensionCommand | Played) -> None:
    assert received(offering(*COMMANDS), text) == [command]


# What was played: a report, which is passed on where somebody takes it


@pytest.mark.parametrize(("seconds", "ms"), [(0, 0), (1.2346, 1235), (2, 2000), (1_000_000, 10**9)])
def test_a_report_arrives(seconds: float, ms: int) -> None:
    client, server = ready_pair()
    assert client.report_played(seconds)
    (message,) = client.messages_to_send()
    assert received(server, message) == [Played(ms)]  # type: ignore[arg-type]
    assert errors(server) == []
    over_bytes, other = open_pair(server=ServerConnection(capabilities=FULL))
    other.send_ready()
    over_bytes.receive_data(other.data_to_send())
    drain(over_bytes)
    assert over_bytes.report_played(seconds)
    assert trickle(other, over_bytes.data_to_send()) == [Played(ms)]


def test_a_report_that_nobody_takes_is_not_sent() -> None:
    for offer in ([], [name for name in KNOWN if name != "played"]):
        client = ClientProtocol()
        assert not client.report_played(1.0)  # nobody knows yet
        received(client, json.dumps({"t": "ready", "extensions": offer, "capabilities": {"truncate": True}}))
        client.messages_to_send()
        assert not client.report_played(1.0)
        assert client.messages_to_send() == []


@pytest.mark.parametrize("seconds", [-0.001, 1_000_000.1, float("nan"), float("inf"), 10**400])
def test_a_report_of_nonsense_is_not_sent(seconds: float) -> None:
    client, _ = ready_pair()
    with pytest.raises(LocalProtocolError, match="the seconds that were played must be from 0 to 1000000"):
        client.report_played(seconds)
    assert client.messages_to_send() == []
    assert client.report_played(0.5)


def test_a_report_after_the_end() -> None:
    client, _ = ready_pair()
    client.close()
    with pytest.raises(ConnectionClosed):
        client.report_played(1.0)
    connecting = ClientConnection("ws://speko.test/s", "token")
    with says("the session is not open yet; wait for the handshake, then send"):
        connecting.report_played(1.0)


# What is not offered


@pytest.mark.parametrize(("verb", "command"), SAID.values(), ids=SAID)
def test_what_is_not_offered_is_refused_before_it_is_sent(verb: Verb, command: ExtensionCommand) -> None:
    extension = extension_of(command)
    client = ClientProtocol()
    others = [name for name in KNOWN if name != extension]
    received(client, json.dumps({"t": "ready", "extensions": others}))
    assert client.messages_to_send() == [TAKE_UP]
    with pytest.raises(LocalProtocolError, match=r"^this service (takes no|can't)"):
        verb(client)
    assert client.messages_to_send() == []
    assert client.state is State.OPEN


@pytest.mark.parametrize(("verb", "command"), SAID.values(), ids=SAID)
def test_before_ready_nobody_knows(verb: Verb, command: ExtensionCommand) -> None:
    for client in (ClientProtocol(), open_pair()[0]):
        with says("the service has not said yet what it takes; wait for the Ready frame, then send"):
            verb(client)
        with pytest.raises(LocalProtocolError, match="wait for the Ready frame"):
            _ = client.capabilities
    connecting = ClientConnection("ws://speko.test/s", "token")
    with says("the session is not open yet; wait for the handshake, then send"):
        verb(connecting)


@pytest.mark.parametrize(("verb", "command"), SAID.values(), ids=SAID)
def test_after_the_end_it_is_closed(verb: Verb, command: ExtensionCommand) -> None:
    client, _ = ready_pair()
    client.close()
    with pytest.raises(ConnectionClosed):
        verb(client)


@pytest.mark.parametrize("extension", COMMANDS)
@pytest.mark.parametrize("fields", [{}, {"text": "hi"}, {"text": 7}, {"data": "@@"}, {"voice": None}])
def test_an_unoffered_command_is_unknown_however_it_looks(extension: str, fields: dict[str, Any]) -> None:
    text = json.dumps({"t": extension, **fields})
    for server in (offering(), offering(*(name for name in KNOWN if name != extension))):
        server.messages_to_send()
        assert received(server, text) == [Unknown(extension, text)]
        assert server.messages_to_send() == []
    # Nor is anything offered before `ready` says so.
    early = ServerProtocol(extensions=KNOWN)
    assert received(early, text) == [Unknown(extension, text)]
    assert early.messages_to_send() == []


# What can't be carried out


IMAGE = base64.b64encode(PNG).decode()
REFUSED = {
    "played less than nothing": (
        {"t": "played", "ms": -1},
        "this played message is invalid: Expected `int` >= 0 - at `$.ms`",
    ),
    "played for ever": (
        {"t": "played", "ms": 10**9 + 1},
        "this played message is invalid: Expected `int` <= 1000000000 - at `$.ms`",
    ),
    "played half a millisecond": (
        {"t": "played", "ms": 0.5},
        "this played message is invalid: Expected `int`, got `float` - at `$.ms`",
    ),
    "empty text": ({"t": "text", "text": ""}, "the text is empty; send some"),
    "no text": ({"t": "text"}, "the text is empty; send some"),
    "text of another type": (
        {"t": "text", "text": 7},
        "this text message is invalid: Expected `str`, got `int` - at `$.text`",
    ),
    "role of another type": (
        {"t": "text", "text": "hi", "role": None},
        "this text message is invalid: Expected `str`, got `null` - at `$.role`",
    ),
    "unknown role": (
        {"t": "text", "text": "hi", "role": "tool"},
        "this text message is invalid: Invalid enum value 'tool' - at `$.role`",
    ),
    "respond of another type": (
        {"t": "text", "text": "hi", "respond": 1},
        "this text message is invalid: Expected `bool`, got `int` - at `$.respond`",
    ),
    "no image": ({"t": "image", "mimeType": "image/png"}, "the image is empty; send the content of its file"),
    "no base64": (
        {"t": "image", "mimeType": "image/png", "data": "@"},
        "this image message is invalid: Invalid base64 encoded string - at `$.data`",
    ),
    "no type": (
        {"t": "image", "data": IMAGE},
        "the image's MIME type is invalid; send one such as image/jpeg",
    ),
    "another type": (
        {"t": "image", "data": IMAGE, "mimeType": "text/html"},
        "the image's MIME type is invalid; send one such as image/jpeg",
    ),
    "a type with parameters": (
        {"t": "image", "data": IMAGE, "mimeType": "image/png;base64,AAAA"},
        "the image's MIME type is invalid; send one such as image/jpeg",
    ),
    "instructions of another type": (
        {"t": "respond", "instructions": ["x"]},
        "this respond message is invalid: Expected `str`, got `array` - at `$.instructions`",
    ),
    "nothing to say": ({"t": "say"}, "the text is empty; send some"),
    "an update of nothing": ({"t": "update"}, "the update changes nothing; set at least one field"),
    "null": (
        {"t": "update", "voice": None},
        "this update message is invalid: Expected `str`, got `null` - at `$.voice`",
    ),
    "an empty voice": ({"t": "update", "voice": ""}, "the voice is empty; name one, or leave it out"),
    "unknown turns": (
        {"t": "update", "turns": "semi"},
        "this update message is invalid: Invalid enum value 'semi' - at `$.turns`",
    ),
    "a tool without a name": (
        {"t": "update", "tools": [{"name": ""}]},
        "a tool has no name; give each tool one",
    ),
    "no tool": (
        {"t": "update", "tools": [{}]},
        "this update message is invalid: Object missing required field `name` - at `$.tools[0]`",
    ),
}


@pytest.mark.parametrize(("fields", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_can_t_be_carried_out_is_refused_and_the_session_goes_on(
    fields: dict[str, Any], problem: str
) -> None:
    server = offering(*COMMANDS)
    server.messages_to_send()
    text = json.dumps(fields)
    assert received(server, text, '{"t":"control","action":"commit"}') == [
        Unknown(fields["t"], text),
        Commit(),
    ]
    (message,) = server.messages_to_send()
    assert isinstance(message, str)
    assert received(ClientProtocol(), message) == [ErrorFrame(f"{fields['t'].upper()}_REFUSED", problem)]


def test_a_problem_quotes_little() -> None:
    server = offering("text")
    server.messages_to_send()
    received(server, json.dumps({"t": "text", "text": "hi", "role": "\u202ex" * 5000}))
    (message,) = server.messages_to_send()
    assert isinstance(message, str)
    assert len(message) < 300
    assert "\u202e" not in message


def test_after_our_goodbye_nothing_is_refused() -> None:
    server = offering("text")
    server.close()
    server.messages_to_send()
    text = '{"t":"text","text":7}'
    assert received(server, text) == [Unknown("text", text)]
    assert server.messages_to_send() == []


KNOWN_FIELDS = {"t", "text", "role", "respond", "mimeType", "data", "instructions", "systemPrompt", "tools"}
KNOWN_FIELDS |= {"voice", "turns", "ms"}


@given(
    extension=st.sampled_from(COMMANDS),
    fields=st.dictionaries(
        st.sampled_from(sorted(KNOWN_FIELDS - {"t"})),
        JSON | st.sampled_from(["user", "image/png", IMAGE, True, [{"name": "f"}], "hi"]),
    ),
)
def test_no_value_of_any_field_costs_the_session(extension: str, fields: dict[str, Any]) -> None:
    server = offering(*COMMANDS)
    server.messages_to_send()
    text = json.dumps({"t": extension, **fields})
    (event,) = received(server, text)
    if isinstance(event, Unknown):
        assert event == Unknown(extension, text)
        assert errors(server) == [f"{extension.upper()}_REFUSED"]
    else:
        assert extension_of(event) == extension  # type: ignore[arg-type]
        assert errors(server) == []
    assert server.state is State.OPEN


@given(
    extension=st.sampled_from(COMMANDS),
    name=st.text(max_size=6).filter(lambda name: name not in KNOWN_FIELDS),
    value=JSON,
)
def test_no_value_of_an_unknown_field_matters(extension: str, name: str, value: Any) -> None:
    known: dict[str, dict[str, Any]] = {
        "text": {"text": "hi"},
        "image": {"mimeType": "image/png", "data": IMAGE},
        "respond": {},
        "say": {"text": "hi"},
        "update": {"voice": "v"},
        "played": {"ms": 7},
    }
    said = known[extension]
    server = offering(*COMMANDS)
    (event,) = received(server, json.dumps({"t": extension, name: value, **said}))
    assert extension_of(event) == extension  # type: ignore[arg-type]


# The caller's own mistakes


@pytest.mark.parametrize(
    ("verb", "problem"),
    [
        (lambda client: client.send_text(""), "the text is empty; send some"),
        (lambda client: client.say(""), "the text is empty; send some"),
        (
            lambda client: client.send_text("hi", role="tool"),
            "role must be one of user, assistant, system, not 'tool'",
        ),
        (
            lambda client: client.send_image(b"", mime_type="image/png"),
            "the image is empty; send the content of its file",
        ),
        (
            lambda client: client.send_image(PNG, mime_type="png"),
            "the image's MIME type is invalid; send one such as image/jpeg",
        ),
        (lambda client: client.update(Update()), "the update changes nothing; set at least one field"),
        (
            lambda client: client.update(Update(tools=WRONG)),
            "this update message is invalid: Expected `array`, got `int` - at `$.tools`",
        ),
        (
            lambda client: client.update(Update(turns="semi")),  # type: ignore[arg-type]
            "turns must be one of auto, manual, not 'semi'",
        ),
        (
            lambda client: client.send_text("\ud800"),
            "the text holds half of a surrogate pair, which UTF-8 can't carry; send whole characters",
        ),
        (
            lambda client: client.update(Update(tools=(ToolSpec(name="f", parameters={"x": object()}),))),
            (
                "the parameters of a tool can't be written as JSON: "
                "Encoding objects of type object is unsupported"
            ),
        ),
        (
            lambda client: client.say("x" * 300_000),
            "this say message has more than 262144 bytes; send a shorter one",
        ),
        (
            lambda client: client.send_image(bytes(4 * 1024 * 1024 + 1), mime_type="image/png"),
            "the image has more than 4194304 bytes; send a smaller one",
        ),
    ],
    ids=range(12),
)
def test_a_mistake_costs_nothing(verb: Callable[[Any], None], problem: str) -> None:
    client, _ = ready_pair()
    with says(problem):
        verb(client)
    assert client.messages_to_send() == []
    assert client.state is State.OPEN


@pytest.mark.parametrize(
    ("verb", "problem"),
    [
        (lambda client: client.send_text(b"hi"), "text must be a str, not bytes"),
        (lambda client: client.send_text("hi", respond=1), "respond must be a bool, not int"),
        (
            lambda client: client.send_image("x", mime_type="image/png"),
            "the bytes of an image's file, not str",
        ),
        (lambda client: client.send_image(PNG, mime_type=None), "mime_type must be a str, not NoneType"),
        (
            lambda client: client.send_image(PNG, mime_type="image/png", respond=None),
            "respond must be a bool, not NoneType",
        ),
        (lambda client: client.respond(None), "instructions must be a str, not NoneType"),
        (lambda client: client.say(7), "text must be a str, not int"),
        (lambda client: client.update({"voice": "v"}), "update must be an Update, not dict"),
    ],
    ids=range(8),
)
def test_a_wrong_type_is_a_type_error(verb: Callable[[Any], None], problem: str) -> None:
    client, _ = ready_pair()
    with pytest.raises(TypeError, match=problem):
        verb(client)
    assert client.messages_to_send() == []


def test_a_full_outbox_takes_no_more() -> None:
    client, _ = ready_pair(limits=Limits(max_outbox=1000))
    client.say("x" * 500)
    with pytest.raises(LocalProtocolError, match="1000 bytes"):
        client.say("x" * 500)


# Sizes


def sized(extension: str, size: int) -> str:
    """A message of that many bytes, one with an image or a text in it."""
    if extension == "image":
        head = '{"t":"image","mimeType":"image/png","data":"'
        body = "A" * ((size - len(head) - 2) // 4 * 4)
        return f'{head}{body}"}}'.ljust(size)
    return f'{{"t":"{extension}","text":"' + "x" * (size - len(f'{{"t":"{extension}","text":""}}')) + '"}'


@pytest.mark.parametrize("extension", ["text", "say"])
def test_a_long_text_is_refused_and_one_that_is_longer_still_ends_the_session(extension: str) -> None:
    limits = Limits(max_text_size=2000, max_message_size=3000)

    def server() -> ServerProtocol:
        fresh = ServerProtocol(extensions=[extension], limits=limits)
        fresh.send_ready()
        fresh.messages_to_send()
        return fresh

    fits = server()
    (command,) = received(fits, sized(extension, 2000))
    assert isinstance(command, TextIn | Say)
    for size in (2001, 3000):
        text = sized(extension, size)
        refusing = server()
        assert received(refusing, text) == [Unknown(extension, text)]
        problem = f"this {extension} message has more than 2000 bytes; send a shorter one"
        (error,) = refusing.messages_to_send()
        assert isinstance(error, str)
        assert json.loads(error) == {
            "t": "error",
            "code": f"{extension.upper()}_REFUSED",
            "message": problem,
        }
        assert refusing.state is State.OPEN
    ended = server()
    ended.receive_message(sized(extension, 3001))
    assert ended.messages_to_send() == [
        CloseMessage(1009, "the peer sent a text message of more than 3000 bytes")
    ]


def test_characters_count_as_bytes() -> None:
    server = ServerProtocol(extensions=["text"], limits=Limits(max_text_size=100, max_message_size=1000))
    server.send_ready()
    server.messages_to_send()
    text = json.dumps({"t": "text", "text": "\u00fc" * 50}, ensure_ascii=False)
    assert received(server, text) == [Unknown("text", text)]
    assert errors(server) == ["TEXT_REFUSED"]


def test_an_image_has_a_limit_of_its_own() -> None:
    limits = IMAGE_LIMITS

    def server() -> ServerProtocol:
        fresh = ServerProtocol(extensions=["image"], limits=limits)
        fresh.send_ready()
        fresh.messages_to_send()
        return fresh

    def image(size: int) -> str:
        data = base64.b64encode(bytes(size)).decode()
        return f'{{"t":"image","mimeType":"image/png","data":"{data}","respond":false}}'

    fits = server()
    assert received(fits, image(3000)) == [ImageIn("image/png", bytes(3000), False)]
    refusing = server()
    assert received(refusing, image(3001)) == [Unknown("image", image(3001))]
    assert errors(refusing) == ["IMAGE_REFUSED"]
    # 4000 for the base64 of 3000 bytes, and 2000.
    assert fits.text_limit == 6000
    longest = sized("image", 6000)
    assert received(fits, longest) == [Unknown("image", longest)]
    assert errors(fits) == ["IMAGE_REFUSED"]
    fits.receive_message(sized("image", 6001))
    assert fits.messages_to_send() == [
        CloseMessage(1009, "the peer sent a text message of more than 6000 bytes")
    ]


@pytest.mark.parametrize(
    "text", ['{"t":"tool_result","output":"PAD"}', '{"t":"new","x":"PAD"}', '{"x":"PAD"', "PAD"]
)
@pytest.mark.parametrize("extensions", [("image",), ("text", "usage"), ("usage",), ()])
def test_nothing_else_may_be_as_long(text: str, extensions: tuple[str, ...]) -> None:
    server = ServerProtocol(extensions=extensions, limits=Limits(max_text_size=2000, max_message_size=3000))
    server.send_ready()
    server.messages_to_send()
    server.receive_message(text.replace("PAD", "x" * 2001))
    (close,) = server.messages_to_send()
    assert isinstance(close, CloseMessage)
    assert close.code == 1009
    assert server.state is State.CLOSED


@pytest.mark.parametrize(
    ("extension", "more"),
    [
        ("image", "[" * 65 + "]" * 65),
        ("image", "[" + "{}," * 65 + "0]"),
        ("image", '"\\ud83d\\ude00' + "\\n" * 9 + '"'),
        ("image", '"\\uD83D\\uDE00"'),
        ("text", "7"),
        ("update", "[" + "[]," * 65 + "0]"),
    ],
    ids=range(6),
)
def test_a_long_message_takes_no_longer_than_an_image(
    extension: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its brackets and escapes are not looked at one by one: that would take up to half a second."""
    server = ServerProtocol(
        extensions=COMMANDS, limits=Limits(max_text_size=2000, max_message_size=9000, max_json_depth=1000)
    )
    server.send_ready()
    server.messages_to_send()
    monkeypatch.setattr(codec, "check_depth", None)
    monkeypatch.setattr(codec, "decode_from_client", None)
    text = f'{{"t":"{extension}","x":{more},"data":"{"A" * 2000}"}}'
    assert received(server, text) == [Unknown(extension, text)]
    assert errors(server) == [f"{extension.upper()}_REFUSED"]


def test_a_long_image_may_have_some_fields_of_a_newer_version() -> None:
    server = ServerProtocol(extensions=["image"], limits=Limits(max_text_size=2000, max_message_size=9000))
    server.send_ready()
    text = '{"t":"image","mimeType":"image\\/png","new":[[{}],"\\n"],"data":"' + "A" * 2000 + '"}'
    assert received(server, text) == [ImageIn("image/png", base64.b64decode("A" * 2000), False)]


def test_nor_anything_before_ready() -> None:
    server = ServerProtocol(extensions=["text"], limits=Limits(max_text_size=2000, max_message_size=3000))
    server.receive_message(sized("text", 2001))
    assert server.state is State.CLOSED


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("extension", "size", "code"),
    [("image", 6000, None), ("image", 6001, 1009), ("text", 3000, None), ("say", 3001, 1009)],
)
def test_the_same_limits_hold_for_bytes(extension: str, size: int, code: int | None, pieces: int) -> None:
    server = ServerConnection(extensions=[extension], limits=IMAGE_LIMITS)
    client, _ = open_pair(server=server)
    server.send_ready()
    client.receive_data(server.data_to_send())
    raw = sized(extension, size).encode()
    step = -(-len(raw) // pieces)
    parts = [raw[start : start + step] for start in range(0, len(raw), step)]
    data = b"".join(
        frame_for("server", TEXT if not index else 0, part, fin=index == len(parts) - 1)
        for index, part in enumerate(parts)
    )
    events: list[Any] = []
    for start in range(0, len(data), 97):
        server.receive_data(data[start : start + 97])
        events += drain(server) if server.state is State.OPEN else []
    if code is None:
        assert events == [Unknown(extension, raw.decode())]
        assert [opcode for opcode, _ in parse_frames(server.data_to_send())] == [TEXT]
    else:
        (event,) = events
        assert isinstance(event, Close)
        assert event.code == code


def test_who_is_refused_on_and_on_and_reads_nothing_is_closed() -> None:
    server = ServerProtocol(extensions=["say"], limits=Limits(max_outbox=10_000))
    server.send_ready()
    for _ in range(200):
        server.receive_message('{"t":"say"}')
    assert server.state is State.CLOSED
    last = server.messages_to_send()[-1]
    assert isinstance(last, CloseMessage)
    assert last == CloseMessage(1008, "the peer sends invalid messages and does not read what we send")
    # Whoever reads gets an answer each time.
    server = offering("say")
    server.messages_to_send()
    for _ in range(200):
        server.receive_message('{"t":"say"}')
        assert errors(server) == ["SAY_REFUSED"]


# Usage, whole


WHOLE = Usage(1, 2, 3, 4, 5, 6, 7, 8, 9.5)


def test_usage_is_whole_for_whoever_takes_it_up_and_plain_for_others() -> None:
    client, server = ready_pair()
    server.send(WHOLE)
    (message,) = server.messages_to_send()
    assert isinstance(message, str)
    assert received(client, message) == [WHOLE]
    plain = offering("usage", "text")
    plain.messages_to_send()
    plain.send(WHOLE)
    assert plain.messages_to_send() == ['{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}']


@pytest.mark.parametrize("field", [*Usage.__struct_fields__])
@pytest.mark.parametrize("value", [-1, "1", True, None, float("nan"), float("inf")])
def test_an_amount_is_checked_whoever_gets_it(field: str, value: Any) -> None:
    wanted = "finite number" if field == "seconds" else "whole number"
    for server in (offering(), ready_pair()[1]):
        server.messages_to_send()
        with pytest.raises(LocalProtocolError, match=f"{field} must be a {wanted}, 0 or more, not "):
            server.send(Usage(**{field: value}))
        assert server.messages_to_send() == []


# What the server offers


def test_capabilities_and_further_extensions_are_offered_together() -> None:
    server = ServerProtocol(extensions=["say", "text"], capabilities=Capabilities(text=True, interrupt=True))
    server.send_ready()
    (ready,) = server.messages_to_send()
    assert isinstance(ready, str)
    assert json.loads(ready) == {
        "t": "ready",
        "inputSampleRate": 24_000,
        "outputSampleRate": 24_000,
        "extensions": ["say", "text", "usage"],
        "capabilities": {"text": True, "say": "instructed", "interrupt": True},
    }
