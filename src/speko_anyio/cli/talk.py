"""`speko-anyio talk`: a conversation, by microphone and loudspeaker or by files."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack
from typing import Final

import anyio

from ..audio.devices import Microphone, Speaker
from ..audio.pcm import rms_dbfs
from ..client.session import RealtimeSession
from ..protocol import close_codes
from ..protocol.errors import ConnectionClosed, SpekoError
from ..protocol.frames import ErrorFrame, Frame
from . import files
from .connecting import connected
from .conversation import Conversation
from .display import Display
from .failures import NO_ANSWER, CommandError
from .loading import load_tools
from .sound import Ears, Mouth, Recording, Tape
from .stopping import stop_signals
from .turn import ANSWER_TIMEOUT, QUIET_TIMEOUT, no_answer

TICK: Final = 0.08
"""Seconds between two looks at the levels: a dozen a second, which is what the display shows."""


async def talk(options: argparse.Namespace) -> None:
    """Talk until Ctrl-C, until the service ends the session, or until a recording has been answered."""
    tools = load_tools(options.tools)
    if options.output is not None:
        files.check_writable(options.output)
    question = None if options.wav is None else await files.load(options.wav, options.rate)
    with Display() as display:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(connected(options, display, tools=tools))
            ears: Ears
            mouth: Mouth
            tape = None
            if options.output is not None:
                mouth = tape = Tape(options.output, session.output_sample_rate)
            else:
                mouth = await stack.enter_async_context(
                    Speaker(sample_rate=session.output_sample_rate, device=options.output_device)
                )
            if question is not None:
                ears = Recording(question, session.input_sample_rate)
            else:
                ears = await stack.enter_async_context(
                    Microphone(sample_rate=session.input_sample_rate, device=options.input_device)
                )
                display.line("talk; wear headphones, or it hears itself. Ctrl-C ends it")
            talking = _Talk(session, mouth, display)
            session.on(talking.take)
            error = await talking.run(ears, tape, hang_up=question is not None)
        if tape is not None:
            await tape.save()
        display.line(talking.conversation.summary())
        if error is not None:
            raise error


class _Talk:
    def __init__(self, session: RealtimeSession, mouth: Mouth, display: Display) -> None:
        self.conversation = Conversation()
        self._session = session
        self._mouth = mouth
        self._display = display
        self._error: ErrorFrame | None = None

    def take(self, frame: Frame) -> None:
        """The session's handler."""
        self._mouth.feed(frame)
        latency = self.conversation.received(frame, anyio.current_time())
        if latency is not None:
            self._display.line(f"latency   {latency * 1000:.0f} ms from the end of your speech")
        if isinstance(frame, ErrorFrame):
            self._error = frame
        self._display.show(frame)

    async def run(self, ears: Ears, tape: Tape | None, *, hang_up: bool) -> Exception | None:
        """Talk until there is nothing more to say or to hear; gives what went wrong. With `hang_up` that is
        when the answer was heard to what `ears` had to say."""
        error: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_signal, tasks.cancel_scope)
            tasks.start_soon(self._show_levels)
            if tape is not None:
                tasks.start_soon(tape.run)
            # Held: the group would wrap it.
            try:
                await self._speak(ears)
                if hang_up:
                    await self._hear_answer()
            except ConnectionClosed:
                pass  # `closed` tells more
            except (SpekoError, CommandError) as exc:
                error = exc
            tasks.cancel_scope.cancel()
        return error or self._early_end()

    async def _speak(self, ears: Ears) -> None:
        async for pcm in ears:
            self.conversation.said(pcm, anyio.current_time())
            await self._session.send_audio(pcm)

    async def _hear_answer(self) -> None:
        conversation, playback = self.conversation, self._mouth.playback
        asked = anyio.current_time()
        if not conversation.answered:
            await self._session.commit()
            conversation.committed(asked)
        while self._session.closed is None:
            quiet = anyio.current_time() - max(asked, conversation.last_received)
            patience = ANSWER_TIMEOUT if conversation.awaiting else QUIET_TIMEOUT
            if not playback.buffered_ms and (conversation.answered or quiet > patience):
                break
            await anyio.sleep(TICK)
        if not conversation.turns and self._session.closed is None:
            raise no_answer(self._error)

    async def _show_levels(self) -> None:
        playback = self._mouth.playback
        while True:
            self._display.status(
                f"you {_bar(self.conversation.level)}  assistant {_bar(rms_dbfs(playback.last_read))}  "
                f"{playback.buffered_ms / 1000:.1f} s to be heard"
            )
            await anyio.sleep(TICK)

    def _early_end(self) -> CommandError | None:
        closed = self._session.closed
        if closed is None or closed.initiated_by == "local":
            return None
        why = closed.reason or "no reason given"
        if self._error is not None:
            why = f"{self._error.code}: {self._error.message}"
        text = f"the service ended the session with code {closed.code} ({why})"
        if closed.code == close_codes.NORMAL and self.conversation.turns:
            self._display.line(text)
            return None
        return CommandError(text, NO_ANSWER)


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    # The usual way to hang up: the session is closed in order, and the summary still comes.
    with stop_signals() as signals:
        async for _ in signals:
            scope.cancel()
            return


def _bar(level: float) -> str:
    """A level in dBFS as a bar: 5 dB a block, from silence at -60."""
    return f"{'█' * round((max(-60.0, level) + 60) / 5):<12}"
