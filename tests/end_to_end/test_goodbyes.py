"""What the gateway records of a client that was cancelled."""

from __future__ import annotations

import threading

import anyio
import anyio.to_thread
import pytest

from speko_anyio import Ready, Speko
from speko_anyio.gateway import Gateway, MemoryStore, ServerSession, running_gateway

pytestmark = pytest.mark.anyio

KEY = "sk_goodbyes_0123"


class Listens:
    """Sends nothing: a write that fails because the client is gone can end the connection before its goodbye
    is read."""

    def __init__(self) -> None:
        self.over = threading.Event()  # of any thread: with trio the gateway runs in one of its own

    async def __call__(self, session: ServerSession) -> None:
        async for _ in session:
            pass
        self.over.set()


async def test_a_cancelled_session_is_recorded_as_the_clients_end_and_not_as_a_lost_network() -> None:
    store = MemoryStore()
    handler = Listens()
    with anyio.fail_after(20):
        async with running_gateway(
            Gateway(handlers={"listens": handler}, api_keys=[KEY], store=store)
        ) as url:
            async with Speko(KEY, url) as speko:
                grant = await speko.realtime.create_session(provider="listens", model="any")
                with anyio.CancelScope() as scope:
                    async with speko.realtime.open(grant) as session:
                        assert isinstance(await session.receive(), Ready)
                        await session.send_audio(bytes(960))
                        scope.cancel()
                        await anyio.sleep_forever()
            # A gateway that stops says goodbye too, and would then be the first.
            assert await anyio.to_thread.run_sync(handler.over.wait, 10)
        # Before it stops, it lets the handlers finish.
        history = await store.get(grant.session_id)
    assert history is not None
    life = history.life
    assert (life.close_code, life.close_reason, life.closed_by) == (1001, "client_cancelled", "client")
