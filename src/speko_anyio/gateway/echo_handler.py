"""The handler that says back what it hears: for tests, and to measure everything around a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from speko_anyio.protocol.commands import AudioIn, Clear, Commit, EndTurn

if TYPE_CHECKING:
    from .session import ServerSession

TOKENS_PER_SECOND: Final = 10
"""Audio tokens that a second of audio is reported as: the order of what providers count."""


async def echo(session: ServerSession) -> None:
    """Send the user's audio back as it comes; report every turn's length and usage when it ends.

    The samples are returned as they are, so with different rates they sound at another pitch.
    """
    turn = 0  # bytes of audio since the last commit
    async for command in session:
        match command:
            case AudioIn(pcm=pcm):
                turn += len(pcm)
                await session.send_audio(pcm)
            case Commit() | EndTurn():
                seconds = turn / 2 / session.input_sample_rate
                turn = 0
                await session.send_transcript("user", f"{seconds:.2f} seconds of audio", final=True)
                tokens = round(seconds * TOKENS_PER_SECOND)
                await session.send_usage(tokens, tokens)
                await session.send_response_end()
            case Clear():
                turn = 0
