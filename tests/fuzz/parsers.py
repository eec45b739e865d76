"""Every parser that a peer's input or a file reaches raises its documented errors only, on any input."""

from __future__ import annotations

import base64
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from speko_anyio import XAI, Google, OpenAI
from speko_anyio._net.http import Answer
from speko_anyio._net.proxies import _parse_exemptions, _parse_proxy
from speko_anyio._observe.redaction import describe, redact
from speko_anyio.audio.wav import WavError, format_wav, parse_wav
from speko_anyio.client import _direct
from speko_anyio.client._mint import MintClient
from speko_anyio.client._requests import _retry_after
from speko_anyio.client.tools import tool
from speko_anyio.errors import APIError, ConfigurationError
from speko_anyio.gateway._http_errors import RequestError
from speko_anyio.gateway._session_tokens import Claims, TokenError, TokenSigner
from speko_anyio.gateway._sessions_api import _position
from speko_anyio.gateway.local._tool_matching import ToolMatcher
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol import _headers as headers
from speko_anyio.protocol import _tokens as tokens
from speko_anyio.protocol import url
from speko_anyio.protocol._connection import ClientConnection
from speko_anyio.protocol._dialect import NEED_DATA
from speko_anyio.protocol._session import ClientProtocol, ServerProtocol
from speko_anyio.protocol.errors import SpekoError
from speko_anyio.protocol.mint import (
    InvalidRequestError,
    MintRequest,
    ProviderGrant,
    SessionConfig,
    SessionGrant,
    ToolSpec,
    decode_request,
)
from speko_anyio.providers.google import GoogleDialect
from speko_anyio.providers.openai import OpenAIDialect
from speko_anyio.providers.xai import XAIDialect
from speko_anyio.recording import Recording, RecordingError, draw_timeline

from . import mutation
from .mutation import bounded

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "t",
    "$defs": {
        "point": {"type": "object", "properties": {"x": {"type": "number", "minimum": 0}}, "required": ["x"]},
        "either": {"anyOf": [{"$ref": "#/$defs/point"}, {"type": "null"}], "description": "d"},
    },
    "properties": {
        "city": {"type": "string", "enum": ["Rome", "Oslo"], "description": "where", "default": "Rome"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
        "place": {"$ref": "#/$defs/point"},
        "way": {"oneOf": [{"$ref": "#/$defs/either"}, {"type": "array", "items": {"const": "x"}}]},
        "all": {
            "allOf": [{"required": ["a"]}, {"properties": {"a": {"format": "date-time", "pattern": "a+"}}}]
        },
        "list": {"type": "array", "prefixItems": [{"type": "boolean"}], "minItems": 1},
    },
    "required": ["city"],
    "additionalProperties": False,
}
BODY: Final[dict[str, Any]] = {
    "mode": "s2s",
    "s2s": {
        "provider": "google",
        "model": "m",
        "voice": "v",
        "systemPrompt": "p",
        "temperature": 0.5,
        "inputSampleRate": 16000,
        "outputSampleRate": 24000,
        "tools": [
            {"name": "get_weather", "description": "Weather of a city", "parameters": SCHEMA},
            {"name": "weather", "parameters": {"anyOf": [SCHEMA, {"properties": {"city": {"enum": ["a"]}}}]}},
        ],
    },
    "metadata": {
        "a": [1, {"b": None}],
        "provider_options": {
            "google": {"turns": "manual", "thinking_budget": 1, "turn_detection": {"silence_duration_ms": 1}},
            "openai": {"speed": 1.2, "turn_detection": {"type": "server_vad", "threshold": 0.5}},
            "xai": {"turns": "auto"},
        },
    },
    "ttlSeconds": 60,
    "agentId": "a",
    "webhookTags": {"a": "b"},
}
GRANTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "mode": "s2s",
        "sessionId": "s1",
        "wsUrl": "wss://speko.test/s",
        "wsToken": "wst_secret",
        "inputSampleRate": 16000,
        "outputSampleRate": 24000,
        "expiresAt": "2030-01-01T00:00:00Z",
    },
    {
        "mode": "s2s",
        "transport": "provider_direct",
        "sessionId": "s1",
        "provider": "google",
        "model": "m",
        "adapter": "google.live.v1",
        "providerTransport": "websocket",
        "endpoint": "wss://provider.test/v1?model=m",
        "credential": {"kind": "bearer", "value": "secret", "expiresAt": ""},
        "telemetry": {"endpoint": "https://speko.test/t", "token": "t", "flushIntervalMs": 5000},
        "reservation": {"authorizedDurationSeconds": 60},
        "session": {
            "voice": "v",
            "instructions": "i",
            "temperature": 1.0,
            "tools": [BODY["s2s"]["tools"][0]],
        },
        "inputSampleRate": 24000,
        "outputSampleRate": 24000,
    },
    {"error": "no such key", "code": "UNAUTHORIZED"},
)
SERVER_MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"t": "ready", "inputSampleRate": 16000, "outputSampleRate": 24000, "extensions": ["usage"]},
    {"t": "transcript", "role": "user", "text": "hello", "final": True},
    {"t": "tool_call", "callId": "c", "name": "f", "arguments": "{}"},
    {"t": "server_tool_call", "id": "s", "name": "n", "status": "started"},
    {"t": "interruption", "at": "user"},
    {"t": "usage", "inputAudioTokens": 1, "outputAudioTokens": 2},
    {"t": "response", "status": "done", "reason": ""},
    {"t": "error", "code": "X", "message": "m"},
    {"t": "end", "reason": "done"},
)
CLIENT_MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"t": "control", "action": "commit"},
    {"t": "interrupt"},
    {"t": "tool_result", "callId": "c", "output": "1"},
    {"t": "extensions", "use": ["usage"]},
)
_AUDIO: Final = {"inlineData": {"data": "AAAAAAAA", "mimeType": "audio/pcm;rate=24000"}}
GOOGLE_MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"setupComplete": {"sessionId": "s"}},
    {
        "serverContent": {
            "modelTurn": {"parts": [_AUDIO, {"text": "a"}, {"thought": True, "text": "b"}], "role": "model"}
        }
    },
    {
        "serverContent": {
            "outputTranscription": {"text": "word ", "finished": False},
            "generationComplete": True,
        }
    },
    {"serverContent": {"inputTranscription": {"text": "word"}, "interimInputTranscription": {"text": "wor"}}},
    {"serverContent": {"interrupted": True, "groundingMetadata": {"a": 1}, "urlContextMetadata": {"b": [1]}}},
    {
        "serverContent": {
            "turnComplete": True,
            "turnCompleteReason": "MAX_TOKENS",
            "interactionStatus": "IDLE",
        }
    },
    {
        "usageMetadata": {
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
        }
    },
    {"toolCall": {"functionCalls": [{"id": "1", "name": "f", "args": {"a": [1]}}, {"name": "g"}]}},
    {"toolCallCancellation": {"ids": ["1"]}},
    {"goAway": {"timeLeft": "50s"}},
    {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}},
    {"voiceActivity": {"a": 1}},
)
_RESPONSE: Final = {"response_id": "r", "item_id": "i", "content_index": 0}
REALTIME_MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"type": "session.created", "session": {"id": "s", "model": "m", "expires_at": 1.5}},
    {
        "type": "session.updated",
        "session": {"audio": {"input": {"format": {"rate": 24000}}, "output": {"format": {"rate": 16000}}}},
    },
    {"type": "conversation.created", "conversation": {"id": "c"}},
    {"type": "input_audio_buffer.speech_started", "item_id": "u"},
    {"type": "input_audio_buffer.speech_stopped"},
    {"type": "input_audio_buffer.committed", "item_id": "u"},
    {"type": "conversation.item.input_audio_transcription.delta", "item_id": "u", "delta": "a"},
    {"type": "conversation.item.input_audio_transcription.completed", "item_id": "u", "transcript": "a"},
    {"type": "conversation.item.input_audio_transcription.failed", "item_id": "u", "error": {"message": "m"}},
    {"type": "response.created", "response": {"id": "r", "metadata": {"client_event_id": "evt_1"}}},
    {"type": "response.output_audio.delta", **_RESPONSE, "delta": "AAAAAAAA"},
    {"type": "response.output_audio_transcript.delta", **_RESPONSE, "delta": "word "},
    {"type": "response.output_audio_transcript.done", **_RESPONSE, "transcript": "word"},
    {
        "type": "response.function_call_arguments.done",
        **_RESPONSE,
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
    },
    {"type": "response.output_item.added", **_RESPONSE, "item": {"id": "i", "type": "mcp_call", "name": "n"}},
    {
        "type": "response.output_item.done",
        **_RESPONSE,
        "item": {"id": "i", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    },
    {
        "type": "response.done",
        "response": {
            "id": "r",
            "status": "failed",
            "status_details": {"error": {"code": "c", "message": "m"}},
            "output": [{"id": "i", "type": "function_call", "call_id": "d"}],
            "usage": {
                "input_token_details": {"audio_tokens": 3},
                "output_token_details": {"audio_tokens": 4},
            },
        },
    },
    {"type": "error", "error": {"type": "server_error", "code": "c", "message": "the session expired"}},
)
RECORDED: Final[tuple[dict[str, Any], ...]] = (
    {
        "format": "speko-anyio recording 1",
        "sessionId": "s",
        "inputSampleRate": 24000,
        "outputSampleRate": 16000,
    },
    {"at": 0.1, "by": "client", "audio": 4},
    {"at": 0.2, "by": "gateway", "audio": 2, "sampleRate": 24000},
    {"at": 0.3, "by": "client", "message": {"t": "control", "action": "commit"}},
    {
        "at": 0.4,
        "by": "gateway",
        "message": {"t": "tool_call", "callId": "c", "name": "f", "arguments": "{}"},
    },
    {"at": 0.5, "by": "client", "message": {"t": "tool_result", "callId": "c", "output": "1"}},
    {"at": 0.6, "by": "gateway", "message": {"t": "transcript", "role": "user", "text": "a", "final": True}},
    {"at": 0.7, "by": "gateway", "message": {"t": "interruption", "at": "user"}},
    {"at": 0.8, "by": "gateway", "unknown": '{"t":"x"}'},
    {"at": 0.9, "by": "gateway", "expiring": 60.0},
    {"at": 1.0, "by": "gateway", "close": {"code": 1000, "reason": "r", "initiatedBy": "remote"}},
)


class Place(msgspec.Struct):
    x: float
    names: list[str] | None = None
    inner: dict[str, int] | int = 0


@tool
def plan(place: Place, day: int = 1, kind: str | None = None) -> str:
    """Plan a day."""
    return ""


def _allowing(*errors: type[Exception]) -> Callable[[Callable[[], object], object], None]:
    def run(work: Callable[[], object], given: object) -> None:
        with bounded(given):
            try:
                work()
            except errors:
                pass

    return run


_speko: Final = _allowing(SpekoError)


def events(dialect: Any) -> None:
    """Take all events; the end of a session raises its error."""
    try:
        while (event := dialect.next_event()) is not NEED_DATA:
            describe(event)
    except SpekoError:
        pass


def _session(make: Callable[[], Any], seeds: Sequence[dict[str, Any]]) -> Callable[[random.Random], None]:
    def target(dice: random.Random) -> None:
        given = [mutation.text(dice, dice.choice(seeds)) for _ in range(dice.randrange(1, 12))]
        with bounded(given):
            dialect = make()
            for message in given:
                dialect.receive_message(message.encode(errors="replace") if dice.random() < 0.1 else message)
                if dice.random() < 0.5:
                    events(dialect)
            dialect.handle_timeout(0.0)
            dialect.handle_timeout(dice.random() * 100)
            events(dialect)

    return target


def _server() -> ServerProtocol:
    session = ServerProtocol(extensions=("usage",))
    session.send_ready()
    session.send_tool_call("c", "f", "{}")
    return session


_CONFIG: Final = SessionConfig(provider="p", model="m")


def _ready(dialect: Any, *messages: dict[str, Any]) -> Any:
    for message in messages:
        dialect.receive_message(json.dumps(message))
    return dialect


def _codec(dice: random.Random) -> None:
    text = mutation.text(dice, dice.choice(SERVER_MESSAGES + CLIENT_MESSAGES))
    for decode in (codec.decode_from_server, codec.decode_from_client):
        _allowing(codec.MalformedMessage)(lambda decode=decode: decode(text), text)  # type: ignore[misc]


def _mint_body(dice: random.Random) -> None:
    body = mutation.text(dice, BODY).encode(errors="surrogatepass")
    body = mutation.raw(dice, body) if dice.random() < 0.3 else body
    _allowing(InvalidRequestError)(lambda: decode_request(body), body)


def _configured(dice: random.Random) -> None:
    body = mutation.values(dice, BODY)
    try:
        asked = decode_request(json.dumps(body).encode())
    except InvalidRequestError:
        asked = MintRequest(mode="s2s", s2s=SessionConfig(provider="p", model="m", tools=_tools(dice)))
    for account in ACCOUNTS:
        _speko(
            lambda account=account: account.connection(asked.s2s, metadata=asked.metadata),  # type: ignore[misc]
            body,
        )
    with bounded(body):
        matcher = ToolMatcher(asked.s2s.tools)
        matcher.grammar()
        matcher.plan_calls("what is the weather in rome for 2 days")


def _tools(dice: random.Random) -> tuple[ToolSpec, ...]:
    schema = mutation.values(dice, SCHEMA)
    return (ToolSpec(name="f", parameters=schema if isinstance(schema, dict) else {}),)


ACCOUNTS: Final = (Google("key"), OpenAI("key"), XAI("key"))


def _grant(dice: random.Random) -> None:
    body = mutation.text(dice, dice.choice(GRANTS)).encode(errors="surrogatepass")
    mint = MintClient(None, base_url="https://speko.test", api_key="k", timeout=1, retries=0)  # type: ignore[arg-type]
    request = MintRequest(mode="s2s", s2s=_CONFIG)
    with bounded(body):
        try:
            grant = mint._grant(request, body)
        except APIError:
            return
        try:
            if isinstance(grant, SessionGrant):
                ClientConnection(
                    grant.ws_url,
                    grant.ws_token,
                    input_sample_rate=grant.input_sample_rate,
                    output_sample_rate=grant.output_sample_rate,
                )
            else:
                _opened(grant)
        except SpekoError:
            pass


def _opened(grant: ProviderGrant) -> None:
    config = _direct._config(grant, (), "audio")
    _direct._endpoint(grant)
    make = _direct._DIALECTS.get(grant.adapter)
    if make is not None:
        make(config, quick=False)


def _refused(dice: random.Random) -> None:
    body = mutation.text(dice, GRANTS[2]).encode(errors="replace")
    mint = MintClient(None, base_url="https://speko.test", api_key="k", timeout=1, retries=0)  # type: ignore[arg-type]

    status = dice.choice((301, 400, 404, 429, 500))
    fields = {"location": mutation.raw(dice, b"https://a.test/b").decode("latin-1"), "retry-after": "1"}
    with bounded(body):
        mint._requests._refusal(Answer(status, fields, body))
    stamp = mutation.raw(dice, b"Fri, 31 Dec 1999 23:59:59 GMT").decode("latin-1")
    with bounded(stamp):
        _retry_after(stamp)


def _arguments(dice: random.Random) -> None:
    text = mutation.text(
        dice, {"place": {"x": 1.5, "names": ["a"], "inner": {"a": 1}}, "day": 3, "kind": None}
    )
    _allowing(msgspec.DecodeError, RecursionError)(lambda: plan.parse(text), text)


_WAVES: Final = (format_wav(b"\1\2" * 40, 24_000), b"ID3\4\0\0\0\0\0\4abcd" + format_wav(b"\1\2" * 9, 8_000))


def _wav(dice: random.Random) -> None:
    content = mutation.raw(dice, dice.choice(_WAVES))
    rate = dice.choice((None, 8_000, 24_000))
    _allowing(WavError)(lambda: parse_wav(content, sample_rate=rate), content)


def _recording(dice: random.Random) -> None:
    lines = [mutation.text(dice, line).replace("\n", " ").encode(errors="surrogatepass") for line in RECORDED]
    content = b"\n".join(lines)
    if dice.random() < 0.3:
        content = mutation.raw(dice, content)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "session.jsonl").write_bytes(content)
        (Path(folder) / "user.wav").write_bytes(format_wav(b"\1\2" * 9, 24_000))
        assistant = format_wav(b"\1\2" * 9, 16_000)
        (Path(folder) / "assistant.wav").write_bytes(
            mutation.raw(dice, assistant) if dice.random() < 0.2 else assistant
        )
        _allowing(RecordingError)(lambda: draw_timeline(Recording.load(folder)), content)


def _addresses(dice: random.Random) -> None:
    address = mutation.raw(dice, b"wss://user@speko.test:8443/a/b?c=d").decode("latin-1")
    _speko(lambda: url.parse_url(address), address)
    proxy = mutation.raw(dice, b"socks5://user:pass@proxy.test:1080/").decode("latin-1")
    _allowing(ConfigurationError)(lambda: _parse_proxy(proxy, "the option proxy"), proxy)
    exempt = mutation.raw(dice, b"localhost, *.test:80, 10.0.0.0/8, [::1]:9, ::ffff:10.0.0.0/104").decode(
        "latin-1"
    )
    with bounded(exempt):
        _parse_exemptions("NO_PROXY", exempt)
    name, value = (
        mutation.raw(dice, b"X-Name").decode("latin-1"),
        mutation.raw(dice, b"a value").decode("latin-1"),
    )
    _speko(lambda: headers.encode_headers([(name, value)]), (name, value))
    with bounded(value):
        tokens.is_token(value)
        tokens.strip_invisible(value)
        tokens.find_key_fault(value)
        redact(value, (name,))
        codec.error_text(value)


_PLACE: Final = msgspec.json.Decoder(tuple[float, str])
_SIGNER: Final = TokenSigner()
_TOKEN: Final = _SIGNER.sign(Claims("s", "t", 10**10))


def _gateway(dice: random.Random) -> None:
    token = mutation.raw(dice, _TOKEN.encode()).decode("latin-1")
    _allowing(TokenError)(lambda: _SIGNER.verify(token, session_id="s", now=0.0), token)
    cursor = mutation.raw(dice, base64.urlsafe_b64encode(b'[1.5,"sess_1"]')).decode("latin-1")
    _allowing(RequestError)(lambda: _position(cursor, _PLACE), cursor)


TARGETS: Final[tuple[tuple[str, Callable[[random.Random], None]], ...]] = (
    ("codec", _codec),
    ("client", _session(ClientProtocol, SERVER_MESSAGES)),
    ("server", _session(_server, CLIENT_MESSAGES)),
    ("google", _session(lambda: _ready(GoogleDialect(_CONFIG), GOOGLE_MESSAGES[0]), GOOGLE_MESSAGES)),
    ("openai", _session(lambda: _ready(OpenAIDialect(_CONFIG), *REALTIME_MESSAGES[:2]), REALTIME_MESSAGES)),
    ("xai", _session(lambda: _ready(XAIDialect(_CONFIG), *REALTIME_MESSAGES[:2]), REALTIME_MESSAGES)),
    ("mint body", _mint_body),
    ("configuration", _configured),
    ("grant", _grant),
    ("refusal", _refused),
    ("arguments", _arguments),
    ("wav", _wav),
    ("recording", _recording),
    ("addresses", _addresses),
    ("gateway", _gateway),
)
