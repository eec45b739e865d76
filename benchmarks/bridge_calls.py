"""What the gateway adds to a call: the same audio to the same provider and back, with and without it between.

Two sessions are open at once, one straight with the provider and one by way of the gateway, and take turns:
what disturbs the machine disturbs both.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import anyio
from bridge_core import PROVIDERS
from bridge_processes import ACCOUNTS, GATEWAY_KEY, PROVIDER_KEY, Helper, gateway, provider

from speko_anyio import Audio, RealtimeSession, Speko
from speko_anyio.testing.providers import tone

DIRECT: Final = "direct session"
BRIDGED: Final = "through the gateway"

RATE: Final = 24_000
PIECE: Final = 0.02  # seconds of audio in a message
CROWD: Final = 5
"""Conversations at a time while CPU time is taken."""

_PCM: Final = tone(PIECE, RATE)


class Latency(NamedTuple):
    """Seconds from sending a piece of audio until it is back."""

    median: float
    p99: float
    least: float
    """Where every process got the processor at once."""

    @classmethod
    def of(cls, times: list[float]) -> Latency:
        percentiles = statistics.quantiles(times, n=100, method="inclusive")
        return cls(statistics.median(times), percentiles[98], min(times))


class Call(NamedTuple):
    """What was measured of one provider."""

    latency: dict[str, Latency]
    added: tuple[float, float, float]
    """Of the median, and its quartiles over the blocks."""
    client_cpu: dict[str, float]
    """Seconds a second of conversation, by contender."""
    gateway_cpu: tuple[float, float, float]
    """Likewise, of the gateway: median over the blocks, and quartiles."""


@asynccontextmanager
async def _sessions(
    name: str, peer: Helper, between: Helper
) -> AsyncIterator[dict[str, list[RealtimeSession]]]:
    """`CROWD` of each contender, by its name."""
    model = PROVIDERS[name].model
    account = ACCOUNTS[name](api_key=PROVIDER_KEY, base_url=peer.url)
    found: dict[str, list[RealtimeSession]] = {DIRECT: [], BRIDGED: []}
    async with AsyncExitStack() as stack:
        speko = await stack.enter_async_context(Speko(api_key=GATEWAY_KEY, base_url=between.url))
        for _ in range(CROWD):
            direct, bridged = account.connect(model=model), speko.realtime.connect(provider=name, model=model)
            found[DIRECT].append(await stack.enter_async_context(direct))
            found[BRIDGED].append(await stack.enter_async_context(bridged))
        yield found


async def _there_and_back(session: RealtimeSession) -> float:
    start = time.perf_counter()
    await session.send_audio(_PCM)
    async for frame in session:
        if isinstance(frame, Audio):
            return time.perf_counter() - start
    raise AssertionError("the session ended")


async def _converse(sessions: Sequence[RealtimeSession], seconds: float) -> None:
    """So much audio at the speed of speech in each session, and back; their pieces at different moments."""
    async with anyio.create_task_group() as tasks:
        for number, session in enumerate(sessions):
            tasks.start_soon(_speak, session, seconds, PIECE * number / len(sessions))
            tasks.start_soon(_listen, session, round(seconds / PIECE))


async def _speak(session: RealtimeSession, seconds: float, delay: float) -> None:
    start = time.perf_counter() + delay
    for piece in range(round(seconds / PIECE)):
        await anyio.sleep(max(0.0, start + piece * PIECE - time.perf_counter()))
        await session.send_audio(_PCM)


async def _listen(session: RealtimeSession, pieces: int) -> None:
    heard = 0
    async for frame in session:
        heard += isinstance(frame, Audio)
        if heard == pieces:
            return


async def measure(name: str, *, messages: int, blocks: int, seconds: float) -> Call:
    """Time `messages` pieces there and back with each contender, in `blocks`; then the CPU of `blocks` of
    conversations of so many seconds each."""
    with provider(name) as peer, gateway(name, peer.url) as between:
        async with _sessions(name, peer, between) as sessions:
            times: dict[str, list[float]] = {contender: [] for contender in sessions}
            added: list[float] = []
            for _ in range(50):
                for crowd in sessions.values():
                    await _there_and_back(crowd[0])
            for _ in range(blocks):
                block: dict[str, list[float]] = {contender: [] for contender in sessions}
                for _ in range(messages // blocks):
                    for contender in random.sample(sorted(sessions), 2):
                        block[contender].append(await _there_and_back(sessions[contender][0]))
                added.append(statistics.median(block[BRIDGED]) - statistics.median(block[DIRECT]))
                for contender, taken in block.items():
                    times[contender] += taken
            cpu: dict[str, list[float]] = {contender: [] for contender in sessions}
            of_gateway: list[float] = []
            for _ in range(blocks):
                for contender in random.sample(sorted(sessions), 2):
                    before, gateway_before = time.process_time(), between.cpu()
                    await _converse(sessions[contender], seconds)
                    cpu[contender].append((time.process_time() - before) / seconds / CROWD)
                    if contender == BRIDGED:
                        of_gateway.append((between.cpu() - gateway_before) / seconds / CROWD)
    return Call(
        {contender: Latency.of(some) for contender, some in times.items()},
        _quartiles(added),
        {contender: statistics.median(some) for contender, some in cpu.items()},
        _quartiles(of_gateway),
    )


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, lower, upper
