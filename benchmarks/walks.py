"""Count the Python calls that one piece of audio makes in this package, and the files they are in.

    python benchmarks/walks.py

Counts, unlike times, are the same on every machine, so a test holds them (``tests/test_walks.py``). The
sessions are real ones on asyncio, over TCP to a peer in the same thread. Only calls of this package's
functions are counted, except those of its doubles.

- A provider's audio to its client: from one read with seven events in it to the messages for the client's
  transport.
- A client sends audio: from `send_audio` to the bytes for its transport.
- A client hears audio: from the bytes of its transport to the frame, received or in a plain handler.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import anyio
from bridge_core import PROVIDERS, speech
from bridge_processes import ACCOUNTS, PROVIDER_KEY

import speko_anyio
from speko_anyio import Audio, RealtimeSession, Speko
from speko_anyio.gateway import ProviderHandler, ServerSession, serve_session
from speko_anyio.protocol import NEED_DATA, AudioIn, ServerConnection
from speko_anyio.protocol._commands import UpgradeRequest
from speko_anyio.protocol._outbox import CloseMessage
from speko_anyio.protocol.mint import SessionConfig, SessionGrant
from speko_anyio.testing.providers import tone
from speko_anyio.testing.providers._server_socket import ServerSocket

EVENTS = 7
"""Events with audio in the read of a provider's connection."""

PIECE = 0.02
"""Seconds of audio in an event, and in a client's message."""

RATE: Final = 24_000
PATIENCE = 10
"""Seconds after which a walk fails."""

_HERE = str(Path(speko_anyio.__file__).parent) + os.sep
_DOUBLES = _HERE + "testing" + os.sep


class Walk(NamedTuple):
    """The calls of one walk."""

    calls: Counter[tuple[str, str]]
    """Calls of each function, by file and name."""

    @property
    def total(self) -> int:
        return self.calls.total()

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.calls}


@contextmanager
def counted() -> Iterator[Walk]:
    """Count the calls in this thread, until the block ends or `stop` is called."""
    calls: Counter[tuple[str, str]] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_HERE) and not file.startswith(_DOUBLES):
            calls[file.removeprefix(_HERE), frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        yield Walk(calls)
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[int]:
    """Run a TCP server for one connection; yield its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


# A provider's audio to its client


class Peer:
    """The provider's end of one connection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._double = PROVIDERS[name].double()
        self._socket = ServerSocket()
        self._writer: asyncio.StreamWriter | None = None
        self.ready = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session: Any = None
        self._writer = writer
        while data := await reader.read(65_536):
            self._socket.receive(data)
            if session is None:
                request = self._socket.request()
                if request is None:
                    continue
                writer.write(self._socket.accept(self._double.subprotocol(request)))
                session = self._double.open(request)
            for message in self._socket.messages():
                session.receive(message, 0.0)
            for output in session.take():
                writer.write(self._socket.frame(output))
                if "updated" in str(output) or "setupComplete" in str(output):
                    self.ready.set()

    def begin_response(self) -> None:
        if self._name != "google":  # which does not announce it
            self.say({"type": "response.created", "response": {"id": "r"}})

    def speak(self, times: int) -> None:
        """Send `times` events with audio at once."""
        self.say(speech(self._name, tone(PIECE, RATE), RATE), times=times)

    def say(self, message: dict[str, Any], *, times: int = 1) -> None:
        assert self._writer is not None
        text = json.dumps(message, separators=(",", ":"))
        frame = self._socket.frame(text.encode() if self._name == "google" else text)
        self._writer.write(frame * times)


class Transport:
    """The client's transport, which counts the messages with audio."""

    def __init__(self) -> None:
        self._heard = 0
        self._wanted = -1
        self._enough = asyncio.Event()

    async def receive(self) -> str | bytes | CloseMessage | None:
        await anyio.sleep_forever()
        return None

    async def send(self, message: str | bytes) -> None:
        self._heard += isinstance(message, bytes)
        if self._heard == self._wanted:
            sys.setprofile(None)
            self._enough.set()

    async def close(self, code: int, reason: str) -> None:
        """Do nothing: the walk is over."""

    async def hear(self, wanted: int, say: Callable[[int], None]) -> None:
        """Call `say` for `wanted` pieces of audio and wait until they have arrived."""
        self._wanted = self._heard + wanted
        self._enough.clear()
        say(wanted)
        await self._enough.wait()


async def provider_to_client(name: str) -> Walk:
    """Count from one read with `EVENTS` events of a provider's audio to the last message for the client."""
    config = SessionConfig(
        provider=name, model=PROVIDERS[name].model, input_sample_rate=RATE, output_sample_rate=RATE
    )
    peer, transport, account = Peer(name), Transport(), ACCOUNTS[name]
    walk: Walk | None = None

    async def serve(session: ServerSession) -> None:
        await ProviderHandler(account(PROVIDER_KEY, base_url=f"ws://127.0.0.1:{port}"))(session)

    with anyio.fail_after(PATIENCE):
        async with (
            listening(peer.serve) as port,
            serve_session(transport, session_id="walk", config=config, close_timeout=0) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(serve, session)
            await peer.ready.wait()
            peer.begin_response()
            await transport.hear(1, peer.speak)
            await transport.hear(EVENTS, peer.speak)
            await anyio.sleep(0.05)
            with counted() as found:
                await transport.hear(EVENTS, peer.speak)
            walk = found
            tasks.cancel_scope.cancel()
    assert walk is not None
    return walk


# A client's audio, out and in


class Echo:
    """The service's end of one session, which sends back each message with audio."""

    def __init__(self) -> None:
        self._core = ServerConnection()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        core = self._core
        while data := await reader.read(65_536):
            profile = sys.getprofile()
            sys.setprofile(None)
            core.receive_data(data)
            while core.closed is None and (event := core.next_event()) is not NEED_DATA:
                if isinstance(event, UpgradeRequest):
                    core.accept()
                    core.send_ready()
                elif isinstance(event, AudioIn):
                    core.send_audio(event.pcm)
            reply = core.data_to_send()
            sys.setprofile(profile)
            writer.write(reply)


@asynccontextmanager
async def client_session() -> AsyncIterator[RealtimeSession]:
    async with listening(Echo().serve) as port, Speko(api_key="key", base_url="http://127.0.0.1:9") as speko:
        grant = SessionGrant(
            session_id="walk",
            ws_url=f"ws://127.0.0.1:{port}/walk",
            ws_token="token",
            expires_at="2100-01-01T00:00:00Z",
        )
        async with speko.realtime.open(grant) as session:
            yield session


async def _next_audio(session: RealtimeSession) -> Audio:
    while not isinstance(frame := await session.receive(), Audio):
        pass
    return frame


async def client_sends_and_hears() -> tuple[Walk, Walk, Walk]:
    """Count from `send_audio` to the transport, from there to the frame, and to a plain handler."""
    pcm = tone(PIECE, RATE)
    with anyio.fail_after(PATIENCE):
        async with client_session() as session:
            for _ in range(3):
                await session.send_audio(pcm)
                await _next_audio(session)
            with counted() as sending:
                await session.send_audio(pcm)
            with counted() as hearing:
                frame = await _next_audio(session)
            assert frame.pcm == pcm
        async with client_session() as session:
            heard = anyio.Event()

            def handle(frame: object) -> None:
                if isinstance(frame, Audio):
                    sys.setprofile(None)
                    heard.set()

            session.on(handle)
            for _ in range(3):
                heard = anyio.Event()
                await session.send_audio(pcm)
                await heard.wait()
            heard = anyio.Event()
            await session.send_audio(pcm)
            with counted() as handling:
                await heard.wait()
    return sending, hearing, handling


def walks() -> dict[str, Walk]:
    """Return all walks, by title."""
    found = {
        f"{EVENTS} events of {name}'s to the client's transport": anyio.run(provider_to_client, name)
        for name in PROVIDERS
    }
    sending, hearing, handling = anyio.run(client_sends_and_hears)
    return {
        **found,
        "client sends audio": sending,
        "client hears audio": hearing,
        "client hears audio in a plain handler": handling,
    }


def main() -> None:
    for title, walk in walks().items():
        print(f"{title}: {walk.total} calls in {len(walk.files)} files")
        if "-v" in sys.argv:
            for (file, function), times in walk.calls.most_common():
                print(f"  {times:4} {file} {function}")


if __name__ == "__main__":
    main()
