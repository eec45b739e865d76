"""``GET /v1/sessions`` and ``GET /v1/sessions/{id}``, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from speko_anyio.gateway import (
    Gateway,
    MemoryStore,
    SessionHistory,
    SessionOutcome,
    SessionQuery,
    StoreError,
    echo,
)
from speko_anyio.gateway._api_keys import APIKeys, new_key
from speko_anyio.gateway.store import SessionPage, TranscriptLine
from speko_anyio.gateway.store._records import NO_LIMITS
from speko_anyio.protocol import Close
from speko_anyio.protocol.mint import SessionConfig

from .store.support import claim, record
from .support import KEY

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
KEY_ID = APIKeys([KEY]).identify(f"Bearer {KEY}") or ""


@asynccontextmanager
async def http(store: MemoryStore, key: str = KEY) -> AsyncIterator[httpx.AsyncClient]:
    gateway = Gateway(handlers={"echo": echo}, api_keys=[KEY], store=store, now=lambda: NOW)
    async with (
        gateway.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=gateway.app),
            base_url="http://gw.test",
            headers={"Authorization": f"Bearer {key}"},
        ) as client,
    ):
        yield client


async def add(store: MemoryStore, number: int, **fields: Any) -> None:
    defaults = {"key_id": KEY_ID, "created_at": NOW - 1000 + number, "token_expires_at": int(NOW) + 60}
    await store.create(record(number, **{**defaults, **fields}), idempotency=None, now=NOW)


async def admin(store: MemoryStore) -> str:
    key, kept = new_key("boss", ("admin",), NO_LIMITS, now=NOW)
    await store.add_key(kept)
    return key


async def test_a_session_with_all_that_is_known_of_it() -> None:
    store = MemoryStore()
    config = SessionConfig(provider="echo", model="m", system_prompt="be kind")
    await add(store, 1, config=config, metadata={"call": 7}, created_at=NOW - 10.5)
    await claim(store, 1, now=NOW - 9)
    outcome = SessionOutcome(
        close=Close(4000, "done", "remote"),
        input_audio_seconds=1.5,
        output_audio_seconds=2.5,
        input_audio_tokens=15,
        output_audio_tokens=25,
        time_to_first_audio=0.25,
        tool_calls={"f": 2},
        transcript=(TranscriptLine("user", "hi", NOW - 5),),
    )
    await store.end("sess_1", outcome, now=NOW - 1)
    async with http(store) as client:
        one = (await client.get("/v1/sessions/sess_1")).json()
        listed = (await client.get("/v1/sessions")).json()
    summary = {
        "sessionId": "sess_1",
        "status": "ended",
        "keyId": KEY_ID,
        "provider": "echo",
        "model": "m",
        "metadata": {"call": 7},
        "ttlSeconds": 60,
        "createdAt": "2027-01-15T07:59:49.500Z",
        "startedAt": "2027-01-15T07:59:51.000Z",
        "endedAt": "2027-01-15T07:59:59.000Z",
        "close": {"code": 4000, "reason": "done", "by": "client"},
        "inputAudioSeconds": 1.5,
        "outputAudioSeconds": 2.5,
        "inputAudioTokens": 15,
        "outputAudioTokens": 25,
        "timeToFirstAudioSeconds": 0.25,
        "toolCalls": {"f": 2},
    }
    assert one == {
        **summary,
        "s2s": {"provider": "echo", "model": "m", "systemPrompt": "be kind"},
        "transcript": [{"role": "user", "text": "hi", "at": "2027-01-15T07:59:55.000Z"}],
    }
    # Prompts and tools are long: a list leaves them out.
    assert listed == {"sessions": [summary]}
    assert "token_1" not in str(one)


async def test_what_did_not_happen_is_left_out() -> None:
    store = MemoryStore()
    await add(store, 1)
    async with http(store) as client:
        one = (await client.get("/v1/sessions/sess_1")).json()
    absent = {"startedAt", "endedAt", "close", "metadata", "timeToFirstAudioSeconds", "transcript"}
    assert not absent & one.keys()
    assert one["status"] == "minted"


async def test_pages_follow_each_other_to_the_end() -> None:
    store = MemoryStore()
    for number in range(10, 15):
        await add(store, number, created_at=NOW - 5)
    pages = []
    async with http(store) as client:
        parameters = {"limit": "2"}
        while True:
            answer = (await client.get("/v1/sessions", params=parameters)).json()
            pages.append([session["sessionId"] for session in answer["sessions"]])
            if "nextCursor" not in answer:
                break
            parameters["cursor"] = answer["nextCursor"]
    assert pages == [["sess_14", "sess_13"], ["sess_12", "sess_11"], ["sess_10"]]


async def test_a_list_is_filtered() -> None:
    store = MemoryStore()
    await add(store, 1, config=SessionConfig(provider="local", model="m"))
    await add(store, 2)
    await claim(store, 2, now=NOW)
    await add(store, 3, token_expires_at=int(NOW) - 1)
    async with http(store) as client:

        async def ids(**parameters: str) -> list[str]:
            answer = (await client.get("/v1/sessions", params=parameters)).json()
            return [session["sessionId"] for session in answer["sessions"]]

        assert await ids() == ["sess_3", "sess_2", "sess_1"]
        assert await ids(provider="local") == ["sess_1"]
        assert await ids(status="live") == ["sess_2"]
        assert await ids(status="expired") == ["sess_3"]
        assert await ids(keyId=KEY_ID, limit="1") == ["sess_3"]
        # The third was created at 07:43:23.
        assert await ids(createdFrom="2027-01-15T07:43:22Z") == ["sess_3", "sess_2"]
        assert await ids(createdFrom="2027-01-15T08:43:22+01:00", createdUntil="2027-01-15T07:43:23Z") == [
            "sess_2"
        ]


async def test_a_key_sees_its_own_sessions_and_an_admin_all() -> None:
    store = MemoryStore()
    await add(store, 1)
    await add(store, 2, key_id="key_other")
    async with http(store) as client:
        assert [s["sessionId"] for s in (await client.get("/v1/sessions")).json()["sessions"]] == ["sess_1"]
        hidden, unknown = [await client.get(f"/v1/sessions/sess_{number}") for number in (2, 9)]
        forbidden = await client.get("/v1/sessions", params={"keyId": "key_other"})
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["error"] == unknown.json()["error"].replace("sess_9", "sess_2")
    assert forbidden.status_code == 403
    async with http(store, await admin(store)) as client:
        assert len((await client.get("/v1/sessions")).json()["sessions"]) == 2
        one = await client.get("/v1/sessions", params={"keyId": "key_other"})
        assert [session["sessionId"] for session in one.json()["sessions"]] == ["sess_2"]
        assert (await client.get("/v1/sessions/sess_2")).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "0010000"),
        ("limit", "²"),
        ("limit", ""),
        ("status", "dead"),
        ("createdFrom", "yesterday"),
        ("createdUntil", "2027-01-15T07:43:22"),
        ("cursor", "x"),
        ("cursor", "é"),
        ("cursor", "W10"),
        ("cursor", "WyIxIiwiYSJd"),
        ("page", "2"),
        ("x" * 10_000, "2"),
    ],
)
async def test_a_wrong_parameter_is_named(name: str, value: str) -> None:
    async with http(MemoryStore()) as client:
        response = await client.get("/v1/sessions", params={name: value})
    assert response.status_code == 400
    assert response.json()["code"] == "VALIDATION_ERROR"
    assert name[:20] in response.json()["error"]
    assert len(response.text) < 500


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/sess_1"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(StoreError("no route to host"), 503, "UNAVAILABLE"), (ValueError("a bug"), 500, "INTERNAL")],
)
async def test_a_failure_of_the_store_is_logged_and_not_shown(
    path: str, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStore):
        async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
            raise error

        async def sessions(self, query: SessionQuery, *, now: float) -> SessionPage:
            raise error

    async with http(Broken()) as client:
        response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert str(error) not in response.text
    assert str(error) in caplog.text


async def test_other_methods_are_told_which_there_are() -> None:
    async with http(MemoryStore()) as client:
        for path, allowed in (("/v1/sessions", {"GET", "HEAD", "POST"}), ("/v1/sessions/x", {"GET", "HEAD"})):
            response = await client.put(path)
            assert response.status_code == 405
            assert {method.strip() for method in response.headers["allow"].split(",")} == allowed
