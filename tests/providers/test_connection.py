"""The dialects over bytes: the handshake, messages in either form, and what may be taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.events import Event as WebSocketEvent

from speko_anyio.protocol import NEED_DATA, Audio, Close, Frame, HandshakeError, Ready, SpekoError, State
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._connection import ProviderConnection, split_options
from speko_anyio.providers.google import GoogleDialect, GoogleOptions, google_endpoint
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint
from speko_anyio.providers.xai import XAIDialect, xai_endpoint

KEY = "sk-0123456789"


def openai(**how: Any) -> ProviderConnection:
    config = SessionConfig(provider="openai", model="gpt-realtime-2.1")
    transport, rest = split_options(**how)
    dialect = OpenAIDialect(config, **rest)
    return ProviderConnection(openai_endpoint(KEY, "gpt-realtime-2.1"), dialect, **transport)


def xai(**how: Any) -> ProviderConnection:
    config = SessionConfig(provider="xai", model="grok-voice-latest")
    transport, rest = split_options(**how)
    dialect = XAIDialect(config, **rest)
    return ProviderConnection(xai_endpoint(KEY, "grok-voice-latest"), dialect, **transport)


def google(**how: Any) -> ProviderConnection:
    config = SessionConfig(provider="google", model="gemini-3.8-live")
    transport, rest = split_options(**how)
    dialect = GoogleDialect(config, **rest)
    return ProviderConnection(google_endpoint(KEY), dialect, **transport)


class Peer:
    """A provider on a stock wsproto connection."""

    def __init__(self, client: ProviderConnection) -> None:
        self.client = client
        self._ws = WSConnection(ConnectionType.SERVER)
        self._ws.receive_data(client.data_to_send())
        (request,) = self._ws.events()
        assert isinstance(request, Request)
        self.request = request

    def accept(self) -> None:
        self.send(AcceptConnection())

    def send(self, event: WebSocketEvent) -> None:
        self.client.receive_data(self._ws.send(event))

    def says(self, *messages: dict[str, Any], binary: bool = False) -> list[Frame]:
        for message in messages:
            text = json.dumps(message)
            self.send(BytesMessage(text.encode()) if binary else TextMessage(text))
        return drain(self.client)

    def heard(self) -> list[Any]:
        self._ws.receive_data(self.client.data_to_send())
        return [
            json.loads(event.data) if isinstance(event, TextMessage) else event for event in self._ws.events()
        ]


def drain(client: ProviderConnection) -> list[Frame]:
    frames: list[Frame] = []
    while (frame := client.next_event()) is not NEED_DATA:
        frames.append(frame)
        if isinstance(frame, Close):
            break
    return frames


def opened(make: Callable[..., ProviderConnection], **how: Any) -> Peer:
    """A peer of a connection that is ready; what it was told so far is taken."""
    peer = Peer(make(**how))
    peer.accept()
    if make is google:
        (frame,) = peer.says({"setupComplete": {}}, binary=True)
    else:
        assert peer.says({"type": "session.created", "session": {}}) == []
        (update,) = peer.heard()
        assert update["type"] == "session.update"
        (frame,) = peer.says({"type": "session.updated", "session": {}})
    assert isinstance(frame, Ready)
    peer.heard()
    return peer


@pytest.mark.parametrize(
    ("make", "target", "header"),
    [
        (openai, "/v1/realtime?model=gpt-realtime-2.1", (b"authorization", b"Bearer " + KEY.encode())),
        (xai, "/v1/realtime?model=grok-voice-latest", (b"authorization", b"Bearer " + KEY.encode())),
        (
            google,
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            (b"x-goog-api-key", KEY.encode()),
        ),
    ],
)
def test_the_opening_request(
    make: Callable[..., ProviderConnection], target: str, header: tuple[bytes, bytes]
) -> None:
    request = Peer(make(headers=[("User-Agent", "test/1")])).request
    assert request.target == target
    assert request.subprotocols == []
    assert header in request.extra_headers
    assert (b"user-agent", b"test/1") in request.extra_headers


@pytest.mark.parametrize("make", [openai, xai, google])
def test_a_conversation(make: Callable[..., ProviderConnection]) -> None:
    peer = opened(make)
    peer.client.send_audio(bytes(960))
    peer.client.commit()
    assert len(peer.heard()) >= 2
    peer.client.close(1000, "bye")
    (goodbye,) = peer.heard()
    assert isinstance(goodbye, CloseConnection)
    assert (goodbye.code, goodbye.reason) == (1000, "bye")
    peer.send(goodbye.response())
    assert drain(peer.client) == [Close(1000, "bye", "local")]


def test_google_speaks_first_and_in_binary_messages() -> None:
    client = google()
    peer = Peer(client)
    assert peer.heard() == []
    peer.accept()
    assert client.next_event() is NEED_DATA
    (setup,) = peer.heard()
    assert setup["setup"]["model"] == "models/gemini-3.8-live"
    part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "AAABAAIAAwA="}}
    frames = peer.says(
        {"setupComplete": {}}, {"serverContent": {"modelTurn": {"parts": [part]}}}, binary=True
    )
    assert [type(frame) for frame in frames] == [Ready, Audio]


def test_what_was_not_taken_to_be_sent_can_be_cleared() -> None:
    peer = opened(google)
    peer.client.send_audio(bytes(960))
    peer.client.clear()
    peer.client.send_audio(bytes(2))
    (audio,) = peer.heard()
    assert audio["realtimeInput"]["audio"]["data"] == "AAA="


def test_a_ping_is_answered_behind_what_was_queued() -> None:
    peer = opened(openai)
    peer.client.send_audio(bytes(960))
    peer.send(Ping(b"x"))
    assert drain(peer.client) == []
    audio, pong = peer.heard()
    assert audio["type"] == "input_audio_buffer.append"
    assert isinstance(pong, Pong)


@pytest.mark.parametrize("make", [openai, xai, google])
def test_a_refusal_says_what_to_do_and_not_the_key(make: Callable[..., ProviderConnection]) -> None:
    client = make()
    peer = Peer(client)
    peer.send(RejectConnection(status_code=401, has_body=True))
    peer.send(RejectData(data=json.dumps({"error": f"bad key {KEY}"}).encode()))
    with pytest.raises(HandshakeError) as caught:
        client.next_event()
    assert str(caught.value) == (
        "the server refused the session with HTTP 401 (bad key <token>); check the API key and the model, "
        "and that the account may use it"
    )
    assert KEY not in repr(client)


def test_the_limits_are_the_dialects() -> None:
    client = openai()
    assert client.limits.max_text_size == 16 * 1024 * 1024
    peer = opened(openai)
    assert peer.says({"type": "session.updated", "session": {"x": "y" * (1 << 20)}}) == []
    assert peer.client.state is State.OPEN


def test_an_interruption_is_exact_with_a_clock() -> None:
    now = 100.0
    peer = opened(openai, clock=lambda: now)
    peer.says(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "response_id": "r", "item": {"id": "a", "type": "message"}},
        {
            "type": "response.output_audio.delta",
            "response_id": "r",
            "item_id": "a",
            "content_index": 0,
            "delta": "AAAA" * 12_000,
        },
    )
    now += 0.25
    peer.client.interrupt()
    truncations = [m for m in peer.heard() if m["type"] == "conversation.item.truncate"]
    assert [(m["item_id"], m["audio_end_ms"]) for m in truncations] == [("a", 250)]


def test_a_provider_that_dies() -> None:
    peer = opened(xai)
    peer.client.receive_eof()
    (close,) = drain(peer.client)
    assert isinstance(close, Close)
    assert close.initiated_by == "transport"
    with pytest.raises(SpekoError):
        peer.client.next_event()


def test_options_of_the_provider_arrive() -> None:
    client = google(options=GoogleOptions(turns="manual"), resumption_handle="h-1")
    peer = Peer(client)
    peer.accept()
    assert client.next_event() is NEED_DATA
    (setup,) = peer.heard()
    assert setup["setup"]["sessionResumption"] == {"handle": "h-1"}
    detection = setup["setup"]["realtimeInputConfig"]["automaticActivityDetection"]
    assert detection["disabled"] is True
