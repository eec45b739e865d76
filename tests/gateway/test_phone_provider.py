"""Whole calls with a provider behind the gateway: doubles of all three, on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio.gateway import Gateway, MemoryStore, Phone, ProviderHandler
from speko_anyio.testing import FakeCarrier
from speko_anyio.testing.providers import Say, tone
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS, NAMES
from tests.support.drivers import EVERY_VIRTUAL_DRIVER, driven
from tests.support.phone import WholeCall, call_through

from .phone_support import AUTH_TOKEN, PUBLIC, call, dialled, life_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=EVERY_VIRTUAL_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
async def test_a_whole_call_with_a_provider(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A greeting, two turns, an interruption, keys, and the caller hangs up."""
    said = [Say("Hello.", 1.0), Say("One.", 1.2), Say("Two.", 1.4), Say("A long story.", 30.0)]
    double = DOUBLES[name]([*said, Say("Yes?", 0.6), Say("Twelve.", 0.7)], api_key=KEY)
    store, calls = MemoryStore(), list[WholeCall]()
    gateway = Gateway(
        handlers={name: ProviderHandler(KINDS[name](KEY))},
        phones={"twilio": Phone(handler=name, auth_token=AUTH_TOKEN, model=MODELS[name])},
        api_keys=["k"],
        public_url=PUBLIC,
        store=store,
    )
    with anyio.fail_after(300):
        async with dialled(double, monkeypatch), gateway.running(), FakeCarrier("twilio") as carrier:
            await call(carrier, gateway)
            calls.append(await call_through(carrier, [tone(0.5, 8000)] * 4))
    (whole,) = calls
    lengths = [len(pcm) / 16_000 for pcm in (whole.greeting, *whole.answers)]
    assert lengths == pytest.approx([1.0, 1.2, 1.4, 0.6, 0.7], abs=0.002)
    assert whole.played == pytest.approx(1.6, abs=0.2)
    record, life = await life_of(store)
    assert (record.key_id, record.provider) == ("phone:twilio", name)
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")
    if name != "google":  # it is not told
        _, heard = double.session.truncations[-1]
        assert heard / 1000 == pytest.approx(whole.played, abs=0.02)
