"""Servers of a test run do not outlive it, also when it is killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE
from tests.support.processes import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to its parent")

SLEEPER = """
import sys, time
from tests.support.processes import running
with running([sys.executable, "-c", "import time; time.sleep(600)"], stderr=None):
    print("ready", flush=True)
    time.sleep(600)
"""
SERVER = """
import time
from tests.support.serve import served
with served("--port", "0", "--database", "memory", stderr=None):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("program", [SLEEPER, pytest.param(SERVER, marks=pytest.mark.speech)])
def test_what_a_killed_test_run_started_ends_too(program: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH="."),
    )
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    finally:
        run.kill()
    # Every process below has inherited the error output (the recogniser's too): it ends with the last one.
    run.communicate(timeout=PATIENCE / 4)
