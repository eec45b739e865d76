"""What a message costs in the cores alone, without sockets or an event loop.

A provider's connection is measured by itself, and with the bridge and the client's session around it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from measuring import Case

from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol import NEED_DATA, Audio, AudioIn, Ready, ServerProtocol, State
from speko_anyio.protocol.mint import SampleRate, SessionConfig
from speko_anyio.providers._connection import ProviderConnection
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.google import GoogleDialect, google_endpoint
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint
from speko_anyio.providers.xai import XAIDialect, xai_endpoint
from speko_anyio.testing.providers import GoogleDouble, OpenAIDouble, ProviderDouble, XAIDouble, tone
from speko_anyio.testing.providers._server_socket import ServerSocket

ALONE: Final = "dialect alone"
BRIDGED: Final = "bridge around it"

UP_MS: Final = 20
"""Milliseconds of audio in a message from the client."""

DOWN_MS: Final = 100
"""Milliseconds of audio in a message from the provider."""

RATES: Final[tuple[SampleRate, ...]] = (24_000, 16_000)
"""Sample rates of the client's session. The second is resampled if the provider does not support it."""

BASE_URL: Final = "ws://double.test"


class Provider(NamedTuple):
    title: str
    model: str
    connect: Callable[[SessionConfig], ProviderConnection]
    double: Callable[[], ProviderDouble[Any]]


PROVIDERS: Final = {
    "openai": Provider(
        "OpenAI",
        "gpt-realtime-2.1",
        lambda config: ProviderConnection(
            openai_endpoint("test-key", config.model, base_url=BASE_URL),
            OpenAIDialect(config, state=State.CONNECTING),
            clock=time.monotonic,
        ),
        OpenAIDouble,
    ),
    "xai": Provider(
        "xAI",
        "grok-voice-latest",
        lambda config: ProviderConnection(
            xai_endpoint("test-key", config.model, base_url=BASE_URL),
            XAIDialect(config, state=State.CONNECTING),
            clock=time.monotonic,
        ),
        XAIDouble,
    ),
    "google": Provider(
        "Gemini",
        "gemini-3.8-live",
        lambda config: ProviderConnection(
            google_endpoint("test-key", base_url=BASE_URL),
            GoogleDialect(config, state=State.CONNECTING),
            clock=time.monotonic,
        ),
        GoogleDouble,
    ),
}


def speech(provider: str, pcm: bytes, rate: int) -> dict[str, Any]:
    """Return the provider's message with this audio, which belongs to response ``r``."""
    audio = base64.b64encode(pcm).decode()
    if provider == "google":
        blob = {"mimeType": f"audio/pcm;rate={rate}", "data": audio}
        return {"serverContent": {"modelTurn": {"role": "model", "parts": [{"inlineData": blob}]}}}
    return {
        "type": "response.output_audio.delta",
        "event_id": "event_1",
        "response_id": "r",
        "item_id": "a",
        "output_index": 0,
        "content_index": 0,
        "delta": audio,
    }


class Ends:
    """A provider's connection that is ready and has a response under way.

    `spoken` is a frame with speech of that response, which the provider can send any number of times.
    """

    def __init__(self, name: str, rate: SampleRate) -> None:
        provider = PROVIDERS[name]
        self.config = SessionConfig(
            provider=name, model=provider.model, input_sample_rate=rate, output_sample_rate=rate
        )
        self.connection = provider.connect(self.config)
        self._socket = ServerSocket()
        self._socket.receive(self.connection.data_to_send())
        request = self._socket.request()
        assert request is not None
        double = provider.double()
        self.connection.receive_data(self._socket.accept(double.subprotocol(request)))
        self._session = double.open(request)

    def exchange(self) -> None:
        """Carry everything both ways once."""
        for output in self._session.take():
            assert isinstance(output, str | bytes)
            self.connection.receive_data(self._socket.frame(output))
        self._socket.receive(self.connection.data_to_send())
        for message in self._socket.messages():
            self._session.receive(message, 0.0)

    def begin_response(self) -> None:
        if self.config.provider != "google":  # which does not announce it
            self.say({"type": "response.created", "response": {"id": "r"}})

    def say(self, message: Any) -> None:
        self.connection.receive_data(self.framed(message))

    def framed(self, message: Any) -> bytes:
        text = json.dumps(message, separators=(",", ":"))
        return self._socket.frame(text.encode() if self.config.provider == "google" else text)

    @property
    def spoken(self) -> bytes:
        rate = self.connection.output_sample_rate
        return self.framed(speech(self.config.provider, tone(DOWN_MS / 1000, rate), rate))


def alone(name: str, rate: SampleRate) -> ProviderConnection:
    """Return a connection that is ready and has a response under way."""
    ends = Ends(name, rate)
    connection = ends.connection
    ready = False
    for _ in range(5):
        ends.exchange()
        while (event := connection.next_event()) is not NEED_DATA:
            ready = ready or isinstance(event, Ready)
    assert ready
    ends.begin_response()
    assert connection.next_event() is NEED_DATA
    return connection


def bridged(name: str, rate: SampleRate) -> tuple[Bridge, ServerProtocol, ProviderConnection]:
    """Return a bridge with such a connection and with the client's session on its other side."""
    ends = Ends(name, rate)
    server = ServerProtocol(input_sample_rate=rate, output_sample_rate=rate)
    server.send_ready()
    server.messages_to_send()
    bridge = Bridge(client=server, resampling=Resampler)
    bridge.attach(ends.connection, time.monotonic())
    for _ in range(5):
        with bridge.at(time.monotonic()):
            ends.exchange()
    with bridge.at(time.monotonic()):
        ends.begin_response()
    assert bridge.stats.connections == 1
    return bridge, server, ends.connection


def task(name: str, rate: int, direction: str) -> str:
    size = UP_MS if direction == "up" else DOWN_MS
    where = "to" if direction == "up" else "from"
    return f"{size} ms {where} {PROVIDERS[name].title}, session at {rate // 1000} kHz"


def cases() -> Iterator[Case]:
    for name in PROVIDERS:
        for rate in RATES:
            yield Case(task(name, rate, "up"), ALONE, _up_alone(name, rate))
            yield Case(task(name, rate, "up"), BRIDGED, _up_bridged(name, rate))
            yield Case(task(name, rate, "down"), ALONE, _down_alone(name, rate))
            yield Case(task(name, rate, "down"), BRIDGED, _down_bridged(name, rate))


def _up_alone(name: str, rate: SampleRate) -> Callable[[int], object]:
    connection = alone(name, rate)
    # The dialect takes audio at the provider's rate only, so an application without a bridge records at it.
    pcm = tone(UP_MS / 1000, connection.input_sample_rate)

    def run(times: int) -> object:
        data = b""
        for _ in range(times):
            connection.send_audio(pcm)
            data = connection.data_to_send()
        assert len(data) > len(pcm)
        return data

    return run


def _up_bridged(name: str, rate: SampleRate) -> Callable[[int], object]:
    bridge, server, connection = bridged(name, rate)
    pcm = tone(UP_MS / 1000, rate)

    def run(times: int) -> object:
        data = b""
        for _ in range(times):
            server.receive_message(pcm)
            command = server.next_event()
            assert type(command) is AudioIn
            bridge.receive_command(command, time.monotonic())
            data = connection.data_to_send()
        return data

    return run


def _down_alone(name: str, rate: SampleRate) -> Callable[[int], object]:
    ends = Ends(name, rate)
    connection = alone(name, rate)
    frame = ends.spoken

    def run(times: int) -> object:
        event: object = None
        for _ in range(times):
            connection.receive_data(frame)
            event = connection.next_event()
        assert type(event) is Audio
        return event

    return run


def _down_bridged(name: str, rate: SampleRate) -> Callable[[int], object]:
    ends = Ends(name, rate)
    bridge, server, connection = bridged(name, rate)
    frame = ends.spoken

    def run(times: int) -> object:
        sent: object = None
        for _ in range(times):
            with bridge.at(time.monotonic()):
                connection.receive_data(frame)
            while (message := server.next_message()) is not None:
                sent = message
        assert type(sent) is bytes
        return sent

    return run
