"""Draw the timeline of a conversation with a fake gateway, on virtual time.

``python docs/timeline.py`` writes ``timeline.svg`` beside this file; a test asserts that what is committed is
what this gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio

from speko_anyio import RealtimeSession
from speko_anyio.protocol import Commit, Interrupt
from speko_anyio.recording import Recorder, Recording, draw_timeline
from speko_anyio.testing import FakePeer, fake_session, mumble, virtual_backend

PICTURE: Final = Path(__file__).parent / "timeline.svg"


async def get_weather(city: str) -> str:
    """Look up tomorrow's weather in a city."""
    await anyio.sleep(0.9)
    return f"rain in {city}"


async def get_traffic(city: str) -> str:
    """Look up the traffic in a city."""
    await anyio.sleep(1.5)
    return f"queues in {city}"


async def gateway(peer: FakePeer) -> None:
    """Play the service: a question with two tools, an interruption, a goodbye."""
    await peer.expect(Commit)
    await anyio.sleep(0.18)
    peer.transcript("user", "What will the weather be in Oslo tomorrow? Do I need an umbrella?")
    await anyio.sleep(0.14)
    await peer.say(mumble(0.8, pitch=210, seed=2), pace=4)
    peer.transcript("assistant", "Let me see.")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: peer.call_tool("get_weather", city="Oslo"))
        await anyio.sleep(0.15)
        tasks.start_soon(lambda: peer.call_tool("get_traffic", city="Oslo"))
    await anyio.sleep(0.25)
    await peer.say(mumble(5.5, pitch=210, seed=3), pace=4)
    peer.transcript("assistant", "Tomorrow it rains in Oslo, so do take an umbrella. There are queues on the")
    await peer.expect(Interrupt)
    peer.interrupt()
    await peer.expect(Commit)
    await anyio.sleep(0.41)
    peer.transcript("user", "Thanks, that is enough.")
    await peer.say(mumble(1.3, pitch=210, seed=4), pace=4)
    peer.transcript("assistant", "You're welcome!")
    await anyio.sleep(1.5)
    peer.close(reason="done")


async def speak(session: RealtimeSession, seconds: float, seed: int) -> None:
    """Speak for some seconds, as a microphone gives it, and end the turn."""
    pcm = mumble(seconds, seed=seed)
    start = anyio.current_time()
    for index, position in enumerate(range(0, len(pcm), 960)):
        await anyio.sleep_until(start + index * 0.02)
        await session.send_audio(pcm[position : position + 960])
    await session.commit()


async def conversation() -> Recording:
    """Record the whole session."""
    recorder = Recorder()
    async with fake_session(gateway, tools=[get_weather, get_traffic], observer=recorder) as (session, _):
        await anyio.sleep(0.4)
        await speak(session, 2.9, seed=1)
        await anyio.sleep(5.4)
        await session.interrupt()
        await speak(session, 1.1, seed=5)
        async for _frame in session:
            pass
    return recorder.recording


def svg() -> str:
    """Return the picture."""
    backend, options = virtual_backend("asyncio")
    recording = anyio.run(conversation, backend=backend, backend_options=options)
    return draw_timeline(recording, title="A question, two tools, an interruption")


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
