"""Every parser and converter that input of a peer or of a file reaches; a line of `CASES` adds one.

Work may refuse its input with a documented error: that counts as done.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from speko_anyio._net.proxies import _parse_exemptions
from speko_anyio._observe.redaction import redact
from speko_anyio.audio.resample import Resampler
from speko_anyio.audio.wav import WavError, format_wav, parse_wav
from speko_anyio.client._requests import _retry_after
from speko_anyio.client.tools import Toolbox, tool
from speko_anyio.gateway._session_tokens import TokenSigner
from speko_anyio.gateway.local._tool_matching import ToolMatcher, words
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol import _headers as headers
from speko_anyio.protocol import _tokens as tokens
from speko_anyio.protocol import url
from speko_anyio.protocol._commands import AudioIn, Command, Commit, TextIn, ToolResult
from speko_anyio.protocol._dialect import NEED_DATA, Dialect
from speko_anyio.protocol._extensions import KNOWN
from speko_anyio.protocol._session import ClientProtocol, ServerProtocol
from speko_anyio.protocol.errors import SpekoError
from speko_anyio.protocol.frames import Audio, ErrorFrame, Frame, Interruption, ToolCall, Transcript
from speko_anyio.protocol.mint import SessionConfig, ToolSpec, decode_request
from speko_anyio.providers import _closes as closes
from speko_anyio.providers._held_input import HeldInput
from speko_anyio.providers.bridge._bridge import Bridge
from speko_anyio.providers.google import GoogleDialect
from speko_anyio.providers.openai import OpenAIDialect
from speko_anyio.providers.openai_calls import IncomingCall, SipHeader, read_webhook
from speko_anyio.providers.xai import XAIDialect
from speko_anyio.recording import Moment, Recording, draw_timeline
from speko_anyio.telephony import CARRIERS, SignedRequest
from speko_anyio.telephony._fields import MAX_MESSAGE

from .measure import Case

KIB: Final = 1024
MIB: Final = 1024 * 1024
TEXT: Final = 256 * KIB
"""The most bytes of a text message on the Speko wire."""
BODY: Final = 64 * KIB
"""The most bytes of a mint's body."""


def refused(work: Callable[[Any], object], *errors: type[Exception]) -> Callable[[Any], None]:
    """Let `work` refuse its input with a documented error."""
    expected: tuple[type[Exception], ...] = (SpekoError, codec.MalformedMessage, *errors)

    def run(given: Any) -> None:
        with contextlib.suppress(*expected):
            work(given)

    return run


def caller_of(address: str) -> str:
    return IncomingCall(call_id="c", sip_headers=(SipHeader("From", address),)).caller


def signed_by_openai(signatures: str) -> None:
    headers = {"webhook-id": "wh_1", "webhook-timestamp": "0", "webhook-signature": signatures}
    read_webhook(b"{}", headers, "secret", now=0.0)


def filled(piece: str, before: str = "", after: str = "") -> Callable[[int], str]:
    return lambda size: before + piece * max(1, (size - len(before) - len(after)) // len(piece)) + after


def numbered(
    piece: Callable[[int], str], before: str = "", after: str = "", between: str = ","
) -> Callable[[int], str]:
    def make(size: int) -> str:
        length = len(piece(10_000)) + len(between)
        return before + between.join(map(piece, range(max(1, size // length)))) + after

    return make


def drained(make: Callable[[], Dialect[Any]]) -> Callable[[Iterable[str | bytes]], None]:
    def run(messages: Iterable[str | bytes]) -> None:
        dialect = make()
        for message in messages:
            dialect.receive_message(message)
        events(dialect)

    return run


def events(dialect: Any) -> None:
    try:
        while dialect.next_event() is not NEED_DATA:
            pass
    except SpekoError:
        pass


def one(make: Callable[[int], str]) -> Callable[[int], list[str]]:
    return lambda size: [make(size)]


def many(*messages: str) -> Callable[[int], list[str]]:
    total = sum(map(len, messages))
    return lambda size: list(messages) * max(1, size // total)


def counted(make: Callable[[int], str]) -> Callable[[int], list[str]]:
    length = len(make(10_000))
    return lambda size: [make(number) for number in range(max(1, size // length))]


# Phone calls

OPENINGS: Final = {
    "twilio": ('{"event":"start","start":{"streamSid":"s","customParameters":{', "}}}"),
    "telnyx": ('{"event":"start","start":{"custom_parameters":{', "}}}"),
    "plivo": ('{"event":"start","start":{"streamId":"s"},"extra_headers":{', "}}"),
    "vonage": ('{"event":"websocket:connected",', "}"),
}
"""What comes before and after the parameters of a call."""


def heard(name: str) -> Callable[[list[str]], None]:
    def run(messages: list[str]) -> None:
        stream = CARRIERS[name]()
        for message in messages:
            stream.receive_message(message)

    return refused(run)


def verified(name: str) -> Callable[[str], None]:
    def run(text: str) -> None:
        headers = {
            "X-Twilio-Signature": text,
            "telnyx-signature-ed25519": text,
            "telnyx-timestamp": text,
            "X-Plivo-Signature-V3": text,
            "X-Plivo-Signature-V3-Nonce": text,
            "Authorization": f"Bearer {text}",
        }
        request = SignedRequest(method="POST", url=f"https://a/?{text}", headers=headers, body=text.encode())
        CARRIERS[name].verify(request, "A" * 43 + "=", now=0.0)

    return refused(run)


# Sessions


def client() -> ClientProtocol:
    return ClientProtocol()


def server() -> ServerProtocol:
    session = ServerProtocol(extensions=KNOWN)
    session.send_ready()
    return session


IMAGE: Final = '{"t":"image","mimeType":"image/png",'
CONFIG: Final = SessionConfig(provider="x", model="m")
SETUP: Final = '{"setupComplete":{}}'


def google() -> GoogleDialect:
    dialect = GoogleDialect(CONFIG)
    dialect.receive_message(SETUP)
    return dialect


def openai() -> Any:
    return _accepted(OpenAIDialect(CONFIG))


def xai() -> Any:
    return _accepted(XAIDialect(CONFIG))


def _accepted(dialect: Any) -> Any:
    dialect.receive_message('{"type":"session.created","session":{}}')
    dialect.receive_message('{"type":"session.updated","session":{}}')
    return dialect


def bridge(messages: Iterable[str]) -> None:
    joined = Bridge(resampling=Resampler)
    dialect = GoogleDialect(CONFIG)
    joined.attach(dialect, 0.0)
    with joined.at(0.0):
        dialect.receive_message(SETUP)
    for message in messages:
        with joined.at(1.0):
            dialect.receive_message(message)
    while joined.next_frame() is not None:
        pass


def parts(part: str) -> Callable[[int], str]:
    return numbered(lambda _: part, '{"serverContent":{"modelTurn":{"parts":[', "]}}}")


AUDIO = '{"inlineData":{"data":"AAAA","mimeType":"audio/pcm;rate=24000"}}'


# Configurations


def tools_with(make: Callable[[int], Any]) -> Callable[[int], SessionConfig]:
    return lambda size: SessionConfig(
        provider="x", model="m", tools=(ToolSpec(name="f", parameters=make(size)),)
    )


def numbers(size: int) -> Any:
    names = [f"p{number}" for number in range(size // 32)]
    return {"properties": {name: {"type": "integer"} for name in names}, "required": names}


def many_tools(
    make: Callable[[int], Any], name: Callable[[int], str] = lambda n: f"f{n}"
) -> Callable[[int], SessionConfig]:
    def build(size: int) -> SessionConfig:
        length = len(json.dumps(make(10_000))) + 20
        return SessionConfig(
            provider="x",
            model="m",
            tools=tuple(ToolSpec(name=name(n), parameters=make(n)) for n in range(max(1, size // length))),
        )

    return build


def props(value: Any, length: int = 0) -> Callable[[int], Any]:
    size_of = len(json.dumps(value)) + 12
    return lambda size: {
        "type": "object",
        "properties": {f"p{n:06}": value for n in range(max(1, size // size_of))},
    }


def referenced(target: Callable[[int], Any], beside: Any = None) -> Callable[[int], Any]:
    """Half of the schema is a definition, the other half refers to it."""

    def make(size: int) -> Any:
        count = size // 2 // 34
        return {
            "type": "object",
            "$defs": {"a": target(size // 2)},
            "properties": {f"p{n:06}": {"$ref": "#/$defs/a", **(beside or {})} for n in range(count)},
        }

    return make


def strings(size: int) -> list[str]:
    return [f"{n:05}" for n in range(size // 9)]


def doubling(size: int) -> Any:
    count = max(2, size // 90)
    defs = {
        f"d{n}": {
            "type": "object",
            "properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}},
        }
        for n in range(count)
    }
    defs[f"d{count}"] = {"type": "string"}
    return {"type": "object", "$defs": defs, "properties": {"a": {"$ref": "#/$defs/d0"}}}


def chain(size: int) -> Any:
    count = max(2, size // 40)
    defs: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(count)}
    defs[f"d{count}"] = {"type": "string"}
    return {"type": "object", "$defs": defs, "properties": {"a": {"$ref": "#/$defs/d0"}}}


def alternatives(branch: Callable[[int], Any], key: str = "anyOf") -> Callable[[int], Any]:
    def make(size: int) -> Any:
        length = len(json.dumps(branch(10_000))) + 2
        return {"type": "object", key: [branch(n) for n in range(max(1, size // length))]}

    return make


def inside(make: Callable[[int], Any]) -> Callable[[int], Any]:
    return lambda size: {"type": "object", "properties": {"a": make(size)}}


SCHEMAS: dict[str, Callable[[int], Any]] = {
    "properties": props({"type": "string"}),
    "properties without a type": props({}),
    "properties with unknown keys": props({"x": 1, "y": 2}),
    "references to an enum": referenced(lambda size: {"type": "string", "enum": strings(size)}),
    "references to an enum of several types": referenced(lambda size: {"enum": [*strings(size), 1]}),
    "references to an enum of numbers": referenced(lambda size: {"enum": list(range(size // 6))}),
    "references to a list of types with an enum": referenced(
        lambda size: {
            "type": ["string", "number", "integer", "boolean", "array", "object"],
            "enum": list(range(size // 6)),
        }
    ),
    "references to an object": referenced(lambda size: props({})(size)),
    "references to required": referenced(lambda size: {"type": "object", "required": strings(size)}),
    "references to nulls": referenced(
        lambda size: {"anyOf": [{"type": ["null"] * (size // 8)}, {"type": "string"}]}
    ),
    "references to a description": referenced(lambda size: {"type": "string", "description": "x" * size}),
    "references to a default": referenced(lambda size: {"type": "array", "default": [1] * (size // 3)}),
    "references to a default of another type": referenced(
        lambda size: {"type": "string", "default": [1] * (size // 3)}
    ),
    "references to a pattern": referenced(lambda size: {"type": "string", "pattern": "x" * size}),
    "references to unknown keys": referenced(
        lambda size: {"type": "string", **{f"x{n:05}": 0 for n in range(size // 12)}}
    ),
    "references to alternatives": referenced(lambda size: {"anyOf": [{"type": "string"}] * (size // 20)}),
    "references to prefixItems": referenced(
        lambda size: {"type": "array", "prefixItems": [{"type": "string"}] * (size // 20)}
    ),
    "references to allOf": referenced(lambda size: {"allOf": [{"type": "string"}] * (size // 20)}),
    "references into a list": lambda size: {
        "type": "object",
        "$defs": {"a": [{}] * (size // 8)},
        "properties": {f"p{n:06}": {"$ref": f"#/$defs/a/{size // 8 - 1 - n}"} for n in range(size // 80)},
    },
    "references that double": doubling,
    "a chain of references": chain,
    "long references": lambda size: {
        "type": "object",
        "properties": {"a": {"$ref": "#" + "/$defs" * (size // 6)}},
    },
    "escaped references": lambda size: {
        "type": "object",
        "properties": {"a": {"$ref": "#/" + "%25" * (size // 3)}},
    },
    "alternatives of the root": alternatives(
        lambda n: {"type": "object", "properties": {f"a{n:05}": {"type": "string"}}}
    ),
    "alternatives of the root with one property": alternatives(
        lambda n: {"properties": {"a": {"type": "string", "description": f"{n:06}"}}}
    ),
    "alternatives of the root with equal long properties": alternatives(
        lambda n: {"properties": {"a": {"enum": [f"{n:06}"] * 3 + ["x"] * 80, "x": 1}}}
    ),
    "alternatives with required": alternatives(
        lambda n: {"properties": {"a": {}}, "required": ["a", f"b{n}"]}
    ),
    "oneOf of the root": alternatives(lambda n: {"properties": {f"a{n:05}": {}}}, "oneOf"),
    "alternatives": inside(
        lambda size: {"anyOf": [{"type": "string", "minLength": n} for n in range(size // 36)]}
    ),
    "alternatives beside keys": inside(
        lambda size: {"anyOf": [{}] * (size // 2 // 4), **{f"x{n:05}": 0 for n in range(size // 2 // 12)}}
    ),
    "alternatives with a long description": inside(
        lambda size: {"anyOf": [{}] * (size // 2 // 4), "description": "x" * (size // 2)}
    ),
    "types": inside(lambda size: {"type": ["string", "integer"] * (size // 20), "enum": strings(size // 2)}),
    "allOf with required": inside(
        lambda size: {"allOf": [{"required": [f"{n:06}"]} for n in range(size // 28)]}
    ),
    "allOf with properties": inside(
        lambda size: {"allOf": [{"properties": {f"{n:06}": {}}} for n in range(size // 34)]}
    ),
    "allOf with types": inside(
        lambda size: {"allOf": [{"type": ["string", "number"]} for n in range(size // 34)]}
    ),
    "nested allOf": inside(
        lambda size: {"allOf": [{"allOf": [{"description": "x"}] * 100}] * (size // 2500)}
    ),
    "a deep array": inside(lambda size: _nested(size // 12)),
    "long names": lambda size: {
        "type": "object",
        "properties": {
            "x" * (size // 2): {
                "type": "object",
                "properties": {f"{n:05}": {} for n in range(size // 2 // 12)},
            }
        },
    },
    "numbers": props({"type": "integer", "minimum": 10**15}),
}


def _inner(depth: int) -> Any:
    node: Any = {}
    for _ in range(depth):
        node = {"inner": node}
    return node


def _nested(depth: int) -> Any:
    schema: Any = {}
    for _ in range(min(depth, 90)):
        schema = {"items": schema}
    return schema


# Speech: pieces of a text

# Files


def wav(size: int) -> bytes:
    return format_wav(b"\1\0" * (size // 2), 24_000)


def with_chunks(chunk: bytes, after: bytes = b"") -> Callable[[int], bytes]:
    head = b"RIFF\0\0\0\0WAVE" + format_wav(b"", 24_000)[12:36]
    return lambda size: head + chunk * (size // len(chunk)) + after


def recording(*moments: tuple[str, Command | Frame]) -> Callable[[int], Recording]:
    """Make a recording in which these moments repeat, 10 ms apart, each of them 100 bytes of a file."""

    def make(size: int) -> Recording:
        made = Recording()
        for number in range(max(1, size // 100)):
            by, what = moments[number % len(moments)]
            made.moments.append(Moment(number / 100, by, what))  # type: ignore[arg-type]
        return made

    return make


def saved(make: Callable[[int], Recording]) -> Callable[[int], Path]:
    def write(size: int) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="growth-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        make(size).save(folder)
        return folder

    return write


class Node(msgspec.Struct):
    value: int | str | None = None
    inner: list[Node] | Node | None = None
    others: dict[str, Node] = {}


@tool
def nested(node: Node, count: int = 0, names: list[str] | None = None) -> str:
    """Take what a model writes."""
    return ""


def arguments(**given: Callable[[int], Any]) -> Callable[[int], str]:
    return lambda size: json.dumps({name: make(size) for name, make in given.items()})


def held(pieces: list[bytes]) -> None:
    input_of_the_user = HeldInput(480_000)
    for piece in pieces:
        input_of_the_user.add(piece)
    input_of_the_user.take()


def held_with_texts(count: int) -> None:
    input_of_the_user = HeldInput(480_000)
    for _ in range(count):
        input_of_the_user.add_command(TextIn("x"), 1)
        input_of_the_user.add(b"\0\0")
        input_of_the_user.clear()
        input_of_the_user.end_turn("commit")
    assert len(input_of_the_user.take()) == count + 1


def written_while_it_speaks(texts: list[str]) -> None:
    dialect = google()
    dialect.receive_message('{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"AAA="}}]}}}')
    for text in texts:
        dialect.send_text(text, respond=False)
    dialect.receive_message('{"serverContent":{"turnComplete":true}}')
    assert len(dialect.messages_to_send()) > len(texts)


def exempt(text: str) -> None:
    # The result is cached by the text.
    _parse_exemptions.cache_clear()
    _parse_exemptions("NO_PROXY", text)


SIGNER: Final = TokenSigner()
SPOKEN: Final = Audio(b"\1\1" * 20, 24_000)
SAID: Final = Transcript("assistant", "a few words", True)

CASES: list[Case] = [
    Case("depth of brackets", filled("[]"), refused(lambda t: codec.check_depth(t, 256)), TEXT),
    Case(
        "depth of brackets in a string",
        filled('["[[[["],'),
        refused(lambda t: codec.check_depth(t, 256)),
        TEXT,
    ),
    Case("depth of escapes", filled('\\"[[', '"'), refused(lambda t: codec.check_depth(t, 256)), TEXT),
    Case("halves of pairs, escaped", filled("\\ud800"), codec.mend_escapes, TEXT),
    Case("halves of pairs", filled("\ud800x"), codec.mended, TEXT),
    Case(
        "a transcript",
        filled("x", '{"t":"transcript","role":"user","final":true,"text":"', '"}'),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case(
        "a transcript of halves",
        filled("\\ud800", '{"t":"transcript","role":"user","final":true,"text":"', '"}'),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case(
        "extensions offered",
        numbered(lambda n: f'"e{n}"', '{"t":"ready","extensions":[', "]}"),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case(
        "odd extensions",
        filled("1,", '{"t":"ready","extensions":[', "0]}"),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case(
        "extensions accepted",
        one(numbered(lambda n: f'"e{n}"', '{"t":"extensions","use":[', "]}")),
        drained(server),
        TEXT,
    ),
    Case(
        "a long count",
        filled("1", '{"t":"usage","inputAudioTokens":', "}"),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case(
        "a long rate",
        filled("1", '{"t":"ready","inputSampleRate":', "}"),
        refused(codec.decode_from_server),
        TEXT,
    ),
    Case("unknown messages", many('{"t":"x"}'), drained(server), TEXT),
    Case("commands", many('{"t":"control","action":"commit"}'), drained(server), TEXT),
    Case("interruptions", many('{"t":"interruption"}'), drained(client), MIB),
    Case(
        "answers and interruptions",
        lambda size: [b"\0\0", '{"t":"interruption"}'] * (size // 22),
        drained(client),
        MIB,
    ),
    Case("tiny audio", lambda size: [b"\0\0"] * (size // 4), drained(client), MIB),
    Case("repeated calls", many('{"t":"tool_call","callId":"a"}'), drained(client), MIB),
    Case("results that nobody waits for", many('{"t":"tool_result","callId":"a"}'), drained(server), MIB),
    Case("an image", one(filled("AAAA", IMAGE + '"data":"', '"}')), drained(server), 5 * MIB),
    Case("an image and brackets", one(filled("[],", IMAGE + '"x":[', "0]}")), drained(server), 5 * MIB),
    Case(
        "an image and escapes",
        one(filled("\\n", IMAGE + '"x":"\\ud83d\\ude00', '"}')),
        drained(server),
        5 * MIB,
    ),
    Case("a long text", one(filled("x", '{"t":"text","text":"', '"}')), drained(server), MIB),
    Case("refused commands", many('{"t":"say"}', '{"t":"text","text":7}'), drained(server), TEXT),
    Case(
        "an update",
        one(numbered(lambda n: f'{{"name":"f{n}"}}', '{"t":"update","tools":[', "]}")),
        drained(server),
        TEXT,
    ),
    Case(
        "odd capabilities",
        one(filled("1,", '{"t":"ready","capabilities":{"update":[', "1]}}")),
        drained(client),
        TEXT,
    ),
    Case("an HTTP error", filled(" x"), codec.error_text, TEXT),
    Case("a URL", filled("a", "ws://host/"), refused(url.parse_url), BODY),
    Case("a URL with a long host", filled("a.", "ws://"), refused(url.parse_url), BODY),
    Case("a URL with a host of IDNA", filled("\u00e9", "ws://"), refused(url.parse_url), BODY),
    Case("a URL with labels of IDNA", filled("\u00e9.", "ws://"), refused(url.parse_url), BODY),
    Case("headers", lambda size: [("x-a", "b")] * (size // 8), refused(headers.encode_headers), BODY),
    Case(
        "a long header",
        lambda size: [("x" * size, " " * size + "\x01")],
        refused(headers.encode_headers),
        BODY,
    ),
    Case("a token", filled("a"), tokens.is_token, BODY),
    Case("blanks around a key", filled(" ", "a", "a"), tokens.strip_invisible, BODY),
    Case(
        "secrets in a text", filled("key test "), lambda t: tokens.hide(t, ("test", "0123456789"), "*"), TEXT
    ),
    Case("keys in a text", filled("eyJaaaaaaa."), redact, TEXT),
    Case("schemes in a text", filled("Bearer "), redact, TEXT),
    Case("prefixes in a text", filled("sk-"), redact, TEXT),
    Case(
        "a mint of tools",
        numbered(
            lambda n: f'{{"name":"f{n}"}}', '{"mode":"s2s","s2s":{"provider":"p","model":"m","tools":[', "]}}"
        ),
        refused(lambda t: decode_request(t.encode()), ValueError),
        BODY,
    ),
    Case(
        "a mint of metadata",
        numbered(
            lambda n: f'"a{n}":0', '{"mode":"s2s","metadata":{', '},"s2s":{"provider":"p","model":"m"}}'
        ),
        refused(lambda t: decode_request(t.encode()), ValueError),
        BODY,
    ),
    Case(
        "a mint with a float",
        numbered(
            lambda n: f'"a{n}":0',
            '{"mode":"s2s","ttlSeconds":60.0,"metadata":{',
            '},"s2s":{"provider":"p","model":"m"}}',
        ),
        refused(lambda t: decode_request(t.encode()), ValueError),
        BODY,
    ),
    Case(
        "a mint of halves",
        filled("\\ud800", '{"mode":"s2s","metadata":{"a":"', '"},"s2s":{"provider":"p","model":"m"}}'),
        refused(lambda t: decode_request(t.encode()), ValueError),
        BODY,
    ),
    Case(
        "a mint with a long number",
        filled("1", '{"mode":"s2s","metadata":{"a":', '},"s2s":{"provider":"p","model":"m"}}'),
        refused(lambda t: decode_request(t.encode()), ValueError),
        BODY,
    ),
    # Configurations
    *(
        Case(f"Google: {name}", tools_with(make), refused(lambda c: GoogleDialect(c)), BODY)
        for name, make in SCHEMAS.items()
    ),
    *(
        Case(f"OpenAI: {name}", tools_with(make), refused(lambda c: OpenAIDialect(c)), BODY)
        for name, make in SCHEMAS.items()
    ),
    Case("Google: tools", many_tools(lambda n: {}), refused(lambda c: GoogleDialect(c)), BODY),
    Case(
        "Google: tools that double",
        many_tools(lambda n: doubling(600)),
        refused(lambda c: GoogleDialect(c)),
        BODY,
    ),
    Case("OpenAI: tools", many_tools(lambda n: {}), refused(lambda c: OpenAIDialect(c)), BODY),
    Case("xAI: tools", many_tools(lambda n: {}), refused(lambda c: XAIDialect(c)), BODY),
    Case(
        "offline voice: tools of one name",
        many_tools(lambda n: {}, lambda n: "weather"),
        lambda c: ToolMatcher(c.tools).plan_calls("what is the weather"),
        BODY,
    ),
    Case(
        "offline voice: tools",
        many_tools(lambda n: {}, lambda n: f"weather{n}"),
        lambda c: ToolMatcher(c.tools).plan_calls("what is the weather"),
        BODY,
    ),
    Case(
        "offline voice: a long sentence and many properties",
        tools_with(numbers),
        lambda c: ToolMatcher(c.tools).plan_calls("f " + "x " * len(c.tools[0].parameters["required"])),
        BODY,
    ),
    Case(
        "offline voice: grammar of tools",
        many_tools(lambda n: {}, lambda n: f"weather {n}"),
        lambda c: ToolMatcher(c.tools).grammar(),
        BODY,
    ),
    *(
        Case(f"offline voice: {name}", tools_with(make), lambda c: ToolMatcher(c.tools).grammar(), BODY)
        for name, make in SCHEMAS.items()
    ),
    Case("offline voice: names", filled("aB"), words, BODY),
    # Providers
    Case("Google: audio parts", one(parts(AUDIO)), drained(google), 4 * MIB),
    Case("Google: tiny audio parts", one(parts('{"inlineData":{"data":"AAAA"}}')), drained(google), 4 * MIB),
    Case(
        "Google: tiny parts through a bridge", one(parts('{"inlineData":{"data":"AAAA"}}')), bridge, 4 * MIB
    ),
    Case("Google: text parts", one(parts('{"text":"word "}')), drained(google), MIB),
    Case("Google: odd parts", one(parts('{"text":1,"x":2}')), drained(google), MIB),
    Case(
        "Google: calls",
        one(numbered(lambda n: f'{{"id":"{n}","name":"f"}}', '{"toolCall":{"functionCalls":[', "]}}")),
        drained(google),
        MIB,
    ),
    Case(
        "Google: one call repeated",
        one(numbered(lambda n: '{"id":"a","name":"f"}', '{"toolCall":{"functionCalls":[', "]}}")),
        drained(google),
        MIB,
    ),
    Case(
        "Google: cancelled calls",
        lambda size: [
            '{"toolCall":{"functionCalls":['
            + ",".join(f'{{"id":"{n}","name":"f"}}' for n in range(200))
            + "]}}",
            numbered(lambda n: f'"x{n}"', '{"toolCallCancellation":{"ids":[', "]}}")(size),
        ],
        drained(google),
        MIB,
    ),
    Case(
        "Google: cancelled again",
        lambda size: [
            '{"toolCall":{"functionCalls":['
            + ",".join(f'{{"id":"{n}","name":"f"}}' for n in range(200))
            + "]}}",
            numbered(lambda n: '"199"', '{"toolCallCancellation":{"ids":[', "]}}")(size),
        ],
        drained(google),
        MIB,
    ),
    Case(
        "Google: audio and an interruption",
        lambda size: [
            parts('{"inlineData":{"data":"AAAA"}}')(size),
            '{"toolCall":{"functionCalls":['
            + ",".join(f'{{"id":"{n}","name":"f"}}' for n in range(200))
            + "]}}",
            '{"serverContent":{"interrupted":true}}',
        ],
        drained(google),
        MIB,
    ),
    Case(
        "Google: words",
        many('{"serverContent":{"outputTranscription":{"text":"ab cd ef gh"}}}'),
        drained(google),
        4 * MIB,
    ),
    Case(
        "Google: words that are not ASCII",
        many('{"serverContent":{"outputTranscription":{"text":"\u00e9b cd ef gh"}}}'),
        drained(google),
        4 * MIB,
    ),
    Case(
        "Google: words through a bridge",
        many('{"serverContent":{"outputTranscription":{"text":"ab cd ef gh"}}}'),
        bridge,
        4 * MIB,
    ),
    Case(
        "Google: words of the user",
        many('{"serverContent":{"inputTranscription":{"text":"ab cd ef gh"}}}'),
        drained(google),
        4 * MIB,
    ),
    Case(
        "Google: interim words",
        many(
            '{"serverContent":{"inputTranscription":{"text":"ab cd ef gh"}}}',
            '{"serverContent":{"interimInputTranscription":{"text":"x"}}}',
        ),
        drained(google),
        4 * MIB,
    ),
    Case("Google: unknown fields", one(numbered(lambda n: f'"x{n}":0', "{", "}")), drained(google), MIB),
    Case(
        "Google: unknown fields, deep",
        one(numbered(lambda n: f'"x{n}":0', '{"serverContent":{"modelTurn":{', "}}}")),
        drained(google),
        MIB,
    ),
    Case(
        "Google: raw dict",
        one(numbered(lambda n: f'"x{n}":NaN', '{"serverContent":{"groundingMetadata":{', "}}}")),
        drained(google),
        MIB,
    ),
    Case(
        "Google: token counts",
        one(
            numbered(
                lambda n: '{"modality":"AUDIO","tokenCount":1.0}',
                '{"usageMetadata":{"responseTokensDetails":[',
                "]}}",
            )
        ),
        drained(google),
        MIB,
    ),
    Case(
        "Google: arguments",
        one(
            lambda size: json.dumps(
                {
                    "toolCall": {
                        "functionCalls": [{"id": "a", "args": {f"a{n}": 0 for n in range(size // 12)}}]
                    }
                }
            )
        ),
        drained(google),
        MIB,
    ),
    Case("Google: a long number", one(filled("1", '{"goAway":{"timeLeft":', "}}")), drained(google), MIB),
    Case(
        "Google: a long odd number",
        one(filled("1", '{"usageMetadata":{"promptTokensDetails":[{"tokenCount":"', '"}]}}')),
        drained(google),
        MIB,
    ),
    Case("Google: a time", one(filled("1m", '{"goAway":{"timeLeft":"', '"}}')), drained(google), MIB),
    Case(
        "Google: a media type",
        one(
            filled(
                "; ",
                '{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"AAAA","mimeType":"audio/pcm',
                '"}}]}}}',
            )
        ),
        drained(google),
        MIB,
    ),
    Case(
        "Google: a reason",
        one(filled("MAX_ SAFET", '{"serverContent":{"turnCompleteReason":"', '"}}')),
        drained(google),
        MIB,
    ),
    Case(
        "Google: not base64",
        one(filled("A-_\\n", '{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"', '"}}]}}}')),
        drained(google),
        MIB,
    ),
    Case("Google: deep", one(lambda size: '{"x":' * (size // 5)), drained(google), MIB),
    Case(
        "Google: handles",
        many('{"sessionResumptionUpdate":{"newHandle":"a","resumable":true}}'),
        drained(google),
        MIB,
    ),
    Case(
        "OpenAI: words",
        many('{"type":"response.output_text.delta","response_id":"r","item_id":"i","delta":"ab cd ef"}'),
        drained(openai),
        4 * MIB,
    ),
    Case(
        "OpenAI: words that are not ASCII",
        many('{"type":"response.output_text.delta","response_id":"r","item_id":"i","delta":"\u00e9b cd ef"}'),
        drained(openai),
        4 * MIB,
    ),
    Case(
        "OpenAI: words of the user",
        many('{"type":"conversation.item.input_audio_transcription.delta","item_id":"i","delta":"ab cd ef"}'),
        drained(openai),
        4 * MIB,
    ),
    Case(
        "OpenAI: texts",
        counted(
            lambda n: (
                f'{{"type":"response.output_audio_transcript.delta","response_id":"r","item_id":"i{n}","delta":"ab"}}'
            )
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: audio",
        many('{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAAA"}'),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: responses",
        counted(lambda n: f'{{"type":"response.created","response":{{"id":"r{n}"}}}}'),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: calls of one response",
        one(
            numbered(
                lambda n: f'{{"type":"function_call","call_id":"{n}"}}',
                '{"type":"response.done","response":{"id":"r","status":"completed","output":[',
                "]}}",
            )
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: one call repeated",
        one(
            numbered(
                lambda n: '{"type":"function_call","call_id":"a","arguments":"{}"}',
                '{"type":"response.done","response":{"id":"r","status":"completed","output":[',
                "]}}",
            )
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: unconfirmed calls",
        lambda size: [
            *counted(
                lambda n: (
                    f'{{"type":"response.function_call_arguments.done","response_id":"r","item_id":"i{n}","call_id":"c"}}'
                )
            )(size),
            '{"type":"response.done","response":{"id":"r","status":"completed"}}',
        ],
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: server tools",
        counted(
            lambda n: (
                f'{{"type":"response.output_item.added","response_id":"r","item":{{"id":"i{n}","type":"mcp_call"}}}}'
            )
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: approvals",
        counted(
            lambda n: (
                f'{{"type":"response.output_item.done","response_id":"r","item":{{"id":"i{n}","type":"mcp_approval_request"}}}}'
            )
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "OpenAI: speech",
        many(
            '{"type":"input_audio_buffer.speech_started","item_id":"i"}',
            '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAAA"}',
        ),
        drained(openai),
        MIB,
    ),
    Case(
        "xAI: words of the user",
        counted(
            lambda n: (
                f'{{"type":"conversation.item.input_audio_transcription.completed","item_id":"i{n}","transcript":"ab"}}'
            )
        ),
        drained(xai),
        MIB,
    ),
    *(
        Case(
            f"OpenAI: an error, {text!r}",
            one(filled(text, '{"type":"error","error":{"message":"', '"}}')),
            drained(openai),
            128 * KIB,
        )
        for text in (
            "closed ",
            "models/",
            "handle .",
            "item ",
            "over ",
            "no ",
            "account ",
            "unknown ",
            "balance ",
            "a",
            "response.",
            "in progress: ",
            "credits x ",
            "delete",
        )
    ),
    Case(
        "OpenAI: an error, 'handle ...'",
        one(filled(".", '{"type":"error","error":{"message":"handle ', '"}}')),
        drained(openai),
        128 * KIB,
    ),
    *(
        Case(
            f"a close, {text!r}",
            filled(text),
            lambda reason: closes.judge(closes.Service.GOOGLE, 1008, reason, closes.Moment.RESUMING),
            128 * KIB,
        )
        for text in ("models/", "handle ", "closed ", "over ", "credits x ", "a")
    ),
    Case(
        "a close, 'handle ...'",
        filled(".", "handle "),
        lambda reason: closes.judge(closes.Service.GOOGLE, 1008, reason, closes.Moment.RESUMING),
        128 * KIB,
    ),
    # Files
    Case("WAV: audio", wav, lambda c: parse_wav(c), MIB),
    Case("WAV: resampled", wav, lambda c: parse_wav(c, sample_rate=16_000), MIB),
    Case("WAV: chunks", with_chunks(b"abcd\0\0\0\0"), refused(parse_wav, WavError), 79_000),
    Case("WAV: empty audio", with_chunks(b"data\0\0\0\0"), refused(parse_wav, WavError), 79_000),
    Case(
        "WAV: ID3 tags", lambda size: b"ID3\0\0\0\0\0\0\0" * (size // 10), refused(parse_wav, WavError), MIB
    ),
    Case(
        "WAV: sizes",
        lambda size: with_chunks(b"ds64" + (size).to_bytes(4, "little") + b"\0" * size)(size + 8),
        refused(parse_wav, WavError),
        MIB,
    ),
    Case(
        "recording: interruptions",
        recording(("gateway", SPOKEN), ("gateway", Interruption())),
        draw_timeline,
        MIB,
    ),
    Case("recording: words", recording(("gateway", SPOKEN), ("gateway", SAID)), draw_timeline, MIB),
    Case("recording: errors", recording(("gateway", ErrorFrame("A", "b"))), draw_timeline, MIB),
    Case(
        "recording: calls",
        recording(("gateway", ToolCall("a", "f", "{}")), ("client", ToolResult("a", "1"))),
        draw_timeline,
        MIB,
    ),
    Case(
        "recording: ends of turns",
        recording(("client", AudioIn(b"\1\1", 24_000)), ("client", Commit())),
        draw_timeline,
        MIB,
    ),
    Case(
        "recording: a long text",
        lambda size: recording(("gateway", Transcript("user", "ab " * (size // 3), True)))(100),
        draw_timeline,
        MIB,
    ),
    Case("recording: files", saved(recording(("gateway", SPOKEN), ("gateway", SAID))), Recording.load, MIB),
    # The client
    Case(
        "tool: a list",
        arguments(node=lambda size: {"inner": [{}] * (size // 4)}),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case(
        "tool: numbers as text",
        arguments(node=lambda size: {"inner": [{"value": 1.0}] * (size // 14)}, count=lambda _: "1"),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case(
        "tool: nulls",
        arguments(node=lambda size: {"inner": [{"others": None}] * (size // 18)}),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case(
        "tool: depth",
        arguments(node=lambda size: _inner(size // 12)),
        refused(nested.parse, msgspec.DecodeError, RecursionError),
        2000,
    ),
    Case(
        "tool: a long number",
        filled("1", '{"count":"', '"}'),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case(
        "tool: encoded twice",
        lambda size: json.dumps(json.dumps({"names": ["a"] * (size // 8)})),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case(
        "tool: halves",
        filled("\\ud800", '{"names":["', '"]}'),
        refused(nested.parse, msgspec.DecodeError),
        TEXT,
    ),
    Case("tools declared", lambda size: [{"name": f"f{n}"} for n in range(size // 20)], Toolbox, BODY),
    Case("NO_PROXY", numbered(lambda n: f"h{n}.test"), exempt, BODY),
    Case("NO_PROXY, long", filled("a."), exempt, BODY),
    Case(
        "texts that wait for the end of an answer",
        lambda size: ["x"] * (size // 300),
        written_while_it_speaks,
        4 * MIB,
    ),
    Case("input held back", lambda size: [bytes(20)] * (size // 20), held, 8 * MIB),
    Case("input held back, with texts", lambda size: size // 256, held_with_texts, MIB),
    Case("a retry after", filled("1"), _retry_after, BODY),
    Case("a retry after a date", filled("Mon, "), _retry_after, BODY),
    Case("the caller of a SIP call", filled("sip:"), caller_of, BODY),
    Case("the caller of a SIP call, a number", filled("1", "<sip:"), caller_of, BODY),
    Case("signatures of a webhook", filled("v1,x "), refused(signed_by_openai), BODY),
    # The gateway
    Case(
        "session token",
        filled("a."),
        refused(lambda token: SIGNER.verify(token, session_id="s", now=0.0)),
        BODY,
    ),
    Case(
        "session token, deep",
        lambda size: f"e30.{base64.urlsafe_b64encode(b'[' * size).decode()}.e30",
        refused(lambda token: SIGNER.verify(token, session_id="s", now=0.0)),
        BODY,
    ),
    # Phone calls
    *(
        Case(f"{name}: {kind}", one(make), heard(name), MAX_MESSAGE)
        for name in CARRIERS
        for kind, make in (
            ("audio", filled("AAAA", '{"event":"media","media":{"payload":"', '"}}')),
            ("audio that is not base64", filled("AAA~", '{"event":"media","media":{"payload":"', '"}}')),
            (
                "parameters",
                numbered(lambda n: f'"a{n}":{{"b":[{n}]}}', OPENINGS[name][0], OPENINGS[name][1]),
            ),
            (
                "a parameter of many parts",
                filled("[1],", f'{OPENINGS[name][0]}"a":[', f"0]{OPENINGS[name][1]}"),
            ),
            ("depth", filled("[")),
        )
    ),
    Case(
        "Plivo's headers",
        one(filled("a=1;", '{"event":"start","extra_headers":"', '"}')),
        heard("plivo"),
        BODY,
    ),
    *(
        Case(f"{name}: {kind}", make, verified(name), BODY)
        for name in CARRIERS
        for kind, make in (
            ("a form", numbered(lambda n: f"a{n}=%41", between="&")),
            ("a form of one field", filled("%41", "a=")),
            ("a signature", filled("a,")),
            ("a token", filled("a.")),
        )
    ),
]
