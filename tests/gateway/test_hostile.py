"""Clients that mean harm, over real sockets: each line of ``docs/threat-model.md`` that no other test has."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio.gateway import KeyLimits, MemoryStore, SQLStore, StoredKey, running_gateway
from speko_anyio.gateway._api_keys import new_key
from speko_anyio.gateway._authentication import REST, KeyLookup
from speko_anyio.protocol import Close, ErrorFrame, HandshakeError, Ready

from .support import KEY, RawClient, make_gateway, mint, raw_client, raw_http


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RawClient]:
    grant = await mint(url)
    async with raw_client(grant.ws_url, grant.ws_token) as client:
        assert await client.hear() == Ready(24000, 24000, ("usage",))
        yield client


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_a_head_without_an_end_is_cut_off() -> None:
    filler = b"x-filler: " + b"a" * 8000 + b"\r\n"
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            answer = await raw_http(url, b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\n", *[filler] * 1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_the_head_of_a_websocket_has_the_same_limit() -> None:
    head = b"GET /v1/realtime/x HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    filler = b"x-filler: " + b"a" * 8000 + b"\r\n"
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            answer = await raw_http(url, head, *[filler] * 1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.claims = 0

    async def claim(self, *arguments: Any, **options: Any) -> Any:
        self.claims += 1
        return await super().claim(*arguments, **options)


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("token", ["nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", "a" * 4000])
async def test_a_flood_of_made_up_tokens_never_reaches_the_database(token: str) -> None:
    store = CountingStore()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway(store=store)) as url:
            for _ in range(20):
                async with raw_client(f"{url.replace('http', 'ws')}/v1/realtime/sess_1", token) as client:
                    with pytest.raises(HandshakeError) as caught:
                        await client.hear()
                    assert caught.value.status == 401
                    assert token not in str(caught.value)
    assert store.claims == 0


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_a_flood_of_made_up_keys_costs_few_queries_and_keeps_nobody_out(tmp_path: Path) -> None:
    queries = 0

    class Store(SQLStore):
        async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
            nonlocal queries
            queries += 1
            return await super().find_keys(key_ids)

    async def ask(client: httpx.AsyncClient, key: str) -> int:
        body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
        headers = {"Authorization": f"Bearer {key}"}
        return (await client.post("/v1/sessions", json=body, headers=headers)).status_code

    refused: list[int] = []
    flowing, over = anyio.Event(), anyio.Event()

    async def flood(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            refused.append(await ask(client, new_key("x", ("mint",), KeyLimits(), now=0)[0]))
            if len(refused) >= 100:
                flowing.set()

    store = Store(str(tmp_path / "gateway.db"))
    start = anyio.current_time()
    with anyio.fail_after(30):
        async with (
            running_gateway(make_gateway(store=store)) as url,
            httpx.AsyncClient(base_url=url) as client,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(20):
                tasks.start_soon(flood, client)
            await flowing.wait()
            # One that nobody has seen before.
            key, kept = new_key("right", ("mint",), KeyLimits(), now=0)
            await store.add_key(kept)
            assert await ask(client, key) == 201
            over.set()
        took = anyio.current_time() - start
    assert set(refused) == {401}
    assert queries <= took / REST + 2


@pytest.mark.anyio
async def test_a_right_key_is_in_the_next_query_among_3000_strangers(tmp_path: Path) -> None:
    """On SQLite, where queries have one thread. One for all strangers takes milliseconds, the rest 50."""
    strangers, queries = 3000, list[Collection[str]]()

    class Store(SQLStore):
        async def find_keys(self, key_ids: Collection[str]) -> Sequence[StoredKey]:
            queries.append(key_ids)
            return await super().find_keys(key_ids)

    def make() -> tuple[str, StoredKey]:
        return new_key("x", ("mint",), KeyLimits(), now=0)

    refused = 0
    flowing = anyio.Event()

    async def flood(lookup: KeyLookup, key: str) -> None:
        nonlocal refused
        while True:
            assert await lookup.find(key) is None
            refused += 1
            if refused >= strangers:
                flowing.set()

    async with Store(str(tmp_path / "gateway.db")) as store:
        right = [make() for _ in range(11)]
        for _, kept in right:
            await store.add_key(kept)
        familiar = right[0][0]
        lookup = KeyLookup(store)
        assert await lookup.find(familiar) is not None
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(strangers):
                    tasks.start_soon(flood, lookup, make()[0])
                await flowing.wait()
                for key, kept in right[1:]:
                    before = len(queries)
                    assert await lookup.find(key) == kept
                    assert kept.key_id in queries[before]
                    before = len(queries)
                    assert await lookup.find(familiar) is not None
                    # Its own, at once.
                    assert queries[before] == {right[0][1].key_id}
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("where", ["query", "authorization"])
async def test_a_token_in_the_wrong_place_opens_nothing(where: str) -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url:
            grant = await mint(url)
            address, headers = grant.ws_url, []
            if where == "query":
                address += f"?token={grant.ws_token}"
            else:
                headers.append(("Authorization", f"Bearer {grant.ws_token}"))
            async with raw_client(address, "not-the-token", headers=headers) as client:
                with pytest.raises(HandshakeError, match="401"):
                    await client.hear()
            # It was not used up by that.
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert await client.hear() == Ready(24000, 24000, ("usage",))


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_an_api_key_opens_no_session_and_a_token_mints_none() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, httpx.AsyncClient() as http:
            grant = await mint(url)
            async with raw_client(grant.ws_url, KEY) as client:
                with pytest.raises(HandshakeError, match="401"):
                    await client.hear()
            answer = await http.post(
                f"{url}/v1/sessions", json={}, headers={"Authorization": f"Bearer {grant.ws_token}"}
            )
            assert answer.status_code == 401
            by_query = await http.post(f"{url}/v1/sessions?api_key={KEY}", json={})
            assert by_query.status_code == 401


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_more_sessions_than_a_node_may_have_are_refused_and_room_is_used_again() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway(max_sessions=1)) as url, httpx.AsyncClient() as http:
            spare = await mint(url)
            async with opened(url) as client:
                async with raw_client(spare.ws_url, spare.ws_token) as refused:
                    with pytest.raises(HandshakeError) as caught:
                        await refused.hear()
                    assert caught.value.status == 503
                answer = await http.post(
                    f"{url}/v1/sessions",
                    json={"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}},
                    headers={"Authorization": f"Bearer {KEY}"},
                )
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                client.connection.close()
                await client.flush()
                await client.hear_close()
            while True:  # until the gateway has recorded that end
                async with raw_client(spare.ws_url, spare.ws_token) as again:
                    try:
                        assert await again.hear() == Ready(24000, 24000, ("usage",))
                    except HandshakeError:
                        continue
                    break


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_a_client_that_says_nothing_is_told_and_ended() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway(idle_timeout=0.05)) as url, opened(url) as client:
            frames = await client.hear_all()
    assert frames == [
        ErrorFrame("IDLE_TIMEOUT", "nothing was heard for 0.05 seconds"),
        Close(1008, "idle", "remote"),
    ]


@pytest.mark.anyio
@pytest.mark.usefixtures("both_ways")
async def test_secrets_of_refused_clients_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with anyio.fail_after(20):
        async with running_gateway(make_gateway()) as url, httpx.AsyncClient() as http:
            grant = await mint(url)
            await http.post(f"{url}/v1/sessions", json={}, headers={"Authorization": "Bearer sk_guess_123"})
            for _ in range(2):
                async with raw_client(grant.ws_url, grant.ws_token) as client:
                    try:
                        await client.hear()
                    except HandshakeError:
                        continue
    logged = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("speko_anyio", "uvicorn"))
    )
    for secret in (KEY, "sk_guess_123", grant.ws_token):
        assert secret not in logged
