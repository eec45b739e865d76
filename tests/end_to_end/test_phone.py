"""A phone call with the offline voice: a carrier, an application, a gateway, a recogniser, real sockets."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from fastapi import FastAPI, WebSocket

from speko_anyio import Close, Speko, answer_call, tool
from speko_anyio.gateway import Gateway, default_handlers, running_gateway
from speko_anyio.protocol import close_codes
from tests.support.patience import PATIENCE
from tests.support.phone import call_through, dialled
from tests.support.serve import serving
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]

KEY = "sk_end_to_end"
LONG = "rainy in the morning, cloudy at noon, sunny in the afternoon, and at night there may be a storm"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_whole_call_with_the_offline_voice() -> None:
    asked: list[str] = []
    ended: list[tuple[Close | None, list[str]]] = []

    @tool
    async def get_weather(city: str) -> str:
        """Current weather for a city."""
        asked.append(city)
        return LONG

    gateway = Gateway(handlers=default_handlers(), api_keys=[KEY])
    app = FastAPI()
    time, weather = (spoken(text, 8000) for text in ("What time is it?", "What is the weather in Paris?"))
    with anyio.fail_after(PATIENCE):
        async with running_gateway(gateway) as url:

            @app.websocket("/call")
            async def talk(websocket: WebSocket) -> None:
                async with (
                    answer_call(websocket, "twilio") as call,
                    Speko(KEY, url) as speko,
                    speko.realtime.connect(
                        provider="local", model="local", tools=[get_weather], greeting="Hello there."
                    ) as session,
                ):
                    await call.join(session)
                    ended.append(
                        (
                            session.closed,
                            [item.text for item in session.history if item.role in ("user", "assistant")],
                        )
                    )

            with serving(app) as host:
                async with dialled(f"ws://{host}/call") as carrier:
                    whole = await call_through(carrier, [time, time, weather, time])
                    while not ended:  # noqa: ASYNC110 - the application runs in another thread
                        await anyio.sleep(0.01)
    assert len(asked) == 1, "whichever city a line of 8 kHz makes of Paris"
    ((closed, said),) = ended
    assert closed == Close(close_codes.NORMAL, "caller_hung_up", "local")
    assert "12" in said
    assert said[0] == "Hello there."
    assert len(whole.greeting) > 8000
    assert all(len(answer) > 8000 for answer in whole.answers)
    interrupted = next(text for text in said if "rainy" in text)
    assert "storm" not in interrupted, "nobody heard that"
    assert whole.played > 1.5
