"""Rates of the user's own around a provider's core."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, TextMessage

from speko_anyio.client._resampled import ResampledCore
from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    Close,
    ConnectionClosed,
    Frame,
    Interruption,
    LocalProtocolError,
    Ready,
    ResponseEnd,
)
from speko_anyio.protocol._state import State
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._connection import ProviderConnection
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint

SPEECH = b"\x10\x27\xf0\xd8" * 800
"""0.1 seconds at 16 kHz."""


class Peer:
    """OpenAI, ready, at the other end of a core at 16 kHz."""

    def __init__(self) -> None:
        config = SessionConfig(provider="openai", model="gpt-realtime-2.1")
        inner = ProviderConnection(
            openai_endpoint("key", "gpt-realtime-2.1"), OpenAIDialect(config, state=State.CONNECTING)
        )
        self.core = ResampledCore(inner, input_sample_rate=16_000, output_sample_rate=16_000)
        self._ws = WSConnection(ConnectionType.SERVER)
        self._ws.receive_data(self.core.data_to_send())
        list(self._ws.events())
        self.core.receive_data(self._ws.send(AcceptConnection()))
        self.says({"type": "session.created", "session": {}})
        assert self.says({"type": "session.updated", "session": {}}) == [Ready(16_000, 16_000)]
        self.heard()

    def says(self, *events: dict[str, Any]) -> list[Frame]:
        for event in events:
            self.core.receive_data(self._ws.send(TextMessage(json.dumps(event))))
        frames: list[Frame] = []
        while (frame := self.core.next_event()) is not NEED_DATA:
            frames.append(frame)
        return frames

    def audio(self, pcm: bytes) -> list[Frame]:
        delta = base64.b64encode(pcm).decode()
        return self.says(
            {"type": "response.output_audio.delta", "response_id": "r", "item_id": "a", "delta": delta}
        )

    def heard(self) -> list[Any]:
        self._ws.receive_data(self.core.data_to_send())
        return [
            json.loads(event.data) if isinstance(event, TextMessage) else event for event in self._ws.events()
        ]

    def heard_audio(self) -> int:
        """Bytes of audio, at 24 kHz."""
        return sum(len(base64.b64decode(message["audio"])) for message in self.heard() if "audio" in message)


def size(frames: list[Frame]) -> int:
    return sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio))


def test_all_of_the_users_speech_is_sent_by_the_end_of_the_turn() -> None:
    peer = Peer()
    for start in range(0, len(SPEECH), 640):
        peer.core.send_audio(memoryview(SPEECH)[start : start + 640])
    heard = peer.heard_audio()
    assert heard < len(SPEECH) * 3 // 2
    peer.core.end_turn()
    silence = 800 * 24 * 2  # by which the provider finds the end
    assert heard + peer.heard_audio() == pytest.approx(len(SPEECH) * 3 // 2 + silence, abs=4)


def test_what_is_cleared_is_not_sent() -> None:
    peer = Peer()
    peer.core.send_audio(SPEECH[:64])
    peer.core.clear()
    peer.heard()
    peer.core.commit()
    assert peer.heard_audio() == 800 * 24 * 2


def test_all_of_the_answer_comes() -> None:
    peer = Peer()
    frames = peer.says({"type": "response.created", "response": {"id": "r"}})
    frames += peer.audio(bytes(4800)) + peer.audio(bytes(4800))
    assert size(frames) < 6400
    frames += peer.says({"type": "response.done", "response": {"id": "r", "status": "completed"}})
    assert size(frames) == pytest.approx(6400, abs=4)
    assert {frame.sample_rate for frame in frames if isinstance(frame, Audio)} == {16_000}


def test_nothing_of_an_answer_that_was_cut_off() -> None:
    peer = Peer()
    peer.says({"type": "response.created", "response": {"id": "r"}})
    peer.audio(bytes(4800))
    peer.core.interrupt()
    assert peer.says() == [Interruption("assistant")]
    done = peer.says({"type": "response.done", "response": {"id": "r", "status": "cancelled"}})
    assert done == [ResponseEnd("interrupted")]


def test_half_a_sample_is_refused() -> None:
    peer = Peer()
    with pytest.raises(LocalProtocolError, match="two bytes a sample"):
        peer.core.send_audio(b"abc")
    assert peer.heard() == []


def test_after_the_end() -> None:
    peer = Peer()
    peer.core.close(1000, "bye")
    (goodbye,) = peer.heard()
    assert isinstance(goodbye, CloseConnection)
    with pytest.raises(ConnectionClosed):
        peer.core.send_audio(SPEECH)
    peer.core.receive_lost()
    closed = peer.core.next_event()
    assert isinstance(closed, Close)
    assert closed.initiated_by == "local"
    assert peer.core.closed == closed
    assert isinstance(peer.core.error, ConnectionClosed)
