"""Every call to a store has a deadline, also in a store of the operator's own. On virtual time."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio.gateway import MemoryStore, SessionStore, StoreError
from speko_anyio.gateway.store import Refused
from speko_anyio.gateway.store._contract import CALL_TIMEOUT
from speko_anyio.gateway.store._deadline import bounded
from speko_anyio.protocol import close_codes
from tests.support.event_loops import VIRTUAL_EVENT_LOOPS

from ..support import KEY, make_gateway, mint_in_memory, stream_scope
from .support import claim, record

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True),
]

CALLS = sorted(
    name
    for name, call in vars(SessionStore).items()
    if inspect.iscoroutinefunction(call) and not name.startswith("_")
)
assert {"create", "claim", "end", "find_keys", "sessions"} <= set(CALLS)


def strange(does: Callable[[], Awaitable[object]]) -> Any:
    """A store that does one thing, whatever it is asked."""

    async def call(*arguments: object, **options: object) -> object:
        return await does()

    return SimpleNamespace(**dict.fromkeys(CALLS, call))


@pytest.mark.parametrize("name", [name for name in CALLS if name != "purge"])
async def test_a_call_that_hangs_ends(name: str) -> None:
    store: Any = bounded(strange(anyio.sleep_forever))
    begin = anyio.current_time()
    with pytest.raises(StoreError, match="did not answer"):
        await getattr(store, name)()
    assert anyio.current_time() - begin == pytest.approx(CALL_TIMEOUT)


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("nobody there"), TimeoutError(), StoreError("away")]
)
async def test_a_store_that_can_not_be_reached_says_so(error: Exception) -> None:
    async def fail() -> None:
        raise error

    store: Any = bounded(strange(fail))
    with pytest.raises(StoreError):
        await store.sweep(now=1)


async def test_other_errors_and_results_pass() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    broken: Any = bounded(strange(fail))
    with pytest.raises(ZeroDivisionError):
        await broken.sweep(now=1)
    store = bounded(MemoryStore())
    assert await store.create(record(1), idempotency=None, now=0) == record(1)
    assert await claim(store, 1) == record(1)
    assert await claim(store, 1) is Refused.USED


class HangingStore(MemoryStore):
    hangs = False

    async def create(self, *args: Any, **options: Any) -> Any:
        return await self._wait(super().create(*args, **options))

    async def claim(self, *args: Any, **options: Any) -> Any:
        return await self._wait(super().claim(*args, **options))

    async def find_keys(self, *args: Any, **options: Any) -> Any:
        return await self._wait(super().find_keys(*args, **options))

    async def _wait(self, call: Awaitable[Any]) -> Any:
        found = await call
        if self.hangs:
            await anyio.sleep_forever()
        return found


async def test_a_mint_that_comes_while_a_look_up_hangs_is_refused_in_time() -> None:
    store = HangingStore()
    gateway = make_gateway(store=store)
    transport = httpx.ASGITransport(app=gateway.app)
    waited: list[float] = []

    async def refused(number: int) -> None:
        begin = anyio.current_time()
        headers = {"Authorization": f"Bearer sk_{number:016x}_" + "A" * 43}
        assert (await http.post("/v1/sessions", json={}, headers=headers)).status_code == 503
        waited.append(anyio.current_time() - begin)

    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test", timeout=60) as http,
        anyio.create_task_group() as tasks,
    ):
        store.hangs = True
        for number in range(20):
            tasks.start_soon(refused, number)
            await anyio.sleep(CALL_TIMEOUT / 10)
    assert len(waited) == 20
    assert max(waited) <= 5


async def test_a_mint_and_an_opening_are_refused_in_time() -> None:
    store = HangingStore()
    gateway = make_gateway(store=store)
    transport = httpx.ASGITransport(app=gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test", timeout=60) as http,
    ):
        grant = await mint_in_memory(gateway)
        store.hangs = True
        body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
        for key in (KEY, "sk_0123456789abcdef_" + "A" * 43):
            begin = anyio.current_time()
            answer = await http.post("/v1/sessions", json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert anyio.current_time() - begin <= 5
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        begin = anyio.current_time()
        await gateway.app(stream_scope(grant["sessionId"], grant["wsToken"]), receive, send)
        assert anyio.current_time() - begin <= 5
    # Without HTTP answers the server has a close code: come again later.
    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == close_codes.TRY_AGAIN_LATER
