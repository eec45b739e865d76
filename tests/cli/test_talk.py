"""`speko-anyio talk`: whole conversations, with files or stand-ins for the devices."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from speko_anyio.audio import Microphone, Speaker
from speko_anyio.audio.wav import format_wav, read_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import FAILED, NO_ANSWER, USAGE
from speko_anyio.gateway import ServerSession, echo, takes
from speko_anyio.protocol import AudioIn, Capabilities, Commit, Played, ToolResult
from tests.support.patience import PATIENCE
from tests.support.processes import interruptible
from tests.support.sound import FakeSound, sound

__all__ = ["sound"]

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "go-forward-ten-meters.wav"
BACKENDS = ["asyncio", "uvloop", "trio"]
RATE = 24_000
LOUD = b"\x20"
"""PCM16 of this byte is at -12 dBFS."""


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(format_wav(LOUD * (RATE // 5 * 2), RATE))
    return path


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    return tmp_path / "heard.wav"


def serve(monkeypatch: pytest.MonkeyPatch, handler: object = echo) -> None:
    # Without the offline voice, which takes seconds to start.
    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": handler, "echo": echo})


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err.strip()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_recording_is_answered_and_what_would_be_heard_is_written(
    backend: str,
    question: Path,
    heard: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def assistant(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_transcript("user", "What is it like?", final=True)
                await session.send_tool_call("c1", "weather", '{"city": "Oslo"}')
            elif isinstance(command, ToolResult):
                await session.send_audio(b"\x05" * (RATE // 10 * 2))
                await session.send_transcript("assistant", command.output, final=True)
                await session.send_response_end()

    serve(monkeypatch, assistant)
    (tmp_path / f"my_tools_{backend}.py").write_text(
        "async def weather(city: str) -> str:\n    return f'rain in {city}'\n"
    )
    monkeypatch.chdir(tmp_path)
    tools = ["--tools", f"my_tools_{backend}:weather"]
    assert main(["talk", *tools, "--wav", str(question), "-o", str(heard), "--backend", backend]) == 0
    wav = read_wav(heard)
    assert wav.sample_rate == RATE
    assert b"\x05" * (RATE // 10 * 2) in wav.pcm
    assert wav.pcm.strip(b"\0").strip(b"\x05") == b""
    lines = capsys.readouterr().out.splitlines()
    assert "you       What is it like?" in lines
    assert 'tool      weather({"city": "Oslo"})' in lines
    assert "assistant rain in Oslo" in lines
    assert any(line.startswith("latency   ") for line in lines)
    assert lines[-1].startswith("1 answer, 0 interruptions, 1 tool call; time to first audio: median ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_echo_says_back_what_was_said(
    backend: str,
    question: Path,
    heard: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(monkeypatch)
    arguments = ["--provider", "echo", "--wav", str(question), "-o", str(heard), "--backend", backend]
    assert main(["talk", *arguments]) == 0
    assert read_wav(heard).pcm.count(LOUD) == RATE // 5 * 2
    assert "you       0.20 seconds of audio" in capsys.readouterr().out


def test_what_was_played_is_reported(question: Path, heard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[int] = []

    @takes(Capabilities(truncate=True))
    async def talkative(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_audio(bytes(24_000 * 2))
                await session.send_response_end()
            elif isinstance(command, Played):
                reports.append(command.ms)

    serve(monkeypatch, talkative)
    assert main(["talk", "--wav", str(question), "-o", str(heard)]) == 0
    assert reports == sorted(reports)
    assert len(set(reports)) == len(reports) >= 3
    assert 500 <= reports[-1] <= 1000


@pytest.mark.speech
def test_the_offline_voice_is_talked_to_by_default(heard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", "--wav", str(SPEECH), "-o", str(heard), "--backend", "trio"]) == 0
    assert "you       go forward ten meters\n" in capsys.readouterr().out
    assert read_wav(heard).pcm.strip(b"\0")


def test_an_interruption_is_heard_at_once(
    question: Path, heard: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talkative(session: ServerSession) -> None:
        began = False
        async for command in session:
            if isinstance(command, AudioIn) and not began:
                began = True
                await session.send_audio(b"\x01" * (60 * RATE * 2))
            elif isinstance(command, Commit):
                await session.send_interruption("user")
                await session.send_audio(b"\x02" * (RATE // 10 * 2))
                await session.send_response_end()

    serve(monkeypatch, talkative)
    assert main(["talk", "--wav", str(question), "-o", str(heard)]) == 0
    pcm = read_wav(heard).pcm
    assert 0 < pcm.count(b"\x01") < 30 * RATE * 2
    assert pcm.count(b"\x02") == RATE // 10 * 2
    assert pcm.rindex(b"\x01") < pcm.index(b"\x02")
    out = capsys.readouterr().out
    assert "interrupted\n" in out
    assert "2 answers, 1 interruption, 0 tool calls" in out


@pytest.mark.parametrize("backend", BACKENDS)
def test_devices_until_ctrl_c(
    backend: str, sound: FakeSound, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    played: list[bytes] = []

    def person() -> None:
        sound.opened.wait(PATIENCE)
        sound.inputs[0].record(*[LOUD * 960] * 5)
        for _ in range(10_000):
            played.append(sound.outputs[0].play(960))
            if b"".join(played).count(LOUD) == 5 * 960:
                break
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=person)
    thread.start()
    arguments = ["--provider", "echo", "--backend", backend, "--input-device", "3", "--output-device", "usb"]
    with interruptible():
        # What the microphone hears is compared, so it must not be changed.
        assert main(["talk", "--no-echo-cancellation", *arguments]) == 0
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert b"".join(played).count(LOUD) == 5 * 960
    assert (sound.inputs[0].options["device"], sound.outputs[0].options["device"]) == (3, "usb")
    assert sound.inputs[0].closed
    assert sound.outputs[0].closed
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "talk or type; wear headphones, or the assistant hears itself. Ctrl-C ends it"
    assert lines[-1].startswith("1 answer, 0 interruptions, 0 tool calls; time")


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("mouth", ["loudspeaker", "text"])
def test_echo_is_cancelled_unless_the_package_is_missing(
    installed: bool,
    mouth: str,
    sound: FakeSound,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(session: ServerSession) -> None:
        async for _ in session:
            pass

    silent.capabilities = Capabilities(text_output=True)  # type: ignore[attr-defined]
    serve(monkeypatch, silent)
    if installed:
        pytest.importorskip("pywebrtc_audio", reason="needs pywebrtc-audio")
    else:
        monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    opened: list[dict[str, Any]] = []

    class Recorded(Microphone):
        def __init__(self, **options: Any) -> None:
            opened.append(options)
            super().__init__(**options)

    monkeypatch.setattr("speko_anyio.cli._talk.Microphone", Recorded)

    def person() -> None:
        while not sound.inputs or not sound.inputs[0].running:
            pass
        sound.inputs[0].record(LOUD * 960)
        sound.inputs[0].vanish()

    thread = threading.Thread(target=person)
    thread.start()
    arguments = ["--output", "text"] if mouth == "text" else []
    assert main(["talk", *arguments]) == FAILED
    thread.join(PATIENCE)
    (options,) = opened
    assert isinstance(options["echo_cancellation"], Speaker) is (installed and mouth == "loudspeaker")
    assert options["noise_suppression"] is installed
    lines = capsys.readouterr().out.splitlines()
    warned = not installed and mouth == "loudspeaker"
    assert ("wear headphones, or the assistant hears itself" in " ".join(lines)) is warned
    if not installed:
        assert lines.pop(0).startswith(
            "echo cancellation and noise suppression need pywebrtc-audio, which is not installed; install "
        )
    if not warned:
        assert lines[0] == "talk or type; Ctrl-C ends it"


def test_a_device_that_is_not_there_is_one_line(
    sound: FakeSound, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)
    sound.rates, sound.own_rate = (), None
    assert main(["talk", "--provider", "echo"]) == FAILED
    line = one_line(capsys)
    assert "no loudspeaker could be opened" in line
    assert line.endswith("; or read the answers with --output text")


@pytest.mark.parametrize("end", ["microphone", "loudspeaker"])
def test_a_device_that_goes_away_is_one_line(
    end: str, sound: FakeSound, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch)

    def unplug() -> None:
        sound.opened.wait(PATIENCE)
        if end == "microphone":
            sound.inputs[0].vanish()
        else:
            sound.outputs[0].vanish()
            sound.inputs[0].record(LOUD * 960)

    thread = threading.Thread(target=unplug)
    thread.start()
    assert main(["talk", "--provider", "echo"]) == FAILED
    thread.join(30)
    assert f"the {end} stopped" in one_line(capsys)


def test_a_service_that_gives_up(
    question: Path, heard: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gives_up(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_error("PROVIDER_DOWN", "the model is on strike")
                await session.close(1011, "provider failed")

    serve(monkeypatch, gives_up)
    assert main(["talk", "--wav", str(question), "-o", str(heard)]) == NO_ANSWER
    assert "code 1011 (PROVIDER_DOWN: the model is on strike)" in one_line(capsys)


def test_a_service_that_hangs_up_after_its_answer(
    question: Path, heard: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def polite(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_audio(bytes(960))
                await session.close(1000, "goodbye")

    serve(monkeypatch, polite)
    assert main(["talk", "--wav", str(question), "-o", str(heard)]) == 0
    assert "the service ended the session with code 1000 (goodbye)" in capsys.readouterr().out


def test_a_service_that_stays_silent(
    question: Path, heard: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_error("BUSY", "later")

    serve(monkeypatch, silent)
    monkeypatch.setattr("speko_anyio.cli._talk.ANSWER_TIMEOUT", 0.2)
    assert main(["talk", "--wav", str(question), "-o", str(heard)]) == NO_ANSWER
    assert "no answer came; the service reported BUSY: later" in one_line(capsys)


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("no_such_module:f", "no module no_such_module"),
        ("json:no_such", "json has no no_such"),
        ("json", "names nothing; write module:attribute"),
        ("json:__name__", "is not a function"),
        ("json:dumps", "json:dumps can't be a tool: "),
    ],
)
def test_tools_that_cant_be_had(tool: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", "--tools", tool]) == USAGE
    assert expected in one_line(capsys)
