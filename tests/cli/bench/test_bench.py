"""`speko-anyio bench` against real gateways: good ones, and some that lose, mix up and leave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from speko_anyio.cli import main
from speko_anyio.cli._failures import BAD_INPUT, FAILED, UNREACHABLE
from speko_anyio.cli._parser import BACKENDS
from speko_anyio.cli.bench._report import Report
from speko_anyio.gateway import Gateway, Handler, ServerSession, running_gateway
from speko_anyio.protocol import AudioIn

SPEECH = Path(__file__).parents[2] / "data" / "speech" / "go-forward-ten-meters.wav"
KEY = "sk_bench"

QUICK = ["bench", "--sessions", "3", "--seconds", "0.4", "--ramp", "0.1"]


@contextmanager
def gateway(handler: Handler) -> Iterator[str]:
    """A gateway in a thread, as the command's own event loop ends with the command."""
    urls: list[str] = []
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running_gateway(Gateway(handlers={"echo": handler}, api_keys=[KEY])) as url:
            urls.append(url)
            started.set()
            await anyio.to_thread.run_sync(stop.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert started.wait(20)
        yield urls[0]
    finally:
        stop.set()
        thread.join(20)


def report_of(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_echo_is_whole(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "report.json"
    picture = tmp_path / "latency.svg"
    command = [*QUICK, "--backend", backend, "--json", str(written), "--plot", str(picture)]
    assert main(command) == 0, capsys.readouterr()
    report = report_of(written)
    assert report.clean
    assert (report.opened, report.messages_sent, report.messages_received) == (3, 60, 60)
    assert report.ends == {"1000 client_closed (local)": 3}
    assert report.latency_ms is not None
    assert report.latency_ms.p50 > 0
    assert picture.read_text().startswith("<svg")
    shown = capsys.readouterr().out
    assert "3 of 3 opened, 0 failed" in shown
    assert str(written) in shown


@pytest.mark.speech
@pytest.mark.parametrize("question", [["--wav", str(SPEECH)], ["--text", "What time is it?"]])
def test_turns_are_timed_with_the_offline_voice(
    question: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "report.json"
    command = ["bench", "--sessions", "2", "--seconds", "1", "--ramp", "0", "--provider", "local"]
    assert main([*command, *question, "--json", str(written)]) == 0, capsys.readouterr()
    report = report_of(written)
    assert report.clean
    assert report.first_audio_ms is not None
    assert report.first_audio_ms.count == 2, "a turn that was begun is finished, and no other is begun"
    assert report.lateness_ms is not None
    assert report.lateness_ms.count == report.messages_received > 10


async def forgets_one(session: ServerSession) -> None:
    index = 0
    async for command in session:
        if isinstance(command, AudioIn):
            if index != 3:
                await session.send_audio(command.pcm)
            index += 1


async def leaves(session: ServerSession) -> None:
    async for command in session:
        if isinstance(command, AudioIn):
            await session.send_error("TIRED", "enough of this")
            await session.close(4000, "enough")
            return


def test_lost_messages_are_told_and_fail_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", KEY)
    written = tmp_path / "report.json"
    with gateway(forgets_one) as url:
        assert main([*QUICK, "--base-url", url, "--json", str(written)]) == FAILED
    report = report_of(written)
    assert (report.messages_lost, report.messages_broken, report.failed) == (3, 0, 0)
    assert capsys.readouterr().err == "speko-anyio: not every session did what it should; see above\n"


def test_a_session_that_the_gateway_ends_is_told_truthfully(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", KEY)
    written = tmp_path / "report.json"
    with gateway(leaves) as url:
        assert main([*QUICK, "--base-url", url, "--json", str(written)]) == FAILED
    report = report_of(written)
    assert report.ends == {"4000 enough (remote)": 3}
    assert report.errors == {"TIRED: enough of this": 3}
    assert "3 x TIRED: enough of this" in capsys.readouterr().out


def test_a_wrong_key_fails_every_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", "sk_wrong")
    with gateway(leaves) as url:
        assert main([*QUICK, "--base-url", url]) == FAILED
    shown = capsys.readouterr().out
    assert "0 of 3 opened, 3 failed" in shown
    assert "HTTP 401 UNAUTHORIZED" in shown
    assert "sk_wrong" not in shown


def test_files_that_cannot_be_written_are_refused_before_the_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--json", "/no/such/folder/report.json"]) == BAD_INPUT
    assert "is no folder" in capsys.readouterr().err


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SPEKO_API_KEY", KEY)
    assert main([*QUICK, "--sessions", "1", "--base-url", "http://127.0.0.1:9"]) in (FAILED, UNREACHABLE)
    assert "can't be reached" in capsys.readouterr().out
