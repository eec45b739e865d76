"""The interface of a client's core at byte level, and the base of cores that wrap another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from ._commands import TextRole, Update
from ._dialect import NEED_DATA, NeedData
from ._pcm import Buffer
from ._state import State
from .capabilities import Capabilities
from .errors import SpekoError
from .frames import Audio, Close, Frame


class ClientCore(Protocol):
    """What the client needs of a core: a client dialect at byte level, such as `ClientConnection`."""

    @property
    def input_sample_rate(self) -> int: ...
    @property
    def output_sample_rate(self) -> int: ...
    @property
    def state(self) -> State: ...
    @property
    def closed(self) -> Close | None: ...
    @property
    def error(self) -> SpekoError | None: ...
    @property
    def has_output(self) -> bool: ...
    @property
    def odd_fields(self) -> int: ...
    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def unread(self) -> bool: ...
    def yield_after(self, frames: int, call: Callable[[], None]) -> None: ...
    def receive_data(self, data: bytes) -> None: ...
    def receive_audio(self, data: bytes) -> Audio | None: ...
    def receive_eof(self) -> None: ...
    def receive_lost(self, reason: str = ...) -> None: ...
    def next_event(self) -> Frame | Literal[NeedData.NEED_DATA]: ...
    def next_events(self, most: int) -> list[Frame]: ...
    def data_to_send(self) -> bytes: ...
    def send_failed(self) -> None: ...
    def close(self, code: int = ..., reason: str = ...) -> None: ...
    def next_deadline(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def suspend_keepalive(self) -> None: ...
    def resume_keepalive(self) -> None: ...

    def send_audio(self, pcm: Buffer) -> None: ...
    def commit(self) -> None: ...
    def clear(self) -> None: ...
    def end_turn(self) -> None: ...
    def interrupt(self) -> None: ...
    def send_tool_result(self, call_id: str, output: str) -> None: ...
    def send_text(self, text: str, *, role: TextRole = ..., respond: bool | None = ...) -> None: ...
    def send_image(self, data: bytes, *, mime_type: str, respond: bool = ...) -> None: ...
    def respond(self, instructions: str = ...) -> None: ...
    def say(self, text: str) -> None: ...
    def update(self, update: Update) -> None: ...
    def report_played(self, seconds: float) -> bool: ...
    def send_provider_event(self, event: str) -> None: ...
    def watch_provider(self, tell: Callable[[str], None]) -> None: ...


class CoreWrapper:
    """A `ClientCore` that delegates everything to `core`; subclasses override what they change.

    The shortcuts are off, so that overriding `receive_data` and `next_event` is enough: `receive_audio` takes
    nothing, and `next_events` calls `next_event`.
    """

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    # State

    @property
    def input_sample_rate(self) -> int:
        return self._core.input_sample_rate

    @property
    def output_sample_rate(self) -> int:
        return self._core.output_sample_rate

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def closed(self) -> Close | None:
        return self._core.closed

    @property
    def error(self) -> SpekoError | None:
        return self._core.error

    @property
    def has_output(self) -> bool:
        return self._core.has_output

    @property
    def odd_fields(self) -> int:
        return self._core.odd_fields

    @property
    def capabilities(self) -> Capabilities:
        return self._core.capabilities

    # Bytes and time

    @property
    def unread(self) -> bool:
        return self._core.unread

    def yield_after(self, frames: int, call: Callable[[], None]) -> None:
        self._core.yield_after(frames, call)

    def receive_data(self, data: bytes) -> None:
        self._core.receive_data(data)

    def receive_audio(self, data: bytes) -> Audio | None:
        return None

    def receive_eof(self) -> None:
        self._core.receive_eof()

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        self._core.receive_lost(reason)

    def next_event(self) -> Frame | Literal[NeedData.NEED_DATA]:
        return self._core.next_event()

    def next_events(self, most: int) -> list[Frame]:
        event = self.next_event()
        return [] if event is NEED_DATA else [event]

    def data_to_send(self) -> bytes:
        return self._core.data_to_send()

    def send_failed(self) -> None:
        self._core.send_failed()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._core.close(code, reason)

    def next_deadline(self) -> float | None:
        return self._core.next_deadline()

    def handle_timeout(self, now: float) -> None:
        self._core.handle_timeout(now)

    def suspend_keepalive(self) -> None:
        self._core.suspend_keepalive()

    def resume_keepalive(self) -> None:
        self._core.resume_keepalive()

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        self._core.send_audio(pcm)

    def commit(self) -> None:
        self._core.commit()

    def clear(self) -> None:
        self._core.clear()

    def end_turn(self) -> None:
        self._core.end_turn()

    def interrupt(self) -> None:
        self._core.interrupt()

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._core.send_tool_result(call_id, output)

    def send_text(self, text: str, *, role: TextRole = "user", respond: bool | None = None) -> None:
        self._core.send_text(text, role=role, respond=respond)

    def send_image(self, data: bytes, *, mime_type: str, respond: bool = False) -> None:
        self._core.send_image(data, mime_type=mime_type, respond=respond)

    def respond(self, instructions: str = "") -> None:
        self._core.respond(instructions)

    def say(self, text: str) -> None:
        self._core.say(text)

    def update(self, update: Update) -> None:
        self._core.update(update)

    def report_played(self, seconds: float) -> bool:
        return self._core.report_played(seconds)

    def send_provider_event(self, event: str) -> None:
        self._core.send_provider_event(event)

    def watch_provider(self, tell: Callable[[str], None]) -> None:
        self._core.watch_provider(tell)
