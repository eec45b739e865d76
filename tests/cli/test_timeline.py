"""Recording a session with the command, and drawing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from speko_anyio.audio.wav import format_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import BAD_INPUT
from speko_anyio.recording import Recording
from speko_anyio.testing import mumble


def test_a_session_is_recorded_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = mumble(0.2)
    (tmp_path / "question.wav").write_bytes(format_wav(question, 24_000))
    reply, folder, picture = tmp_path / "reply.wav", tmp_path / "deep" / "recording", tmp_path / "t.svg"
    arguments = ["say", str(tmp_path / "question.wav"), "--provider", "echo", "-o", str(reply)]
    assert main([*arguments, "--record", str(folder)]) == 0
    recording = Recording.load(folder)
    assert (recording.provider, recording.model) == ("echo", "echo")
    assert recording.audio("client") == recording.audio("gateway") == question
    assert main(["timeline", str(folder), "-o", str(picture), "--title", "An echo"]) == 0
    assert "An echo" in picture.read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(f"timeline  written to {picture}\n")


@pytest.mark.parametrize("arguments", [["{}/nowhere"], ["{}", "-o", "{}/nowhere/t.svg"], ["{}"]], ids=str)
def test_what_can_not_be_drawn_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "session.jsonl").write_text("{}\n")
    filled = [argument.format(tmp_path) for argument in arguments]
    assert (
        main(["timeline", *filled, *([] if "-o" in filled else ["-o", str(tmp_path / "t.svg")])]) == BAD_INPUT
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("speko-anyio: ")
    assert not (tmp_path / "t.svg").exists()


@pytest.mark.parametrize("name", ["folder", "file"])
def test_what_is_no_recording_is_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / name
    assert main(["timeline", str(path), "-o", str(tmp_path / "t.svg")]) == BAD_INPUT
    assert f"{path} is not a recording: it is not a folder with a session.jsonl" in capsys.readouterr().err


def test_a_recording_that_can_not_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "question.wav").write_bytes(format_wav(mumble(0.2), 24_000))
    (tmp_path / "file").write_bytes(b"")
    arguments = ["say", str(tmp_path / "question.wav"), "--provider", "echo", "-o", str(tmp_path / "r.wav")]
    assert main([*arguments, "--record", str(tmp_path / "file")]) == BAD_INPUT
    assert "--record" in capsys.readouterr().err
