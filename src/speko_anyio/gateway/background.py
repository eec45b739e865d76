"""Work beside a block, for as long as the block runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work`, which must not raise, while the block runs; also when that is cancelled and cleans up.

    What the block raises leaves as itself.
    """
    failure: Exception | None = None
    scope = anyio.CancelScope(shield=True)

    async def run() -> None:
        with scope:
            await work()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            try:
                yield
            except Exception as error:  # noqa: BLE001  (raised below: the task group would wrap it)
                failure = error
            finally:
                scope.cancel()
    finally:
        if failure is not None:
            raise failure
