"""Several gateway nodes on one PostgreSQL database behind nginx, each a process: as `deploy/` describes it,
without containers."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .patience import PATIENCE
from .postgres import find_binaries, running_postgres
from .processes import environment, running

NODES = ("node-a", "node-b")

NGINX_CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"


def missing() -> str | None:
    """What the machine lacks for a cluster; None when nothing."""
    if find_binaries() is None:
        return "there is no PostgreSQL server on this machine; install the package postgresql"
    return missing_nginx()


def missing_nginx() -> str | None:
    """What the machine lacks for `running_nginx`; None when nothing."""
    if shutil.which("nginx", path=_path()) is None:
        return "there is no nginx on this machine; install the package nginx"
    return None


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # where Debian keeps servers


class Node:
    """One gateway process."""

    def __init__(self, name: str, environment: dict[str, str], port: int, log: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._environment = {**environment, "SPEKO_GATEWAY_PORT": str(port)}
        self.process: subprocess.Popen[str]

    @contextmanager
    def running(self) -> Iterator[None]:
        """The process lives for the block, unless it is killed or drained before."""
        command = [sys.executable, "-m", "speko_anyio.cli", "serve", "--backend", "uvloop"]
        with (
            self.log.open("wb") as output,
            running(
                command, env=self._environment, stdout=output.fileno(), stderr=subprocess.STDOUT
            ) as self.process,
        ):
            yield

    def kill(self) -> None:
        """As the kernel ends a process that used too much memory: nothing is said, nothing is saved."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def drain(self) -> None:
        """As an operator ends it: SIGTERM. Returns at once."""
        self.process.send_signal(signal.SIGTERM)


class Cluster:
    """What runs. `url` is nginx'; `database_url` and `key` are for whoever looks behind it."""

    def __init__(self, url: str, nodes: Sequence[Node], database_url: str, key: str) -> None:
        self.url = url
        self.nodes = nodes
        self.database_url = database_url
        self.key = key


@contextmanager
def running_cluster(*, lease_seconds: float = 6.0, drain_seconds: float = 5.0) -> Iterator[Cluster]:
    """A cluster while the block runs; every provider is the nodes' own."""
    binaries = find_binaries()
    assert binaries is not None, missing()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database_url = stack.enter_context(running_postgres(binaries)).new_database()
        key = f"sk_cluster_{secrets.token_urlsafe(16)}"
        settings = {
            **environment(),
            "SPEKO_GATEWAY_DATABASE": database_url,
            "SPEKO_GATEWAY_SECRET": secrets.token_urlsafe(48),
            "SPEKO_GATEWAY_KEYS": key,
            "SPEKO_GATEWAY_LEASE_SECONDS": str(lease_seconds),
            "SPEKO_GATEWAY_DRAIN_SECONDS": str(drain_seconds),
            "SPEKO_GATEWAY_METRICS": "true",
            # The tests may mint as fast as the machine can.
            "SPEKO_GATEWAY_MINTS_AT_ONCE": "10000",
        }
        migrate = [sys.executable, "-m", "speko_anyio.cli", "gateway", "migrate"]
        subprocess.run(migrate, env=settings, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        started: list[Node] = []
        for name in NODES:
            node = Node(name, settings, _free_port(), folder / f"{name}.log")
            stack.enter_context(node.running())
            started.append(node)
        for node in started:
            _wait_until_ready(node.url, node.process, node.log)
        url = stack.enter_context(running_nginx(folder, [node.url for node in started]))
        yield Cluster(url, started, database_url, key)


@contextmanager
def running_nginx(folder: Path, nodes: Sequence[str]) -> Iterator[str]:
    """nginx before the two `nodes`, with the configuration that is shipped, but for the addresses."""
    port = _free_port()
    shipped = NGINX_CONF.read_text(encoding="utf-8")
    text = shipped
    for name, url in zip(NODES, nodes, strict=True):
        text = text.replace(f"{name}:8000", url.removeprefix("http://"))
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
    # All clients are one address here.
    text = re.sub(r"\n\s*limit_conn[^\n]*", "", text)
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        text = text.replace("http {", f"http {{\n    {name}_temp_path {folder}/{name};", 1)
    user = "user root;\n" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log warn;\n{text}", encoding="utf-8"
    )
    program = shutil.which("nginx", path=_path())
    assert program is not None, missing()
    command = [program, "-e", f"{folder}/nginx.log", "-c", str(file), "-g", "daemon off;"]
    with running(command, stdout=None, stderr=None) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, folder / "nginx.log")
            yield url
        finally:
            process.terminate()  # so that it takes its workers along
            process.wait(PATIENCE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=PATIENCE):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} did not get ready: {log.read_text(encoding='utf-8')}")
