"""The README's programs run as they stand there, and its commands are the ones that are kept working."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from speko_anyio import Audio, Commit, Speko, Transcript
from speko_anyio.gateway import Gateway, ServerSession, echo, running_gateway

README = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.anyio


async def weatherman(session: ServerSession) -> None:
    """Answers the first commit with a tool call's result."""
    async for command in session:
        if isinstance(command, Commit):
            await session.send_tool_call("call-1", "get_weather", '{"city": "Paris"}')
        elif type(command).__name__ == "ToolResult":
            await session.send_audio(b"\x01\x02" * 4)
            await session.send_transcript("assistant", command.output, final=True)  # type: ignore[union-attr]
            return


async def test_the_first_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    played: list[bytes] = []

    async def lookup(city: str) -> str:
        await anyio.lowlevel.checkpoint()
        return f"rain in {city}"

    names: dict[str, Any] = {"question": bytes(960), "play": played.append, "lookup": lookup}
    # The last line starts an event loop; the test has one.
    started: list[tuple[object, str]] = []
    monkeypatch.setattr(anyio, "run", lambda main, backend: started.append((main, backend)))
    exec(PROGRAMS[0], names)
    assert started == [(names["main"], "trio")]
    gateway = Gateway(handlers={"openai": weatherman}, api_keys=["sk_readme"])
    with anyio.fail_after(30):
        async with running_gateway(gateway) as url:
            monkeypatch.setenv("SPEKO_API_KEY", "sk_readme")
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            await names["main"]()
    assert played == [b"\x01\x02" * 4]
    assert capsys.readouterr().out == "assistant rain in Paris\n"


class Line:
    """Stands for a microphone, and for a loudspeaker that has heard enough when it heard something."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    def feed(self, frame: object) -> None:
        if isinstance(frame, Audio):
            self.heard.append(frame.pcm)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.heard:
            yield bytes(960)
            await anyio.lowlevel.checkpoint()


async def test_the_assistant_with_microphone_and_loudspeaker(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    monkeypatch.setattr(anyio, "run", lambda main: None)
    exec(PROGRAMS[1], names)
    line = Line()
    names |= {"Microphone": lambda: line, "Speaker": lambda: line}
    with anyio.fail_after(30):
        async with running_gateway(Gateway(handlers={"openai": echo}, api_keys=["sk_readme"])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", "sk_readme")
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            await names["main"]()
    assert set(line.heard) == {bytes(960)}


async def test_the_test_program() -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[3], names)
    with anyio.fail_after(30):
        await names["test_a_question_is_answered"]()


async def test_the_server_program() -> None:
    names: dict[str, Any] = {}
    exec(PROGRAMS[2], names)
    with anyio.fail_after(30):
        async with (
            running_gateway(names["gateway"]) as url,
            Speko("a-key-of-your-own", url) as speko,
            speko.realtime.connect(provider="parrot", model="any") as session,
        ):
            await session.send_audio(b"\x05\x06" * 480)
            await session.commit()
            async for frame in session:
                if isinstance(frame, Audio):
                    assert frame.pcm == b"\x05\x06" * 480
                    break
                assert not isinstance(frame, Transcript)


def test_the_two_commands_name_sessions_that_exist() -> None:
    noxfile = (Path(__file__).parents[2] / "noxfile.py").read_text()
    commands = re.findall(r"<!-- (?:demo|test)-command -->\n```sh\n(.*?)\n```", README)
    assert len(commands) == 2
    for command in commands:
        session = command.split("nox -s ")[1]
        assert f"def {session}(session" in noxfile
