"""The Gemini dialect against a provider that races, repeats and reorders as far as it may."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from speko_anyio.protocol import (
    Audio,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    LocalProtocolError,
    Ready,
    RemoteProtocolError,
    ResponseEnd,
    State,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._provider import SAY_EXACTLY
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.google._assistant import MUTE_TIMEOUT, STALLED_TIMEOUT
from speko_anyio.providers.google._gate import MAX_PROMPTS
from speko_anyio.providers.google._response import Phase

from .google_model import Habits, Provider
from .google_talk import (
    INTERRUPTED,
    MODEL,
    WEATHER,
    Json,
    Talk,
    check_server,
    fixture,
    frames,
    is_audio,
    usage,
)


def turn_of(pcm: bytes) -> int:
    """Which turn of the model's this audio names."""
    return int(struct.unpack("<h", pcm[:2])[0])


class GoogleMachine(RuleBasedStateMachine):
    @initialize(
        auto=st.booleans(),
        interrupts=st.booleans(),
        stops=st.booleans(),
        bundles=st.booleans(),
        reports=st.booleans(),
        beside=st.booleans(),
        gates=st.booleans(),
        ready=st.sampled_from([True, True, True, False]),
    )
    def start(
        self,
        auto: bool,
        interrupts: bool,
        stops: bool,
        bundles: bool,
        reports: bool,
        beside: bool,
        gates: bool,
        ready: bool,
    ) -> None:
        stops = stops and auto
        self.gates = gates
        self.provider = Provider(Habits(auto, interrupts, stops, bundles, reports, beside))
        options = GoogleOptions(
            turns="auto" if auto else "manual",
            interrupts=interrupts,
            stop_generating=stops,
            gate_input=gates,
        )
        config = SessionConfig(provider="google", model=MODEL, tools=(WEATHER,))
        self.talk = Talk(config, options=options, ready=False)
        self.dialect = self.talk.dialect
        self.to_server: list[Json] = []
        self.frames: list[Frame] = []
        self.heard_turn = 0
        """The last turn of which audio came."""
        self.silenced = 0
        """No audio of this turn, or of earlier ones, may come any more."""
        self.delivered_turn = 0
        """The last turn of which anything was delivered to the dialect."""
        self.next_is_lost = False
        """What was interrupted had not begun."""
        self.lost: set[int] = set()
        """Turns of which something may have been dropped."""
        self.audio: Counter[int] = Counter()
        self.delivered_audio: Counter[int] = Counter()
        self.told_calls: list[str] = []
        self.results: set[str] = set()
        self.cancelled: set[str] = set()
        self.partial = {"user": "", "assistant": ""}
        self.finals: dict[str, list[str]] = {"user": [], "assistant": []}
        self.delivered_words = ""
        self.usages = 0
        self.responses = 0
        self.ends = 0
        self.completed_turn = 0
        """The last turn whose end was delivered."""
        self.empty_turns = 0
        """Turns that ended with nothing in them."""
        self.ambiguous: set[int] = set()
        """Turns with words that nobody can attribute: late ones that look new, new ones that look late."""
        self.given_up = 0
        """Answers that were interrupted before they had begun."""
        self.written: list[str] = []
        """The context and the texts of the user, in order."""
        self.said: list[str] = []
        """What the assistant is to say, as far as no interruption may have dropped it."""
        self.updates = 0
        if ready:
            self.everywhere()

    # Delivery

    def take(self) -> None:
        messages = self.talk.sent()
        if self.gates and self.dialect.open_calls:
            # Whatever changes the open calls is preceded by taking what was said before.
            assert not any({"realtimeInput", "clientContent"} & message.keys() for message in messages)
        self.to_server += messages

    def collect(self) -> None:
        for frame in frames(self.dialect):
            self.frames.append(frame)
            match frame:
                case Audio(pcm=pcm):
                    turn = turn_of(pcm)
                    assert turn > self.silenced, "audio of a response that was interrupted"
                    self.audio[turn] += 1
                    self.heard_turn = turn
                case Interruption():
                    self.silenced = max(self.silenced, self.heard_turn)
                case ToolCall(call_id=call_id):
                    self.told_calls.append(call_id)
                case Transcript(role=role, text=text, final=final):
                    assert text.startswith(self.partial[role])
                    assert text.strip()
                    self.partial[role] = "" if final else text
                    if final:
                        self.finals[role].append(text)
                case Usage():
                    self.usages += 1
                case ResponseEnd():
                    self.ends += 1
                case Ready():
                    assert len(self.frames) == 1, "ready is first, and comes once"
                case ErrorFrame(code="provider_no_response"):
                    pass
                case _:
                    raise AssertionError(frame)

    def deliver(self, message: Json) -> None:
        check_server({name: value for name, value in message.items() if name != "interactionStatus"})
        self.take()
        spoken = message.get("serverContent", {})
        if "setupComplete" in message:
            self.provider.ready = True
        for part in spoken.get("modelTurn", {}).get("parts", ()):
            turn = turn_of(base64.b64decode(part["inlineData"]["data"]))
            self.reached(turn)
            self.delivered_audio[turn] += 1
        if "outputTranscription" in spoken:
            turn = int(spoken["outputTranscription"]["text"])
            progress = self.dialect._assistant.progress
            if not progress.begun and (turn <= self.completed_turn) is progress.prompted:
                self.ambiguous.add(turn)
            self.reached(turn)
        for made in message.get("toolCall", {}).get("functionCalls", ()):
            self.reached(self.provider.turn_of[made["id"]])
        if spoken.get("interrupted"):
            self.lost.add(self.delivered_turn)
        if "turnComplete" in spoken:
            self.empty_turns += self.completed_turn == self.delivered_turn
            self.completed_turn = self.delivered_turn
        self.responses += ("turnComplete" in spoken) + ("toolCall" in message)
        self.delivered_words += spoken.get("inputTranscription", {}).get("text", "")
        self.cancelled.update(message.get("toolCallCancellation", {}).get("ids", ()))
        self.dialect.receive_message(json.dumps(message).encode())

    def reached(self, turn: int) -> None:
        if turn > self.delivered_turn and self.next_is_lost:
            self.next_is_lost = False
            self.lost.add(turn)
        self.delivered_turn = max(turn, self.delivered_turn)

    @property
    def phase(self) -> Phase:
        return self.dialect._assistant.progress.phase

    @rule(count=st.integers(1, 4))
    def to_the_client(self, count: int) -> None:
        for message in self.provider.said[:count]:
            self.deliver(message)
            self.collect()
        del self.provider.said[:count]

    @rule(count=st.integers(1, 4))
    def to_the_client_at_once(self, count: int) -> None:
        """The caller looks only after several messages: an interruption takes back what waited."""
        first = self.delivered_turn
        for message in self.provider.said[:count]:
            self.deliver(message)
        del self.provider.said[:count]
        self.lost.update(range(first, self.delivered_turn + 1))
        self.collect()

    @rule(count=st.integers(1, 4))
    def to_the_server(self, count: int) -> None:
        self.take()
        for message in self.to_server[:count]:
            self.provider.receive(message)
        del self.to_server[:count]

    @rule()
    def everywhere(self) -> None:
        """Everybody has heard everything."""
        self.to_the_server(1_000)
        self.to_the_client(1_000)

    # The user

    @rule(size=st.sampled_from([2, 480, 5_000]))
    def send_audio(self, size: int) -> None:
        self.dialect.send_audio(bytes(size))

    @rule()
    def commit(self) -> None:
        was = self.phase
        self.dialect.commit()
        if was is not self.phase:
            self.next_is_lost = False

    @rule()
    def clear(self) -> None:
        self.dialect.clear()

    @rule()
    def interrupt(self) -> None:
        self.take()
        awaited = self.dialect._assistant.progress.awaited
        if self.phase is Phase.ACTIVE:
            self.lost.add(self.delivered_turn)
            self.silenced = max(self.silenced, self.delivered_turn)
        # Late words that look like a new answer may have been interrupted instead of one.
        doubtful = self.phase is Phase.ACTIVE and not self.dialect._assistant.progress.confirmed
        self.dialect.interrupt()
        self.said.clear()  # whatever waited is dropped
        self.next_is_lost = self.next_is_lost or awaited or doubtful
        self.given_up += awaited
        self.collect()

    @precondition(lambda self: set(self.told_calls) - self.results)
    @rule(data=st.data())
    def send_tool_result(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(set(self.told_calls) - self.results)))
        self.take()
        self.dialect.send_tool_result(call_id, "{}")
        self.results.add(call_id)
        said = self.talk.sent()
        answers = ["toolResponse" in message for message in said]
        assert sum(answers) == (call_id not in self.cancelled), "a cancelled call is not answered, others are"
        assert not any(answers[1:]), "the result goes before what waited for it"
        self.to_server += said

    @rule()
    def ask(self) -> None:
        """A whole turn, whose answer begins."""
        self.send_audio(480)
        self.commit()
        self.everywhere()
        self.begin()
        self.speak()
        self.speak()
        self.to_the_client(1)

    # What is written

    def next_text(self) -> str:
        self.written.append(f"w{len(self.written)}")
        return self.written[-1]

    @rule(role=st.sampled_from(["user", "assistant"]))
    def send_context(self, role: Any) -> None:
        self.dialect.send_text(self.next_text(), role=role, respond=False)

    @rule()
    def send_text(self) -> None:
        self.take()
        progress = self.dialect._assistant.progress
        cuts = self.provider.habits.interrupts and not self.dialect._must_hold and not self.dialect._turn.open
        awaited, active = progress.awaited, self.phase is Phase.ACTIVE
        if cuts and active:
            self.lost.add(self.delivered_turn)
            self.silenced = max(self.silenced, self.delivered_turn)
        doubtful = active and not progress.confirmed
        was = self.phase
        self.given_up += self.dialect._must_hold  # when it is sent, it may interrupt what was asked before
        self.dialect.send_text(self.next_text())
        if cuts:
            self.given_up += awaited
            if self.phase is Phase.MUTED:
                self.next_is_lost = self.next_is_lost or awaited or doubtful
            elif was is not Phase.IDLE:
                self.next_is_lost = False
        elif was is not self.phase:
            self.next_is_lost = False
        self.collect()

    @rule(bare=st.booleans())
    def ask_to_speak(self, bare: bool) -> None:
        was = self.phase
        try:
            if bare:
                self.dialect.respond()
            else:
                self.said.append(f"s{len(self.said)}")
                self.dialect.say(self.said[-1])
        except LocalProtocolError:  # enough waits already
            if not bare:
                self.said.pop()
        if was is not self.phase:
            self.next_is_lost = False

    @rule()
    def update(self) -> None:
        self.dialect.update(Update(system_prompt="Be kind."))
        self.updates += 1

    @rule()
    def cut_in_and_ask(self) -> None:
        self.interrupt()
        self.send_audio(480)
        self.commit()

    # The model

    @rule()
    def begin(self) -> None:
        if self.provider.ready and (self.provider.habits.auto or self.provider.owed):
            self.provider.begin()

    @rule()
    def speak(self) -> None:
        self.provider.speak()

    @rule()
    def word(self) -> None:
        self.provider.word()

    @rule()
    def late_word(self) -> None:
        self.provider.late_word()

    @rule(count=st.integers(1, 3))
    def call_tools(self, count: int) -> None:
        self.provider.call_tools(count)

    @rule()
    def generated(self) -> None:
        self.provider.generated()

    @rule()
    def complete(self) -> None:
        self.provider.complete()

    @rule()
    def the_user_cuts_in(self) -> None:
        if self.provider.habits.auto and self.provider.habits.interrupts:
            self.provider.cut()

    @rule()
    def interrupted_for_nothing(self) -> None:
        if self.provider.ready and self.provider.answer is None and not self.provider.said:
            self.provider.say(INTERRUPTED)

    @rule()
    def cancel(self) -> None:
        self.provider.cancel()

    @rule()
    def hear(self) -> None:
        if self.provider.ready:
            self.provider.hear()

    @rule()
    def repeat_usage(self) -> None:
        if self.provider.ready and self.provider.answer is None:
            self.provider.say(usage(1, 1))

    @rule(resumable=st.booleans())
    def handle(self, resumable: bool) -> None:
        if self.provider.ready:
            self.provider.say({"sessionResumptionUpdate": {"newHandle": "h", "resumable": resumable}})

    # What always holds

    @invariant()
    def is_open(self) -> None:
        assert self.dialect.state is State.OPEN
        assert self.dialect.stats.unknown_fields == 0

    @invariant()
    def calls_come_once(self) -> None:
        assert len(self.told_calls) == len(set(self.told_calls))
        assert set(self.dialect.open_calls) <= set(self.told_calls) - self.results - self.cancelled

    @invariant()
    def no_word_of_the_user_is_lost(self) -> None:
        told = " ".join([*self.finals["user"], self.partial["user"]]).split()
        assert told == self.delivered_words.split()

    @invariant()
    def what_was_written_arrives_in_order(self) -> None:
        arrived = [text for text in self.provider.texts if text in self.written]
        assert len(set(arrived)) == len(arrived), "twice"
        assert arrived == sorted(arrived, key=self.written.index)

    @invariant()
    def usage_once_for_a_turn(self) -> None:
        assert self.usages <= self.responses

    @invariant()
    def an_end_once_for_an_answer(self) -> None:
        most = self.delivered_turn + self.empty_turns + self.given_up + len(self.ambiguous)
        assert self.ends <= most

    @invariant()
    def two_answers_are_never_one_text(self) -> None:
        for text in self.finals["assistant"]:
            assert len(set(map(int, text.split())) - self.ambiguous) <= 1

    @invariant()
    def what_was_not_interrupted_is_heard(self) -> None:
        for turn, count in self.delivered_audio.items():
            if turn not in self.lost:
                assert self.audio[turn] == count

    def responding(self) -> bool:
        return self.dialect.responding

    def finish_what_waits(self) -> None:
        """Whatever was written or asked for has arrived once nothing holds it up."""
        for _ in range(2 * MAX_PROMPTS):
            self.take()
            for call_id in self.dialect.open_calls:
                self.dialect.send_tool_result(call_id, "{}")
            if self.dialect._turn.open and self.dialect._turn.messages:
                self.dialect.commit()
            self.everywhere()
            if not self.dialect._gate.waiting:
                break
            if self.provider.owed or self.provider.answer is not None:
                self.provider.begin()
                self.provider.generated()
                self.provider.complete()
                self.everywhere()
            else:
                # What was asked for got lost in a race, and time alone tells.
                now = self.talk.now + STALLED_TIMEOUT + MUTE_TIMEOUT
                self.dialect.handle_timeout(self.talk.now)
                self.dialect.handle_timeout(now)
                self.talk.now = now
                self.collect()
        assert not self.dialect._gate.waiting
        arrived = set(self.provider.texts)
        assert set(self.written) <= arrived
        assert {SAY_EXACTLY + text for text in self.said} <= arrived
        assert self.provider.updates == self.updates

    def teardown(self) -> None:
        if not hasattr(self, "talk"):
            return
        # Once all is said and done, nothing keeps the user or the next turn from being heard.
        for _ in range(3):
            self.everywhere()
        self.finish_what_waits()
        received = self.provider.audio_received
        self.dialect.send_audio(bytes(2))
        self.take()
        for call_id in self.dialect.open_calls:
            self.dialect.send_tool_result(call_id, "{}")
        assert self.dialect.held_audio_dropped == 0
        self.everywhere()
        self.provider.generated()
        self.provider.complete()
        self.everywhere()
        assert self.provider.audio_received > received
        if not self.provider.habits.auto or self.next_is_lost:
            # Only here can it be that an interrupted response never comes, and time alone tells.
            self.dialect.handle_timeout(0.0)
            self.dialect.handle_timeout(MUTE_TIMEOUT)
        self.provider.begin()
        self.provider.speak()
        self.everywhere()
        assert self.audio[self.provider.answers] == 1
        assert self.responding()
        self.provider.generated()
        self.provider.complete()
        self.everywhere()
        # Each answer of which anything was heard has ended, and nothing is under way.
        assert self.ends >= len(set(self.audio) - self.lost)
        assert not self.responding()
        assert self.dialect.idle
        self.provider.late_word()
        self.everywhere()
        assert self.dialect.idle
        self.dialect.receive_close(1011, "Internal error")
        error, *_, close = [frame for frame in frames(self.dialect) if not isinstance(frame, Transcript)]
        assert isinstance(error, ErrorFrame)
        assert isinstance(close, Close)
        assert frames(self.dialect) == []


GoogleMachine.TestCase.settings = settings(stateful_step_count=60)
TestGoogleMachine = GoogleMachine.TestCase


# Anything at all

_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_SERVER = fixture("server")


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return value.keys() | {name for inner in value.values() for name in _names(inner)}
    return {name for inner in value for name in _names(inner)} if isinstance(value, list) else set()


_likely: st.SearchStrategy[Any] = st.recursive(
    _json | st.sampled_from(["AAAB", "audio/pcm", "c1", "IDLE", "5s", "AUDIO"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(sorted(_names(_SERVER))), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def _changed(draw: st.DrawFn) -> Any:
    """A real message, of which something is another thing."""
    message = json.loads(json.dumps(draw(st.sampled_from(_SERVER))))
    place: Any = message
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return message
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            place[key] = draw(_likely)
            return message
        place = place[key]


@given(
    st.lists(_changed() | _likely | st.sampled_from(_SERVER), max_size=8),
    st.booleans(),
    st.binary(max_size=8),
)
def test_whatever_comes_is_taken(messages: list[Any], ready: bool, end: bytes) -> None:
    talk = Talk(ready=ready)
    found: list[Frame] = []
    for message in messages:
        talk.dialect.receive_message(json.dumps(message).encode())
        found += frames(talk.dialect)
        for call_id in talk.dialect.open_calls:
            talk.dialect.send_tool_result(call_id, "")
        talk.dialect.next_deadline()
    talk.dialect.receive_message(end)
    talk.dialect.receive_lost()
    found += frames(talk.dialect)
    assert [isinstance(frame, Close) for frame in found] == [False] * (len(found) - 1) + [True]
    assert isinstance(talk.dialect.error, ConnectionClosed | RemoteProtocolError)
    for frame in found:
        match frame:
            case Audio(pcm=pcm, sample_rate=rate):
                assert len(pcm) % 2 == 0
                assert rate > 1
            case Usage(input_audio_tokens=spent_in, output_audio_tokens=spent_out):
                assert min(spent_in, spent_out) >= 0
            case Expiring(seconds=seconds):
                assert 0 <= seconds < 10**6
            case Unknown(raw=raw):
                assert isinstance(json.loads(raw), dict)
            case _:
                pass


@st.composite
def _odd(draw: st.DrawFn) -> Any:
    """A real message, of which any one field is any JSON; but audio that is not base64 is an error."""
    message = json.loads(json.dumps(draw(st.sampled_from(_SERVER))))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(message)
    place, key = draw(st.sampled_from(places))
    place[key] = draw(_json.filter(lambda value: key != "data" or not isinstance(value, str)))
    return message


@given(st.lists(_odd(), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_one_odd_field_never_costs_the_call(messages: list[Any], binary: bool, ready: bool) -> None:
    talk = Talk(ready=ready)
    for message in messages:
        text = json.dumps(message)  # with NaN, infinity and halves of surrogate pairs
        talk.dialect.receive_message(text.encode() if binary else text)
        for frame in frames(talk.dialect):
            if isinstance(frame, Transcript):
                frame.text.encode()
    assert talk.dialect.state is State.OPEN


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_any_message_is_taken(message: bytes | str) -> None:
    dialect = GoogleDialect(SessionConfig(provider="google", model=MODEL))
    dialect.receive_message(message)
    dialect.receive_lost()
    assert isinstance(frames(dialect)[-1], Close)


@given(st.text(max_size=20))
def test_any_result_is_an_object_or_is_refused(output: str) -> None:
    talk = Talk()
    talk.hear({"toolCall": {"functionCalls": [{"id": "c", "name": "n"}]}})
    try:
        talk.dialect.send_tool_result("c", output)
    except LocalProtocolError:
        assert any(0xD800 <= ord(character) < 0xE000 for character in output)
        return
    [message] = talk.sent()
    assert not is_audio(message)
