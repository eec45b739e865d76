"""What the caller says other than in speech, and when it may be sent to the model.

Any `clientContent` cuts off the answer that is under way, and Gemini starts an answer for each that asks for
one. So:

- A text or picture of the user that is to be answered is a turn: it goes at once, and stops the answer under
  way as speech does. If `GoogleOptions.interrupts` is off, or calls of tools are gated, it waits as speech
  does. While an announced turn of the user is open (manual mode) it belongs to that turn, whose end asks for
  the answer.
- ``say``, and ``respond`` with instructions, want an answer of their own each. They wait in their order while
  an answer or the call of a tool is under way, or the user's turn is open. So does a text of another role
  that is to be answered.
- A bare ``respond`` wants any answer: it waits likewise, at most one does, and an answer that begins
  meanwhile meets it. It is dropped when the user cuts in, since they will be answered.
- Context, a text or picture that is not to be answered, waits for the end of the answer under way, which it
  would cut off. It goes before the next turn that stops or ends anything, so it is never later than what was
  said after it.
- An update goes at once; but nothing overtakes what waits, except the user's turns.
- The results of tools never wait, and ask for the answer to them by themselves.
- `interrupt` also drops what is to be said, since the caller wants silence. Context and updates stay.
- When the connection is lost, context and updates go on to the next one; what is to be said is lost with the
  answer that it waited for.

A model 3.1 takes context only as the initial history, before anything else of the user; the first other
message ends that history.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, assert_never

from ...protocol._commands import ExtensionCommand, ImageIn, Respond, Say, TextIn, Update
from ...protocol.errors import LocalProtocolError
from .._held_input import held_size
from .._provider import SAY_EXACTLY
from . import _events as wire
from ._assistant import Assistant
from ._config import Rules
from ._families import Family
from ._resumption import Carried, Resumption
from ._user import UserTurn

MAX_PROMPTS: Final = 16
"""The most answers that wait to be asked for: minutes of speech."""

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/heic", "image/heif")
"""The pictures that Gemini takes."""

_NUDGE: Final = "Please speak now."
"""What the user says where Gemini needs that to make the model speak."""

_PLACEHOLDER: Final = "."
"""The shortest thing that models 2.5 take for a turn of the user."""

_NOTE: Final = "(Note for the assistant, not said by the user:) "
"""Before a text of the role ``system``, which Gemini's conversations lack."""


class Kind(enum.Enum):
    """What a command means for the conversation."""

    CONTEXT = "context"
    TURN = "turn"
    """The user's, to be answered."""
    PROMPT = "prompt"
    """Wants an answer of its own."""
    NUDGE = "nudge"
    """Wants any answer."""
    UPDATE = "update"


_PROMPTS: Final = (Kind.PROMPT, Kind.NUDGE)


def kind_of(command: ExtensionCommand) -> Kind:
    """Return what `command` means."""
    match command:
        case TextIn(respond=False) | ImageIn(respond=False):
            return Kind.CONTEXT
        case TextIn(role="user") | ImageIn():
            return Kind.TURN
        case Respond(instructions=""):
            return Kind.NUDGE
        case TextIn() | Respond() | Say():
            return Kind.PROMPT
        case Update():
            return Kind.UPDATE
        case _:
            assert_never(command)


class _Waiting(NamedTuple):
    command: ExtensionCommand
    kind: Kind
    answers: int
    """Answers that had begun when it came."""
    message: str = ""
    """What an update is sent as."""

    @property
    def size(self) -> int:
        return held_size(self.command) + len(self.message)


class Gate:
    """The caller's texts, pictures and requests; see the module for the rules.

    - `awaits_history`: whether the model waits for an initial history.
    - `max_waiting`: bytes that may wait.
    - `queue`: queues all of these messages or none; raises `LocalProtocolError` when there is no room.
    - `queue_context`: the same for what may be part of the initial history.
    - `is_quiet`: whether nothing is under way that a message would cut off.
    - `cut_in`: stops the answer under way, and reports that, because the user said something.

    What is said asks the `assistant` to answer, and outdates the `handle`.
    """

    def __init__(
        self,
        family: Family,
        rules: Rules,
        carried: Carried,
        turn: UserTurn,
        assistant: Assistant,
        handle: Resumption,
        *,
        awaits_history: bool,
        max_waiting: int,
        queue: Callable[[Sequence[str]], None],
        queue_context: Callable[[Sequence[str]], None],
        is_quiet: Callable[[], bool],
        cut_in: Callable[[], None],
    ) -> None:
        self._family = family
        self._rules = rules
        self._carried = carried
        self._turn = turn
        self._assistant = assistant
        self._handle = handle
        self.awaits_history: bool = awaits_history
        """Whether the initial history goes on, for the model."""
        self.history_open: bool = awaits_history
        """Whether the caller may still add to it. Anything else ends it, even while that is held."""
        self._max_waiting = max_waiting
        self._queue = queue
        self._queue_context = queue_context
        self._is_quiet = is_quiet
        self._cut_in = cut_in
        self.waiting: deque[_Waiting] = deque()
        """What may not be sent yet, oldest first."""
        self._size = 0
        self._count: Counter[Kind] = Counter()

    # What the model takes

    def check_taken(self, command: ExtensionCommand) -> None:
        """Raise `LocalProtocolError` if the model does not take `command` after what the caller said."""
        match command:
            case ImageIn(mime_type=mime_type) if mime_type.lower() not in IMAGE_TYPES:
                raise LocalProtocolError(
                    f"Gemini takes no {mime_type}; convert the picture to one of {', '.join(IMAGE_TYPES)}"
                )
            case TextIn(role=role, respond=respond) if not (
                self._family.content or self.history_open or (role == "user" and respond)
            ):
                raise LocalProtocolError(
                    "this model takes text as context only before the user's first input; let it be answered "
                    "as a text of the user, or use gemini-3.8-live"
                )

    def check_room(self, command: ExtensionCommand) -> None:
        """Raise `LocalProtocolError` if `command` would wait, and no more may."""
        if not self.waiting:
            return
        prompts = self._count[Kind.PROMPT] + self._count[Kind.NUDGE]
        if kind_of(command) in _PROMPTS and prompts >= MAX_PROMPTS:
            raise LocalProtocolError(
                f"{prompts} answers wait to be asked for; wait for the end of one, or interrupt"
            )
        if self._size + held_size(command) > self._max_waiting:
            raise LocalProtocolError(
                f"more than {self._max_waiting} bytes would wait for the end of an answer; send less"
            )

    # Sending

    def accept(self, command: ExtensionCommand) -> None:
        """Queue a command that the model takes, or let it wait.

        Raises as `check_room` and as `queue`, and then changes nothing.
        """
        self.check_room(command)
        kind = kind_of(command)
        item = _Waiting(command, kind, self._assistant.answers)
        configuration = self._carried.configuration
        if isinstance(command, Update):
            configuration, message = configuration.updated(command)
            item = item._replace(message=message)
        if kind is Kind.TURN and self._rules.interrupts:
            self.send_context()
            self._send(item)
            self.user_cut_in()
        elif not self.waiting and self._may_go(kind):
            self._send(item)
        elif kind is not Kind.NUDGE or not self._count[Kind.NUDGE]:
            self.waiting.append(item)
            self._note(item, 1)
        self._carried.configuration = configuration
        if kind is Kind.CONTEXT and isinstance(command, TextIn | ImageIn):
            self._carried.add(command)

    def repeat(self) -> None:
        """Say again what the handle may lack of an earlier connection, where the model takes that."""
        if self._family.content or self.awaits_history:
            for command in reversed(self._carried.context):
                item = _Waiting(command, Kind.CONTEXT, 0)
                self.waiting.appendleft(item)
                self._note(item, 1)
            self.release()

    def release(self) -> None:
        """Queue what need not wait any more, as far as there is room."""
        while self.waiting:
            item = self.waiting[0]
            if item.kind is not Kind.NUDGE or self._assistant.answers == item.answers:
                if not self._may_go(item.kind):
                    return
                try:
                    self._send(item)
                except LocalProtocolError:
                    return  # the outbox is full: again at the next event
            self.waiting.popleft()
            self._note(item, -1)

    def send_context(self) -> None:
        """Queue the context and the updates that wait, although an answer is under way. Raises as `queue`."""
        for item in [item for item in self.waiting if item.kind in (Kind.CONTEXT, Kind.UPDATE)]:
            self._send(item)
            self.waiting.remove(item)
            self._note(item, -1)

    def _may_go(self, kind: Kind) -> bool:
        if kind is Kind.UPDATE and self._family.context_update:
            return True
        if kind in _PROMPTS and self._turn.messages and self._turn.open:
            return False
        return self._is_quiet()

    # What is dropped

    def user_cut_in(self) -> None:
        """Drop a bare request to speak, since the user will be answered."""
        self._drop(Kind.NUDGE)

    def silence(self) -> None:
        """Drop everything that is to be said."""
        self._drop(*_PROMPTS)

    def _drop(self, *kinds: Kind) -> None:
        if any(self._count[kind] for kind in kinds):
            for item in self.waiting:
                if item.kind in kinds:
                    self._note(item, -1)
            self.waiting = deque(item for item in self.waiting if item.kind not in kinds)

    def _note(self, item: _Waiting, sign: Literal[1, -1]) -> None:
        """Count an item that begins to wait, or one that does not wait any more."""
        self._size += sign * item.size
        self._count[item.kind] += sign

    def handle_is_fresh(self) -> None:
        """Note that the provider keeps everything that was queued."""
        self._carried.keep_only(
            waiting.command
            for waiting in self.waiting
            if waiting.kind is Kind.CONTEXT and isinstance(waiting.command, TextIn | ImageIn)
        )

    # Wording

    def _send(self, item: _Waiting) -> None:
        kind = item.kind
        match item.command:
            case TextIn(text=text, role="assistant", respond=respond):
                self._say("model", [wire.text_part(text)], kind, respond=respond)
            case TextIn(text=text, role=role, respond=respond):
                shown = text if role == "user" else _NOTE + text
                self._say("user", [wire.text_part(shown)], kind, respond=respond)
            case ImageIn(mime_type=mime_type, data=data, respond=respond):
                self._say("user", [wire.image_part(mime_type, data)], kind, respond=respond)
            case Respond(instructions=text):
                self._say("user", [wire.text_part(text)] if text else [], kind, respond=True)
            case Say(text=text):
                self._say("user", [wire.text_part(SAY_EXACTLY + text)], kind, respond=True)
            case Update():
                self._queue([item.message])
            case _:
                assert_never(item.command)
        self._handle.outdate()

    def _say(self, role: wire.ContentRole, parts: list[wire.SentPart], kind: Kind, *, respond: bool) -> None:
        if respond and self._turn.open:
            self._say_in_turn(parts)
        elif respond:
            self._ask(role, parts)
            if kind is Kind.TURN:
                self._cut_in()
            self._assistant.ask(certain=True)
        elif self._family.content or (self.awaits_history and "text" in parts[0]):
            self._queue_context([wire.content([wire.said(role, *parts)], complete=False)])
        else:
            self._queue([wire.realtime(part) for part in parts])

    def _say_in_turn(self, parts: list[wire.SentPart]) -> None:
        """Make it part of the user's open turn, which ends now if nothing else is in it."""
        messages = [wire.realtime(part) for part in parts or [wire.text_part(_NUDGE)]]
        if self._turn.messages:
            self._queue(messages)
        else:
            self._queue([*messages, wire.ACTIVITY_END])
            self._turn.close()
            self._assistant.ask(certain=True)

    def _ask(self, role: wire.ContentRole, parts: list[wire.SentPart]) -> None:
        if self._family.content:
            turns = [wire.said(role, *parts)] if parts else []
            if self._family.placeholder and (role != "user" or not parts):
                turns.append(wire.said("user", wire.text_part(_PLACEHOLDER)))
            self._queue([wire.content(turns, complete=True) if turns else wire.ASK])
            return
        if role != "user":
            self._queue_context([wire.content([wire.said(role, *parts)], complete=False)])
            parts = []
        if not parts or "text" not in parts[-1]:
            parts = [*parts, wire.text_part(_NUDGE)]
        messages = [wire.realtime(part) for part in parts]
        self._queue(messages if self._rules.auto else [wire.ACTIVITY_START, *messages, wire.ACTIVITY_END])
