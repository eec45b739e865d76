"""The dialects as pure parts: over bytes of a WebSocket, and without anything that does I/O."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from speko_anyio.protocol import NEED_DATA, Frame, State, WebSocketCore
from speko_anyio.providers.openai import OpenAIDialect
from speko_anyio.providers.xai import XAIDialect

from .realtime_talk import OPENAI, XAI


class OverBytes(WebSocketCore[Frame, Any]):
    """A dialect over bytes, its WebSocket handshake left out."""

    def __init__(self, dialect: Any) -> None:
        super().__init__(dialect, client=True, entropy=bytes, ping_interval=None)
        self._opened()

    def _receive_handshake(self, event: object) -> None:
        raise AssertionError(event)

    def _handshake_timed_out(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(("dialect", "config"), [(OpenAIDialect, OPENAI), (XAIDialect, XAI)])
def test_a_dialect_runs_over_bytes(dialect: type[Any], config: Any) -> None:
    client = OverBytes(dialect(config, state=State.CONNECTING))
    server = Connection(ConnectionType.SERVER)

    def says(text: str | bytes) -> list[Any]:
        message = TextMessage(text) if isinstance(text, str) else BytesMessage(text)
        client.receive_data(server.send(message))
        events = []
        while (event := client.next_event()) is not NEED_DATA:
            events.append(event)
        return events

    def heard() -> list[Any]:
        server.receive_data(client.data_to_send())
        return list(server.events())

    client.dialect.send_audio(bytes(200))
    assert says('{"type":"session.created"}') == []
    (update,) = heard()
    assert isinstance(update, TextMessage)
    assert update.data.startswith('{"type":"session.update"')
    assert [type(event).__name__ for event in says('{"type":"session.updated"}')] == ["Ready"]
    (append,) = heard()
    assert append.data.startswith('{"type":"input_audio_buffer.append"')
    assert says('{"type":"response.output_audio.delta","response_id":"r","item_id":"a","delta":"AAA="}') != []
    # Some servers send their JSON in binary messages.
    (error,) = says(b'{"type":"error","error":"caf\xe9"}')
    assert error.message == "caf\ufffd"
    client.close(1000, "bye")
    (goodbye,) = heard()
    assert isinstance(goodbye, CloseConnection)


def test_the_dialects_load_nothing_that_does_io() -> None:
    program = (
        "import sys, importlib\n"
        "for name in ('openai', 'xai'):\n"
        "    importlib.import_module('speko_anyio.providers.' + name)\n"
        "forbidden = {'anyio', 'asyncio', 'trio', 'httpx', 'socket', 'openai', 'random'}\n"
        "print(sorted(forbidden & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
