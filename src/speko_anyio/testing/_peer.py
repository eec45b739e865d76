"""`FakePeer`: the gateway's end of one session in memory, played by a test or a script.

Methods that wait for the client or the clock are coroutines; the others are plain.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar, overload

import anyio
from anyio.lowlevel import checkpoint

from ..protocol import ServerConnection
from ..protocol import _framing as framing
from ..protocol._commands import AudioIn, Command, Interrupt, Played, ToolResult
from ..protocol._extensions import KNOWN, USAGE
from ..protocol.capabilities import Capabilities
from ..protocol.errors import SpekoError
from ..protocol.frames import (
    Audio,
    Close,
    Digit,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ResponseStatus,
    Role,
    ToolCall,
    Transcript,
    Unknown,
)
from ..protocol.mint import SessionConfig
from .server import FakeServer

CommandT = TypeVar("CommandT", bound=Command)

PIECE_SECONDS: Final = 0.02
"""Seconds of speech in one message of `FakePeer.say`, as services send it."""


Step: TypeAlias = Callable[["FakePeer"], Awaitable[object] | object]
"""One action of a gateway: a sync or async function that takes the `FakePeer`."""

Script: TypeAlias = Step | Iterable[Step]
"""All actions of a gateway: one coroutine function, or steps in order.

When it ends, the session is closed with 1000, as a gateway does after its handler returns. If there are
reactions (`FakePeer.on`), it stays open until the client leaves. The script begins when the client's session
is open; to simulate a fault in the handshake, replace the peer's `greet`.
"""


class FakePeer(FakeServer):
    """The gateway's end of one session in memory. Play it by hand, or give `fake_session` a script that does.

    - `commands`: what the client said, in order, for assertions; `said` and `audio` are two views of it.
    - `config`: the configuration that was minted; None for a session that was not minted.
    - `extensions`: the extensions that it offers, by default all. Pass ``()`` for none, like the hosted
      service.
    - `capabilities`: the record that it sends, if any; it offers the extensions that follow from it, too.
    - `stream`, `to_client`, `from_client`: the connection itself, for faults that have no method here.

    Like a gateway, it raises `LocalProtocolError` for anything that the protocol does not allow, so a test
    can't pass on an impossible conversation. `malformed`, `truncate` and `raw` bypass this check. Once the
    client has left, every verb raises `ConnectionClosed`.
    """

    def __init__(
        self,
        *,
        config: SessionConfig | None = None,
        max_receive: int = 65_536,
        input_sample_rate: int = 24_000,
        output_sample_rate: int = 24_000,
        extensions: Iterable[str] = KNOWN,
        capabilities: Capabilities | None = None,
    ) -> None:
        extensions = tuple(extensions)
        super().__init__(
            max_receive=max_receive,
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            extensions=extensions,
            capabilities=capabilities,
        )
        self.config = config
        self._offers_by_default = extensions == KNOWN and capabilities is None
        self.on_command: Callable[[Command], None] | None = self._arrived
        self.start_steps: Callable[[Iterable[Step]], None] | None = None
        """Runs steps in a task beside the script; None for a peer without a script."""
        self.reactions: list[tuple[type[Command], tuple[Step, ...]]] = []
        self._expecting = 0
        self._settled = anyio.Event()
        self._unseen: deque[Command] = deque()
        self._news = anyio.Event()
        self._results: dict[str, _Result] = {}
        self._issued = 0
        self._speaking: set[anyio.CancelScope] = set()
        self._latency = 0.0
        self._in_flight: deque[tuple[float, bytes | None]] = deque()
        self._departure = anyio.Event()

    def offer(self, capabilities: Capabilities | None) -> None:
        """Offer what a gateway's handler declares, unless the test chose an offer; before the handshake."""
        if self._offers_by_default:
            core = self.core
            self.core: ServerConnection = ServerConnection(
                input_sample_rate=core.input_sample_rate,
                output_sample_rate=core.output_sample_rate,
                ping_interval=None,
                extensions=(USAGE,),
                capabilities=capabilities,
            )

    # Receiving

    def said(self) -> list[Command]:
        """Return the client's commands except audio and `Played`, in order; a `Close` only if it sent it."""
        return [
            command
            for command in self.commands
            if not (
                isinstance(command, AudioIn | Played)
                or (isinstance(command, Close) and command.initiated_by != "remote")
            )
        ]

    def audio(self) -> bytes:
        """Return all the audio that the client sent: PCM16 at the session's input rate."""
        return b"".join(command.pcm for command in self.commands if isinstance(command, AudioIn))

    async def receive(self) -> Command:
        """Wait for the client's next command and return it.

        The result of a tool goes to the waiting `call_tool` instead, and a command with a reaction (`on`) to
        the reaction. `ConnectionClosed` after the final `Close`.
        """
        while not self._unseen:
            if self.core.error is not None:
                raise self.core.error.with_traceback(None)
            await self._news.wait()
        return self._unseen.popleft()

    @overload
    async def expect(self, wanted: type[CommandT], *, within: float = ...) -> CommandT: ...
    @overload
    async def expect(self, wanted: CommandT, *, within: float = ...) -> CommandT: ...
    async def expect(self, wanted: Any, *, within: float = 10.0) -> Any:
        """Wait for the client's next command, which must match `wanted`: a type, or an equal command.

        Skips audio and `Played` unless they are wanted. AssertionError for any other command, and when none
        comes `within` so many seconds.
        """
        name = wanted.__name__ if isinstance(wanted, type) else repr(wanted)
        self._expecting += 1
        try:
            with anyio.move_on_after(within):
                while True:
                    command = await self.receive()
                    if isinstance(command, wanted) if isinstance(wanted, type) else command == wanted:
                        return command
                    if not isinstance(command, AudioIn | Played):
                        raise AssertionError(f"expected {name} of the client, got {command}; {self._story()}")
        except SpekoError as over:
            raise AssertionError(f"expected {name} of the client, but {over}; {self._story()}") from None
        finally:
            self._expecting -= 1
            if not self._expecting:
                self._settled.set()
        raise AssertionError(
            f"expected {name} of the client, got nothing within {within:g} s; {self._story()}"
        )

    async def wait_expecting_nothing(self) -> None:
        """Wait until no `expect` is waiting for the client."""
        while self._expecting:
            self._settled = anyio.Event()
            await self._settled.wait()

    # Sending

    def send(self, *frames: Frame) -> None:
        """Send frames in this order; a `Close` calls `close`.

        ValueError for frames that no gateway sends: a second `Ready`, and `Expiring`, which the client's core
        makes.
        """
        for frame in frames:
            self._queue(frame)
        self.flush()

    async def say(self, pcm: bytes, *, pace: float | None = None) -> bool:
        """Speak `pcm`, PCM16 at the session's output rate, in messages of 20 ms; False when cut off.

        Sends it all at once, or `pace` times as fast as real time. An `Interrupt` from the client cuts it
        off, and is answered with an `Interruption`.
        """
        await checkpoint()
        size = round(self.core.output_sample_rate * PIECE_SECONDS) * 2
        start = anyio.current_time()
        with anyio.CancelScope() as scope:
            self._speaking.add(scope)
            try:
                for index, position in enumerate(range(0, len(pcm), size)):
                    if pace is not None:
                        await anyio.sleep_until(start + index * PIECE_SECONDS / pace)
                    self.send(Audio(pcm[position : position + size], self.core.output_sample_rate))
                if pace is not None:
                    await anyio.sleep_until(start + len(pcm) / 2 / self.core.output_sample_rate / pace)
            finally:
                self._speaking.discard(scope)
        if scope.cancelled_caught:
            self.interrupt()
            return False
        return True

    def transcript(self, role: Role, text: str, *, final: bool = True) -> None:
        """Send what `role` said, as text."""
        self.send(Transcript(role, text, final))

    def end_response(self, status: ResponseStatus = "done", reason: str = "") -> None:
        """End one answer. Clients count turns by it."""
        self.send(ResponseEnd(status, reason))

    async def call_tool(self, name: str, /, **arguments: object) -> str:
        """Have the client run a tool; return the result. Waits for it without a timeout.

        `ConnectionClosed` when the session ends first.
        """
        self._issued += 1
        call_id = f"call-{self._issued}"
        result = self._results[call_id] = _Result()
        try:
            self.send(ToolCall(call_id, name, json.dumps(arguments)))
            await result.arrived.wait()
        finally:
            del self._results[call_id]
        if result.output is None:
            assert self.core.error is not None
            raise self.core.error.with_traceback(None)
        return result.output

    def interrupt(self, at: Role = "user") -> None:
        """Tell the client that the assistant was cut off, so that it drops unplayed audio."""
        self.send(Interruption(at))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session as a gateway does, with a reason and a closing handshake."""
        self.core.close(code, reason)
        self.flush()

    def on(self, wanted: type[Command], *steps: Step) -> None:
        """Run these steps, in parallel to everything else, whenever the client sends a `wanted`.

        RuntimeError for a peer without a script runner: only `fake_session` and `FakeGateway` run steps.
        """
        if self.start_steps is None:
            raise RuntimeError("reactions need a session made by fake_session or FakeGateway")
        self.reactions.append((wanted, steps))

    # Faults

    def drop(self) -> None:
        """Close the connection without a goodbye: the client sees the end of the stream."""
        self.hang_up()
        self._lost("the fake dropped the connection")

    def reset(self) -> None:
        """Break the connection: the client's next receive and send fail."""
        self.to_client.break_()
        self.from_client.break_()
        self._lost("the fake reset the connection")

    def fail_sends(self) -> None:
        """Break one direction: the client's sends fail from now on, which ends its session.

        Unread data for the client is lost, as with a connection that was reset.
        """
        self.from_client.break_()

    def stall(self, *, receiving: bool = True, sending: bool = True) -> None:
        """Freeze the client's connection: nothing arrives (`receiving`) or can be written (`sending`)."""
        if receiving:
            self.to_client.stall()
        if sending:
            self.from_client.stall()

    def resume(self) -> None:
        """End every `stall`."""
        self.to_client.resume()
        self.from_client.resume()

    def deliver(self, max_bytes: int) -> None:
        """Deliver at most so many bytes to the client at a time: 1 is the worst possible network."""
        self.stream.max_receive = max_bytes

    def delay(self, seconds: float) -> None:
        """Delay everything that is sent from now on, keeping its order. RuntimeError as for `on`."""
        if self.start_steps is None:
            raise RuntimeError("a delay needs a session made by fake_session or FakeGateway")
        self._latency = seconds

    def malformed(self, message: str = '{"t": "transcript"') -> None:
        """Send a text message unchecked; by default one that is not valid JSON."""
        payload = message.encode()
        self.flush()
        self.raw(framing.header(framing.TEXT, len(payload), 0) + payload)

    def truncate(self, announced: int = 1024, sent: int = 100) -> None:
        """Begin an audio message of `announced` bytes and lose the connection after `sent` of them."""
        self.flush()
        self.raw(framing.header(framing.BINARY, announced, 0) + bytes(sent))
        self.drop()

    # Transport

    def flush(self) -> None:
        if data := self.core.data_to_send():
            self._depart(data)

    def raw(self, data: bytes) -> None:
        self._depart(data)

    def hang_up(self) -> None:
        self._depart(None)

    def client_left(self) -> None:
        self.core.receive_eof()
        self.take_events()

    async def carry(self) -> None:
        """Deliver delayed data when it is due. Runs as a task for the length of a script's session."""
        while True:
            while not self._in_flight:
                self._departure = anyio.Event()
                await self._departure.wait()
            due, data = self._in_flight[0]
            await anyio.sleep_until(due)
            self._arrive(data)
            self._in_flight.popleft()

    def _depart(self, data: bytes | None) -> None:
        """Send bytes, or the end of the stream (None), to the client, delayed if that is set."""
        if self._latency or self._in_flight:
            self._in_flight.append((anyio.current_time() + self._latency, data))
            self._departure.set()
        else:
            self._arrive(data)

    def _arrive(self, data: bytes | None) -> None:
        if data is None:
            self.to_client.end()
        else:
            self.to_client.write(data)

    def _queue(self, frame: Frame) -> None:
        match frame:
            case Unknown(raw=text):
                self.malformed(text)
            case Ready() | Expiring() | Digit():
                raise ValueError(f"a gateway does not send {frame} in the middle of a session; leave it out")
            case _:
                self.core.send(frame)

    def _lost(self, reason: str) -> None:
        self.core.receive_lost(reason)
        self.take_events()

    def _arrived(self, command: Command) -> None:
        """Pass a command of the client to the call that waits for it."""
        if isinstance(command, ToolResult) and (result := self._results.get(command.call_id)) is not None:
            result.output = command.output
            result.arrived.set()
            return
        if isinstance(command, Interrupt):
            for scope in self._speaking:
                scope.cancel()
        if isinstance(command, Close):
            for result in self._results.values():
                result.arrived.set()
        if not self._react(command):
            self._unseen.append(command)
            self._news.set()
            self._news = anyio.Event()

    def _react(self, command: Command) -> bool:
        found = False
        for wanted, steps in self.reactions:
            if self.start_steps is not None and isinstance(command, wanted):
                found = True
                self.start_steps(steps)
        return found

    def _story(self) -> str:
        """Describe what the client sent so far, for the text of a failed expectation."""
        story: list[str] = []
        pieces = 0
        for command in (*self.commands, None):
            if isinstance(command, AudioIn):
                pieces += 1
                continue
            if pieces:
                story.append(f"{pieces} × AudioIn")
                pieces = 0
            if command is not None:
                story.append(str(command))
        return f"it sent: {', '.join(story) or 'nothing'}"


class _Result:
    """The result of a tool call; `output` stays None if the session ends first."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.output: str | None = None
