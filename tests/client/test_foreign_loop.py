"""Sessions in a loop of asyncio that `anyio.run` did not start, as in an application under uvicorn."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest
import sniffio  # with trio: without it anyio finds the loop in callbacks too

from speko_anyio import Frame, OpenAI, ResponseEnd, tool
from speko_anyio.testing.providers import CallTools, OpenAIDouble, Say


@pytest.mark.parametrize("handlers", [False, True])
def test_tools_and_handlers_run(handlers: bool) -> None:
    assert sniffio.current_async_library_cvar.get() is None
    double = OpenAIDouble([CallTools([("get_weather", {"city": "Oslo"})]), Say("Sunny.", 0.2)], api_key="k")
    seen: list[Frame] = []

    @tool
    async def get_weather(city: str) -> str:
        await anyio.lowlevel.checkpoint()
        return f"sunny in {city}"

    async def handle(frame: Frame) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(frame)

    async def main() -> None:
        async with (
            double.serve() as url,
            OpenAI("k", base_url=url).connect(model="gpt-realtime-2.1", tools=[get_weather]) as session,
        ):
            if handlers:
                session.on(lambda frame: handle(frame))
            await session.respond()
            with anyio.fail_after(10):
                ends = 0
                async for frame in session:
                    ends += isinstance(frame, ResponseEnd)
                    if ends == 2:
                        break

    asyncio.run(main())
    assert double.session.results == {"call_1": "sunny in Oslo"}
    assert bool(seen) is handlers
