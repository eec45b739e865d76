"""The official TypeScript SDK, unmodified, against our gateway: providers' doubles and the offline voice.

npm does not have the SDK, but its sources are public. Build them (`npm install`, then `npx tsc -p
tsconfig.publish.json`) and name their `dist/index.js` in SPEKO_TYPESCRIPT_SDK.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from speko_anyio.gateway import Gateway, Handler, ProviderHandler, default_handlers, running_gateway
from speko_anyio.testing.providers import (
    CallTools,
    Pace,
    Reply,
    Say,
    tone,
)
from tests.support.accounts import DOUBLES, KINDS, MODELS, NAMES
from tests.support.patience import PATIENCE
from tests.support.speech import spoken

KEY = "sk_client"
PROGRAM = Path(__file__).with_name("published_typescript_client.mjs")
SDK = os.environ.get("SPEKO_TYPESCRIPT_SDK", "")
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("both_ways"),
    pytest.mark.skipif(not SDK, reason="SPEKO_TYPESCRIPT_SDK does not name the built SDK"),
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """What uvicorn runs on."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def node() -> list[str]:
    """Node with a WebSocket, which is behind an option until Node 22."""
    asked = subprocess.run(["node", "-p", "typeof WebSocket"], capture_output=True, text=True, check=True)
    return ["node"] if asked.stdout.strip() == "function" else ["node", "--experimental-websocket"]


@asynccontextmanager
async def serving(handlers: dict[str, Handler]) -> AsyncGenerator[str, None]:
    async with running_gateway(Gateway(handlers=handlers, api_keys=[KEY])) as url:
        yield url


async def talk(
    node: list[str], url: str, where: Path, pcm: bytes, *, key: str = KEY, **params: Any
) -> list[dict[str, Any]]:
    audio = where / "question.pcm"
    audio.write_bytes(pcm)
    command = [*node, "--no-warnings", str(PROGRAM), SDK, url, key, json.dumps(params), str(audio)]
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process(command)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def of(frames: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame["type"] == kind]


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("name", NAMES)
async def test_a_conversation_with_a_tool(name: str, rate: int, node: list[str], tmp_path: Path) -> None:
    replies: list[Reply] = [CallTools([("get_weather", {"city": "Oslo"})]), Say("It is sunny.", 0.5)]
    pace = Pace(latency=0.05, transcription=0.0)
    double = DOUBLES[name](replies, user_says=["What is the weather?"], api_key="sk-operator", pace=pace)
    async with double.serve() as provider_url:
        handler = ProviderHandler(KINDS[name]("sk-operator", base_url=provider_url))
        async with serving({name: handler}) as url:
            frames = await talk(
                node,
                url,
                tmp_path,
                tone(0.4, rate),
                provider=name,
                model=MODELS[name],
                inputSampleRate=rate,
                outputSampleRate=rate,
                systemPrompt="be brief",
                tools=[WEATHER],
                metadata={"order": 7},
                webhookTags={"team": "north"},
            )
    assert [call["name"] for call in of(frames, "tool_call")] == ["get_weather"]
    assert {frame["sampleRate"] for frame in of(frames, "audio")} == {rate}
    assert sum(frame["size"] for frame in of(frames, "audio")) == pytest.approx(rate, abs=8)
    said = [(frame["role"], frame["text"]) for frame in of(frames, "transcript") if frame["final"]]
    assert ("assistant", "It is sunny.") in said
    assert of(frames, "error") == []
    assert of(frames, "close") == [{"type": "close", "code": 1000, "reason": "client_closed"}]


async def test_the_offline_voice(node: list[str], tmp_path: Path) -> None:
    async with serving(dict(default_handlers())) as url:
        question = spoken("What is the weather in Paris?", 24000)
        frames = await talk(node, url, tmp_path, question, provider="local", model="local", tools=[WEATHER])
    (call,) = of(frames, "tool_call")
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "paris"})
    assert sum(frame["size"] for frame in of(frames, "audio")) > 24000
    assert of(frames, "error") == []


async def test_what_is_refused(node: list[str], tmp_path: Path) -> None:
    async with serving(dict(default_handlers())) as url:
        wrong_key = await talk(node, url, tmp_path, b"", key="wrong", provider="openai", model="m")
        wrong_provider = await talk(node, url, tmp_path, b"", provider="nobody", model="m")
    (refused,) = wrong_key
    assert (refused["status"], "API key" in refused["message"]) == (401, True)
    (refused,) = wrong_provider
    assert (refused["status"], refused["code"]) == (400, "VALIDATION_ERROR")
