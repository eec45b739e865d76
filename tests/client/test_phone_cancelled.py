"""`answer_call` and `PhoneCall.join`, cancelled at each await, on every event loop."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import MutableMapping
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import Audio, RealtimeSession, answer_call
from speko_anyio.testing.server import FakeServer
from tests.support.cancellation import cancel_at_each_await

pytestmark = pytest.mark.anyio

START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {"streamSid": "MZ1", "callSid": "CA1", "customParameters": {}},
}
SPEECH = {"event": "media", "streamSid": "MZ1", "media": {"payload": "f" * 160, "track": "inbound"}}
KEY = {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"digit": "5", "track": "inbound_track"}}
STOP = {"event": "stop", "streamSid": "MZ1", "stop": {"callSid": "CA1"}}


class Socket:
    """A carrier without a clock: each receive and each send takes one turn of the event loop."""

    def __init__(self, *messages: Any) -> None:
        self.messages = deque(json.dumps(message) for message in messages)
        self.sent: list[Any] = []
        self.closes: list[int] = []

    async def accept(self) -> None:
        await checkpoint()

    async def receive(self) -> MutableMapping[str, Any]:
        await checkpoint()
        if self.messages:
            return {"type": "websocket.receive", "text": self.messages.popleft()}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await checkpoint()
        self.sent.append(message)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closes.append(code)
        await checkpoint()


@pytest.mark.parametrize("who", ["caller", "service"])
async def test_a_call_is_cancelled_at_each_await(who: str) -> None:
    sockets: list[Socket] = []
    pressed: list[str] = []

    async def press(digit: str) -> None:
        await checkpoint()
        pressed.append(digit)

    async def body(session: RealtimeSession, server: FakeServer) -> None:
        speech = [SPEECH] * 20
        socket = Socket(START, *speech, KEY, *speech, *([STOP] if who == "caller" else []))
        sockets.append(socket)
        async with answer_call(socket, "twilio") as call:
            await call.join(session, on_digit=press)

    def at_turn(turn: int, server: FakeServer) -> None:
        if who == "service" and turn == 10 and server.closed is None:
            server.core.send(Audio(bytes(48), 24_000))
            server.core.close(1000, "goodbye")
            server.flush()

    async def afterwards(session: RealtimeSession) -> None:
        await session.send_audio(bytes(960))

    turns = await cancel_at_each_await(FakeServer, body, afterwards, at_turn=at_turn)
    assert turns > 10
    assert sockets[-1].closes == [1000]
    # Every socket whose call was begun is closed, once.
    assert {len(socket.closes) for socket in sockets} == {1}
