"""The providers' accounts and their doubles, by the provider's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speko_anyio import XAI, Google, OpenAI
from speko_anyio.testing.providers import GoogleDouble, OpenAIDouble, ProviderDouble, XAIDouble

KEY = "sk-test-0123456789"
NAMES = ("openai", "xai", "google")
MODELS = {"openai": "gpt-realtime-2.1", "xai": "grok-voice-latest", "google": "gemini-3.8-live"}
KINDS: Mapping[str, type[Any]] = {"openai": OpenAI, "xai": XAI, "google": Google}
DOUBLES: Mapping[str, type[ProviderDouble[Any]]] = {
    "openai": OpenAIDouble,
    "xai": XAIDouble,
    "google": GoogleDouble,
}
