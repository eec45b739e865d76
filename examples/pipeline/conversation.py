"""One session of the bot, with tasks that read commands, answer, and send partial transcripts."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Final, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from speko_anyio.audio import (
    Backchannel,
    EndOfTurn,
    IsSpeech,
    NothingSaid,
    SpeechSoFar,
    SpeechStarted,
    SpeechStopped,
    Timing,
    TurnDetector,
    TurnEvent,
)
from speko_anyio.audio._pcm import byte_count, duration
from speko_anyio.gateway import ServerSession
from speko_anyio.gateway.engines import EngineError, Engines, Message, ToolRequest
from speko_anyio.protocol import (
    AudioIn,
    Clear,
    Commit,
    ConnectionClosed,
    EndTurn,
    Interrupt,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol.frames import ResponseStatus

CHUNK: Final = 0.04
"""Seconds of audio in one message."""

LEAD: Final = 0.4
"""Seconds of audio sent ahead of playback, while the next sentence is synthesized."""

TOOL_TIMEOUT: Final = 30.0
MAX_TOOL_ROUNDS: Final = 5
"""How often in a row the model may call tools."""

MAX_REQUESTS: Final = 8
"""Requests to speak that wait until the bot and the user are silent."""

TOKENS_PER_SECOND: Final = 10
"""Of audio, as reported in the usage."""

NUDGE: Final = "Speak first: greet the user, or pick up the conversation."
"""What the model is told when the client asks for an answer without instructions."""


class Reply:
    """One answer, from the end of the user's turn until the answer has been played."""

    def __init__(self, pcm: bytes = b"") -> None:
        self.pcm = pcm
        """The user's turn; empty if there is none, or it was written."""
        self.heard = not pcm
        self.said = ""
        self.seconds = 0.0
        """Of audio sent."""
        self.played_at = 0.0
        """The time at which the client will have played the audio sent so far."""
        self.scope = anyio.CancelScope()


Work: TypeAlias = Callable[[Reply], Awaitable[None]]
"""What is to be said in a reply."""


class Conversation:
    """Run one session; `run` returns when the session has ended."""

    def __init__(
        self,
        session: ServerSession,
        engines: Engines,
        *,
        is_speech: IsSpeech | None = None,
        timing: Timing | None = None,
        end_of_turn: EndOfTurn | None = None,
    ) -> None:
        self._session = session
        self._engines = engines
        self._end_of_turn = end_of_turn
        self._turns = TurnDetector(session.input_sample_rate, is_speech=is_speech, timing=timing)
        self._system_prompt = session.config.system_prompt or ""
        self._tools = session.config.tools
        self._messages: list[Message] = []
        self._reply: Reply | None = None  # the one that can be interrupted
        self._requests: deque[Work] = deque(maxlen=MAX_REQUESTS)
        self._showing = anyio.CancelScope()
        self._unheard = b""
        self._results: dict[str, MemoryObjectSendStream[str]] = {}
        self._calls = 0
        self._tasks: TaskGroup

    async def run(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            async for command in self._session:
                match command:
                    case AudioIn(pcm=pcm):
                        # Then a short "mhm" is no interruption, if the timing says so.
                        self._turns.assistant_speaking = self._reply is not None and self._reply.seconds > 0
                        for event in self._turns.push(pcm):
                            if isinstance(event, SpeechStopped):
                                # The gateway measures the time to first audio from here.
                                self._session.turn_ended()
                            await self._react(event)
                    case Commit() | EndTurn():
                        if (ended := self._turns.end_turn()) is not None:
                            await self._react(ended)
                    case Clear():
                        self._turns.clear()
                        self._showing.cancel()
                        self._start_request()
                    case Interrupt():
                        await self._interrupt()
                        self._start_request()
                    case TextIn(text=text, role="user", respond=True):
                        # A turn in writing: it interrupts as speech does.
                        await self._interrupt()
                        self._messages.append(Message("user", text))
                        self._start(Reply(), self._think)
                    case TextIn(text=text, role=role):
                        self._messages.append(Message(role, text))
                    case Respond(instructions=instructions):
                        self._requests.append(partial(self._think, nudge=instructions or NUDGE))
                        self._start_request()
                    case Say(text=text):
                        self._requests.append(partial(self._say, text))
                        self._start_request()
                    case Update(system_prompt=prompt, tools=tools):
                        self._system_prompt = prompt if isinstance(prompt, str) else self._system_prompt
                        self._tools = tools if isinstance(tools, tuple) else self._tools
                    case ToolResult(call_id=call_id, output=output):
                        # Ignore a result that arrives too late or has an unknown id.
                        if (waiting := self._results.pop(call_id, None)) is not None:
                            waiting.send_nowait(output)
            self._tasks.cancel_scope.cancel()

    async def _react(self, event: TurnEvent | NothingSaid) -> None:
        match event:
            case SpeechStarted():
                await self._interrupt()
            case SpeechSoFar():
                self._showing.cancel()
                self._showing = anyio.CancelScope()
                self._tasks.start_soon(self._show, event, self._showing)
            case SpeechStopped(utterance):
                self._showing.cancel()
                reply = Reply(self._unheard + utterance)
                self._unheard = b""
                self._start(reply, self._hear)
            case Backchannel() | NothingSaid():
                pass

    def _start(self, reply: Reply, work: Work) -> None:
        self._reply = reply
        self._tasks.start_soon(self._answer, reply, work)

    def _start_request(self) -> None:
        """Start the next request to speak, unless the bot or the user is speaking."""
        if self._requests and self._reply is None and not self._turns.in_turn:
            self._start(Reply(), self._requests.popleft())

    async def _interrupt(self) -> None:
        """Stop the current answer, if any."""
        if (reply := self._reply) is None:
            return
        self._reply = None
        # In this order: the cancelled task sends no more audio behind the interruption.
        reply.scope.cancel()
        await self._session.send_interruption()
        if not reply.heard:
            # The user only paused, so what they said before belongs to the new turn.
            limit = byte_count(self._turns.timing.longest, self._session.input_sample_rate)
            self._unheard = reply.pcm[-limit:]
        else:
            await self._conclude(reply, "interrupted")

    async def _show(self, so_far: SpeechSoFar, scope: anyio.CancelScope) -> None:
        """Send the speech so far as a partial transcript, and ask the end-of-turn model whether it is all."""
        rate = self._session.input_sample_rate
        # Errors can be ignored: the final transcript reports them, and `run` notices when the client leaves.
        with scope, suppress(EngineError, ConnectionClosed):
            if text := await self._engines.ear.transcribe(so_far.utterance, rate):
                await self._session.send_transcript("user", text, final=False)
            if so_far.paused and self._end_of_turn is not None:
                probability = await self._end_of_turn.probability(so_far.utterance, rate, text)
                self._turns.judge(so_far, probability)

    async def _answer(self, reply: Reply, work: Work) -> None:
        with suppress(ConnectionClosed), reply.scope:
            status: ResponseStatus = "done"
            try:
                await work(reply)
            except EngineError as error:
                await self._session.send_error(error.code, str(error))
                status = "failed"
            # The answer can be interrupted until it has been played.
            await anyio.sleep_until(reply.played_at)
            # From here on `_interrupt` ignores this answer, so the calls below are not cancelled half-way.
            self._reply = None
            await self._conclude(reply, status)
            self._start_request()

    async def _hear(self, reply: Reply) -> None:
        text = await self._engines.ear.transcribe(reply.pcm, self._session.input_sample_rate)
        reply.heard = True
        await self._session.send_transcript("user", text, final=True)
        if text:
            self._messages.append(Message("user", text))
            await self._think(reply)

    async def _think(self, reply: Reply, nudge: str = "") -> None:
        for _ in range(MAX_TOOL_ROUNDS):
            requests: list[ToolRequest] = []
            answer = self._engines.brain.answer(self._context(nudge), self._tools)
            async with aclosing(answer) as parts:
                async for part in parts:
                    if isinstance(part, ToolRequest):
                        requests.append(part)
                    else:
                        await self._say(part, reply)
            if not requests:
                return
            nudge = ""
            for request in requests:
                self._messages.append(Message("tool", await self._call(request), request))
        raise EngineError("TOOL_LOOP", f"the model asked for tools {MAX_TOOL_ROUNDS} times in a row")

    def _context(self, nudge: str) -> list[Message]:
        prompt = [Message("system", self._system_prompt)] if self._system_prompt else []
        return [*prompt, *self._messages, *([Message("system", nudge)] if nudge else [])]

    async def _say(self, sentence: str, reply: Reply) -> None:
        rate = self._session.output_sample_rate
        said = f"{reply.said} {sentence}".lstrip()
        async with aclosing(self._engines.voice.synthesize(sentence, rate)) as pieces:
            async for pcm in pieces:
                if reply.said != said:
                    reply.said = said
                    await self._session.send_transcript("assistant", said, final=False)
                await self._play(pcm, reply)

    async def _play(self, pcm: bytes, reply: Reply) -> None:
        rate = self._session.output_sample_rate
        size = byte_count(CHUNK, rate)
        for start in range(0, len(pcm), size):
            chunk = pcm[start : start + size]
            # In real time, so that this task runs, and can be cancelled, while the user hears the answer.
            await anyio.sleep_until(reply.played_at - LEAD)
            await self._session.send_audio(chunk)
            reply.seconds += duration(chunk, rate)
            reply.played_at = max(reply.played_at, anyio.current_time()) + duration(chunk, rate)

    async def _call(self, request: ToolRequest) -> str:
        """Let the client run a tool, and return its output or a message that there is none."""
        self._calls += 1
        call_id = f"call-{self._calls}"
        waiting, result = anyio.create_memory_object_stream[str](1)
        self._results[call_id] = waiting
        try:
            with waiting, result, anyio.move_on_after(TOOL_TIMEOUT):
                await self._session.send_tool_call(call_id, request.name, request.arguments)
                return await result.receive()
        finally:
            self._results.pop(call_id, None)
        return f"{request.name} gave no answer in {TOOL_TIMEOUT:g} seconds"

    async def _conclude(self, reply: Reply, status: ResponseStatus) -> None:
        """Send the final transcript, the usage and the end of an answer, also after an interruption."""
        if reply.said:
            # Only the spoken part: the model must not believe that the user heard the rest.
            self._messages.append(Message("assistant", reply.said))
            await self._session.send_transcript("assistant", reply.said, final=True)
        heard = duration(reply.pcm, self._session.input_sample_rate) if reply.heard else 0.0
        await self._session.send_usage(
            round(heard * TOKENS_PER_SECOND), round(reply.seconds * TOKENS_PER_SECOND)
        )
        await self._session.send_response_end(status)
