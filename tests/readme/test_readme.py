"""The README's programs run as they stand there, and its commands are the ones that are kept working."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from speko_anyio import Audio, HistoryItem, Speko, Transcript
from speko_anyio.audio.wav import read_wav
from speko_anyio.cli import main
from speko_anyio.cli._parser import make_parser
from speko_anyio.gateway import Gateway, echo, running_gateway
from tests.support.processes import environment, run
from tests.support.serve import served

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOXFILE = ROOT / "noxfile.py"
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(name: str) -> str:
    """Return the shell commands after the marker `name`."""
    match = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert match is not None
    return match[1]


@pytest.mark.speech
def test_the_first_program_runs_as_it_stands(tmp_path: Path) -> None:
    assert block("serve") == "speko-anyio serve"
    (tmp_path / "weather.py").write_text(PROGRAMS[0], encoding="utf-8")
    with served("--port", "0", "--database", "memory") as (_, told):
        match = re.search(r"export SPEKO_BASE_URL=(\S+) SPEKO_API_KEY=(\S+)", told)
        assert match is not None, told
        env = environment(SPEKO_BASE_URL=match[1], SPEKO_API_KEY=match[2])
        done = run([sys.executable, "weather.py"], cwd=tmp_path, env=env)
    assert (done.stdout, done.stderr) == ("It rains in paris.\n", "")
    assert "It prints `It rains in paris.`" in README
    assert read_wav(tmp_path / "answer.wav").seconds > 0.5


@pytest.mark.speech
def test_the_commands_that_need_nothing_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("SPEKO_BASE_URL", "SPEKO_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    commands = [shlex.split(line, comments=True)[1:] for line in block("commands").splitlines()]
    assert [command[0] for command in commands] == ["say", "say", "say", "bench"]
    # The bench has its own tests; this tests the command line.
    commands[3] += ["--seconds", "0.5", "--sessions", "2"]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    assert read_wav(tmp_path / "again.wav").seconds > 0.5
    assert len(HistoryItem.from_json((tmp_path / "talk.json").read_bytes())) == 2


def test_the_other_commands_are_commands() -> None:
    commands = re.findall(r"^\| `speko-anyio ([^`]*)`", README, re.MULTILINE)
    commands += re.findall(r"^SPEKO_API_KEY=\S+ speko-anyio (.*)$", README, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        assert make_parser().parse_args(shlex.split(command)).command == command.split()[0]


def test_what_is_installed_has_the_extras_that_are_named() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = re.findall(r"pip install '\.\[([a-z,]+)\]'", README)
    assert named == ["trio,cli,gateway,local", "audio"]
    assert {extra for group in named for extra in group.split(",")} <= extras
    assert "pip install speko-anyio" not in README


class Line:
    """Stands for a microphone, and for a loudspeaker that has heard enough when it heard something."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    def feed(self, frame: object) -> None:
        if isinstance(frame, Audio):
            self.heard.append(frame.pcm)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.heard:
            yield bytes(960)
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_the_assistant_with_microphone_and_loudspeaker(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    monkeypatch.setattr(anyio, "run", lambda main: None)
    exec(PROGRAMS[1], names)
    line = Line()
    names |= {"Microphone": lambda *, echo_cancellation: echo_cancellation, "Speaker": lambda: line}
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"local": echo}, api_keys=["sk_readme"])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", "sk_readme")
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            await names["main"]()
    assert set(line.heard) == {bytes(960)}


@pytest.mark.anyio
async def test_the_test_program() -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[3], names)
    with anyio.fail_after(30):
        await names["test_a_question_is_answered"]()


@pytest.mark.anyio
async def test_the_server_program() -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[2], names)
    with anyio.fail_after(30):
        async with (
            running_gateway(names["gateway"]) as url,
            Speko("a-key-of-your-own", url) as speko,
            speko.realtime.connect(provider="parrot", model="any") as session,
        ):
            await session.send_audio(b"\x05\x06" * 480)
            await session.commit()
            async for frame in session:
                if isinstance(frame, Audio):
                    assert frame.pcm == b"\x05\x06" * 480
                    break
                assert not isinstance(frame, Transcript)


def test_the_two_commands_name_sessions_that_exist() -> None:
    noxfile = NOXFILE.read_text()
    commands = re.findall(r"<!-- (?:demo|test)-command -->\n```sh\n(.*?)\n```", README)
    assert len(commands) == 2
    for command in commands:
        session = command.split("nox -s ")[1]
        assert f"def {session}(session" in noxfile


def test_an_older_python_is_told_at_once_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    source = NOXFILE.read_text()
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    # pip gives an old Python an old nox; what that reads, and its Python parses, comes first.
    ast.parse(source, feature_version=(3, 7))
    for version in ((3, 8, 20), (3, 9, 2), (3, 10, 12)):
        monkeypatch.setattr(sys, "version_info", version)
        monkeypatch.setattr(sys, "version", f"{'.'.join(map(str, version))} (main)")
        monkeypatch.setitem(sys.modules, "nox", None)
        with pytest.raises(SystemExit) as exit_:
            exec(compile(source, "noxfile.py", "exec"), {})
        assert str(exit_.value).startswith(
            f"speko-anyio needs Python {requires.removeprefix('>=')} or newer, and this is Python "
            f"{sys.version.split()[0]}: delete .venv and start again"
        )
    assert f"You need Python {requires.removeprefix('>=')} or newer" in README


def test_no_page_installs_from_where_the_package_is_not() -> None:
    assert "The package is not on PyPI yet" in README
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        assert not re.search(r"pip install (\S+ )*'?speko-anyio", page.read_text(encoding="utf-8")), page
