"""The page on the offline voice: its program, and that it answers what the page says that one can say."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import anyio
import pytest

from speko_anyio import ResponseEnd, Transcript
from speko_anyio.gateway.engines import Message, ToolRequest
from speko_anyio.gateway.local import LocalVoice, SmallTalk
from speko_anyio.gateway.local._dialogue import GREETING, NOT_UNDERSTOOD
from speko_anyio.protocol.mint import ToolSpec
from speko_anyio.testing import fake_session, run_handler

from .programs import DOCS, programs

(BRAIN,) = programs("offline-voice.md")
PAGE = (DOCS / "offline-voice.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.anyio


@pytest.mark.speech
async def test_a_brain_is_replaced_in_ten_lines() -> None:
    brain = BRAIN.load()["Echo"]
    assert len(BRAIN.source.partition("class")[2].strip().splitlines()) <= 10
    with anyio.fail_after(60):
        async with (
            LocalVoice(brain=brain()) as voice,
            fake_session(run_handler(voice)) as (session, _),
        ):
            await session.send_text("Hello!")
            said = []
            async for frame in session:
                if isinstance(frame, Transcript) and frame.final:
                    said.append(frame.text)
                if isinstance(frame, ResponseEnd):
                    break
    assert said == ["You said: Hello!."]


def examples() -> list[tuple[str, str]]:
    """Return what the table says that one can say, each with the beginning of the row's answers."""
    table = PAGE.partition("| say | it answers |")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines() if row.startswith('| "')]
    return [(said, row[-1]) for row in rows for said in re.findall(r'"([^"]+)"', row[0])]


WEATHER = ToolSpec(name="get_weather", parameters={"properties": {"city": {"type": "string"}}})


@pytest.mark.parametrize(("said", "answers"), examples())
async def test_it_answers_what_the_page_says(said: str, answers: str) -> None:
    brain = SmallTalk(now=lambda: datetime(2026, 3, 4, 14, 5, tzinfo=UTC))
    before = [Message("user", "hello"), Message("assistant", GREETING), Message("user", said)]
    parts = [part async for part in brain.answer(before, [WEATHER])]
    for part in parts:
        assert part not in NOT_UNDERSTOOD
        if isinstance(part, str) and answers.startswith('"'):
            assert f'"{part}"' in answers
        if isinstance(part, ToolRequest):
            assert "timer" in answers + said or part.name in answers


def test_the_page_quotes_what_it_says() -> None:
    plain = " ".join(PAGE.split())
    assert NOT_UNDERSTOOD[0] in plain
    assert GREETING in plain


def test_the_page_tells_what_was_measured() -> None:
    file = DOCS.parent / "benchmarks" / "results" / "voice.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    for ear, rows in found["ears"].items():
        people, voice = rows["people"], rows["hibari-tts"]
        rates = [f"{each['wrong'] / each['words']:.0%}".replace("%", " %") for each in (people, voice)]
        times = sorted(f"{each['seconds'] * 1000:.0f}" for each in (people, voice))
        (row,) = re.findall(rf"\| {re.escape(ear)}[^|]*\|(.*)\|\n", PAGE)
        assert [cell.strip() for cell in row.split("|")] == [*rates, " to ".join(times)]
    delays = found["delays"]["hibari-tts"].values()
    assert {f"{each['p99'] * 1000:.0f}" for each in delays} == set(re.findall(r"within (\d+) ms in 99", PAGE))
    assert max(each["p99"] for each in delays) < 0.3
