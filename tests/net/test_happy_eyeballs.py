"""Which of a host's addresses is connected to, and when the next is tried; no socket is connected."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio._net.happy_eyeballs import connect_socket
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend

pytestmark = pytest.mark.anyio

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Network:
    """A host with addresses, of which each does something when it is connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **addresses: Callable[[], Awaitable[None]]) -> None:
        self.addresses = addresses
        self.tried: list[tuple[str, float]] = []
        self.sockets: list[socket.socket] = []
        monkeypatch.setattr(anyio, "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **options: object) -> list[Any]:
        await checkpoint()
        return [(V6 if name.startswith("v6") else V4, None, None, None, (name,)) for name in self.addresses]

    async def connect(self, candidate: socket.socket, where: tuple[str]) -> None:
        self.sockets.append(candidate)
        self.tried.append((where[0], round(anyio.current_time() - self.start, 6)))
        await self.addresses[where[0]]()

    async def connect_socket(self) -> socket.socket:
        self.start = anyio.current_time()
        with anyio.fail_after(60):
            return await connect_socket("speko.test", 80, connect=self.connect)

    def open_sockets(self) -> list[socket.socket]:
        return [candidate for candidate in self.sockets if candidate.fileno() != -1]


async def answers() -> None:
    await checkpoint()


async def answers_late() -> None:
    await anyio.sleep(1)


async def refuses() -> None:
    await checkpoint()
    raise ConnectionRefusedError(111, "refused")


async def is_unreachable() -> None:
    await checkpoint()
    raise OSError(101, "unreachable")


async def test_the_first_address_that_answers_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, v6_a=answers, v4_a=answers)
    with await network.connect_socket() as connected:
        assert network.tried == [("v6_a", 0.0)]
        assert network.open_sockets() == [connected]
        assert connected.family == V6
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", V4), ("::1", V6)])
async def test_a_number_is_not_looked_up(
    host: str, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(candidate: socket.socket, where: tuple[str, int]) -> None:
        await checkpoint()
        tried.append(where[:2])

    tried: list[tuple[str, int]] = []
    Network(monkeypatch)  # one that knows no address
    with await connect_socket(host, 80, connect=connect) as connected:
        assert tried == [(host, 80)]
        assert connected.family == family


async def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, v6_a=refuses, v6_b=refuses, v6_c=answers, v4_a=refuses)
    with await network.connect_socket():
        assert [name for name, _ in network.tried] == ["v6_a", "v4_a", "v6_b", "v6_c"]


async def test_the_next_is_tried_beside_one_that_is_slow_and_at_once_after_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(monkeypatch, v6_a=anyio.sleep_forever, v4_a=refuses, v6_b=answers)
    with await network.connect_socket() as connected:
        assert network.tried == [("v6_a", 0.0), ("v4_a", 0.25), ("v6_b", 0.25)]
        assert network.open_sockets() == [connected]


async def test_a_slow_address_may_still_win(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, v6_a=answers_late, v4_a=anyio.sleep_forever)
    with await network.connect_socket() as connected:
        assert connected.family == V6
        assert network.open_sockets() == [connected]


async def test_the_error_of_the_only_address_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, v4_a=refuses)
    with pytest.raises(ConnectionRefusedError):
        await network.connect_socket()
    assert network.open_sockets() == []


async def test_of_several_errors_each_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, v6_a=refuses, v4_a=is_unreachable)
    with pytest.raises(OSError, match="no address") as caught:
        await network.connect_socket()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert [type(error) for error in caught.value.__cause__.exceptions] == [ConnectionRefusedError, OSError]
    assert network.open_sockets() == []


@pytest.mark.parametrize("names", [["v4_a"], ["v6_a", "v4_a"]])
async def test_cancelled_it_leaves_nothing_open(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, **dict.fromkeys(names, anyio.sleep_forever))
    with anyio.move_on_after(10) as scope:
        await network.connect_socket()
    assert scope.cancelled_caught
    assert len(network.sockets) == len(names)
    assert network.open_sockets() == []


async def test_cancelled_when_one_has_just_won_it_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answers_and_cancels() -> None:
        scope.cancel()

    network = Network(monkeypatch, v6_a=answers_and_cancels, v4_a=anyio.sleep_forever)
    with anyio.CancelScope() as scope:
        await network.connect_socket()
    assert scope.cancelled_caught
    assert len(network.sockets) == 1
    assert network.open_sockets() == []


async def test_the_error_of_a_name_that_there_is_not_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **options: object) -> list[Any]:
        await checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    network = Network(monkeypatch)
    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror):
        await network.connect_socket()
