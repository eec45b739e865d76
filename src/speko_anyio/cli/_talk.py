"""`speko-anyio talk`: a conversation by microphone, loudspeaker and keyboard, or by files in their place."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Final

import anyio

from .._net.tasks import TaskGroup
from ..audio._devices import DeviceError, Microphone, Speaker
from ..audio._echo import EchoCanceller
from ..audio._pcm import rms_dbfs
from ..audio._playback import Playback
from ..client._session import RealtimeSession
from ..protocol import close_codes
from ..protocol.errors import ConnectionClosed, LocalProtocolError, SpekoError
from ..protocol.frames import ErrorFrame, Frame
from . import _files as files
from ._connecting import connected
from ._conversation_stats import ConversationStats
from ._display import Display
from ._failures import CommandError
from ._loading import load_tools
from ._parser import WRITTEN
from ._signals import stop_signals
from ._turn import ANSWER_TIMEOUT, QUIET_TIMEOUT, PacedSpeech, ended_by_service, no_answer
from ._typed_lines import typed_lines

TICK: Final = 0.08
"""Seconds between two updates of the levels: a dozen a second, which is what the display shows."""

REPORT_EVERY: Final = 0.2
"""Seconds between two reports of what was played, which go to the service."""


async def talk(options: argparse.Namespace) -> None:
    """Talk until Ctrl-C, until the service ends the session, or until a recording has been answered."""
    tools = load_tools(options.tools)
    written = options.output == WRITTEN
    if options.output is not None and not written:
        files.check_writable(options.output)
    question = None if options.wav is None else await files.load(options.wav, options.rate)
    with Display() as display:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(connected(options, display, tools=tools))
            ears: AsyncIterable[bytes] | None
            mouth: Speaker | Tape | Page
            tape = None
            if written:
                mouth = Page()
            elif options.output is not None:
                mouth = tape = Tape(options.output, session.output_sample_rate)
            else:
                mouth = Speaker(sample_rate=session.output_sample_rate, device=options.output_device)
                try:
                    await stack.enter_async_context(mouth)
                except DeviceError as missing:
                    raise DeviceError(f"{missing}; or read the answers with --output text") from None
            if question is not None:
                ears = PacedSpeech(question, session.input_sample_rate)
            else:
                ears = await _open_microphone(stack, session.input_sample_rate, mouth, options, display)
            talking = _Talk(session, mouth, display, written=written)
            session.on(talking.take)
            if options.greet:
                await session.respond()
            error = await talking.run(ears, tape, hang_up=not isinstance(ears, Microphone))
        if tape is not None:
            await tape.save()
        display.line(talking.stats.summary())
        if error is not None:
            raise error


async def _open_microphone(
    stack: AsyncExitStack,
    sample_rate: int,
    mouth: Speaker | Tape | Page,
    options: argparse.Namespace,
    display: Display,
) -> Microphone | None:
    """Open the microphone, with echo cancellation if the assistant is heard; return None if there is none."""
    speaker = mouth if isinstance(mouth, Speaker) else None
    cleaning = options.echo_cancellation
    if cleaning:
        try:
            EchoCanceller()
        except ImportError as error:
            cleaning = False
            display.line(str(error))
    microphone = Microphone(
        sample_rate=sample_rate,
        device=options.input_device,
        echo_cancellation=speaker if cleaning else None,
        noise_suppression=cleaning,
    )
    try:
        await stack.enter_async_context(microphone)
    except DeviceError as error:
        if options.input_device is not None:
            raise
        display.line(f"{error}; type your turns. Ctrl-C ends it")
        return None
    warning = "" if cleaning or speaker is None else " wear headphones, or the assistant hears itself."
    display.line(f"talk or type;{warning} Ctrl-C ends it")
    return microphone


class Tape:
    """A file in place of a loudspeaker: what would have been heard, with its silences and interruptions."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._path = path
        self._heard = bytearray()
        self.playback: Playback = Playback(sample_rate=sample_rate)

    def feed(self, frame: Frame) -> None:
        """Play a frame."""
        self.playback.feed(frame)

    async def run(self) -> None:
        """Record what is played, at the speed of speech, until cancelled."""
        async for chunk in self.playback.chunks():
            self._heard += chunk

    async def save(self) -> None:
        """Write the file; raise `CommandError` if that fails."""
        await files.save(self._path, bytes(self._heard), self.playback.sample_rate)


class Page:
    """No loudspeaker: the answers are written."""

    def __init__(self) -> None:
        self.playback: Playback = Playback()

    def feed(self, frame: Frame) -> None:
        """Play nothing: the display shows the text."""


class _Talk:
    def __init__(
        self, session: RealtimeSession, mouth: Speaker | Tape | Page, display: Display, *, written: bool
    ) -> None:
        self.stats = ConversationStats(written=written)
        self._session = session
        self._mouth = mouth
        self._display = display
        self._error: ErrorFrame | None = None

    def take(self, frame: Frame) -> None:
        """Play and show a frame of the session, and count it."""
        self._mouth.feed(frame)
        latency = self.stats.received(frame, anyio.current_time())
        if latency is not None:
            self._display.line(f"latency   {latency * 1000:.0f} ms from {self.stats.waited_from}")
        if isinstance(frame, ErrorFrame):
            self._error = frame
        self._display.show(frame)

    async def run(
        self, ears: AsyncIterable[bytes] | None, tape: Tape | None, *, hang_up: bool
    ) -> Exception | None:
        """Talk until the session or the user ends it; return the error, if any.

        With `hang_up`, end it once the answer to everything from `ears` has been played. Without `ears` the
        user only types.
        """
        try:
            async with TaskGroup("the conversation") as tasks:
                tasks.start_soon(_cancel_on_signal, tasks.cancel_scope)
                tasks.start_soon(self._show_levels)
                tasks.start_soon(self._report_played)
                if tape is not None:
                    tasks.start_soon(tape.run)
                if ears is None:
                    await self._type()
                    self._check_typed()
                else:
                    if not hang_up:
                        tasks.start_soon(self._type)
                    await self._speak(ears)
                if hang_up:
                    await self._hear_answer(spoken=ears is not None)
                tasks.cancel_scope.cancel()
        except ConnectionClosed:
            pass  # `closed` tells more
        except (SpekoError, CommandError) as error:
            return error
        return self._early_end()

    async def _speak(self, ears: AsyncIterable[bytes]) -> None:
        async for pcm in ears:
            self.stats.said(pcm, anyio.current_time())
            await self._session.send_audio(pcm)

    async def _type(self) -> None:
        async with aclosing(typed_lines()) as lines:
            async for text in lines:
                try:
                    await self._session.send_text(text)
                except LocalProtocolError as error:
                    self._display.line(f"error     {error}")
                else:
                    self.stats.typed(anyio.current_time())
                    self._display.line(f"you       {text}")

    def _check_typed(self) -> None:
        if not self.stats.turns and not self.stats.awaiting:
            raise CommandError(
                "nothing was typed, and there is no microphone; type a line, or use --wav FILE"
            )

    async def _hear_answer(self, *, spoken: bool) -> None:
        stats, playback = self.stats, self._mouth.playback
        asked = anyio.current_time()
        if spoken and not stats.answered:
            await self._session.commit()
            stats.committed(asked)
        while self._session.closed is None:
            quiet = anyio.current_time() - max(asked, stats.last_received)
            patience = ANSWER_TIMEOUT if stats.awaiting else QUIET_TIMEOUT
            if not playback.buffered_ms and (stats.answered or quiet > patience):
                break
            await anyio.sleep(TICK)
        if not stats.turns and self._session.closed is None:
            raise no_answer(self._error) if spoken else no_answer(self._error, hint="try again")

    async def _show_levels(self) -> None:
        playback = self._mouth.playback
        while True:
            self._display.status(
                f"you {_bar(self.stats.level)}  assistant {_bar(rms_dbfs(playback.last_read))}  "
                f"{playback.buffered_ms / 1000:.1f} s to be heard"
            )
            await anyio.sleep(TICK)

    async def _report_played(self) -> None:
        """Tell the service what was played, whenever that has changed."""
        playback, reported = self._mouth.playback, 0.0
        while True:
            await anyio.sleep(REPORT_EVERY)
            if (played := playback.played_seconds) != reported:
                reported = played
                await self._session.report_played(played)

    def _early_end(self) -> CommandError | None:
        closed = self._session.closed
        if closed is None or closed.initiated_by == "local":
            return None
        error = ended_by_service(closed, self._error)
        if closed.code == close_codes.NORMAL and self.stats.turns:
            self._display.line(str(error))
            return None
        return error


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    # The usual way to hang up: the session is closed in order, and the summary still comes.
    with stop_signals() as signals:
        async for _ in signals:
            scope.cancel()
            return


def _bar(level: float) -> str:
    """Draw a level in dBFS as a bar: 5 dB a block, from silence at -60."""
    return f"{'█' * round((max(-60.0, level) + 60) / 5):<12}"
