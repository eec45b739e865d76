"""`FakePeer`: the gateway's end of one session in memory, as a test or a script plays it.

What takes no time is a plain method; what waits, for the client or for the clock, is a coroutine.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar, overload

import anyio
from anyio.lowlevel import checkpoint

from ..protocol import framing
from ..protocol.commands import AudioIn, Command, Interrupt, ToolResult
from ..protocol.errors import SpekoError
from ..protocol.extensions import USAGE
from ..protocol.frames import (
    Audio,
    Close,
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
"""Of speech in one message of `FakePeer.say`: what services send."""


Step: TypeAlias = Callable[["FakePeer"], Awaitable[object] | object]
"""Something a gateway does: a function of its `FakePeer`, sync or async."""

Script: TypeAlias = Step | Iterable[Step]
"""Everything a gateway does: one coroutine function, or steps in their order.

When it is through, the session is closed with 1000, as the gateway does behind a handler; unless there are
reactions (`FakePeer.on`), which last until the client leaves. It begins when the client's session is
open: for faults in the handshake give the peer another `greet`.
"""


class FakePeer(FakeServer):
    """The gateway's end of one session in memory. Play it by hand, or give `fake_session` a script that does.

    - `commands`: what the client said, in order, for assertions; `said` and `audio` are two views of it.
    - `config`: what the session was minted as; None when nobody minted it.
    - `extensions`: the extensions that it offers. Pass ``()`` for none, like the hosted service.
    - `stream`, `to_client`, `from_client`: the connection itself, for faults that have no method here.

    It sends what the protocol allows and raises `LocalProtocolError` for the rest, as a gateway would: a
    test can't pass on a conversation that can't happen. `malformed`, `truncate` and `raw` go past that.
    Once the client has left, every verb raises `ConnectionClosed`.
    """

    def __init__(
        self,
        *,
        config: SessionConfig | None = None,
        max_receive: int = 65_536,
        input_sample_rate: int = 24_000,
        output_sample_rate: int = 24_000,
        extensions: Iterable[str] = (USAGE,),
    ) -> None:
        super().__init__(
            max_receive=max_receive,
            input_sample_rate=input_sample_rate,
            output_sample_rate=output_sample_rate,
            extensions=extensions,
        )
        self.config = config
        self.on_command: Callable[[Command], None] | None = self._arrived
        self.start_steps: Callable[[Iterable[Step]], None] | None = None
        """Runs steps in a task beside the script; None for a peer that is played by hand."""
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

    # Receiving

    def said(self) -> list[Command]:
        """Return the client's commands except audio, in order; a `Close` only if the client sent it."""
        return [
            command
            for command in self.commands
            if not (
                isinstance(command, AudioIn)
                or (isinstance(command, Close) and command.initiated_by != "remote")
            )
        ]

    def audio(self) -> bytes:
        """Return all the audio that the client sent: PCM16 at the session's input rate."""
        return b"".join(command.pcm for command in self.commands if isinstance(command, AudioIn))

    async def receive(self) -> Command:
        """Wait for the client's next command and return it.

        The result of a tool goes to its `call_tool` instead, and a command with a reaction (`on`) to that.
        `ConnectionClosed` after the final `Close`.
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
        """Wait for the client's next command, which must be `wanted`: a type, or one that is equal.

        Audio is passed over unless it is what is wanted. AssertionError for anything else, and when nothing
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
                    if not isinstance(command, AudioIn):
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
        """Send frames as they are, in this order; `Close` is `close`.

        ValueError for what no gateway sends: a second `Ready`, and `Expiring`, which the client's own clock
        makes.
        """
        for frame in frames:
            self._queue(frame)
        self.flush()

    async def say(self, pcm: bytes, *, pace: float | None = None) -> bool:
        """Speak `pcm`, PCM16 at the session's output rate, in messages of 20 ms; False when cut off.

        All at once, or `pace` times as fast as real time. An `Interrupt` of the client cuts it off: then
        the client is sent an `Interruption`.
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
        """Have the client run a tool; what it answered. Waits for it without a limit of its own.

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
        """Tell the client that the assistant was cut off: what it has not played yet is stale."""
        self.send(Interruption(at))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session as a gateway does, with a reason and a closing handshake."""
        self.core.close(code, reason)
        self.flush()

    def on(self, wanted: type[Command], *steps: Step) -> None:
        """Whenever the client sends a `wanted`, run these steps beside everything else.

        RuntimeError for a peer that is played by hand: only `fake_session` and `FakeGateway` run steps.
        """
        if self.start_steps is None:
            raise RuntimeError("reactions need a session made by fake_session or FakeGateway")
        self.reactions.append((wanted, steps))

    # Faults

    def drop(self) -> None:
        """Lose the connection without a word: the client finds its end."""
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
        """Hold the connection still, as seen from the client: nothing arrives, or nothing can be written."""
        if receiving:
            self.to_client.stall()
        if sending:
            self.from_client.stall()

    def resume(self) -> None:
        """End every `stall`."""
        self.to_client.resume()
        self.from_client.resume()

    def deliver(self, max_bytes: int) -> None:
        """Give the client at most so many bytes at a time: 1 is the worst network there is."""
        self.stream.max_receive = max_bytes

    def delay(self, seconds: float) -> None:
        """Let what is sent from now on take so long to arrive; the order stays. RuntimeError as for `on`."""
        if self.start_steps is None:
            raise RuntimeError("a delay needs a session made by fake_session or FakeGateway")
        self._latency = seconds

    def malformed(self, message: str = '{"t": "transcript"') -> None:
        """Send a text message as it is; by default one that is no JSON."""
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
        """Take what is delayed to the client in its time. A task, while a script's session lives."""
        while True:
            while not self._in_flight:
                self._departure = anyio.Event()
                await self._departure.wait()
            due, data = self._in_flight[0]
            await anyio.sleep_until(due)
            self._arrive(data)
            self._in_flight.popleft()

    def _depart(self, data: bytes | None) -> None:
        """Bytes leave for the client, or the end of them (None)."""
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
            case Ready() | Expiring():
                raise ValueError(f"a gateway does not send {frame} in the middle of a session; leave it out")
            case _:
                self.core.send(frame)

    def _lost(self, reason: str) -> None:
        self.core.receive_lost(reason)
        self.take_events()

    def _arrived(self, command: Command) -> None:
        """Hand a command of the client to whatever waits for it."""
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
    """Where the answer to a tool call arrives; `output` stays None when the session ended first."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.output: str | None = None
