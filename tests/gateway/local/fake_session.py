"""A session in memory: the test is the client, the handler under test is the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import anyio
import anyio.lowlevel

from speko_anyio.protocol._commands import Command
from speko_anyio.protocol.errors import ConnectionClosed
from speko_anyio.protocol.frames import (
    Audio,
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    ResponseEnd,
    ResponseStatus,
    Role,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.protocol.mint import SessionConfig, ToolSpec


def make_tool(name: str, description: str = "", parameters: dict[str, Any] | None = None) -> ToolSpec:
    return ToolSpec(name=name, description=description, parameters=parameters or {})


def make_config(
    *,
    voice: str | None = None,
    tools: Sequence[ToolSpec] = (),
    output: Literal["audio", "text"] | None = None,
) -> SessionConfig:
    return SessionConfig(provider="local", model="local", voice=voice, tools=tuple(tools), output=output)


@dataclass(frozen=True)
class Sent:
    """A frame and when it was sent, in the event loop's seconds."""

    frame: Frame
    at: float


class FakeSession:
    """Satisfies `VoiceSession`. What the handler sends is kept in `sent`."""

    def __init__(
        self,
        *,
        config: SessionConfig | None = None,
        input_sample_rate: int = 16_000,
        output_sample_rate: int = 24_000,
    ) -> None:
        self.session_id = "s_test"
        self.config = config or make_config()
        self.input_sample_rate = input_sample_rate
        self.output_sample_rate = output_sample_rate
        self.sent: list[Sent] = []
        self.peer_left = False
        self.turns_ended = 0
        self._ended = False
        self._say, self._commands = anyio.create_memory_object_stream[Command](10_000)
        self._news = anyio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Command:
        if self._ended:
            raise StopAsyncIteration
        command = await self._commands.receive()
        self._ended = isinstance(command, Close)
        return command

    # the client's side

    def say(self, *commands: Command) -> None:
        """The client sends `commands`."""
        for command in commands:
            self._say.send_nowait(command)

    def hang_up(self) -> None:
        """The client closes: everything that the handler still sends fails."""
        self.peer_left = True
        self.say(Close(code=1000, reason="client_closed", initiated_by="remote"))

    def dispose(self) -> None:
        self._say.close()
        self._commands.close()

    @property
    def frames(self) -> list[Frame]:
        return [sent.frame for sent in self.sent]

    async def wait_for(self, wanted: Callable[[Frame], bool], *, count: int = 1, within: float = 30) -> Sent:
        """Wait until `count` frames that are `wanted` have been sent; the last of them."""
        with anyio.fail_after(within):
            while len(found := [sent for sent in self.sent if wanted(sent.frame)]) < count:
                await self._news.wait()
        return found[count - 1]

    # the server's side

    async def send_audio(self, pcm: bytes) -> None:
        await self._send(Audio(pcm=pcm, sample_rate=self.output_sample_rate))

    async def send_transcript(self, role: Role, text: str, *, final: bool) -> None:
        await self._send(Transcript(role=role, text=text, final=final))

    async def send_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        await self._send(ToolCall(call_id=call_id, name=name, arguments=arguments))

    async def send_interruption(self, at: Role) -> None:
        await self._send(Interruption(at=at))

    async def send_usage(
        self,
        input_audio_tokens: int,
        output_audio_tokens: int,
        *,
        input_text_tokens: int = 0,
        output_text_tokens: int = 0,
    ) -> None:
        await self._send(
            Usage(input_audio_tokens, output_audio_tokens, input_text_tokens, output_text_tokens)
        )

    async def send_response_end(self, status: ResponseStatus, reason: str = "") -> None:
        await self._send(ResponseEnd(status, reason))

    async def send_error(self, code: str, message: str) -> None:
        await self._send(ErrorFrame(code=code, message=message))

    def turn_ended(self) -> None:
        self.turns_ended += 1

    async def _send(self, frame: Frame) -> None:
        await anyio.lowlevel.checkpoint()
        if self.peer_left:
            raise ConnectionClosed(code=1000, reason="client_closed", initiated_by="remote")
        self.sent.append(Sent(frame, anyio.current_time()))
        self._news.set()
        self._news = anyio.Event()
