"""The tests' own client."""

from __future__ import annotations

from typing import Any, cast

import pytest

from speko_anyio.protocol import NEED_DATA, ClientConnection, Frame, Ready

from .support import RawClient

pytestmark = pytest.mark.anyio


class Core:
    """A core that has an answer to send once the event before `Ready` was taken."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[Frame] = [Ready(24000, 24000)]
        self.output = b""

    def receive_data(self, data: bytes) -> None:
        self.received += data

    def next_event(self) -> Any:
        if not self.received:
            return NEED_DATA
        self.output = b"pong"
        return self.events.pop(0)

    def data_to_send(self) -> bytes:
        data, self.output = self.output, b""
        return data


class Stream:
    def __init__(self) -> None:
        self.sent = b""

    async def receive(self) -> bytes:
        return b"ping"

    async def send(self, data: bytes) -> None:
        self.sent += data


async def test_what_the_core_answers_as_an_event_is_taken_goes_out() -> None:
    stream = Stream()
    client = RawClient(cast("Any", stream), cast("ClientConnection", Core()))
    assert await client.hear() == Ready(24000, 24000)
    assert stream.sent == b"pong"
