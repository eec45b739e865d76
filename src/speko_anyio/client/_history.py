"""The conversation so far, which each session keeps and a later one can continue.

`History` keeps it as the frames and the user's commands come; audio costs it nothing. The items are a public
form: they go into another session as ``history=``, also with another provider, and into a file as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from ..audio._pcm import SAMPLE_BYTES
from ..protocol._commands import TextRole
from ..protocol.frames import Frame, Interruption, ResponseEnd, ToolCall, Transcript

MAX_ITEMS: Final = 1000
"""The most items of a `RealtimeSession.history`: more than an hour of talk has. The oldest are forgotten."""

MAX_CHARACTERS: Final = 256 * 1024
"""The most characters in their texts: about five hours of speech. A single longer text is kept as it is."""

_TOLERANCE: Final = 0.05
"""Seconds by which a report may exceed the audio that was received: rounding."""

_MAX_ANSWERS: Final = 4
"""Answers that may wait to be heard at a time: an interruption cuts off all of them."""


ItemRole: TypeAlias = Literal["user", "assistant", "system", "tool"]
"""Whose words an item of a history is."""


class HistoryItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody said or wrote in a conversation, or a call of one of the application's tools."""

    role: ItemRole
    """Whose words they are: ``system`` for context that nobody said, ``tool`` for a call."""
    text: str = ""
    """All of the words. Of an interrupted answer only those that were heard, estimated from the times at
    which its audio came, and from `RealtimeSession.report_played`. Of a call, its result."""
    interrupted: bool = False
    """Whether the user interrupted this answer, so that some of it was not heard."""
    unheard: str = ""
    """The rest of an interrupted answer; another session does not get it."""
    name: str = ""
    """The name of the tool."""
    arguments: str = ""
    """Of a call: JSON text, as the model wrote it."""
    call_id: str = ""
    """The `ToolCall.call_id`."""
    pending: bool = False
    """Whether a call has no result yet."""

    @staticmethod
    def to_json(items: Iterable[HistoryItem]) -> str:
        """Return a history as JSON text, such as for a file: a list with a line for each item.

        TypeError if the items are not a history.
        """
        lines = ",\n  ".join(msgspec.json.encode(item).decode() for item in check_history(tuple(items)))
        return f"[\n  {lines}\n]\n" if lines else "[]\n"

    @staticmethod
    def from_json(text: str | bytes) -> tuple[HistoryItem, ...]:
        """Return the history that `to_json` wrote; ValueError if the text is something else.

        Unknown fields are ignored, but no item may be without words.
        """
        try:
            items = msgspec.json.decode(text, type=tuple[HistoryItem, ...])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ValueError(
                f"this is not the JSON of a history ({error}); pass what HistoryItem.to_json wrote"
            ) from None
        for number, item in enumerate(items):
            # Lists of messages in other forms, such as with `content`, would be lost without a word.
            if not (item.text or item.interrupted or item.role == "tool"):
                raise ValueError(
                    f"an item of the history has no words at `$[{number}]`; put them into its `text`"
                )
        return items


def check_history(items: object) -> tuple[HistoryItem, ...]:
    """Return the items as a tuple; TypeError if they are not a history."""
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise TypeError(f"history must be a list of items, such as session.history, not {_kind(items)}")
    for item in items:
        if not isinstance(item, HistoryItem):
            raise TypeError(
                f'history must be a list of items such as HistoryItem("user", "Hello"), not of {_kind(item)}'
            )
    try:
        # A Struct does not check the types of what is passed to it.
        return msgspec.convert(msgspec.to_builtins(items), type=tuple[HistoryItem, ...])
    except msgspec.ValidationError as error:
        raise TypeError(f"an item of the history is not valid ({error}); correct it") from None


def _kind(value: object) -> str:
    return type(value).__name__


def as_texts(items: Iterable[HistoryItem]) -> list[tuple[TextRole, str]]:
    """Return the texts that a session gets for these items: a role and a text each, oldest first.

    A tool call becomes a system text with its result, since no provider takes the call of another one. Items
    with nothing to tell are left out.
    """
    texts: list[tuple[TextRole, str]] = []
    for item in items:
        if item.role == "tool":
            result = "It has not returned yet." if item.pending else f"It returned: {item.text}"
            arguments = item.arguments.strip() or "{}"
            texts.append(("system", f"The tool {item.name} was called with {arguments}. {result}"))
        elif item.text.strip():
            texts.append((item.role, item.text))
    return texts


class Received(Protocol):
    """The part of the session's `Pump` that `History` reads."""

    audio_bytes_received: int
    on_first_audio: Callable[[], None] | None


class _Entry:
    """An item that may still change."""

    __slots__ = ("dropped", "heard", "item")

    def __init__(self, item: HistoryItem) -> None:
        self.item = item
        self.heard: int | None = None
        """Characters of an interrupted text that were heard; None for all."""
        self.dropped = False
        """Whether it is forgotten."""

    def frozen(self) -> HistoryItem:
        if self.heard is None:
            return self.item
        text = self.item.text
        heard, unheard = text[: self.heard].rstrip(), text[self.heard :].strip()
        return HistoryItem(self.item.role, heard, interrupted=True, unheard=unheard)


class _Answer:
    """An answer of the assistant that may not be heard to its end yet."""

    __slots__ = ("entries", "mark", "size", "started")

    def __init__(self, mark: int) -> None:
        self.mark = mark
        """Bytes of audio that were received before it."""
        self.size: int | None = None
        """Bytes of its audio, once all of it was received."""
        self.started: float | None = None
        """When its audio began to be heard, or will; None without audio."""
        self.entries: list[_Entry] = []


class History:
    """The conversation of one session, bounded by `MAX_ITEMS` and `MAX_CHARACTERS`.

    `receive` takes every frame but audio. Of audio it learns only when an answer begins, by the `pump`'s
    `on_first_audio`. `clock` returns seconds, and `sample_rate` the samples a second of the assistant's
    audio, which a player is assumed to play as it arrives.
    """

    __slots__ = (
        "_answers",
        "_base",
        "_between",
        "_clock",
        "_entries",
        "_first",
        "_late",
        "_mark",
        "_partial",
        "_pump",
        "_sample_rate",
        "_size",
    )

    def __init__(self, pump: Received, clock: Callable[[], float], sample_rate: Callable[[], int]) -> None:
        self._pump = pump
        self._clock = clock
        self._sample_rate = sample_rate
        # A list: an empty deque takes 760 bytes, and the oldest items are rarely dropped.
        self._entries: list[_Entry] = []
        self._size = 0
        self._partial: dict[str, _Entry] = {}
        """The text of each role that the next transcript of that role replaces."""
        self._answers: list[_Answer] = []
        """The answers that may not be heard to their end yet, oldest first."""
        self._first: _Entry | None = None
        """The first item of the last answer, which may have taken several responses."""
        self._between = True
        """Whether the next output of the assistant begins an answer."""
        self._mark = 0
        """Bytes of audio that were received up to the end of the last answer."""
        self._base = 0
        """Bytes of audio that were received up to the last interruption."""
        self._late: float | None = None
        """The heard fraction of an interrupted answer whose text has yet to arrive."""
        pump.on_first_audio = self.audio_began

    @property
    def items(self) -> tuple[HistoryItem, ...]:
        """The conversation so far, oldest first."""
        return tuple(entry.frozen() for entry in self._entries)

    # The user and the application

    def extend(self, items: Iterable[HistoryItem]) -> None:
        """Add the items of an earlier session."""
        for item in items:
            self._add(_Entry(item))

    def write(self, role: TextRole, text: str) -> None:
        """Add a text that the application sent."""
        self._add(_Entry(HistoryItem(role, text)))

    def answer(self, call_id: str, output: str) -> None:
        """Add the result of a tool call."""
        for entry in reversed(self._entries):
            if entry.item.pending and entry.item.call_id == call_id:
                self._replace(entry, msgspec.structs.replace(entry.item, text=output, pending=False))
                return

    # Frames

    def receive(self, frame: Frame) -> None:
        """Take a frame that is not `Audio`."""
        match frame:
            case Transcript(role="user"):
                self._user_said(frame)
            case Transcript():
                self._assistant_said(frame)
            case ToolCall(call_id=call_id, name=name, arguments=arguments):
                call = HistoryItem("tool", name=name, arguments=arguments, call_id=call_id, pending=True)
                self._produced(_Entry(call))
            case Interruption():
                self._interrupted()
            case ResponseEnd():
                self._end_answer()
            case _:
                pass

    def audio_began(self) -> None:
        """Note that audio of an answer came: the first, unless one is under way."""
        answer = self._begin_answer()
        if answer.started is None:
            earlier = [self._end(other) for other in self._answers if other is not answer]
            answer.started = max([self._clock(), *earlier])

    def _user_said(self, said: Transcript) -> None:
        entry = self._partial.get("user")
        if entry is None and said.text:
            entry = _Entry(HistoryItem("user"))
            self._add(entry, before=self._unasked())
        self._say(entry, said)

    def _assistant_said(self, said: Transcript) -> None:
        entry = self._partial.get("assistant")
        if (
            entry is not None
            and self._between
            and not said.text.startswith(entry.item.text)
            and not _tells_heard(entry, said)
            and (not said.final or entry.heard is not None)
        ):
            entry = None  # another answer has begun, and nothing completed this text
        if entry is None and said.text:
            entry = _Entry(HistoryItem("assistant"))
            if self._between and said.final and self._late is not None:
                entry.heard = _words(said.text, round(self._late * len(said.text)))
                self._late = None
                self._add(entry)
            else:
                self._produced(entry)
        self._say(entry, said)

    def _say(self, entry: _Entry | None, said: Transcript) -> None:
        if entry is None:
            return
        if _tells_heard(entry, said):
            entry.heard = len(said.text)  # the service knows better than the clock
            self._partial.pop(said.role, None)
            return
        self._replace(entry, HistoryItem(said.role, said.text or entry.item.text))
        if said.final:
            self._partial.pop(said.role, None)
        else:
            self._partial[said.role] = entry

    def _unasked(self) -> _Entry | None:
        """Return the beginning of the answer that is being heard, if its question is missing.

        Some models answer before the question is transcribed. Anything else that the user says would have
        interrupted the answer.
        """
        answer = self._answers[-1] if self._answers else None
        first = self._first
        if answer is None or not answer.entries or first is None or first.dropped:
            return None
        if self._between and self._clock() >= self._end(answer):
            return None
        place = self._entries.index(first)
        asked = place > 0 and self._entries[place - 1].item.role == "user"
        return None if asked else first

    # Answers

    def _produced(self, entry: _Entry) -> None:
        """Add an item of the answer under way, or of one that begins with it."""
        answer = self._begin_answer()
        # After a tool's result an answer goes on, although it is another response.
        goes_on = bool(self._entries) and self._entries[-1].item.role == "tool"
        if not (answer.entries or goes_on) or self._first is None:
            self._first = entry
        answer.entries.append(entry)
        self._add(entry)

    def _begin_answer(self) -> _Answer:
        if self._between or not self._answers:
            self._between = False
            self._late = None
            now = self._clock()
            unheard = [answer for answer in self._answers if self._end(answer) > now]
            self._answers = [*unheard[1 - _MAX_ANSWERS :], _Answer(self._mark)]
        return self._answers[-1]

    def _end_answer(self) -> None:
        received = self._pump.audio_bytes_received
        if not self._between and self._answers:
            self._answers[-1].size = received - self._answers[-1].mark
        self._between = True
        self._mark = received
        if self._pump.on_first_audio is None:
            self._pump.on_first_audio = self.audio_began

    def played(self, seconds: float) -> None:
        """Take a report that so many seconds of the audio since the last interruption were played by now."""
        rate = SAMPLE_BYTES * self._sample_rate()
        place = self._base + seconds * rate
        if place > self._pump.audio_bytes_received + rate * _TOLERANCE:
            return  # from before that interruption
        now = self._clock()
        for answer in self._answers:
            if answer.started is not None:
                answer.started = now + (answer.mark - place) / rate

    def _interrupted(self) -> None:
        now = self._clock()
        self._end_answer()
        self._base = self._mark
        self._late = None
        for answer in self._answers:
            if answer.started is None:
                continue  # written, not spoken: there was nothing to cut off
            length = self._end(answer) - answer.started
            part = 1.0 if length <= 0 else min(1.0, max(0.0, (now - answer.started) / length))
            if part < 1:
                self._cut(answer, part)
        self._answers = []

    def _cut(self, answer: _Answer, part: float) -> None:
        texts = [entry for entry in answer.entries if entry.item.role == "assistant"]
        if not texts:
            self._late = part
        left = round(part * sum(len(entry.item.text) for entry in texts))
        for entry in texts:
            text = entry.item.text
            if left < len(text):
                entry.heard = _words(text, left)
            left = max(0, left - len(text))

    def _end(self, answer: _Answer) -> float:
        """Return when all that was received of the answer is heard."""
        if answer.started is None:
            return self._clock()
        size = self._pump.audio_bytes_received - answer.mark if answer.size is None else answer.size
        return answer.started + size / (SAMPLE_BYTES * self._sample_rate())

    # Entries

    def _add(self, entry: _Entry, *, before: _Entry | None = None) -> None:
        if before is None:
            self._entries.append(entry)
        else:
            self._entries.insert(self._entries.index(before), entry)
        self._size += _size(entry.item)
        self._forget()

    def _replace(self, entry: _Entry, item: HistoryItem) -> None:
        if not entry.dropped:
            self._size += _size(item) - _size(entry.item)
        entry.item = item
        self._forget()

    def _forget(self) -> None:
        """Forget the oldest items beyond the bounds; never the newest."""
        entries = self._entries
        over = len(entries) - MAX_ITEMS
        count = 0
        while count < len(entries) - 1 and (count < over or self._size > MAX_CHARACTERS):
            entries[count].dropped = True
            self._size -= _size(entries[count].item)
            count += 1
        if not count:
            return
        del entries[:count]
        for answer in self._answers:
            # The oldest come first here, too. An answer may be without end.
            while answer.entries and answer.entries[0].dropped:
                del answer.entries[0]


def _tells_heard(entry: _Entry, said: Transcript) -> bool:
    """Return whether this is the final transcript of an interrupted answer, without what was not heard."""
    if not said.final or entry.heard is None:
        return False
    # One that is complete tells only what was said.
    return said.text != entry.item.text and entry.item.text.startswith(said.text)


def _size(item: HistoryItem) -> int:
    return len(item.text) + len(item.unheard) + len(item.name) + len(item.arguments) + len(item.call_id)


def _words(text: str, length: int) -> int:
    """Return the length of the whole words within the first `length` characters of `text`."""
    if length >= len(text) or text[length].isspace():
        return length
    return max(text.rfind(" ", 0, length), 0)
