"""The programs of the pages on tools and on playback, each with what its page says that it does."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from speko_anyio import Tool, ToolCall
from speko_anyio.audio import DeviceError
from speko_anyio.audio._pcm import rms_dbfs
from speko_anyio.client.tools import Toolbox
from speko_anyio.gateway import Gateway, ServerSession, running_gateway
from speko_anyio.gateway.local import LocalVoice
from speko_anyio.protocol import AudioIn, Commit, ToolResult
from tests.support.sound import FakeSound, sound

from .programs import DOCS, Program, programs

__all__ = ["sound"]

pytestmark = pytest.mark.anyio

CALLING, POLICIES, STRUCTURES, RAISING = programs("tools.md")
DEVICES, CANCELLING, LINE, HEARD, REPORTED, WAITED, SEVERAL = programs("playback.md")
(LANDING,) = programs("index.md")

KEY = "sk_docs_0123456789"
VOICE = b"\x05" * 4_800
"""100 ms of what the model says."""
MUMBLE = b"\x20" * 960
"""What the person at the microphone says."""


async def voice(session: ServerSession) -> None:
    """Call the first tool and say the result; without tools say `VOICE` after a commit or a loud microphone.

    Goes on after an answer, as real ones do: a program that waits for the session's end would wait forever.
    """
    async for command in session:
        match command:
            case Commit() if session.config.tools:
                await session.send_tool_call("c1", session.config.tools[0].name, '{"city":"paris"}')
            case ToolResult(output=output):
                await session.send_transcript("assistant", f"{output}.", final=True)
                await session.send_response_end()
            case Commit():
                await session.send_audio(VOICE)
                await session.send_response_end()
            case AudioIn(pcm=pcm) if len(pcm) == len(MUMBLE) and rms_dbfs(pcm) > -40:
                await session.send_audio(VOICE)
            case _:
                pass


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"local": voice}, api_keys=[KEY])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", KEY)
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            yield


CALLED = 'called: get_weather {"city":"paris"}\nsays: 1 day of rain in paris.\n'


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (CALLING, CALLED),
        (RAISING, "the tool failed: paris\n"),
        (LINE, "100 ms heard in 1 answer\n"),
        (WAITED, "answered\n"),
        (SEVERAL, "bytes of speech: 4800\n"),
    ],
    ids=repr,
)
async def test_a_program_does_what_its_page_says(
    program: Program, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await program.run(monkeypatch)
    assert capsys.readouterr().out == expected


@pytest.mark.speech
async def test_the_offline_voice_makes_the_calls_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"```text\n{CALLED}```" in (DOCS / "tools.md").read_text(encoding="utf-8")
    with anyio.fail_after(60):
        async with running_gateway(Gateway(handlers={"local": LocalVoice()}, api_keys=[KEY])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", KEY)
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            await CALLING.run(monkeypatch)
            await RAISING.run(monkeypatch)
    assert capsys.readouterr().out == CALLED + "the tool failed: paris\n"


@pytest.mark.speech
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (LINE, r"[1-9]\d{2,} ms heard in 1 answer"),
        (WAITED, r"answered"),
        (SEVERAL, r"(subtitle: Transcript\(.*\)\n)+bytes of speech: [1-9]\d{3,}"),
    ],
    ids=repr,
)
async def test_the_programs_on_playback_end_against_the_offline_voice(
    program: Program, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with anyio.fail_after(60):
        async with running_gateway(Gateway(handlers={"local": LocalVoice()}, api_keys=[KEY])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", KEY)
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            await program.run(monkeypatch)
    assert re.fullmatch(expected, capsys.readouterr().out.strip())


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("program", [LANDING, DEVICES], ids=repr)
async def test_ten_lines_talk_and_end_with_the_device(
    program: Program, monkeypatch: pytest.MonkeyPatch, sound: FakeSound
) -> None:
    heard: list[bytes] = []

    def person() -> None:
        sound.opened.wait(20)
        sound.inputs[0].record(MUMBLE)
        while VOICE not in b"".join(heard):
            heard.append(sound.outputs[0].play(960))
        sound.inputs[0].vanish()

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    with pytest.raises(DeviceError, match="the microphone stopped"):
        await program.run(monkeypatch)
    thread.join(10)
    assert not thread.is_alive()


async def test_the_canceller_works_alone(capsys: pytest.CaptureFixture[str]) -> None:
    CANCELLING.load()
    assert capsys.readouterr().out == "320\n"


def test_the_policies_are_as_the_page_has_them() -> None:
    POLICIES.load()


async def test_structures_are_validated_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    order = STRUCTURES.load()["order"]
    assert isinstance(order, Tool)
    assert '"description": "As printed on the chair."' in capsys.readouterr().out
    toolbox = Toolbox([order])
    call = '{"drinks": [{"name": "tea"}], "guest": {"name": "Ann", "seat": %d}}'
    assert await toolbox.run(ToolCall("c1", "order", call % 1)) == "1 for Ann"
    answer = await toolbox.run(ToolCall("c1", "order", call % 0))
    assert "seat: Input should be greater than or equal to 1 - at `$.guest`" in answer


def test_the_flush_tells_what_was_heard(capsys: pytest.CaptureFixture[str]) -> None:
    HEARD.load()
    assert capsys.readouterr().out == (
        "Flushed(turn=1, played_ms=600, dropped_ms=1400, text='Your balance is')\n"
    )


def test_every_program_is_run() -> None:
    assert (len(programs("tools.md")), len(programs("playback.md"))) == (4, 7)
