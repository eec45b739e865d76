"""`speko-anyio keys` and `speko-anyio gateway migrate`: on a file, as an operator types it."""

from __future__ import annotations

import stat
from pathlib import Path

import anyio
import httpx
import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import FAILED, USAGE
from speko_anyio.gateway import Gateway, SQLStore, echo


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "gateway.db")


def create(database: str, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """The new key's id, and the key."""
    assert main(["keys", "create", "--database", database, "--name", "acme", *options]) == 0
    first, second, advice = capsys.readouterr().out.splitlines()
    assert "not shown again" in advice
    return first.removeprefix("id   "), second.removeprefix("key  ")


def listed(database: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["keys", "list", "--database", database]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "NAME", "SCOPES", "LIMITS", "CREATED", "REVOKED"]
    return rows


def mint_status(database: str, key: str) -> int:
    """What a gateway on this database answers to this key."""

    async def ask() -> int:
        gateway = Gateway(handlers={"echo": echo}, store=SQLStore(database))
        async with gateway.running():
            transport = httpx.ASGITransport(app=gateway.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as client:
                body = {"mode": "s2s", "s2s": {"provider": "echo", "model": "m"}}
                headers = {"Authorization": f"Bearer {key}"}
                return (await client.post("/v1/sessions", json=body, headers=headers)).status_code

    return anyio.run(ask)


def test_a_key_works_until_it_is_revoked(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    key_id, key = create(database, capsys)
    assert mint_status(database, key) == 201
    assert main(["keys", "revoke", key_id, "--database", database]) == 0
    assert capsys.readouterr().out.startswith(f"revoked {key_id} (acme)")
    assert mint_status(database, key) == 401


def test_the_list_shows_everything_but_the_keys(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--max-sessions", "3", "--mints-per-minute", "10", "--minutes-per-day", "600"]
    limited_id, limited = create(database, capsys, "--scopes", "admin,mint", *limits)
    other_id, other = create(database, capsys, "--name", "tab\tname")
    first, second = listed(database, capsys)
    assert first.startswith(f"{limited_id}  acme")
    assert "mint,admin" in first
    assert "3 at once, 10 mints/min, 600 min/day" in first
    assert second.startswith(f"{other_id}  tab name")
    assert "mint,read" in second
    assert limited not in first
    assert other not in second


def test_nobody_else_may_read_the_file(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, key = create(database, capsys)
    assert stat.S_IMODE(Path(database).stat().st_mode) == 0o600
    content = b"".join(path.read_bytes() for path in Path(database).parent.iterdir())
    assert b"acme" in content
    assert key.encode() not in content
    assert key.split("_", 2)[2].encode() not in content  # the secret, which may hold an underscore itself


@pytest.mark.parametrize(
    "options",
    [["--scopes", "mint,write"], ["--max-sessions", "0"], ["--minutes-per-day", "x"], ["--scopes", ""]],
)
def test_what_makes_no_key(database: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["keys", "create", "--database", database, "--name", "acme", *options])
    assert exit_.value.code == USAGE
    assert options[0] in capsys.readouterr().err
    assert not Path(database).exists()


def test_a_key_that_is_not_there(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "revoke", "key_1", "--database", database]) == FAILED
    assert "there is no API key key_1" in capsys.readouterr().err


def test_the_environment_names_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SPEKO_GATEWAY_DATABASE", raising=False)
    assert main(["keys", "list"]) == 0
    assert (tmp_path / "xdg" / "speko-anyio" / "gateway.db").exists()
    monkeypatch.setenv("SPEKO_GATEWAY_DATABASE", str(tmp_path / "other.db"))
    assert main(["gateway", "migrate"]) == 0
    assert (tmp_path / "other.db").exists()
    assert "other.db are up to date" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["keys", "list"], ["gateway", "migrate"]])
def test_there_are_no_keys_in_memory(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEKO_GATEWAY_DATABASE", "memory")
    assert main(command) == USAGE
    assert "name a database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("database", "told"),
    [
        ("mysql://user:hunter2@localhost/x", "is of an unknown kind"),
        ("postgresql://user:hunter2@127.0.0.1:1/x", "Connection refused"),
        ("/dev/null/x/gateway.db", "can't make the database"),
    ],
)
def test_a_database_that_can_not_be_used_is_one_line(
    database: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "list", "--database", database]) == FAILED
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert told in err
    assert "hunter2" not in err
