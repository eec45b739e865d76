"""One session of the offline voice: a task that reads, one that recognises ahead and one that answers."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from msgspec import UNSET

from speko_anyio._net.tasks import TaskGroup
from speko_anyio.audio import _pcm as pcm16
from speko_anyio.audio import _turns as hear
from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol._commands import (
    AudioIn,
    Clear,
    Commit,
    EndTurn,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol.errors import ConnectionClosed

from ._dialogue import GREETING, report
from ._recognizer import RecognizerError
from ._reply import Asked, Reply
from ._synthesizer import DEFAULT_VOICE, MAX_TEXT, UnknownVoiceError, pieces, speak_to_pcm, synthesizer
from ._transcriber import HeardTurn, Transcriber
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from speko_anyio.protocol.mint import ToolSpec

    from ._dialogue import Dialogue
    from ._grammar import Grammar
    from ._recognizer import Recognizer
    from ._tool_matching import PlannedCall
    from ._voice_session import VoiceSession

CHUNK_SECONDS: Final = 0.04
"""Length of one audio message."""

TOOL_TIMEOUT: Final = 30.0
"""Seconds that the client's tools may take."""

MAX_TOOLS: Final = 64 * 1024
"""Bytes of JSON of the tools of an update: as much as a mint may have."""

MAX_WAITING_REPLIES: Final = 4
"""Ended turns that may wait for their answer."""

INPUT_TOKEN_SECONDS: Final = 0.1
OUTPUT_TOKEN_SECONDS: Final = 0.05
"""Usage counts a token for each begun 100 ms of a turn's audio, and for each begun 50 ms that was sent."""

_SLICE_SECONDS: Final = 0.2
"""Audio looked at between two chances for other tasks: about 0.2 ms of work."""

NOTHING_HEARD: Final = "I did not hear anything."


class VoiceConversation:
    """Runs one session; `run` returns when the session is over.

    Args:
        session: the server's end of it.
        recognizer: shared by all sessions of the gateway.
        dialogue: decides what is answered.
        turns: finds the turns in the user's audio, at `SAMPLE_RATE`.
        speaking: limits the threads that synthesise.
        preparing: limits the threads that prepare the tools of an update.
    """

    def __init__(
        self,
        session: VoiceSession,
        recognizer: Recognizer,
        dialogue: Dialogue,
        turns: hear.TurnDetector,
        speaking: anyio.CapacityLimiter,
        preparing: anyio.CapacityLimiter,
    ) -> None:
        self._session = session
        self._dialogue = dialogue
        self._turns = turns
        self._speaking = speaking
        self._preparing = preparing
        self._voice = DEFAULT_VOICE
        self._transcriber = Transcriber(session, recognizer, dialogue.grammar())
        self._resampler = Resampler(session.input_sample_rate, SAMPLE_RATE)
        self._turn = HeardTurn()
        self._writes_only = session.config.output == "text"
        # What the user wrote last, without asking for an answer. Only what is looked at: many long texts may
        # come at once.
        self._unanswered = ""
        self._deferred: list[Reply] = []  # until the user stops speaking
        self._replies: list[Reply] = []  # the one in progress first
        self._reply_added = anyio.Event()
        self._calls = 0

    async def run(self) -> None:
        """Serve the session until it closes."""
        async with TaskGroup("the offline voice") as tasks:

            async def until_closed(part: Callable[[], Awaitable[None]]) -> None:
                try:
                    await part()
                except ConnectionClosed:
                    # The peer left in the middle of a send: an end like any other.
                    tasks.cancel_scope.cancel()

            tasks.start_soon(until_closed, self._transcriber.run)
            tasks.start_soon(until_closed, self._respond)
            await until_closed(self._read)
            tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        async for command in self._session:
            match command:
                case AudioIn(pcm=pcm):
                    size = pcm16.byte_count(_SLICE_SECONDS, self._session.input_sample_rate)
                    for start in range(0, len(pcm), size):
                        await self._listen(self._resampler.push(pcm[start : start + size]))
                        await anyio.lowlevel.checkpoint()
                case Commit() | EndTurn():
                    await self._listen(self._resampler.flush())
                    if (event := self._turns.end_turn()) is not None:
                        await self._react(event)
                case Clear():
                    self._resampler.reset()
                    self._turns.clear()
                    self._begin_turn()
                    await self._add_deferred()
                case Interrupt():
                    self._stop_replies()
                case TextIn(text=text, role="user", respond=True):
                    self._stop_replies()
                    self._unanswered = text[:MAX_TEXT]
                    await self._add_reply(self._nudged())
                case TextIn(text=text, role="user"):
                    self._unanswered = text[:MAX_TEXT]
                case TextIn(role="assistant"):
                    self._unanswered = ""  # answered, in an earlier session
                case Respond():
                    await self._add_when_quiet(self._nudged())
                case Say(text=text):
                    await self._add_saying(text)
                case Update():
                    await self._update(command)
                case ToolResult():
                    for reply in self._replies:
                        reply.take_result(command)
                case _:
                    pass  # newer commands and the core's own notices ask nothing of us

    async def _listen(self, pcm: bytes) -> None:
        for event in self._turns.push(pcm):
            if isinstance(event, hear.SpeechStopped):
                self._session.turn_ended()
            await self._react(event)

    async def _react(self, event: hear.TurnEvent | hear.NothingSaid) -> None:
        match event:
            case hear.SpeechStarted():
                self._stop_replies()
                self._begin_turn()
            case hear.SpeechSoFar(utterance):
                self._transcriber.suggest(self._turn, utterance)
            case hear.SpeechStopped(utterance):
                self._turn.closed = True
                asked = Asked(seconds=pcm16.duration(utterance, SAMPLE_RATE))
                await self._add_reply(Reply(partial(self._answer_speech, self._turn, utterance), asked))
                await self._add_deferred()
            case hear.Backchannel():
                pass  # the answer goes on
            case hear.NothingSaid() if self._unanswered:
                await self._add_reply(self._nudged())
            case hear.NothingSaid(had_audio=True):
                await self._add_reply(Reply(_always(NOTHING_HEARD), Asked()))
            case hear.NothingSaid():
                await self._session.send_error(
                    "INPUT_EMPTY", "no audio came since the last turn; send some before ending the turn"
                )
            case _:
                assert_never(event)

    def _begin_turn(self) -> None:
        self._turn.closed = True
        self._turn = HeardTurn()

    def _stop_replies(self) -> None:
        for reply in self._replies:
            reply.stop()

    async def _add_reply(self, reply: Reply) -> None:
        if len(self._replies) > MAX_WAITING_REPLIES:
            await self._send_overloaded()
            return
        self._replies.append(reply)
        self._reply_added.set()

    async def _send_overloaded(self) -> None:
        await self._session.send_error(
            "OVERLOADED", "turns end faster than they can be answered; wait for the answers"
        )

    def _nudged(self) -> Reply:
        """Make the answer to what the user wrote last, or a greeting."""
        text, self._unanswered = self._unanswered, ""
        if not text:
            return Reply(_always(GREETING), Asked())
        return Reply(partial(self._answer_text, text), Asked(words=len(text.split())))

    async def _add_saying(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            await self._session.send_error(
                "TEXT_TOO_LONG", f"the offline voice says {MAX_TEXT} characters at a time; send less"
            )
            return
        await self._add_when_quiet(Reply(_always(text), Asked()))

    async def _add_when_quiet(self, reply: Reply) -> None:
        if not self._turns.in_turn:
            await self._add_reply(reply)
        elif len(self._deferred) > MAX_WAITING_REPLIES:
            await self._send_overloaded()
        else:
            self._deferred.append(reply)

    async def _add_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for reply in deferred:
            await self._add_reply(reply)

    async def _update(self, update: Update) -> None:
        if update.tools is not UNSET:
            await self._change_tools(update.tools)
        if update.voice is not UNSET:
            await self._choose_voice(update.voice)
        if update.turns is not UNSET:
            await self._refuse_update(
                "turns can't be changed: the offline voice detects turns and takes a commit at any time"
            )

    async def _change_tools(self, tools: Sequence[ToolSpec]) -> None:
        if len(msgspec.json.encode(tools)) > MAX_TOOLS:
            await self._refuse_update(f"tools can't be changed: their JSON has more than {MAX_TOOLS} bytes")
            return

        def prepare() -> tuple[Dialogue, Grammar]:
            dialogue = self._dialogue.with_tools(tools)
            return dialogue, dialogue.grammar()

        # In a thread: thousands of tools take a tenth of a second, in which other sessions must go on. One
        # thread for all sessions, since each that computes takes its share of the time from the event loop.
        self._dialogue, self._transcriber.grammar = await anyio.to_thread.run_sync(
            prepare, limiter=self._preparing
        )

    async def _refuse_update(self, why: str) -> None:
        await self._session.send_error("UPDATE_REFUSED", why)

    async def _respond(self) -> None:
        if (voice := self._session.config.voice) is not None:
            await self._choose_voice(voice)
        while True:
            while not self._replies:
                await self._reply_added.wait()
                self._reply_added = anyio.Event()
            await self._answer(self._replies[0])
            self._replies.pop(0)

    async def _choose_voice(self, voice: str) -> None:
        try:
            await anyio.to_thread.run_sync(lambda: synthesizer().check_voice(voice), limiter=self._speaking)
        except UnknownVoiceError as error:
            await self._session.send_error("UNKNOWN_VOICE", str(error))
        else:
            self._voice = voice

    async def _answer(self, reply: Reply) -> None:
        failure = ""
        try:
            text = await reply.decide(reply)
        except RecognizerError as error:
            await self._session.send_error(error.code, str(error))
            text, failure = "", error.code
        if text and not reply.stopped:
            await self._say(text, reply)
        await self._send_interruption(reply)
        seconds = self._output_seconds(reply)
        await self._session.send_usage(
            _tokens(reply.asked.seconds, INPUT_TOKEN_SECONDS),
            _tokens(seconds, OUTPUT_TOKEN_SECONDS),
            input_text_tokens=reply.asked.words,
            output_text_tokens=reply.written,
        )
        if failure:
            await self._session.send_response_end("failed", failure)
        else:
            await self._session.send_response_end("interrupted" if reply.stopped else "done")
        if reply.sent_bytes:
            await reply.wait_played(seconds)
            await self._send_interruption(reply)

    async def _send_interruption(self, reply: Reply) -> None:
        if reply.stopped and not reply.interruption_sent:
            reply.interruption_sent = True
            await self._session.send_interruption("user")

    async def _answer_speech(self, turn: HeardTurn, utterance: bytes, reply: Reply) -> str:
        """Recognise the turn and call tools; return what to say, nothing if the reply was stopped."""
        heard = await self._transcriber.finish(turn, utterance)
        await self._session.send_transcript("user", heard, final=True)
        return await self._answer_text(heard, reply)

    async def _answer_text(self, text: str, reply: Reply) -> str:
        # A longer text would take too long to match with every value of every tool.
        answer = self._dialogue.answer(text[:MAX_TEXT])
        if not answer.calls or reply.stopped:
            return answer.text
        return await self._call_tools(answer.calls, reply)

    async def _call_tools(self, calls: Sequence[PlannedCall], reply: Reply) -> str:
        names: dict[str, str] = {}
        for call in calls:
            self._calls += 1
            call_id = f"call_{self._calls}"
            names[call_id] = call.name
            reply.expect(call_id)
            arguments = msgspec.json.encode(call.arguments).decode()
            await self._session.send_tool_call(call_id, call.name, arguments)
        outputs = await reply.wait_results(TOOL_TIMEOUT)
        if reply.stopped:
            return ""
        return report([(names[call_id], output) for call_id, output in outputs.items()])

    async def _say(self, text: str, reply: Reply) -> None:
        if self._writes_only:
            reply.written = len(text.split())
            await self._session.send_transcript("assistant", text, final=True)
            return
        spoken = ""
        for piece in pieces(text):
            pcm = await self._synthesise(piece)
            if reply.stopped:
                break
            spoken = f"{spoken} {piece}".lstrip()
            await self._session.send_transcript("assistant", spoken, final=False)
            if not await self._play(pcm, reply):
                break
        await self._send_interruption(reply)  # first: the client still plays what it must drop
        if spoken:
            await self._session.send_transcript("assistant", spoken, final=True)

    async def _synthesise(self, text: str) -> bytes:
        return await anyio.to_thread.run_sync(
            lambda: speak_to_pcm(text, self._session.output_sample_rate, voice=self._voice),
            limiter=self._speaking,
        )

    async def _play(self, pcm: bytes, reply: Reply) -> bool:
        """Send `pcm` at the pace of playback; return False if the reply was stopped on the way."""
        size = pcm16.byte_count(CHUNK_SECONDS, self._session.output_sample_rate)
        for start in range(0, len(pcm), size):
            if not await reply.wait_room(self._output_seconds(reply)):
                return False
            chunk = pcm[start : start + size]
            await self._session.send_audio(chunk)
            reply.sent_bytes += len(chunk)
        return True

    def _output_seconds(self, reply: Reply) -> float:
        return reply.sent_bytes / pcm16.SAMPLE_BYTES / self._session.output_sample_rate


def _always(text: str) -> Callable[[Reply], Awaitable[str]]:
    async def decide(reply: Reply) -> str:
        return text

    return decide


def _tokens(seconds: float, token_seconds: float) -> int:
    return math.ceil(round(seconds / token_seconds, 6))
