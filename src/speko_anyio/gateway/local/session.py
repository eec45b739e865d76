"""What the offline voice needs of a session: the part of the gateway's `ServerSession` that it uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from speko_anyio.protocol.commands import Command
    from speko_anyio.protocol.frames import ResponseStatus, Role


class ToolDeclaration(Protocol):
    """A function that the client offers."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> dict[str, Any]:
        """A JSON Schema object."""
        ...


class VoiceConfig(Protocol):
    """What the client asked for when the session was minted."""

    @property
    def voice(self) -> str | None: ...
    @property
    def tools(self) -> Sequence[ToolDeclaration]: ...


class VoiceSession(Protocol):
    """The server's end of one session, after `ready` was sent.

    Iterating gives commands, last a `Close`. Every ``send_*`` waits for room, keeps the order of the
    calls, and raises `speko_anyio.protocol.errors.ConnectionClosed` once the session is over.
    """

    @property
    def session_id(self) -> str: ...
    @property
    def config(self) -> VoiceConfig: ...
    @property
    def input_sample_rate(self) -> int: ...
    @property
    def output_sample_rate(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Command]: ...
    async def send_audio(self, pcm: bytes) -> None: ...
    async def send_transcript(self, role: Role, text: str, *, final: bool) -> None: ...
    async def send_tool_call(self, call_id: str, name: str, arguments: str) -> None: ...
    async def send_interruption(self, at: Role) -> None: ...
    async def send_usage(self, input_audio_tokens: int, output_audio_tokens: int) -> None: ...
    async def send_response_end(self, status: ResponseStatus, reason: str = "") -> None: ...
    async def send_error(self, code: str, message: str) -> None: ...
    def turn_ended(self) -> None:
        """The user has finished speaking, and the client has not said so."""
        ...
