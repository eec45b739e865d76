"""The shipped configuration of nginx before two nodes that fail in every way that a proxy sees."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.support.cluster import missing_nginx, running_nginx
from tests.support.patience import PATIENCE

BODY = b'{"mode":"s2s"}'


class Node:
    """Answers as a node does, or fails."""

    def __init__(self) -> None:
        self.closes_idle = False
        """Whether an idle connection is closed, always just when another request is on its way."""
        self.full_at = 0
        """Every so many requests it is full; 0: never."""
        self.asked = 0
        self.url = ""
        self._listener: anyio.abc.SocketListener
        self._tasks: anyio.abc.TaskGroup

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = (await anyio.create_tcp_listener(local_host="127.0.0.1")).listeners[0]
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = f"http://127.0.0.1:{port}"
        async with listener, anyio.create_task_group() as self._tasks:
            task_status.started()
            await listener.serve(self._connection)

    def kill(self) -> None:
        """As kill -9: connections are reset, and new ones refused."""
        self._tasks.cancel_scope.cancel()

    async def _connection(self, stream: anyio.abc.SocketStream) -> None:
        answered = 0
        async with stream:
            while True:
                request = b""
                while not request.endswith((BODY, b"\r\n\r\n")):
                    try:
                        request += await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        return
                if answered and self.closes_idle:
                    return
                answered += 1
                self.asked += 1
                full = self.full_at and self.asked % self.full_at == 0
                status = b"503 Service Unavailable" if full else b"201 Created"
                await stream.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{}")


class Proxied:
    """nginx before two nodes; all but nginx runs in an event loop in a thread."""

    def __init__(self, url: str, nodes: list[Node], portal: BlockingPortal) -> None:
        self.url = url
        self.nodes = nodes
        self._portal = portal

    def kill(self, node: Node) -> None:
        self._portal.call(node.kill)

    def mint(self, rounds: int) -> Counter[int]:
        """Mint four times at once in each round, and count the answers by their status."""
        return self._portal.call(self._mint, rounds)

    async def _mint(self, rounds: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE) as http:

            async def one() -> None:
                statuses[(await http.post("/v1/sessions", content=BODY)).status_code] += 1

            for _ in range(rounds):
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(one)
        return statuses


@pytest.fixture
def proxied() -> Iterator[Proxied]:
    with proxied_nodes() as running:
        yield running


@contextmanager
def proxied_nodes() -> Iterator[Proxied]:
    if (lacking := missing_nginx()) is not None:
        pytest.skip(lacking)
    nodes = [Node(), Node()]
    with tempfile.TemporaryDirectory() as folder, start_blocking_portal() as portal:
        futures = [portal.start_task(node.run)[0] for node in nodes]
        with running_nginx(Path(folder), [node.url for node in nodes]) as url:
            proxied = Proxied(url, nodes, portal)
            yield proxied
        for node in nodes:
            proxied.kill(node)
        for future in futures:
            future.result(PATIENCE)


@pytest.mark.parametrize("dead", [False, True])
def test_nodes_that_close_idle_connections_do_not_count_as_failed(dead: bool, proxied: Proxied) -> None:
    for node in proxied.nodes:
        node.closes_idle = True
    assert proxied.mint(10) == {201: 40}
    if dead:
        proxied.kill(proxied.nodes[0])
    assert proxied.mint(20) == {201: 80}


def test_a_node_that_was_full_once_is_asked_again_when_the_other_one_is_dead(proxied: Proxied) -> None:
    living = proxied.nodes[1]
    assert proxied.mint(5) == {201: 20}
    proxied.kill(proxied.nodes[0])
    living.full_at = 20
    statuses = proxied.mint(40)
    assert statuses[201] >= 140
    assert statuses.keys() <= {201, 503}


def test_a_full_node_s_requests_go_to_the_other(proxied: Proxied) -> None:
    proxied.nodes[0].full_at = 1
    assert proxied.mint(20) == {201: 80}


def test_without_any_node_clients_get_the_documented_error(proxied: Proxied) -> None:
    for node in proxied.nodes:
        proxied.kill(node)
    for _ in range(3):
        answer = httpx.post(f"{proxied.url}/v1/sessions", content=BODY, timeout=PATIENCE)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {
            "error": "no node of the gateway can serve this now; try again",
            "code": "SESSION_CREATE_FAILED",
        }


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_that_does_not_come_is_cut() -> None:
    """nginx waits 10 seconds for a head, and as long for each piece of a body."""
    answers: list[bytes] = []

    async def ask(url: str, part: bytes) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        assert where.port is not None
        async with await anyio.connect_tcp(where.hostname, where.port) as stream:
            await stream.send(part)
            try:
                answers.append(await stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                answers.append(b"")

    head = b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\n"
    with proxied_nodes() as proxied, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, proxied.url, head)
            tasks.start_soon(ask, proxied.url, head + b"content-length: 100\r\n\r\n{")
        assert sum(node.asked for node in proxied.nodes) <= 1, "only whether they are ready"
    assert all(answer == b"" or answer.startswith(b"HTTP/1.1 408") for answer in answers)
