"""The providers' own Python clients against the doubles: real clients over real sockets, which know nothing
of us. Both need asyncio; Google's insists on TLS."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import anyio
import openai
import pytest
import trustme
from google import genai
from google.genai import types
from openai.types.realtime import RealtimeServerEvent

from speko_anyio.testing.providers import CallTools, Fail, GoogleDouble, OpenAIDouble, Pace, Say, tone

pytestmark = pytest.mark.anyio

CALLS = CallTools([("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])

PROMPT = Pace(transcription=0.0)
"""What the user said is written down before the answer is over."""


@pytest.fixture
def anyio_backend() -> str:
    """All that these clients run on."""
    return "asyncio"


def b64(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


def openai_client(base_url: str, api_key: str = "test-key") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=api_key, base_url="http://127.0.0.1:9/v1", websocket_base_url=f"{base_url}/v1", max_retries=0
    )


async def test_openai_client() -> None:
    double = OpenAIDouble(
        [CALLS, Say("Both are sunny.", 0.5)], user_says=["What's the weather?"], pace=PROMPT
    )
    events: list[RealtimeServerEvent] = []
    with anyio.fail_after(20):
        async with (
            double.serve() as base_url,
            openai_client(base_url) as client,
            client.realtime.connect(model="gpt-realtime-2.1") as connection,
        ):
            await connection.session.update(
                session={
                    "type": "realtime",
                    "audio": {
                        "input": {
                            "transcription": {"model": "whisper-1"},
                            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                        }
                    },
                    "tools": [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}],
                }
            )
            async for event in connection:
                events.append(event)
                match event.type:
                    case "session.updated":
                        for _ in range(5):
                            await connection.input_audio_buffer.append(audio=b64(tone(0.1, 24_000)))
                        await connection.input_audio_buffer.append(audio=b64(bytes(24_000)))
                    case "response.function_call_arguments.done":
                        await connection.conversation.item.create(
                            item={"type": "function_call_output", "call_id": event.call_id, "output": "{}"}
                        )
                    case "response.done" if (
                        event.response.output and event.response.output[0].type == "function_call"
                    ):
                        await connection.response.create()
                    case "response.done":
                        break
    by_type = {event.type: event for event in events}
    transcribed: Any = by_type["conversation.item.input_audio_transcription.completed"]
    assert transcribed.transcript == "What's the weather?"
    said: Any = by_type["response.output_audio_transcript.done"]
    assert said.transcript == "Both are sunny."
    audio = b"".join(
        base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"
    )
    assert audio == tone(0.5, 24_000)
    assert double.session.results == {"call_1": "{}", "call_2": "{}"}
    assert double.session.audio == tone(0.1, 24_000) * 5 + bytes(24_000)
    assert double.session.errors == []
    done: Any = by_type["response.done"]
    assert done.response.usage.output_token_details.audio_tokens > 0


async def test_openai_client_interrupts() -> None:
    double = OpenAIDouble([Say("word " * 50, 30.0)], pace=Pace(speed=10.0))
    with anyio.fail_after(20):
        async with (
            double.serve() as base_url,
            openai_client(base_url) as client,
            client.realtime.connect(model="gpt-realtime-2.1") as connection,
        ):
            await connection.response.create()
            item_id = ""
            async for event in connection:
                match event.type:
                    case "response.output_audio.delta" if not item_id:
                        item_id = event.item_id
                        await connection.response.cancel()
                        await connection.conversation.item.truncate(
                            item_id=item_id, content_index=0, audio_end_ms=50
                        )
                    case "response.done":
                        assert event.response.status == "cancelled"
                    case "conversation.item.truncated":
                        break
    assert double.session.truncations == [(item_id, 50)]


async def test_openai_client_hears_of_errors() -> None:
    double = OpenAIDouble([Fail("server_error")])
    with anyio.fail_after(20):
        async with (
            double.serve() as base_url,
            openai_client(base_url) as client,
            client.realtime.connect(model="gpt-realtime-2.1") as connection,
        ):
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            async for event in connection:
                if event.type == "error":
                    assert event.error.code == "input_audio_buffer_commit_empty"
                if event.type == "response.done":
                    assert event.response.status_details is not None
                    assert event.response.status_details.error is not None
                    assert event.response.status_details.error.code == "server_error"
                    break


async def test_openai_client_with_a_wrong_key() -> None:
    double = OpenAIDouble()
    with anyio.fail_after(20):
        async with double.serve() as base_url, openai_client(base_url, "wrong") as client:
            with pytest.raises(Exception, match="401"):
                await client.realtime.connect(model="gpt-realtime-2.1").enter()
    assert len(double.refused) == 1


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server, and for a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def google_client(base_url: str, trust: ssl.SSLContext, api_key: str = "test-key") -> genai.Client:
    options = types.HttpOptions(base_url=base_url, async_client_args={"ssl": trust})
    return genai.Client(api_key=api_key, http_options=options)


CONFIG = types.LiveConnectConfig(
    response_modalities=[types.Modality.AUDIO],
    system_instruction="You are terse.",
    input_audio_transcription=types.AudioTranscriptionConfig(),
    output_audio_transcription=types.AudioTranscriptionConfig(),
    session_resumption=types.SessionResumptionConfig(),
    realtime_input_config=types.RealtimeInputConfig(
        automatic_activity_detection=types.AutomaticActivityDetection(silence_duration_ms=300)
    ),
    tools=[
        types.Tool(
            function_declarations=[
                types.FunctionDeclaration(
                    name="get_weather",
                    parameters=types.Schema(
                        type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}
                    ),
                )
            ]
        )
    ],
)


async def test_google_client() -> None:
    server, trust = tls()
    double = GoogleDouble(
        [CALLS, Say("Both are sunny.", 0.5)], user_says=["What's the weather?"], pace=PROMPT
    )
    audio, said, heard, handles = bytearray(), "", "", []
    usage: types.UsageMetadata | None = None
    with anyio.fail_after(20):
        async with (
            double.serve(ssl_context=server) as base_url,
            google_client(base_url, trust).aio.live.connect(model="gemini-3.8-live", config=CONFIG) as live,
        ):
            for pcm in (tone(0.5, 16_000), bytes(16_000)):
                await live.send_realtime_input(audio=types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
            async for message in live.receive():  # up to the end of the turn
                if message.tool_call is not None:
                    await live.send_tool_response(
                        function_responses=[
                            types.FunctionResponse(id=call.id, name=call.name, response={"celsius": 7})
                            for call in message.tool_call.function_calls or ()
                        ]
                    )
                if message.session_resumption_update is not None:
                    handles.append(message.session_resumption_update.new_handle)
                audio += message.data or b""
                usage = message.usage_metadata
                if (content := message.server_content) is not None:
                    said += (content.output_transcription and content.output_transcription.text) or ""
                    heard += (content.input_transcription and content.input_transcription.text) or ""
    assert audio == tone(0.5, 24_000)
    assert (said, heard) == ("Both are sunny.", " What's the weather?")
    assert len(double.session.results) == 2
    assert any(handles)
    assert usage is not None
    assert usage.response_token_count


async def test_google_client_resumes() -> None:
    server, trust = tls()
    double = GoogleDouble([Say("First.", 0.1), Say("Second.", 0.1)])
    said: list[str] = []
    handles: list[str | None] = [None]
    with anyio.fail_after(20):
        async with double.serve(ssl_context=server) as base_url:
            for _ in range(2):
                config = CONFIG.model_copy(
                    update={"session_resumption": types.SessionResumptionConfig(handle=handles[-1])}
                )
                client = google_client(base_url, trust)
                async with client.aio.live.connect(model="gemini-3.8-live", config=config) as live:
                    await live.send_realtime_input(text="Hello")
                    async for message in live.receive():
                        content, update = message.server_content, message.session_resumption_update
                        if content is not None and content.output_transcription is not None:
                            said.append(content.output_transcription.text or "")
                        if update is not None and update.resumable:
                            handles.append(update.new_handle)
    assert said == ["First.", "Second."]
    # Each session gives one before its turn is over, where this client stops to listen.
    assert [session.resumed_from for session in double.sessions] == handles[:2]


async def test_google_client_with_a_wrong_key() -> None:
    server, trust = tls()
    with anyio.fail_after(20):
        async with GoogleDouble().serve(ssl_context=server) as base_url:
            client = google_client(base_url, trust, "wrong")
            with pytest.raises(Exception, match="API key not valid"):
                async with client.aio.live.connect(model="gemini-3.8-live", config=CONFIG):
                    pass
