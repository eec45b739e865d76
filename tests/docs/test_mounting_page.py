"""docs/mounting.md: a gateway within FastAPI, and a backend that relays a browser."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from speko_anyio import APIStatusError, Audio, Ready, Speko
from speko_anyio.gateway import Gateway, ServerSession, running_gateway
from speko_anyio.gateway._health import NOT_RUNNING
from speko_anyio.protocol import AudioIn, Commit
from tests.support.serve import serving

from .programs import programs

MOUNTED, RELAY = programs("mounting.md")
KEY = "replace-this-with-a-long-random-key"

pytestmark = pytest.mark.anyio


async def test_a_mounted_gateway_serves_sessions() -> None:
    with serving(MOUNTED.load()["app"]) as host:
        async with Speko(KEY, f"http://{host}/voice") as speko:
            with anyio.fail_after(30):
                async with speko.realtime.connect(provider="parrot", model="any") as session:
                    assert isinstance(await session.receive(), Ready)
                    await session.send_audio(bytes(960))
                    assert await session.receive() == Audio(bytes(960), 24_000)


async def test_without_the_lifespan_it_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette()
    app.mount("/voice", MOUNTED.load()["gateway"].app)
    with serving(app) as host:
        with anyio.fail_after(30):
            async with Speko(KEY, f"http://{host}/voice", max_retries=0) as speko:
                for _ in range(2):
                    with pytest.raises(APIStatusError, match="enter its `running\\(\\)`") as caught:
                        await speko.realtime.create_session(provider="parrot", model="any")
                    assert caught.value.status == 503
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"http://{host}/voice/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, NOT_RUNNING)
        # A browser's WebSocket: an error frame and a close, each with the reason.
        with connect(
            f"ws://{host}/voice/v1/realtime/s",
            origin=Origin("http://page.test"),
            subprotocols=[Subprotocol("t")],
        ) as page:
            assert json.loads(page.recv(10))["message"] == NOT_RUNNING
            with pytest.raises(ConnectionClosed) as closed:
                page.recv(10)
            assert (closed.value.rcvd and closed.value.rcvd.reason) == NOT_RUNNING
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == [NOT_RUNNING]


class SaysBack:
    """Says what it heard, at the end of the turn; leaves when it heard nothing."""

    def __init__(self) -> None:
        self.left = threading.Event()  # of any thread: with trio the gateway runs in one of its own

    async def __call__(self, session: ServerSession) -> None:
        await self._serve(session)
        self.left.set()

    async def _serve(self, session: ServerSession) -> None:
        heard = b""
        async for command in session:
            match command:
                case AudioIn(pcm=pcm):
                    heard += pcm
                case Commit():
                    if not heard:
                        return
                    await session.send_transcript("assistant", "you said", final=True)
                    await session.send_interruption()
                    await session.send_audio(heard)
                    await session.send_response_end("done")
                    heard = b""


@asynccontextmanager
async def relayed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ClientConnection, SaysBack]]:
    """Connect a page to the relay; also return the handler behind it."""
    handler = SaysBack()
    gateway = Gateway(handlers={"parrot": handler}, api_keys=[KEY])
    async with running_gateway(gateway) as url:
        monkeypatch.setenv("SPEKO_API_KEY", KEY)
        monkeypatch.setenv("SPEKO_BASE_URL", url)
        with serving(RELAY.load()["app"]) as host, connect(f"ws://{host}/talk") as page:
            yield page, handler


async def test_a_relay_carries_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relayed(monkeypatch) as (page, _):

        def converse() -> None:
            for value in (b"\1\2", b"\3\4"):
                page.send(value * 480)
                page.send("commit")
                assert json.loads(page.recv(10))["text"] == "you said"
                assert json.loads(page.recv(10)) == {"type": "interruption"}
                assert page.recv(10) == value * 480
            page.send("commit")
            with pytest.raises(ConnectionClosed) as closed:
                page.recv(10)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1000

        await anyio.to_thread.run_sync(converse)


async def test_when_the_page_leaves_the_session_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with relayed(monkeypatch) as (page, handler):

        def leave() -> None:
            page.send(b"\1\2" * 480)
            page.send("commit")
            page.recv(10)
            page.close()
            assert handler.left.wait(30)

        await anyio.to_thread.run_sync(leave)
