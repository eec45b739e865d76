"""What the tests of phone calls share: a gateway, a carrier that asks it, and a simple assistant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import anyio
import httpx
import wsproto
from anyio.abc import SocketStream
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from speko_anyio.gateway import Gateway, Handler, MemoryStore, Phone, ServerSession, SessionQuery, takes
from speko_anyio.gateway.store._records import SessionLife, StoredRecord
from speko_anyio.protocol import AudioIn, Capabilities, Respond, TextIn
from speko_anyio.testing import FakeCarrier

PUBLIC: Final = "https://voice.test"
AUTH_TOKEN: Final = "an auth token of twilio"
CALL: Final = {"CallSid": "CA0123", "From": "+15550100001", "To": "+15550100002", "CallStatus": "ringing"}
KEY: Final = "test-api-key"


def phone_gateway(handler: Handler, *, phone: Phone | None = None, **options: Any) -> Gateway:
    """A gateway whose Twilio calls go to `handler`."""
    phone = phone or Phone(handler="bot", auth_token=AUTH_TOKEN)
    return Gateway(
        handlers={"bot": handler}, phones={"twilio": phone}, api_keys=[KEY], public_url=PUBLIC, **options
    )


def twilio_signature(url: str, fields: Mapping[str, str] | None = None, *, token: str = AUTH_TOKEN) -> str:
    """Sign as Twilio documents it: the URL, and all fields by name."""
    text = url + "".join(name + value for name, value in sorted((fields or {}).items()))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


async def ask(
    gateway: Gateway, fields: Mapping[str, str] = CALL, *, query: str = "", signature: str | None = None
) -> httpx.Response:
    """Ask as Twilio does, without a server, what to do with a call."""
    path = f"/telephony/twilio{query}"
    signed = twilio_signature(PUBLIC + path, fields) if signature is None else signature
    transport = httpx.ASGITransport(app=gateway.app, client=("192.0.2.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://internal.test") as http:
        return await http.post(
            path,
            content=urlencode(fields),
            headers={
                "X-Twilio-Signature": signed,
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )


def parameters_in(answer: str) -> dict[str, str]:
    """The parameters in TwiML."""
    return dict(re.findall(r'<Parameter name="([^"]*)" value="([^"]*)"', answer))


async def connect(carrier: FakeCarrier, gateway: Gateway, parameters: Mapping[str, str]) -> None:
    """Connect a call of Twilio to the gateway, signed."""
    await carrier.call(
        gateway.app,
        "/telephony/twilio",
        headers={"X-Twilio-Signature": twilio_signature("wss://voice.test/telephony/twilio")},
        parameters=parameters,
    )


async def call(carrier: FakeCarrier, gateway: Gateway, fields: Mapping[str, str] = CALL) -> None:
    """Ask the gateway as Twilio does, and do what it answers."""
    answer = await ask(gateway, fields)
    assert answer.status_code == 200, answer.text
    assert 'url="wss://voice.test/telephony/twilio"' in answer.text
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
            except wsproto.utilities.LocalProtocolError:
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
