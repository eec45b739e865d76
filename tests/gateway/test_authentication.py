"""Keys of the configuration and of the store, on both endpoints, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from speko_anyio.gateway import Gateway, KeyLimits, MemoryStore, StoredKey, echo
from speko_anyio.gateway._api_keys import new_key
from speko_anyio.gateway.store import Scope

from .support import KEY

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.25
BODY = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}


async def stored(store: MemoryStore, *scopes: Scope, **limits: int) -> str:
    """A key that the store knows."""
    key, kept = new_key("test", scopes, KeyLimits(**limits), now=NOW)
    await store.add_key(kept)
    return key


@asynccontextmanager
async def http(store: MemoryStore, key: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    options.setdefault("now", lambda: NOW)
    gateway = Gateway(handlers={"echo": echo}, store=store, **options)
    async with (
        gateway.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=gateway.app),
            base_url="http://gw.test",
            headers={"Authorization": f"Bearer {key}"},
        ) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("scopes", "mints", "reads"),
    [
        (("mint",), 201, 403),
        (("read",), 403, 200),
        (("admin",), 403, 200),
        (("mint", "read"), 201, 200),
    ],
)
async def test_a_key_may_do_what_its_scopes_say(scopes: tuple[Scope, ...], mints: int, reads: int) -> None:
    store = MemoryStore()
    async with http(store, await stored(store, *scopes)) as client:
        minted = await client.post("/v1/sessions", json=BODY)
        read = await client.get("/v1/sessions")
        one = await client.get("/v1/sessions/sess_1")
    assert (minted.status_code, read.status_code) == (mints, reads)
    assert one.status_code == (404 if reads == 200 else 403)
    for refused in (minted, read):
        if refused.status_code == 403:
            assert refused.json()["code"] == "FORBIDDEN"
            assert "scope" in refused.json()["error"]


async def test_the_keys_of_the_configuration_mint_and_read() -> None:
    async with http(MemoryStore(), KEY, api_keys=[KEY]) as client:
        assert (await client.post("/v1/sessions", json=BODY)).status_code == 201
        assert len((await client.get("/v1/sessions")).json()["sessions"]) == 1


async def test_a_record_names_its_key_and_not_the_secret() -> None:
    store = MemoryStore()
    key = await stored(store, "mint", "read")
    async with http(store, key) as client:
        await client.post("/v1/sessions", json=BODY)
        (session,) = (await client.get("/v1/sessions")).json()["sessions"]
    (kept,) = await store.keys()
    assert session["keyId"] == kept.key_id
    assert key not in f"{kept!r} {vars(store)} {session}"


@pytest.mark.parametrize("change", ["revoked", "one character", "another secret", "shape", "unknown"])
async def test_no_other_key_is_taken(change: str) -> None:
    store = MemoryStore()
    key = await stored(store, "mint", "read", "admin")
    (kept,) = await store.keys()
    wrong = {
        "revoked": key,
        "one character": key[:-1] + ("A" if key[-1] != "A" else "B"),
        "another secret": key[:-43] + "A" * 43,
        "shape": key + "A",
        "unknown": new_key("other", ("mint",), KeyLimits(), now=NOW)[0],
    }[change]
    if change == "revoked":
        await store.revoke_key(kept.key_id, now=NOW)
    async with http(store, wrong) as client:
        for response in (await client.post("/v1/sessions", json=BODY), await client.get("/v1/sessions")):
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"


async def test_only_what_has_a_key_s_shape_is_looked_up() -> None:
    asked: list[str] = []

    class Store(MemoryStore):
        async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
            asked.extend(key_ids)
            return await super().find_keys(key_ids)

    async with http(Store(), "sk_0123_x") as client:
        assert (await client.post("/v1/sessions", json=BODY)).status_code == 401
    assert asked == []


@pytest.mark.parametrize(
    ("limits", "retry_after", "message"),
    [
        ({"max_sessions": 1}, "5", "1 sessions at once"),
        ({"mints_per_minute": 1}, "60", "1 sessions a minute"),
        ({"minutes_per_day": 30}, "5", "30 minutes a day"),
    ],
)
async def test_a_limit_is_429_with_retry_after(
    limits: dict[str, int], retry_after: str, message: str
) -> None:
    store = MemoryStore()
    async with http(store, await stored(store, "mint", **limits)) as client:
        assert (await client.post("/v1/sessions", json=BODY)).status_code == 201
        refused = await client.post("/v1/sessions", json=BODY)
    assert refused.status_code == 429
    assert refused.json()["code"] == "RATE_LIMITED"
    assert message in refused.json()["error"]
    assert refused.headers["retry-after"] == retry_after


async def test_a_wait_is_rounded_up_to_whole_seconds() -> None:
    store, time = MemoryStore(), NOW
    async with http(store, await stored(store, "mint", mints_per_minute=1), now=lambda: time) as client:
        await client.post("/v1/sessions", json=BODY)
        time += 59.9
        refused = await client.post("/v1/sessions", json=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        time += 0.1
        assert (await client.post("/v1/sessions", json=BODY)).status_code == 201
