"""Several nodes on one database: any serves any token, once; what a lost one leaves behind is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from speko_anyio.gateway import Gateway, ServerSession, SQLStore, echo, running_gateway
from speko_anyio.protocol import Audio, Close, HandshakeError, Ready, ToolCall, Transcript, Usage
from tests.support.patience import PATIENCE
from tests.support.processes import running

from .support import KEY, mint, raw_client

pytestmark = pytest.mark.anyio

SECRET = "s" * 32
HEADERS = {"Authorization": f"Bearer {KEY}"}


def gateway_on(database_url: str, **options: Any) -> Gateway:
    options.setdefault("handlers", {"echo": echo})
    return Gateway(api_keys=[KEY], secret=SECRET, store=SQLStore(database_url), **options)


@asynccontextmanager
async def two_nodes(database_url: str) -> AsyncIterator[tuple[str, str]]:
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(running_gateway(gateway_on(database_url))) for _ in range(2)
        ]
        yield first, second


def at(url: str, ws_url: str) -> str:
    """The session's address on another node."""
    return f"{url.replace('http', 'ws')}/v1/{ws_url.partition('/v1/')[2]}"


async def record_of(url: str, session_id: str) -> dict[str, Any]:
    async with httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.get(f"{url}/v1/sessions/{session_id}")
    assert response.status_code == 200
    known: dict[str, Any] = response.json()
    return known


async def ended(url: str, session_id: str) -> dict[str, Any]:
    """The record, once it says how the session ended."""
    with anyio.fail_after(20):
        while (known := await record_of(url, session_id))["status"] != "ended":
            await anyio.lowlevel.checkpoint()
    return known


async def test_any_node_serves_any_token_once(database_url: str) -> None:
    async with two_nodes(database_url) as (first, second):
        grant = await mint(first)
        async with raw_client(at(second, grant.ws_url), grant.ws_token) as client:
            assert await client.hear() == Ready(24000, 24000, ("usage",))
            assert (await record_of(first, grant.session_id))["status"] == "live"
            for node in (first, second):
                async with raw_client(at(node, grant.ws_url), grant.ws_token) as late:
                    with pytest.raises(HandshakeError, match="used before"):
                        await late.hear()


async def test_a_mint_is_repeatable_on_another_node(database_url: str) -> None:
    body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
    async with two_nodes(database_url) as nodes, httpx.AsyncClient() as client:
        grants = [
            (
                await client.post(
                    f"{node}/v1/sessions", json=body, headers={**HEADERS, "Idempotency-Key": "again"}
                )
            ).json()
            for node in nodes
        ]
    assert grants[0]["sessionId"] == grants[1]["sessionId"]
    assert grants[0]["wsToken"] == grants[1]["wsToken"]


async def talkative(session: ServerSession) -> None:
    """Answers the first turn with a word, a tool call and audio."""
    async for _ in session:
        if session.meter.asked_at is not None:
            break
    await session.send_transcript("user", "what's new", final=True)
    await session.send_transcript("assistant", "not", final=False)
    await session.send_tool_call("c1", "look", "{}")
    await session.send_audio(bytes(4800))
    await session.send_transcript("assistant", "nothing", final=True)
    await session.send_usage(3, 4)
    async for _ in session:
        pass


@pytest.mark.parametrize("retention", [None, 3600.0])
async def test_what_a_session_used_is_on_its_record(database_url: str, retention: float | None) -> None:
    gateway = gateway_on(database_url, handlers={"echo": talkative}, transcript_retention=retention)
    async with running_gateway(gateway) as url:
        grant = await mint(url, metadata={"call": 7}, ttlSeconds=120)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
            client.connection.send_audio(bytes(24_000))
            client.connection.commit()
            await client.flush()
            kinds = [type(await client.hear()) for _ in range(6)]
            assert kinds == [Transcript, Transcript, ToolCall, Audio, Transcript, Usage]
            client.connection.close(4000, "heard enough")
            await client.flush()
            assert isinstance(await client.hear_close(), Close)
        known = await ended(url, grant.session_id)
    first_audio = known.pop("timeToFirstAudioSeconds")
    assert 0 <= first_audio < 10
    assert known["close"] == {"code": 4000, "reason": "heard enough", "by": "client"}
    assert (known["inputAudioSeconds"], known["outputAudioSeconds"]) == (0.5, 0.1)
    assert (known["inputAudioTokens"], known["outputAudioTokens"]) == (3, 4)
    assert known["toolCalls"] == {"look": 1}
    assert (known["metadata"], known["ttlSeconds"]) == ({"call": 7}, 120)
    said = [(line["role"], line["text"]) for line in known.get("transcript", ())]
    assert said == ([] if retention is None else [("user", "what's new"), ("assistant", "nothing")])


async def test_records_are_kept_as_long_as_they_are_to_be(database_url: str) -> None:
    now = time.time()
    grants = []
    for days in (3, 1):
        then = partial(float, now - days * 86_400)
        async with running_gateway(gateway_on(database_url, now=then)) as url:
            grants.append(await mint(url))
    async with running_gateway(gateway_on(database_url, record_retention=2 * 86_400.0)) as url:
        async with httpx.AsyncClient(headers=HEADERS) as client:

            async def status(number: int) -> int:
                return (await client.get(f"{url}/v1/sessions/{grants[number].session_id}")).status_code

            # Its first beat comes with its start.
            with anyio.fail_after(20):
                while await status(0) != 404:
                    pass
            assert await status(1) == 200


NODE = """
import sys

import anyio

from speko_anyio.gateway import Gateway, SQLStore, echo, running_gateway


async def main(database, key, secret):
    gateway = Gateway(
        handlers={"echo": echo}, api_keys=[key], secret=secret, store=SQLStore(database)
    )
    async with running_gateway(gateway) as url:
        print(url, flush=True)
        await anyio.sleep_forever()


anyio.run(main, *sys.argv[1:])
"""


@contextmanager
def node_process(database_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own with a gateway on this database, and where it is."""
    with running([sys.executable, "-c", NODE, database_url, KEY, SECRET], stderr=None) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://")
        yield process, url


async def test_a_node_that_is_killed_leaves_no_session_open(database_url: str) -> None:
    with anyio.fail_after(60):
        with node_process(database_url) as (process, url):
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)
                assert (await record_of(url, grant.session_id))["status"] == "live"
                process.send_signal(signal.SIGKILL)
                await anyio.to_thread.run_sync(process.wait, PATIENCE)
                assert (await client.hear_close()).code == 1006
        # Another node, a minute later by its clock.
        later = gateway_on(database_url, now=lambda: time.time() + 60)
        async with running_gateway(later) as url:
            known = await ended(url, grant.session_id)
    assert known["close"] == {"code": 1006, "reason": "node lost", "by": "sweeper"}
