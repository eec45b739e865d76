"""A scripted conversation in real time, on every event loop there is, uvloop included."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import Close, Ready, ToolCall, Transcript
from speko_anyio.protocol import Commit, ToolResult
from speko_anyio.protocol._extensions import KNOWN
from speko_anyio.testing import FakeGateway, fake_session, steps

pytestmark = pytest.mark.anyio


async def roll(sides: int) -> str:
    await checkpoint()
    return f"4 of {sides}"


SCRIPT = [
    steps.expect(Commit),
    steps.call_tool("roll", sides=6),
    steps.transcript("assistant", "Four."),
    steps.close(4000, "done"),
]
FRAMES = [
    Ready(24_000, 24_000, KNOWN),
    ToolCall("call-1", "roll", '{"sides": 6}'),
    Transcript("assistant", "Four.", True),
    Close(4000, "done", "remote"),
]


async def test_a_session() -> None:
    async with fake_session(SCRIPT, tools=[roll]) as (session, peer):
        await session.commit()
        assert [frame async for frame in session] == FRAMES
    assert peer.said() == [Commit(), ToolResult("call-1", "4 of 6")]


async def test_a_whole_speko() -> None:
    gateway = FakeGateway(SCRIPT)
    async with gateway.speko() as speko:
        async with speko.realtime.connect(provider="p", model="m", tools=[roll]) as session:
            await session.commit()
            assert [frame async for frame in session] == FRAMES
    assert [tool.name for tool in gateway.minted[0].s2s.tools] == ["roll"]
