"""`PhoneBridge` between a session and a line that do anything in any order, against a model of the line."""

from __future__ import annotations

import array
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    AudioIn,
    Close,
    Interrupt,
    Interruption,
    Played,
    ResponseEnd,
    TextIn,
    ToolCall,
    Usage,
)
from speko_anyio.telephony import CallEnded, CallStarted, Digit, PhoneBridge
from speko_anyio.telephony._barge_in import MAX_MUTE, MUTE_PATIENCE
from speko_anyio.telephony._bridge import GOODBYE_TIMEOUT, MAX_WAITING
from speko_anyio.telephony._line_output import LEAD
from tests.support.phone import CLEAR, RATE, START, STOP, Line, PlainStream

LATE = 0.02
"""Seconds that the bridge may be wrong about what the line has played."""

lengths = st.integers(1, 40).map(lambda number: number / 20) | st.integers(1, 4000).map(lambda n: n / RATE)


CUTS_IN: Final = b"\x11\x11"
"""A sample of the caller's that means an interruption to the detector."""


class Detector:
    """Takes one sample for an interruption."""

    def push(self, pcm: bytes, playing: bytes) -> bool:
        return CUTS_IN in pcm


class PhoneMachine(RuleBasedStateMachine):
    """A call. The line plays exact samples; every piece of audio has samples of its own."""

    bridge_class: type[PhoneBridge] = PhoneBridge

    def __init__(self) -> None:
        super().__init__()
        self.now = 10.0
        self.line = Line()
        self.line.now = self.now
        self.stream = PlainStream()
        self.started = False
        self.stalled = False
        """Whether the carrier's socket takes nothing."""
        self.number = 0
        self.said = b""
        """What the session has said since the last interruption, of any side, that the caller may hear."""
        self.received = 0
        """Samples of the session's audio since its own last interruption."""
        self.passed = 0.0
        """Seconds of them before what the line has got since the last clear."""
        self.answering = False
        self.resumes = False
        """Whether the caller has interrupted, and nothing that may be heard came since."""
        self.muted_until: float | None = None
        self.muted_at_most = 0.0
        self.cuts: list[int] = []
        """Where the caller has interrupted, in milliseconds."""
        self.got = b""
        """What the line got since the last clear."""
        self.heard_before = b""
        self.whole = True
        """Whether speech has paused: nothing may be held back then."""
        self.caller: list[bytes] = []
        self.keys = ""
        self.over_at: float | None = None
        self.events: list[Any] = []
        self.steps = 0

    @initialize(
        digits=st.sampled_from(["event", "text"]),
        answers=st.booleans(),
        ends_after=st.integers(0, 40),
        barge_in=st.booleans(),
    )
    def begin(self, digits: Any, answers: bool, ends_after: int, barge_in: bool) -> None:
        self.barge_in = barge_in
        self.line.answers = answers
        self.ends_after = ends_after
        self.digits = digits
        self.bridge = self.bridge_class(
            self.stream,
            input_sample_rate=RATE,
            output_sample_rate=RATE,
            make_resampler=lambda source, target: pytest.fail("the rates are equal"),
            digits=digits,
            barge_in=Detector() if barge_in else None,
        )

    def talking(self) -> bool:
        return self.over_at is None and not self.bridge.done

    # The session

    @precondition(lambda self: not self.bridge.session_must_wait)
    @rule(duration=lengths)
    def say(self, duration: float) -> None:
        count = round(duration * RATE)
        pcm = array.array("h", [(self.number + n) % 32_000 for n in range(count)]).tobytes()
        self.number += count
        if self.talking():
            if self.muted():
                self.muted_until = min(self.now + MUTE_PATIENCE, self.muted_at_most)
            else:
                if self.resumes:
                    self.resumes = False
                    self.passed = self.received / RATE
                self.said += pcm
                self.whole = False
                self.answering = True
            self.received += count
        self.bridge.send_frame(Audio(pcm, RATE), self.now)
        self.pump()

    @rule(frame=st.sampled_from([ResponseEnd("done"), Usage(), ToolCall("1", "f", "{}")]))
    def pause(self, frame: Any) -> None:
        self.whole = True
        if isinstance(frame, ResponseEnd) and self.talking():
            self.muted_until = None
            self.answering = False
        self.bridge.send_frame(frame, self.now)
        self.pump()

    @precondition(lambda self: self.barge_in)
    @rule()
    def talk_over(self) -> None:
        """The caller begins to talk, which counts only while the line plays the assistant."""
        if self.talking():
            self.caller.append(CUTS_IN)
            if self.bridge._output.line.unplayed(self.now):
                self.passed = self.bridge.played(self.now)
                self.cuts.append(round(1000 * self.passed))
                self.said = b""
                self.whole = self.resumes = True
                self.muted_until = self.now + MUTE_PATIENCE if self.muted() or self.answering else None
                self.muted_at_most = self.now + MAX_MUTE
        self.receive(CUTS_IN)

    @rule()
    def interrupt(self) -> None:
        talking = self.talking()
        self.bridge.send_frame(Interruption("user"), self.now)
        if talking:
            assert self.bridge.played(self.now) == 0
            self.said = b""
            self.received = 0
            self.passed = 0.0
            self.muted_until = None
            self.answering = self.resumes = False
        self.pump()

    @precondition(lambda self: self.may_end())
    @rule()
    def end_session(self) -> None:
        if self.talking():
            self.over_at = self.now
            self.whole = True
        self.bridge.send_frame(Close(1000, "", "remote"), self.now)
        self.pump()

    # The carrier

    @rule()
    def start(self) -> None:
        if not self.started:
            self.started = True
            self.receive(START)

    @rule(size=st.integers(1, 800))
    def hear(self, size: int) -> None:
        pcm = array.array("h", [size] * size).tobytes()
        if self.talking():
            self.caller.append(pcm)
        self.receive(pcm)

    @rule(key=st.sampled_from("0123456789*#"))
    def press(self, key: str) -> None:
        if not self.bridge.done and (self.digits == "event" or self.talking()):
            self.keys += key
        self.receive(f"digit {key}")

    @rule(name=st.integers(-1, 30))
    def answer_any_mark(self, name: int) -> None:
        """A mark of an earlier answer, or of none."""
        if f"mark {name}" not in [f"mark {waiting}" for waiting, _ in self.line.marks]:
            self.receive(f"mark {name}")

    @precondition(lambda self: self.may_end())
    @rule(message=st.sampled_from([STOP, "nonsense"]))
    def stop(self, message: str) -> None:
        self.receive(message)
        assert self.bridge.done

    @precondition(lambda self: self.may_end())
    @rule()
    def lose(self) -> None:
        self.bridge.receive_lost()
        self.pump()
        assert self.bridge.done

    @precondition(lambda self: not self.bridge.done)
    @rule()
    def stall(self) -> None:
        self.stalled = not self.stalled
        self.pump()

    @rule(duration=st.integers(1, 400).map(lambda number: number / 100))
    def wait(self, duration: float) -> None:
        end = self.now + duration
        for _ in range(100_000):
            if self.now >= end:
                break
            moments = (self.line.next_mark(), self.bridge.next_deadline(), end)
            self.now = max(self.now, min(moment for moment in moments if moment is not None))
            for answer in self.line.advance(self.now):
                self.bridge.receive_message(answer, self.now)
            deadline = self.bridge.next_deadline()
            if deadline is not None and deadline <= self.now:
                self.bridge.handle_timeout(self.now)
                again = self.bridge.next_deadline()
                assert again is None or again > self.now or self.stalled, "it would be called without end"
            self.pump()
        else:
            raise AssertionError("its deadlines come without end")

    def muted(self) -> bool:
        """Whether the session's audio belongs to an answer that the caller has interrupted."""
        if self.muted_until is not None and self.now >= self.muted_until:
            self.muted_until = None
            self.answering = False
        return self.muted_until is not None

    def receive(self, message: str | bytes) -> None:
        self.bridge.receive_message(message, self.now)
        self.pump()

    def pump(self) -> None:
        while not self.stalled and (message := self.bridge.next_message(self.now)) is not None:
            assert self.started
            if message == CLEAR:
                self.got = b""
            elif isinstance(message, bytes):
                self.got += message
            for answer in self.line.take(message):
                self.bridge.receive_message(answer, self.now)
        while (event := self.bridge.next_event()) is not NEED_DATA:
            self.events.append(event)

    @property
    def clearing(self) -> bool:
        """Whether a clear waits for a socket that takes nothing."""
        return self.bridge.must_clear

    def may_end(self) -> bool:
        """Whether either side may end now: at random, most calls would end before they begin."""
        return self.steps >= self.ends_after

    # What holds at any time

    @invariant()
    def count(self) -> None:
        self.steps += 1

    @invariant()
    def the_line_gets_what_the_session_says(self) -> None:
        # A clear that waits when the call ends is never sent.
        over_amid_clear = self.bridge.done and self.stalled
        assert self.clearing or over_amid_clear or self.said.startswith(self.got)
        if self.started and self.whole and not self.stalled and not self.bridge.done:
            assert self.line.buffered >= LEAD - 0.05 or self.got == self.said

    @invariant()
    def what_was_played_is_known(self) -> None:
        played = self.bridge.played(self.now) - (0.0 if self.bridge.done else self.passed)
        assert played <= len(self.got) / 2 / RATE + 1e-6
        if self.line.answers and not self.bridge.done and not self.clearing:
            assert abs(played - self.line.played) <= LATE

    @invariant()
    def nothing_waits_without_bounds(self) -> None:
        assert self.line.buffered <= LEAD + 2
        assert self.bridge._output.size <= MAX_WAITING + 64 + 2 * 2 * RATE

    @invariant()
    def the_caller_is_heard(self) -> None:
        heard = b"".join(event.pcm for event in self.events if isinstance(event, AudioIn))
        assert heard == b"".join(self.caller)

    @invariant()
    def the_session_learns_of_each_interruption_and_where_it_was(self) -> None:
        told = [
            before.ms
            for before, event in pairwise(self.events)
            if isinstance(event, Interrupt) and isinstance(before, Played)
        ]
        assert told == self.cuts
        assert sum(isinstance(event, Interrupt) for event in self.events) == len(told)

    @invariant()
    def keys_arrive_in_order(self) -> None:
        if self.digits == "event":
            assert "".join(event.digit for event in self.events if isinstance(event, Digit)) == self.keys
            assert not any(isinstance(event, TextIn) for event in self.events)
        else:
            texts = [event.text for event in self.events if isinstance(event, TextIn)]
            assert self.keys.replace("#", "").startswith("".join(texts).replace("#", ""))
            assert all(texts)

    @invariant()
    def each_side_ends_the_other_once(self) -> None:
        ends = [event for event in self.events if isinstance(event, CallEnded)]
        assert len(ends) == (self.bridge.ended is not None)
        assert self.events[-len(ends) :] == ends or not ends
        assert (self.bridge.goodbye is not None) == (self.bridge.ended is not None and self.over_at is None)
        if self.over_at is not None and not self.bridge.done:
            assert self.now <= self.over_at + GOODBYE_TIMEOUT + 0.01
        if self.bridge.done:
            assert self.bridge.next_message(self.now) is None
            assert self.bridge.next_deadline() is None
        starts = [event for event in self.events if isinstance(event, CallStarted)]
        assert len(starts) <= 1


TestPhoneMachine = PhoneMachine.TestCase
TestPhoneMachine.settings = settings(max_examples=100, stateful_step_count=40)
