"""xAI's audio as binary messages: the same conversation, with fewer bytes."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from speko_anyio import XAI, Audio, Transcript, XAIOptions
from speko_anyio.protocol import Interruption, LocalProtocolError, ResponseEnd
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.realtime import RealtimeDialect
from speko_anyio.providers.xai import XAIDialect, xai_endpoint
from speko_anyio.testing.providers import Joined, Request, Say, XAIDouble, tone

from .realtime_talk import Talk, check_xai, created, done, pcm, xai

BINARY = XAIOptions(binary_audio=True)
CONFIG = SessionConfig(provider="xai", model="grok-voice-latest", voice="eve")


def ready(options: XAIOptions = BINARY) -> Talk[RealtimeDialect]:
    return xai(options).make_ready()


def added(response_id: str, item_id: str) -> dict[str, Any]:
    item = {"id": item_id, "type": "message", "role": "assistant"}
    return {"type": "response.output_item.added", "response_id": response_id, "item": item}


def test_the_configuration_asks_for_it_in_both_directions() -> None:
    talk = xai(BINARY)
    talk.hear({"type": "session.created"})
    audio = talk.sent()[0]["session"]["audio"]
    assert (audio["input"]["transport"], audio["output"]["transport"]) == ("binary", "binary")


def test_audio_goes_out_as_it_is_in_its_place_among_the_events() -> None:
    dialect = ready(XAIOptions(binary_audio=True, turns="manual")).dialect
    dialect.send_audio(pcm(200))
    dialect.commit()
    audio, *events = dialect.messages_to_send()
    assert audio == pcm(200)
    assert [json.loads(str(event))["type"] for event in events] == [
        "input_audio_buffer.commit",
        "response.create",
    ]


def test_audio_that_was_held_goes_out_binary_too() -> None:
    talk = xai(BINARY)
    talk.dialect.send_audio(pcm(20))
    talk.hear({"type": "session.created"})
    talk.sent()
    talk.hear({"type": "session.updated", "session": {}})
    assert talk.dialect.messages_to_send() == [pcm(20)]


def test_audio_belongs_to_the_latest_item_of_the_response_in_flight() -> None:
    talk = ready()
    talk.dialect.playback.clock(0.0)
    talk.hear(created("r1", {}), added("r1", "a1"))
    talk.dialect.receive_message(tone(1.0, 24_000))
    (audio,) = talk.frames()
    assert isinstance(audio, Audio)
    assert audio.pcm == tone(1.0, 24_000)
    talk.dialect.playback.clock(0.25)
    talk.dialect.interrupt()
    cancel, truncate = talk.sent()
    assert cancel["type"] == "response.cancel"
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a1", 250)
    assert talk.frames() == [Interruption("assistant")]
    talk.dialect.receive_message(tone(1.0, 24_000))
    assert talk.hear(done("r1", "cancelled")) == [ResponseEnd("interrupted")]
    talk.dialect.receive_message(tone(1.0, 24_000))
    assert talk.frames() == []
    assert talk.dialect.stats.late_events == 2


def test_a_full_outbox_takes_all_or_nothing() -> None:
    dialect = ready().dialect
    dialect.outbox.limit = 1000
    dialect.send_audio(bytes(960))
    with pytest.raises(LocalProtocolError, match="outbox"):
        dialect.send_audio(bytes(960))
    assert dialect.messages_to_send() == [bytes(960)]


def test_without_the_option_a_binary_message_is_json() -> None:
    talk = ready(XAIOptions())
    talk.dialect.receive_message(json.dumps(created("r1", {})).encode())
    assert talk.dialect.responding


@pytest.mark.parametrize("binary", [False, True])
def test_a_conversation_is_the_same(binary: bool) -> None:
    double = XAIDouble([Say("Good morning!", 0.5)], user_says=["Hello"])
    endpoint = xai_endpoint("test-key", "grok-voice-latest")
    dialect = XAIDialect(CONFIG, options=XAIOptions(binary_audio=binary))
    joined = Joined(dialect, double.open(Request.to(endpoint)))
    dialect.send_audio(tone(0.5, 24_000) + bytes(48_000))
    frames = joined.run(5.0)
    heard = b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))
    assert len(heard) == 24_000
    texts = {frame.text for frame in frames if isinstance(frame, Transcript) and frame.final}
    assert texts == {"Hello", "Good morning!"}
    assert joined.session.errors == []
    assert bytes(joined.session.audio) == tone(0.5, 24_000) + bytes(48_000)


@pytest.mark.anyio
async def test_over_a_connection() -> None:
    double = XAIDouble([Say("Good morning!", 0.5)])
    heard = 0
    with anyio.fail_after(30):
        async with (
            double.serve() as url,
            XAI("test-key", base_url=url, options=BINARY).connect(model="grok-voice-latest") as session,
        ):
            await session.send_audio(tone(0.5, 24_000) + bytes(48_000))
            async for frame in session:
                match frame:
                    case Audio(pcm=pcm):
                        heard += len(pcm)
                    case ResponseEnd():
                        break
    assert heard == 24_000
    assert len(double.session.audio) == 72_000
    assert not any(message["type"] == "input_audio_buffer.append" for message in double.session.received)


def test_the_messages_are_as_documented() -> None:
    talk = xai(BINARY)
    talk.hear({"type": "session.created"})
    check_xai(talk.sent()[0])
