"""The command line as a newcomer meets it: one readable line and a telling exit code for every mistake."""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from speko_anyio import __version__
from speko_anyio.audio.wav import format_wav, read_wav
from speko_anyio.cli import main
from speko_anyio.cli._failures import BAD_INPUT, FAILED, NO_ANSWER, REFUSED, UNREACHABLE, USAGE
from speko_anyio.gateway import Handler, ServerSession
from speko_anyio.protocol import AudioIn, Commit
from tests.support.patience import PATIENCE
from tests.support.processes import run_python, running

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "go-forward-ten-meters.wav"


@pytest.fixture
def question(tmp_path: Path) -> Path:
    path = tmp_path / "question.wav"
    path.write_bytes(format_wav(bytes(2 * 8000 // 5), 8000))
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed to standard error: one line, no traceback."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("speko-anyio: ")
    return err.strip()


@contextmanager
def api_that_answers(status: int, body: object) -> Iterator[str]:
    """An HTTP server on the loopback interface that answers every mint alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
            """Not into the test's output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"speko-anyio {__version__}\n"


@pytest.mark.parametrize("command", ["say --say hello", "talk", "bench"])
@pytest.mark.parametrize("given", ["--api-key {}", "--api-key={}"])
def test_a_key_on_the_command_line_is_refused_and_not_shown(
    command: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), *given.format("sk_secret_1").split()])
    assert exit_.value.code == USAGE
    told = capsys.readouterr().err
    assert "a key on the command line is visible to others; set SPEKO_API_KEY instead" in told
    assert "sk_secret_1" not in told


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == USAGE
    assert "COMMAND" in capsys.readouterr().err


def test_help_loads_neither_server_nor_voice() -> None:
    code = (
        "import sys\n"
        "from speko_anyio.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'uvicorn', 'starlette', 'numpy', 'soxr', 'rich'} & set(sys.modules)))"
    )
    assert run_python("-c", code).splitlines()[-1] == "[]"


def test_say_echo_writes_what_was_said(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = tmp_path / "reply.wav"
    assert main(["say", str(question), "-o", str(reply), "--provider", "echo", "--rate", "16000"]) == 0
    wav = read_wav(reply)
    assert wav.sample_rate == 16000
    assert wav.seconds == pytest.approx(0.2, abs=0.03)
    out = capsys.readouterr().out
    assert "time to first audio" in out
    assert str(reply) in out.replace("\n", "")


@pytest.mark.speech
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_say_answers_human_speech(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply.wav"
    assert main(["say", str(SPEECH), "-o", str(reply), "--backend", backend]) == 0
    out = capsys.readouterr().out
    assert "you       go forward ten meters" in out
    assert "assistant Sorry, I didn't catch that." in out
    assert read_wav(reply).seconds > 1


@pytest.mark.speech
def test_say_speaks_a_question_for_you(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply.wav"
    assert main(["say", "--say", "What time is it?", "-o", str(reply)]) == 0
    out = capsys.readouterr().out
    assert "you       what time is it" in out
    assert "assistant It is " in out
    assert read_wav(reply).seconds > 0.5


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["question.wav", "--say", "Hello"], "not allowed with argument"),
        (["--text", "Hi", "--say", "Hello"], "not allowed with argument"),
        (["--text", " "], "the text is blank; give something to say"),
        (["--say", " "], "the text is blank; give something to say"),
    ],
)
def test_say_needs_one_question(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["say", *arguments])
    assert exit_.value.code == USAGE
    assert why in capsys.readouterr().err


@pytest.mark.speech
def test_demo_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply.wav"
    assert main(["demo", "-o", str(reply), "--turns", "2", "--backend", "trio"]) == 0
    out = capsys.readouterr().out
    assert out.count("you       what time is it") == 2
    assert out.count("assistant It is ") == 2
    assert "time to first audio: median" in out
    assert read_wav(reply).seconds > 0.5


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", str(tmp_path / "nothing.wav"), "-o", str(tmp_path / "reply.wav")]) == BAD_INPUT
    assert "nothing.wav" in one_line(capsys)


def test_a_file_that_is_no_wav(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3" + bytes(100))
    assert main(["say", str(path), "-o", str(tmp_path / "reply.wav")]) == BAD_INPUT
    assert "not a WAV" in one_line(capsys)


def test_a_wav_that_is_not_pcm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "call.wav"
    form = struct.pack("<HHIIHH", 7, 1, 8000, 8000, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 4) + bytes(4)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert main(["say", str(path), "-o", str(tmp_path / "reply.wav")]) == BAD_INPUT
    assert "µ-law" in one_line(capsys)


def test_an_output_that_cannot_be_written_is_told_before_anything_is_asked(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", str(question), "-o", str(tmp_path / "no" / "reply.wav")]) == BAD_INPUT
    assert "-o" in one_line(capsys)


def test_no_key(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEKO_API_KEY", raising=False)
    arguments = ["say", str(question), "-o", str(tmp_path / "reply.wav"), "--provider", "openai"]
    assert main(arguments) == USAGE
    assert "SPEKO_API_KEY" in one_line(capsys)


def test_a_wrong_key_is_never_shown(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", "sk_wrong_and_secret")
    body = {"error": "the API key is unknown", "code": "UNAUTHORIZED"}
    with api_that_answers(401, body) as url:
        arguments = ["say", str(question), "-o", str(tmp_path / "reply.wav"), "--base-url", url]
        assert main(arguments) == REFUSED
    line = one_line(capsys)
    assert "UNAUTHORIZED" in line
    assert "sk_wrong" not in line


@pytest.mark.parametrize("url", ["127.0.0.1:8099", "http://127.0.0.1:99999", "http://user:secret@h"])
def test_a_base_url_that_is_none(
    url: str,
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", "sk_key")
    arguments = ["say", str(question), "-o", str(tmp_path / "reply.wav"), "--base-url", url]
    assert main(arguments) == USAGE
    assert "secret" not in one_line(capsys)
    monkeypatch.setenv("SPEKO_BASE_URL", url)
    assert main(arguments[:-2]) == USAGE
    line = one_line(capsys)
    assert "check the variable SPEKO_BASE_URL" in line
    assert "secret" not in line


def test_an_unknown_provider(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", "sk_key")
    body = {"error": "s2s.provider: 'nobody' is not served here", "code": "VALIDATION_ERROR"}
    with api_that_answers(400, body) as url:
        arguments = ["say", str(question), "-o", str(tmp_path / "reply.wav"), "--base-url", url]
        assert main([*arguments, "--provider", "nobody"]) == REFUSED
    assert "nobody" in one_line(capsys)


def test_a_dead_gateway(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", "sk_key")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        arguments = ["say", str(question), "-o", str(tmp_path / "reply.wav"), "--base-url", url]
        assert main(arguments) == UNREACHABLE
    assert "127.0.0.1" in one_line(capsys)


def test_a_service_that_stays_silent(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(session: ServerSession) -> None:
        async for _ in session:
            pass

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": silent})
    monkeypatch.setattr("speko_anyio.cli._turn.ANSWER_TIMEOUT", 0.2)
    assert main(["say", str(question), "-o", str(tmp_path / "reply.wav")]) == NO_ANSWER
    line = one_line(capsys)
    assert "no answer came within 0.2 s of the question; check that the recording holds speech" in line


def test_a_service_that_reports_why_it_stays_silent(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_error("OVERLOADED", "try again")

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": busy})
    monkeypatch.setattr("speko_anyio.cli._turn.ANSWER_TIMEOUT", 0.2)
    assert main(["say", str(question), "-o", str(tmp_path / "reply.wav")]) == NO_ANSWER
    assert "of the question; the service reported OVERLOADED: try again" in one_line(capsys)


@pytest.mark.parametrize("reported", [True, False])
def test_an_answer_that_fails_is_waited_for_no_longer(
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    reported: bool,
) -> None:
    async def fails(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                if reported:
                    await session.send_error("OVERLOADED", "try again")
                await session.send_response_end("failed", "content_filter")

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": fails})
    monkeypatch.setattr("speko_anyio.cli._turn.ANSWER_TIMEOUT", 1000.0)
    assert main(["say", str(question), "-o", str(tmp_path / "reply.wav")]) == NO_ANSWER
    why = "the service reported OVERLOADED: try again" if reported else "the answer failed (content_filter)"
    assert f"no answer came; {why}" in one_line(capsys)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("fails", "the service called it failed (no credit)"),
        ("fails, with an error", "the service called it failed (QUOTA: no credit)"),
        ("is incomplete", "the service called it incomplete (max_output_tokens)"),
        ("closes", "the service ended the session with code 1011 (boom)"),
        ("expires", "the service ended the session with code 1000 (session_expired)"),
        ("raises", "the service ended the session with code 1011"),
        ("hangs up", ""),
        ("ends", ""),
    ],
)
def test_an_answer_that_is_cut_short_is_kept_and_said(
    question: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    why: str,
) -> None:
    async def answers(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_audio(bytes(48_000))
                match how:
                    case "fails":
                        await session.send_response_end("failed", "no credit")
                    case "fails, with an error":
                        await session.send_error("QUOTA", "no credit")
                        await session.send_response_end("failed", "no credit")
                    case "is incomplete":
                        await session.send_response_end("incomplete", "max_output_tokens")
                    case "closes":
                        await session.close(1011, "boom")
                    case "expires":
                        await session.close(1000, "session_expired")
                    case "raises":
                        raise ValueError
                    case "hangs up":
                        return
                    case "ends":
                        await session.send_response_end("done")
                        await session.close(1011, "too late to matter")

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": answers})
    reply = tmp_path / "reply.wav"
    assert main(["say", str(question), "-o", str(reply)]) == (NO_ANSWER if why else 0)
    assert read_wav(reply).pcm == bytes(48_000)
    said = capsys.readouterr().err
    assert (f"the answer was cut short: {why}" in said) is bool(why)
    assert ("cut short" in said) is bool(why)


def test_a_service_that_gives_up(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gives_up(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, Commit):
                await session.send_error("PROVIDER_DOWN", "the model is on strike")
                await session.close(1011, "provider failed")

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": gives_up})
    assert main(["say", str(question), "-o", str(tmp_path / "reply.wav")]) == NO_ANSWER
    assert "code 1011 (PROVIDER_DOWN: the model is on strike)" in one_line(capsys)


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_ctrl_c_is_one_line_and_130(backend: str, question: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "speko_anyio.cli", "say", str(question), "--provider", "echo"]
    # Long enough to be interrupted in the middle of the question.
    question.write_bytes(format_wav(bytes(2 * 16000 * 30), 16000))
    with running([*command, "-o", str(tmp_path / "reply.wav"), "--backend", backend]) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("question  30.0 s of speech")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert err == "speko-anyio: interrupted\n"
    assert process.returncode == 130


def test_silence_at_the_end_is_not_waited_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def eager(session: ServerSession) -> None:
        async for command in session:
            if isinstance(command, AudioIn):
                await session.send_audio(bytes(640))
                await session.send_response_end()
                break
        async for _ in session:
            pass

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", lambda: {"local": eager})
    # If it were waited for, the time limit of the suite would tell.
    monkeypatch.setattr("speko_anyio.cli._turn.ANSWER_TIMEOUT", 3600.0)
    monkeypatch.setattr("speko_anyio.cli._turn.QUIET_TIMEOUT", 3600.0)
    path = tmp_path / "question.wav"
    path.write_bytes(format_wav(bytes(2 * 16000), 16000))
    assert main(["say", str(path), "-o", str(tmp_path / "[bold]reply.wav")]) == 0
    out = capsys.readouterr().out
    assert "before the end of the recording" in out
    assert "[bold]reply.wav" in out.replace("\n", "")


@pytest.mark.parametrize(
    "arguments", [["serve", "--port", "70000"], ["serve", "--patience", "nan"], ["demo", "--turns", "x"]]
)
def test_numbers_that_are_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == USAGE
    assert "is not a" in capsys.readouterr().err


def test_a_package_that_is_missing_when_the_gateway_starts_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, question: Path
) -> None:
    def missing() -> dict[str, Handler]:
        raise ImportError("no starlette", name="starlette")

    monkeypatch.setattr("speko_anyio.gateway.built_in_handlers", missing)
    assert main(["say", str(question), "--provider", "echo"]) == FAILED
    err = capsys.readouterr().err
    assert err.startswith("speko-anyio: `speko-anyio say` needs starlette, which is not installed; install")
