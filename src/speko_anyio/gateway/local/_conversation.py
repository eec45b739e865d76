"""One session of the offline voice: a task that reads, one that recognises ahead and one that answers."""

from __future__ import annotations

import math
from collections import deque
from contextlib import aclosing
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
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol.errors import ConnectionClosed

from ..engines import EngineError, Message, SpeaksInParts, SpokenText, ToolRequest, VoiceChoice
from ._dialogue import SmallTalk, ask_again, no_answer
from ._ears import ExpectsPhrases
from ._reply import Asked, Reply
from ._sentences import MAX_TEXT, sentences
from ._timers import Timers
from ._transcriber import HeardTurn, Transcriber
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from speko_anyio.protocol._commands import TextRole
    from speko_anyio.protocol.mint import ToolSpec

    from ..engines import Engines, SpeechToText
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

NUDGE: Final = "Speak first: greet the user, or pick up the conversation."
"""The brain's instructions when the client asks for an answer and gives none."""

MAX_HISTORY: Final = 100
"""Messages of the conversation that the brain is given, each of at most `MAX_TEXT` characters."""

MAX_TOOL_ROUNDS: Final = 5
"""How often in a row the brain may call tools."""

MAX_CALLS: Final = 16
"""Tools that the brain may call at a time."""


class VoiceConversation:
    """Runs one session; `run` returns when the session is over.

    Args:
        session: the server's end of it.
        engines: shared by all sessions of the gateway.
        turns: finds the turns in the user's audio.
        end_of_turn: judges in a pause whether the turn is over.
        preparing: limits the threads that prepare the tools of an update.
    """

    def __init__(
        self,
        session: VoiceSession,
        engines: Engines,
        turns: hear.TurnDetector,
        end_of_turn: hear.EndOfTurn | None,
        preparing: anyio.CapacityLimiter,
    ) -> None:
        self._session = session
        self._brain = engines.brain
        self._ear = engines.ear
        self._chosen_voice = self._own_voice = engines.voice
        self._turns = turns
        self._preparing = preparing
        self._tools: Sequence[ToolSpec] = session.config.tools
        self._transcriber = Transcriber(session, self._ear_for(self._tools), turns, end_of_turn)
        self._resampler = Resampler(session.input_sample_rate, SAMPLE_RATE)
        self._turn = HeardTurn()
        self._writes_only = session.config.output == "text"
        self._spoken = SpokenText(session.output_sample_rate)
        self._system_prompt = session.config.system_prompt or ""
        self._messages: deque[Message] = deque(maxlen=MAX_HISTORY)
        self._unanswered = 0  # words that the user wrote last, without asking for an answer
        self._deferred: list[Reply] = []  # until the user stops speaking
        self._replies: list[Reply] = []  # the one in progress first
        self._reply_added = anyio.Event()
        self._calls = 0
        self._timers: Timers

    async def run(self) -> None:
        """Serve the session until it closes."""
        async with TaskGroup("the offline voice") as tasks:
            self._timers = Timers(tasks, self._ring)

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
                    self._unanswered = 0
                    read = partial(self._read_text, text[:MAX_TEXT])
                    await self._add_reply(Reply(self._think, Asked(words=_words(text)), hear=read))
                case TextIn(text=text, role=role):
                    self._remember(role, text)
                    if role != "system":
                        self._unanswered = _words(text) if role == "user" else 0
                case Respond(instructions=instructions):
                    await self._add_when_quiet(self._nudged(instructions))
                case Say(text=text):
                    await self._add_saying(text)
                case Update():
                    await self._update(command)
                case Played(ms=ms):
                    self._spoken.played(ms)
                case ToolResult():
                    for reply in self._replies:
                        reply.take_result(command)
                case _:
                    pass  # newer commands and the core's own notices ask nothing of us

    async def _listen(self, pcm: bytes) -> None:
        self._turns.assistant_speaking = bool(self._replies) and self._replies[0].sent_seconds > 0
        for event in self._turns.push(pcm):
            if isinstance(event, hear.SpeechStopped):
                self._session.turn_ended()
            await self._react(event)

    async def _react(self, event: hear.TurnEvent | hear.NothingSaid) -> None:
        match event:
            case hear.SpeechStarted():
                self._stop_replies()
                self._deferred += [reply for reply in self._replies if not reply.stopped]  # timers
                self._replies = [reply for reply in self._replies if reply.stopped]
                self._begin_turn()
            case hear.SpeechSoFar():
                self._transcriber.suggest(self._turn, event)
            case hear.SpeechStopped(utterance):
                self._turn.closed = True
                asked = Asked(seconds=pcm16.duration(utterance, SAMPLE_RATE))
                recognise = partial(self._recognise, self._turn, utterance)
                await self._add_reply(Reply(self._think, asked, hear=recognise))
                await self._add_deferred()
            case hear.Backchannel():
                pass  # the answer goes on
            case hear.NothingSaid() if self._unanswered:
                await self._add_reply(self._nudged(None))
            case hear.NothingSaid(had_audio=True):
                await self._add_reply(Reply(partial(self._say, NOTHING_HEARD)))
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
            if not reply.rings or reply is self._replies[0]:
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

    def _nudged(self, instructions: str | None) -> Reply:
        """Make the answer to what the user wrote last, or what is said first."""
        words, self._unanswered = self._unanswered, 0
        return Reply(partial(self._think, nudge=instructions or NUDGE), Asked(words=words))

    async def _add_saying(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            await self._session.send_error(
                "TEXT_TOO_LONG", f"the offline voice says {MAX_TEXT} characters at a time; send less"
            )
            return
        await self._add_when_quiet(Reply(partial(self._say, text)))

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

    async def _ring(self, text: str) -> None:
        try:
            await self._add_when_quiet(Reply(partial(self._say, text), rings=text))
        except ConnectionClosed:
            return  # the reader notices

    async def _update(self, update: Update) -> None:
        if isinstance(update.system_prompt, str):
            self._system_prompt = update.system_prompt
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
        # In a thread: thousands of tools take a tenth of a second, in which other sessions must go on. One
        # thread for all sessions, since each that computes takes its share of the time from the event loop.
        self._transcriber.ear = await anyio.to_thread.run_sync(self._ear_for, tools, limiter=self._preparing)
        self._tools = tools

    def _ear_for(self, tools: Sequence[ToolSpec]) -> SpeechToText:
        """Return the ear, prepared for what the user may say when `tools` are offered."""
        if isinstance(self._ear, ExpectsPhrases) and isinstance(self._brain, SmallTalk):
            return self._ear.expecting(self._brain.grammar(tools))
        return self._ear

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
            if not isinstance(self._own_voice, VoiceChoice):
                raise ValueError("this gateway's voice can't be chosen; leave it out")
            self._chosen_voice = await self._own_voice.with_voice(voice)
        except ValueError as error:
            await self._session.send_error("UNKNOWN_VOICE", str(error))

    async def _answer(self, reply: Reply) -> None:
        failure: EngineError | None = None
        self._spoken.begin()
        try:
            if reply.hear is not None:
                await reply.hear(reply)
            with reply.scope:
                await anyio.lowlevel.checkpoint_if_cancelled()
                await reply.work(reply)
        except EngineError as error:
            failure = error
            await self._session.send_error(error.code, str(error))
        await self._send_interruption(reply)  # first: the client still plays what it must drop
        answer: Message | None = None
        if reply.said:
            # Only what was heard: the brain must not believe that the user knows the rest.
            answer = _as_message(reply)
            if answer.text:
                self._messages.append(answer)
            await self._session.send_transcript("assistant", answer.text, final=True)
        await self._session.send_usage(
            _tokens(reply.asked.seconds, INPUT_TOKEN_SECONDS),
            _tokens(reply.sent_seconds, OUTPUT_TOKEN_SECONDS),
            input_text_tokens=reply.asked.words,
            output_text_tokens=_words(reply.said) if self._writes_only else 0,
        )
        if failure is not None:
            await self._session.send_response_end("failed", failure.code)
        else:
            await self._session.send_response_end("interrupted" if reply.stopped else "done")
        await reply.wait_played(lambda: self._spoken.unplayed)
        await self._send_interruption(reply)
        if answer is not None and answer.heard_seconds is None and reply.heard is not None:
            self._correct(answer, _as_message(reply))

    async def _send_interruption(self, reply: Reply) -> None:
        if reply.stopped and not reply.interruption_sent:
            reply.interruption_sent = True
            if not self._writes_only:
                reply.heard = self._spoken.heard()
                self._spoken.flush()
            await self._session.send_interruption("user")

    def _correct(self, answer: Message, heard: Message) -> None:
        """Replace an answer whose end was interrupted after it had been remembered."""
        for at, message in enumerate(self._messages):
            if message is answer:
                self._messages[at] = heard
                if not heard.text:
                    del self._messages[at]
                return

    def _remember(self, role: TextRole, text: str) -> None:
        # A longer text would take too long to match with every value of every tool, and many may come.
        self._messages.append(Message(role, text[:MAX_TEXT]))

    async def _read_text(self, text: str, reply: Reply) -> None:
        # Now, and not when it came: then an answer was in progress, which is remembered when it has ended.
        self._remember("user", text)

    async def _recognise(self, turn: HeardTurn, utterance: bytes, reply: Reply) -> None:
        heard = await self._transcriber.finish(turn, utterance)
        await self._session.send_transcript("user", heard, final=True)
        if heard:
            self._remember("user", heard)
        else:
            reply.work = partial(self._say, ask_again(self._messages))

    async def _think(self, reply: Reply, nudge: str = "") -> None:
        """Let the brain answer, and call the tools that it wants."""
        for _ in range(MAX_TOOL_ROUNDS):
            requests: list[ToolRequest] = []
            async with aclosing(self._brain.answer(self._context(nudge), self._tools)) as parts:
                async for part in parts:
                    if isinstance(part, ToolRequest):
                        requests.append(part)
                    else:
                        await self._say(part, reply)
            if not requests:
                return
            nudge = ""
            self._messages.extend(await self._call_tools(requests[:MAX_CALLS], reply))
        raise EngineError(
            "TOOL_LOOP", f"the answer needs more than {MAX_TOOL_ROUNDS} calls of tools in a row"
        )

    def _context(self, nudge: str) -> list[Message]:
        prompt = [Message("system", self._system_prompt)] if self._system_prompt else []
        return [*prompt, *self._messages, *([Message("system", nudge)] if nudge else [])]

    async def _call_tools(self, requests: Sequence[ToolRequest], reply: Reply) -> list[Message]:
        """Return the results, in the order of the requests."""
        offered = {tool.name for tool in self._tools}
        results: dict[str, str] = {}
        requested: dict[str, ToolRequest] = {}
        for request in requests:
            self._calls += 1
            call_id = f"call_{self._calls}"
            requested[call_id] = request
            if request.name not in offered and (result := self._timers.take(request)) is not None:
                results[call_id] = result
                continue
            reply.expect(call_id)
            await self._session.send_tool_call(call_id, request.name, request.arguments)
        for call_id, output in (await reply.wait_results(TOOL_TIMEOUT)).items():
            results[call_id] = no_answer(requested[call_id].name) if output is None else output
        return [Message("tool", results[call_id], request) for call_id, request in requested.items()]

    async def _say(self, text: str, reply: Reply) -> None:
        """Speak or write a part of the answer, sentence by sentence."""
        for sentence in sentences(text):
            await self._say_sentence(" ".join(sentence.split()), reply)
            for ringing in [other for other in self._replies if other.rings and other is not reply]:
                self._replies.remove(ringing)
                await self._say_sentence(ringing.rings, reply)

    async def _say_sentence(self, sentence: str, reply: Reply) -> None:
        said = f"{reply.said} {sentence}".lstrip()
        if not self._writes_only:
            rate, voice = self._session.output_sample_rate, self._chosen_voice
            parts = iter(voice.parts(sentence) if isinstance(voice, SpeaksInParts) else ())
            async with aclosing(voice.synthesize(sentence, rate)) as pieces:
                async for pcm in pieces:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    if (part := next(parts, None)) is not None:
                        # A pause after it counts as heard with the last word.
                        self._spoken.say(part, pcm16.duration(pcm.rstrip(b"\0"), rate))
                    elif reply.said != said:
                        self._spoken.say(sentence)
                    if reply.said != said:
                        reply.said = said
                        await self._session.send_transcript("assistant", said, final=False)
                    await self._play(pcm, reply)
        if reply.said != said:
            await anyio.lowlevel.checkpoint_if_cancelled()
            reply.said = said
            await self._session.send_transcript("assistant", said, final=False)

    async def _play(self, pcm: bytes, reply: Reply) -> None:
        """Send `pcm` at the pace of playback."""
        rate = self._session.output_sample_rate
        size = pcm16.byte_count(CHUNK_SECONDS, rate)
        for start in range(0, len(pcm), size):
            await reply.wait_room()
            chunk = pcm[start : start + size]
            await self._session.send_audio(chunk)
            self._spoken.add(chunk)
            reply.sent(chunk, rate)


def _as_message(reply: Reply) -> Message:
    """Return what is remembered of a reply, and told to the client."""
    if reply.heard is None:
        return Message("assistant", reply.said[:MAX_TEXT])
    text, seconds = reply.heard
    return Message("assistant", text[:MAX_TEXT], heard_seconds=seconds)


def _words(text: str) -> int:
    return len(text[:MAX_TEXT].split())


def _tokens(seconds: float, token_seconds: float) -> int:
    return math.ceil(round(seconds / token_seconds, 6))
