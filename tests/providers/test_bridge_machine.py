"""The bridge between a client and each kind of provider, driven by Hypothesis."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from speko_anyio.providers.google import GoogleOptions
from speko_anyio.providers.google._assistant import MUTE_TIMEOUT, STALLED_TIMEOUT
from speko_anyio.providers.openai import OpenAIOptions
from speko_anyio.providers.xai import XAIOptions

from . import bridge_talk, google_model, realtime_model
from .bridge_machine import LIMITS, BridgeMachine
from .bridge_talk import CREATED, Json
from .google_talk import INTERRUPTED, speech
from .realtime_talk import audio, error

RATES = st.sampled_from([16_000, 24_000])
READY = st.sampled_from([True, True, True, False])


class RealtimeBridgeMachine(BridgeMachine):
    """OpenAI and xAI."""

    model: realtime_model.Provider

    @initialize(
        is_xai=st.booleans(),
        manual=st.booleans(),
        echoes=st.booleans(),
        rates=st.tuples(RATES, RATES),
        ready=READY,
    )
    def open(self, is_xai: bool, manual: bool, echoes: bool, rates: tuple[int, int], ready: bool) -> None:
        turns: Any = "manual" if manual else "auto"
        self.habits = realtime_model.Habits(xai=is_xai, auto=not manual, echoes=echoes)
        self.said_rate = 24_000
        self.configured = False
        if is_xai:
            # It takes any rate, and the model of it knows one.
            rates = 24_000, 24_000
        parameters: Any = {
            "bridge_class": self.bridge_class,
            "client": self.make_server(rates),
            "limits": LIMITS,
            "ready": False,
            "check": None,
        }
        if is_xai:
            self.begin(
                bridge_talk.xai(XAIOptions(turns=turns, resumption=True), **parameters), rates, ready=ready
            )
        else:
            self.begin(
                bridge_talk.openai(OpenAIOptions(turns=turns), rates=rates, **parameters), rates, ready=ready
            )

    def new_model(self) -> realtime_model.Provider:
        model = realtime_model.Provider(self.habits)
        if self.talk_has_begun:
            model.answers = self.model.answers
        self.configured = False
        self.ended_before = set(self.ended)
        model.said.append(CREATED)
        if self.habits.xai:
            model.said.append({"type": "conversation.created", "conversation": {"id": "conv"}})
        return model

    def enter(self, message: Json) -> None:
        name = message.get("response_id") or message.get("response", {}).get("id")
        if name is None:
            return
        number = int(name[1:])
        if message["type"] == "response.output_audio.delta" and number not in self.ended:
            self.spoken[number] += len(base64.b64decode(message["delta"])) // 2
        if message["type"] == "response.done":
            self.ended.add(number)
        self.entered.add(number)

    def pcm_in(self, message: Json) -> bytes:
        return base64.b64decode(message.get("audio", ""))

    def results_in(self, message: Json) -> list[tuple[str, Json]]:
        if message.get("item", {}).get("type") != "function_call_output":
            return []
        result = json.loads(message["item"]["output"])
        # What the bridge itself answers is an error.
        return [] if "error" in result else [(message["item"]["call_id"], result)]

    def receive(self, message: Json) -> None:
        answers = self.model.answers
        super().receive(message)
        self.configured = self.configured or message["type"] == "session.update"
        if self.model.speaking:
            # Speech overtook the request for this answer, so the bridge may cancel the answer.
            self.unsure |= set(range(answers + 1, self.model.answers + 1))

    def finish_answer(self) -> None:
        if self.model.speaking:
            self.model.speech_stops()
        if self.model.active is not None:
            self.model.end("completed")

    def begin_answer(self) -> None:
        if self.configured and self.model.active is None:
            self.model.begin()
        if self.model.active is not None:
            self.model.speak(60)

    @precondition(lambda self: self.model.active is not None)
    @rule(ms=st.sampled_from([20, 100]))
    def speaks(self, ms: int) -> None:
        self.model.speak(ms)

    @precondition(lambda self: self.model.active is not None)
    @rule()
    def calls_a_tool(self) -> None:
        self.model.call()

    @precondition(lambda self: self.model.active is not None)
    @rule(status=st.sampled_from(["completed", "incomplete", "failed", "cancelled"]))
    def ends(self, status: str) -> None:
        self.model.end(status)

    @precondition(lambda self: self.configured and self.habits.auto and not self.model.speaking)
    @rule()
    def user_starts(self) -> None:
        self.model.speech_starts()

    @precondition(lambda self: self.configured and self.habits.auto and self.model.speaking)
    @rule()
    def user_stops(self) -> None:
        self.model.speech_stops()

    @precondition(lambda self: self.ended - self.ended_before and self.configured)
    @rule(data=st.data())
    def is_late(self, data: st.DataObject) -> None:
        # Of this connection: what another one had under way is not sent on this, and what xAI replays of the
        # conversation, which are items, comes before the configuration is accepted.
        number = data.draw(st.sampled_from(sorted(self.ended - self.ended_before)))
        delta = base64.b64encode(struct.pack("<h", number) * 480).decode()
        self.model.said.append(audio(f"r{number}", f"a{number}", delta))

    @precondition(lambda self: self.model.ended)
    @rule(data=st.data())
    def repeats_itself(self, data: st.DataObject) -> None:
        self.model.said.append(data.draw(st.sampled_from(self.model.ended)))

    @precondition(lambda self: self.configured)
    @rule(code=st.sampled_from([None, "server_error", "odd", "session_expired", "insufficient_quota"]))
    def fails(self, code: str | None) -> None:
        if code is not None:
            self.model.said.append(error(code, "something broke"))


class GoogleBridgeMachine(BridgeMachine):
    """Gemini Live."""

    speech_overtakes = True

    model: google_model.Provider

    @initialize(
        auto=st.booleans(),
        interrupts=st.booleans(),
        bundles=st.booleans(),
        reports=st.booleans(),
        rates=st.tuples(RATES, RATES),
        ready=READY,
    )
    def open(
        self, auto: bool, interrupts: bool, bundles: bool, reports: bool, rates: tuple[int, int], ready: bool
    ) -> None:
        self.habits = google_model.Habits(auto, interrupts, bundles=bundles, reports=reports)
        self.said_rate = 24_000  # what the configuration says nothing else about
        self.handles = 0
        self.has_output = False
        self.silent = 0.0
        options = GoogleOptions(turns="auto" if auto else "manual", interrupts=interrupts, gate_input=False)
        talk = bridge_talk.google(
            options,
            rates=rates,
            bridge_class=self.bridge_class,
            client=self.make_server(rates),
            limits=LIMITS,
            ready=False,
            check=None,
        )
        self.begin(talk, rates, ready=ready)

    def new_model(self) -> google_model.Provider:
        model = google_model.Provider(self.habits)
        if self.talk_has_begun:
            model.answers = self.model.answers
        return model

    def enter(self, message: Json) -> None:
        spoken = message.get("serverContent", {})
        if "setupComplete" in message:
            self.model.ready = True
        for part in spoken.get("modelTurn", {}).get("parts", ()):
            pcm = base64.b64decode(part["inlineData"]["data"])
            [number] = struct.unpack("<h", pcm[:2])
            self.entered.add(number)
            self.spoken[number] += len(pcm) // 2
        if "outputTranscription" in spoken:
            self.entered.add(int(spoken["outputTranscription"]["text"]))
        for made in message.get("toolCall", {}).get("functionCalls", ()):
            self.entered.add(self.model.turn_of[made["id"]])
        if spoken.get("interrupted"):
            self.doubt()
        self.has_output = self.has_output or bool(
            spoken.keys() & {"modelTurn", "outputTranscription"} or "toolCall" in message
        )
        if "turnComplete" in spoken:
            # The end of an empty answer is taken for that of one that was asked for meanwhile.
            self.more_ends += not self.has_output
            self.has_output = False

    def time_passed(self, seconds: float) -> None:
        self.silent += seconds
        # One that stalled counts as over, and what still comes of it as another.
        self.more_ends += seconds >= STALLED_TIMEOUT and self.model.answer is not None
        if self.silent >= MUTE_TIMEOUT:
            # By then an interrupted response counts as over, and output belongs to the next one.
            self.silent = 0.0
            self.stale.clear()
            for cut in self.interruptions:
                cut.clear()

    def pcm_in(self, message: Json) -> bytes:
        return base64.b64decode(message.get("realtimeInput", {}).get("audio", {}).get("data", ""))

    def results_in(self, message: Json) -> list[tuple[str, Json]]:
        answers = message.get("toolResponse", {}).get("functionResponses", ())
        results = [(answer["id"], answer["response"]) for answer in answers]
        return [(name, result) for name, result in results if "error" not in result]

    def finish_answer(self) -> None:
        self.model.generated()
        self.model.complete()

    def answer_owed(self) -> None:
        if self.model.owed:
            self.begin_answer()

    def begin_answer(self) -> None:
        self.begins()
        self.speaks()

    @precondition(lambda self: self.model.ready)
    @rule()
    def begins(self) -> None:
        if self.model.ready and (self.habits.auto or self.model.owed):
            self.model.begin()

    @rule()
    def speaks(self) -> None:
        answer = self.model.answer
        if answer is not None and not answer.generated:
            self.model.say(speech(struct.pack("<h", answer.number) * 480))

    @rule()
    def writes(self) -> None:
        self.model.word()

    @rule(count=st.integers(1, 3))
    def calls_tools(self, count: int) -> None:
        self.model.call_tools(count)

    @rule()
    def ends(self) -> None:
        self.finish_answer()

    @rule()
    def user_cuts_in(self) -> None:
        if self.habits.auto and self.habits.interrupts:
            self.model.cut()

    @precondition(lambda self: self.model.ready)
    @rule()
    def interrupted_for_nothing(self) -> None:
        if self.model.answer is None and not self.model.said:
            self.model.say(INTERRUPTED)

    @rule()
    def cancels(self) -> None:
        self.model.cancel()

    @precondition(lambda self: self.model.ready)
    @rule()
    def hears(self) -> None:
        self.model.hear()

    @precondition(lambda self: self.model.ready)
    @rule(resumable=st.booleans())
    def gives_a_handle(self, resumable: bool) -> None:
        self.handles += 1
        update = {"newHandle": f"h{self.handles}", "resumable": resumable}
        self.model.say({"sessionResumptionUpdate": update})

    @precondition(lambda self: self.model.ready and self.provider is not None and self.talks())
    @rule()
    def breaks_and_goes_on(self) -> None:
        self.gives_a_handle(resumable=True)
        self.everywhere()
        self.closes(1011)
        if self.bridge.wanted is not None:
            self.connect()
            self.everywhere()

    @precondition(lambda self: self.model.ready)
    @rule(seconds=st.sampled_from([1, 10, 50]))
    def goes_away(self, seconds: int) -> None:
        self.model.say({"goAway": {"timeLeft": f"{seconds}s"}})


RealtimeBridgeMachine.TestCase.settings = settings(stateful_step_count=60)
GoogleBridgeMachine.TestCase.settings = settings(stateful_step_count=60)
TestRealtimeBridge = RealtimeBridgeMachine.TestCase
TestGoogleBridge = GoogleBridgeMachine.TestCase
