"""What a client may want of a provider beyond the session's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from speko_anyio import XAI, Google, OpenAI
from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._options import OPTIONS_KEY, merge_client_options
from speko_anyio.providers.google import GoogleOptions
from speko_anyio.providers.openai import OpenAIOptions, SemanticVad, ServerTool
from speko_anyio.providers.xai import XAIOptions


def test_wishes_are_granted_within_what_the_operator_has() -> None:
    base = OpenAIOptions(speed=1.1, transcription_language="no", server_tools=(ServerTool("mcp", {"a": 1}),))
    wishes = {"openai": {"speed": 1.05, "turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}
    found = merge_client_options(base, {OPTIONS_KEY: wishes, "other": 1}, "openai")
    assert found == OpenAIOptions(
        speed=1.05,
        turn_detection=SemanticVad(eagerness="low"),
        transcription_language="no",
        server_tools=(ServerTool("mcp", {"a": 1}),),
    )


@pytest.mark.parametrize(
    "metadata", [None, {}, {OPTIONS_KEY: {}}, {OPTIONS_KEY: {"xai": {"turns": "manual"}}}]
)
def test_without_wishes_nothing_changes(metadata: dict[str, Any] | None) -> None:
    options = GoogleOptions(turns="manual")
    assert merge_client_options(options, metadata, "google") is options


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        ([], "objects in an object"),
        ({"xai": 1}, "objects in an object"),
        ({"xai": {"server_tools": []}}, "only the server's operator"),
        ({"xai": {"turns": "never"}}, "Invalid enum value 'never'"),
        ({"xai": {"nope": 1}}, "unknown field `nope`"),
        ({"xai": {"turn_detection": {"threshold": 5}}}, "<= 0.9"),
    ],
)
def test_what_can_not_be_had(wishes: Any, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        merge_client_options(XAIOptions(), {OPTIONS_KEY: wishes}, "xai")


ACCOUNTS: list[tuple[Any, str, Any]] = [
    (OpenAI, "the options for OpenAI must be OpenAIOptions, not XAIOptions", XAIOptions()),
    (OpenAI, "the options for OpenAI must be OpenAIOptions, not dict", {"speed": 1.2}),
    (XAI, "the options for xAI must be XAIOptions, not OpenAIOptions", OpenAIOptions()),
    (Google, "the options for Gemini must be GoogleOptions, not XAIOptions", XAIOptions()),
]


@pytest.mark.parametrize(("account", "message", "options"), ACCOUNTS)
def test_options_of_another_provider_are_refused(account: Any, message: str, options: Any) -> None:
    """Without the check the error would be an AttributeError from deep inside, or none."""
    provider = account("key", options=options)
    with pytest.raises(TypeError, match=message):
        provider.connection(SessionConfig(provider=provider.name, model="any"))
