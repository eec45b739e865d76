"""PgBouncer in front of the test run's PostgreSQL server, with its default settings."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .patience import PATIENCE
from .postgres import SUPERUSER
from .processes import running

_PORT = 6432
"""Of the socket's name only."""


def find_program() -> str | None:
    """The program; None where it is not installed."""
    # Debian keeps servers in /usr/sbin.
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def running_pgbouncer(program: str, database_url: str, *, pool_mode: str) -> Iterator[str]:
    """The URL by which the pooler leads to the database of `tests.support.postgres` while the block runs."""
    name, _, folder = database_url.partition("@/")[2].partition("?host=")
    with tempfile.TemporaryDirectory(prefix="pgb", dir="/tmp") as own:
        users = Path(own, "users.txt")
        users.write_text(f'"{SUPERUSER}" ""\n', encoding="utf-8")
        settings = Path(own, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\n{name} = host={folder} port=5432 user={SUPERUSER}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {_PORT}\nunix_socket_dir = {own}\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {pool_mode}\n",
            encoding="utf-8",
        )
        command = [program, str(settings)]
        if os.geteuid() == 0:  # which it refuses to be
            shutil.chown(own, "nobody")
            command[1:1] = ["-u", "nobody"]
        with running(command, stdout=None, stderr=None) as process:
            socket = Path(own, f".s.PGSQL.{_PORT}")
            deadline = time.monotonic() + PATIENCE
            while not socket.exists():
                assert process.poll() is None, "PgBouncer ended at its start"
                assert time.monotonic() < deadline, "PgBouncer did not start"
                time.sleep(0.02)
            yield f"postgresql://{SUPERUSER}@/{name}?host={own}&port={_PORT}"
