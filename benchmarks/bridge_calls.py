"""What the gateway adds to a call: the same audio there and back, with the gateway and without.

Two sessions are open at once, one directly with the provider and one through the gateway, and take turns, so
that whatever disturbs the machine disturbs both.
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
    """When no process had to wait for a processor."""

    @classmethod
    def of(cls, times: list[float]) -> Latency:
        percentiles = statistics.quantiles(times, n=100, method="inclusive")
        return cls(statistics.median(times), percentiles[98], min(times))


class Call(NamedTuple):
    """The measurements with one provider."""

    latency: dict[str, Latency]
    added: tuple[float, float, float]
    """Seconds added to the median: median and quartiles over the blocks."""
    client_cpu: dict[str, float]
    """Seconds per second of conversation, by contender."""
    gateway_cpu: tuple[float, float, float]
    """The same for the gateway: median and quartiles over the blocks."""


@asynccontextmanager
async def _sessions(
    name: str, peer: Helper, between: Helper
) -> AsyncIterator[dict[str, list[RealtimeSession]]]:
    """Open `CROWD` sessions of each contender; return them by contender."""
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
    """Exchange `seconds` of audio in each session, at the speed of speech and at staggered moments."""
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
    """Measure latency, then CPU time, with one provider.

    Latency is that of `messages` pieces there and back with each contender, in `blocks` blocks. CPU time is
    that of `blocks` conversations with each contender, of `seconds` each.
    """
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
