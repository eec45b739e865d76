"""A dialect and a double joined without any I/O, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from speko_anyio.protocol import Close, Expiring, Frame, ToolCall, Transcript
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers._endpoint import Endpoint
from speko_anyio.providers._provider import ProviderDialect
from speko_anyio.providers.google import GoogleDialect, google_endpoint
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint
from speko_anyio.providers.xai import XAIDialect, xai_endpoint
from speko_anyio.testing.providers import (
    DoubleSession,
    GoogleDouble,
    Joined,
    OpenAIDouble,
    ProviderDouble,
    Request,
    XAIDouble,
    tone,
)

SessionT = TypeVar("SessionT", bound=DoubleSession)

WEATHER = ToolSpec(
    name="get_weather",
    description="Current weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def endpoint(provider: str, key: str, base_url: str = "ws://double.test", **options: Any) -> Endpoint:
    match provider:
        case "openai":
            return openai_endpoint(key, "gpt-realtime-2.1", base_url=base_url, **options)
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
MODELS = {"openai": "gpt-realtime-2.1", "xai": "grok-voice-latest", "google": "gemini-3.8-live"}


def config(provider: str, **fields: Any) -> SessionConfig:
    return SessionConfig(provider=provider, model=MODELS[provider], **{"tools": (WEATHER,), **fields})


class Call(Joined[SessionT]):
    """One call, with a user at the microphone."""

    def __init__(self, double: ProviderDouble[SessionT], dialect: ProviderDialect, **options: Any) -> None:
        where = endpoint(double.provider, double.api_key, **options)
        super().__init__(dialect, double.open(Request.to(where)))

    @property
    def frames(self) -> list[Any]:
        """All that the dialect told."""
        return [emitted.frame for emitted in self.emitted]

    # The user

    def speak(self, seconds: float = 0.5) -> None:
        """The user says something, without falling silent."""
        self.dialect.send_audio(tone(seconds, self.dialect.input_sample_rate))

    def pause(self, seconds: float = 0.8) -> None:
        self.dialect.send_audio(bytes(round(seconds * self.dialect.input_sample_rate) * 2))

    def ask(self) -> list[Frame | Close | Expiring]:
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
