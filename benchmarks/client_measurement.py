"""The measurements of one contender for ``client.py``, each in its own process.

    python benchmarks/client_measurement.py CONTENDER LOOP STREAMS MINT [bare]

STREAMS and MINT are the URLs of the server. Write a task's name to standard input to get one JSON object.
The contender is imported once, and the heap of an application made unless `bare`, before the process of each
measurement is forked.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import anyio
from application_heap import fill_heap
from client_contenders import APIS, CONTENDERS, UVLOOP, Connect, Line, Tally, nothing
from client_server import PCM

Figures = dict[str, float]

ROUND_TRIPS: Final = 1000
MESSAGES: Final = 6_400
TALKERS: Final = 100
"""Concurrent sessions that talk at the speed of speech."""
PIECE: Final = 0.02  # seconds of audio in a message
SETTLING: Final = 0.3  # seconds of talk before the measurement begins
TALK: Final = 1.0  # seconds of talk measured
IDLE: Final = 50
"""Sessions whose memory is measured."""
CONNECTS: Final = 20

_WARM_UP: Final = 200
_LIMIT: Final = 120  # seconds for one measurement


async def _round_trip(connect: Connect, url: str) -> Figures:
    """Time messages there and back, one at a time."""
    async with connect(f"{url}/echo") as line:
        receive, is_audio, send = line.receiver(), line.is_audio, line.send
        times = []
        cpu = 0.0
        for index in range(_WARM_UP + ROUND_TRIPS):
            if index == _WARM_UP:
                cpu = time.process_time()
            start = time.perf_counter()
            await send(PCM)
            while not is_audio(await receive()):
                pass
            times.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
    percentiles = statistics.quantiles(times[_WARM_UP:], n=100, method="inclusive")
    return {"p50": percentiles[49], "p99": percentiles[98], "round": cpu / ROUND_TRIPS}


async def _received(connect: Connect, url: str) -> Figures:
    """Receive many messages from a server that is always ahead."""
    async with connect(f"{url}/flood/{MESSAGES}") as line:
        start = time.process_time()
        await line.commit()
        await line.listen(Tally(until=MESSAGES))
        return {"received": (time.process_time() - start) / MESSAGES}


async def _sent(connect: Connect, url: str) -> Figures:
    """Send many messages, as fast as they are accepted, until the peer has them all."""
    async with connect(f"{url}/sink") as line:
        send = line.send
        start = time.process_time()
        for _ in range(MESSAGES):
            await send(PCM)
        await line.commit()
        await line.listen(Tally(until=1))
        return {"sent": (time.process_time() - start) / MESSAGES}


async def _speak(line: Line, until: float, delay: float) -> None:
    due = time.monotonic() + delay
    while due < until:
        await anyio.sleep(max(0.0, due - time.monotonic()))
        await line.send(PCM)
        due += PIECE


async def _talk(connect: Connect, url: str) -> Figures:
    """Speak and listen at once in many sessions, at the speed of speech and at staggered moments."""
    opened = 0
    all_open = anyio.Event()
    begin = anyio.Event()
    until = 0.0

    async def session(index: int) -> None:
        nonlocal opened
        async with connect(f"{url}/echo") as line, anyio.create_task_group() as tasks:
            opened += 1
            if opened == TALKERS:
                all_open.set()
            await begin.wait()
            tasks.start_soon(line.listen, heard[index])
            await _speak(line, until, PIECE * index / TALKERS)
            await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()

    heard = [Tally() for _ in range(TALKERS)]
    async with anyio.create_task_group() as tasks:
        for index in range(TALKERS):
            tasks.start_soon(session, index)
        await all_open.wait()
        until = time.monotonic() + SETTLING + TALK + 0.1
        begin.set()
        await anyio.sleep(SETTLING)
        before = sum(tally.count for tally in heard)
        start = time.process_time()
        await anyio.sleep(TALK)
        cpu = time.process_time() - start
        # Messages that a contender could not keep up with do not count.
        messages = sum(tally.count for tally in heard) - before
    return {"talk": cpu / messages / PIECE}


async def _memory(connect: Connect, url: str) -> Figures:
    """Measure the bytes of a waiting session, and of one that has spoken and listened, with its two tasks."""
    lines: list[Line] = []
    wanted = 0
    all_open = anyio.Event()

    async def hold(connect: Connect, count: int) -> int:
        """Open `count` sessions; return how many bytes were allocated for them."""
        nonlocal wanted, all_open
        wanted += count
        all_open = anyio.Event()
        gc.collect()
        before = _traced()
        for _ in range(count):
            tasks.start_soon(session, connect)
        await all_open.wait()
        await anyio.sleep(0.3)
        gc.collect()
        return _traced() - before

    async def session(connect: Connect) -> None:
        async with connect(f"{url}/echo") as line:
            lines.append(line)
            if len(lines) == wanted:
                all_open.set()
            await anyio.sleep_forever()

    async def speak(line: Line, index: int) -> None:
        for piece in range(10):
            await anyio.sleep(index / IDLE * 0.2 if piece == 0 else 0.2)
            await line.send(PCM)
        await anyio.sleep_forever()

    tracemalloc.start()
    async with anyio.create_task_group() as tasks:
        await hold(connect, 10)
        bare = await hold(nothing, IDLE)
        idle = await hold(connect, IDLE)
        before = _traced()
        heard = [Tally() for _ in range(IDLE)]
        for index, (line, tally) in enumerate(zip(lines[-IDLE:], heard, strict=True)):
            tasks.start_soon(line.listen, tally)
            tasks.start_soon(speak, line, index)
        while min(tally.count for tally in heard) < 10:  # noqa: ASYNC110 - no contender tells
            await anyio.sleep(0.1)
        gc.collect()
        talked = _traced() - before
        # The cost of closing them is not measured.
        tasks.cancel_scope.cancel()
    return {"idle": (idle - bare) / IDLE, "active": (idle - bare + talked) / IDLE}


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]


async def _connect(connect: Connect, url: str) -> Figures:
    """Connect to the server and shake hands."""
    return {"connect": await _time_to_enter(lambda: connect(f"{url}/echo"))}


async def _time_to_enter(make: Callable[[], AbstractAsyncContextManager[object]]) -> float:
    times = []
    for _ in range(5 + CONNECTS):
        start = time.perf_counter()
        async with make():
            times.append(time.perf_counter() - start)
    return statistics.median(times[5:])


async def _mint(contender: str, url: str) -> Figures:
    """Do the same, but mint the session first."""
    async with APIS[contender](url) as make:
        return {"mint": await _time_to_enter(make)}


_TASKS: Final[dict[str, Callable[[Connect, str], Awaitable[Figures]]]] = {
    "round trip": _round_trip,
    "received": _received,
    "sent": _sent,
    "talk": _talk,
    "connect": _connect,
    "memory": _memory,
}


def _measure(loop: str, make: Callable[[], Awaitable[Figures]]) -> None:
    async def run() -> None:
        print(json.dumps(await make()), flush=True)
        # The operating system closes what is left open, for all contenders alike.
        os._exit(0)

    anyio.run(
        run,
        backend="asyncio" if loop == UVLOOP else loop,
        backend_options={"use_uvloop": True} if loop == UVLOOP else {},
    )


def main() -> None:
    contender, loop, streams, mint, *bare = sys.argv[1:]
    if not bare:
        fill_heap()
    connect = CONTENDERS[contender].connect[loop]()
    for line in sys.stdin:
        task = line.strip()
        if process := os.fork():
            if os.waitpid(process, 0)[1]:
                raise SystemExit(f"{contender} on {loop} failed at {task}")
        else:
            signal.alarm(_LIMIT)
            if task == "mint":
                _measure(loop, lambda: _mint(contender, mint))
            else:
                _measure(loop, partial(_TASKS[task], connect, streams))


if __name__ == "__main__":
    main()
