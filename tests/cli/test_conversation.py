"""`speko-anyio say` and `talk` besides speech: typed turns, greetings, a history in a file, written texts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from speko_anyio import HistoryItem
from speko_anyio.audio.wav import format_wav, read_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import BAD_INPUT, FAILED, NO_ANSWER, USAGE
from speko_anyio.gateway import ServerSession, echo, takes
from speko_anyio.protocol import Capabilities, Command, Respond, TextIn
from tests.support.patience import PATIENCE
from tests.support.processes import interruptible
from tests.support.sound import FakeSound, PortAudioError, sound

__all__ = ["sound"]

BACKENDS = ["asyncio", "uvloop", "trio"]
SPEECH = b"\x05" * 4_800


class Assistant:
    """A handler that says what it was told, and keeps the commands."""

    capabilities = Capabilities(text=True, respond=True, history=True, say="verbatim", text_output=True)

    def __init__(self) -> None:
        self.commands: list[Command] = []

    async def __call__(self, session: ServerSession) -> None:
        async for command in session:
            match command:
                case TextIn(text=text, respond=True):
                    await self._answer(session, f"You wrote: {text}")
                case Respond():
                    await self._answer(session, "Welcome.")
                case _:
                    pass
            self.commands.append(command)

    async def _answer(self, session: ServerSession, text: str) -> None:
        await session.send_transcript("assistant", text, final=True)
        if session.config.output != "text":
            await session.send_audio(SPEECH)
        await session.send_response_end()


@pytest.fixture
def assistant(monkeypatch: pytest.MonkeyPatch) -> Assistant:
    handler = Assistant()
    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": handler, "echo": echo})
    return handler


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err.strip()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_typed_question_is_answered_in_speech(
    backend: str, folder: Path, assistant: Assistant, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "--text", "Hello", "--backend", backend]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["you       Hello", "assistant You wrote: Hello"]
    assert "time to first audio" in lines[-1]
    assert read_wav(folder / "reply.wav").pcm == SPEECH


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_assistant_greets_and_answers_in_writing(
    backend: str, folder: Path, assistant: Assistant, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["say", "--greet", "--text", "Hello", "--output", "text", "--backend", backend]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["assistant Welcome.", "you       Hello", "assistant You wrote: Hello"]
    assert "time to first words" in lines[3]
    assert list(folder.iterdir()) == []


def test_a_greeting_alone_is_kept_as_speech(folder: Path, assistant: Assistant) -> None:
    assert main(["say", "--greet"]) == 0
    assert read_wav(folder / "reply.wav").pcm == SPEECH
    assert main(["say", "--greet", "--text", "Hello"]) == 0
    assert read_wav(folder / "reply.wav").pcm == 2 * SPEECH


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_conversation_goes_on_in_a_file(backend: str, folder: Path, assistant: Assistant) -> None:
    file = folder / "talk.json"
    for text in ("one", "two"):
        assert main(["say", "--text", text, "--history", str(file), "--backend", backend]) == 0
    said = [
        HistoryItem("user", "one"),
        HistoryItem("assistant", "You wrote: one"),
        HistoryItem("user", "two"),
        HistoryItem("assistant", "You wrote: two"),
    ]
    assert list(HistoryItem.from_json(file.read_bytes())) == said
    assert [command for command in assistant.commands if isinstance(command, TextIn)] == [
        TextIn("one", "user", True),
        TextIn("one", "user", False),
        TextIn("You wrote: one", "assistant", False),
        TextIn("two", "user", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "why"),
    [
        (["say"], USAGE, "there is no question; name a recording, or use --text, --say or --greet"),
        (["say", "--text", "Hi", "--provider", "echo"], FAILED, "this service takes no text"),
        (["say", "--greet", "--provider", "echo"], FAILED, "this service can't be asked to speak"),
        (
            ["say", "--text", "Hi", "--history", "bad.json"],
            BAD_INPUT,
            "can't use bad.json: this is not",
        ),
        (["say", "--text", "Hi", "--history", "no/such/file"], BAD_INPUT, "choose another --history"),
        (["talk", "--greet", "--provider", "echo", "-o", "heard.wav", "--wav", "q.wav"], FAILED, "to speak"),
    ],
)
def test_what_cant_be_done_is_one_line(
    arguments: list[str],
    exit_code: int,
    why: str,
    folder: Path,
    assistant: Assistant,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "bad.json").write_text("{")
    (folder / "q.wav").write_bytes(format_wav(SPEECH, 24_000))
    assert main(arguments) == exit_code
    assert why in one_line(capsys)
    assert (folder / "bad.json").read_text() == "{"


def test_a_typed_question_without_an_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @takes(Capabilities(text=True))
    async def silent(session: ServerSession) -> None:
        async for _ in session:
            pass

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": silent})
    monkeypatch.setattr("speko_anyio.cli._turn.ANSWER_TIMEOUT", 0.2)
    assert main(["say", "--text", "Hi"]) == NO_ANSWER
    assert "no answer came within 0.2 s of the question; try again" in one_line(capsys)


# Typing while the microphone is open


@pytest.fixture
def keyboard() -> Iterator[int]:
    """Standard input, as the end of a pipe to write to."""
    before = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    yield writing
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lines_are_typed_beside_the_microphone(
    backend: str,
    folder: Path,
    assistant: Assistant,
    sound: FakeSound,
    keyboard: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    played: list[bytes] = []

    def hear(answers: int, *, typed: bytes, last: bool = False) -> None:
        """Type, and listen until there were so many answers; the end of the input ends a line, too."""
        os.write(keyboard, typed)
        if last:
            os.close(keyboard)
        for _ in range(10_000):
            sound.inputs[0].record(bytes(960))
            played.append(sound.outputs[0].play(960))
            if b"".join(played).count(b"\x05") == answers * len(SPEECH):
                return

    def person() -> None:
        sound.opened.wait(PATIENCE)
        hear(1, typed=b"")
        hear(2, typed=b"one\n")
        hear(3, typed=b"\n\n  two ", last=True)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=person)
    thread.start()
    with interruptible():
        assert main(["talk", "--greet", "--history", "talk.json", "--backend", backend]) == 0
    thread.join(PATIENCE)
    assert not thread.is_alive()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("you", "assistant"))] == [
        "assistant Welcome.",
        "you       one",
        "assistant You wrote: one",
        "you       two",
        "assistant You wrote: two",
    ]
    assert "3 answers" in lines[-1]
    assert len(HistoryItem.from_json((folder / "talk.json").read_bytes())) == 5


def test_a_service_that_takes_no_text_says_so_and_the_talk_goes_on(
    folder: Path, assistant: Assistant, sound: FakeSound, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def person() -> None:
        sound.opened.wait(PATIENCE)
        os.write(keyboard, b"one\n")
        for _ in range(10_000):
            sound.inputs[0].record(b"\x20" * 960)
            if b"\x20" in sound.outputs[0].play(960):
                break
        os.kill(os.getpid(), signal.SIGINT)
        os.close(keyboard)

    thread = threading.Thread(target=person)
    thread.start()
    with interruptible():
        assert main(["talk", "--provider", "echo"]) == 0
    thread.join(PATIENCE)
    assert "error     this service takes no text; say it in speech" in capsys.readouterr().out


def test_answers_in_writing_need_no_loudspeaker(
    folder: Path, assistant: Assistant, sound: FakeSound, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def person() -> None:
        while not sound.inputs:
            pass
        os.write(keyboard, b"one\n")
        while not assistant.commands:
            pass
        sound.inputs[0].record(bytes(960))
        os.close(keyboard)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=person)
    thread.start()
    with interruptible():
        assert main(["talk", "--output", "text"]) == 0
    thread.join(PATIENCE)
    lines = capsys.readouterr().out.splitlines()
    assert "assistant You wrote: one" in lines
    assert "1 answer, 0 interruptions, 0 tool calls; time to first words" in lines[-1]
    assert not sound.outputs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loudspeaker", [True, False])
def test_without_a_microphone_you_type(
    loudspeaker: bool,
    backend: str,
    folder: Path,
    assistant: Assistant,
    sound: FakeSound,
    keyboard: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(**_options: object) -> None:
        raise PortAudioError("Error querying device -1")

    monkeypatch.setattr(sound, "check_input_settings", missing)
    monkeypatch.setattr(sound, "RawInputStream", missing)
    os.write(keyboard, b"one\n")
    os.close(keyboard)
    done = threading.Event()
    played: list[bytes] = []

    def listen() -> None:
        while not done.wait(0.001):
            if sound.outputs and sound.outputs[0].running:
                played.append(sound.outputs[0].play(96))

    thread = threading.Thread(target=listen)
    thread.start()
    arguments = [] if loudspeaker else ["--output", "text"]
    assert main(["talk", *arguments, "--backend", backend]) == 0
    done.set()
    thread.join(PATIENCE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no microphone could be opened (Error querying device -1); ")
    assert lines[0].endswith("; type your turns. Ctrl-C ends it")
    spoken = [line for line in lines if line.startswith(("you", "assistant"))]
    assert spoken == ["you       one", "assistant You wrote: one"]
    assert lines[-1].startswith("1 answer, ")
    assert bool(sound.outputs) is loudspeaker
    # It ends only when all of the answer was heard.
    assert b"".join(played).count(b"\x05") == len(SPEECH) * loudspeaker


def test_without_a_microphone_and_a_line_there_is_no_talk(
    folder: Path, assistant: Assistant, sound: FakeSound, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sound.rates, sound.own_rate = (), None
    os.close(keyboard)
    assert main(["talk", "--output", "text"]) == FAILED
    assert capsys.readouterr().err == (
        "speko-anyio: nothing was typed, and there is no microphone; type a line, or use --wav FILE\n"
    )


def test_the_microphone_that_you_name_must_be_there(
    folder: Path, assistant: Assistant, sound: FakeSound, keyboard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sound.rates, sound.own_rate = (), None
    os.close(keyboard)
    assert main(["talk", "--output", "text", "--input-device", "headset"]) == FAILED
    assert "no microphone could be opened" in capsys.readouterr().err
