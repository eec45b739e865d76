"""Errors leave a task group as they are, whoever raised them, and whatever happens around it."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with`

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio._net.tasks import HeldError, TaskGroup, is_exit

pytestmark = pytest.mark.anyio


class Boom(Exception):
    pass


EXITS = [KeyboardInterrupt, SystemExit]


async def fail(error: BaseException) -> None:
    await checkpoint()
    raise error


def logged(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    return [record.exc_info[1] for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("kind", [Boom, *EXITS])
async def test_the_blocks_error_comes_out_and_cancels_the_tasks(kind: type[BaseException]) -> None:
    error = kind()
    cancelled: list[str] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append("task")

    with pytest.raises(kind) as caught:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert cancelled == ["task"]


@pytest.mark.parametrize("kind", [Boom, *EXITS])
async def test_a_tasks_error_comes_out_and_cancels_the_block(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(fail, error)
            await anyio.sleep_forever()
    assert caught.value is error


async def test_a_group_of_the_users_own_is_not_taken_apart() -> None:
    own = ExceptionGroup("the user's", [Boom(), ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(fail, own)
            await anyio.sleep_forever()
    assert caught.value is own


async def test_what_the_tasks_error_made_of_the_block_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    of_block, of_task = Boom("block"), Boom("task")
    with pytest.raises(Boom, match="task"):
        async with TaskGroup("test") as tasks:
            tasks.start_soon(fail, of_task)
            try:
                await anyio.sleep_forever()
            finally:
                raise of_block
    assert logged(caplog) == [of_block]


async def test_the_first_of_two_tasks_errors_comes_out_and_the_other_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = Boom("first"), Boom("second")

    async def fail_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise second

    with pytest.raises(Boom, match="first"):
        async with TaskGroup("test") as tasks:
            tasks.start_soon(fail_when_cancelled)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(fail, first)
            await anyio.sleep_forever()
    assert logged(caplog) == [second]
    assert [record.getMessage() for record in caplog.records] == ["a further failure in test"]


@pytest.mark.parametrize("exit_", EXITS)
async def test_an_exit_of_a_task_takes_precedence_over_everything(exit_: type[BaseException]) -> None:
    async def leave_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise exit_

    with pytest.raises(exit_):
        async with TaskGroup("test") as tasks:
            tasks.start_soon(leave_when_cancelled)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(fail, Boom("task"))
            try:
                await anyio.sleep_forever()
            finally:
                raise Boom("block")


async def test_a_cancellation_from_outside_is_one() -> None:
    with anyio.CancelScope() as scope:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await checkpoint()  # nothing of it is left in this task


async def test_a_cancellation_of_its_own_ends_it_in_silence() -> None:
    async with TaskGroup("test") as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
    await checkpoint()


async def test_a_cancellation_from_outside_does_not_replace_an_error() -> None:
    with pytest.raises(Boom), anyio.CancelScope() as scope:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
            raise Boom
    await checkpoint()


async def test_a_task_that_is_cancelled_with_an_error_under_way_keeps_it() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Boom

    with pytest.raises(Boom), anyio.CancelScope() as scope:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(fail_when_cancelled)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()


async def test_a_block_may_hold_its_error_and_go_on_with_its_tasks() -> None:
    order: list[str] = []
    go = anyio.Event()

    async def work() -> None:
        await go.wait()
        order.append("task")

    with pytest.raises(Boom):
        async with TaskGroup("test") as tasks:
            tasks.start_soon(work)
            with tasks.held:
                raise Boom
            assert isinstance(tasks.held.error, Boom)
            go.set()
            await anyio.wait_all_tasks_blocked()
            order.append("block")
    assert order == ["task", "block"]


@pytest.mark.parametrize("exit_", EXITS)
async def test_an_exit_does_not_stop_to_be_held(exit_: type[BaseException]) -> None:
    with pytest.raises(exit_):
        async with TaskGroup("test") as tasks:
            with tasks.held:
                raise exit_
            raise AssertionError("went on")


async def test_a_task_fails_the_group_from_outside_of_any_task() -> None:
    with pytest.raises(Boom):
        async with TaskGroup("test") as tasks:
            tasks.fail(Boom())
            await anyio.sleep_forever()


@pytest.mark.parametrize("where", ["block", "task"])
async def test_the_error_is_freed_with_its_last_user(where: str) -> None:
    async def run() -> weakref.ref[Boom]:
        try:
            async with TaskGroup("test") as tasks:
                if where == "block":
                    raise Boom
                tasks.start_soon(fail, Boom())
                await anyio.sleep_forever()
        except Boom as error:
            return weakref.ref(error)
        raise AssertionError("nothing was raised")

    left = await run()
    gc.collect()
    assert left() is None


def test_nothing_is_raised_when_nothing_failed(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldError("test")
    with held:
        pass
    assert held.error is None
    held.release()
    assert not logged(caplog)


def test_an_error_is_released_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    held = HeldError("test")
    first, second = Boom(), Boom()
    held.hold(first)
    held.hold(second)
    with pytest.raises(Boom) as caught:
        held.release()
    assert caught.value is first
    held.release()
    assert logged(caplog) == [second]


def test_what_is_an_exit() -> None:
    assert not is_exit(None)
    assert not is_exit(Boom())
    assert is_exit(SystemExit())


async def serve(error: BaseException | None, later: BaseException | None, *, task_status: Any) -> None:
    await checkpoint()
    if error is not None:
        raise error
    task_status.started("port")
    if later is not None:
        await checkpoint()
        raise later
    await anyio.sleep_forever()


async def test_a_task_that_starts_says_so() -> None:
    async with TaskGroup("test") as tasks:
        assert await tasks.start(serve, None, None) == "port"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [Boom, *EXITS])
async def test_an_error_before_the_start_is_for_whoever_starts_it(
    kind: type[BaseException], anyio_backend: tuple[str, object]
) -> None:
    if anyio_backend[0] == "asyncio" and kind in EXITS:
        pytest.skip("asyncio's tasks let exits through, past everybody")
    async with TaskGroup("test") as tasks:
        with pytest.raises(kind):
            await tasks.start(serve, kind(), None)


@pytest.mark.parametrize("kind", [Boom, *EXITS])
async def test_an_error_after_the_start_is_the_groups(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        async with TaskGroup("test") as tasks:
            await tasks.start(serve, None, error)
            await anyio.sleep_forever()
    assert caught.value is error


async def test_a_generator_that_is_closed_in_the_block_closes_without_a_word() -> None:
    closed: list[str] = []

    async def items() -> AsyncGenerator[int, None]:
        async with TaskGroup("test") as tasks:
            tasks.start_soon(anyio.sleep_forever)
            try:
                yield 1
            finally:
                closed.append("block")

    generator = items()
    assert await anext(generator) == 1
    await generator.aclose()
    assert closed == ["block"]


def test_a_preferred_error_takes_the_place_of_another_but_not_of_an_exit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = HeldError("test")
    first, preferred, exit_ = Boom("first"), Boom("preferred"), SystemExit()
    held.hold(first)
    held.hold(preferred, preferred=True)
    seen = [held.error]
    held.hold(exit_)
    held.hold(Boom("what the exit made of it"), preferred=True)
    held.hold(KeyboardInterrupt())
    seen.append(held.error)
    assert seen == [preferred, exit_]
    assert exit_.__context__ is preferred
    assert logged(caplog) == [first]
