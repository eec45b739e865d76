"""Gemini Live in memory: what it does by its documentation, races and bad habits included.

It acts on a message when that is delivered to it, and what it says waits until that is delivered: everything
between the two is a race, and whoever drives the model decides how each one ends. It asserts what the service
would close the session for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .google_talk import (
    COMPLETE,
    GENERATED,
    INTERRUPTED,
    Json,
    call,
    content,
    heard,
    is_audio,
    said,
    speech,
    usage,
)


@dataclass(frozen=True)
class Habits:
    """What this provider does that another does not."""

    auto: bool
    interrupts: bool = True
    stops: bool = False
    """Takes the request to stop."""
    bundles: bool = False
    """Says several things in one message where it can."""
    reports: bool = False
    """Says whether it is idle."""
    beside: bool = False
    """Sends the status beside the content instead of inside."""


@dataclass
class Answer:
    """A turn of the model."""

    number: int
    words: str = ""
    generated: bool = False
    calls: list[str] = field(default_factory=list)


class Provider:
    """The model of a session, as the module describes. `said` is what waits for delivery to the client."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.said: list[Json] = []
        self.configured = False
        self.ready = False
        """Whether the client was told."""
        self.answer: Answer | None = None
        self.answers = 0
        self.trailing = 0
        """The turn that is over, of which late words may still come; 0 once something has prompted a new
        answer."""
        self.window = False
        self.window_messages = 0
        self.owed = False
        self.pending: set[str] = set()
        """Calls without a result."""
        self.cancelled: set[str] = set()
        self.calls = 0
        self.turn_of: dict[str, int] = {}
        """Which turn made a call."""
        self.user_words = ""
        self.fragments = 0
        self.audio_received = 0
        self.texts: list[str] = []
        """What was written, in order."""
        self.updates = 0

    # What the client says

    def receive(self, message: Json) -> None:
        if "setup" in message:
            assert not self.configured, "a second setup"
            self.configured = True
            self.say({"setupComplete": {}})
            return
        assert self.ready, "something before the setup was accepted may be lost"
        if "toolResponse" in message:
            for response in message["toolResponse"]["functionResponses"]:
                # Unknown ids end the session, those of calls that were just cancelled are a race.
                assert response["id"] in self.pending | self.cancelled
                self.pending.discard(response["id"])
        elif "contextUpdate" in message:
            self.updates += 1
        elif "clientContent" in message:
            written = message["clientContent"]
            turns = written.get("turns", [])
            self.texts += [part["text"] for turn in turns for part in turn["parts"] if "text" in part]
            assert turns or written["turnComplete"] or self.habits.stops
            self.trailing = 0
            self.owed = self.owed or written["turnComplete"]
            self.cut()
        elif message["realtimeInput"].keys() & {"text", "video"}:
            assert self.window, "in auto mode it is written as content"
            self.texts += [message["realtimeInput"]["text"]] if "text" in message["realtimeInput"] else []
            self.window_messages += 1
        elif is_audio(message):
            assert self.habits.auto or self.window, "audio outside of a turn is not heard"
            self.audio_received += 1
            self.window_messages += 1
        elif "activityStart" in message["realtimeInput"]:
            assert not self.habits.auto
            assert not self.window, "a turn in a turn"
            self.window, self.window_messages, self.owed = True, 0, False
            if self.habits.interrupts:
                self.cut()
        elif "activityEnd" in message["realtimeInput"]:
            assert self.window
            assert self.window_messages, "an empty turn"
            self.window, self.owed = False, True
            self.trailing = 0
        else:
            assert message == {"realtimeInput": {"audioStreamEnd": True}}
            assert self.habits.auto
            self.trailing = 0

    # What it does

    def say(self, message: Json) -> None:
        last = self.said[-1] if self.said else {}
        both = last.keys() & message.keys()
        if (
            self.habits.bundles
            and last
            and both <= {"serverContent"}
            and not ({"toolCall", "setupComplete"} & (last.keys() | message.keys()))
            and not (both and last["serverContent"].keys() & message["serverContent"].keys())
            and not (both and "turnComplete" in last["serverContent"])
            and not (both and {"interrupted"} & message["serverContent"].keys())
        ):
            merged = {**last, **message}
            if both:
                merged["serverContent"] = {**last["serverContent"], **message["serverContent"]}
            self.said[-1] = merged
        else:
            self.said.append(message)

    def begin(self) -> None:
        if self.answer is None:
            self.answers += 1
            self.answer = Answer(self.answers)
            self.owed = False
            self.trailing = 0

    def speak(self) -> None:
        """More audio, which names the turn."""
        if self.answer is not None and not self.answer.generated:
            self.say(speech(struct.pack("<h", self.answer.number) * 2))

    def word(self) -> None:
        if self.answer is not None and not self.answer.generated:
            fragment = f" {self.answer.number}"
            self.answer.words += fragment
            self.say(said(fragment))

    def call_tools(self, count: int) -> None:
        if self.answer is not None and not self.answer.generated:
            ids = [f"c{self.calls + number}" for number in range(count)]
            self.calls += count
            self.pending.update(ids)
            self.answer.calls += ids
            self.turn_of.update(dict.fromkeys(ids, self.answer.number))
            self.say(call(*[(call_id, {}) for call_id in ids]))

    def generated(self) -> None:
        if self.answer is not None and not self.answer.generated:
            self.answer.generated = True
            self.say(GENERATED)

    def complete(self) -> None:
        if self.answer is not None and self.answer.generated:
            self._over(billed=True)

    def _over(self, *, billed: bool) -> None:
        assert self.answer is not None
        over = COMPLETE
        if self.habits.reports and self.habits.beside:
            over = {**COMPLETE, "interactionStatus": "IDLE"}
        elif self.habits.reports:
            over = content(turnComplete=True, interactionStatus="IDLE")
        if billed:
            self.trailing = self.answer.number
        self.say({**over, **usage(self.answer.number, 1)} if billed else over)
        self.answer = None

    def late_word(self) -> None:
        """More words of the turn that is over."""
        if self.answer is None and self.trailing:
            self.say(said(f" {self.trailing}"))

    def cut(self) -> None:
        """The user speaks."""
        self.trailing = 0
        if self.answer is not None:
            self.say(INTERRUPTED)
            self.cancel()
            self._over(billed=False)

    def cancel(self) -> None:
        """The calls of this turn are not wanted any more."""
        if self.answer is not None and (ids := [name for name in self.answer.calls if name in self.pending]):
            self.pending.difference_update(ids)
            self.cancelled.update(ids)
            self.say({"toolCallCancellation": {"ids": ids}})

    def hear(self) -> None:
        """The user's words are written down: when, is anybody's guess."""
        self.fragments += 1
        fragment = f" u{self.fragments}"
        self.trailing = 0
        self.user_words += fragment
        self.say(heard(fragment))
