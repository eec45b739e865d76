"""A gateway whose application is used although nobody runs its lifespan."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest

from speko_anyio.gateway import Gateway, SQLStore, echo
from speko_anyio.gateway._health import NOT_RUNNING, SHUTTING_DOWN

from .support import KEY

pytestmark = pytest.mark.anyio

BODY = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}


def test_the_sentences_fit_a_close_frame() -> None:
    assert max(len(NOT_RUNNING), len(SHUTTING_DOWN)) <= 123


async def test_every_request_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    # Its tables are not made, so that keys can't be looked up either.
    gateway = Gateway(handlers={"echo": echo}, store=SQLStore(str(tmp_path / "gateway.db")))
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as client:
        minted = await client.post("/v1/sessions", json=BODY, headers={"Authorization": f"Bearer {KEY}"})
        others = [await client.get(f"/v1/sessions{path}") for path in ("", "/sess_1")]
        live = await client.get("/healthz")
    assert (minted.status_code, minted.json()["error"]) == (503, NOT_RUNNING)
    assert [(answer.status_code, answer.json()["error"]) for answer in others] == [(503, NOT_RUNNING)] * 2
    assert live.status_code == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [NOT_RUNNING]
    # Nothing was opened.
    assert not await anyio.Path(tmp_path / "gateway.db").exists()
