"""Whatever others say, nothing of it reaches the terminal but text."""

from __future__ import annotations

import io
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from speko_anyio import ErrorFrame, ServerToolCall, ToolCall, Transcript
from speko_anyio.cli._display import Display
from speko_anyio.cli._main import _failed
from speko_anyio.protocol import Role
from tests.protocol.test_text import ANY_TEXT, unsafe

Shown: TypeAlias = Transcript | ToolCall | ServerToolCall | ErrorFrame


def shown(frame: Shown | str) -> str:
    """What the display prints, without colours."""
    out = io.StringIO()
    display = Display(Console(file=out, color_system=None, force_terminal=True, width=10_000))
    if isinstance(frame, str):
        display.line(frame)
        display.line(Text(frame))
    else:
        display.show(frame)
    return out.getvalue()


@given(ANY_TEXT, st.sampled_from(["user", "assistant"]))
def test_no_frame_sends_control_characters_to_the_terminal(text: str, role: Role) -> None:
    frames: list[Shown] = [
        Transcript(role, text, True),
        ToolCall("c1", text, text),
        ServerToolCall("s1", text, "failed"),
        ErrorFrame(text, text),
    ]
    for frame in frames:
        printed = shown(frame)
        assert unsafe(printed.removesuffix("\n")) == []
        printed.encode()


@given(ANY_TEXT)
def test_no_line_sends_control_characters_to_the_terminal(text: str) -> None:
    for line in shown(text).split("\n"):
        assert unsafe(line) == []


@given(ANY_TEXT)
def test_growing_speech_and_the_status_are_clean(text: str) -> None:
    out = io.StringIO()
    display = Display(Console(file=out, color_system=None, width=10_000))
    display.status(text)
    display.show(Transcript("assistant", text, False))
    display.console.print(display._now())
    for line in out.getvalue().split("\n"):
        assert unsafe(line) == []


def test_no_failure_does_either(capsys: pytest.CaptureFixture[str]) -> None:
    @given(ANY_TEXT)
    def check(text: str) -> None:
        _failed(text, text)
        lines = capsys.readouterr().err.split("\n")
        assert [unsafe(line) for line in lines] == [[], [], []]

    check()


def test_the_error_of_a_service_shows_no_key() -> None:
    said = shown(ErrorFrame("invalid_api_key", "Incorrect API key provided: sk-...abcd, of org-AbCdEf12"))
    assert said == "error     invalid_api_key: Incorrect API key provided: ***, of ***\n"
