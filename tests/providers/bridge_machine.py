"""A bridge between a real session and a provider that races, repeats itself and dies: driven by Hypothesis.

The client is the library's own, over the library's own server: what those do not allow, a bridge must not do.
Everything on its way waits until a rule delivers it. Samples tell where they come from: those of the user are
the number of the piece that was sent, those of a response its number.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from speko_anyio.protocol import (
    NEED_DATA,
    Audio,
    Capabilities,
    ClientProtocol,
    Close,
    CloseMessage,
    ErrorFrame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerProtocol,
    ServerToolCall,
    SpekoError,
    State,
    ToolCall,
    Transcript,
    Unknown,
    Update,
    Usage,
)
from speko_anyio.protocol._outbox import Message
from speko_anyio.protocol._session import ServerFrame
from speko_anyio.providers import codes
from speko_anyio.providers._provider import ProviderDialect
from speko_anyio.providers.bridge import Bridge, BridgeLimits
from speko_anyio.providers.bridge._bridge import SETTLED_AFTER

from .bridge_talk import BridgeTalk, Json

LIMITS = BridgeLimits(held_seconds=0.5, to_client=4_000, max_open_calls=4)
EVERYTHING = Capabilities(
    text=True,
    image=True,
    respond=True,
    say="instructed",
    update=("system_prompt", "tools", "voice", "turns"),
)
"""What the client is offered, so that the bridge has to refuse what the provider does not take."""
LOST = {"PROVIDER_RESPONSE_LOST", "PROVIDER_CONVERSATION_LOST"}
BATCH = 100_000
"""More than the frames that one message of the provider's comes to."""


def values(pcm: bytes) -> Counter[int]:
    """How often each sample comes."""
    samples = array("H", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return Counter(samples)


def waiting(server: ServerProtocol) -> list[Message]:
    """What waits for the client, oldest first."""
    return server.outbox.messages


def kind(message: Message) -> str:
    """The ``t`` of a text message, or the name of its type."""
    return json.loads(message)["t"] if isinstance(message, str) else type(message).__name__


def texts_in(message: Json) -> list[int]:
    """The numbers of the user's texts in a message to the provider."""
    return [int(number) for number in re.findall(r"text-(\d+)", json.dumps(message))]


class WatchedServer(ServerProtocol):
    """What it is told that it does not allow is raised, though the bridge takes the error."""

    bridge: Bridge | None = None

    def send(self, frame: ServerFrame) -> None:
        with self.watched():
            super().send(frame)

    def send_audio(self, pcm: Any) -> None:
        with self.watched():
            super().send_audio(pcm)

    @contextmanager
    def watched(self) -> Iterator[None]:
        assert self.state is State.OPEN, "the client is told something after the end"
        assert self.bridge is None or self.bridge.goodbye is None, "something follows the goodbye"
        try:
            yield
        except SpekoError as error:
            raise AssertionError("the session does not allow it") from error


class BridgeMachine(RuleBasedStateMachine):
    """A client, the bridge and a provider. The subclasses have what belongs to one provider's protocol."""

    bridge_class: ClassVar[type[Bridge]] = Bridge
    speech_overtakes: ClassVar[bool] = False
    """Whether a text may have to wait for the end of an answer, while speech goes on."""

    talk: BridgeTalk[Any]
    model: Any

    def __init__(self) -> None:
        super().__init__()
        self.talk_has_begun = False
        self.to_provider: list[Json] = []
        # What the user said
        self.piece = 0
        self.said: dict[int, int] = {}
        self.said_rate = 0
        """Of the user's audio as the provider takes it."""
        self.heard_by_provider: Counter[int] = Counter()
        self.last_piece = 0
        self.unsure_before = 0
        """Pieces up to this one may have been lost, cleared or dropped."""
        # What the user wrote
        self.texts: dict[int, tuple[int, float]] = {}
        """Each text's number, with the pieces of audio that were sent before it, and when it was sent."""
        self.prompts: set[int] = set()
        """The texts that ask for an answer without being a turn of the user: they may have to wait for it."""
        self.texts_taken: set[int] = set()
        self.last_text = 0
        """That this connection's provider took."""
        self.texts_unsure_before = 0
        self.prompts_unsure: set[int] = set()
        self.requests = 0
        """That asked for an answer."""
        self.refused: Counter[str] = Counter()
        self.loss_untold = False
        self.prompt = 0
        """The number of the latest."""
        self.prompt_taken = 0
        """That this connection's provider took."""
        # What the provider said
        self.entered: set[int] = set()
        """Responses of which the bridge knows."""
        self.spoken: Counter[int] = Counter()
        self.ended: set[int] = set()
        """Responses of which nothing more may come."""
        self.unsure: set[int] = set()
        """Responses of which something need not be heard."""
        self.interruptions: list[set[int]] = []
        """The responses that each was the end of."""
        # What the client hears
        self.stale: set[int] = set()
        self.interruptions_heard = 0
        self.heard: Counter[int] = Counter()
        self.interrupts = 0
        self.ends_heard = 0
        self.more_ends = 0
        """Ends beside those of the answers that entered: of one that stalled, or of an empty one."""
        self.speaks_of: int | None = None
        """The answer that the client is getting, until its end."""
        self.calls: list[str] = []
        self.answered: set[str] = set()
        self.owners: dict[str, tuple[int, str | None]] = {}
        """Which connection's call, and which of its calls, each of the client's is."""
        self.connections = 0
        self.closed: Close | None = None
        self.left = False

    def begin(self, talk: BridgeTalk[Any], rates: tuple[int, int], *, ready: bool) -> None:
        self.talk = talk
        self.rates = rates
        self.model = self.new_model()
        self.talk_has_begun = True
        self.client = ClientProtocol(input_sample_rate=rates[0], output_sample_rate=rates[1])
        self.server.bridge = talk.bridge
        self.to_the_client(1)
        self.from_the_client()
        if ready:
            self.connect()
            self.everywhere()

    def make_server(self, rates: tuple[int, int]) -> ServerProtocol:
        self.server = WatchedServer(
            input_sample_rate=rates[0],
            output_sample_rate=rates[1],
            extensions=["usage"],
            capabilities=EVERYTHING,
        )
        self.server.send_ready()
        return self.server

    # Of one protocol

    def new_model(self) -> Any:
        """The provider's end of a new connection."""
        raise NotImplementedError

    def enter(self, message: Json) -> None:
        """Note the responses that a message of the provider's is of, and the audio in it."""
        raise NotImplementedError

    def pcm_in(self, message: Json) -> bytes:
        """The user's audio in a message to the provider."""
        raise NotImplementedError

    def receive(self, message: Json) -> None:
        """A message reaches the provider."""
        for name, result in self.results_in(message):
            assert self.owners[result["for"]] == (self.connections, name), "the answer to another call"
        self.model.receive(message)

    def results_in(self, message: Json) -> list[tuple[str, Json]]:
        """The results of the client's tools in a message to the provider, by its own names of the calls."""
        raise NotImplementedError

    def time_passed(self, seconds: float) -> None:
        """Time passes without a message from the provider."""

    def begin_answer(self) -> None:
        """The provider says something, if it may."""
        raise NotImplementedError

    def answer_owed(self) -> None:
        """The provider says something, if it was asked to."""

    def finish_answer(self) -> None:
        """The provider ends what it is doing."""
        raise NotImplementedError

    # The provider's side

    @property
    def bridge(self) -> Bridge:
        return self.talk.bridge

    @property
    def provider(self) -> ProviderDialect | None:
        return self.bridge.provider

    def flush(self) -> None:
        """What the bridge made of the last thing that happened."""
        interruptions = sum(kind(message) == "interruption" for message in waiting(self.server))
        while len(self.interruptions) < self.interruptions_heard + interruptions:
            self.interruptions.append(set(self.entered))
            self.doubt()
        for call_id, name in self.bridge._calls._names.items():
            self.owners.setdefault(call_id, (self.connections, name))
        if self.provider is not None:
            for message in self.talk.sent():
                self.to_provider.append(message)

    def doubt(self) -> None:
        self.unsure |= self.entered | {self.model.answers, self.model.answers + 1}

    def disconnected(self) -> None:
        for message in self.to_provider:
            for number in texts_in(message):
                _, at = self.texts[number]
                # What was sent before that may have arrived, for all that anybody knows.
                self.loss_untold |= self.talk.now - at < SETTLED_AFTER
        self.texts_unsure_before = max(self.texts, default=0)
        self.to_provider.clear()
        self.model.said.clear()
        self.unsure_before = self.piece
        self.doubt()
        self.flush()

    @precondition(lambda self: self.bridge.wanted is not None)
    @rule()
    def connect(self) -> None:
        self.connections += 1
        self.last_text = self.prompt_taken = 0
        self.model = self.new_model()
        self.talk.connect()
        self.flush()

    @precondition(lambda self: self.bridge.wanted is not None)
    @rule(reason=st.sampled_from(["refused", "lost"]))
    def connecting_fails(self, reason: str) -> None:
        self.talk.connect(state=State.CONNECTING)
        with self.bridge.at(self.talk.now):
            self.talk.provider.receive_lost(reason)
        self.disconnected()

    @precondition(lambda self: self.provider is not None)
    @rule(count=st.integers(1, 8))
    def to_the_bridge(self, count: int) -> None:
        for _ in range(count):
            if self.provider is None or not self.model.said or self.bridge.provider_must_wait:
                return
            message = self.model.said.pop(0)
            self.enter(message)
            self.talk.tell(message)
            self.flush()

    @precondition(lambda self: self.provider is not None)
    @rule(count=st.integers(1, 8))
    def to_the_provider(self, count: int) -> None:
        for message in self.to_provider[:count]:
            found = values(self.pcm_in(message))
            del found[0]
            for piece in sorted(found):
                assert piece >= self.last_piece, "the user's audio out of order"
                self.last_piece = piece
            self.heard_by_provider += found
            for number in texts_in(message):
                if number not in self.prompts:
                    assert number > self.last_text, "the user's texts out of order"
                    said_before, _ = self.texts[number]
                    repeated = number in self.texts_taken  # on the next connection
                    overtaken = self.last_piece > said_before and not repeated
                    assert self.speech_overtakes or not overtaken, "speech overtook a text"
                    self.last_text = number
                self.texts_taken.add(number)
            for number in map(int, re.findall(r"prompt-(\d+)", json.dumps(message))):
                self.prompt_taken = number
            self.receive(message)
        del self.to_provider[:count]
        if not self.to_provider and self.talk.closing is not None:
            self.closes(self.talk.closing.code)

    def everywhere(self) -> None:
        """All that is under way to or from the provider arrives."""
        for _ in range(3):
            if self.provider is not None:
                self.to_the_provider(100)
            if self.provider is not None:
                self.to_the_bridge(100)

    def closes(self, code: int) -> None:
        self.talk_quietly(lambda dialect: dialect.receive_close(code, ""))

    def talk_quietly(self, happens: Any) -> None:
        if self.provider is None:
            return
        with self.bridge.at(self.talk.now):
            happens(self.provider)
        self.disconnected()

    @precondition(lambda self: self.provider is not None)
    @rule(how=st.sampled_from([None, None, None, None, "lost", 1011, 1001, 1000, 1008]))
    def connection_breaks(self, how: int | str | None) -> None:
        if how == "lost":
            self.talk_quietly(lambda dialect: dialect.receive_lost())
        elif isinstance(how, int):
            self.closes(how)

    # The client's side

    @rule(count=st.integers(0, 8))
    def to_the_client(self, count: int = 0) -> None:
        for _ in range(count):
            message = self.server.next_message()
            if message is None:
                break
            self.client_receives(message)
        if not waiting(self.server) and self.bridge.goodbye is not None and self.server.state is State.OPEN:
            self.closed = self.bridge.goodbye
            self.server.close(self.closed.code, self.closed.reason)
            for message in self.server.messages_to_send():
                self.client_receives(message)
        while True:
            try:
                event = self.client.next_event()
            except SpekoError:
                return
            if event is NEED_DATA:
                return
            self.hear(event)

    def client_receives(self, message: Message) -> None:
        if isinstance(message, CloseMessage):
            self.client.receive_close(message.code, message.reason)
        else:
            self.client.receive_message(message)

    def hear(self, event: object) -> None:
        match event:
            case Audio(pcm=pcm):
                found = values(pcm)
                assert not found.keys() & self.stale, "audio of a response that was interrupted"
                self.heard += found
                for number in found:
                    assert self.speaks_of in (None, number), "an answer begins before the last one's end"
                    self.speaks_of = number
            case ResponseEnd():
                self.ends_heard += 1
                self.speaks_of = None
            case Interruption():
                self.stale |= self.interruptions[self.interruptions_heard]
                self.interruptions_heard += 1
            case ToolCall(call_id=call_id):
                assert call_id not in self.calls, "the same call twice"
                self.calls.append(call_id)
            case ErrorFrame(code=code):
                assert code.lower() in codes.ALL
                self.refused[code] += code.lower() in codes.REFUSED.values()
                self.loss_untold = self.loss_untold and code not in LOST
            case Close(reason=reason):
                assert self.closed is not None
                assert reason in codes.ALL | {"provider_closed"}
            case Transcript() | Usage() | ServerToolCall() | Ready():
                pass
            case _:
                raise AssertionError(event)

    def from_the_client(self) -> None:
        if self.closed is not None:
            return
        for message in self.client.messages_to_send():
            assert not isinstance(message, CloseMessage)
            self.server.receive_message(message)
        while (command := self.server.next_event()) is not NEED_DATA:
            assert not isinstance(command, Unknown)
            self.bridge.receive_command(command, self.talk.now)
        self.flush()

    def talks(self) -> bool:
        return self.client.state is State.OPEN and not self.left

    @precondition(talks)
    @rule(ms=st.sampled_from([20, 100, 300]))
    def send_audio(self, ms: int) -> None:
        self.piece += 1
        self.said[self.piece] = ms * self.rates[0] // 1000
        self.client.send_audio(self.piece.to_bytes(2, "little") * self.said[self.piece])
        self.from_the_client()

    @precondition(talks)
    @rule(verb=st.sampled_from(["commit", "commit", "end_turn", "clear", "interrupt"]))
    def say(self, verb: str) -> None:
        if verb == "clear":
            self.unsure_before = self.piece
        elif verb == "interrupt":
            self.interrupts += 1
            # Nothing that waits is to be said any more.
            self.prompts_unsure |= self.prompts
            self.doubt()
        getattr(self.client, verb)()
        self.from_the_client()

    @precondition(talks)
    @rule(
        role=st.sampled_from(["user", "user", "user", "system", "assistant"]),
        respond=st.booleans(),
    )
    def write(self, role: Any, respond: bool) -> None:
        number = len(self.texts) + 1
        self.texts[number] = self.piece, self.talk.now
        if respond and role != "user":
            self.prompts.add(number)
        self.asks(respond)
        self.client.send_text(f"text-{number}", role=role, respond=respond)
        self.from_the_client()

    @precondition(talks)
    @rule(respond=st.booleans())
    def show(self, respond: bool) -> None:
        self.asks(respond)
        self.client.send_image(b"png", mime_type="image/png", respond=respond)
        self.from_the_client()

    @precondition(talks)
    @rule(verb=st.sampled_from(["respond", "say"]))
    def request(self, verb: str) -> None:
        self.requests += 1
        getattr(self.client, verb)("Good morning.")
        self.from_the_client()

    @precondition(talks)
    @rule(voice=st.booleans())
    def change(self, voice: bool) -> None:
        self.prompt += 1
        update = Update(system_prompt=f"prompt-{self.prompt}")
        self.client.update(Update(system_prompt=update.system_prompt, voice="v") if voice else update)
        self.from_the_client()

    def asks(self, respond: bool) -> None:
        """The user writes or shows something, which interrupts if it is to be answered."""
        if respond:
            self.requests += 1
            self.interrupts += 1
            self.doubt()

    @precondition(lambda self: self.talks() and self.provider is not None)
    @rule(heard=st.integers(0, 3))
    def converse(self, heard: int) -> None:
        """A whole turn, whose answer begins and is on its way to the client."""
        self.send_audio(300)
        self.say("commit")
        self.everywhere()
        self.begin_answer()
        self.begin_answer()
        if self.provider is not None:
            self.to_the_bridge(100)
        self.to_the_client(heard)

    @precondition(lambda self: self.talks() and set(self.calls) - self.answered)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(set(self.calls) - self.answered)))
        self.answered.add(call_id)
        try:
            self.client.send_tool_result(call_id, f'{{"for":"{call_id}"}}')
        except SpekoError:
            return  # abandoned for so long that the client has forgotten it
        self.from_the_client()

    @precondition(talks)
    @rule(really=st.sampled_from([False, False, False, True]))
    def leave(self, really: bool) -> None:
        if really:
            self.left = True
            self.bridge.receive_command(Close(1000, "client_closed", "remote"), self.talk.now)
            self.flush()
            assert not waiting(self.server), "nobody hears it"

    # Time

    @rule(seconds=st.sampled_from([0.05, 0.6, 2.1, 5.1, 31.0]))
    def wait(self, seconds: float) -> None:
        before = self.provider
        self.talk.pass_time(seconds)
        self.time_passed(seconds)
        if before is not None and self.provider is not before:
            self.disconnected()
        self.flush()

    # What always holds

    @invariant()
    def memory_is_bounded(self) -> None:
        bridge = self.bridge
        assert self.server.queued <= LIMITS.to_client + BATCH
        assert self.server.queued == sum(
            len(message.encode() if isinstance(message, str) else message)
            for message in waiting(self.server)
            if not isinstance(message, CloseMessage)
        )
        assert bridge._held._size <= LIMITS.held_seconds * self.rates[0] * 2
        assert len(bridge._calls._names) <= 2 * LIMITS.max_open_calls

    @invariant()
    def an_interruption_waits_for_no_speech(self) -> None:
        kinds = [kind(message) for message in waiting(self.server)]
        if "interruption" in kinds:
            last = len(kinds) - kinds[::-1].index("interruption")
            assert not {"bytes", "tool_call"}.intersection(kinds[:last])

    @invariant()
    def what_is_wanted_can_be_had(self) -> None:
        assert self.bridge.wanted is None or self.provider is None
        if self.bridge.done:
            assert self.bridge.next_deadline() is None

    @invariant()
    def nobody_hears_more_than_was_said(self) -> None:
        for piece, count in self.heard_by_provider.items():
            assert count <= self.expected(self.said[piece], self.rates[0], self.said_rate) + 2
        for number, count in self.heard.items():
            assert count <= self.expected(self.spoken[number], 24_000, self.rates[1]) + 2

    @invariant()
    def no_answer_ends_twice(self) -> None:
        # A requested answer may be interrupted before any of it has come.
        assert self.ends_heard <= len(self.entered) + self.interrupts + self.more_ends

    @staticmethod
    def expected(samples: int, rate: int, target: int) -> int:
        return samples * target // rate

    # The end

    def settle(self) -> None:
        """All that is under way arrives, and everybody ends what they are doing."""
        # Each request may wait for the end of the answer to the one before.
        for _ in range(12 + self.requests):
            if self.bridge.wanted is not None:
                self.connect()
            if self.provider is not None:
                self.to_the_provider(10_000)
            for _ in range(20):
                if self.provider is not None:
                    self.to_the_bridge(10_000)
                self.to_the_client(10_000)
            self.to_the_client(10_000)
            for call_id in set(self.calls) - self.answered:
                if self.talks() and call_id in self.client.open_calls:
                    self.client.send_tool_result(call_id, f'{{"for":"{call_id}"}}')
                    self.from_the_client()
                self.answered.add(call_id)
            if self.provider is not None:
                self.answer_owed()
                self.finish_answer()
            self.wait(1.1)

    def teardown(self) -> None:
        if not hasattr(self, "talk"):
            return
        self.settle()
        if self.talks():
            assert self.provider is not None
            assert self.provider.open_calls == ()
            # The end of the user's audio goes with a turn's end.
            self.client.end_turn()
            self.from_the_client()
            self.settle()
        if self.talks():
            self.check_that_nothing_is_missing()
            self.check_what_was_written()
            self.left = True
            self.bridge.receive_command(Close(1000, "", "remote"), self.talk.now)
            self.flush()
        for _ in range(3):
            if self.provider is not None:
                self.to_the_provider(10_000)
        self.to_the_client(10_000)
        if not self.left:
            assert self.speaks_of is None, "an answer without an end"
        assert self.bridge.done
        assert (self.closed is None) is (self.client.state is State.OPEN)

    def check_what_was_written(self) -> None:
        sure = {number for number in self.texts if number > self.texts_unsure_before} - self.prompts_unsure
        assert len(sure - self.texts_taken) <= self.refused["TEXT_REFUSED"]
        assert not self.loss_untold, "a text went with a connection, and nobody was told"
        if not self.refused["UPDATE_REFUSED"]:
            assert self.prompt_taken == self.prompt, "a change does not hold on this connection"

    def check_that_nothing_is_missing(self) -> None:
        assert self.speaks_of is None, "an answer without an end"
        if not self.bridge.stats.dropped_audio:
            for piece, count in self.said.items():
                if piece > self.unsure_before:
                    wanted = self.expected(count, self.rates[0], self.said_rate)
                    assert self.heard_by_provider[piece] >= wanted - 2
        for number, count in self.spoken.items():
            if number not in self.unsure:
                assert self.heard[number] >= self.expected(count, 24_000, self.rates[1]) - 4
