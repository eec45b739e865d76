"""The handlers of docs/handlers.md, each with what its page says that it does."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    Frame,
    Interruption,
    Ready,
    RealtimeSession,
    ResponseEnd,
    Speko,
    Transcript,
    Usage,
)
from speko_anyio.cli import main
from speko_anyio.gateway import running_gateway
from speko_anyio.gateway.engines import Engines, Message
from speko_anyio.testing import VIRTUAL_BACKENDS, fake_session, mumble, run_handler, virtual_backend
from tests.testing.test_plugin import run_pytest

from .programs import DOCS, programs

PARROT, POLITE, SHY, BOT, PATIENT, TOOLS, CLERK, TELLER, TEST = programs("handlers.md")
QUIET = bytes(28_800)
SPEECH = mumble(2.0)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Speech takes its time, which is virtual here."""
    return virtual_backend(request.param)


@asynccontextmanager
async def talking(handler: Any, **options: Any) -> AsyncIterator[RealtimeSession]:
    async with fake_session(run_handler(handler), **options) as (session, _):
        assert isinstance(await session.receive(), Ready)
        yield session


async def until(session: RealtimeSession, kind: type[Frame]) -> list[Frame]:
    frames = [await session.receive()]
    while not isinstance(frames[-1], kind):
        frames.append(await session.receive())
    return frames


def heard(frames: list[Frame]) -> int:
    return sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio))


async def test_the_polite_parrot_speaks_when_the_user_is_done() -> None:
    async with talking(POLITE.load()["polite_parrot"]) as session:
        for end_of_turn in (session.send_audio(QUIET), session.commit()):
            await session.send_audio(SPEECH)
            await end_of_turn
            said = b""
            while SPEECH[4_800:] not in said:
                frame = await session.receive()
                assert isinstance(frame, Audio)
                said += frame.pcm


async def test_the_shy_parrot_stops_when_the_user_speaks_or_says_so() -> None:
    async with talking(SHY.load()["shy_parrot"]) as session:
        await session.send_audio(SPEECH + QUIET)
        await until(session, Audio)
        await anyio.sleep(0.5)
        await session.send_audio(SPEECH + QUIET)
        assert heard(await until(session, Interruption)) < len(SPEECH)
        await until(session, Audio)
        await session.interrupt()
        assert heard(await until(session, Interruption)) < len(SPEECH)
        await session.send_audio(SPEECH + QUIET)
        await anyio.sleep(5)
        assert heard(await until(session, Audio)) > 0
        await session.close()


class Fake:
    """All three engines."""

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        return "hello"

    async def answer(self, messages: Sequence[Message], tools: object) -> AsyncGenerator[str, None]:
        assert [message.text for message in messages] == ["hello"]
        yield "Good"
        yield "day."

    async def synthesize(self, text: str, sample_rate: int) -> AsyncGenerator[bytes, None]:
        yield bytes(480)
        yield bytes(480)


async def test_the_bot_hears_thinks_and_speaks() -> None:
    bot, fake = BOT.load()["bot"], Fake()
    async with talking(lambda session: bot(session, Engines(fake, fake, fake))) as session:
        for start in range(0, len(SPEECH), 4_800):
            await session.send_audio(SPEECH[start : start + 4_800])
            await anyio.sleep(0.1)
        await session.send_audio(QUIET)
        frames = await until(session, ResponseEnd)
    assert heard(frames) == 2 * 960
    partial = Transcript("user", "hello", False)
    assert partial in frames
    assert [frame for frame in frames if not isinstance(frame, Audio) and frame != partial] == [
        Transcript("user", "hello", True),
        Transcript("assistant", "Good", False),
        Transcript("assistant", "Good day.", False),
        Transcript("assistant", "Good day.", True),
        Usage(5, 9),
        ResponseEnd("done"),
    ]


class Ear:
    """Hears words that are unfinished until the user says the rest."""

    async def transcribe(self, pcm: bytes, sample_rate: int) -> str:
        return "bread and butter" if len(pcm) > 2 * len(PHRASE) else "bread and"


PHRASE = mumble(1.0)


async def test_the_patient_one_waits_for_the_rest_of_a_sentence() -> None:
    program = PATIENT.load()
    patient, model = program["patient"], program["Unfinished"]()
    async with talking(lambda session: patient(session, Ear(), model)) as session:
        for _ in range(2):
            for pcm in (PHRASE, bytes(48_000)):  # the second of silence would otherwise end the turn
                for start in range(0, len(pcm), 4_800):
                    await session.send_audio(pcm[start : start + 4_800])
                    await anyio.sleep(0.1)
        frames = await until(session, Transcript)
    assert frames == [Transcript("user", "bread and butter", True)]


@pytest.mark.parametrize(("takes", "told"), [(1.0, "rain in Oslo"), (40.0, "get_weather gave no answer")])
async def test_the_weatherman_waits_for_the_tool_and_not_for_ever(takes: float, told: str) -> None:
    async def get_weather(city: str) -> str:
        await anyio.sleep(takes)
        return f"rain in {city}"

    async with talking(TOOLS.load()["weatherman"], tools=[get_weather], within=100) as session:
        await session.commit()
        frames = await until(session, Transcript)
        assert frames[-1] == Transcript("assistant", f"I was told: {told}", True)
        await anyio.sleep(20)


def test_the_test_is_a_file_that_passes(tmp_path: Path) -> None:
    (tmp_path / "test_parrot.py").write_text(TEST.source, encoding="utf-8")
    done = run_pytest(tmp_path, "-v", "-o", "console_output_style=classic")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::test_the_parrot_says_what_it_heard[" in done.stdout
    parrot = PARROT.source[PARROT.source.index("    heard = ") : PARROT.source.index("\n\n\nasync def main")]
    assert parrot in TEST.source


def test_the_command_would_serve_the_parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parrot.py").write_text(PARROT.source, encoding="utf-8")
    (line,) = re.findall(r"speko-anyio serve (--handler .*)", (DOCS / "handlers.md").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SPEKO_GATEWAY_PORT", "0")
    try:
        assert main(["gateway", "check", "--database", "memory", *line.split()]) == 0
    finally:
        sys.modules.pop("parrot", None)


class TestServed:
    """The first program, as a server."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    async def test_the_parrot_is_served(self, monkeypatch: pytest.MonkeyPatch) -> None:
        program = PARROT.load(__name__="parrot")
        gateways: list[Any] = []

        async def serve_it(gateway: Any, *, port: int) -> None:
            assert port == 8000
            gateways.append(gateway)

        program["serve"] = serve_it
        await program["main"]()
        with anyio.fail_after(30):
            async with (
                running_gateway(gateways[0]) as url,
                Speko("a-key-of-your-own", url) as speko,
                speko.realtime.connect(provider="parrot", model="any") as session,
            ):
                await session.send_audio(SPEECH)
                await session.commit()
                assert heard(await until(session, ResponseEnd)) == len(SPEECH)


async def test_the_clerk_is_written_to_and_changed() -> None:
    async with talking(CLERK.load()["clerk"]) as session:
        answers = []
        for asked in (
            session.respond(),
            session.send_text("Hi."),
            session.say("One moment."),
            session.update(system_prompt="Be brief."),
            session.respond(),
        ):
            await asked
        for _ in range(4):
            frames = await until(session, ResponseEnd)
            answers += [frame.text for frame in frames if isinstance(frame, Transcript)]
    assert answers == ["Hello!", "You wrote: Hi.", "One moment.", "Be brief."]


async def test_the_storyteller_knows_where_it_was_cut_off() -> None:
    async with talking(TELLER.load()["storyteller"]) as session:
        assert session.capabilities is not None
        assert session.capabilities.truncate
        await session.commit()
        assert isinstance(await session.receive(), Audio)
        await anyio.sleep(2.5)
        await session.report_played(1.3)  # it began late
        await session.interrupt()
        frames = await until(session, ResponseEnd)
    assert [frame for frame in frames if not isinstance(frame, Audio)] == [
        Interruption("user"),
        Transcript("assistant", "Once upon a time", True),
        ResponseEnd("interrupted"),
    ]
