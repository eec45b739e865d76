"""Cancels a session at each of its awaits in turn, and checks that it has ended each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import ConnectionClosed, RealtimeSession, RemoteProtocolError, open_session
from speko_anyio.testing.server import FakeServer, grant

_MAX_TURNS = 200
"""Turns of the event loop after which a body that has not completed never will."""


async def cancel_at_each_await(
    make_server: Callable[[], FakeServer],
    body: Callable[[RealtimeSession, FakeServer], Awaitable[object]],
    afterwards: Callable[[RealtimeSession], Awaitable[object]],
    *,
    at_turn: Callable[[int, FakeServer], None] = lambda turn, server: None,
    **options: Any,
) -> int:
    """Run `body` in a session that is cancelled after 0, 1, 2, ... turns of the event loop.

    `at_turn` is called in each turn. Each time the session must be closed with nothing left running, and
    `afterwards` must raise its end. Return after how many turns the body completed.
    """
    completed = False
    turns = 0
    while not completed:
        assert turns < _MAX_TURNS, "it never completes"
        server = make_server()
        sessions: list[RealtimeSession] = []
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                scope = anyio.CancelScope()

                async def run(
                    scope: anyio.CancelScope, server: FakeServer, sessions: list[RealtimeSession]
                ) -> None:
                    nonlocal completed
                    with scope:
                        async with open_session(grant(), stream=server.stream, **options) as session:
                            sessions.append(session)
                            await body(session, server)
                        completed = True

                tasks.start_soon(run, scope, server, sessions)
                for turn in range(turns):
                    await checkpoint()
                    at_turn(turn, server)
                scope.cancel()
        assert server.stream.closed or not server.stream.sends
        for session in sessions:
            assert session.closed is not None
            assert session._lifetime.running == 0
            with pytest.raises((ConnectionClosed, RemoteProtocolError)):
                await afterwards(session)
        turns += 1
    return turns
