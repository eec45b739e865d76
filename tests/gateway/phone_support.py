"""What the tests of phone calls share: a gateway, a carrier that asks it, and a simple assistant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import anyio
import httpx
import jwt
import pytest
import wsproto
from anyio.abc import SocketStream
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

from speko_anyio._net.driver import Driver
from speko_anyio.gateway import Gateway, Handler, MemoryStore, Phone, ServerSession, SessionQuery, takes
from speko_anyio.gateway import _provider_driver as provider_driver
from speko_anyio.gateway.engines import Message, ToolRequest
from speko_anyio.gateway.local import SmallTalk
from speko_anyio.gateway.store._records import SessionLife, StoredRecord
from speko_anyio.protocol import AudioIn, Capabilities, Respond, TextIn
from speko_anyio.protocol.mint import ToolSpec
from speko_anyio.testing import FakeCarrier, stream_pair
from speko_anyio.testing.providers import ProviderDouble
from tests.support.drivers import driver_over

PUBLIC: Final = "https://voice.test"
AUTH_TOKEN: Final = "an auth token of twilio"
SIGNING: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SECRETS: Final = {
    "twilio": AUTH_TOKEN,
    "plivo": "an auth token of plivo",
    "telnyx": base64.b64encode(SIGNING.public_key().public_bytes_raw()).decode(),
    "vonage": "a signature secret of vonage, which is long enough",
}
CALL: Final = {"CallSid": "CA0123", "From": "+15550100001", "To": "+15550100002", "CallStatus": "ringing"}
CALLS: Final[Mapping[str, Mapping[str, str]]] = {
    "twilio": CALL,
    "telnyx": CALL,
    "plivo": {"CallUUID": "CA0123", "From": "+15550100001", "To": "+15550100002", "Direction": "inbound"},
    "vonage": {"uuid": "CA0123", "from": "+15550100001", "to": "+15550100002"},
}
"""What each carrier tells of a call."""

KEY: Final = "test-api-key"


def phone_gateway(
    handler: Handler, *, phone: Phone | None = None, carrier: str = "twilio", **options: Any
) -> Gateway:
    """A gateway whose calls go to `handler`."""
    phone = phone or Phone(handler="bot", auth_token=SECRETS[carrier])
    return Gateway(
        handlers={"bot": handler}, phones={carrier: phone}, api_keys=[KEY], public_url=PUBLIC, **options
    )


@asynccontextmanager
async def dialled(double: ProviderDouble[Any], monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None, None]:
    """During the block, a gateway that connects to a provider reaches `double`, in memory."""
    async with anyio.create_task_group() as tasks:

        async def dial(where: object, **how: object) -> Driver:
            ours, theirs = stream_pair()
            tasks.start_soon(double.handle, theirs)
            return driver_over(ours)

        monkeypatch.setattr(provider_driver, "dial", dial)
        yield
        tasks.cancel_scope.cancel()


def twilio_signature(url: str, fields: Mapping[str, str] | None = None, *, token: str = AUTH_TOKEN) -> str:
    """Sign as Twilio documents it: the URL, and all fields by name."""
    text = url + "".join(name + value for name, value in sorted((fields or {}).items()))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def signed(
    carrier: str, url: str, fields: Mapping[str, str] | None, body: bytes, *, at: float | None = None
) -> dict[str, str]:
    """The fields of a header with which a carrier signs a request; `at`: when."""
    made = time.time() if at is None else at
    match carrier:
        case "twilio":
            return {"X-Twilio-Signature": twilio_signature(url, fields)}
        case "plivo":
            text = url + ("" if not fields else "?" + "".join(n + v for n, v in sorted(fields.items())))
            digest = hmac.digest(SECRETS["plivo"].encode(), f"{text}.n".encode(), "sha256")
            signature = base64.b64encode(digest).decode()
            return {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": "n"}
        case "telnyx":
            signature = base64.b64encode(SIGNING.sign(f"{made:.0f}|".encode() + body)).decode()
            return {"Telnyx-Signature-Ed25519": signature, "Telnyx-Timestamp": f"{made:.0f}"}
        case _:
            claims = {"iat": int(made), "payload_hash": hashlib.sha256(body).hexdigest()}
            return {"Authorization": f"Bearer {jwt.encode(claims, SECRETS['vonage'], 'HS256')}"}


async def ask(
    gateway: Gateway,
    fields: Mapping[str, str] | None = None,
    *,
    query: str = "",
    signature: str | None = None,
    carrier: str = "twilio",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Ask as the carrier does, without a server, what to do with a call.

    `signature` replaces that of Twilio, and `headers` those of any carrier.
    """
    fields = CALLS[carrier] if fields is None else fields
    path = f"/telephony/{carrier}{query}"
    if carrier == "vonage":
        body, kind = json.dumps(fields).encode(), "application/json"
    else:
        body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
    if signature is not None:
        headers = {"X-Twilio-Signature": signature}
    if headers is None:
        headers = signed(carrier, PUBLIC + path, fields, body)
    transport = httpx.ASGITransport(app=gateway.app, client=("192.0.2.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://internal.test") as http:
        return await http.post(path, content=body, headers={**headers, "Content-Type": kind})


def parameters_in(answer: str) -> dict[str, str]:
    """The parameters in a carrier's answer, and that it connects to the gateway."""
    if answer.startswith("["):
        ((action,),) = [json.loads(answer)]
        (endpoint,) = action["endpoint"]
        url, parameters = endpoint["uri"], endpoint["headers"]
    else:
        (url,) = re.findall(r"wss://[^\"<]*", answer)
        found = re.findall(r'extraHeaders="([^"]*)"', answer)
        pairs = [pair.split("=", 1) for pair in found[0].split(",")] if found else []
        parameters = dict(re.findall(r'<Parameter name="([^"]*)" value="([^"]*)"', answer) or pairs)
    assert url.startswith("wss://voice.test/telephony/")
    return dict(parameters)


async def connect(carrier: FakeCarrier, gateway: Gateway, parameters: Mapping[str, str]) -> None:
    """Connect a call to the gateway; Twilio signs that, too."""
    path = f"/telephony/{carrier.carrier}"
    headers = signed("twilio", f"wss://voice.test{path}", None, b"") if carrier.carrier == "twilio" else {}
    await carrier.call(gateway.app, path, headers=headers, parameters=parameters)


async def call(carrier: FakeCarrier, gateway: Gateway, fields: Mapping[str, str] | None = None) -> None:
    """Ask the gateway as the carrier does, and do what it answers."""
    answer = await ask(gateway, fields, carrier=carrier.carrier)
    assert answer.status_code == 200, answer.text
    await connect(carrier, gateway, parameters_in(answer.text))


async def life_of(store: MemoryStore) -> tuple[StoredRecord, SessionLife]:
    """The one session in the store."""
    page = await store.sessions(SessionQuery(limit=2), now=time.time())
    (listed,) = page.sessions
    history = await store.get(listed.record.session_id)
    assert history is not None
    return history.record, history.life


def loud(pcm: bytes) -> bool:
    samples = memoryview(pcm).cast("h")
    return max(samples, default=0) > 2000


def tone(seconds: float, rate: int) -> bytes:
    """A square wave of 250 Hz."""
    half = rate // 500
    period = (b"\x00\x20" * half) + (b"\x00\xe0" * half)
    return (period * (int(seconds * 250) + 1))[: 2 * int(seconds * rate)]


@takes(Capabilities(text=True, respond=True))
class Assistant:
    """Greets for a second, and answers each sound of the user with `seconds` of speech, or by being quiet."""

    def __init__(self, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self.texts: list[str] = []
        self.commands: list[object] = []
        self.metadata: dict[str, Any] | None = None

    async def __call__(self, session: ServerSession) -> None:
        self.metadata = session.metadata
        speaking = heard = False
        async for command in session:
            match command:
                case AudioIn(pcm=pcm):
                    if loud(pcm) and not heard:
                        heard = True
                        if speaking:
                            await session.send_interruption()
                            speaking = False
                    elif heard and not loud(pcm):
                        heard = False
                        session.turn_ended()
                        await self.speak(session, self.seconds)
                        speaking = True
                    continue
                case Respond():
                    await self.speak(session, 1.0)
                    speaking = True
                case TextIn(text=text):
                    self.texts.append(text)
                case _:
                    pass
            self.commands.append(command)

    async def speak(self, session: ServerSession, seconds: float) -> None:
        pcm = tone(seconds, session.output_sample_rate)
        for start in range(0, len(pcm), 3200):
            await session.send_audio(pcm[start : start + 3200])
        await session.send_response_end()


class Ear:
    """Understands the sentences of a script, one a turn."""

    def __init__(self, *sentences: str) -> None:
        self.script = sentences
        self._sentences = iter(sentences)

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        return next(self._sentences)


class Brain(SmallTalk):
    """Keeps what it was told last of the conversation."""

    def __init__(self) -> None:
        super().__init__(now=lambda: datetime(2026, 5, 4, 9, 30, tzinfo=UTC))
        self.messages: Sequence[Message] = ()

    def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        self.messages = messages
        return super().answer(messages, tools)

    def cut(self) -> Message:
        """The one answer that was interrupted."""
        (cut,) = [message for message in self.messages if message.heard_seconds is not None]
        return cut


class Voice:
    """Speaks a tone; `pace` is in characters a second."""

    def __init__(self, pace: float = 20) -> None:
        self._pace = pace
        self.said: list[str] = []

    async def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        self.said.append(text)
        yield tone(len(text) / self._pace, sample_rate)


class Socket:
    """A WebSocket client over TCP that knows nothing of sessions."""

    def __init__(self, stream: SocketStream, connection: wsproto.WSConnection) -> None:
        self._stream = stream
        self._connection = connection
        self._sending = anyio.Lock()
        self._parts: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.refused: int | None = None

    async def send(self, message: str | bytes) -> None:
        await self._write(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def send_raw(self, data: bytes) -> None:
        await self._stream.send(data)

    async def close(self, code: int = 1000) -> None:
        await self._write(CloseConnection(code))

    async def _write(self, event: Any) -> None:
        async with self._sending:
            try:
                data = self._connection.send(event)
            except LocalProtocolError:
                raise anyio.ClosedResourceError from None  # the other side has closed it
            await self._stream.send(data)

    async def receive(self) -> str | bytes | None:
        """Return the next message; None at the end, which `closed` or `refused` tells."""
        while True:
            for event in self._connection.events():
                match event:
                    case TextMessage() | BytesMessage():
                        self._parts.append(event.data)
                        if event.message_finished:
                            parts, self._parts = self._parts, []
                            whole: str | bytes = parts[0][:0].join(parts)
                            return whole
                    case CloseConnection(code=code, reason=reason):
                        self.closed = code, reason or ""
                        return None
                    case RejectConnection(status_code=status):
                        self.refused = status
                        return None
                    case AcceptConnection():
                        return ""
                    case Ping():
                        await self._write(event.response())
                    case _:
                        pass
            try:
                self._connection.receive_data(await self._stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None


@asynccontextmanager
async def socket(url: str, *, signature: str | None = None) -> AsyncIterator[Socket]:
    """Open the gateway's WebSocket for Twilio's calls, signed as for `PUBLIC`."""
    where = urlsplit(url)
    if signature is None:
        signature = twilio_signature("wss://voice.test/telephony/twilio")
    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    request = Request(
        host=where.netloc,
        target="/telephony/twilio",
        extra_headers=[(b"X-Twilio-Signature", signature.encode())],
    )
    assert where.hostname is not None
    assert where.port is not None
    async with await anyio.connect_tcp(where.hostname, where.port) as stream:
        opened = Socket(stream, connection)
        await opened._write(request)
        with anyio.fail_after(10):
            await opened.receive()
        yield opened


async def ask_at(url: str, fields: Mapping[str, str] = CALL) -> dict[str, str]:
    """Ask a gateway that listens on `url`; return the parameters of its answer."""
    path = "/telephony/twilio"
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            url + path,
            data=dict(fields),
            headers={"X-Twilio-Signature": twilio_signature(PUBLIC + path, fields)},
        )
    assert answer.status_code == 200, answer.text
    return parameters_in(answer.text)
