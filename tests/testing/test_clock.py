"""Virtual time: it jumps when nothing can happen, and only then."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest

from speko_anyio.testing import VIRTUAL_BACKENDS, virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def test_a_day_passes_at_once_and_to_the_second() -> None:
    start = anyio.current_time()
    await anyio.sleep(86_400)
    assert anyio.current_time() - start == 86_400


async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    woken: list[tuple[float, float]] = []
    start = anyio.current_time()

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, anyio.current_time() - start))

    async with anyio.create_task_group() as tasks:
        for seconds in (30.0, 10.0, 20.0):
            tasks.start_soon(sleeper, seconds)
    assert woken == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


async def test_time_stands_still_while_anything_runs() -> None:
    start = anyio.current_time()
    with anyio.move_on_after(1.0) as scope:
        for _ in range(1_000):
            await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught
    assert anyio.current_time() == start


async def test_a_deadline_of_a_wait_for_nothing_comes() -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(3_600):
            await anyio.Event().wait()


def test_it_stands_alone_too() -> None:
    async def main() -> float:
        start = anyio.current_time()
        await anyio.sleep(60)
        return anyio.current_time() - start

    for name in VIRTUAL_BACKENDS:
        backend, options = virtual_backend(name)
        assert anyio.run(main, backend=backend, backend_options=options) == 60


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no socket pair readers there")
def test_asyncio_s_sockets_still_work() -> None:
    import asyncio
    import socket

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            for end in (here, there):
                end.setblocking(False)
            await loop.sock_sendall(here, b"hello")
            return await loop.sock_recv(there, 100)

    backend, options = virtual_backend("asyncio")
    assert anyio.run(main, backend=backend, backend_options=options) == b"hello"
