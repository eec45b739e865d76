"""Waking a task from another thread."""

from __future__ import annotations

import socket

import anyio
import pytest

from speko_anyio.audio._thread_signal import ThreadSignal
from tests.support.sound import in_thread

pytestmark = pytest.mark.anyio


async def test_what_was_set_before_the_wait_counts_once() -> None:
    signal = ThreadSignal()
    with anyio.fail_after(5):
        for _ in range(3):
            in_thread(signal.set)
        await signal.wait()
    with anyio.move_on_after(0.01) as scope:
        await signal.wait()
    assert scope.cancelled_caught
    signal.close()


async def test_a_waiting_task_is_woken_by_a_thread_and_by_the_close() -> None:
    signal = ThreadSignal()
    woken: list[str] = []

    async def wait() -> None:
        await signal.wait()
        woken.append("set")
        try:
            await signal.wait()
        except anyio.ClosedResourceError:
            woken.append("closed")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            in_thread(signal.set)
            while not woken:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            signal.close()
    assert woken == ["set", "closed"]


async def test_a_flood_never_blocks_and_nothing_happens_after_the_close() -> None:
    signal = ThreadSignal()

    def flood() -> None:
        for _ in range(100_000):
            signal.set()

    in_thread(flood)
    signal.close()
    signal.close()
    in_thread(signal.set)
    with pytest.raises(anyio.ClosedResourceError):
        await signal.wait()


async def test_a_close_right_behind_the_set_is_the_end_and_no_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal = ThreadSignal()
    wait_readable = anyio.wait_readable

    async def wait_and_close(sock: socket.socket) -> None:
        await wait_readable(sock)
        signal.close()

    monkeypatch.setattr(anyio, "wait_readable", wait_and_close)
    in_thread(signal.set)
    with anyio.fail_after(5), pytest.raises(anyio.ClosedResourceError):
        await signal.wait()
