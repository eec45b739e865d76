"""A client that is nothing but wsproto over a byte stream."""

from __future__ import annotations

import json
from typing import Any

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)


class WebSocketClient:
    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self._finished = False

    async def open(
        self,
        target: str = "/v1/realtime?model=m",
        *,
        key: str = "test-key",
        header: str = "authorization",
        subprotocols: tuple[str, ...] = (),
    ) -> AcceptConnection | RejectConnection:
        value = f"Bearer {key}" if header == "authorization" else key
        request = Request(
            host="double.test",
            target=target,
            subprotocols=list(subprotocols),
            extra_headers=[] if subprotocols else [(header.encode(), value.encode())],
        )
        await self.stream.send(self._ws.send(request))
        event = await self.event()
        assert isinstance(event, AcceptConnection | RejectConnection)
        return event

    async def event(self) -> Event:
        """The next one."""
        while not self._events:
            try:
                data = await self.stream.receive()
            except anyio.EndOfStream:
                data = b""
            self._ws.receive_data(data or None)
            self._events += self._ws.events()
        return self._events.pop(0)

    async def send(self, event: Event) -> None:
        await self.stream.send(self._ws.send(event))

    async def say(self, message: Any) -> None:
        await self.send(TextMessage(data=json.dumps(message)))

    async def hear(self) -> tuple[type[Event], Any]:
        """The kind of the next message, and what it says."""
        pieces: list[Any] = []
        while True:
            event = await self.event()
            assert isinstance(event, TextMessage | BytesMessage), event
            pieces.append(event.data)
            if event.message_finished:
                empty = "" if isinstance(event, TextMessage) else b""
                return type(event), json.loads(empty.join(pieces))

    async def hear_until(self, kind: str) -> list[str]:
        """The types of the messages up to the one of type `kind`."""
        heard: list[str] = []
        while not heard or heard[-1] != kind:
            heard.append((await self.hear())[1]["type"])
        return heard

    async def ping(self) -> Event:
        await self.send(Ping(payload=b"x"))
        return await self.event()

    async def close(self, code: int = 1000) -> Event:
        await self.send(CloseConnection(code=code, reason="bye"))
        return await self.event()
