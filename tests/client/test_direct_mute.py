"""Direct sessions with a provider that says nothing, on virtual time: the user gets an error within 25 s."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio import XAI, Close, ErrorFrame, Frame, Google, HandshakeError, OpenAI
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing._streams import stream_pair
from speko_anyio.testing.providers import GoogleDouble, OpenAIDouble, ProviderDouble, XAIDouble

KEY = "sk-test-0123456789"
KINDS: dict[str, tuple[type[Any], type[ProviderDouble[Any]], str]] = {
    "openai": (OpenAI, OpenAIDouble, "gpt-realtime-2.1"),
    "xai": (XAI, XAIDouble, "grok-voice-latest"),
    "google": (Google, GoogleDouble, "gemini-3.8-live"),
}


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.anyio
async def test_no_answer_to_the_handshake(name: str) -> None:
    kind, _, model = KINDS[name]
    ours, _theirs = stream_pair()
    started = anyio.current_time()
    with pytest.raises(HandshakeError, match="did not answer the handshake in time; try again"):
        async with kind(KEY).connect(model=model, stream=ours):
            raise AssertionError("it opened")
    assert anyio.current_time() - started < 25


@pytest.mark.parametrize("says", ["nothing", "only that it is there"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.anyio
async def test_no_answer_to_the_configuration(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, double_kind, model = KINDS[name]
    double = double_kind(api_key=KEY)
    monkeypatch.setattr(double._session_type, "receive", lambda *args: None)
    if says == "nothing":
        monkeypatch.setattr(double._session_type, "_opened", lambda *args: None)
    ours, theirs = stream_pair()
    frames: list[Frame] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            started = anyio.current_time()
            async with kind(KEY).connect(model=model, stream=ours) as session:
                await session.commit()
                frames += [frame async for frame in session]
            assert anyio.current_time() - started < 25
            tasks.cancel_scope.cancel()
    told, close = frames
    assert isinstance(told, ErrorFrame)
    assert told.code == "provider_not_ready"
    assert told.message == "the provider did not accept the session within 10 s; try again"
    assert close == Close(1000, "provider_not_ready", "local")
