"""A core that reports what happens in it to observers.

It wraps the session's core, so a session without observers pays nothing for them.
"""

from __future__ import annotations

import functools
from typing import Literal

from ..protocol._client_core import ClientCore, CoreWrapper
from ..protocol._commands import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextRole,
    ToolResult,
    Update,
    text_in,
)
from ..protocol._dialect import NEED_DATA, NeedData
from ..protocol._pcm import Buffer
from ..protocol._timers import AT_ONCE
from ..protocol.frames import Frame
from .observer import SessionObserver
from .observers import Observers


class ObservedCore(CoreWrapper):
    """A core that reports everything that happens in `core` to `observers`."""

    def __init__(self, core: ClientCore, observers: Observers) -> None:
        super().__init__(core)
        self._tell = observers.tell
        self._state = core.state
        core.watch_provider(functools.partial(self._tell, SessionObserver.provider_event))

    # Bytes and time

    def receive_data(self, data: bytes) -> None:
        self._tell(SessionObserver.bytes_read, len(data))
        self._core.receive_data(data)
        self._look()

    def receive_eof(self) -> None:
        self._core.receive_eof()
        self._look()

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        self._core.receive_lost(reason)
        self._look()

    def next_event(self) -> Frame | Literal[NeedData.NEED_DATA]:
        event = self._core.next_event()
        self._look()
        if event is not NEED_DATA:
            self._tell(SessionObserver.received, event)
        return event

    def data_to_send(self) -> bytes:
        data = self._core.data_to_send()
        if data:
            self._tell(SessionObserver.bytes_taken, len(data))
        return data

    def send_failed(self) -> None:
        self._core.send_failed()
        self._look()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._core.close(code, reason)
        self._look()

    def handle_timeout(self, now: float) -> None:
        deadline = self._core.next_deadline()
        if deadline is not None and AT_ONCE < deadline <= now:
            self._tell(SessionObserver.timer_fired)
        self._core.handle_timeout(now)
        self._look()

    def suspend_keepalive(self) -> None:
        self._core.suspend_keepalive()
        self._tell(SessionObserver.reading_paused)

    def resume_keepalive(self) -> None:
        self._core.resume_keepalive()
        self._tell(SessionObserver.reading_resumed)

    def _look(self) -> None:
        state = self._core.state
        if state is not self._state:
            self._state = state
            self._tell(SessionObserver.state_changed, state)

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        self._core.send_audio(pcm)
        self._sent(AudioIn(bytes(pcm), self._core.input_sample_rate))

    def commit(self) -> None:
        self._core.commit()
        self._sent(Commit())

    def clear(self) -> None:
        self._core.clear()
        self._sent(Clear())

    def end_turn(self) -> None:
        self._core.end_turn()
        self._sent(EndTurn())

    def interrupt(self) -> None:
        self._core.interrupt()
        self._sent(Interrupt())

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._core.send_tool_result(call_id, output)
        self._sent(ToolResult(call_id, output))

    def send_text(self, text: str, *, role: TextRole = "user", respond: bool | None = None) -> None:
        self._core.send_text(text, role=role, respond=respond)
        self._sent(text_in(text, role, respond))

    def send_image(self, data: bytes, *, mime_type: str, respond: bool = False) -> None:
        self._core.send_image(data, mime_type=mime_type, respond=respond)
        self._sent(ImageIn(mime_type, bytes(data), respond))

    def respond(self, instructions: str = "") -> None:
        self._core.respond(instructions)
        self._sent(Respond(instructions))

    def say(self, text: str) -> None:
        self._core.say(text)
        self._sent(Say(text))

    def update(self, update: Update) -> None:
        self._core.update(update)
        self._sent(update)

    def report_played(self, seconds: float) -> bool:
        taken = self._core.report_played(seconds)
        if taken:
            self._sent(Played(round(seconds * 1000)))
        return taken

    def _sent(self, command: Command) -> None:
        self._tell(SessionObserver.sent, command)
