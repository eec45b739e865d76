"""Sessions whose clients are silent, in virtual time: the gateway's own application, without a server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from speko_anyio.gateway import Gateway, Handler, ServerSession
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend

from .support import make_gateway, mint_in_memory, stream_scope

IDLE = 60.0


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Peer:
    """The ASGI server and the client behind it; `takes` is whether that takes what it is sent."""

    def __init__(self) -> None:
        self._to_app, self._incoming = anyio.create_memory_object_stream[dict[str, Any]](1000)
        self.sent: list[Any] = []
        self.takes = True

    def say(self, message: dict[str, Any]) -> None:
        self._to_app.send_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.receive()

    async def send(self, message: Any) -> None:
        if not self.takes and message["type"] == "websocket.send":
            await anyio.sleep_forever()
        self.sent.append(message)
        if message["type"] == "websocket.close":
            await anyio.sleep(0.5)
            self.say({"type": "websocket.disconnect", "code": message["code"], "reason": ""})

    def stop(self) -> None:
        self._to_app.close()
        self._incoming.close()


@asynccontextmanager
async def connected(gateway: Gateway, provider: str) -> AsyncIterator[tuple[Peer, anyio.Event]]:
    """A session, and the event of its end."""
    peer, over = Peer(), anyio.Event()

    async def serve(scope: dict[str, Any]) -> None:
        await gateway.app(scope, peer.receive, peer.send)
        over.set()

    peer.say({"type": "websocket.connect"})
    try:
        async with gateway.running(), anyio.create_task_group() as tasks:
            grant = await mint_in_memory(gateway, provider)
            tasks.start_soon(serve, stream_scope(grant["sessionId"], grant["wsToken"]))
            yield peer, over
            tasks.cancel_scope.cancel()
    finally:
        peer.stop()


async def floods(session: ServerSession) -> None:
    while True:
        await session.send_audio(bytes(4800))
        await anyio.sleep(0.1)


async def floods_and_fails(session: ServerSession) -> None:
    with anyio.move_on_after(10):
        await floods(session)
    raise RuntimeError("on purpose")


@pytest.mark.anyio
async def test_a_client_that_speaks_is_not_idle() -> None:
    with anyio.fail_after(3600):
        async with connected(make_gateway(idle_timeout=IDLE), "echo") as (peer, over):
            for _ in range(10):
                await anyio.sleep(IDLE - 1)
                peer.say({"type": "websocket.receive", "bytes": bytes(960)})
            assert not over.is_set()
            await over.wait()
    assert peer.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "idle"}


@pytest.mark.parametrize("handler", [floods, floods_and_fails])
@pytest.mark.anyio
async def test_a_client_that_takes_nothing_does_not_keep_its_session_by_that(handler: Handler) -> None:
    gateway = make_gateway({"flood": handler}, idle_timeout=IDLE)
    with anyio.fail_after(3 * IDLE):  # far less than the session's own time
        async with connected(gateway, "flood") as (peer, over):
            peer.takes = False
            await over.wait()


@pytest.mark.anyio
async def test_a_handler_that_speaks_while_its_session_is_closed_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = make_gateway({"flood": floods}, idle_timeout=IDLE)
    with anyio.fail_after(3 * IDLE):
        async with connected(gateway, "flood") as (_, over):
            await over.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
