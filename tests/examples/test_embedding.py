"""The examples for embedders do what their docstrings say, against a server of another make."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import aiohttp
import pytest
import trio
import uvicorn
import websockets.sync.client
from websockets.typing import Subprotocol

from speko_anyio.protocol import (
    Audio,
    AudioIn,
    ClientConnection,
    Close,
    Commit,
    Frame,
    HandshakeError,
    Ready,
    ToolCall,
    ToolResult,
    Transcript,
)
from tests.interop.fake_server import TOKEN, FakeServer
from tests.interop.wire import Wire
from tests.support.patience import PATIENCE
from tests.support.processes import run

EXAMPLES = Path(__file__).parents[2] / "examples" / "embedding"

Talk: TypeAlias = Callable[[str, str], list[Frame]]

BYTE_LEVEL = ["blocking_socket", "asyncio_protocol", "trio_tasks", "gui_thread"]
CLIENTS = [*BYTE_LEVEL, "aiohttp_client"]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import an example as its own directory's programs do, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def talk_of(example: ModuleType) -> Talk:
    """Return the example's client as a plain function."""
    if hasattr(example, "talk"):
        return example.talk  # type: ignore[no-any-return]
    if example.__name__ == "trio_tasks":
        return lambda url, token: trio.run(example.converse, url, token)
    return lambda url, token: asyncio.run(example.converse(url, token))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_talks_through_a_whole_session(name: str, load: Callable[[str], ModuleType]) -> None:
    talk = talk_of(load(name))
    with FakeServer() as server:
        heard = talk(server.url, TOKEN)

    assert heard[0] == Ready(24_000, 24_000)
    assert b"".join(frame.pcm for frame in heard if isinstance(frame, Audio)) == bytes(9600)
    assert [frame for frame in heard[1:] if not isinstance(frame, Audio)] == [
        Transcript("user", "What is the weather?", True),
        ToolCall("call-1", "get_weather", '{"city": "Oslo"}'),
        Transcript("assistant", 'The tool says {"celsius": 7}.', True),
        Close(1000, "that was all", "local"),
    ]
    assert [command for command in server.commands if not isinstance(command, AudioIn)] == [
        Commit(),
        ToolResult("call-1", '{"celsius": 7}'),
        Close(1000, "that was all", "remote"),
    ]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_hears_that_the_server_vanished(name: str, load: Callable[[str], ModuleType]) -> None:
    talk = talk_of(load(name))
    with FakeServer("vanish") as server:
        heard = talk(server.url, TOKEN)
    end = heard[-1]
    assert isinstance(end, Close)
    assert (end.code, end.initiated_by) == (1006, "transport")


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_client_says_why_it_was_refused(name: str, load: Callable[[str], ModuleType]) -> None:
    talk = talk_of(load(name))
    with (
        FakeServer() as server,
        pytest.raises(HandshakeError, match=r"HTTP 401 \(unknown token\)") as refusal,
    ):
        talk(server.url, "another")
    assert refusal.value.status == 401


def test_aiohttp_reports_a_refusal_itself(load: Callable[[str], ModuleType]) -> None:
    talk = talk_of(load("aiohttp_client"))
    with FakeServer() as server, pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        talk(server.url, "another")
    assert refusal.value.status == 401


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_client_gives_up_a_silent_server(
    name: str, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load(name)
    monkeypatch.setattr(
        example, "ClientConnection", functools.partial(ClientConnection, handshake_timeout=0.05)
    )
    with FakeServer("mute") as server, pytest.raises(HandshakeError, match="did not answer the handshake"):
        talk_of(example)(server.url, TOKEN)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_does_not_wait_for_ever_for_the_answer_to_its_close(
    name: str, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load(name)
    if name == "aiohttp_client":
        impatient = aiohttp.ClientWSTimeout(ws_close=0.05)  # pyright: ignore[reportCallIssue]  # an attrs class
        monkeypatch.setattr(example, "CLOSE_TIMEOUT", impatient)
    else:
        monkeypatch.setattr(
            example, "ClientConnection", functools.partial(ClientConnection, close_timeout=0.05)
        )
    with FakeServer("deaf") as server:
        heard = talk_of(example)(server.url, TOKEN)
    end = heard[-1]
    assert isinstance(end, Close)
    assert (end.code, end.initiated_by) == (1006, "local")


class StarletteServer:
    """The example's application under uvicorn, in a thread."""

    def __init__(self, example: ModuleType) -> None:
        self.heard: list[object] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        app = example.create_app("/stream", TOKEN, self.heard)
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._socket]})

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()
        return f"ws://{host}:{port}/stream"

    def connect(self, token: str) -> tuple[ClientConnection, Wire[Frame]]:
        session = ClientConnection(self.url, token)
        return session, Wire(socket.create_connection(self._socket.getsockname(), PATIENCE), session)

    def __enter__(self) -> StarletteServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE)
        self._socket.close()
        assert not self._thread.is_alive()


def test_the_server_talks_through_a_whole_session(load: Callable[[str], ModuleType]) -> None:
    with StarletteServer(load("starlette_server")) as server:
        session, wire = server.connect(TOKEN)
        with wire:
            assert wire.next_event() == Ready(24_000, 24_000)
            session.send_audio(bytes(960))
            session.commit()
            assert wire.next_event() == Audio(bytes(960), 24_000)
            assert wire.next_event() == Transcript("user", "What is the weather?", True)
            assert wire.next_event() == ToolCall("call-1", "get_weather", '{"city": "Oslo"}')
            session.send_tool_result("call-1", "fine")
            assert wire.next_event() == Transcript("assistant", "The weather is fine.", True)
            session.close(4000, "bye")
            assert wire.until_close() == [Close(4000, "bye", "local")]
            wire.finish()
    assert [type(command) for command in server.heard] == [AudioIn, Commit, ToolResult, Close]
    end = server.heard[-1]
    assert isinstance(end, Close)
    assert (end.code, end.initiated_by) == (4000, "remote")


def test_the_server_refuses_another_token(load: Callable[[str], ModuleType]) -> None:
    with StarletteServer(load("starlette_server")) as server:
        _, wire = server.connect("another")
        with wire, pytest.raises(HandshakeError) as refusal:
            wire.next_event()
    assert refusal.value.status == 403


def test_the_server_says_what_was_wrong_with_a_message(load: Callable[[str], ModuleType]) -> None:
    with (
        StarletteServer(load("starlette_server")) as server,
        websockets.sync.client.connect(server.url, subprotocols=[Subprotocol(TOKEN)], proxy=None) as client,
    ):
        assert json.loads(client.recv(PATIENCE))["t"] == "ready"
        client.send('{"t": "tool_result", "callId": ["no", "string"]}')
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007
    # Longer than a close frame holds, so cut.
    assert closed.value.rcvd.reason.startswith("the peer sent a text message that is not of this protocol: ")


@pytest.mark.parametrize("name", [*CLIENTS, "starlette_server"])
def test_an_example_is_at_most_sixty_lines(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", [*CLIENTS, "starlette_server"])
def test_an_example_called_wrongly_says_how_in_one_line(name: str) -> None:
    done = run([sys.executable, EXAMPLES / f"{name}.py"])
    assert done.returncode == 2
    assert done.stderr == f"usage: python {EXAMPLES / name}.py WS_URL TOKEN\n"


@pytest.mark.parametrize("name", CLIENTS)
def test_an_example_runs_from_a_shell(name: str) -> None:
    with FakeServer() as server:
        done = run([sys.executable, EXAMPLES / f"{name}.py", server.url, TOKEN])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Close(code=1000, reason='that was all', initiated_by='local')"
