"""Where the time of a session that talks goes: takes this client apart, step by step, down to a raw socket.

    python benchmarks/floor.py [--loop NAME] [--rounds N] [--out DIR] [--docs]

Each step takes away one more part of what the client does for a piece of audio. So each part costs what its
step saves, after all steps before it. No step is a client that anybody could use: what it takes away is
promised.

Most parts take less than the times of two runs differ by. So the instructions that the process executes are
counted, by valgrind: they are nearly the same in every run, on a busy machine too. The kernel's are not among
them. The CPU time of the talk is that of ``client.py``.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import client_contenders as who
from client import PACKAGES, ContenderProcess
from client_server import PCM, serving
from measuring import Figure, Neighbours, cores, versions
from report import publish, table

_PIECES: Final = 50
"""Messages each way in a second of talk."""

_COUNT: Final = "count"
"""The first argument of a process whose instructions are counted."""

_COMPARED: Final = (who.PICOWS, who.AIOHTTP, who.TRIO_WEBSOCKET)


class Step(NamedTuple):
    """A part of the client that can be taken away."""

    part: str
    take_away: Callable[[], None]
    """Replaces functions of the package in this process."""


def _replace(owner: object, name: str, function: object) -> None:
    setattr(owner, name, function)


def _call_without_context() -> None:
    from speko_anyio.client import _handlers

    def call(run: object, function: object) -> object:
        return function

    _replace(_handlers, "partial", call)


def _deliver_to_nobody_else() -> None:
    from speko_anyio.client._pump import Pump

    deliver = Pump.receive_data

    def receive_data(self: Any, data: bytes) -> bool:
        if self._direct and (audio := self.core.receive_audio(data)) is not None:
            self._direct[0].call(audio)
            return False
        return deliver(self, data)

    _replace(Pump, "receive_data", receive_data)


def _believe_every_read() -> None:
    from speko_anyio import Audio
    from speko_anyio.protocol._client_websocket import ClientWebSocket

    size = 4 + len(PCM)

    def receive_audio(self: Any, data: bytes) -> Audio | None:
        return Audio(data[4:], 24_000) if len(data) == size else None

    _replace(ClientWebSocket, "receive_audio", receive_audio)


def _send_without_turns() -> None:
    from speko_anyio._net.asyncio_driver import AsyncioDriver

    async def send(self: Any, verb: Callable[..., None], *args: Any) -> None:
        verb(*args)
        data = self._data_to_send()
        if self._send_now is None:
            self._transport.write(data)
        else:
            self._send_now(data)

    _replace(AsyncioDriver, "send", send)


def _send_without_turns_on_trio() -> None:
    from speko_anyio._net.trio_driver import TrioDriver

    async def send(self: Any, verb: Callable[..., None], *args: Any) -> None:
        verb(*args)
        self._socket.send(self._data_to_send())

    _replace(TrioDriver, "send", send)


def _send_without_checks() -> None:
    from speko_anyio import RealtimeSession
    from speko_anyio.protocol._client_websocket import ClientWebSocket
    from speko_anyio.protocol._masking import mask

    head = b"\x82\xfe" + len(PCM).to_bytes(2)

    def send_audio(self: Any, pcm: bytes) -> Any:
        return self._driver.send(self._core.send_audio, pcm)

    def frame_audio(self: Any, pcm: bytes) -> None:
        (key,) = self._framer.keys.take()
        self._outbox.messages.append(head + key + mask(pcm, key))

    _replace(RealtimeSession, "send_audio", send_audio)
    _replace(ClientWebSocket, "send_audio", frame_audio)


_DELIVERY: Final = "the handler's errors, its order among other consumers, counters, first audio"
_TURNS: Final = "senders in turn: checkpoints, a full transport, joined writes, cancellation, counters"

STEPS: Final = {
    loop: (
        Step("the handler runs in the context of the session's block", _call_without_context),
        Step(_DELIVERY, _deliver_to_nobody_else),
        Step("is this read one whole frame of audio, in order?", _believe_every_read),
        Step(_TURNS, _send_without_turns_on_trio if loop == who.TRIO else _send_without_turns),
        Step("checks of the audio, the outbox's limit, shapes of frames", _send_without_checks),
    )
    for loop in who.LOOPS
}


def _name(step: int) -> str:
    return f"without {step}"


def _connect(loop: str, steps: int) -> who.Connect:
    for step in STEPS[loop][:steps]:
        step.take_away()
    return who.CONTENDERS[who.OURS].connect[loop]()


def _add_steps() -> None:
    for index in range(1, 1 + max(map(len, STEPS.values()))):
        connects = {loop: partial(_connect, loop, index) for loop in who.LOOPS if index <= len(STEPS[loop])}
        who.CONTENDERS[_name(index)] = who.Contender({**connects}, "speko_anyio", {})


def _talk(name: str, loop: str, url: str, messages: int) -> None:
    """Send and hear that many messages, one every 10 ms, and end the process."""

    async def run() -> None:
        async with (
            who.CONTENDERS[name].connect[loop]()(f"{url}/echo") as line,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(line.listen, who.Tally())
            for _ in range(messages):
                await line.send(PCM)
                await anyio.sleep(0.01)
            os._exit(0)

    anyio.run(
        run,
        backend="trio" if loop == who.TRIO else "asyncio",
        backend_options={"use_uvloop": True} if loop == who.UVLOOP else {},
    )


def _be_contender() -> None:
    """Be the process of one contender, as ``client_measurement.py`` is."""
    import client_measurement

    _add_steps()
    if sys.argv[1] == _COUNT:
        name, loop, url, messages = sys.argv[2:]
        _talk(name, loop, url, int(messages))
    else:
        client_measurement.main()


def _count(name: str, loop: str, url: str, messages: int) -> int:
    """Return the instructions of a process that talks that much."""
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    program = (sys.executable, __file__, _COUNT, name, loop, url, str(messages))
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ended = subprocess.run([*tool, *program], env=environment, check=True, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", ended.stderr)
    assert collected is not None, ended.stderr
    return int(collected[1])


def count(loop: str) -> dict[str, float]:
    """Return the instructions of a message there and back, net of tasks and timers."""
    few, many = 50, 200
    found = {}
    names = [*_names(loop), who.PACER]
    with serving(None) as server:
        for done, name in enumerate(names, 1):
            print(f"\r{loop}: counting {done} of {len(names)}", end="", file=sys.stderr, flush=True)
            both = [_count(name, loop, server.streams, messages) for messages in (few, many)]
            found[name] = (both[1] - both[0]) / (many - few)
    print(file=sys.stderr)
    pacer = found.pop(who.PACER)
    return {name: instructions - pacer for name, instructions in found.items()}


def _names(loop: str) -> list[str]:
    installed = who.installed(loop)
    steps = [_name(index) for index in range(1, len(STEPS[loop]) + 1)]
    others = [name for name in (who.FRAMED, who.RAW, *_COMPARED) if name in installed]
    return [who.OURS, *steps, *others]


def measure(loop: str, rounds: int) -> dict[str, Figure]:
    """Return the CPU seconds of a message there and back in the talk, net of tasks and timers."""
    names = [*_names(loop), who.PACER]
    taken: dict[str, list[float]] = {name: [] for name in names}
    for_server, for_client = cores()
    with serving(for_server) as server, ExitStack() as stack:
        processes = {}
        for name in names:
            processes[name] = ContenderProcess(loop, name, server, for_client, program=__file__)
            stack.callback(processes[name].close)
        for done in range(rounds):
            print(f"\r{loop}: round {done + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            for name in random.sample(names, len(names)):
                taken[name].append(processes[name].run("talk")["talk"])
    print(file=sys.stderr)
    pacer = taken.pop(who.PACER)
    return {
        name: Figure.of([(talk - own) / _PIECES for talk, own in zip(values, pacer, strict=True)])
        for name, values in taken.items()
    }


def steps_table(loop: str, counted: dict[str, float], figures: dict[str, Figure]) -> str:
    """Return what each part costs, and what is left after it is taken away."""
    rows: list[tuple[str, str, str, str]] = []
    left = 0.0

    def add(part: str, name: str, *, costs: bool = True) -> None:
        nonlocal left
        saved = f"{left - counted[name]:,.0f}" if costs else ""
        left = counted[name]
        rows.append((part, saved, f"{left:,.0f}", f"{figures[name].median * 1e6:.1f}"))

    add(who.OURS, who.OURS, costs=False)
    for index, step in enumerate(STEPS[loop], 1):
        add(step.part, _name(index))
    add("a session's objects and the `Audio` frame, less the framed socket's lists", who.FRAMED)
    add("any WebSocket: a fresh key, masking, a header each way, a copy", who.RAW)
    rows.append(("a raw socket: the event loop, system calls, the kernel", f"{left:,.0f}", "0", "0.0"))
    for name in _COMPARED:
        if name in counted:
            add(f"for comparison: {name}", name, costs=False)
    return table((f"**{loop}**: a message there and back", "instructions", "left", "µs in the talk"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a session that talks goes.")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (9)")
    parser.add_argument("--loop", choices=who.LOOPS, action="append", help="only this event loop")
    parser.add_argument("--out", type=Path, help="folder for floor.json and floor.md")
    parser.add_argument("--docs", action="store_true", help="also renew the tables in docs/")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("quartiles need at least 2 rounds")
    neighbours = Neighbours()
    loops = options.loop or who.LOOPS
    figures = {loop: measure(loop, options.rounds) for loop in loops}
    counted = {loop: count(loop) for loop in loops}
    tables = "\n\n".join(steps_table(loop, counted[loop], figures[loop]) for loop in loops)
    text = f"Medians of {options.rounds} rounds.{neighbours.sentence()}\n\n{tables}\n"
    found = {
        "versions": versions(PACKAGES),
        "instructions": {
            loop: {name: round(number) for name, number in of_loop.items()}
            for loop, of_loop in counted.items()
        },
        "figures": {
            loop: {name: figure.rounded() for name, figure in of_loop.items()}
            for loop, of_loop in figures.items()
        },
    }
    publish("floor", text, None, found, out=options.out, docs=options.docs)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        _be_contender()
    else:
        main()
