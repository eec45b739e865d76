"""docs/integrating.md keeps to the code: its programs run, and its tables name everything there is."""

from __future__ import annotations

import re
import socket
from typing import get_args

import pytest

from speko_anyio.protocol import (
    DEFAULT_LIMITS,
    ClientConnection,
    ClientProtocol,
    Close,
    Command,
    ConnectionClosed,
    Frame,
    HandshakeError,
    Limits,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ServerConnection,
    ServerProtocol,
    ToolCall,
    Transcript,
)
from tests.docs.programs import DOCS, programs
from tests.interop.fake_server import TOKEN, FakeServer
from tests.support.patience import PATIENCE

PAGE = (DOCS / "integrating.md").read_text(encoding="utf-8")
PROGRAMS = programs("integrating.md")

NO_VERBS = {
    *("receive_data", "receive_eof", "receive_message", "receive_close", "receive_lost"),
    *(
        "next_event",
        "receive_audio",
        "next_events",
        "data_to_send",
        "messages_to_send",
        "next_message",
        "send_failed",
        "next_deadline",
        "handle_timeout",
    ),
    *("suspend_keepalive", "resume_keepalive"),
    # For a provider at the other end
    *("send_provider_event", "watch_provider"),
    # A byte level's, to its dialect
    *("opened", "fail_handshake", "violated", "too_big", "run_timer"),
}


def run_minimal_loop(server: FakeServer, token: str) -> list[Frame]:
    run = PROGRAMS[0].load()["run"]
    assert callable(run)
    heard = []

    def on_event(session: ClientConnection, event: Frame) -> None:
        heard.append(event)
        match event:
            case Ready():
                session.commit()
            case ToolCall(call_id=call_id):
                session.send_tool_result(call_id, "rain")
            case Transcript(role="assistant"):
                session.close(reason="enough")

    host, _, port = server.url.removeprefix("ws://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as sock:
        run(sock, ClientConnection(server.url, token), on_event)
    return heard


def test_the_minimal_loop_runs_a_session() -> None:
    with FakeServer() as server:
        heard = run_minimal_loop(server, TOKEN)
    assert heard == [
        Ready(24_000, 24_000),
        Transcript("user", "What is the weather?", True),
        ToolCall("call-1", "get_weather", '{"city": "Oslo"}'),
        Transcript("assistant", "The tool says rain.", True),
        Close(1000, "enough", "local"),
    ]


def test_the_minimal_loop_raises_when_it_is_refused() -> None:
    with FakeServer() as server, pytest.raises(HandshakeError, match="401"):
        run_minimal_loop(server, "another")


def test_the_minimal_loop_is_at_most_fifteen_lines() -> None:
    function = PROGRAMS[0].source[PROGRAMS[0].source.index("def run") :]
    assert len(function.splitlines()) <= 15


def test_the_replay_program_runs() -> None:
    assert len(PROGRAMS) == 2
    assert isinstance(PROGRAMS[1].load()["one"], ClientConnection)


EVENTS: dict[str, type] = {kind.__name__: kind for kind in (*get_args(Frame), *get_args(Command))}


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_every_event_is_in_a_table_with_its_fields(kind: type) -> None:
    fields = ", ".join(kind.__struct_fields__)  # type: ignore[attr-defined]  # a msgspec.Struct
    assert f"| `{kind.__name__}({fields})` |" in PAGE


@pytest.mark.parametrize("side", [ClientConnection, ServerConnection, ClientProtocol, ServerProtocol])
def test_every_method_is_told(side: type) -> None:
    methods = {name for name in dir(side) if not name.startswith("_") and callable(getattr(side, name))}
    missing = [name for name in methods if f"`{name}(" not in PAGE and f"`{name}`" not in PAGE]
    assert missing == []
    verbs = PAGE[PAGE.index("## Verbs") : PAGE.index("## Errors")]
    assert [name for name in methods - NO_VERBS if f"`{name}(" not in verbs] == []


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_every_limit_is_told_with_its_default(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*)$", PAGE, re.MULTILINE)
    value = getattr(DEFAULT_LIMITS, name)
    shown = f"{value:,}"
    for size, unit in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if value % size == 0 and value > 1024:
            shown = f"{value // size} {unit}"
            break
    assert row.startswith(shown)


@pytest.mark.parametrize("error", [LocalProtocolError, RemoteProtocolError, HandshakeError, ConnectionClosed])
def test_every_error_is_told(error: type) -> None:
    errors = PAGE[PAGE.index("## Errors") : PAGE.index("## Limits")]
    assert f"| `{error.__name__}`" in errors
