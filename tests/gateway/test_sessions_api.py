"""``GET /v1/sessions`` and ``GET /v1/sessions/{id}``, without a socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import msgspec
import pytest

from speko_anyio.gateway import (
    Gateway,
    MemoryStore,
    SessionHistory,
    SessionOutcome,
    SessionQuery,
    StoreError,
    _sessions_api,
    echo,
)
from speko_anyio.gateway._api_keys import APIKeys, new_key
from speko_anyio.gateway._sessions_api import REFUSAL_DELAY
from speko_anyio.gateway.store import SessionPage, TranscriptLine
from speko_anyio.gateway.store._records import NO_LIMITS, PAGE_BYTES
from speko_anyio.protocol import Close
from speko_anyio.protocol.mint import SessionConfig
from tests.support.event_loops import VIRTUAL_EVENT_LOOPS

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
        input_text_tokens=1,
        output_text_tokens=2,
        input_image_tokens=3,
        cached_audio_tokens=4,
        cached_text_tokens=5,
        output_reasoning_tokens=6,
        reported_seconds=7.5,
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
        "inputTextTokens": 1,
        "outputTextTokens": 2,
        "inputImageTokens": 3,
        "cachedAudioTokens": 4,
        "cachedTextTokens": 5,
        "outputReasoningTokens": 6,
        "reportedSeconds": 7.5,
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


async def test_a_page_is_small_whatever_clients_stored() -> None:
    store = MemoryStore()
    for number in range(100, 130):
        await add(store, number, metadata={"x": "x" * 60_000})
    seen: list[str] = []
    sizes: list[int] = []
    async with http(store) as client:
        parameters = {"limit": "100"}
        while True:
            response = await client.get("/v1/sessions", params=parameters)
            sizes.append(len(response.content))
            answer = response.json()
            seen += [session["sessionId"] for session in answer["sessions"]]
            if "nextCursor" not in answer:
                break
            parameters["cursor"] = answer["nextCursor"]
    assert seen == [f"sess_{number}" for number in range(129, 99, -1)]
    assert max(sizes) < PAGE_BYTES + 16_384
    assert len(sizes) == 8


async def test_a_transcript_comes_in_pages() -> None:
    store = MemoryStore()
    await add(store, 1, created_at=NOW - 10)
    await claim(store, 1, now=NOW - 9)
    lines = tuple(TranscriptLine("user", "x" * 1000, NOW - 5) for _ in range(700))
    await store.end("sess_1", SessionOutcome(transcript=lines), now=NOW)
    pages: list[int] = []
    async with http(store) as client:
        parameters: dict[str, str] = {}
        while True:
            answer = (await client.get("/v1/sessions/sess_1", params=parameters)).json()
            assert answer["status"] == "ended"
            pages.append(len(answer["transcript"]))
            if "nextCursor" not in answer:
                break
            parameters["cursor"] = answer["nextCursor"]
        for cursor in ("x", "LTE", "W10"):
            wrong = await client.get("/v1/sessions/sess_1", params={"cursor": cursor})
            assert wrong.status_code == 400
    assert pages == [262, 262, 176]


async def test_what_clients_stored_is_copied_and_not_decoded() -> None:
    class Verbatim(MemoryStore):
        async def sessions(self, query: SessionQuery, *, now: float) -> SessionPage:
            (history,) = (await super().sessions(query, now=now)).sessions
            return SessionPage((self._change(history),))

        async def get(self, session_id: str, *, key_id: str | None = None) -> SessionHistory | None:
            history = await super().get(session_id, key_id=key_id)
            assert history is not None
            return self._change(history)

        def _change(self, history: SessionHistory) -> SessionHistory:
            raw = msgspec.Raw(b'{"n": 1E2}')
            changed = msgspec.structs.replace(history.record, metadata=raw, config=raw)
            return msgspec.structs.replace(history, record=changed)

    store = Verbatim()
    await add(store, 1)
    async with http(store) as client:
        assert b'"metadata":{"n": 1E2}' in (await client.get("/v1/sessions")).content
        one = (await client.get("/v1/sessions/sess_1")).content
    assert b'"metadata":{"n": 1E2}' in one
    assert b'"s2s":{"n": 1E2}' in one


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
async def test_a_key_reads_so_much_and_no_faster() -> None:
    store = MemoryStore()
    await add(store, 1)
    boss = await admin(store)
    gateway = Gateway(
        handlers={"echo": echo}, api_keys=[KEY], store=store, now=lambda: NOW, read_rate=2.0, read_burst=3
    )
    statuses: Counter[int] = Counter()

    async def read(path: str) -> None:
        while True:
            answer = await client.get(path)
            statuses[answer.status_code] += 1
            if answer.status_code == 429:
                assert answer.json()["code"] == "RATE_LIMITED"
                assert answer.headers["retry-after"] == "1"

    async with (
        gateway.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=gateway.app),
            base_url="http://gw.test",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        for path in ("/v1/sessions", "/v1/sessions/sess_1", "/v1/sessions/sess_2", "/v1/sessions?limit=0"):
            for _ in range(4):
                tasks.start_soon(read, path)
        await anyio.sleep(10)
        # Another key is not slowed down.
        other = await client.get("/v1/sessions", headers={"Authorization": f"Bearer {boss}"})
        assert other.status_code == 200
        tasks.cancel_scope.cancel()
    granted = statuses.total() - statuses[429]
    assert 10 * 2 <= granted <= 10 * 2 + 3 + 1
    # Who asks again at once waits for its refusal.
    assert 10 / (2 * REFUSAL_DELAY) * 16 * 0.8 <= statuses[429] <= 10 / REFUSAL_DELAY * 16 + 16


@pytest.mark.parametrize("anyio_backend", VIRTUAL_EVENT_LOOPS, indirect=True)
async def test_refusals_that_wait_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sessions_api, "MAX_RESTING", 5)
    waited: list[float] = []
    async with http(MemoryStore()) as client:
        while (await client.get("/v1/sessions")).status_code == 200:
            pass
        begin = anyio.current_time()

        async def ask() -> None:
            assert (await client.get("/v1/sessions?limit=0")).status_code in {400, 429}
            waited.append(anyio.current_time() - begin)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
    assert sum(seconds > 0 for seconds in waited) <= 5
