"""What a provider may make a bridge hold, by numbers and not by bytes."""

from __future__ import annotations

import base64
import json

import pytest

from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol.frames import Audio
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.google import GoogleDialect
from speko_anyio.providers.google._dialect import MAX_PARTS


def bridged(*messages: str, rate: int = 16_000) -> Bridge:
    bridge = Bridge(resampling=Resampler, output_sample_rate=rate)
    dialect = GoogleDialect(SessionConfig(provider="google", model="m"))
    bridge.attach(dialect, 0.0)
    for message in ('{"setupComplete":{}}', *messages):
        with bridge.at(0.0):
            dialect.receive_message(message)
    return bridge


def spoken(pcm: bytes, rate: int | None = None, *, parts: int = 1) -> str:
    kind = f"audio/pcm;rate={rate}" if rate else "audio/pcm"
    blob = {"data": base64.b64encode(pcm).decode(), "mimeType": kind}
    return json.dumps({"serverContent": {"modelTurn": {"parts": [{"inlineData": blob}] * parts}}})


@pytest.mark.parametrize("rate", [1, 2, 7_999, 192_001, 999_999])
def test_an_impossible_rate_is_taken_for_the_usual_one(rate: int) -> None:
    bridge = bridged(spoken(bytes(2_000), rate), '{"serverContent":{"turnComplete":true}}')
    heard = 0
    while (frame := bridge.next_frame()) is not None:
        heard += len(frame.pcm) if isinstance(frame, Audio) else 0
    assert heard == pytest.approx(2_000 * 16_000 / 24_000, abs=4)


def test_a_message_of_too_many_parts_ends_the_connection() -> None:
    bridge = bridged(spoken(b"\0\0", parts=MAX_PARTS))
    assert bridge.provider is not None
    bridge = bridged(spoken(b"\0\0", parts=MAX_PARTS + 1))
    assert bridge.provider is None


def test_tiny_pieces_that_wait_for_the_client_count_more_than_their_bytes() -> None:
    message = spoken(b"\0\0", parts=MAX_PARTS)
    bridge = bridged(rate=24_000)
    taken = 0
    while not bridge.provider_must_wait:
        assert bridge.provider is not None
        with bridge.at(0.0):
            bridge.provider.receive_message(message)
        taken += 1
    assert taken <= 20, "20,000 pieces of 2 bytes take more than a megabyte"
