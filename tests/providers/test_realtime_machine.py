"""The dialects against a provider that races, repeats itself and leaves things out, driven by Hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from speko_anyio.protocol import (
    Audio,
    Close,
    Interruption,
    ResponseEnd,
    State,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol._commands import Update
from speko_anyio.providers._provider import SAY_EXACTLY
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.xai import XAIOptions

from .realtime_model import Habits, Provider
from .realtime_talk import Event, Talk, openai, pcm, xai

RESPONSE_TIMEOUT = 5.0


class RealtimeMachine(RuleBasedStateMachine):
    """What the client may know is told apart from what the provider did: it is judged by the first."""

    talk: Talk[Any]
    provider: Provider

    def __init__(self) -> None:
        super().__init__()
        self.to_provider: list[Event] = []
        self.now = 0.0
        self.under_way = 0.0
        # What the client has seen
        self.running: str | None = None
        self.cut = False
        self.over: set[str] = set()
        self.asked: str | None = None
        self.asked_to_say = False
        self.echo_seen = False
        self.heard_ms: dict[str, float] = {}
        self.seen: set[int] = set()
        # What the caller got
        self.stale: set[int] = set()
        self.finals: set[str] = set()
        self.calls: list[str] = []
        self.answered: set[str] = set()
        self.usages = 0
        self.ends = 0
        self.closed = False
        # What the caller wants
        self.texts: list[str] = []
        """Texts that were not sent yet."""
        self.prompts: list[str] = []
        """What is to be said, in order, that was not sent yet."""
        self.said: list[str] = []
        """What was asked for; refused, it may be asked for again."""
        self.prompted = 0
        self.owed = False
        """Whether a text of the user is to be answered."""

    @initialize(
        is_xai=st.booleans(),
        manual=st.booleans(),
        echoes=st.booleans(),
        clock=st.booleans(),
        early=st.lists(st.sampled_from([20, 200, "commit", "end_turn", "clear", "interrupt"]), max_size=4),
    )
    def open(self, is_xai: bool, manual: bool, echoes: bool, clock: bool, early: list[int | str]) -> None:
        turns: Any = "manual" if manual else "auto"
        self.talk = xai(XAIOptions(turns=turns)) if is_xai else openai(OpenAIOptions(turns=turns), ttl=None)
        self.provider = Provider(Habits(xai=is_xai, auto=not manual, echoes=echoes))
        self.has_clock = clock
        self.talk.hear({"type": "session.created"})
        for verb in early:
            if isinstance(verb, int):
                self.talk.dialect.send_audio(pcm(verb))
            else:
                getattr(self.talk.dialect, verb)()
        self.flush()
        self.reach_the_provider(1)
        self.reach_the_client(1)

    # The network

    def flush(self) -> None:
        """Take what the dialect has to say and to tell, and judge it."""
        for message in self.talk.sent():
            self.judge(message)
            self.to_provider.append(message)
        for frame in self.talk.frames():
            self.take(frame)

    def judge(self, message: Event) -> None:
        match message["type"]:
            case "response.create":
                self.judge_request(message)
                instructions = message.get("response", {}).get("instructions")
                if instructions is not None:
                    self.judge_prompt(instructions.removeprefix(SAY_EXACTLY))
            case "conversation.item.create" if message["item"]["type"] == "force_message":
                self.judge_request(message)
                self.judge_prompt(message["item"]["content"][0]["text"])
            case "conversation.item.create" if message["item"]["type"] == "message":
                assert message["item"]["content"][0]["text"] == self.texts.pop(0), "texts out of order"
            case "response.cancel":
                assert self.running is not None, "cancelled nothing"
                # Without an Interruption if it was unwanted before it began.
                self.cut = True
                self.cut_at = self.now
            case "conversation.item.truncate":
                assert 0 < message["audio_end_ms"] <= self.heard_ms[message["item_id"]]
            case "conversation.item.create":
                call_id = message["item"]["call_id"]
                assert call_id in self.calls
                assert call_id not in self.answered, "answered twice"
                self.answered.add(call_id)

    def judge_request(self, message: Event) -> None:
        assert self.running is None, f"asked for a response while {self.running} runs"
        assert self.asked is None, "asked twice"
        self.asked = message.get("event_id", "a request")
        self.asked_to_say = "item" in message
        self.asked_at = self.now

    def judge_prompt(self, text: str) -> None:
        if text not in self.said:
            assert text == self.prompts.pop(0), "said out of order"
            self.said.append(text)
        else:
            assert self.said[-1] == text, "said again, and not because it was refused"

    def take(self, frame: object) -> None:
        assert not self.closed, "something follows Close"
        match frame:
            case Audio(pcm=samples):
                assert int.from_bytes(samples[:2], "little") not in self.stale, "audio of a cut response"
            case Interruption():
                self.stale |= self.seen
                self.cut = True
                self.cut_at = self.now
            case Transcript(text=text, final=True):
                item = text.split(" ")[0]
                assert item not in self.finals, "final twice"
                self.finals.add(item)
            case ToolCall(call_id=call_id):
                assert call_id not in self.calls, "called twice"
                self.calls.append(call_id)
            case Usage(input_audio_tokens=tokens):
                self.usages += tokens
                assert self.usages <= self.provider.answers
            case ResponseEnd():
                self.ends += 1
                assert self.ends <= len(self.seen), "an answer ended twice"
            case Close():
                self.closed = True
            case Unknown():
                raise AssertionError(frame)

    def deliver(self, event: Event) -> None:
        """One event reaches the client: first what it may know by it, then what it does."""
        name = event.get("response_id") or event.get("response", {}).get("id")
        if event["type"] == "error" and "active response in" in event["error"]["message"]:
            active = event["error"]["message"].rpartition(" ")[2].rstrip(".")
            if self.asked is not None and event["error"].get("event_id") in (None, self.asked):
                self.asked = None
                if self.running is None and active not in self.over:
                    self.begins(active, None)
        elif name is not None and name not in self.over:
            if name != self.running:
                if self.running is not None:
                    self.over.add(self.running)
                self.begins(name, event.get("response", {}).get("metadata"))
            if event["type"] == "response.done":
                self.over.add(name)
                self.running = None
            elif event["type"] == "response.output_audio.delta":
                size = len(event["delta"]) // 4 * 3 / 48
                self.heard_ms[event["item_id"]] = self.heard_ms.get(event["item_id"], 0) + size
        if event["type"] == "input_audio_buffer.speech_started":
            self.owed = False  # the user has more to say, and the provider answers all of it
        if name is not None:
            self.seen.add(int(name[1:]))
        if self.has_clock:
            self.talk.dialect.playback.clock(self.now)
        self.talk.dialect.receive_message(json.dumps(event))
        self.flush()

    def begins(self, name: str, metadata: Any) -> None:
        self.running = name
        self.cut = False
        own = metadata is not None and (
            self.provider.habits.xai or metadata.get("client_event_id") == self.asked
        )
        self.echo_seen = self.echo_seen or (own and self.asked is not None)
        # xAI says something by itself without telling why.
        if own or self.asked_to_say or not self.provider.habits.auto or not self.echo_seen:
            self.asked = None

    @rule(count=st.integers(1, 6))
    def reach_the_client(self, count: int) -> None:
        for _ in range(min(count, len(self.provider.said))):
            self.deliver(self.provider.said.pop(0))

    @rule(count=st.integers(1, 6))
    def reach_the_provider(self, count: int) -> None:
        for _ in range(min(count, len(self.to_provider))):
            self.provider.receive(self.to_provider.pop(0))

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.1, 5.1]))
    def wait(self, seconds: float) -> None:
        # Nothing is under way for as long as the dialect waits for a response: who gives up has reason to.
        self.under_way += seconds
        while self.under_way > 4 and (self.to_provider or self.provider.said):
            self.reach_the_provider(10_000)
            self.reach_the_client(10_000)
        if not self.to_provider and not self.provider.said:
            self.under_way = 0.0
        self.talk.dialect.handle_timeout(self.now)
        self.flush()
        self.now += seconds
        if self.asked is not None and self.now - self.asked_at >= RESPONSE_TIMEOUT:
            self.asked = None
        if self.running is not None and self.cut and self.now - self.cut_at >= RESPONSE_TIMEOUT:
            self.over.add(self.running)
            self.running = None
        if seconds > RESPONSE_TIMEOUT and self.provider.habits.xai and self.running not in self.seen_names():
            self.running = None  # one of which nothing but its being in the way was ever seen
        self.talk.dialect.handle_timeout(self.now)
        self.flush()

    def seen_names(self) -> set[str | None]:
        return {f"r{number}" for number in self.seen}

    # The caller

    @rule(ms=st.sampled_from([20, 60, 100, 500]))
    def send_audio(self, ms: int) -> None:
        self.talk.dialect.send_audio(pcm(ms))
        self.flush()

    @rule(verb=st.sampled_from(["commit", "end_turn", "clear", "interrupt"]))
    def say(self, verb: str) -> None:
        if self.has_clock:
            self.talk.dialect.playback.clock(self.now)
        getattr(self.talk.dialect, verb)()
        if verb == "interrupt":
            self.prompts.clear()
            self.owed = False
        self.flush()

    @precondition(lambda self: set(self.calls) - self.answered)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(set(self.calls) - self.answered)))
        self.talk.dialect.send_tool_result(call_id, "{}")
        self.flush()

    @rule(role=st.sampled_from(["user", "assistant", "system"]), respond=st.sampled_from([None, False, True]))
    def write(self, role: Any, respond: bool | None) -> None:
        answered = role == "user" if respond is None else respond
        self.texts.append(f"{'question' if answered else 'context'} {self.provider.step}")
        if self.has_clock:
            self.talk.dialect.playback.clock(self.now)
        self.talk.dialect.send_text(self.texts[-1], role=role, respond=respond)
        self.owed = self.owed or answered
        self.flush()
        assert self.texts == [], "a text waits"

    @precondition(lambda self: len(self.prompts) < 10)
    @rule(verb=st.sampled_from(["say", "respond"]))
    def prompt(self, verb: str) -> None:
        self.prompted += 1
        self.prompts.append(f"prompt {self.prompted}")
        getattr(self.talk.dialect, verb)(self.prompts[-1])
        self.flush()

    @rule()
    def nudge(self) -> None:
        self.talk.dialect.respond()
        self.flush()

    @rule(turns=st.sampled_from(["auto", "manual"]))
    def update(self, turns: Any) -> None:
        self.talk.dialect.update(Update(turns=turns))
        self.flush()
        # Otherwise the two sides go by different rules for a while, in which an answer may be lost.
        self.reach_the_provider(10_000)
        self.reach_the_client(10_000)

    # The provider

    @precondition(lambda self: self.provider.active is not None)
    @rule(ms=st.sampled_from([20, 400]))
    def provider_speaks(self, ms: int) -> None:
        self.provider.speak(ms)

    @precondition(lambda self: self.provider.active is not None)
    @rule()
    def provider_calls(self) -> None:
        self.provider.call()

    @precondition(lambda self: self.provider.active is not None)
    @rule(status=st.sampled_from(["completed", "incomplete", "failed", "cancelled"]))
    def provider_ends(self, status: str) -> None:
        self.provider.end(status)

    @precondition(lambda self: self.provider.habits.auto and not self.provider.speaking)
    @rule()
    def user_starts(self) -> None:
        self.provider.speech_starts()

    @precondition(lambda self: self.provider.habits.auto and self.provider.speaking)
    @rule()
    def user_stops(self) -> None:
        self.provider.speech_stops()

    @precondition(lambda self: self.provider.ended)
    @rule(data=st.data())
    def provider_repeats_itself(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.provider.ended))
        if event["response"]["id"] in self.seen_names() | {"r0"} or not self.provider.habits.xai:
            self.provider.said.append(event)

    @precondition(lambda self: self.provider.answers > 0)
    @rule(data=st.data())
    def provider_is_late(self, data: st.DataObject) -> None:
        """A piece of a response whose end was said already."""
        ended = sorted(self.over)
        if ended:
            name = data.draw(st.sampled_from(ended))
            number = int(name[1:])
            late = {
                "type": "response.output_audio.delta",
                "response_id": name,
                "item_id": f"a{number}",
                "delta": "AAAA",
            }
            self.provider.said.append(late)

    # Rest

    def teardown(self) -> None:
        """Everybody comes to an end: then every result of a tool was followed by a response."""
        if not hasattr(self, "talk"):
            return
        for call_id in list(self.calls):
            if call_id not in self.answered:
                self.talk.dialect.send_tool_result(call_id, "{}")
                self.flush()
        for _ in range(8 + 2 * len(self.prompts)):
            self.reach_the_provider(10_000)
            if self.provider.speaking:
                self.provider.speech_stops()
            if self.provider.active is not None:
                self.provider.end("completed")
            self.reach_the_client(10_000)
            for call_id in set(self.calls) - self.answered:
                self.talk.dialect.send_tool_result(call_id, "{}")
                self.flush()
            if not self.to_provider:
                self.wait(5.1)
        assert self.talk.dialect.state is State.OPEN
        assert self.to_provider == []
        if self.provider.last_result:
            assert self.provider.last_answer > self.provider.last_result, "nobody told what the tools said"
        if self.owed:
            assert self.provider.last_answer > self.provider.last_question, "nobody answers the text"
        assert self.prompts == [], "not everything was said"
        assert self.talk.dialect.open_calls == ()
        assert not self.talk.dialect.responding
        assert self.ends == len(self.seen), "an answer has no end"


TestRealtimeMachine = RealtimeMachine.TestCase
