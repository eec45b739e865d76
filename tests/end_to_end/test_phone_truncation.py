"""Where an interrupted answer ends for the model: where the phone line was, whatever the line's delays.

A provider estimates from the times of the audio alone what the caller has heard. A line that begins to play
late proves that wrong: only the carrier's marks tell.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio import OpenAI, answer_call
from speko_anyio.gateway import Phone, ProviderHandler
from speko_anyio.testing import VIRTUAL_BACKENDS, CarrierSocket, FakeCarrier, stream_pair, virtual_backend
from speko_anyio.testing._carrier_wire import CarrierName
from speko_anyio.testing.providers import OpenAIDouble, Pace, Say, tone
from tests.gateway.phone_support import AUTH_TOKEN, call, dialled, phone_gateway
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def interrupt(carrier: FakeCarrier, after: float) -> None:
    """Ask something, and say something else once the line has played so many seconds of the answer."""
    await carrier.say(tone(0.5, carrier.sample_rate))
    await carrier.wait_playing()
    await carrier.wait_played(after)
    await carrier.say(tone(0.5, carrier.sample_rate))
    await carrier.wait_quiet()
    await carrier.hang_up()


async def cut_off(carrier: FakeCarrier, double: Any, provider: Any, model: str, after: float) -> None:
    ours, theirs = stream_pair()

    async def answer(socket: CarrierSocket) -> None:
        async with answer_call(socket, carrier.carrier) as phone:
            async with provider.connect(model=model, stream=ours) as session:
                await phone.join(session)

    with anyio.fail_after(300):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            async with carrier, anyio.create_task_group() as calls:
                calls.start_soon(answer, carrier.ring())
                await interrupt(carrier, after)
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("delay", "pace"), [(0.0, 20.0), (0.4, 20.0), (0.4, 1.0)])
@pytest.mark.parametrize("name", ["twilio", "telnyx", "plivo", "vonage"])
async def test_the_line_decides(name: CarrierName, delay: float, pace: float) -> None:
    carrier = FakeCarrier(name, delay=delay, jitter=0.005)
    double = OpenAIDouble([Say("A long story.", 30.0)], api_key=KEY, pace=Pace(speed=pace))
    await cut_off(carrier, double, OpenAI(KEY), MODELS["openai"], 2.5)
    ((_, heard),) = double.session.truncations
    (played,) = carrier.clears
    assert heard / 1000 == pytest.approx(played, abs=0.02)
    assert [answer.cleared for answer in carrier.answers] == [True]


@pytest.mark.parametrize("after", [0.1, 11.0])
@pytest.mark.parametrize("name", ["openai", "xai"])
async def test_at_the_beginning_and_far_into_an_answer(name: str, after: float) -> None:
    carrier = FakeCarrier(delay=0.25)
    double = DOUBLES[name]([Say("A long story.", 60.0)], api_key=KEY)
    await cut_off(carrier, double, KINDS[name](KEY), MODELS[name], after)
    ((_, heard),) = double.session.truncations
    assert heard / 1000 == pytest.approx(carrier.clears[0], abs=0.02)


@pytest.mark.parametrize("name", ["twilio", "vonage"])
async def test_an_answer_that_the_line_has_not_begun_is_not_heard(name: CarrierName) -> None:
    """No mark tells anything yet: the line buffers the answer when the caller goes on."""
    carrier = FakeCarrier(name, delay=1.0)
    double = OpenAIDouble([Say("A long story.", 30.0)], api_key=KEY)
    await cut_off(carrier, double, OpenAI(KEY), MODELS["openai"], 0.0)
    assert carrier.clears == [0.0]
    # The piece up to the first mark, and the time since the last report.
    assert all(heard <= 40 for _, heard in double.session.truncations)


@pytest.mark.parametrize("delay", [0.0, 0.4])
@pytest.mark.parametrize("name", ["openai", "xai"])
async def test_through_a_gateway(name: str, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    carrier = FakeCarrier(delay=delay)
    double = DOUBLES[name]([Say("A long story.", 30.0)], api_key=KEY)
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, model=MODELS[name], greeting=False)
    gateway = phone_gateway(ProviderHandler(KINDS[name](KEY)), phone=phone)
    with anyio.fail_after(300):
        async with dialled(double, monkeypatch), gateway.running(), carrier:
            await call(carrier, gateway)
            await interrupt(carrier, 2.5)
    ((_, heard),) = double.session.truncations
    assert heard / 1000 == pytest.approx(carrier.clears[0], abs=0.02)
