"""Two nodes and PostgreSQL behind nginx under a real-time load; then one node is killed and one drained.

    python -m benchmarks.soak [--sessions 100] [--minutes 10] [--out FILE.json]

The first part counts every message: none may be lost, reordered or changed. The second shows how sessions
end, as their clients see it and as the database records it. It exits with 1 if anything was lost or the two
differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speko_anyio.gateway import SQLStore
from speko_anyio.gateway.store import SessionHistory, SessionQuery
from tests.support.cluster import Cluster, missing, running_cluster

LEASE = 6.0
DRAIN = 5.0
_SETTLED = 5.0  # seconds after the ramp, and before the end, at which memory is measured


@contextmanager
def load(cluster: Cluster, *, sessions: int, seconds: float, ramp: float) -> Iterator[Any]:
    """Run `speko-anyio bench` during the block; yield a function that waits for its report."""
    environment = {**os.environ, "SPEKO_BASE_URL": cluster.url, "SPEKO_API_KEY": cluster.key}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "speko_anyio.cli",
            "bench",
            "--backend",
            "uvloop",
            "--json",
            str(file),
        ]
        command += ["--sessions", str(sessions), "--seconds", str(seconds), "--ramp", str(ramp)]
        process = subprocess.Popen(command, env=environment)

        def report() -> dict[str, Any]:
            process.wait(seconds + ramp + 120)
            found: dict[str, Any] = json.loads(file.read_bytes())
            return found

        try:
            yield report
        finally:
            process.kill()
            process.wait(10)


async def records(cluster: Cluster) -> list[SessionHistory]:
    """Return all records, newest first."""
    async with SQLStore(cluster.database_url) as store:
        found: list[SessionHistory] = []
        after, more = None, True
        while more:
            page = await store.sessions(SessionQuery(limit=100, after=after), now=time.time())
            found += page.sessions
            more = page.more
            if more:
                after = found[-1].record.created_at, found[-1].record.session_id
        return found


def ends_of(histories: list[SessionHistory]) -> dict[str, int]:
    ends = Counter(
        f"{h.life.close_code} {h.life.close_reason} ({h.life.closed_by})" if h.life.ended_at else "open"
        for h in histories
    )
    return dict(ends.most_common())


def soak(cluster: Cluster, sessions: int, minutes: float) -> dict[str, Any]:
    ramp = 10
    with load(cluster, sessions=sessions, seconds=minutes * 60, ramp=ramp) as report:
        time.sleep(ramp + _SETTLED)
        before = resident_mib(cluster)
        time.sleep(max(0.0, minutes * 60 - ramp - 2 * _SETTLED))
        after = resident_mib(cluster)
        found: dict[str, Any] = report()
    return {**found, "resident_mib": {"first": before, "last": after}}


def resident_mib(cluster: Cluster) -> list[float]:
    """Return the resident memory of each node."""
    page = os.sysconf("SC_PAGE_SIZE")
    status = [Path(f"/proc/{node.process.pid}/statm").read_text(encoding="ascii") for node in cluster.nodes]
    return [round(int(line.split()[1]) * page / 2**20, 1) for line in status]


def disaster(cluster: Cluster, sessions: int) -> dict[str, Any]:
    """Kill the first node under load; once its sessions have ended, drain the second."""
    before = {history.record.session_id for history in asyncio.run(records(cluster))}
    killed, drained = cluster.nodes
    with load(cluster, sessions=sessions, seconds=40, ramp=4) as report:
        time.sleep(12)
        killed.kill()
        time.sleep(LEASE * 2)
        between = [h for h in asyncio.run(records(cluster)) if h.record.session_id not in before]
        drained.drain()
        found: dict[str, Any] = report()
    drained.process.wait(60)
    after = [h for h in asyncio.run(records(cluster)) if h.record.session_id not in before]
    return {
        "clients": found["ends"],
        "lost": found["messages_lost"],
        "broken": found["messages_broken"],
        "records_after_the_kill": ends_of(between),
        "records": ends_of(after),
        "exit_code_of_the_drained": drained.process.returncode,
    }


def faults(calm: dict[str, Any], storm: dict[str, Any]) -> list[str]:
    """Return what is wrong with these results."""
    found = [f"{calm[name]} {name}" for name in ("failed", "messages_lost", "messages_broken") if calm[name]]
    if calm["messages_received"] != calm["messages_sent"]:
        found.append(f"{calm['messages_received']} of {calm['messages_sent']} messages came back")
    found += [f"{storm[name]} messages {name} in the disaster" for name in ("lost", "broken") if storm[name]]
    if _by_code(storm["clients"]) != _by_code(storm["records"]):
        found.append("the records of the disaster say other things than the clients")
    if storm["exit_code_of_the_drained"] != 0:
        found.append(f"the drained node exited with {storm['exit_code_of_the_drained']}")
    return found


def _by_code(ends: dict[str, int]) -> Counter[str]:
    codes: Counter[str] = Counter()
    for end, count in ends.items():
        codes[end.partition(" ")[0]] += count
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description="A cluster under load, a node killed, a node drained.")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=None, help="write what was found as JSON")
    options = parser.parse_args()
    if (lacking := missing()) is not None:
        raise SystemExit(lacking)
    with running_cluster(lease_seconds=LEASE, drain_seconds=DRAIN) as cluster:
        print(f"soak: {options.sessions} sessions, {options.minutes:g} minutes", file=sys.stderr)
        calm = soak(cluster, options.sessions, options.minutes)
        print("disaster: one node is killed, the other drained", file=sys.stderr)
        storm = disaster(cluster, options.sessions)
    calm.pop("by_second")
    found = {"soak": calm, "disaster": storm}
    text = json.dumps(found, indent=1) + "\n"
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    if wrong := faults(calm, storm):
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
