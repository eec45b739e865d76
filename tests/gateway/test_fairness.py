"""A client that sends as much as it can takes turns with others, and is ended beyond its budget."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio.gateway import ServerSession, running_gateway
from speko_anyio.gateway import _session as session_module
from speko_anyio.protocol import AudioIn, Capabilities, Close, Limits
from speko_anyio.protocol._dialect import OVER_BUDGET
from speko_anyio.protocol._framing import BINARY, MASKED, PING, PONG, TEXT, header

from .support import CONFIG, MemoryTransport, Recorder, make_gateway
from .test_byte_sessions import Blocking, blocking, close_in

pytestmark = pytest.mark.anyio

LIMITS = Limits(max_messages_per_second=100, max_messages_at_once=500)


def frame(first: int, payload: bytes = b"") -> bytes:
    return header(first, len(payload), MASKED) + bytes(4) + payload


TINY = frame(BINARY, b"\0\0")

MESSAGES = {
    "audio": frame(BINARY, bytes(960)),
    "tiny audio": TINY,
    "odd audio": frame(BINARY, b"\0"),
    "empty audio": frame(BINARY),
    "known text": frame(TEXT, b'{"t":"commit"}') + frame(TEXT, b'{"t":"clear"}'),
    "interrupts": frame(TEXT, b'{"t":"interrupt"}'),
    "unknown text": frame(TEXT, b'{"t":"what"}'),
    "deep text": frame(TEXT, b'{"t":"what","a":' + b"[" * 200 + b"]" * 200 + b"}"),
}

CONVERSATION = {
    "texts": frame(TEXT, b'{"t":"text","text":"Hi."}'),
    "history": frame(TEXT, b'{"t":"text","text":"Hi.","role":"assistant"}'),
    "responds": frame(TEXT, b'{"t":"respond"}'),
    "says": frame(TEXT, b'{"t":"say","text":"Hi."}'),
    "updates": frame(TEXT, b'{"t":"update","systemPrompt":"a"}'),
    "refused updates": frame(TEXT, b'{"t":"update","voice":"a"}'),
    "images": frame(TEXT, b'{"t":"image","mimeType":"image/png","data":"iVBORw0KGgo="}'),
    "broken images": frame(TEXT, b'{"t":"image","mimeType":"image/png","data":"?"}'),
    "played": frame(TEXT, b'{"t":"played","ms":1240}'),
    "tool results": frame(TEXT, b'{"t":"tool_result","id":"c1","result":"1"}'),
}

ALL = Capabilities(
    text=True,
    image=True,
    respond=True,
    say="verbatim",
    update=("system_prompt",),
    history=True,
    truncate=True,
)

CONTROL = {
    "pings and audio": frame(PING) * 100 + TINY,
    "pongs and audio": frame(PONG) * 100 + TINY,
    "empty fragments": frame(2) + frame(0) * 100 + frame(0x80, b"\0\0"),
    "pings": frame(PING),
    "pongs": frame(PONG),
    "endless fragments": frame(0),
}
"""What only our own core sees: another server answers pings and joins fragments by itself."""


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults: Any = session_module.core_options.__kwdefaults__
    monkeypatch.setitem(defaults, "limits", LIMITS)


def flood(client: Blocking, data: bytes) -> bytes:
    if data == CONTROL["endless fragments"]:
        client.socket.sendall(frame(2))
    data *= max(1, 20_000 // len(data))
    with client.socket:
        client.socket.settimeout(10)
        try:
            while b"\x88" not in client.heard[-200:]:
                client.socket.sendall(data)
                client.socket.setblocking(False)
                try:
                    client.heard += client.socket.recv(1 << 20)
                except BlockingIOError:
                    pass
                client.socket.settimeout(10)
        except OSError:
            pass
    return client.heard


async def flooded(data: bytes, capabilities: Capabilities | None = None) -> Close:
    """How a session ends whose client sends this again and again."""
    recorder: Any = Recorder()
    recorder.capabilities = capabilities
    with anyio.fail_after(60):
        async with running_gateway(make_gateway({"echo": recorder})) as url, blocking(url) as client:
            await anyio.to_thread.run_sync(flood, client, data)
            await recorder.wait_done()
    close = recorder.commands[-1]
    assert isinstance(close, Close)
    return close


@pytest.mark.usefixtures("small_budget", "both_ways")
@pytest.mark.parametrize("kind", MESSAGES)
async def test_beyond_its_budget_a_client_is_ended(kind: str) -> None:
    close = await flooded(MESSAGES[kind])
    assert (close.code, close.reason, close.initiated_by) == (1008, OVER_BUDGET, "local")


@pytest.mark.usefixtures("small_budget", "both_ways")
@pytest.mark.parametrize("kind", CONVERSATION)
async def test_beyond_its_budget_of_a_conversation_too(kind: str) -> None:
    close = await flooded(CONVERSATION[kind], ALL)
    assert (close.code, close.reason, close.initiated_by) == (1008, OVER_BUDGET, "local")


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("kind", CONTROL)
async def test_beyond_its_budget_of_control_frames_and_fragments_too(kind: str) -> None:
    close = await flooded(CONTROL[kind])
    assert (close.code, close.initiated_by) == (1008, "local")
    assert close.reason.startswith("the peer sent ")


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("kind", ["tiny audio", "known text", "unknown text", "pings and audio"])
async def test_who_is_ended_so_is_told_and_not_reset(kind: str) -> None:
    """A reset may overtake the close frame, and it comes if the socket is closed while much is unread."""

    def flood_once(client: Blocking) -> bytes:
        data = (MESSAGES | CONTROL)[kind]
        client.socket.sendall(data * (400_000 // len(data)))
        return client.hear_all()

    recorder = Recorder()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": recorder})) as url, blocking(url) as client:
            heard = await anyio.to_thread.run_sync(flood_once, client)
            assert close_in(heard) == 1008
            await recorder.wait_done()


@asynccontextmanager
async def counting_turns(session: ServerSession, turns: list[int]) -> AsyncIterator[None]:
    """Note how many messages were received in each turn of the loop, while the block runs."""

    async def count() -> None:
        seen = session.meter.messages_in
        while True:
            await checkpoint()
            turns.append(session.meter.messages_in - seen)
            seen = session.meter.messages_in

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        yield
        tasks.cancel_scope.cancel()


async def test_over_messages_too_others_get_their_turns() -> None:
    transport = MemoryTransport()
    turns: list[int] = []
    with anyio.fail_after(20):
        async with transport.serve(session_id="s", config=CONFIG) as session:
            transport.say(*[b"\0\0"] * 5000)
            async with counting_turns(session, turns):
                for _ in range(5000):
                    command = await session.receive()
                    assert isinstance(command, AudioIn)
                    await session.send_audio(command.pcm)
            assert sum(turns) >= 5000 - 64
    assert max(turns) <= 32
    transport.stop()


@pytest.mark.usefixtures("both_ways")
async def test_a_minute_of_speech_at_once_is_echoed_in_order() -> None:
    """What a client that lost its network for a while, or that has a recording, sends."""
    pieces = 1500
    with anyio.fail_after(60):
        async with running_gateway(make_gateway()) as url, blocking(url) as client:

            def send_and_hear() -> bytes:
                sent = b"".join(frame(BINARY, number.to_bytes(4, "little") * 120) for number in range(pieces))
                client.socket.sendall(sent)
                last = (pieces - 1).to_bytes(4, "little") * 120
                while not client.heard.endswith(last):
                    client.heard += client.socket.recv(1 << 20)
                client.socket.shutdown(socket.SHUT_WR)
                return client.heard

            heard = await anyio.to_thread.run_sync(send_and_hear)
    start = 0
    for number in range(pieces):
        start = heard.index(number.to_bytes(4, "little") * 120, start) + 480


@pytest.mark.parametrize("quiet", [frame(BINARY), frame(PONG), frame(2) + frame(0) * 8 + frame(0x80)])
async def test_what_follows_many_frames_without_a_command_is_not_left_waiting(quiet: bytes) -> None:
    """They are taken in turns, and no further byte comes that could wake the session."""
    last = b"\1\2" * 300

    def send_and_hear(client: Blocking) -> None:
        # Fewer than make the core ask for the time.
        client.socket.sendall(quiet * (1000 // len(quiet)) + frame(BINARY, last))
        while not client.heard.endswith(last):
            client.heard += client.socket.recv(65_536)

    with anyio.fail_after(30):
        async with running_gateway(make_gateway()) as url, blocking(url) as client:
            await anyio.to_thread.run_sync(send_and_hear, client)
