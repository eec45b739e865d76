"""The pool of recogniser processes, with a process that misbehaves on demand."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from speko_anyio.gateway.local import recognizer as module
from speko_anyio.gateway.local.grammar import Grammar
from speko_anyio.gateway.local.recognizer import (
    QUEUE_PER_WORKER,
    Recognizer,
    RecognizerBusyError,
    RecognizerError,
    open_recognizer,
)

pytestmark = pytest.mark.anyio

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
EMPTY = Grammar(())


async def hear(recognizer: Recognizer, order: bytes) -> str:
    return (await recognizer.hear(order, EMPTY)).text


async def until_idle(recognizer: Recognizer, *, expected: bool) -> None:
    while recognizer.idle is not expected:
        await anyio.lowlevel.checkpoint()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_hears_and_its_processes_end_with_it() -> None:
    with anyio.fail_after(30):
        async with open_recognizer(workers=2, command=COMMAND) as recognizer:
            pids = recognizer.pids
            assert len(pids) == 2
            assert all(map(is_running, pids))
            assert await hear(recognizer, b"hello") == "hello"
            assert await hear(recognizer, b"again") == "again"
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("fault", [b"crash", b"garbage", b"huge", b"out of turn"])
async def test_a_faulty_process_is_replaced(fault: bytes) -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            before = recognizer.pids
            with pytest.raises(RecognizerError, match="it is replaced, so try again") as caught:
                await hear(recognizer, fault)
            assert caught.value.code == "RECOGNIZER_FAILED"
            assert await hear(recognizer, b"hello") == "hello"
            assert recognizer.pids.isdisjoint(before)


async def test_a_hanging_process_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            monkeypatch.setattr(module, "HEAR_TIMEOUT", 0.05)
            with pytest.raises(RecognizerError, match=r"gave no answer within 0\.05 s"):
                await hear(recognizer, b"hang")
            monkeypatch.undo()
            assert await hear(recognizer, b"hello") == "hello"


async def test_a_process_that_does_not_start_is_told_without_a_group() -> None:
    with (
        anyio.fail_after(30),
        pytest.raises(RecognizerError, match=r"ended while starting.*speko-anyio\[local\]"),
    ):
        async with open_recognizer(command=(*COMMAND, "does not start")):
            raise AssertionError("entered")


async def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    with anyio.fail_after(30), pytest.raises(KeyError, match="mine"):
        async with open_recognizer(command=COMMAND):
            raise KeyError("mine")


async def test_too_many_utterances_are_refused() -> None:
    refused = 0
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer, anyio.create_task_group() as tasks:
            await until_idle(recognizer, expected=True)
            tasks.start_soon(hear, recognizer, b"hang")
            await until_idle(recognizer, expected=False)
            for _ in range(QUEUE_PER_WORKER):
                tasks.start_soon(hear, recognizer, b"queued")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RecognizerBusyError, match="too much to do") as caught:
                await hear(recognizer, b"one more")
            assert caught.value.code == "OVERLOADED"
            refused += 1
            tasks.cancel_scope.cancel()
    assert refused == 1


async def test_a_cancelled_utterance_does_not_disturb_the_next() -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hear, recognizer, b"first")
                tasks.start_soon(hear, recognizer, b"second")
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert await hear(recognizer, b"third") == "third"


async def test_who_still_waits_at_the_end_is_told() -> None:
    errors: list[RecognizerError] = []

    async def wait(recognizer: Recognizer, order: bytes) -> None:
        try:
            await hear(recognizer, order)
        except RecognizerError as error:
            errors.append(error)

    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(30))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        recognizer = await stack.enter_async_context(open_recognizer(command=COMMAND))
        await until_idle(recognizer, expected=True)
        tasks.start_soon(wait, recognizer, b"hang")
        await until_idle(recognizer, expected=False)
        tasks.start_soon(wait, recognizer, b"queued")
        await anyio.wait_all_tasks_blocked()
    assert [str(error) for error in errors] == ["the gateway is shutting down; connect to another one"] * 2
    with pytest.raises(RecognizerError, match="not running"):
        await hear(recognizer, b"too late")


async def test_no_worker_is_no_recogniser() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        async with open_recognizer(workers=0):
            raise AssertionError("entered")
