"""The whole product over real sockets: client, uvicorn, gateway, recogniser process, synthesiser."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    HandshakeError,
    Interruption,
    LocalProtocolError,
    Ready,
    RealtimeSession,
    Speko,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.audio.wav import read_wav
from speko_anyio.gateway import Gateway, default_handlers, running_gateway
from speko_anyio.gateway.local._dialogue import NOT_UNDERSTOOD
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "go-forward-ten-meters.wav"
KEY = "sk_end_to_end"


def gateway() -> Gateway:
    return Gateway(handlers=default_handlers(), api_keys=[KEY])


async def until_usage(session: RealtimeSession) -> list[object]:
    frames: list[object] = []
    async for frame in session:
        frames.append(frame)
        if isinstance(frame, Usage):
            break
    return frames


async def test_a_spoken_question_gets_a_spoken_answer() -> None:
    pcm = read_wav(SPEECH, sample_rate=16000).pcm
    with anyio.fail_after(60):
        async with running_gateway(gateway()) as url, Speko(KEY, url) as speko:
            async with speko.realtime.connect(
                provider="local", model="local", input_sample_rate=16000, output_sample_rate=16000
            ) as session:
                for start in range(0, len(pcm), 640):
                    await session.send_audio(pcm[start : start + 640])
                await session.commit()
                frames = await until_usage(session)
                await session.close()
                final = [frame async for frame in session]
    ready = frames[0]
    assert isinstance(ready, Ready)
    assert (ready.input_sample_rate, ready.output_sample_rate) == (16000, 16000)
    assert ready.extensions == ("usage", "text", "respond", "say", "update", "played")
    assert Transcript("user", "go forward ten meters", True) in frames
    assert Transcript("assistant", NOT_UNDERSTOOD[0], True) in frames
    audio = b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))
    assert len(audio) > 16000 * 2
    assert any(audio), "digital silence is no answer"
    assert final[-1] == Close(1000, "client_closed", "local")
    assert session.closed == final[-1]


async def test_it_asks_for_a_tool_and_speaks_the_result() -> None:
    question = spoken("What is the weather in Paris?", 24000)
    asked: list[str] = []

    async def get_weather(city: str) -> str:
        """Current weather for a city."""
        asked.append(city)
        return "rainy"

    with anyio.fail_after(60):
        async with running_gateway(gateway()) as url, Speko(KEY, url) as speko:
            async with speko.realtime.connect(
                provider="local", model="local", tools=[get_weather]
            ) as session:
                await session.send_audio(question)
                await session.commit()
                frames = await until_usage(session)
    assert [frame.name for frame in frames if isinstance(frame, ToolCall)] == ["get_weather"]
    assert asked == ["paris"]
    said = [f.text for f in frames if isinstance(f, Transcript) and f.role == "assistant" and f.final]
    assert any("rainy" in text for text in said), said


async def test_an_interrupt_stops_the_answer() -> None:
    question = spoken("What time is it?", 24000)
    with anyio.fail_after(60):
        async with running_gateway(gateway()) as url, Speko(KEY, url) as speko:
            async with speko.realtime.connect(provider="local", model="local") as session:
                await session.send_audio(question)
                await session.commit()
                async for frame in session:
                    if isinstance(frame, Audio):
                        await session.interrupt()
                        break
                after = await until_usage(session)
    interruption = next(i for i, frame in enumerate(after) if isinstance(frame, Interruption))
    assert not [frame for frame in after[interruption:] if isinstance(frame, Audio)]


async def test_bad_input_gets_one_clear_error_and_loses_nothing_that_came_before() -> None:
    question = spoken("What time is it?", 24000)
    with anyio.fail_after(60):
        async with running_gateway(gateway()) as url, Speko(KEY, url) as speko:
            grant = await speko.realtime.create_session(provider="local", model="local")
            async with speko.realtime.open(grant) as session:
                await session.send_audio(question)
                with pytest.raises(LocalProtocolError, match="two bytes a sample, but this has 3 bytes"):
                    await session.send_audio(b"odd")
                await session.commit()
                frames = await until_usage(session)
            with pytest.raises(HandshakeError, match="401") as caught:
                async with speko.realtime.open(grant):
                    pytest.fail("a token opened two sessions")
    assert Transcript("user", "what time is it", True) in frames
    assert caught.value.status == 401
    assert grant.ws_token not in str(caught.value)
