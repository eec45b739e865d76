"""A PostgreSQL server of the test run's own: the machine's binaries, a Unix socket in a new folder."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .patience import PATIENCE

SUPERUSER = "tests"


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; None where there is no server."""
    on_path = shutil.which("initdb")
    # Debian keeps them off the path, one folder for each version.
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


class Postgres:
    """A server that runs."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._numbers = itertools.count()

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"db{next(self._numbers)}"
        self.run("createdb", "-h", str(self._folder), "-U", SUPERUSER, name)
        return f"postgresql://{SUPERUSER}@/{name}?host={self._folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, as a user that it accepts."""
        _run([str(self._binaries / program), *arguments], self._folder)


@contextmanager
def running_postgres(binaries: Path) -> Iterator[Postgres]:
    """A server while the block runs."""
    # Not pytest's own temporary folder, whose path is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        server = Postgres(binaries, folder)
        data = str(folder / "data")
        server.run("initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        settings = f"-c listen_addresses='' -k {folder} -c fsync=off -c max_connections=200"
        server.run("pg_ctl", "start", "-w", "-D", data, "-o", settings, "-l", str(folder / "log"))
        try:
            yield server
        finally:
            server.run("pg_ctl", "stop", "-w", "-D", data, "-m", "immediate")


def _run(command: Sequence[str], folder: Path) -> None:
    # PostgreSQL refuses to be root.
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    # Into a file: the server keeps what it inherits, and would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
            user=nobody and nobody.pw_uid,
            group=nobody and nobody.pw_gid,
            extra_groups=None if nobody is None else [],
        )
        output.seek(0)
        assert done.returncode == 0, f"{command[0]}: {output.read()}"
