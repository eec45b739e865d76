"""One turn: a question, spoken at the speed of speech or typed, and everything of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

import anyio
import msgspec

from .._net.tasks import TaskGroup
from ..audio._pcm import byte_count
from ..client._session import RealtimeSession
from ..protocol import close_codes
from ..protocol.errors import SpekoError
from ..protocol.frames import Audio, Close, ErrorFrame, Frame, ResponseEnd, Transcript
from ._failures import NO_ANSWER, CommandError

MESSAGE_SECONDS: Final = 0.02
"""Seconds of speech in one message: what telephony and browsers send."""

ANSWER_TIMEOUT: Final = 20.0
"""Seconds that the answer may take to begin, from the end of the question."""

QUIET_TIMEOUT: Final = 3.0
"""Seconds without a frame after which an answer counts as over even without a `ResponseEnd`."""

REASON_TIMEOUT: Final = 1.0
"""Seconds after a failed answer in which the service may still say why, and end the session."""


class PacedSpeech:
    """A recorded question: an iteration over its pieces, each at the time it would have been spoken."""

    def __init__(self, pcm: bytes, sample_rate: int) -> None:
        self._pcm = pcm
        self._size = byte_count(MESSAGE_SECONDS, sample_rate)
        self._position = 0
        self._due: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._position >= len(self._pcm):
            raise StopAsyncIteration
        self._due = anyio.current_time() if self._due is None else self._due + MESSAGE_SECONDS
        await anyio.sleep_until(self._due)
        piece = self._pcm[self._position : self._position + self._size]
        self._position += self._size
        return piece


class Answer(msgspec.Struct):
    """The answer to a question, as far as it came."""

    pcm: bytearray = msgspec.field(default_factory=bytearray)
    """PCM16 mono."""
    sample_rate: int = 0
    heard: str = ""
    """The final transcripts of the question."""
    said: str = ""
    """The final transcripts of the answer."""
    cut_short: str = ""
    """Why the end of the answer is missing; empty if the answer is complete."""
    time_to_first_audio: float | None = None
    """Seconds from the end of the question to the first audio of the answer, or the first words of a written
    one; negative if the service ended the turn before the recording did."""
    written: bool = False
    """Whether it comes without speech."""

    def check_whole(self) -> None:
        """Raise `CommandError` if the end of the answer is missing."""
        if self.cut_short:
            raise CommandError(f"the answer was cut short: {self.cut_short}", NO_ANSWER)

    def timing(self) -> str:
        """Return the time to first audio in words."""
        assert self.time_to_first_audio is not None
        what = "first words" if self.written else "first audio"
        milliseconds = self.time_to_first_audio * 1000
        if milliseconds < 0:
            return f"time to {what}: {-milliseconds:.0f} ms before the end of the recording"
        return f"time to {what}: {milliseconds:.0f} ms after the end of the question"


async def take_turn(
    session: RealtimeSession,
    question: bytes | str | None,
    *,
    progress: Callable[[float], None],
    show: Callable[[Frame], None],
    written: bool = False,
) -> Answer:
    """Ask `question` and collect the answer.

    - `question`: PCM16 mono at the session's input rate, or a text to type; with None, the assistant speaks
      first.
    - `progress`: gets the spoken part of the question, from 0 to 1.
    - `show`: gets every frame.
    - `written`: whether the answer comes without speech.

    Raises `CommandError` if no answer comes, and the session's own errors.
    """
    turn = _Turn(session, progress, show, written=written)
    if not isinstance(question, bytes):
        await turn.begin(question)
        await turn.listen()
        return turn.result()
    async with TaskGroup("the turn") as tasks:
        tasks.start_soon(turn.speak, question)
        await turn.listen()
        tasks.cancel_scope.cancel()
    return turn.result()


class _Turn:
    def __init__(
        self,
        session: RealtimeSession,
        progress: Callable[[float], None],
        show: Callable[[Frame], None],
        *,
        written: bool,
    ) -> None:
        self._session = session
        self._written = written
        self._spoken = True
        """Whether the question is spoken."""
        self._progress = progress
        self._show = show
        self._answer = Answer(sample_rate=session.output_sample_rate, written=written)
        self._patience = anyio.CancelScope()
        self._question_ended: float | None = None
        self._first_output: float | None = None
        """When the first audio came, or the first words of a written answer."""
        self._answer_ended = False
        self._error: ErrorFrame | None = None
        self._failure: Exception | None = None
        self._response_failure: str | None = None

    async def begin(self, question: str | None) -> None:
        """Type the question, or let the assistant speak if it is None."""
        self._spoken = False
        if question is None:
            await self._session.respond()
        else:
            await self._session.send_text(question)
        self._progress(1.0)
        self._question_ended = anyio.current_time()
        self._patience.deadline = self._question_ended + ANSWER_TIMEOUT

    async def speak(self, question: bytes) -> None:
        spoken = 0
        try:
            async for piece in PacedSpeech(question, self._session.input_sample_rate):
                await self._session.send_audio(piece)
                spoken += len(piece)
                self._progress(spoken / len(question))
            await self._session.commit()
        except SpekoError:
            return  # the session is over: `listen` learns why
        self._question_ended = anyio.current_time()
        # The answer may be there already, when the service heard the end before the recording had one.
        patience = ANSWER_TIMEOUT if self._first_output is None else QUIET_TIMEOUT
        self._patience.deadline = self._question_ended + (0.0 if self._answer_ended else patience)

    async def listen(self) -> None:
        """Take frames until the answer is over; keep our errors, which the task group would wrap."""
        try:
            with self._patience:
                async for frame in self._session:
                    self._show(frame)
                    if self._take(frame):
                        return
                    if self._answered:
                        self._patience.deadline = anyio.current_time() + QUIET_TIMEOUT
        except SpekoError as error:
            self._failure = error
            if not self._answer_ended:
                self._answer.cut_short = str(error)

    @property
    def _answered(self) -> bool:
        return self._question_ended is not None and self._first_output is not None

    def _is_output(self, frame: Frame) -> bool:
        if self._written:
            return isinstance(frame, Transcript) and frame.role == "assistant"
        return isinstance(frame, Audio)

    def _take(self, frame: Frame) -> bool:
        """Keep what belongs to the answer; return whether it is over."""
        answer = self._answer
        if self._first_output is None and self._is_output(frame):
            self._first_output = anyio.current_time()
        match frame:
            case Audio(pcm=pcm, sample_rate=rate):
                answer.pcm += pcm
                answer.sample_rate = rate
            case Transcript(role="user", text=text, final=True):
                answer.heard = f"{answer.heard} {text}".strip()
            case Transcript(role="assistant", text=text, final=True):
                answer.said = f"{answer.said} {text}".strip()
            case ErrorFrame():
                self._error = frame
            case ResponseEnd(status=status, reason=reason) if self._first_output is not None:
                self._answer_ended = True
                if status in ("failed", "incomplete"):
                    answer.cut_short = f"the service called it {status} ({_why(self._error, reason)})"
                return self._answered
            case ResponseEnd(status="failed", reason=reason) if self._question_ended is not None:
                # No speech will come: don't wait out the full timeout.
                self._response_failure = _why(None, reason)
                self._patience.deadline = anyio.current_time() + REASON_TIMEOUT
            case Close():
                self._failure = ended_by_service(frame, self._error)
                # A handler that answers only once may hang up after that.
                if not self._answer_ended and (frame.code != close_codes.NORMAL or frame.expired):
                    answer.cut_short = str(self._failure)
                return True
            case _:
                pass
        return False

    def result(self) -> Answer:
        """Return the answer as far as it came; raise the failure if nothing came."""
        if self._first_output is None or self._question_ended is None:
            if self._failure is not None:
                raise self._failure
            if self._response_failure is not None:
                raise no_answer(self._error, failure=self._response_failure)
            hint = "check that the recording holds speech" if self._spoken else "try again"
            raise no_answer(self._error, f" within {ANSWER_TIMEOUT:g} s of the question", hint=hint)
        self._answer.time_to_first_audio = self._first_output - self._question_ended
        return self._answer


def ended_by_service(close: Close, reported: ErrorFrame | None) -> CommandError:
    """Return the error for a session that the service ended; `reported` is its last error frame."""
    why = _why(reported, close.reason)
    return CommandError(f"the service ended the session with code {close.code} ({why})", NO_ANSWER)


def no_answer(
    reported: ErrorFrame | None,
    when: str = "",
    *,
    failure: str = "",
    hint: str = "check that the recording holds speech",
) -> CommandError:
    """Return the error for a question without an answer.

    Its reason is the service's report, else the answer's own `failure`, else the `hint` at the likely cause.
    """
    if reported is not None:
        why = f"the service reported {_why(reported, failure)}"
    elif failure:
        why = f"the answer failed ({failure})"
    else:
        why = hint
    return CommandError(f"no answer came{when}; {why}", NO_ANSWER)


def _why(reported: ErrorFrame | None, reason: str) -> str:
    return f"{reported.code}: {reported.message}" if reported is not None else reason or "no reason given"
