"""A client and a server at message level, back to back, over transports that speak WebSocket by themselves.

Like `session_machine`, without bytes: whole messages wait on the way, each side may be told in time, late or
never how the transport ended, and sending may fail at any time. Both must agree with the same model.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from speko_anyio.protocol import (
    NEED_DATA,
    ClientProtocol,
    Close,
    CloseMessage,
    Limits,
    ServerProtocol,
    SpekoError,
    State,
)

from .driver import Wire
from .model import NOTHING, Model, Options
from .session_machine import ILL_COMMANDS, OFFERS, closes, kind_of, seldom, sides


class MessageModel(Model):
    """The model of a session over a transport that answers closes and does the handshake."""

    def hear(self, wire: Wire) -> None:
        super().hear(wire)
        if wire[0] == "close":
            self.drop_outbox()

    def failed_to_send(self) -> None:
        """As `send_failed`: the transport has yet to say how it ended."""
        if self.state is State.CLOSED:
            return
        self.send_failed = True
        self.drop_outbox()
        if self.state is State.OPEN:
            self.start_closing()


class Side:
    """One side, its model, and the messages on their way to it."""

    def __init__(self, session: ClientProtocol | ServerProtocol, model: MessageModel) -> None:
        self.session = session
        self.model = model
        self.coming: deque[Wire] = deque()
        self.over = False
        """Whether the transport has said how it ended."""
        self.closed: list[Close] = []

    def take_events(self) -> None:
        """Take all events, which must be the model's."""
        while True:
            expected = self.model.expect(deque())
            ended: SpekoError | None = None
            event: Any = None
            try:
                event = self.session.next_event()
            except SpekoError as error:
                ended = error
            if ended is not None:
                assert expected is kind_of(ended)
                assert ended is self.session.error
                return
            assert not self.closed, "an event follows Close"
            if event is NEED_DATA:
                assert expected is NOTHING, f"{expected} is missing"
                return
            if isinstance(event, Close):
                assert isinstance(expected, Close), f"expected {expected}, not {event}"
                assert (event.code, event.initiated_by) == (expected.code, expected.initiated_by)
                assert self.session.closed is event
                self.closed.append(event)
            else:
                assert event == expected

    def take_messages(self) -> list[Wire]:
        """Take what is to be sent, which must be what the model has queued."""
        expected, self.model.outbox = self.model.outbox, []
        self.model.queued = 0
        sent: list[Wire] = []
        for message in self.session.messages_to_send():
            match message:
                case CloseMessage(code=code, reason=reason):
                    sent.append(("close", code, reason))
                case str():
                    sent.append(("text", message))
                case _:
                    sent.append(("binary", message))
        assert [wire[:2] for wire in sent] == [wire[:2] for wire in expected]
        return sent


class MessageMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(ttl=st.booleans(), offers=st.sampled_from(OFFERS))
    def begin(self, ttl: bool, offers: tuple[str, ...]) -> None:
        options = Options(ping_interval=None, extensions=offers)
        if not ttl:
            options.ttl = None
        common: dict[str, Any] = {
            "limits": Limits(
                max_outbox=options.max_outbox,
                max_open_calls=options.max_open_calls,
                max_text_size=options.max_text_size,
                max_message_size=options.max_text_size,
                max_image_size=options.max_image_size,
            ),
            "close_timeout": options.close_timeout,
            "ttl": options.ttl,
            "warn_before": options.warn_before,
        }
        self.now = 0.0
        self.sides: dict[str, Side] = {}
        self.client = ClientProtocol(**common)
        server = ServerProtocol(**common, extensions=offers)
        for name, session in (("client", self.client), ("server", server)):
            model = MessageModel(name == "client", options)
            model.opened()
            model.outbox.clear()
            self.sides[name] = Side(session, model)
        server.send_ready()
        assert self.sides["server"].model.say_ready() is None
        self.arm()

    def arm(self) -> None:
        for side in self.sides.values():
            if side.session.next_deadline() == float("-inf"):
                side.session.handle_timeout(self.now)

    def peer(self, name: str) -> Side:
        return self.sides["server" if name == "client" else "client"]

    @rule(name=sides)
    def flush(self, name: str) -> None:
        self.peer(name).coming += self.sides[name].take_messages()

    @rule(name=sides, count=st.sampled_from([1, 2, 100]))
    def deliver(self, name: str, count: int) -> None:
        side = self.sides[name]
        for _ in range(min(count, len(side.coming))):
            wire = side.coming.popleft()
            if side.over:
                continue
            if wire[0] == "close":
                side.over = True
                side.session.receive_close(wire[1], wire[2])
            else:
                side.session.receive_message(wire[1])
            if side.model.state is not State.CLOSED:
                side.model.hear(wire)
        self.arm()

    @rule(name=sides)
    def take(self, name: str) -> None:
        self.sides[name].take_events()
        self.arm()

    @rule(name=sides, kept=st.sampled_from([0, 1, 100]), really=seldom)
    def fail_to_send(self, name: str, kept: int, really: bool) -> None:
        """Some of the messages that were taken reach the peer, and then none any more."""
        if not really:
            return
        side = self.sides[name]
        self.peer(name).coming += side.take_messages()[:kept]
        side.session.send_failed()
        side.model.failed_to_send()
        self.arm()

    @rule(name=sides, really=seldom)
    def lose(self, name: str, really: bool) -> None:
        if not really:
            return
        side = self.sides[name]
        side.over = True
        side.session.receive_lost()
        side.model.lost()

    @rule(seconds=st.sampled_from([0.25, 1.5, 4.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides.values():
            side.session.handle_timeout(self.now)
            side.model.expire(self.now)
        self.arm()

    @rule(name=sides, size=st.sampled_from([0, 2, 640, 1990]))
    def send_audio(self, name: str, size: int) -> None:
        side = self.sides[name]
        self.expect(side.model.audio(bytes(size)), side.session.send_audio, bytes(size))

    @rule(text=st.sampled_from(["", "hi", "x" * 900, "x" * 3000]), respond=st.booleans())
    def write(self, text: str, respond: bool) -> None:
        model = self.sides["client"].model
        expected = model.command("text", text=text, role="system", respond=respond)
        self.expect(expected, self.client.send_text, text, role="system", respond=respond)
        self.expect(model.command("say", text=text), self.client.say, text)

    @rule(text=st.sampled_from(ILL_COMMANDS), times=st.sampled_from([1, 1, 30]))
    def peer_commands_nonsense(self, text: str, times: int) -> None:
        self.sides["server"].coming += [("text", text)] * times

    def expect(self, error: type[Exception] | None, verb: Any, *args: Any, **kwargs: Any) -> None:
        """`verb` raises just that."""
        raised: type[Exception] | None = None
        try:
            verb(*args, **kwargs)
        except SpekoError as exception:
            raised = kind_of(exception)
        assert raised is error

    @rule(name=sides, goodbye=closes, really=seldom)
    def close(self, name: str, goodbye: tuple[int, str], really: bool) -> None:
        if not really:
            return
        side = self.sides[name]
        side.model.close(*goodbye)
        side.session.close(*goodbye)
        self.arm()

    @rule(name=sides, really=seldom)
    def peer_breaks_the_rules(self, name: str, really: bool) -> None:
        side = self.sides[name]
        if not really or side.over:
            return
        if side.model.state is not State.CLOSED:
            side.model.violated(1007)
        side.session.receive_message("junk")

    @invariant()
    def sessions_agree_with_their_models(self) -> None:
        for side in getattr(self, "sides", {}).values():
            assert side.session.state is side.model.state
            assert side.session.next_deadline() == min(side.model.timers.values(), default=None)
            if side.model.send_failed:
                assert not side.session.has_output

    def teardown(self) -> None:
        """Whatever happened, each session ends within the time of one close once sending has failed."""
        for side in getattr(self, "sides", {}).values():
            side.session.send_failed()
            side.model.failed_to_send()
        if hasattr(self, "sides"):
            self.arm()
            self.wait(4.0)
            for side in self.sides.values():
                assert side.session.state is State.CLOSED
                side.take_events()
                assert side.closed == [side.session.closed]


TestMessages = MessageMachine.TestCase
