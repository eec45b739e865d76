"""`speko-anyio serve` as a process: it says where it is, serves, and ends in order on a signal."""

from __future__ import annotations

import gc
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest

from speko_anyio.cli import _serve as serve_module
from speko_anyio.cli import main
from speko_anyio.cli._failures import USAGE
from speko_anyio.cli._gateway_options import KeysInUse, is_private, keys_in_use
from speko_anyio.gateway import SQLStore
from speko_anyio.gateway._settings import Settings
from speko_anyio.gateway.store import SessionRecord
from speko_anyio.protocol.mint import SessionConfig
from tests.support.patience import PATIENCE

from ..support.serve import served
from .served import ask_and_stop


def test_it_serves_until_a_signal(tmp_path: Path) -> None:
    ask_and_stop(tmp_path, provider="echo", serve=("--database", str(tmp_path / "gateway.db")))


def test_in_the_background_of_a_script_ctrl_c_does_not_stop_it() -> None:
    with served("--port", "0", "--database", "memory", background=True) as (server, told):
        match = re.search(r"gateway +(http\S+)", told)
        assert match is not None, told
        server.send_signal(signal.SIGINT)
        # While stopping, it would answer some of them with 503, or not at all.
        assert [httpx.get(f"{match[1]}/readyz").status_code for _ in range(10)] == [200] * 10
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0


@contextmanager
def connected(address: tuple[str, int], *sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections to `address`, each with what was sent on it, and nothing read."""
    with ExitStack() as stack:
        made = []
        for data in sent:
            made.append(stack.enter_context(socket.create_connection(address, timeout=PATIENCE)))
            made[-1].sendall(data)
        yield made


def address_of(told: str) -> tuple[str, int]:
    match = re.search(r"gateway +http://([\d.]+):(\d+)", told)
    assert match is not None, told
    return match[1], int(match[2])


GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
UPGRADE = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
OPENING = (
    b"GET /v1/realtime/x HTTP/1.1\r\nhost: x\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + UPGRADE
)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_it_ends_in_order_whatever_clients_hold_open(backend: str) -> None:
    options = ("--port", "0", "--database", "memory", "--backend", backend)
    left_open = (
        b"",
        b"G",
        GET,
        GET + b"content-length: 100\r\n\r\n",
        (GET + b"\r\n") * 2000,
        OPENING,
        OPENING + b"x: " + b"a" * 9000 + b"\r\n\r\n",
        OPENING + b"".join(b"x-%d: a\r\n" % number for number in range(200)) + b"\r\n",
        OPENING + b"content-length: 5\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00",
    )
    with ExitStack() as stack:
        server, told = stack.enter_context(served(*options))
        stack.enter_context(connected(address_of(told), *left_open))
        match = re.search(r"SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)", told)
        assert match is not None, told
        # It does not answer the close.
        stack.enter_context(open_session(match[1], match[2]))
        httpx.get("http://{}:{}/healthz".format(*address_of(told)))  # the others were accepted before it
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_a_second_signal_ends_it_at_once(number: signal.Signals, code: int, backend: str) -> None:
    options = ("--port", "0", "--database", "memory", "--backend", backend, "--patience", f"{PATIENCE:g}")
    with served(*options) as (server, told):
        assert server.stdout is not None
        match = re.search(r"SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)", told)
        assert match is not None, told
        with open_session(match[1], match[2]):
            server.send_signal(number)
            assert any("stopping" in line for line in iter(server.stdout.readline, ""))
            server.send_signal(number)
            output, _ = server.communicate(timeout=PATIENCE / 2)
    assert server.returncode == code, output
    assert "Traceback" not in output


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_a_second_signal_ends_it_while_a_handler_blocks_its_event_loop(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import time

async def reply(session):
    print("blocking", flush=True)
    time.sleep(1000)
"""
    (tmp_path / "stuck.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    options = ("--port", "0", "--database", "memory", "--backend", backend, "--handler", "stuck=stuck:reply")
    with served(*options) as (server, told):
        assert server.stdout is not None
        match = re.search(r"SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)", told)
        assert match is not None, told
        with open_session(match[1], match[2], provider="stuck"):
            assert any("blocking" in line for line in iter(server.stdout.readline, ""))
            # Python may act on a signal that comes right before `sleep`, or together with another, only when
            # the next one wakes it: so this operator sends one until the process ends.
            for _ in range(int(PATIENCE / 0.2)):
                server.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    server.wait(0.2)
                    break
            output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode in (130, 143), output
    assert "Traceback" not in output


def test_a_second_signal_ends_it_while_a_thread_of_a_handler_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import threading, time

threading._register_atexit(print, "waiting for the thread", flush=True)
threading.Thread(target=time.sleep, args=(1000,)).start()

async def reply(session): ...
"""
    (tmp_path / "hanging.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    with served("--port", "0", "--database", "memory", "--handler", "hanging=hanging:reply") as (server, _):
        assert server.stdout is not None
        server.send_signal(signal.SIGINT)
        assert any("waiting for the thread" in line for line in iter(server.stdout.readline, ""))
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 130, output
    assert output == ""


@contextmanager
def open_session(url: str, key: str, *, provider: str = "echo") -> Iterator[None]:
    """An open session."""
    body = {"mode": "s2s", "s2s": {"provider": provider, "model": "m"}}
    grant = httpx.post(f"{url}/v1/sessions", json=body, headers={"Authorization": f"Bearer {key}"}).json()
    head = OPENING.replace(b"/x ", f"/{grant['sessionId']} ".encode())
    token = f"sec-websocket-protocol: {grant['wsToken']}\r\n\r\n"
    with connected(address_of(f"gateway {url}"), head + token.encode()) as (connection,):
        assert connection.recv(65_536).startswith(b"HTTP/1.1 101")
        yield


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors")
@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
@pytest.mark.parametrize("sent", [b"", OPENING], ids=["silent", "half a head"])
def test_clients_that_wait_do_not_use_up_its_descriptors(backend: str, sent: bytes) -> None:
    options = ("--port", "0", "--database", "memory", "--backend", backend)
    with served(*options, descriptors=256) as (server, told):
        with connected(address_of(told), *[sent] * 600):
            # Long before the first of them has waited for its time.
            answer = httpx.get("http://{}:{}/healthz".format(*address_of(told)), timeout=8)
            assert answer.status_code == 200
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0, output
    assert "Too many open files" not in output
    assert "raise `ulimit -n` for 1000 sessions" in told
    assert "128 connections are open" in output


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--database", "memory"]) == USAGE
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"speko-anyio: can't listen on 127.0.0.1:{port}")
    assert "\n" not in err


def test_a_host_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    # No name, so that nobody is asked for it.
    assert main(["serve", "--host", "a..b", "--port", "8000", "--database", "memory"]) == USAGE
    err = capsys.readouterr().err.strip()
    assert err.startswith("speko-anyio: can't listen on a..b:8000: ")
    assert err.endswith("; choose another host or port")
    assert "while attempting" not in err
    assert "Errno" not in err


def start_and_mint(*options: str, key: str | None = None) -> tuple[str, int | None]:
    """Return what a start told, and the status of a mint with `key`, or with the key that it printed."""
    with served("--port", "0", *options) as (server, told):
        url = re.search(r"^gateway +(http\S+)", told, re.MULTILINE)
        assert url is not None, told
        printed = re.search(r"SPEKO_API_KEY=(\S+)", told)
        bearer = key or (printed and printed[1])
        status = None
        if bearer:
            answer = httpx.post(
                f"{url[1].replace('0.0.0.0', '127.0.0.1')}/v1/sessions",
                json={"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}},
                headers={"Authorization": f"Bearer {bearer}"},
            )
            status = answer.status_code
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    return told, status


def assert_closed(told: str) -> None:
    assert "SPEKO_API_KEY" not in told
    assert "#key=" not in told
    assert "nobody can create a session; make a key with `speko-anyio keys create" in told


def test_a_gateway_whose_keys_were_revoked_stays_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = ("--database", str(tmp_path / "gateway.db"))
    assert main(["keys", "create", "--name", "x", *database]) == 0
    _, key_id, _, key, *_ = capsys.readouterr().out.split()
    told, status = start_and_mint(*database, key=key)
    assert status == 201
    assert "SPEKO_API_KEY" not in told
    assert main(["keys", "revoke", key_id, *database]) == 0
    for options in ((), ("--playground",)):
        told, status = start_and_mint(*database, *options, key=key)
        assert_closed(told)
        assert status == 401
        assert ("playground" in told) == bool(options)
    told, status = start_and_mint(*database, "--temporary-key")
    assert status == 201
    # That was for one run.
    assert_closed(start_and_mint(*database)[0])


def test_a_gateway_of_one_developer_goes_on_with_a_generated_key(tmp_path: Path) -> None:
    database = ("--database", str(tmp_path / "gateway.db"))
    for _ in range(2):
        told, status = start_and_mint(*database)
        assert status == 201
        assert "playground" in told


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "0.0.0.0"),
        ("--public-url", "https://voice.example.com"),
        ("--no-temporary-key",),
    ],
)
def test_no_key_is_generated_for_others(options: tuple[str, ...], tmp_path: Path) -> None:
    told, _ = start_and_mint("--database", str(tmp_path / "gateway.db"), *options)
    assert_closed(told)
    assert "playground" not in told


async def _in_use(store: SQLStore) -> KeysInUse:
    async with store:
        return await keys_in_use(store)


@pytest.mark.parametrize(
    ("key_id", "unused"), [("key_0123456789ab", False), ("key_local_0123456789ab", True)]
)
def test_a_database_is_unused_until_a_session_of_another_key(
    key_id: str, unused: bool, tmp_path: Path
) -> None:
    """A gateway whose configured keys were removed is closed, too."""
    store = SQLStore(str(tmp_path / "gateway.db"))
    assert anyio.run(_in_use, store) == (0, True)

    async def create() -> None:
        async with store:
            record = SessionRecord(
                session_id="sess_1",
                key_id=key_id,
                token_id="t",
                config=SessionConfig(provider="echo", model="m"),
                metadata=None,
                ttl_seconds=60,
                created_at=1.0,
                token_expires_at=61,
            )
            await store.create(record, idempotency=None, now=1.0)

    anyio.run(create)
    assert anyio.run(_in_use, store) == (0, unused)


@pytest.mark.parametrize("keys", ["[]", '[""]'])
def test_no_key_is_generated_where_the_settings_say_that_there_is_none(keys: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"keys = {keys}\n")
    told, _ = start_and_mint("--config", str(file), "--database", "memory")
    assert_closed(told)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("127.evil.test", False),
        ("localhost.evil.test", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_private(host: str, private: bool) -> None:
    assert is_private(Settings(host=host)) == private
    assert not is_private(Settings(host=host, public_url="https://voice.example.com"))


def test_it_runs_by_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'port = 0\nkeys = ["sk_file_Qm3vT9xLzR4cYb7NwK2p"]\ndatabase = "memory"\n'
        'metrics = true\nlog_format = "json"\n'
    )
    with served("--config", str(file), stderr=subprocess.PIPE) as (server, told):
        match = re.search(r"^gateway\s+(\S+)", told)
        assert match is not None, told
        assert "playground" not in told, "its keys are real ones"
        assert httpx.get(f"{match[1]}/readyz").json() == {"status": "ready"}
        assert "speko_gateway_info" in httpx.get(f"{match[1]}/metrics").text
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=PATIENCE)
        assert server.returncode == 0
        lines = [json.loads(line) for line in log.splitlines()]
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_collections_spare_what_a_start_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection would stop every session for 60 ms."""
    frozen: list[tuple[int, int]] = []

    async def stop_at_once() -> AsyncIterator[int]:
        frozen.append((gc.get_freeze_count(), len(gc.get_objects())))
        yield signal.SIGTERM

    @contextmanager
    def no_signals(**options: bool) -> Iterator[AsyncIterator[int]]:
        yield stop_at_once()

    monkeypatch.setattr(serve_module, "stop_signals", no_signals)
    assert main(["serve", "--port", "0", "--database", "memory", "--patience", "0"]) == 0
    ((count, others),) = frozen
    assert count > 50_000
    assert others < count / 10
    # The process may be another program's, as it is here.
    assert gc.get_freeze_count() == 0
