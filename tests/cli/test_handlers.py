"""Handlers of one's own: `serve` finds and serves them, `gateway check` tells what is wrong with them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import USAGE
from speko_anyio.gateway._session_handlers import OWN_NAMES, default_handlers

from .served import ask_and_stop

BOTS = """
import functools

from speko_anyio.gateway import echo

class Bot:
    async def __call__(self, session):
        await echo(session)

class Bots:
    inner = Bot()

async def reply(session): await echo(session)
async def greet(greeting, session): ...
async def generator(session): yield
async def no_session(): ...
async def two(session, other): ...
def blocking(session): ...
bot, hello, text = Bot(), functools.partial(greet, "hi"), "text"
"""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder to be in, where a user's module is, and from which nothing is imported so far."""
    (tmp_path / "users_bots.py").write_text(BOTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")
    monkeypatch.setenv("SPEKO_GATEWAY_DATABASE", "memory")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[name]


def told(capsys: pytest.CaptureFixture[str], *handlers: str) -> str:
    """What `gateway check` says of handlers that can't be used."""
    given = [argument for handler in handlers for argument in ("--handler", handler)]
    assert main(["gateway", "check", *given]) == USAGE
    out, err = capsys.readouterr()
    assert "\nok    providers" not in out
    assert err.count("\n") == 1, err
    return err.removeprefix("speko-anyio: ").strip()


@pytest.mark.parametrize("attribute", ["reply", "bot", "hello", "Bots.inner"])
def test_coroutine_functions_and_objects_that_are_called_like_one(
    attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gateway", "check", "--handler", f"my-bot=users_bots:{attribute}"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^ +handlers +my-bot=users_bots:{attribute} +--handler$", out, re.MULTILINE)
    names = ", ".join(sorted([*default_handlers(), "my-bot"]))
    assert f"ok    providers: {names}\n" in out


def test_they_stand_in_the_file_and_the_environment_too(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "gateway.toml").write_text('[handlers]\none = "users_bots:bot"\n"two.b" = "users_bots:reply"\n')
    check = ["gateway", "check", "--config", "gateway.toml"]
    assert main(check) == 0
    assert "one=users_bots:bot, two.b=users_bots:reply  gateway.toml" in capsys.readouterr().out
    monkeypatch.setenv("SPEKO_GATEWAY_HANDLERS", "three=users_bots:bot, four = users_bots:reply,")
    assert main(check) == 0
    out = capsys.readouterr().out
    assert "three=users_bots:bot, four=users_bots:reply  SPEKO_GATEWAY_HANDLERS" in out
    assert "two.b" not in out
    assert main([*check, "--handler", "five=users_bots:bot"]) == 0
    out = capsys.readouterr().out
    assert "five" in out
    assert "three" not in out


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("users_nowhere:reply", "there is no module users_nowhere, here or installed; check the name"),
        ("users_bots.deeper:reply", "there is no module users_bots.deeper, here or installed"),
        ("users_bots:nobody", "users_bots has no nobody"),
        ("users_bots:bot.nobody", "users_bots has no bot.nobody"),
        ("users_bots", "'users_bots' names nothing; write module:attribute"),
        (".users_bots:reply", "'.users_bots:reply' names nothing; write module:attribute"),
        ("users_bots:", "'users_bots:' names nothing"),
        ("users_bots:Bot", "it is a class; use an instance of it"),
        ("users_bots:blocking", "it is not async; write `async def` with one argument, the session"),
        ("users_bots:generator", "it is not async"),
        ("users_bots:text", "it is not async"),
        ("users_bots:two", "it can't be called with the session alone"),
        ("users_bots:no_session", "it can't be called with the session alone"),
    ],
)
def test_what_is_no_handler(target: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, f"my-bot={target}")
    assert f"the handler my-bot={target}: " in line
    assert expected in line


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\n\nos.environ['USERS_KEY']\n", r"KeyError: 'USERS_KEY' \(.*users_broken\.py, line 3\)$"),
        ("import users_missing\n", "there is no module users_missing, here or installed; check the name$"),
        ("def (:\n", r"SyntaxError: .*\(users_broken\.py, line 1\)$"),
        ("raise SystemExit(0)\n", r"SystemExit: 0 \(.*users_broken\.py, line 1\)$"),
        ("from users_bots import nobody\n", "ImportError: cannot import name 'nobody'"),
    ],
)
def test_a_module_that_cant_be_imported(
    here: Path, source: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "users_broken.py").write_text(source)
    line = told(capsys, "my-bot=users_broken:reply")
    assert line.startswith("can't load the handler my-bot=users_broken:reply: ")
    assert re.search(expected, line), line


@pytest.mark.parametrize("name", sorted(OWN_NAMES))
def test_the_names_of_the_gateway_s_own_are_not_to_be_had(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told(capsys, f"{name}=users_bots:bot")
    assert line == f"the handler's name {name} is one of the gateway's own; choose another"


def test_the_gateway_s_own_names_are_all_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "XAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, "sk")
    monkeypatch.setattr("speko_anyio.gateway._session_handlers.find_spec", lambda name: None)
    assert default_handlers().keys() | {"local"} == OWN_NAMES


@pytest.mark.parametrize("name", [".bot", "my bot", "böt", "b" * 65])
def test_a_name_is_one_that_labels_and_urls_can_hold(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{name!r} can't be a handler's name" in told(capsys, f"{name}=users_bots:bot")


@pytest.mark.parametrize("text", ["users_bots:bot", "=users_bots:bot", "my-bot=", ""])
def test_a_handler_has_a_name_and_a_place(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, text) == f"--handler: {text!r} is not a handler; write name=module:attribute"


def test_a_name_is_given_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    twice = "two handlers are named my-bot; rename one"
    assert told(capsys, "my-bot=users_bots:bot", "my-bot=users_bots:reply") == f"--handler: {twice}"
    monkeypatch.setenv("SPEKO_GATEWAY_HANDLERS", "my-bot=users_bots:bot,my-bot=users_bots:bot")
    assert told(capsys) == f"SPEKO_GATEWAY_HANDLERS: {twice}"


def test_it_is_served(here: Path) -> None:
    serve = ("--database", "memory", "--handler", "my-bot=users_bots:bot")
    # -P: without the current folder in the path, as an installed command is started.
    ask_and_stop(here, provider="my-bot", serve=serve, python=("-P",))
