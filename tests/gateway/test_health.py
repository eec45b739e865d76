"""`/healthz` and `/readyz`: what a load balancer is told, and when."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import TaskStatus

from speko_anyio.gateway import Gateway, MemoryStore, ServerSession, running_gateway
from speko_anyio.gateway._health import SHUTTING_DOWN
from speko_anyio.gateway._housekeeping import CHECK_TIMEOUT, REST
from speko_anyio.protocol import Audio, Ready
from tests.support.event_loops import VIRTUAL_EVENT_LOOPS

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


async def virtual_ready(gateway: Gateway) -> int:
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http:
        return (await http.get("/readyz")).status_code


class MoodyStore(MemoryStore):
    """Counts its claims. They hang or fail if the test sets it so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.mood = ""

    async def claim(self, *args: Any, **options: Any) -> Any:
        self.asked.append(anyio.current_time())
        await self._suffer()
        return await super().claim(*args, **options)

    async def sweep(self, *, now: float) -> Any:
        await self._suffer()
        return await super().sweep(now=now)

    async def _suffer(self) -> None:
        if self.mood == "hangs":
            await anyio.sleep_forever()
        if self.mood:
            raise OSError(self.mood)


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
@pytest.mark.parametrize("mood", ["hangs", "no route to host"])
async def test_readiness_is_that_of_the_store_now(mood: str) -> None:
    store = MoodyStore()
    gateway = make_gateway(store=store, lease=3600.0)
    async with gateway.running():
        assert await virtual_ready(gateway) == 200
        store.mood = mood
        begin = anyio.current_time()
        assert await virtual_ready(gateway) == 503
        assert anyio.current_time() - begin <= CHECK_TIMEOUT + REST + 1e-9
        store.mood = ""
        begin = anyio.current_time()
        assert await virtual_ready(gateway) == 200
        assert anyio.current_time() - begin <= REST + 1e-9


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
async def test_what_failed_in_the_last_beat_is_tried_again_by_who_asks() -> None:
    store = MoodyStore()
    store.mood = "no route to host"
    gateway = make_gateway(store=store, lease=3600.0)
    async with gateway.running():
        await anyio.sleep(1)
        assert gateway._housekeeper._failed == ["ending the sessions of lost nodes"]
        store.mood = ""
        assert await virtual_ready(gateway) == 200
        assert gateway._housekeeper._failed == []


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
@pytest.mark.parametrize("mood", ["", "hangs"])
async def test_a_flood_of_questions_costs_the_store_little_and_gets_no_old_answer(mood: str) -> None:
    store = MoodyStore()
    gateway = make_gateway(store=store)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        while True:
            begin = anyio.current_time()
            wrong = await gateway._housekeeper.store_failure()
            assert bool(wrong) == bool(mood)
            # It was asked after the question.
            assert any(begin <= at for at in store.asked)
            answered += 1

    async with gateway.running():
        await anyio.sleep(1)
        store.mood = mood
        store.asked.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(ask)
            await anyio.sleep(10)
            tasks.cancel_scope.cancel()
    assert answered >= 200 * 9
    assert len(store.asked) <= 10 / REST + 1


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
async def test_who_stops_asking_keeps_nobody_from_the_answer() -> None:
    store = MoodyStore()
    gateway = make_gateway(store=store)
    found: list[str | None] = []

    async def ask() -> None:
        found.append(await gateway._housekeeper.store_failure())

    async with gateway.running():
        await anyio.sleep(1)
        store.mood = "hangs"
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(CHECK_TIMEOUT / 2):
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(ask)
                    await anyio.sleep(CHECK_TIMEOUT / 4)
                    tasks.start_soon(ask)
                    store.mood = ""  # for the second; the first hangs
    assert found == [None]
