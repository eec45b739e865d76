"""The published Python client, unmodified, against our gateway: the other half of the wire is not ours."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from spekoai import (
    AsyncSpeko,
    RealtimeConnectParams,
    RealtimeToolSpec,
    SpekoApiError,
    SpekoAuthError,
    SpekoRateLimitError,
)

from speko_anyio.gateway import Handler, ServerSession, echo, running_gateway
from speko_anyio.protocol import Commit, Interrupt, ToolResult

from .support import KEY, make_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_ways")]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The published client runs on asyncio only."""
    return "asyncio", {"use_uvloop": request.param}


async def talk(handler: Handler, **params: Any) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    with anyio.fail_after(20):
        async with (
            running_gateway(make_gateway({"openai": handler})) as url,
            AsyncSpeko(api_key=KEY, base_url=url) as speko,
        ):
            session = await speko.connect_realtime(
                RealtimeConnectParams(provider="openai", model="gpt-realtime-2.1", **params)
            )
            assert session.session_id.startswith("sess_")
            async with session:
                await session.send_audio(b"\1\2" * 240)
                await session.commit()
                async for frame in session:
                    frames.append(frame)
                    if frame["type"] == "tool_call":
                        await session.send_tool_result(frame["call_id"], "sunny")
                        await session.interrupt()
                    if frame["type"] == "usage":
                        await session.close()
    return frames


async def test_it_hears_its_echo() -> None:
    assert await talk(echo) == [
        {"type": "audio", "pcm": b"\1\2" * 240, "sample_rate": 24000},
        {"type": "transcript", "role": "user", "text": "0.01 seconds of audio", "final": True},
        {"type": "usage", "input_audio_tokens": 0, "output_audio_tokens": 0},
    ]


async def test_it_answers_a_tool_call() -> None:
    heard: list[object] = []

    async def bot(session: ServerSession) -> None:
        assert session.config.tools[0].name == "weather"
        assert session.config.system_prompt == "be brief"
        assert session.input_sample_rate == 16000
        async for command in session:
            heard.append(command)
            match command:
                case Commit():
                    await session.send_tool_call("c1", "weather", '{"city":"Oslo"}')
                case Interrupt():
                    await session.send_error("LATE", "too late")
                    return

    frames = await talk(
        bot,
        input_sample_rate=16000,
        system_prompt="be brief",
        tools=[RealtimeToolSpec(name="weather", description="d", parameters={"type": "object"})],
    )
    assert frames == [
        {"type": "tool_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "error", "code": "LATE", "message": "too late"},
        {"type": "close", "reason": ""},
    ]
    assert heard[1:] == [Commit(), ToolResult("c1", "sunny"), Interrupt()]


async def test_its_errors_are_understood() -> None:
    async def connect(key: str, provider: Any) -> None:
        async with AsyncSpeko(api_key=key, base_url=url) as speko:
            await speko.connect_realtime(RealtimeConnectParams(provider=provider, model="m"))

    async with running_gateway(make_gateway({"openai": echo}, mint_rate=0.1, mint_burst=2)) as url:
        with pytest.raises(SpekoAuthError, match="API key"):
            await connect("wrong", "openai")
        for _ in range(2):
            with pytest.raises(SpekoApiError, match="this gateway serves openai") as caught:
                await connect(KEY, "xai")
            assert caught.value.code == "VALIDATION_ERROR"
        with pytest.raises(SpekoRateLimitError) as limited:
            await connect(KEY, "openai")
        assert limited.value.retry_after is not None
        assert 8 <= limited.value.retry_after <= 10
