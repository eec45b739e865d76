"""No model that this project names is about to be switched off, and users of one that is get a warning."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from speko_anyio import GoogleOptions, OpenAIOptions, XAIOptions
from speko_anyio._accounts import PROVIDERS
from speko_anyio.cli._connecting import usual_model
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.models import ANNOUNCED_ENDS, announced_end, end_notes
from speko_anyio.providers.openai import OpenAIDialect

ROOT = Path(__file__).parents[2]
AHEAD = dt.timedelta(days=30)
"""Enough time to release a version with another default."""

TABLES = {
    ROOT / "src/speko_anyio/providers/models.py",
    ROOT / "src/speko_anyio/testing/providers/_openai.py",
    ROOT / "docs/provider_table.py",
    ROOT / "docs/provider-table.md",
}
"""These list the models that there are, and when they end; they recommend none."""
_WORD = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?")
_QUOTED = re.compile(r"""["'`]([A-Za-z0-9](?:[\w.-]*\w)?)["'`]""")

Named = tuple[str, str]
"""Where a model is named, and its name."""


def defaults() -> Iterator[Named]:
    for kind in PROVIDERS:
        yield f"{kind.__name__}.usual_model", kind.usual_model
        yield f"the command's model for {kind.name}", usual_model(kind.name)
        for alias, model in kind.speko_models.items():
            yield f"{kind.__name__}.speko_models[{alias!r}]", model
    for options in (OpenAIOptions(), XAIOptions(), GoogleOptions()):
        transcription: str | None = getattr(options, "transcription_model", None)
        if transcription is not None:
            yield f"{type(options).__name__}.transcription_model", transcription


def texts() -> Iterator[Named]:
    """Every word of the pages, the examples and the playground, and every quoted name in the sources:
    patterns for older models there are not advice. The tests may name any model."""
    for folder in ("src", "docs", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".js", ".html", ".jsonl", ".toml") and path not in TABLES:
                yield from words(path, _QUOTED if folder == "src" and path.suffix == ".py" else _WORD)
    yield from words(ROOT / "README.md")


def words(path: Path, pattern: re.Pattern[str] = _WORD) -> Iterator[Named]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for word in pattern.findall(line):
            yield f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{number}", word


def ending(named: Iterable[Named], today: dt.date) -> list[str]:
    """A sentence for each of `named` that ends within `AHEAD` of `today`, or has ended."""
    found = []
    for where, model in named:
        end = announced_end(model)
        if end is not None and dt.date.fromisoformat(end.date) - AHEAD <= today:
            found.append(f"{where} names {model}, which ends on {end.date}: use {end.successor}")
    return found


def test_no_default_ends_within_30_days() -> None:
    assert ending(defaults(), dt.date.today()) == []  # noqa: DTZ011 - a day more or less does not matter


def test_no_model_named_in_sources_and_pages_ends_within_30_days() -> None:
    assert ending(texts(), dt.date.today()) == []  # noqa: DTZ011


@pytest.mark.parametrize(
    ("today", "expected"),
    [
        ("2026-12-20", []),
        ("2026-12-21", ["a page names gpt-realtime, which ends on 2027-01-20: use gpt-realtime-2.1"]),
        ("2027-03-01", ["a page names gpt-realtime, which ends on 2027-01-20: use gpt-realtime-2.1"]),
    ],
)
def test_a_model_is_found_30_days_before_its_end(today: str, expected: list[str]) -> None:
    named = [("a page", "gpt-realtime"), ("a page", "gpt-realtime-2.1"), ("a page", "words")]
    assert ending(named, dt.date.fromisoformat(today)) == expected


def test_a_model_is_found_wherever_a_page_names_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('Use `gpt-realtime-2.1`.\nconnect(model="gpt-realtime-mini-2025-12-15").\n"whisper-1"!\n')
    assert ending(words(page), dt.date(2027, 2, 1)) == [
        "page.md:2 names gpt-realtime-mini-2025-12-15, which ends on 2027-01-20: use gpt-realtime-2.1-mini",
        "page.md:3 names whisper-1, which ends on 2027-02-26: use gpt-live-transcribe",
    ]


def test_a_source_is_searched_for_names_in_quotes(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text('model = "whisper-1"\nOLD = r"gpt-realtime(-mini)?"\n"""Such as ``whisper-1``."""\n')
    assert [where for where, model in words(source, _QUOTED) if announced_end(model)] == [
        "source.py:1",
        "source.py:3",
    ]


def test_the_defaults_are_looked_at() -> None:
    named = dict(defaults())
    assert named["OpenAI.usual_model"] == named["the command's model for openai"]
    assert named["OpenAIOptions.transcription_model"] == OpenAIOptions().transcription_model
    assert named["XAI.speko_models['grok-voice-beta']"] == "grok-voice-latest"


def test_the_playground_proposes_the_usual_models() -> None:
    source = (ROOT / "src/speko_anyio/gateway/_playground/app.js").read_text(encoding="utf-8")
    match = re.search(r"const MODELS = \{(.*?)\};", source)
    assert match is not None
    assert dict(re.findall(r'(\w+): "([^"]+)"', match[1])) == {
        kind.name: kind.usual_model for kind in PROVIDERS
    }


def test_every_entry_has_a_date_and_a_successor_that_lives() -> None:
    for end in ANNOUNCED_ENDS:
        assert dt.date.fromisoformat(end.date).isoformat() == end.date
        assert announced_end(end.successor) is None
        assert end.source
    assert len({end.model for end in ANNOUNCED_ENDS}) == len(ANNOUNCED_ENDS)


@pytest.mark.parametrize("model", ["gpt-realtime-2.1-mini", "gpt-realtime-whisper", "any", ""])
def test_a_model_that_lives_has_no_end(model: str) -> None:
    assert announced_end(model) is None
    assert end_notes(model, None) == []


def test_a_session_with_a_model_that_ends_says_so() -> None:
    note = "the provider has announced the end of gpt-realtime-mini-2025-12-15 for 2027-01-20: use "
    for model, expected in (
        ("gpt-realtime-mini-2025-12-15", (note + "gpt-realtime-2.1-mini",)),
        ("gpt-realtime-2.1", ()),
    ):
        dialect = OpenAIDialect(SessionConfig(provider="openai", model=model))
        assert dialect.notes == expected
