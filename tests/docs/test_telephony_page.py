"""The programs of docs/telephony.md, called over a real WebSocket."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus

from speko_anyio.testing import mumble
from speko_anyio.testing.providers import OpenAIDouble, Say, tone
from tests.support.phone import call_through, dialled
from tests.support.serve import serving
from tests.telephony import lines

from .programs import programs

ANSWERING, BARGE_IN, CODEC = programs("telephony.md")
URL = "wss://voice.example.com/call"
SECRET = "the-auth-token-of-the-account"

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")


def signature(url: str) -> dict[str, str]:
    digest = hmac.digest(SECRET.encode(), url.encode(), "sha1")
    return {"X-Twilio-Signature": base64.b64encode(digest).decode()}


async def test_a_whole_call_over_a_real_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    off = 1.0
    for _ in range(3):  # a busy machine may delay the clear that ends the answer on the line
        off = await call(monkeypatch)
        if off <= 0.02:
            break
    assert off <= 0.02


async def call(monkeypatch: pytest.MonkeyPatch) -> float:
    """Call the application; return by how many seconds the truncation was wrong."""
    said = [Say("Hello.", 0.6), Say("One.", 0.4), Say("Two.", 0.5), Say("A story.", 8.0)]
    double = OpenAIDouble([*said, Say("Yes?", 0.3), Say("Twelve.", 0.4)])
    with anyio.fail_after(60):
        async with double.serve() as base_url:
            monkeypatch.setenv("OPENAI_BASE_URL", base_url)
            with serving(ANSWERING.load()["app"]) as host:
                async with httpx.AsyncClient() as http:
                    answer = await http.post(f"http://{host}/call")
                assert f'url="{URL}"' in answer.text
                async with dialled(f"ws://{host}/call", signature(URL)) as carrier:
                    whole = await call_through(carrier, [tone(0.3, 8000)] * 4, interrupt_after=1.0)
                    while double.session.closed is None:  # noqa: ASYNC110 - a double tells nobody
                        await anyio.sleep(0.01)
    lengths = [len(pcm) / 16_000 for pcm in (whole.greeting, *whole.answers)]
    assert lengths == pytest.approx([0.6, 0.4, 0.5, 0.3, 0.4], abs=0.002)
    assert double.session.closed == (1000, "caller_hung_up")
    assert [item["content"][0]["text"] for item in double.session.items] == ["12"]
    (truncation,) = double.session.truncations
    return abs(truncation[1] / 1000 - whole.played)


async def test_somebody_who_is_not_the_carrier_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with serving(ANSWERING.load()["app"]) as host:
        for headers in ({}, signature("wss://elsewhere.example.com/call")):
            with pytest.raises(InvalidStatus) as refusal:
                async with dialled(f"ws://{host}/call", headers):
                    raise AssertionError("it was answered")
            assert refusal.value.response.status_code == 403
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


async def test_the_caller_interrupts_a_session_that_detects_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    double = OpenAIDouble([Say("The terms.", 60.0)])
    with anyio.fail_after(60):
        async with double.serve() as base_url:
            monkeypatch.setenv("OPENAI_BASE_URL", base_url)
            with serving(BARGE_IN.load()["app"]) as host:
                async with dialled(f"ws://{host}/call") as carrier:
                    await carrier.wait_playing()
                    while not (carrier.clears and double.session.truncations):
                        await carrier.say(mumble(1.0, sample_rate=8000, seed=1))
                    assert carrier.buffered == 0
                    await carrier.hang_up()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_codec_alone(capsys: pytest.CaptureFixture[str]) -> None:
    receive = CODEC.load()["receive"]
    *call, stop = lines.twilio()
    sent = [message for one in call for message in receive(json.dumps(one))]
    assert [json.loads(message)["event"] for message in sent] == ["media", "clear"]
    assert capsys.readouterr().out == "a call of +15550100001, at 8000 Hz\nall up to my label was played\n"
    (mark,) = receive(lines.changed(call[3], "dtmf.digit", "#"))
    assert json.loads(mark)["mark"] == {"name": "end"}
    assert receive(json.dumps(stop)) == []
