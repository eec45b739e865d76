"""`speko-anyio gateway check`: what would keep a gateway from starting, and what is unwise."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import FAILED, USAGE
from speko_anyio.cli._gateway_options import gateway_of
from speko_anyio.gateway import Gateway, MemoryStore, SQLStore
from speko_anyio.gateway._settings import Settings
from speko_anyio.gateway.store._database import Database

SECRET = "8a6f7c21d0e94b35a1f8037ce2d96b4f"
KEY = "sk_hidden_Qm3vT9xLzR4cYb7NwK2p"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["gateway", "check", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_shows_every_setting_where_it_stands_and_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'secret = "{SECRET}"\nmetrics = true\n')
    monkeypatch.setenv("SPEKO_GATEWAY_KEYS", KEY)
    code, out, err = checked(capsys, "--config", str(file), "--database", "memory")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("      ")}
    assert lines["metrics"].split() == ["metrics", "True", str(file)]
    assert lines["secret"].split() == ["secret", "(set)", str(file)]
    assert lines["keys"].split() == ["keys", "(set)", "SPEKO_GATEWAY_KEYS"]
    assert lines["database"].split() == ["database", "(set)", "--database"]
    assert lines["host"].split() == ["host", "127.0.0.1", "default"]
    assert "ok    providers: echo" in out
    assert "ok    records: in memory" in out
    assert "ok    address: 127.0.0.1:0" in out
    assert KEY not in out
    assert SECRET not in out
    assert "note" not in out


def test_what_is_unwise_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "HOST": "0.0.0.0",
        "METRICS": "1",
        "PLAYGROUND": "1",
        "PUBLIC_URL": "http://voice.example.com",
    }.items():
        monkeypatch.setenv(f"SPEKO_GATEWAY_{name}", text)
    code, out, _ = checked(capsys, "--database", "memory")
    assert code == 0
    notes = [line for line in out.splitlines() if line.startswith("note")]
    for what in ("no API key", "secret is not set", "public_url is http", "playground is on", "/metrics"):
        assert any(what in note for note in notes), what
    assert len(notes) == 5


def test_a_database_is_opened_and_its_keys_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    database = str(tmp_path / "gateway.db")
    assert main(["keys", "create", "--name", "phone", "--database", database]) == 0
    capsys.readouterr()
    code, out, _ = checked(capsys, "--database", database)
    assert code == 0
    assert "with 1 usable API key\n" in out
    assert "no API key" not in out


def test_a_database_whose_keys_are_revoked_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = str(tmp_path / "gateway.db")
    assert main(["keys", "create", "--name", "phone", "--database", database]) == 0
    key_id = capsys.readouterr().out.split()[1]
    assert main(["keys", "revoke", key_id, "--database", database]) == 0
    capsys.readouterr()
    code, out, _ = checked(capsys, "--database", database)
    assert code == 0
    assert "with 0 usable API keys" in out
    assert "no API key works: nobody can create a session" in out
    assert "generates an API key" not in out
    code, out, _ = checked(capsys, "--database", database, "--temporary-key")
    assert "generates an API key" in out


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("KEYS", "sk_short", "the API key has 48 bits at most"),
        ("KEYS", f"{KEY},{'ab' * 30}", "API key 2 of 2 has"),
        ("SECRET", "0123456789" * 4, "the secret has"),
    ],
)
def test_a_key_or_a_secret_that_can_be_guessed_is_refused(
    name: str, text: str, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `gateway check`, and by `serve`, which must start whatever the check accepts and nothing else."""
    monkeypatch.setenv(f"SPEKO_GATEWAY_{name}", text)
    code, out, err = checked(capsys, "--database", "memory")
    assert code == USAGE
    assert err.startswith(f"speko-anyio: SPEKO_GATEWAY_{name}: {what}")
    assert "can be guessed; use one of 128 bits or more" in err
    assert err.count("\n") == 1
    assert text not in out + err
    assert main(["serve", "--database", "memory"]) == USAGE
    assert capsys.readouterr().err == err


def test_a_weak_key_keeps_nobody_from_making_a_better_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_KEYS", "sk_short")
    database = str(tmp_path / "gateway.db")
    assert main(["keys", "create", "--name", "phone", "--database", database]) == 0


def test_a_database_that_cannot_be_used_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "gateway.db").write_text("this is no database, however long one looks at it " * 100)
    code, _, err = checked(capsys, "--database", str(tmp_path / "gateway.db"))
    assert code == FAILED
    assert err.startswith("speko-anyio: ")
    assert err.count("\n") == 1


def test_a_wrong_setting_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_LOG_LEVEL", "loud")
    code, out, err = checked(capsys)
    assert code == USAGE
    assert "ok    providers" not in out
    assert err.strip() == (
        "speko-anyio: SPEKO_GATEWAY_LOG_LEVEL: log_level is invalid; it must be debug, error, info or warning"
    )


def test_every_fault_is_told_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gateway.toml").write_text("drain_secs = 4\nmetrics = 7\n")
    for name, text in {
        "PORT": "70000",
        "LOG_FORMAT": "yaml",
        "PUBLIC_URL": "voice.example.com",
        "ALLOWED_ORIGINS": "app.example.com,http://fine.example.com,https://app.example.com:443",
        "DATABASE": "mysql://db/speko",
        "HANDLERS": "echo=json:dumps,my-bot=users_nowhere:bot",
        "HOST": "a..b",
    }.items():
        monkeypatch.setenv(f"SPEKO_GATEWAY_{name}", text)
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    monkeypatch.setenv("OPENAI_BASE_URL", "nowhere")
    monkeypatch.setenv("XAI_API_KEY", "sk")
    monkeypatch.setenv("XAI_BASE_URL", "nowhere")
    code, out, err = checked(capsys, "--config", str(tmp_path / "gateway.toml"))
    assert code == USAGE
    lines = err.splitlines()
    assert all(line.startswith("speko-anyio: ") for line in lines)
    for what in (
        "unknown setting drain_secs; did you mean drain_seconds?",
        "metrics is invalid; it must be true or false",
        "SPEKO_GATEWAY_PORT: port is invalid; it must be a whole number from 0 to 65535",
        "SPEKO_GATEWAY_LOG_FORMAT: log_format is invalid; it must be json or text",
        "SPEKO_GATEWAY_PUBLIC_URL: public_url is not a URL",
        "SPEKO_GATEWAY_ALLOWED_ORIGINS: 'app.example.com' is not an origin",
        "SPEKO_GATEWAY_ALLOWED_ORIGINS: 'https://app.example.com:443' names its usual port",
        "the database's URL",
        "the handler's name echo",
        "users_nowhere",
        "can't listen on a..b",
        "OPENAI_BASE_URL",
        "XAI_BASE_URL",
    ):
        assert [what in line for line in lines].count(True) == 1, what
    assert len(lines) == 13
    assert "note" not in out


def test_variables_of_a_service_are_no_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "tcp://10.96.7.8:8000")
    monkeypatch.setenv("SPEKO_GATEWAY_SERVICE_HOST", "10.96.7.8")
    code, out, err = checked(capsys, "--database", "memory")
    assert "SPEKO_GATEWAY_PORT and 1 more ignored" in out
    assert "port is invalid" not in err
    assert code in (0, USAGE), "8000 may be taken"


def test_retentions_are_in_days(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    retentions: list[object] = []

    class Told(Gateway):
        def __init__(self, **options: Any) -> None:
            retentions.append((options["transcript_retention"], options["record_retention"]))
            super().__init__(**options)

    monkeypatch.setattr("speko_anyio.cli._gateway_options.Gateway", Told)
    monkeypatch.setenv("SPEKO_GATEWAY_TRANSCRIPT_DAYS", "0.5")
    assert checked(capsys, "--database", "memory")[0] == 0
    monkeypatch.setenv("SPEKO_GATEWAY_RECORD_DAYS", "30")
    assert checked(capsys, "--database", "memory")[0] == 0
    # Each setting is tried alone first.
    assert {(43_200.0, None), (43_200.0, 2_592_000.0)} <= set(retentions)
    assert retentions[-1] == (43_200.0, 2_592_000.0)
    monkeypatch.setenv("SPEKO_GATEWAY_RECORD_DAYS", "0.9")
    code, _, err = checked(capsys, "--database", "memory")
    assert code == USAGE
    assert "record_days is invalid; it must be a number, 1 or more" in err


def test_a_public_url_that_makes_no_sense_is_told_before_a_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_PUBLIC_URL", "voice.example.com")
    code, _, err = checked(capsys, "--database", "memory")
    assert code == USAGE
    assert "public_url is not a URL" in err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SPEKO_GATEWAY_PORT", str(port))
        code, _, err = checked(capsys, "--database", "memory")
    assert code == USAGE
    assert f"can't listen on 127.0.0.1:{port}" in err


def test_it_takes_every_option_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--host", "127.0.0.1", "--port", "0", "--public-url", "https://voice.example.com"]
    options += ["--no-playground", "--drain-seconds", "3", "--transcript-days", "1", "--record-days", "2"]
    assert main(["gateway", "check", *options, "--database", "memory", "--backend", "asyncio"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ +drain_seconds +3(\.0)? +--drain-seconds$", out, re.MULTILINE)
    assert re.search(r"^ +port +0 +--port$", out, re.MULTILINE)


@pytest.mark.speech
def test_the_offline_voice_s_ear_is_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPEKO_GATEWAY_EAR", "pocketsphinx")
    code, out, _ = checked(capsys, "--database", "memory")
    assert code == 0
    assert re.search(r"^ +ear +pocketsphinx +SPEKO_GATEWAY_EAR$", out, re.MULTILINE)
    pytest.importorskip("faster_whisper")
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    code, out, _ = checked(capsys, "--database", "memory", "--ear", f"whisper:{tmp_path}")
    assert code == 0
    assert re.search(rf"^ +ear +whisper:{re.escape(str(tmp_path))} +--ear$", out, re.MULTILINE)
    code, out, err = checked(capsys, "--database", "memory", "--ear", f"whisper:{tmp_path}/nowhere")
    assert code == USAGE
    assert f"found no folder {tmp_path}/nowhere; name one that holds a Whisper model" in err
    gateway = gateway_of(Settings(ear="whisper"), MemoryStore(), keys=[KEY], playground=False)
    assert "local" in gateway.providers


@pytest.mark.parametrize("ear", ["tiny.en", "whisper:", "pocketsphinx:x", ""])
def test_an_unknown_ear_is_told(ear: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = checked(capsys, "--database", "memory", f"--ear={ear}")
    assert code == USAGE
    assert f"--ear: unknown ear {ear!r}; choose pocketsphinx, or a model as in whisper:tiny.en" in err


def test_an_ear_without_its_extra_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    code, _, err = checked(capsys, "--database", "memory", "--ear=whisper:tiny.en")
    assert code == USAGE
    assert "needs faster_whisper, which is not installed; install speko-anyio with the extra `whisper`" in err


def test_a_missing_database_file_is_not_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "deep" / "down" / "gateway.db"
    code, out, _ = checked(capsys, "--database", str(database))
    assert code == 0
    assert f"ok    records: sqlite:///{database}, which `serve` will create\n" in out
    assert "generates an API key for one run" in out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "deep").write_text("no folder")
    code, _, err = checked(capsys, "--database", str(database))
    assert code == FAILED
    assert err == (
        f"speko-anyio: can't make the database {database}: {tmp_path / 'deep'} can't be written; "
        "choose another path\n"
    )


def test_old_tables_are_left_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.db"
    database = Database(str(path))
    database.do(lambda connection: connection.exec_driver_sql("CREATE TABLE api_keys (key_id TEXT)"))
    database.close()
    before = path.read_bytes()
    code, out, _ = checked(capsys, "--database", str(path))
    assert code == 0
    assert "whose tables the start brings up to date" in out
    assert path.read_bytes() == before


def test_checking_changes_nothing_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "gateway.db"

    async def make() -> None:
        # Closed at once: otherwise its last connection changes the file whenever it is collected.
        async with SQLStore(str(database)):
            pass

    asyncio.run(make())
    before = database.read_bytes()
    code, _, _ = checked(capsys, "--database", str(database))
    assert code == 0
    assert database.read_bytes() == before
