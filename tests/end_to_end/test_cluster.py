"""Two nodes and PostgreSQL behind nginx, as configured in `deploy/`: one is killed, the other drained."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import anyio.to_thread
import httpx
import pytest

from speko_anyio import Audio, Close, RealtimeSession, Speko
from speko_anyio.gateway import SQLStore
from speko_anyio.gateway.store import SessionHistory, SessionQuery
from speko_anyio.protocol import Ready
from tests.gateway.support import raw_client
from tests.support.cluster import Cluster, missing, running_cluster
from tests.support.patience import PATIENCE

SESSIONS = 6


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if (lacking := missing()) is not None:
        pytest.skip(lacking)
    # A lease that a node renews in time on a busy machine, too.
    with running_cluster(lease_seconds=6.0, drain_seconds=1.0) as running:
        yield running


async def histories(cluster: Cluster) -> list[SessionHistory]:
    async with SQLStore(cluster.database_url) as store:
        return list((await store.sessions(SessionQuery(limit=100), now=time.time())).sessions)


async def swept(cluster: Cluster) -> set[str]:
    """The sessions that are known to have been lost with their node."""
    return {h.record.session_id for h in await histories(cluster) if h.life.closed_by == "sweeper"}


async def echoes(session: RealtimeSession) -> bool:
    """Whether a message comes back; not when the session is over instead."""
    if session.closed is not None:
        return False
    await session.send_audio(bytes(960))
    async for frame in session:
        if isinstance(frame, Audio):
            return True
    return False


async def hold_until_the_end(session: RealtimeSession, ends: list[Close]) -> None:
    ends.extend([frame async for frame in session if isinstance(frame, Close)])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_killed_node_and_a_drained_one_are_told_truthfully(cluster: Cluster) -> None:
    killed, drained = cluster.nodes
    with anyio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            speko = await stack.enter_async_context(Speko(cluster.key, cluster.url))
            sessions = [
                await stack.enter_async_context(speko.realtime.connect(provider="echo", model="echo"))
                for _ in range(SESSIONS)
            ]
            assert all([await echoes(session) for session in sessions])
            nodes = Counter(history.life.node_id for history in await histories(cluster))
            assert len(nodes) == 2, "both have sessions"

            await anyio.to_thread.run_sync(killed.kill)
            while sum(session.closed is not None for session in sessions) < min(nodes.values()):
                await anyio.wait_all_tasks_blocked()
            survivors = [session for session in sessions if session.closed is None]
            dead = [session for session in sessions if session.closed is not None]
            assert [session.closed.code for session in dead if session.closed] == [1006] * len(dead)
            assert all([await echoes(session) for session in survivors])
            # New sessions go to the node that lives.
            async with speko.realtime.connect(provider="echo", model="echo") as fresh:
                assert await echoes(fresh)
            lost = {session.session_id for session in dead}
            while lost != await swept(cluster):
                pass

            drained.drain()
            ends: list[Close] = []
            async with anyio.create_task_group() as tasks:
                for session in survivors:
                    tasks.start_soon(hold_until_the_end, session, ends)
            assert ends == [Close(1012, "the gateway is restarting", "remote")] * len(survivors)
        assert await anyio.to_thread.run_sync(drained.process.wait, PATIENCE) == 0
        known = {history.record.session_id: history.life for history in await histories(cluster)}
    for session in dead:
        life = known[session.session_id]
        assert (life.close_code, life.closed_by) == (1006, "sweeper")
    for session in survivors:
        life = known[session.session_id]
        assert (life.close_code, life.close_reason) == (1012, "the gateway is restarting")
        assert life.outcome.input_audio_seconds == pytest.approx(2 * 960 / 2 / 24_000)
    assert all(life.ended_at is not None for life in known.values())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_while_one_node_lives_every_mint_and_every_opening_succeeds(cluster: Cluster) -> None:
    """Without the retries of our own client: what nginx answers is what counts."""
    statuses: Counter[int] = Counter()
    opened = 0
    body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
    headers = {"Authorization": f"Bearer {cluster.key}"}

    async def mint(http: httpx.AsyncClient) -> httpx.Response:
        answer = await http.post("/v1/sessions", json=body, headers=headers)
        statuses[answer.status_code] += 1
        return answer

    async def mint_often(http: httpx.AsyncClient, times: int) -> None:
        for _ in range(times):
            await mint(http)

    async def mint_and_open(http: httpx.AsyncClient, times: int) -> None:
        nonlocal opened
        for _ in range(times):
            grant = (await mint(http)).json()
            async with raw_client(
                grant["wsUrl"].replace(grant["wsUrl"].split("/v1/")[0], cluster.url.replace("http", "ws")),
                grant["wsToken"],
            ) as client:
                assert isinstance(await client.hear(), Ready)
                opened += 1
                client.connection.close()
                await client.flush()

    with anyio.fail_after(PATIENCE):
        async with httpx.AsyncClient(base_url=cluster.url, timeout=PATIENCE) as http:
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(mint_often, http, 10)
                while statuses[201] < 20:
                    await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(cluster.nodes[0].kill)
            assert statuses == {201: 100}
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(mint_and_open, http, 25)
    assert statuses == {201: 300}
    assert opened == 200


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_not_for_the_public_is_not_passed_on(cluster: Cluster) -> None:
    async with httpx.AsyncClient() as http:
        for path in ("/metrics", "/healthz", "/"):
            assert (await http.get(cluster.url + path)).status_code == 404
        assert (await http.get(f"{cluster.url}/readyz")).status_code == 200
        assert (await http.get(f"{cluster.nodes[0].url}/metrics")).status_code == 200
