"""`/healthz` and `/readyz`: what a load balancer is told, and when."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskStatus

from speko_anyio.gateway import Gateway, MemoryStore, ServerSession, running_gateway
from speko_anyio.gateway._health import SHUTTING_DOWN
from speko_anyio.protocol import Audio, Ready

from .support import make_gateway, mint, raw_client

pytestmark = pytest.mark.anyio


async def get(url: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(url + path)


async def test_a_gateway_that_runs_lives_and_is_ready() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            live, ready = await get(url, "/healthz"), await get(url, "/readyz")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert ready.headers["cache-control"] == "no-store"


async def test_while_it_drains_it_lives_and_is_not_ready_and_sessions_go_on() -> None:
    gateway = make_gateway()
    stop = anyio.Event()

    async def serve(*, task_status: TaskStatus[str]) -> None:
        async with running_gateway(gateway, patience=15) as url:
            task_status.started(url)
            await stop.wait()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            url = await tasks.start(serve)
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert await client.hear() == Ready(24000, 24000, ("usage",))
                stop.set()
                while (answer := await get(url, "/readyz")).status_code == 200:
                    pass
                assert answer.status_code == 503
                assert answer.json() == {"status": "draining", "reason": SHUTTING_DOWN}
                assert (await get(url, "/healthz")).status_code == 200
                client.connection.send_audio(bytes(960))
                await client.flush()
                assert await client.hear() == Audio(bytes(960), 24000)
                client.connection.close()
                await client.flush()
                assert (await client.hear_close()).code == 1000


class BrokenStore(MemoryStore):
    async def sweep(self, *, now: float) -> Any:
        raise RuntimeError("the disk is full")


async def test_a_store_that_fails_makes_it_unready_and_not_dead() -> None:
    async def idle(session: ServerSession) -> None:
        await session.wait_closed()

    gateway = Gateway(handlers={"idle": idle}, api_keys=["k"], store=BrokenStore(), lease=3600)
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url:
            while (answer := await get(url, "/readyz")).status_code == 200:
                pass
            live = await get(url, "/healthz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "failing"
    assert "ending the sessions of lost nodes" in answer.json()["reason"]
    assert "disk" not in answer.text, "what broke is for the log"
    assert live.status_code == 200
