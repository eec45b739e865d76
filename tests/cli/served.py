"""A served gateway, asked a question by ``speko-anyio say`` and stopped."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from speko_anyio.audio.wav import format_wav
from tests.support.patience import PATIENCE
from tests.support.processes import environment, run

from ..support.serve import served


def ask_and_stop(
    folder: Path, *, provider: str, serve: tuple[str, ...] = (), python: tuple[str, ...] = ()
) -> None:
    """Serve with the options `serve`, in a Python with the options `python`; have `provider` answer a
    question in `folder`; then stop by SIGTERM. Fails unless all three go well."""
    with served("--port", "0", *serve, python=python) as (server, told):
        match = re.search(r"export SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)", told)
        assert match is not None, told
        question = folder / "question.wav"
        question.write_bytes(format_wav(bytes(3200), 16000))
        ask = [sys.executable, "-m", "speko_anyio.cli", "say", str(question), "--provider", provider]
        asked = run(
            [*ask, "-o", str(folder / "reply.wav")],
            env=environment(SPEKO_BASE_URL=match[1], SPEKO_API_KEY=match[2]),
        )
        assert asked.returncode == 0, asked.stderr
        server.send_signal(signal.SIGTERM)
        assert server.stdout is not None
        rest = server.stdout.read()
        assert server.wait(PATIENCE) == 0, told + rest
        assert "Traceback" not in told + rest
