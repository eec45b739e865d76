"""Consoles that lack characters, outputs that break, closed descriptors, users without a home directory: the
command still does its work, and nothing ends in a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speko_anyio.audio.wav import format_wav, read_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import BAD_INPUT, FAILED, USAGE
from speko_anyio.gateway import ServerSession
from speko_anyio.protocol._commands import Commit

from ..support.processes import environment

SAID = "Es kostet 5 € – żółw 😀 \udc80"


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(format_wav(bytes(3200), 8000))
    return path


def run(shell: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell, as ``$cli``."""
    return subprocess.run(
        ["bash", "-c", f"cli='{sys.executable} -m speko_anyio.cli'; {shell}"],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_a_console_that_lacks_characters_loses_nothing(
    encoding: str, question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speaks(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_transcript("assistant", SAID[:-1], final=True)
                await session.send_audio(bytes(640))
                await session.send_usage(1, 1)

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": speaks})
    output = io.BytesIO()
    console = io.TextIOWrapper(output, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    reply, record = tmp_path / "żółw.wav", tmp_path / "record"
    assert main(["say", str(question), "-o", str(reply), "--record", str(record)]) == 0
    assert read_wav(reply).pcm == bytes(640)
    lines = "".join(path.read_text(encoding="utf-8") for path in record.rglob("*.jsonl"))
    assert SAID[:-1] in lines
    told = output.getvalue().decode(encoding)
    assert SAID[:-1].encode(encoding, "replace").decode(encoding) in told
    assert "time to first audio" in told
    assert sys.stdout is console


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_no_encoding_has(encoding: str, question: Path, tmp_path: Path) -> None:
    reply = os.fsencode(tmp_path / "reply") + b"\xff.wav"
    done = subprocess.run(
        [sys.executable, "-m", "speko_anyio.cli", "say", question, "-o", reply, "--provider", "echo"],
        env={**environment(), "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Path(os.fsdecode(reply)).exists()
    assert b"written to" in done.stdout


@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">/dev/full", FAILED), ("| true", FAILED), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)],
)
def test_an_output_that_is_closed_or_breaks_loses_nothing(
    redirection: str, code: int, question: Path, tmp_path: Path
) -> None:
    reply = tmp_path / "reply.wav"
    done = run(f"set -o pipefail; $cli say {question} -o {reply} --provider echo {redirection}")
    assert done.returncode == code, done.stderr
    assert read_wav(reply).seconds > 0.1
    if code == FAILED:
        assert done.stderr.startswith(
            "speko-anyio: the command did its work, but its output could not be written ("
        )
        assert done.stderr.count("\n") == 1
    else:
        assert done.stderr == ""


def test_a_key_that_nobody_saw_is_told(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    done = run(f"$cli keys create --name x --database {database} >/dev/full")
    assert done.returncode == FAILED
    assert "its key was never shown (`speko-anyio keys revoke key_" in done.stderr
    done = run(f"$cli serve --port 0 --database {tmp_path / 'other.db'} >/dev/full")
    assert done.returncode == FAILED
    assert "speko-anyio: the gateway started, but its output could not be written (" in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def test_text_is_utf8_whatever_the_locale_is(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    done = run(f"$cli keys create --name 'zażółć 😀' --database {database}", **ASCII)
    assert done.returncode == 0, done.stderr
    listed = run(f"$cli keys list --database {database}", PYTHONUTF8="1")
    assert "  zażółć 😀  " in listed.stdout
    listed = run(f"$cli keys list --database {database}", **ASCII)
    assert listed.returncode == 0
    assert "  za????? ?  " in listed.stdout or "  za???? ?  " in listed.stdout
    done = run(f"$cli keys create --name $'\\xff' --database {database}", **ASCII)
    assert done.returncode == USAGE
    assert "argument --name: not text in UTF-8" in done.stderr


NO_HOME = "this user has no home directory for the gateway's database; choose a path with --database"


@pytest.mark.parametrize("command", ["serve", "gateway check", "gateway migrate", "keys list"])
def test_without_a_home_the_database_needs_a_place(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")
    assert main(command.split()) == USAGE
    err = capsys.readouterr().err
    assert NO_HOME in err
    assert err.count("\n") == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if command != "serve":
        assert main(command.split()) == 0


STRANGER = """
import pwd, sys
def getpwuid(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
from speko_anyio.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""As for a user id that is missing in the container's /etc/passwd."""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
@pytest.mark.parametrize(
    ("home", "command"),
    [
        (None, "gateway check"),
        (None, "serve --port 0"),
        (None, "say question.wav --provider echo"),
        (None, "say question.wav --provider openai"),
        (None, "timeline nowhere"),
        (None, "--version"),
        ("/proc", "gateway migrate"),
        ("/proc", "keys list"),
        ("/proc", "serve --port 0"),
    ],
)
def test_a_user_without_home_or_entry_gets_no_traceback(
    command: str, home: str | None, question: Path, tmp_path: Path
) -> None:
    variables = {**environment(), "SPEKO_GATEWAY_PORT": "0"}
    for name in ("HOME", "XDG_STATE_HOME", "OPENAI_API_KEY"):
        variables.pop(name, None)
    if home is not None:
        variables["HOME"] = home
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, *command.split()],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr + done.stdout
    if command.startswith(("gateway", "keys", "serve", "timeline")) or "openai" in command:
        assert done.returncode in (FAILED, USAGE, BAD_INPUT)
        assert done.stderr.startswith("speko-anyio: ")
        assert done.stderr.count("\n") == 1
    else:
        assert done.returncode == 0, done.stderr
