"""A dialect and a double joined without any I/O, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from speko_anyio.protocol import NEED_DATA, CloseMessage, Frame, SpekoError, ToolCall, Transcript
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.endpoint import Endpoint
from speko_anyio.providers.google import GoogleDialect, google_endpoint
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint
from speko_anyio.providers.provider import ProviderDialect
from speko_anyio.providers.xai import XAIDialect, xai_endpoint
from speko_anyio.testing.providers import (
    DoubleSession,
    GoogleDouble,
    OpenAIDouble,
    ProviderDouble,
    Request,
    XAIDouble,
    tone,
)
from speko_anyio.testing.providers.session import DEATH

SessionT = TypeVar("SessionT", bound=DoubleSession)

WEATHER = ToolSpec(
    name="get_weather",
    description="Current weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def request(endpoint: Endpoint) -> Request:
    """The opening request of a client that goes to `endpoint`."""
    return Request(
        "/" + endpoint.url.split("://", 1)[1].partition("/")[2], endpoint.headers, endpoint.subprotocols
    )


def endpoint(provider: str, key: str, base_url: str = "ws://double.test", **options: Any) -> Endpoint:
    match provider:
        case "openai":
            return openai_endpoint(key, "gpt-realtime", base_url=base_url, **options)
        case "xai":
            return xai_endpoint(key, "grok-voice-latest", base_url=base_url, **options)
    return google_endpoint(key, base_url=base_url, **options)


DOUBLES: dict[str, Callable[..., ProviderDouble[Any]]] = {
    "openai": OpenAIDouble,
    "xai": XAIDouble,
    "google": GoogleDouble,
}
DIALECTS: dict[str, Callable[..., ProviderDialect]] = {
    "openai": OpenAIDialect,
    "xai": XAIDialect,
    "google": GoogleDialect,
}
MODELS = {"openai": "gpt-realtime", "xai": "grok-voice-latest", "google": "gemini-3.8-live"}


def config(provider: str, **fields: Any) -> SessionConfig:
    return SessionConfig(provider=provider, model=MODELS[provider], **{"tools": (WEATHER,), **fields})


class Call(Generic[SessionT]):
    """One call. `frames` is all that the dialect told; time stands still but for `run`."""

    def __init__(self, double: ProviderDouble[SessionT], dialect: ProviderDialect, **options: Any) -> None:
        self.dialect = dialect
        self.now = 0.0
        self.frames: list[Any] = []
        self.session = double.open(request(endpoint(double.provider, double.api_key, **options)), self.now)
        self.run(0)

    def run(self, seconds: float) -> list[Frame]:
        """Let that time pass, exchanging everything; what was told meanwhile."""
        before = len(self.frames)
        until = self.now + seconds
        while True:
            if self._exchange():
                continue
            deadlines = [self.dialect.next_deadline(), self.session.next_deadline()]
            due = min((deadline for deadline in deadlines if deadline is not None), default=until)
            if due > until:
                break
            self.now = max(self.now, due)
            self.dialect.handle_timeout(self.now)
            self.session.advance(self.now)
            if due >= until and not self._pending():
                break
        self.now = until
        return self.frames[before:]

    def _pending(self) -> bool:
        deadlines = [self.dialect.next_deadline(), self.session.next_deadline()]
        return self.dialect.has_output or any(d is not None and d <= self.now for d in deadlines)

    def _exchange(self) -> bool:
        moved = False
        self.dialect.playback.clock(self.now)
        for message in self.dialect.messages_to_send():
            moved = True
            if isinstance(message, CloseMessage):
                self.session.receive_close(message.code, message.reason)
                self.dialect.receive_close(message.code, message.reason)
            else:
                self.session.receive(message, self.now)
        for output in self.session.take():
            moved = True
            if output == DEATH:
                self.dialect.receive_lost()
            elif isinstance(output, CloseMessage):
                self.dialect.receive_close(output.code, output.reason)
            else:
                self.dialect.receive_message(output)
        try:
            while (event := self.dialect.next_event()) is not NEED_DATA:
                moved = True
                self.frames.append(event)
        except SpekoError:
            pass  # the end; its Close is among the frames
        return moved

    # The user

    def speak(self, seconds: float = 0.5) -> None:
        """The user says something, without falling silent."""
        self.dialect.send_audio(tone(seconds, self.dialect.input_sample_rate))

    def pause(self, seconds: float = 0.8) -> None:
        self.dialect.send_audio(bytes(round(seconds * self.dialect.input_sample_rate) * 2))

    def ask(self) -> list[Frame]:
        """A whole turn of the user's, and the answer to it."""
        self.speak()
        self.pause()
        return self.run(5)

    # What came of it

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def said(self, role: str) -> list[str]:
        """The final transcripts of `role`."""
        return [frame.text for frame in self.of(Transcript) if frame.role == role and frame.final]

    def calls(self) -> list[ToolCall]:
        return self.of(ToolCall)


def call(double: ProviderDouble[SessionT], **fields: Any) -> Call[SessionT]:
    """A call with the dialect's defaults."""
    return Call(double, DIALECTS[double.provider](config(double.provider, **fields)))
