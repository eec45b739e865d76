"""`Phone(barge_in=True)`: the gateway clears the line before the handler knows, on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio import OpenAI
from speko_anyio.gateway import Phone, ProviderHandler, ServerSession, takes
from speko_anyio.protocol import Capabilities, Interrupt, Played, Respond
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.testing import VIRTUAL_BACKENDS, FakeCarrier, mumble, virtual_backend
from speko_anyio.testing.providers import OpenAIDouble, Say
from tests.support.accounts import KEY, MODELS

from .phone_support import AUTH_TOKEN, call, dialled, phone_gateway, tone

pytestmark = pytest.mark.anyio

SPEECH = mumble(2.0, sample_rate=8000, seed=1)
LATEST = 0.56
"""Seconds of speech until the line is silent."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


@takes(Capabilities(respond=True, truncate=True))
class Storyteller:
    """Tells a story, does not listen, and stops when it is asked."""

    def __init__(self) -> None:
        self.commands: list[object] = []

    async def __call__(self, session: ServerSession) -> None:
        async for command in session:
            match command:
                case Respond():
                    await session.send_audio(tone(30.0, session.output_sample_rate))
                case Interrupt():
                    await session.send_interruption("assistant")
                    await session.send_response_end("interrupted")
                case _:
                    pass
            self.commands.append(command)


async def talk_over(carrier: FakeCarrier) -> None:
    await carrier.wait_playing()
    await carrier.wait_played(2.0)
    await carrier.say(SPEECH)
    await carrier.wait_quiet()


@pytest.mark.parametrize("barge_in", [True, False])
async def test_a_handler_that_does_not_listen_is_interrupted(barge_in: bool) -> None:
    handler = Storyteller()
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, barge_in=barge_in)
    gateway = phone_gateway(handler, phone=phone)
    with anyio.fail_after(300):
        async with gateway.running(), FakeCarrier() as carrier:
            await call(carrier, gateway)
            await talk_over(carrier)
            await carrier.hang_up()
    asked = [command for command in handler.commands if isinstance(command, Interrupt)]
    assert len(carrier.clears) == len(asked) == barge_in
    if barge_in:
        assert carrier.clears[0] <= 2.0 + LATEST
        before = handler.commands[handler.commands.index(Interrupt()) - 1]
        assert isinstance(before, Played)
        assert before.ms / 1000 == pytest.approx(carrier.clears[0], abs=0.02)
    else:
        assert carrier.answers[0].played == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize("delay", [0.0, 0.4])
async def test_a_provider_is_told_where_its_answer_ended(
    delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = FakeCarrier(delay=delay)
    double = OpenAIDouble([Say("A long story.", 30.0)], api_key=KEY)
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, model=MODELS["openai"], barge_in=True)
    provider = OpenAI(KEY, options=OpenAIOptions(turns="manual"))
    gateway = phone_gateway(ProviderHandler(provider), phone=phone)
    with anyio.fail_after(300):
        async with dialled(double, monkeypatch), gateway.running(), carrier:
            await call(carrier, gateway)
            await talk_over(carrier)
            await carrier.hang_up()
    ((_, heard),) = double.session.truncations
    assert heard / 1000 == pytest.approx(carrier.clears[0], abs=0.02)
    assert len(carrier.clears) == 1
    assert carrier.clears[0] <= 2.0 + LATEST
