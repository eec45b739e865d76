"""Many real-time sessions from one process, as cheaply as Python can: raw sockets and prepared frames.

A load that took as much time as the server would measure itself. This one takes a few µs per message: it
makes no tasks, and parses only what is not an echo of the expected size.
"""

from __future__ import annotations

import base64
import gc
import http.client
import json
import os
import select
import socket
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from client_server import PCM, TOKEN
from gateway_servers import Endpoint

INTERVAL: Final = 0.02  # seconds of audio in a message
_TIMEOUT: Final = 20.0  # seconds for the last messages to come back, and to open a session

_MASK: Final = b"\x12\xab\x34\xcd"
_INDEX_BYTES: Final = 8
_INDEX_MASK: Final = int.from_bytes(_MASK * 2)
_REST: Final = PCM[_INDEX_BYTES:]
"""Each message is its index and these bytes, so that a lost, swapped or changed one is noticed."""

_HEAD: Final = b"\x82\xfe" + len(PCM).to_bytes(2) + _MASK
_MASKED_REST: Final = bytes(octet ^ _MASK[index % 4] for index, octet in enumerate(_REST))
_ECHO_HEAD: Final = b"\x82\x7e" + len(PCM).to_bytes(2)
_ECHO_SIZE: Final = len(_ECHO_HEAD) + len(PCM)

_CLOSE: Final = b"\x88\x82" + _MASK + bytes((0x03 ^ _MASK[0], 0xE8 ^ _MASK[1]))
_PING: Final = 9
_BINARY: Final = 2
_CLOSED: Final = 8


class LoadError(Exception):
    """The server did not do what the load expects: the measurement is void."""


class Window(NamedTuple):
    """What was measured while the load ran."""

    messages: int
    """Messages that came back."""
    cpu: float
    """Seconds of the server's CPU."""
    latencies: array[float]
    """Seconds there and back, of each message."""
    behind: float
    """Seconds that the load itself was late with a message, at worst."""


class _Session:
    """One open WebSocket."""

    __slots__ = ("_audio", "_data", "_expected", "_sent", "_sent_at", "fileno", "sock")

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self.sock = sock
        self.fileno = sock.fileno()
        self._data = data
        self._audio = b""
        self._sent = 0
        self._expected = 0
        self._sent_at = array("d", bytes(8 * 256))

    def send(self) -> None:
        """Send the next message."""
        index = self._sent
        data = _HEAD + (index ^ _INDEX_MASK).to_bytes(_INDEX_BYTES) + _MASKED_REST
        self._sent = index + 1
        self._sent_at[index & 255] = time.perf_counter()
        if self.sock.send(data) != len(data):
            raise LoadError("the server does not read as fast as people talk")

    def receive(self, now: float, latencies: array[float]) -> int:
        """Read what has come; return how many messages that completes, and append their latencies."""
        data = self.sock.recv(65_536)
        if not data:
            raise LoadError("the server hung up")
        if len(data) == _ECHO_SIZE and not self._data and not self._audio and data.startswith(_ECHO_HEAD):
            self._check(data[4:], now, latencies)
            return 1
        self._data += data
        self._parse()
        return self._take(now, latencies)

    def _parse(self) -> None:
        """Move the payload of whole frames to `_audio`, and answer pings."""
        data, at = self._data, 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if len(data) < start + size:
                break
            kind, payload = data[at] & 15, data[start : start + size]
            at = start + size
            if kind == _BINARY:
                self._audio += payload
            elif kind == _PING:
                masked = bytes(octet ^ _MASK[index % 4] for index, octet in enumerate(payload))
                self.sock.send(bytes((0x8A, 0x80 | size)) + _MASK + masked)
            elif kind == _CLOSED:
                raise LoadError(f"the server closed a session: {payload[2:].decode()}")
        self._data = data[at:]

    def _take(self, now: float, latencies: array[float]) -> int:
        audio = self._audio
        whole = len(audio) // len(PCM)
        for number in range(whole):
            self._check(audio[number * len(PCM) : (number + 1) * len(PCM)], now, latencies)
        self._audio = audio[whole * len(PCM) :]
        return whole

    def _check(self, pcm: bytes, now: float, latencies: array[float]) -> None:
        index = self._expected
        if int.from_bytes(pcm[:_INDEX_BYTES]) != index or pcm[_INDEX_BYTES:] != _REST:
            raise LoadError("a message was lost, swapped or changed")
        self._expected = index + 1
        latencies.append(now - self._sent_at[index & 255])

    def close(self) -> None:
        """Say goodbye and wait until the server hangs up."""
        self.sock.settimeout(_TIMEOUT)
        try:
            self.sock.sendall(_CLOSE)
            while self.sock.recv(65_536):
                pass
        except ConnectionError:
            pass  # a server may reset what it has closed
        finally:
            self.sock.close()


class Load:
    """The sessions with one server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._address = endpoint.url.removeprefix("http://")
        self._mint = None if endpoint.key is None else http.client.HTTPConnection(self._address)
        self._sessions: list[_Session] = []
        self._by_number: dict[int, _Session] = {}
        # Made before any session's socket: select(2) takes only small numbers.
        self._poll = select.epoll()

    def open(self, count: int) -> None:
        """Open sessions, one after the other, until there are `count`."""
        while len(self._sessions) < count:
            session = self._open()
            self._sessions.append(session)
            self._by_number[session.fileno] = session
            self._poll.register(session.fileno, select.EPOLLIN)
        if self._mint is not None:
            self._mint.close()  # the next request connects again

    def close(self) -> None:
        """Close all sessions; more may be opened afterwards."""
        for session in self._sessions:
            self._poll.unregister(session.fileno)
            session.close()
        self._sessions.clear()
        self._by_number.clear()

    def _open(self) -> _Session:
        path, token = ("/echo", TOKEN) if self._mint is None else self._minted(self._mint)
        host, _, port = self._address.partition(":")
        sock = socket.create_connection((host, int(port)), _TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {self._address}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {token}",
        )
        sock.sendall("\r\n".join((*lines, "", "")).encode())
        data = b""
        while b"\r\n\r\n" not in data or b'"ready"' not in data:
            read = sock.recv(65_536)
            if not read:
                raise LoadError(f"{self._endpoint.name} opened no session: {data!r}")
            data += read
        sock.setblocking(False)
        session = _Session(sock, data.partition(b"\r\n\r\n")[2])
        session._parse()
        return session

    def _minted(self, mint: http.client.HTTPConnection) -> tuple[str, str]:
        """Return the path of a new session's WebSocket, and its token."""
        body = json.dumps({"mode": "s2s", "s2s": {"provider": "echo", "model": "echo"}})
        headers = {"Authorization": f"Bearer {self._endpoint.key}", "Content-Type": "application/json"}
        mint.request("POST", "/v1/sessions", body, headers)
        response = mint.getresponse()
        answer = json.loads(response.read())
        if response.status != 201:
            raise LoadError(f"the mint refused: {answer}")
        return answer["wsUrl"].removeprefix(f"ws://{self._address}"), answer["wsToken"]

    def run(
        self, seconds: float, *, settling: float = 0.0, interval: float = INTERVAL, spinning: bool = False
    ) -> Window:
        """Let every session send a message each `interval` and measure what comes back.

        The moments of the sessions are spread evenly over the interval, like those of independent callers.
        The first `settling` seconds are not measured. `spinning`, the load never sleeps, so that the server
        does not pay for waking it up, as it would not on another machine.
        """
        latencies = array("d")
        with _paused_collector():
            self._exchange(round(settling / interval), interval, latencies, spinning)
            del latencies[:]
            before = self._endpoint.cpu_seconds()
            behind = self._exchange(round(seconds / interval), interval, latencies, spinning)
            cpu = self._endpoint.cpu_seconds() - before
        return Window(len(latencies), cpu, latencies, behind)

    def _exchange(self, turns: int, interval: float, latencies: array[float], spinning: bool) -> float:
        """Send `turns` messages in each session and receive them; return by how much the load was late."""
        sessions, by_number, poll = self._sessions, self._by_number, self._poll
        count, total = len(sessions), turns * len(sessions)
        gap = interval / count
        clock, only = time.perf_counter, [poll.fileno()]
        sent = received = 0
        worst = 0.0
        start = clock()
        while received < total:
            now = clock()
            while sent < total and (late := now - start - sent * gap) >= 0:
                worst = max(worst, late)
                sessions[sent % count].send()
                sent += 1
            if sent == total and now > start + total * gap + _TIMEOUT:
                raise LoadError(f"{self._endpoint.name}: {total - received} messages did not come back")
            if not spinning:
                # select(2) waits to the µs, epoll_wait(2) to the ms only.
                wait = start + sent * gap - clock() if sent < total else _TIMEOUT
                select.select(only, (), (), max(0.0, wait))
            for number, _ in poll.poll(0):
                received += by_number[number].receive(clock(), latencies)
        return worst


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Collect no garbage: nothing here makes cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def short_sessions(endpoint: Endpoint, count: int, *, every: int) -> list[int]:
    """Open, use and close `count` sessions, ten at a time; return the resident bytes after each `every`."""
    at_once = 10
    found: list[int] = []
    load = Load(endpoint)
    for done in range(at_once, count + 1, at_once):
        load.open(at_once)
        load.run(0.05, interval=0.01)
        load.close()
        if done % every == 0:
            found.append(endpoint.resident_bytes())
    return found
