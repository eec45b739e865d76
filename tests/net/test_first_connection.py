"""What the first connection of a process loads, it loads in a thread, while the event loop goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.processes import run_python

PROGRAM = """
import asyncio, http.server, json, ssl, sys, threading, time
import anyio
from speko_anyio import APIError, Speko, open_session
from speko_anyio.protocol.mint import ProviderGrant, SessionGrant, Credential

class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(401)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"127.0.0.1:{server.server_port}"
loop, loaded, turns = threading.get_ident(), [], [0.0]

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.get_ident() == loop:
            loaded.append(name)

make = ssl.create_default_context
def create_default_context(*args, **options):
    assert threading.get_ident() != loop
    return make(*args, **options)

class Loop(asyncio.SelectorEventLoop):
    def _run_once(self):
        start = time.thread_time()
        super()._run_once()
        turns.append(time.thread_time() - start)

async def main():
    sys.meta_path.insert(0, Watch())
    ssl.create_default_context = create_default_context
    start = time.process_time()
    async with Speko("sk", f"http://{host}", max_retries=0) as speko:
        try:
            await speko.realtime.create_session(provider="openai", model="m")
        except APIError:
            pass
    wss = f"wss://{host}/"
    direct = ProviderGrant(
        transport="provider_direct", session_id="s", provider="openai", model="m",
        adapter="openai.realtime.v1", provider_transport="websocket", endpoint=wss,
        credential=Credential(kind="bearer", value="ek", expires_at=""),
    )
    for grant in SessionGrant(session_id="s", ws_url=wss, ws_token="t", expires_at=""), direct:
        try:
            async with open_session(grant):
                pass
        except APIError:
            pass
    used = time.process_time() - start
    print(json.dumps({"loaded": loaded, "longest": max(turns), "used": used}))

backend = sys.argv[1]
anyio.run(main, backend=backend, backend_options={"loop_factory": Loop} if backend == "asyncio" else {})
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_little_is_loaded_by_the_event_loop(backend: str) -> None:
    seen: dict[str, Any] = json.loads(run_python("-c", PROGRAM, backend))
    # Only our drivers, which are small.
    assert {name for name in seen["loaded"] if not name.startswith("speko_anyio._net.")} == set()
    # Of all the CPU time, the longest turn of the event loop takes a small part; asyncio's is measured.
    assert seen["longest"] < seen["used"] / 10
