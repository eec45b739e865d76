"""Work beside a block, for as long as the block runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from speko_anyio.net.groups import TaskGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@asynccontextmanager
async def background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work`, which must not raise, while the block runs; also when that is cancelled and cleans up.

    What the block raises leaves as itself.
    """
    scope = anyio.CancelScope(shield=True)

    async def run() -> None:
        with scope:
            await work()

    async with TaskGroup("the gateway") as tasks:
        tasks.start_soon(run)
        try:
            yield
        finally:
            scope.cancel()
