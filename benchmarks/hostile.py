"""What a hostile client costs its neighbours: the latency of a victim's echo while another session attacks.

A gateway serves both in its own process. The victim echoes 20 ms of audio fifty times a second, and its clock
does not wait for the echoes: a late one counts from when it was due. The attacker has a process of its own,
so that it slows nothing but the gateway. It writes bytes made before, as fast as they are taken, and
drops what comes back; when its session is ended, it mints another and goes on.

    python benchmarks/hostile.py [--loop uvloop|asyncio] [--way transport|asgi] [--seconds N] ...

To add a scenario, write a function that takes an `Endpoint` and a number of seconds, and name it in
`SCENARIOS`.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import gateway_servers as servers
from gateway_servers import Endpoint
from measuring import versions

WAYS: Final = {
    "transport": servers.GATEWAY,
    "asgi": servers.GATEWAY_IN_TURNS,
    "bare asgi": servers.GATEWAY_ASGI,
}
"""How sessions reach the gateway: as by `speko-anyio serve`, or by ASGI under another server."""

PCM: Final = bytes(960)
"""20 ms at 24 kHz."""

INTERVAL: Final = 0.02
"""Seconds between two messages of the victim."""


def _mint(provider: str = "echo") -> dict[str, Any]:
    return {"mode": "s2s", "s2s": {"provider": provider, "model": "any"}}


_WARM_UP: Final = 0.5
"""Seconds of an attack that pass before the victim is measured."""

_CHUNK: Final = 64 * 1024
"""Bytes that the attacker writes at a time, about."""

_PATIENCE: Final = 30.0
"""Seconds without any echo after which the victim gives up."""

_TEXT, _BINARY, _PING, _PONG = 0x81, 0x82, 0x89, 0x8A
_FIRST_TEXT, _MIDDLE = 0x01, 0x00
_CLOSE: Final = 0x88


class Attack(NamedTuple):
    """What an attacker did, and how its sessions ended."""

    messages: int
    seconds: float
    sessions: int
    ends: list[str]
    """How they ended, without repeats: a close code and its reason, ``reset``, ``eof``, or ``open``."""


class Latency(NamedTuple):
    """The victim's echoes, in milliseconds."""

    echoes: int
    p50: float
    p99: float
    max: float


class Line(NamedTuple):
    name: str
    latency: Latency
    attack: Attack | None


# Sessions over a bare socket


def frame(first: int, payload: bytes = b"") -> bytes:
    """Make a frame of a client. The key is zero, which masks nothing."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8)
    return head + bytes(4) + payload


def open_session(endpoint: Endpoint, provider: str = "echo") -> socket.socket:
    """Mint a session of a handler and open its WebSocket; OSError when that is refused."""
    where = urlsplit(endpoint.url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port or 80, timeout=_PATIENCE)
    headers = {"Authorization": f"Bearer {endpoint.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/sessions", json.dumps(_mint(provider)), headers)
    answer = connection.getresponse()
    grant = json.loads(answer.read())
    connection.close()
    if answer.status != 201:
        raise OSError(f"the mint answered {answer.status}: {grant}")
    stream = urlsplit(grant["wsUrl"])
    assert stream.hostname is not None
    opened = socket.create_connection((stream.hostname, stream.port or 80), timeout=_PATIENCE)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(
        f"GET {stream.path} HTTP/1.1\r\nHost: {stream.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: {grant['wsToken']}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = opened.recv(1)
        if not byte:
            raise OSError("the gateway hung up instead of opening the session")
        head += byte
    if not head.startswith(b"HTTP/1.1 101 "):
        opened.close()
        raise OSError(f"the gateway refused the session: {head[:40]!r}")
    return opened


def measure_victim(endpoint: Endpoint, *, seconds: float) -> Latency:
    """Echo audio for so many seconds, and measure how long each message takes there and back."""
    victim = open_session(endpoint)
    victim.setblocking(False)
    latencies: list[float] = []
    sent = 0
    received = bytearray()
    gc.disable()
    begin = heard = time.perf_counter()
    last = int(seconds / INTERVAL)
    while len(latencies) < last:
        now = time.perf_counter()
        if now - heard > _PATIENCE:
            break
        due = begin + sent * INTERVAL
        if sent < last and now >= due:
            # From when it was due: what the gateway makes wait, waits.
            victim.send(frame(_BINARY, sent.to_bytes(4) + PCM[4:]))
            sent += 1
            continue
        wait = due - now if sent < last else _PATIENCE
        readable, _, _ = select.select([victim], [], [], wait)
        if not readable:
            continue
        data = victim.recv(_CHUNK)
        heard = time.perf_counter()
        if not data:
            raise SystemExit("the victim's session was ended")
        received += data
        latencies += [heard - (begin + number * INTERVAL) for number in _echoed(received)]
    gc.enable()
    victim.close()
    if not latencies:
        return Latency(0, *(float("inf"),) * 3)
    lost = [_PATIENCE] * (last - len(latencies))
    ordered = sorted(latencies + lost)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return Latency(len(latencies), *(1000 * each for each in (statistics.median(ordered), p99, ordered[-1])))


def _echoed(received: bytearray) -> Iterator[int]:
    """Take the whole frames out of `received`, and yield the numbers of the echoes among them."""
    while len(received) >= 4:
        size = received[1] & 0x7F
        header = 2
        if size == 126:
            size, header = int.from_bytes(received[2:4]), 4
        if len(received) < header + size:
            return
        if received[0] == _BINARY:
            yield int.from_bytes(received[header : header + 4])
        elif received[0] == _CLOSE:
            raise SystemExit(f"the victim's session was closed: {bytes(received[header : header + size])!r}")
        del received[: header + size]


# Attackers


Scenario = Callable[[Endpoint, float], Attack]


def flood(*frames: bytes, opening: bytes = b"", provider: str = "echo") -> Scenario:
    """Make a scenario that opens a session of `provider`, writes `opening`, and then `frames` repeatedly."""

    def attack(endpoint: Endpoint, seconds: float) -> Attack:
        once = b"".join(frames)
        times = max(1, _CHUNK // len(once))
        chunk = once * times
        begin = time.monotonic()
        written = sessions = 0
        ends: list[str] = []
        while (left := begin + seconds - time.monotonic()) > 0:
            try:
                session = open_session(endpoint, provider)
            except OSError as error:
                ends.append(str(error))
                time.sleep(0.2)
                continue
            sessions += 1
            size, end = _blast(session, opening, chunk, left)
            written += size
            ends.append(end)
        messages = written * len(frames) // len(once)
        return Attack(messages, time.monotonic() - begin, sessions, list(dict.fromkeys(ends)))

    return attack


def _blast(session: socket.socket, opening: bytes, chunk: bytes, seconds: float) -> tuple[int, str]:
    """Write `chunk` again and again; return the bytes that were taken, and how the session ended."""
    until = time.monotonic() + seconds
    written = 0
    tail = b""
    ready = select.poll()
    ready.register(session, select.POLLIN | select.POLLOUT)
    with session:
        session.sendall(opening)
        session.setblocking(False)
        rest = memoryview(chunk)
        while time.monotonic() < until:
            for _, events in ready.poll(100):
                try:
                    if events & (select.POLLIN | select.POLLHUP):
                        data = session.recv(4 * _CHUNK)
                        if not data:
                            return written, _end(tail) or "eof"
                        tail = (tail + data)[-1024:] if len(data) < 1024 else data[-1024:]
                    if events & select.POLLOUT:
                        count = session.send(rest)
                        written += count
                        rest = rest[count:] or memoryview(chunk)
                except BlockingIOError:
                    pass
                except OSError:
                    return written, _end(tail) or "reset"
    return written, "open"


def _end(tail: bytes) -> str:
    """Read the close frame with which the received bytes end; empty if there is none."""
    for start in range(len(tail) - 1):
        if tail[start] == _CLOSE and tail[start + 1] == len(tail) - start - 2 >= 2:
            code = int.from_bytes(tail[start + 2 : start + 4])
            return f"{code} {tail[start + 4 :].decode(errors='replace')}".strip()
    return ""


READERS: Final = 16

_RECORDS: Final = 64
_METADATA: Final = 40_000
"""Bytes of metadata of each record: near the most that a mint takes."""


def read(query: str = "", *, one: bool = False) -> Scenario:
    """Make a scenario of `READERS` that read the records of a key, each asking again at once.

    They ask for a list by `query`, or for `one` session.
    """

    def attack(endpoint: Endpoint, seconds: float) -> Attack:
        until = time.monotonic() + seconds
        headers = {"Authorization": f"Bearer {endpoint.key}", "Content-Type": "application/json"}
        where = urlsplit(endpoint.url)
        assert where.hostname is not None
        host, port = where.hostname, where.port or 80
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
        session_id = ""
        for _ in range(_RECORDS):
            body = json.dumps({**_mint(), "metadata": {"x": "x" * _METADATA}})
            connection.request("POST", "/v1/sessions", body, headers)
            session_id = json.loads(connection.getresponse().read())["sessionId"]
        connection.close()
        path = f"/v1/sessions/{session_id}" if one else f"/v1/sessions?limit=100{query}"
        answers: Counter[int] = Counter()

        def ask() -> None:
            connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
            while time.monotonic() < until:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                answers[answer.status] += 1
            connection.close()

        readers = [threading.Thread(target=ask) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        ends = [f"{count} x {status}" for status, count in sorted(answers.items())]
        return Attack(answers.total(), seconds, READERS, ends)

    return attack


def _text(text: str) -> bytes:
    return frame(_TEXT, text.encode())


def converse(*frames: bytes) -> Scenario:
    """Make a scenario that floods a handler which takes the whole conversation."""
    return flood(*frames, provider=servers.LISTENER)


_ROLES: Final = ("user", "assistant")
_TOOL: Final = {
    "type": "object",
    "properties": {f"field{number}": {"type": "string", "enum": ["a", "b"]} for number in range(20)},
}
_UPDATE: Final = json.dumps(
    {
        "t": "update",
        "tools": [{"name": f"tool{n}", "description": "d", "parameters": _TOOL} for n in range(40)],
    }
)
_IMAGE: Final = json.dumps({"t": "image", "mimeType": "image/png", "data": 4 * 1024 * 1024 * "A"})

_UNKNOWN: Final = '{"t":"what","a":1}'
_DEEP: Final = '{"t":"what","a":' + 200 * "[" + 200 * "]" + "}"

SCENARIOS: Final[dict[str, Scenario]] = {
    "960-byte binary": flood(frame(_BINARY, PCM)),
    "2-byte binary": flood(frame(_BINARY, b"\0\0")),
    "empty binary": flood(frame(_BINARY)),
    "pings": flood(frame(_PING)),
    "pongs": flood(frame(_PONG)),
    "unknown text": flood(_text(_UNKNOWN)),
    "known text": flood(_text('{"t":"commit"}'), _text('{"t":"clear"}')),
    "empty fragments": flood(frame(_MIDDLE), opening=frame(_FIRST_TEXT)),
    "deep JSON": flood(_text(_DEEP)),
    # The next ones keep within the bounds of one message, or of one run of control frames.
    "pings and audio": flood(*[frame(_PING)] * 500, frame(_BINARY, b"\0\0")),
    "messages in empty fragments": flood(frame(0x02), *[frame(_MIDDLE)] * 500, frame(0x80, b"\0\0")),
    "interrupts": flood(_text('{"t":"interrupt"}')),
    "odd binary": flood(frame(_BINARY, b"\0")),
    # What a conversation's client sends, to a handler that takes it all.
    "texts": converse(_text('{"t":"text","text":"Hello."}')),
    "long texts": converse(_text(json.dumps({"t": "text", "text": 60_000 * "a"}))),
    "history": converse(*[_text(json.dumps({"t": "text", "text": "Hi.", "role": who})) for who in _ROLES]),
    "responds": converse(_text('{"t":"respond"}')),
    "says": converse(_text('{"t":"say","text":"Hello."}')),
    "updates": converse(_text('{"t":"update","systemPrompt":"Be brief.","turns":"manual"}')),
    "updates with tools": converse(_text(_UPDATE)),
    "refused updates": converse(_text('{"t":"update","voice":"cedar"}')),
    "small images": converse(_text('{"t":"image","mimeType":"image/png","data":"iVBORw0KGgo="}')),
    "large images": converse(_text(_IMAGE)),
    "broken images": converse(_text('{"t":"image","mimeType":"image/png","data":"?"}')),
    "played": converse(_text('{"t":"played","ms":1240}')),
    "tool results": converse(_text('{"t":"tool_result","id":"c1","result":"12 degrees"}')),
    "readers of lists": read(),
    "readers of lists without a match": read("&provider=none"),
    "readers of one record": read(one=True),
}
"""By name; each runs in a process of its own, against a fresh gateway."""


@contextmanager
def attacking(name: str, endpoint: Endpoint, seconds: float) -> Iterator[Callable[[], Attack]]:
    """Run a scenario during the block; the function that is yielded waits for its end."""
    command = [sys.executable, __file__, "--attack", name, "--seconds", str(seconds)]
    attacker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    attacker.stdin.write(json.dumps(endpoint) + "\n")
    attacker.stdin.flush()

    def result() -> Attack:
        out, _ = attacker.communicate(timeout=60)
        return Attack(**json.loads(out))

    try:
        yield result
    finally:
        attacker.kill()
        attacker.wait(30)
        attacker.stdin.close()
        attacker.stdout.close()


def run(name: str, *, loop: str, way: str, seconds: float) -> Line:
    """Measure the victim during one scenario."""
    with servers.serving(WAYS[way], loop=loop) as endpoint:
        measure_victim(endpoint, seconds=0.2)
        if name not in SCENARIOS:
            return Line(name, measure_victim(endpoint, seconds=seconds), None)
        with attacking(name, endpoint, seconds + 2 * _WARM_UP) as result:
            time.sleep(_WARM_UP)
            latency = measure_victim(endpoint, seconds=seconds)
            return Line(name, latency, result())


QUIET: Final = "no attacker"


def table(lines: list[Line]) -> str:
    """Return the lines as Markdown."""
    rows = [
        "| attacker | p50 ms | p99 ms | max ms | messages a second | its sessions ended with |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, latency, attack in lines:
        how = "" if attack is None else f"{attack.messages / attack.seconds:,.0f}"
        ends = "" if attack is None else f"{attack.sessions} x {'; '.join(attack.ends)}"
        rows.append(
            f"| {name} | {latency.p50:.2f} | {latency.p99:.2f} | {latency.max:.1f} | {how} | {ends} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a hostile client costs its neighbours.")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--way", choices=WAYS, default="transport", help="how sessions reach the gateway")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each scenario (10)")
    parser.add_argument("--database", help="of the gateway: a URL, or memory (a new SQLite file)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SCENARIOS, help="these scenarios")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--attack", metavar="NAME", choices=SCENARIOS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        endpoint = Endpoint(*json.loads(sys.stdin.readline()))
        print(json.dumps(SCENARIOS[options.attack](endpoint, options.seconds)._asdict()))
        return
    if options.database:
        os.environ["BENCH_DATABASE"] = options.database
    lines = []
    for name in (QUIET, *(options.only or SCENARIOS)):
        print(name, file=sys.stderr)
        lines.append(run(name, loop=options.loop, way=options.way, seconds=options.seconds))
    about = versions(("uvicorn", "websockets", "uvloop", "anyio"))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{options.loop}, {options.way}; load {load}\n\n{table(lines)}")
    if options.json:
        found: dict[str, Any] = {
            "versions": about,
            "loop": options.loop,
            "way": options.way,
            "load": os.getloadavg(),
            "lines": {
                name: {**latency._asdict(), "attack": None if attack is None else attack._asdict()}
                for name, latency, attack in lines
            },
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
