"""The verbs of a session on every way in: straight to the providers' doubles, and through a gateway."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Audio,
    HistoryItem,
    LocalProtocolError,
    Provider,
    RealtimeSession,
    ResponseEnd,
    Speko,
    Transcript,
)
from speko_anyio.gateway import Gateway, ProviderHandler, running_gateway
from speko_anyio.testing.providers import (
    CallTools,
    ProviderDouble,
    Reply,
    Say,
)
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS, NAMES

pytestmark = pytest.mark.anyio

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


class Line:
    """A provider's double and a way to it."""

    def __init__(
        self, name: str, way: str, double: ProviderDouble[Any], account: Provider, speko: Speko
    ) -> None:
        self.name = name
        self.way = way
        self.double = double
        self.account = account
        self._speko = speko

    def connect(self, **parameters: Any) -> AbstractAsyncContextManager[RealtimeSession, None]:
        if self.way == "direct":
            return self.account.connect(model=MODELS[self.name], **parameters)
        return self._speko.realtime.connect(provider=self.name, model=MODELS[self.name], **parameters)


@asynccontextmanager
async def line(name: str, way: str, replies: list[Reply]) -> AsyncIterator[Line]:
    double = DOUBLES[name](replies, api_key=KEY)
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            account = KINDS[name](KEY, base_url=await stack.enter_async_context(double.serve()))
            gateway = Gateway(handlers={name: ProviderHandler(account)}, api_keys=[KEY])
            url = await stack.enter_async_context(running_gateway(gateway))
            speko = await stack.enter_async_context(Speko(KEY, url))
            yield Line(name, way, double, account, speko)


every_way = pytest.mark.parametrize("way", ["direct", "gateway"])
every_provider = pytest.mark.parametrize("name", NAMES)


async def hear(session: RealtimeSession) -> str:
    """Receive one answer; return its text."""
    text = ""
    async for frame in session:
        match frame:
            case Transcript(role="assistant", text=text, final=True):
                pass
            case ResponseEnd():
                return text
            case _:
                pass
    raise AssertionError(f"the session ended: {session.closed}")


async def transfer() -> str:
    """Transfer the caller."""
    return "Billing takes over."


EARLIER = [
    HistoryItem("user", "I am Ada."),
    HistoryItem("assistant", "Hello Ada."),
    HistoryItem("tool", "rain", name="get_weather", arguments="{}"),
]


@every_provider
@every_way
async def test_a_whole_conversation_beside_the_microphone(name: str, way: str) -> None:
    replies: list[Reply] = [
        Say("Yes, Ada."),
        Say("Anything else?"),
        CallTools([("transfer", {})]),
        Say("Done."),
    ]
    async with line(name, way, replies) as here:
        async with here.connect(history=EARLIER, greeting="Welcome back.") as session:
            assert await hear(session) == "Welcome back."
            await session.send_text("The caller is in Oslo.", role="system")
            await session.send_text("Do you know me?")
            assert await hear(session) == "Yes, Ada."
            await session.respond("Ask for more.")
            assert await hear(session) == "Anything else?"
            updatable = session.capabilities.update
            if "tools" in updatable:
                await session.update(system_prompt="You are terse.", tools=[transfer])
            else:
                with pytest.raises(LocalProtocolError, match="tools"):
                    await session.update(tools=[transfer])
            await session.send_text("Transfer me, please.")
            while await hear(session) != "Done.":
                pass
        # The texts come before all of an answer was heard.
        texts = [(item.role, f"{item.text} {item.unheard}".strip()) for item in session.history]
    assert texts == [
        *((item.role, item.text) for item in EARLIER),
        ("assistant", "Welcome back."),
        ("system", "The caller is in Oslo."),
        ("user", "Do you know me?"),
        ("assistant", "Yes, Ada."),
        ("assistant", "Anything else?"),
        ("user", "Transfer me, please."),
        ("tool", "Billing takes over."),
        ("assistant", "Done."),
    ]
    (result,) = here.double.session.results.values()
    assert "Billing takes over." in str(result)
    told = str(here.double.session.received)
    for text in (
        "I am Ada.",
        "Hello Ada.",
        "It returned: rain",
        "The caller is in Oslo.",
        "Transfer me, please.",
    ):
        assert text in told


@every_provider
@every_way
async def test_a_picture(name: str, way: str) -> None:
    async with line(name, way, [Say("A dot.")]) as here, here.connect() as session:
        await session.send_text("context", respond=False)  # waits until the service is ready
        if session.capabilities.image:
            await session.send_image(PICTURE, mime_type="image/png")
            await session.send_text("What is it?")
            assert await hear(session) == "A dot."
        else:
            with pytest.raises(LocalProtocolError, match="takes no images"):
                await session.send_image(PICTURE, mime_type="image/png")
    shown = base64.b64encode(PICTURE).decode() in str([each.received for each in here.double.sessions])
    assert shown == here.account.capabilities(MODELS[name]).image


@every_provider
@every_way
async def test_answers_in_writing(name: str, way: str) -> None:
    async with line(name, way, [Say("In writing.")]) as here:
        if not here.account.capabilities(MODELS[name]).text_output:
            # A gateway refuses it at the mint.
            with pytest.raises(Exception, match=r"leave .*out") as refused:
                async with here.connect(output="text"):
                    raise AssertionError("opened")
            assert not here.double.sessions
            assert "\n" not in str(refused.value)
            return
        async with here.connect(output="text") as session:
            await session.send_text("Hello")
            async with session.frames(Audio, ResponseEnd) as frames:
                async for frame in frames:
                    assert not isinstance(frame, Audio)
                    break
        assert session.history[-1] == HistoryItem("assistant", "In writing.")


@every_provider
@every_way
async def test_the_capabilities_are_the_same_before_and_after(name: str, way: str) -> None:
    async with line(name, way, []) as here:
        before = here.account.capabilities(MODELS[name])
        async with here.connect() as session:
            await session.send_text("context", respond=False)
            after = session.capabilities
    for field in ("text", "image", "respond", "say", "update", "history", "text_output", "shutdown"):
        assert getattr(after, field) == getattr(before, field), field
