"""A client, a gateway and a provider, each at its end of a socket: the provider is a double."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    GoogleOptions,
    Interruption,
    RealtimeSession,
    Speko,
    Transcript,
    Usage,
    tool,
)
from speko_anyio.gateway import Gateway, ProviderHandler, running_gateway
from speko_anyio.protocol.mint import SampleRate
from speko_anyio.testing.providers import (
    CallTools,
    Die,
    Pace,
    ProviderDouble,
    Reply,
    Say,
    tone,
)
from tests.support.accounts import DOUBLES, KINDS, MODELS, NAMES

OPERATORS_KEY = "sk-operators-own-key"
CLIENTS_KEY = "sk_client"

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("name", NAMES)]


def double_of(name: str, *replies: Reply) -> ProviderDouble[Any]:
    pace = Pace(latency=0.05, transcription=0.0)
    return DOUBLES[name](replies, user_says=["What is the weather?"], api_key=OPERATORS_KEY, pace=pace)


@asynccontextmanager
async def connected(
    name: str, double: ProviderDouble[Any], *, rate: SampleRate = 24000, tools: Any = (), **how: Any
) -> AsyncGenerator[RealtimeSession, None]:
    with anyio.fail_after(20):
        async with double.serve() as provider_url:
            handler = ProviderHandler(KINDS[name](OPERATORS_KEY, base_url=provider_url, **how))
            gateway = Gateway(handlers={name: handler}, api_keys=[CLIENTS_KEY])
            async with running_gateway(gateway) as url, Speko(CLIENTS_KEY, url) as speko:
                connecting = speko.realtime.connect(
                    provider=name,
                    model=MODELS[name],
                    input_sample_rate=rate,
                    output_sample_rate=rate,
                    tools=tools,
                )
                async with connecting as session:
                    yield session


async def ask(session: RealtimeSession) -> None:
    await session.send_audio(tone(0.4, session.input_sample_rate))
    await session.commit()


async def frames_until(session: RealtimeSession, *wanted: Callable[[Frame], bool]) -> list[Frame]:
    """The frames up to the one with which each of `wanted` has been true of some frame."""
    frames, missing = [], list(wanted)
    async for frame in session:
        frames.append(frame)
        missing = [test for test in missing if not test(frame)]
        if not missing:
            return frames
    raise AssertionError(f"the session ended before; it gave {frames}")


@pytest.mark.parametrize("rate", [16000, 24000])
async def test_a_conversation(name: str, rate: SampleRate) -> None:
    double = double_of(name, Say("It is sunny.", 0.5))
    async with connected(name, double, rate=rate) as session:
        await ask(session)
        frames = await frames_until(
            session,
            lambda frame: isinstance(frame, Usage),
            lambda frame: frame == Transcript("user", "What is the weather?", True),
            lambda frame: frame == Transcript("assistant", "It is sunny.", True),
        )
    assert {frame.sample_rate for frame in frames if isinstance(frame, Audio)} == {rate}
    assert sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio)) == pytest.approx(
        0.5 * rate * 2, abs=8
    )
    usage = next(frame for frame in frames if isinstance(frame, Usage))
    assert usage.output_audio_tokens > 0


def until_heard(size: float) -> Callable[[Frame], bool]:
    heard = 0

    def enough(frame: Frame) -> bool:
        nonlocal heard
        heard += len(frame.pcm) if isinstance(frame, Audio) else 0
        return heard >= size

    return enough


async def test_two_tools_at_once(name: str) -> None:
    both = anyio.Event()
    cities: list[str] = []

    @tool
    async def get_weather(city: str) -> str:
        """Current weather."""
        cities.append(city)
        if len(cities) == 2:
            both.set()
        await both.wait()
        return f"sunny in {city}"

    calls = CallTools([("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])
    double = double_of(name, calls, Say("Sunny in both.", 0.2))
    async with connected(name, double, tools=[get_weather]) as session:
        await ask(session)
        await frames_until(session, lambda frame: frame == Transcript("assistant", "Sunny in both.", True))
    received = json.dumps(double.session.received)
    assert received.count("sunny in Oslo") == 1
    assert received.count("sunny in Rome") == 1


async def test_a_barge_in_cuts_the_answer_where_it_was_heard(name: str) -> None:
    double = double_of(name, Say("A very long story.", 8.0))
    async with connected(name, double) as session:
        started = anyio.current_time()
        await ask(session)
        await frames_until(session, until_heard(24_000 * 2 * 1.0))  # 50 ms of the double's pace
        await session.send_audio(tone(0.4, 24_000))
        frames = await frames_until(session, lambda frame: isinstance(frame, Interruption))
        elapsed = (anyio.current_time() - started) * 1000
    assert frames[-1] == Interruption("user")
    if name != "google":  # whose history can't be corrected
        (truncation,) = [
            message for message in double.session.received if message["type"] == "conversation.item.truncate"
        ]
        assert 0 < truncation["audio_end_ms"] <= elapsed


async def test_a_provider_that_dies_in_the_middle_of_a_call(name: str) -> None:
    double = double_of(name, [Say("Well.", 0.2), Die()])
    how: dict[str, Any] = {"options": GoogleOptions(resumption=False)} if name == "google" else {}
    async with connected(name, double, **how) as session:
        await ask(session)
        frames = await frames_until(session, lambda frame: isinstance(frame, Close))
    message = "the connection to the provider was lost (close code 1006); try again"
    assert frames[-2:] == [
        ErrorFrame("PROVIDER_UNAVAILABLE", message),
        Close(1011, "provider_unavailable", "remote"),
    ]
