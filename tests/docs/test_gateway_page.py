"""docs/gateway.md names every setting and every metric there is, and no other."""

from __future__ import annotations

import gc
import re
import subprocess
import tomllib
from pathlib import Path

import anyio
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from speko_anyio.cli import main
from speko_anyio.gateway._metrics import Metrics
from speko_anyio.gateway._settings import Settings, is_service_link
from speko_anyio.gateway._stream import STOP_REASON
from speko_anyio.gateway.store import SessionOutcome
from speko_anyio.gateway.store import _database as database
from speko_anyio.gateway.store.sql import PURGE_PATIENCE
from speko_anyio.protocol import Close, close_codes
from speko_anyio.protocol._dialect import OVER_BUDGET
from tests.gateway.support import load_settings
from tests.support.serve import served

from .programs import DOCS, programs

PAGE = (DOCS / "gateway.md").read_text(encoding="utf-8")
STORAGE = (DOCS / "gateway-storage.md").read_text(encoding="utf-8")


def rows(section: str) -> dict[str, list[str]]:
    """Return the rows of a section's tables, without the first cell, by its name."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, section
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    return {first.strip("`"): rest for first, *rest in found if first.startswith("`")}


def shown(value: object) -> str:
    """Return a default as the page shows it."""
    match value:
        case None | () | {}:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"


def test_every_setting_is_told_with_its_default() -> None:
    told = rows("Settings")
    defaults = msgspec.structs.asdict(Settings())
    assert list(told) == list(defaults)
    assert {name: default for name, (default, _) in told.items()} == {
        name: shown(default) for name, default in defaults.items()
    }


def test_the_file_of_settings_is_a_good_one(tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "gateway.toml"
    # The first piece and those that a reader may add to it.
    file.write_text("\n".join(texts))
    assert load_settings(file, {}).sources.keys() == tomllib.loads(file.read_text()).keys()


def test_every_metric_is_told_with_its_labels() -> None:
    metrics = Metrics(lambda: ())
    # A metric with labels shows them once it has counted something.
    metrics.minted(201)
    metrics.called("twilio", 200)
    metrics.connected("twilio", 101)
    metrics.started("echo")
    metrics.answered("echo", 0.1)
    metrics.failed("echo", "TIRED")
    metrics.ended("echo", SessionOutcome(close=Close(close_codes.POLICY, OVER_BUDGET, "local")), 1.0)
    counted = {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in text_string_to_metric_families(metrics.render().decode())
        if not family.name.endswith("_created")
    }
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, (labels, _) in rows("Metrics").items()}
    assert told.keys() == counted.keys()
    of_open_sessions = {"speko_sessions": {"provider"}}
    assert told == counted | of_open_sessions


@pytest.mark.parametrize(
    "command", re.findall(r"speko-anyio (serve|gateway check|gateway migrate|keys \w+|bench)", PAGE)
)
def test_the_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: speko-anyio {command}")


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            name
            for line in re.findall(r"speko-anyio ([^`\n]*)", PAGE)
            for name in re.findall("--[a-z-]+", line)
        }
    ),
)
def test_the_options_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    helps = ""
    for command in ("serve", "gateway check", "keys create", "bench"):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        helps += capsys.readouterr().out
    assert name in helps


def test_the_reason_of_a_restart_is_the_one_that_clients_get() -> None:
    sessions = " ".join(PAGE.partition("## Graceful shutdown")[2].partition("\n## ")[0].split())
    assert f"{close_codes.SERVICE_RESTART} and the reason *{STOP_REASON}*" in sessions


@pytest.mark.parametrize("variable", re.findall(r"`(SPEKO_GATEWAY_(?:SERVICE|PORT)\w*(?:=\S+)?)`", PAGE))
def test_the_variables_that_are_ignored_are(variable: str) -> None:
    name, _, text = variable.partition("=")
    assert is_service_link(name, text)


def test_service_links_are_told() -> None:
    assert re.search(r"`SPEKO_GATEWAY_SERVICE_HOST`", PAGE)
    assert "Kubernetes" in PAGE


def test_poolers_are_told_with_the_numbers_of_the_store() -> None:
    told = " ".join(STORAGE.partition("## Connection poolers")[2].partition("\n## ")[0].split())
    assert told.startswith("The store works behind PgBouncer with its default settings")
    assert f"limits of {database.PATIENCE:g} seconds for statements, locks and idle transactions" in told
    assert f"({PURGE_PATIENCE:g} for deleting expired records) are set within each transaction" in told
    work, reading, lookups = database.WORKERS, database.READERS, database.LOOKUPS
    assert (
        f"opens at most {work + reading + lookups} connections: {work} to change records, {reading} to read "
        f"them and {lookups} to look up keys"
    ) in told
    assert "no start-up `options`" in told
    assert "no prepared statements" in told


def test_the_files_of_the_deployment_exist() -> None:
    for name in ("Dockerfile", "compose.yaml", "nginx.conf"):
        assert f"`{name}`" in PAGE
        assert (DOCS.parent / "deploy" / name).is_file()


def lines(text: str) -> list[str]:
    """Return the lines of an output without what differs from run to run."""
    text = re.sub(r"sk_local_\S+", "KEY", re.sub(r"127\.0\.0\.1:\d+", "HOST", text))
    return re.sub(r"^(records +).*$", r"\1STORE", text, flags=re.MULTILINE).splitlines()


@pytest.mark.speech
def test_serve_prints_what_the_page_shows() -> None:
    (shown_output,) = re.findall(r"^\$ speko-anyio serve\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    with served("--port", "0", "--database", "memory", stderr=subprocess.DEVNULL) as (_, told):
        assert lines(told) == lines(shown_output)


def test_the_command_for_keys_prints_what_the_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown_output,) = re.findall(
        r"^\$ speko-anyio keys create [^\n]*\n(.*?)\$", PAGE, re.DOTALL | re.MULTILINE
    )
    database = str(tmp_path / "gateway.db")
    assert (
        main(["keys", "create", "--name", "phone-bot", "--max-sessions", "20", "--database", database]) == 0
    )
    random = re.compile(r"(key|sk)_\S+")
    told = capsys.readouterr()
    assert random.sub("RANDOM", told.out + told.err) == random.sub("RANDOM", shown_output)


@pytest.mark.anyio
async def test_the_program_that_spares_collections() -> None:
    (program,) = programs("gateway.md")
    frozen: list[tuple[str, int]] = []

    async def serve_until_stopped(url: str) -> None:
        frozen.append((url, gc.get_freeze_count()))

    try:
        with anyio.fail_after(20):
            await program.load(serve_until_stopped=serve_until_stopped)["main"]()
    finally:
        gc.unfreeze()
    ((url, count),) = frozen
    assert url.startswith("http://127.0.0.1:")
    assert count > 10_000
