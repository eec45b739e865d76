"""A phone call that a gateway takes for the offline voice: a carrier, a recogniser, a real WebSocket."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from speko_anyio.gateway import Gateway, MemoryStore, Phone, default_handlers, running_gateway
from speko_anyio.testing import FakeCarrier
from tests.gateway.phone_support import AUTH_TOKEN, PUBLIC, ask_at, life_of, socket
from tests.support.patience import PATIENCE
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_whole_call_with_the_offline_voice() -> None:
    store = MemoryStore()
    gateway = Gateway(
        handlers=default_handlers(),
        phones={"twilio": Phone(handler="local", auth_token=AUTH_TOKEN)},
        api_keys=["k"],
        public_url=PUBLIC,
        store=store,
        transcript_retention=3600,
    )
    time = spoken("What time is it?", 8000)
    with anyio.fail_after(PATIENCE):
        async with running_gateway(gateway) as url, socket(url) as line, FakeCarrier() as carrier:
            await carrier.connect(line.receive, line.send, line.close, parameters=await ask_at(url))
            greeting = await carrier.listen()
            await carrier.say(time)
            answer = await carrier.listen()
            await carrier.say(time)
            await carrier.wait_playing()
            await carrier.wait_played(carrier.played + 0.3)
            await carrier.say(time)
            await carrier.listen()
            await carrier.press("12#")
            keyed = await carrier.listen()
            await carrier.hang_up()
    assert all(len(pcm) > 8000 for pcm in (greeting, answer, keyed))
    assert any(one.cleared for one in carrier.answers)
    record, life = await life_of(store)
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")
    said = [line.text for line in (await store.transcript(record.session_id)).lines]
    assert len(said) >= 5, "the greeting, what was heard, and what was answered"
