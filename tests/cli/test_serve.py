"""`speko-anyio serve` as a process: it says where it is, serves, and ends in order on a signal."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import anyio
import httpx
import pytest

from speko_anyio.cli import _serve as serve_module
from speko_anyio.cli import main
from speko_anyio.cli._failures import USAGE
from speko_anyio.gateway import MemoryStore, SessionStore, SQLStore
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


async def _has(store: SessionStore) -> bool:
    return await serve_module._has_keys(store)


def test_no_key_is_made_up_where_the_database_has_one(tmp_path: Path) -> None:
    path = str(tmp_path / "gateway.db")
    assert not anyio.run(_has, MemoryStore())
    assert not anyio.run(_has, SQLStore(path))
    assert main(["keys", "create", "--name", "x", "--database", path]) == 0
    assert anyio.run(_has, SQLStore(path))


def test_it_runs_by_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'port = 0\nkeys = ["sk_file"]\ndatabase = "memory"\nmetrics = true\nlog_format = "json"\n'
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
