"""Timelines: who spoke when, as it was heard; and their pictures."""

from __future__ import annotations

import re
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from docs import timeline as example
from speko_anyio import Audio, Close, ErrorFrame, Frame, Interruption, ServerToolCall, ToolCall, Transcript
from speko_anyio.audio._pcm import rms_dbfs
from speko_anyio.protocol import (
    AudioIn,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.recording import Moment, Recording, Timeline, draw_timeline, timeline_of
from speko_anyio.recording._timeline import AnswerWait, Mark, ToolRun, Words
from speko_anyio.testing import mumble
from tests.recording.test_recording import recordings

RATE = 1_000  # samples a second, so that a sample is a millisecond


def recorded(*said: tuple[float, Command | Frame]) -> Recording:
    from_client = get_args(Command)
    return Recording(
        moments=[
            Moment(at, "client" if isinstance(what, from_client) else "gateway", what) for at, what in said
        ]
    )


def loud(milliseconds: int) -> bytes:
    return b"\x00\x40\x00\xc0" * (milliseconds // 2)


def spoken(timeline: Timeline) -> list[tuple[float, float, bool]]:
    return [(round(piece.start, 6), round(piece.end, 6), piece.heard) for piece in timeline.assistant]


def test_the_assistant_speaks_as_it_is_played() -> None:
    timeline = timeline_of(
        recorded(
            (1.0, Audio(loud(400), RATE)),
            (1.1, Audio(loud(600), RATE)),  # ahead of its time: played behind the first
            (1.9, Audio(loud(100), RATE)),
            (5.0, Audio(loud(100), RATE)),  # behind a pause
        )
    )
    assert spoken(timeline) == [(1.0, 2.1, True), (5.0, 5.1, True)]
    assert timeline.assistant[0].pcm == loud(1100)
    assert timeline.seconds == pytest.approx(5.1)


def test_an_interruption_keeps_from_being_played_what_was_not_yet() -> None:
    timeline = timeline_of(
        recorded(
            (1.0, Audio(loud(1000), RATE)),
            (1.4, Interruption("user")),
            (1.6, Audio(loud(200), RATE)),
            (9.0, Interruption("assistant")),
        )
    )
    assert spoken(timeline) == [(1.0, 1.4, True), (1.4, 2.0, False), (1.6, 1.8, True)]
    assert [len(piece.pcm) for piece in timeline.assistant] == [800, 1200, 400]
    assert timeline.marks == [
        Mark(1.4, "interruption", "interrupted by the user"),
        Mark(9.0, "interruption", "interrupted by the assistant"),
    ]


def test_an_interruption_before_a_queued_utterance_drops_all_of_it() -> None:
    timeline = timeline_of(
        recorded(
            (1.0, Audio(loud(500), RATE)),
            (1.2, Audio(loud(500), 2 * RATE)),  # of another rate: an utterance of its own, queued
            (1.3, Interruption("user")),
        )
    )
    assert spoken(timeline) == [(1.0, 1.3, True), (1.3, 1.5, False), (1.5, 1.75, False)]


@pytest.mark.parametrize("end", [Commit(), EndTurn()], ids=str)
def test_the_wait_counts_from_the_end_of_the_turn(end: Command) -> None:
    timeline = timeline_of(
        recorded(
            (0.0, AudioIn(loud(500), RATE)),
            (0.8, end),
            (1.0, Audio(loud(100), RATE)),
            (1.1, Audio(loud(100), RATE)),
        )
    )
    assert timeline.waits == [AnswerWait(0.8, 1.0)]
    assert timeline.marks == [Mark(0.8, "commit", "end of turn")]


def test_where_no_command_ends_a_turn_its_last_loud_audio_does() -> None:
    timeline = timeline_of(
        recorded(
            (0.0, AudioIn(loud(500), RATE)),
            (0.5, AudioIn(bytes(1000), RATE)),
            (1.0, AudioIn(bytes(1000), RATE)),
            (1.25, Audio(loud(100), RATE)),
            (1.5, AudioIn(loud(500), RATE)),
            (1.6, Audio(loud(100), RATE)),  # before the user is through: no wait at all
        )
    )
    assert timeline.waits == [AnswerWait(0.5, 1.25)]


def test_transcripts_begin_with_what_they_are_of() -> None:
    timeline = timeline_of(
        recorded(
            (0.2, Transcript("assistant", "before any sound", True)),
            (1.0, AudioIn(loud(500), RATE)),
            (2.0, Transcript("user", "par", False)),
            (2.1, Transcript("user", "partial", True)),
            (3.0, Audio(loud(500), RATE)),
            (3.1, Transcript("assistant", "answer", True)),
        )
    )
    assert timeline.words == [
        Words(0.2, "assistant", "before any sound"),
        Words(1.0, "user", "partial"),
        Words(3.0, "assistant", "answer"),
    ]


def test_tools_run_from_the_call_to_the_result() -> None:
    timeline = timeline_of(
        recorded(
            (1.0, ToolCall("a", "slow", "{}")),
            (1.1, ToolCall("b", "quick", "{}")),
            (1.2, ToolResult("b", "")),
            (1.3, ServerToolCall("s", "search", "started")),
            (1.4, ServerToolCall("s", "search", "failed")),
            (1.5, ServerToolCall("never begun", "x", "completed")),
            (1.6, ToolCall("c", "lost", "{}")),
            (2.0, ToolResult("a", "")),
        )
    )
    assert timeline.tools == [
        ToolRun("slow", 1.0, 2.0),
        ToolRun("quick", 1.1, 1.2),
        ToolRun("search", 1.3, 1.4, failed=True),
        ToolRun("lost", 1.6, None),
    ]


def test_what_is_written_shown_and_asked_for_is_marked() -> None:
    timeline = timeline_of(
        recorded(
            (0.1, TextIn("Be polite.", "system")),
            (0.2, Say("Welcome.")),
            (1.0, TextIn("Hello", respond=True)),
            (1.5, Audio(loud(100), RATE)),
            (2.0, ImageIn("image/png", b"x")),
            (3.0, Respond()),
            (3.4, Audio(loud(100), RATE)),
            (4.0, Update(voice="bob", turns="manual")),
        )
    )
    assert [(mark.at, mark.kind, mark.text) for mark in timeline.marks] == [
        (0.1, "command", "text of the system: Be polite."),
        (0.2, "command", "asked to say: Welcome."),
        (1.0, "command", "text of the user: Hello"),
        (2.0, "command", "image/png"),
        (3.0, "command", "asked to speak"),
        (4.0, "command", "changed: voice, turns"),
    ]
    assert timeline.words == [Words(1.0, "user", "Hello")]
    assert timeline.waits == [AnswerWait(1.0, 1.5), AnswerWait(3.0, 3.4)]


def test_the_rest_are_marks() -> None:
    timeline = timeline_of(
        recorded((1.0, Interrupt()), (2.0, ErrorFrame("BUSY", "wait")), (3.0, Close(1000, "", "remote")))
    )
    assert timeline.marks == [
        Mark(1.0, "interrupt", "interrupt"),
        Mark(2.0, "error", "BUSY: wait"),
        Mark(3.0, "close", "closed 1000"),
    ]
    assert timeline.seconds == 3.0


# Pictures


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


@settings(max_examples=30)
@given(recording=recordings())
def test_every_recording_has_a_picture_that_is_xml_and_within_its_frame(recording: Recording) -> None:
    svg = draw_timeline(recording)
    root = ET.fromstring(svg)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for points in re.findall(r'points="([^"]*)"', svg):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_a_picture_tells_everything() -> None:
    recording = recorded(
        (0.0, AudioIn(mumble(1.0), 24_000)),
        (1.0, Commit()),
        (1.1, Transcript("user", "what <is> it & why", True)),
        (1.3, Audio(mumble(2.0), 24_000)),
        (1.3, ToolCall("a", "look_up", "{}")),
        (1.4, Transcript("assistant", "it is", True)),
        (1.8, ToolResult("a", "")),
        (2.0, Interruption("user")),
        (2.1, ErrorFrame("BUSY", "wait")),
        (2.2, Close(4000, "enough", "remote")),
    )
    recording.provider, recording.model = "openai", "gpt-realtime-2.1"
    said = texts(draw_timeline(recording))
    assert said[0] == "openai · gpt-realtime-2.1"
    summary = "2.2 s · 1 turn, time to first audio 300 ms · 1 interruption · 1 tool call · closed 4000 enough"
    assert said[1] == summary
    for expected in ("300 ms", "look_up · 500 ms", "interrupted by the user", "BUSY: wait"):
        assert expected in said
    assert any(text.startswith("what <is> it & why") for text in said)
    assert texts(draw_timeline(recording, title="Mine"))[0] == "Mine"


def test_an_empty_recording_has_a_picture_too() -> None:
    said = texts(draw_timeline(Recording(session_id="s1")))
    assert said[:2] == ["session s1", "0.0 s"]


def test_long_words_and_long_texts_are_cut_to_their_room() -> None:
    text = "Donaudampfschifffahrtsgesellschaftskapitän " * 8
    svg = draw_timeline(
        recorded(
            (0.0, AudioIn(loud(500), RATE)),
            (0.5, Transcript("user", text, True)),
            (1.0, AudioIn(loud(500), RATE)),
            (1.5, Transcript("user", "next", True)),
            (9.0, Close(1000, "", "remote")),
        )
    )
    lines = re.findall(r"<tspan[^>]*>([^<]*)</tspan>", svg)
    assert len(lines) == 4
    assert all(line.endswith("…") for line in lines[:3])
    assert f"<title>{text.strip()}</title>" in svg  # whole under the pointer


def test_what_would_cover_something_else_gets_a_row_of_its_own() -> None:
    svg = draw_timeline(
        recorded(
            (0.5, ToolCall("a", "one", "{}")),
            (0.6, ToolCall("b", "two", "{}")),
            (0.7, ToolResult("a", "")),
            (0.8, ServerToolCall("s", "three", "started")),
            (9.0, ServerToolCall("s", "three", "failed")),
            (9.1, ErrorFrame("BUSY", "wait")),
            (9.2, ErrorFrame("BUSY", "wait longer")),
            (9.9, Close(1000, "a reason with many words", "remote")),
        )
    )
    places = {
        "".join(element.itertext()): (float(element.attrib["x"]), float(element.attrib["y"]))
        for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        if "x" in element.attrib
    }
    tools = [
        places[name] for name in ("one · 200 ms", "two · never answered", "three · failed after 8200 ms")
    ]
    assert len({y for _, y in tools}) == 3
    # No room behind these two bars, which reach the end: they are named ahead of it.
    assert tools[1][0] < tools[0][0]
    assert tools[2][0] < tools[0][0]
    notes = [places[text] for text in ("BUSY: wait", "BUSY: wait longer")]
    closed = places["closed 1000 a reason with many words"]
    assert len({y for _, y in (*notes, closed)}) == 3
    assert all(x < 1200 for x, _ in (*notes, closed))


def test_a_long_session_is_a_wide_picture() -> None:
    recording = recorded((0.0, AudioIn(loud(500), RATE)), (600.0, Close(1000, "", "remote")))
    width = ET.fromstring(draw_timeline(recording)).attrib["width"]
    assert 8_000 < int(width) < 10_000
    recording.moments[-1] = Moment(36_000.0, "gateway", Close(1000, "", "remote"))
    width = ET.fromstring(draw_timeline(recording)).attrib["width"]
    assert int(width) == 30_000


def test_the_picture_in_the_documentation_is_what_the_program_draws() -> None:
    assert example.PICTURE.read_text(encoding="utf-8") == example.svg(), "run: python docs/timeline.py"


# A voice


def test_mumbling_is_as_long_as_asked_loud_enough_and_the_same_again() -> None:
    pcm = mumble(1.5, seed=3)
    assert len(pcm) == 2 * 36_000
    assert pcm == mumble(1.5, seed=3) != mumble(1.5, seed=4)
    assert -30 < rms_dbfs(pcm) < -10
    assert len(mumble(0.01, sample_rate=8_000)) == 160
    assert mumble(0) == b""
