"""The interface of sessions that the offline voice uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from speko_anyio.protocol._commands import Command
    from speko_anyio.protocol.frames import ResponseStatus, Role
    from speko_anyio.protocol.mint import SessionConfig


class VoiceSession(Protocol):
    """The server's end of one session, after `ready` was sent.

    Iteration yields commands, the last of them a `Close`. Every ``send_*`` waits for room, keeps the order of
    the calls, and raises `speko_anyio.protocol.errors.ConnectionClosed` once the session is over.
    """

    @property
    def session_id(self) -> str: ...
    @property
    def config(self) -> SessionConfig: ...
    @property
    def input_sample_rate(self) -> int: ...
    @property
    def output_sample_rate(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Command]: ...
    async def send_audio(self, pcm: bytes) -> None: ...
    async def send_transcript(self, role: Role, text: str, *, final: bool) -> None: ...
    async def send_tool_call(self, call_id: str, name: str, arguments: str) -> None: ...
    async def send_interruption(self, at: Role) -> None: ...
    async def send_usage(
        self,
        input_audio_tokens: int,
        output_audio_tokens: int,
        *,
        input_text_tokens: int = 0,
        output_text_tokens: int = 0,
    ) -> None: ...
    async def send_response_end(self, status: ResponseStatus, reason: str = "") -> None: ...
    async def send_error(self, code: str, message: str) -> None: ...
    def turn_ended(self) -> None:
        """Note that the user has finished speaking, although the client has not announced it."""
        ...
