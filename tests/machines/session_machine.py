"""A client core and a server core back to back, with everything between them that can go wrong.

Bytes wait on two links until a step delivers, cuts or drops them; time passes when a step says so. After
each step both cores are held against their models: state, open calls, deadline. Each event that is taken
must be the one the model expects, and every byte that is sent is read by stock wsproto and must say what
the model queued, in that order.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speko_anyio.protocol import (
    NEED_DATA,
    ClientConnection,
    Close,
    ConnectionClosed,
    Limits,
    LocalProtocolError,
    ServerConnection,
    SessionExpired,
    SpekoError,
    State,
    Update,
    UpgradeRequest,
    Usage,
)
from speko_anyio.protocol._extensions import COMMANDS, KNOWN
from tests.support.maskers import MASKERS, use_masker

from . import driver
from .driver import Wire
from .model import NOTHING, Model, Options
from .strategies import BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, frame, pattern

MEMORY = 60_000
"""Bytes that a connection may hold once everything was taken from it, with the limits of `Options`."""


def kind_of(error: Exception) -> type[Exception]:
    """The error's type, as the model knows it. That a session ended at its time is told by a reason and by a
    type of its own, which have to agree."""
    if isinstance(error, ConnectionClosed):
        assert isinstance(error, SessionExpired) == (error.reason == "session_expired"), repr(error)
        return ConnectionClosed
    return type(error)


class Side:
    """A core, its model, and the link on which its peer's bytes arrive."""

    def __init__(self, connection: ClientConnection | ServerConnection, model: Model) -> None:
        self.connection = connection
        self.model = model
        self.reader = driver.StockPeer(reads_from_client=model.client)
        """Reads what this side writes."""
        self.in_flight = bytearray()
        self.marks: deque[tuple[int, Wire]] = deque()
        """What is in flight, with its end, counted in bytes from the first that was ever in flight."""
        self.arrived = 0
        self.put = 0
        self.cut = False
        """Nothing more will come after what is in flight."""
        self.inbox: deque[Wire] = deque()
        """Messages that have arrived whole."""
        self.closed: list[Close] = []
        self.last_error: SpekoError | None = None

    def fly(self, data: bytes, marks: list[tuple[int, Wire]]) -> None:
        """Put bytes on the link towards this side."""
        if self.cut:
            return
        self.marks += [(self.put + end, wire) for end, wire in marks]
        self.put += len(data)
        self.in_flight += data

    def truncate(self, lose: int) -> None:
        """The connection dies with that many bytes still under way."""
        self.cut = True
        if lose:
            del self.in_flight[-lose:]
        self.put = self.arrived + len(self.in_flight)
        while self.marks and self.marks[-1][0] > self.put:
            self.marks.pop()

    def arrive(self, count: int) -> bool:
        """Receive that many of the bytes under way; whether there were any."""
        data = bytes(self.in_flight[:count])
        del self.in_flight[: len(data)]
        if not data:
            return False
        self.connection.receive_data(data)
        self.arrived += len(data)
        self.model.heard = True
        while self.marks and self.marks[0][0] <= self.arrived:
            self.inbox.append(self.marks.popleft()[1])
        return True

    def take_event(self) -> bool:
        """Take one event, which must be the model's; whether there was any."""
        expected = self.model.expect(self.inbox)
        ended: SpekoError | None = None
        event: Any = None
        try:
            event = self.connection.next_event()
        except SpekoError as error:
            ended = error
        if ended is not None:
            assert expected is kind_of(ended), f"expected {expected}, not {ended!r}"
            assert self.last_error in (None, ended), "the error after the end has changed"
            assert ended is self.connection.error
            self.last_error = ended
            return False
        assert self.last_error is None
        assert not self.closed, "an event follows Close"
        if event is NEED_DATA:
            assert expected is NOTHING, f"{expected} is missing"
            return False
        if isinstance(event, Close):
            self.closed.append(event)
            assert isinstance(expected, Close), f"expected {expected}, not {event}"
            assert (event.code, event.initiated_by) == (expected.code, expected.initiated_by)
            if event.code != 1006 and self.model.error is ConnectionClosed:
                assert event.reason == expected.reason
            assert self.connection.closed is event
        elif isinstance(event, UpgradeRequest):
            assert expected is UpgradeRequest
            assert event.subprotocols == (driver.TOKEN,)
        else:
            assert event == expected
        return True

    def take_events(self) -> bool:
        """Take all the events there are; whether there was any."""
        any_at_all = False
        while self.take_event():
            any_at_all = True
        return any_at_all

    def take_bytes(self) -> tuple[bytes, list[tuple[int, Wire]]]:
        """Take what is to be sent, which must say what the model has queued."""
        data = self.connection.data_to_send()
        expected, self.model.outbox = self.model.outbox, []
        self.model.queued = self.model.owed = 0
        assert self.connection.data_to_send() == b""
        marks: list[tuple[int, Wire]] = []
        frames = data
        start = 0
        if expected and expected[0][0] == "http":
            status = expected[0][1]
            wanted = b"GET " if not status else b"HTTP/1.1 %d " % status
            assert data.startswith(wanted)
            start = data.index(b"\r\n\r\n") + 4 if status in (0, 101) else len(data)
            frames = data[start:]
            marks.append((start, expected.pop(0)))
        read = self.reader.read(frames)
        assert [known(wire) for _, wire in read] == [known(wire) for wire in expected]
        keys = self.reader.keys
        assert len(set(keys)) == len(keys), "a masking key was used twice"
        return data, marks + [(start + end, wire) for end, wire in read]


def known(wire: Wire) -> Wire:
    """What of a message the model knows: not the words that tell a peer what it did wrong."""
    return wire[:2] if wire[0] == "close" and wire[1] in (1002, 1007, 1008, 1009) else wire


sides = st.sampled_from(["client", "server"])
call_ids = st.sampled_from(["a", "b", "c", "a'"])
seldom = st.integers(0, 5).map(lambda i: i == 5)
"""Whether a step that ends the session is taken at all: most steps should find one alive."""
statuses = st.sampled_from(["done", "interrupted", "incomplete", "failed"])
READY_AGAIN = '{"t":"ready","inputSampleRate":24000,"outputSampleRate":24000,"extensions":["new","usage"]}'
READY_FOR_ALL = READY_AGAIN.replace('"new"', '"text","image","respond","say","update","played"')
"""A peer that offers extensions which our own server may not offer."""
OFFERS = [(), ("usage",), ("text", "respond", "usage"), ("say", "update", "played"), KNOWN]
ILL_COMMANDS = [
    '{"t":"text","text":"","role":"user","respond":false}',
    '{"t":"text","text":7,"role":"user","respond":false}',
    '{"t":"say","text":""}',
    '{"t":"image","mimeType":"image/png","data":"","respond":false}',
    '{"t":"image","mimeType":"image/png","data":"' + "AAAA" * 31 + '","respond":false}',
    '{"t":"update"}',
    '{"t":"played","ms":-1}',
]
"""Commands that a careless peer sends."""
closes = st.sampled_from([(1000, ""), (1000, "client_closed"), (4000, "x" * 200), (1011, "oops")])


class SessionMachine(RuleBasedStateMachine):
    """See the module."""

    client_class: type[ClientConnection] = ClientConnection
    server_class: type[ServerConnection] = ServerConnection

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()

    @initialize(
        keepalive=st.booleans(),
        ttl=st.booleans(),
        upto=st.sampled_from(["ready", "ready", "ready", "open", "nothing"]),
        masker=st.sampled_from(MASKERS),
        offers=st.sampled_from(OFFERS),
    )
    def begin(self, keepalive: bool, ttl: bool, upto: str, masker: str, offers: tuple[str, ...]) -> None:
        use_masker(masker, self.patch)
        options = Options(extensions=offers)
        if not keepalive:
            options.ping_interval = None
        if not ttl:
            options.ttl = None
        limits = Limits(
            max_message_size=3000,
            max_text_size=options.max_text_size,
            max_image_size=options.max_image_size,
            max_outbox=options.max_outbox,
            max_open_calls=options.max_open_calls,
            max_control_frames=options.max_control_frames,
        )
        common: dict[str, Any] = {
            "limits": limits,
            "handshake_timeout": options.handshake_timeout,
            "ping_interval": options.ping_interval,
            "ping_timeout": options.ping_timeout,
            "close_timeout": options.close_timeout,
            "ttl": options.ttl,
            "warn_before": options.warn_before,
            "entropy": driver.counting_entropy(),
        }
        self.now = 0.0
        client = self.client_class(driver.URL, driver.TOKEN, **common)
        self.client = Side(client, Model(True, options))
        server = self.server_class(**common, extensions=options.extensions)
        self.server = Side(server, Model(False, options))
        self.client_core = client
        assert isinstance(self.server.connection, ServerConnection)
        self.server_core = self.server.connection
        self.arm()
        if upto != "nothing":
            self.handshake(False, upto == "ready")

    def side(self, name: str) -> Side:
        """The side of that name."""
        return self.client if name == "client" else self.server

    def peer(self, name: str) -> Side:
        """The other one."""
        return self.server if name == "client" else self.client

    def arm(self) -> None:
        """Tell the cores the time when they ask for it, as an adapter does after each step."""
        for side in (self.client, self.server):
            for _ in range(2):
                if side.connection.next_deadline() == float("-inf"):
                    side.connection.handle_timeout(self.now)

    def expect(self, error: type[Exception] | None, verb: Any, *args: Any, **kwargs: Any) -> None:
        """`verb` raises just that."""
        raised: Exception | None = None
        try:
            verb(*args, **kwargs)
        except (SpekoError, TypeError) as exception:
            raised = exception
        kind = None if raised is None else kind_of(raised)
        assert kind is error, f"{verb.__name__} should raise {error}, not {raised!r}"
        self.arm()

    # What happens between the two

    @rule(name=sides)
    def flush(self, name: str) -> None:
        data, marks = self.side(name).take_bytes()
        self.peer(name).fly(data, marks)

    @rule(name=sides, count=st.sampled_from([1, 2, 3, 7, 100, 1_000_000]))
    def deliver(self, name: str, count: int) -> None:
        self.side(name).arrive(count)

    @rule(name=sides, count=st.integers(1, 3))
    def take(self, name: str, count: int) -> None:
        for _ in range(count):
            self.side(name).take_event()
        self.arm()

    @rule(name=sides)
    def pass_on(self, name: str) -> None:
        """All of it at once, as on a good network."""
        self.flush(name)
        self.peer(name).arrive(1_000_000)
        self.peer(name).take_events()
        self.arm()

    @precondition(lambda self: self.client.model.state is State.CONNECTING)
    @rule(refuse=seldom, ready=st.booleans())
    def handshake(self, refuse: bool, ready: bool) -> None:
        """The usual beginning."""
        self.pass_on("client")
        self.answer(refuse)
        if ready:
            self.send_ready()
        self.pass_on("server")

    @rule(call_id=call_ids, answered=st.booleans(), interrupted=st.booleans())
    def call_a_tool(self, call_id: str, answered: bool, interrupted: bool) -> None:
        """The usual way of a call, with an interruption that may cross its result."""
        self.send_tool_call(call_id)
        self.pass_on("server")
        if interrupted:
            self.send_interruption()
        if answered:
            self.send_tool_result(call_id)
            self.pass_on("client")

    @rule(name=sides, lose=st.sampled_from([0, 0, 1, 2, 5, 1000]), really=seldom)
    def hang_up(self, name: str, lose: int, really: bool) -> None:
        if not really:
            return
        self.side(name).truncate(lose)

    @rule(name=sides)
    def end_of_input(self, name: str) -> None:
        side = self.side(name)
        if side.cut and not side.in_flight:
            side.connection.receive_eof()
            side.model.eof = True

    @rule(name=sides, kept=st.sampled_from([0, 1, 10, 1_000_000]), really=seldom)
    def fail_to_send(self, name: str, kept: int, really: bool) -> None:
        if not really:
            return
        side, peer = self.side(name), self.peer(name)
        data, marks = side.take_bytes()
        peer.fly(data[:kept], [mark for mark in marks if mark[0] <= kept])
        peer.cut = True
        side.connection.send_failed()
        side.model.failed_to_send()

    @rule(name=sides, late=st.sampled_from([0.0, 0.0, 0.5, 8.0]))
    def wait_for_deadline(self, name: str, late: float) -> None:
        """Until something is due; when the timer comes late, several things may be due at once."""
        deadline = self.side(name).connection.next_deadline()
        if deadline is not None:
            self.wait(deadline - self.now + late)

    @rule(seconds=st.sampled_from([0.25, 1.5, 4.0, 8.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side in (self.client, self.server):
            side.connection.handle_timeout(self.now)
            side.model.expire(self.now)
        self.arm()

    def inject(self, name: str, frames: list[tuple[int, bytes]], wire: Wire, told_by: int = 0) -> None:
        """A peer that is not our core says this to `name`, between two messages of ours.

        `told_by`: how many of its bytes tell all of it, if not all of them.
        """
        if self.side(name).model.state is State.CONNECTING or self.peer(name).model.state is State.CONNECTING:
            return
        data = b"".join(frame(first, payload, masked=name == "server") for first, payload in frames)
        self.side(name).fly(data, [(told_by or len(data), wire)])

    @rule(name=sides, size=st.sampled_from([0, 1, 3, 126, 127, 961]), seed=st.integers(0, 255))
    def peer_says_audio(self, name: str, size: int, seed: int) -> None:
        pcm = pattern(size, seed)
        self.inject(name, [(FIN | BINARY, pcm)], ("binary", pcm))

    @rule(name=sides, cut=st.integers(0, 40))
    def peer_says_in_pieces(self, name: str, cut: int) -> None:
        text = '{"t":"error","code":"é","message":"ü"}' if name == "client" else '{"t":"interrupt"}'
        raw = text.encode()
        frames = [(TEXT, raw[:cut]), (CONTINUATION, b""), (FIN | CONTINUATION, raw[cut:])]
        self.inject(name, frames, ("text", text))

    @rule(name=sides, count=st.sampled_from([1, 2, 15]))
    def peer_pings(self, name: str, count: int) -> None:
        for i in range(count):
            self.inject(name, [(FIN | PING, b"%d" % i)], ("ping", b"%d" % i))

    @rule(code=st.sampled_from([1000, 1005, 4000]), name=sides, really=seldom)
    def peer_closes(self, name: str, code: int, really: bool) -> None:
        if not really:
            return
        payload = b"" if code == 1005 else code.to_bytes(2, "big")
        self.inject(name, [(FIN | CLOSE, payload)], ("close", code, ""))

    @rule(reason=st.sampled_from(["", "done"]), really=seldom)
    def peer_announces_its_end(self, reason: str, really: bool) -> None:
        if not really:
            return
        text = f'{{"t":"end","reason":"{reason}"}}'
        self.inject("client", [(FIN | TEXT, text.encode())], ("text", text))

    @rule(name=sides, really=seldom)
    def peer_breaks_the_rules(self, name: str, really: bool) -> None:
        if not really:
            return
        self.inject(name, [(FIN | 3, b"??")], ("bad", 1002), told_by=2)

    # What the two say

    @rule(refuse=st.booleans())
    def answer(self, refuse: bool) -> None:
        core, model = self.server_core, self.server.model
        if not model.asked:
            self.expect(model.error or LocalProtocolError, core.accept)
        elif refuse:
            model.refuse(401)
            self.expect(None, core.refuse, 401, '{"error":"no","code":"UNAUTHORIZED"}')
        else:
            model.accept()
            self.expect(None, core.accept)

    @rule(
        name=sides,
        size=st.sampled_from([0, 1, 2, 124, 126, 640, 641, 1990, 2002]),
        seed=st.integers(0, 255),
        view=st.booleans(),
        times=st.sampled_from([1, 2, 3]),
    )
    def send_audio(self, name: str, size: int, seed: int, view: bool, times: int) -> None:
        """Audio has one size as a rule, which a core may get used to."""
        side = self.side(name)
        for time in range(times):
            pcm = pattern(size, seed + time)
            self.expect(side.model.audio(pcm), side.connection.send_audio, memoryview(pcm) if view else pcm)

    @rule(action=st.sampled_from(["commit", "clear", "end_turn"]))
    def control(self, action: str) -> None:
        expected = self.client.model.say(t="control", action=action)
        self.expect(expected, getattr(self.client_core, action))

    @rule()
    def interrupt(self) -> None:
        self.expect(self.client.model.say(t="interrupt"), self.client_core.interrupt)

    @rule(call_id=call_ids)
    def send_tool_result(self, call_id: str) -> None:
        self.expect(self.client.model.result(call_id), self.client_core.send_tool_result, call_id, "1")

    @rule()
    def send_ready(self) -> None:
        self.expect(self.server.model.say_ready(), self.server_core.send_ready)

    @rule(length=st.sampled_from([0, 5, 900]), final=st.booleans())
    def send_transcript(self, length: int, final: bool) -> None:
        text = "w" * length
        expected = self.server.model.say(t="transcript", role="user", text=text, final=final)
        self.expect(expected, self.server_core.send_transcript, "user", text, final=final)

    @rule(spare=st.sampled_from([-1, 0, 5, 40]))
    def fill_the_outbox(self, spare: int) -> None:
        model = self.server.model
        length = max(0, model.options.max_outbox - model.queued - 39 - spare)
        self.expect(
            model.say(t="error", code="x", message="w" * length),
            self.server_core.send_error,
            "x",
            "w" * length,
        )

    @rule(call_id=call_ids)
    def send_tool_call(self, call_id: str) -> None:
        # An abandoned call beyond the limit is forgotten; its late result would answer a new call of that id.
        model = self.server.model
        while call_id in model.forgotten:
            call_id += "'"
        self.expect(model.call(call_id), self.server_core.send_tool_call, call_id, "f", "{}")

    @rule()
    def send_interruption(self) -> None:
        self.expect(self.server.model.interruption(), self.server_core.send_interruption)

    @rule(tokens=st.integers(0, 1000))
    def send_usage_and_more(self, tokens: int) -> None:
        model, core = self.server.model, self.server_core
        self.expect(model.usage(tokens, 0, 0), core.send_usage, tokens, 0)
        self.expect(model.usage(tokens, 7, 1.5), core.send, Usage(tokens, 0, 7, seconds=1.5))
        self.expect(
            model.say(t="server_tool_call", id="s", name="n", status="completed"),
            core.send_server_tool_call,
            "s",
            "n",
            "completed",
        )

    @rule(status=statuses, reason=st.sampled_from(["", "max_tokens"]), times=st.sampled_from([1, 1, 1, 20]))
    def end_an_answer(self, status: str, reason: str, times: int) -> None:
        for _ in range(times):
            expected = self.server.model.response_end(status, reason)
            self.expect(expected, self.server_core.send_response_end, status, reason)

    @rule(
        message=st.sampled_from(
            [
                '{"t":"extensions","use":["usage"]}',
                '{"t":"extensions","use":["new","usage","usage"]}',
            ]
        ),
    )
    def peer_takes_extensions_up(self, message: str) -> None:
        self.inject("server", [(FIN | TEXT, message.encode())], ("text", message))

    @rule(message=st.sampled_from(['{"t":"response","status":"done"}', READY_AGAIN, READY_FOR_ALL]))
    def peer_speaks_of_extensions(self, message: str) -> None:
        self.inject("client", [(FIN | TEXT, message.encode())], ("text", message))

    @rule(text=st.sampled_from(["", "hi", "hi", "x" * 900, "x" * 3000]), respond=st.booleans())
    def write(self, text: str, respond: bool) -> None:
        model, core = self.client.model, self.client_core
        expected = model.command("text", text=text, role="user", respond=respond)
        self.expect(expected, core.send_text, text, respond=respond)

    @rule(size=st.sampled_from([0, 1, 90, 91]), respond=st.booleans())
    def show(self, size: int, respond: bool) -> None:
        model, image = self.client.model, pattern(size, 7)
        data = base64.b64encode(image).decode()
        expected = model.command("image", mimeType="image/png", data=data, respond=respond)
        self.expect(expected, self.client_core.send_image, image, mime_type="image/png", respond=respond)

    @rule(text=st.sampled_from(["", "Hello.", "x" * 1500]))
    def have_it_speak(self, text: str) -> None:
        model, core = self.client.model, self.client_core
        self.expect(model.command("say", text=text), core.say, text)
        instructions = {"instructions": text} if text else {}
        self.expect(model.command("respond", **instructions), core.respond, text)

    @rule(prompt=st.sampled_from([None, "", "Be kind."]))
    def change_it(self, prompt: str | None) -> None:
        fields = {} if prompt is None else {"systemPrompt": prompt}
        update = Update() if prompt is None else Update(system_prompt=prompt)
        self.expect(self.client.model.command("update", **fields), self.client_core.update, update)

    @rule(ms=st.sampled_from([0, 20, 123_456_789]))
    def report(self, ms: int) -> None:
        model = self.client.model
        taken = model.offered is not None and "played" in model.offered
        expected = model.command("played", ms=ms) if taken else model.refusal()
        self.expect(expected, self.client_core.report_played, ms / 1000)

    @rule(text=st.sampled_from(ILL_COMMANDS), times=st.sampled_from([1, 1, 30]))
    def peer_commands_nonsense(self, text: str, times: int) -> None:
        for _ in range(times):
            self.inject("server", [(FIN | TEXT, text.encode())], ("text", text))

    @rule(tag=st.sampled_from(["text", "say", "error"]), beyond=st.sampled_from([1, 120, 121]), really=seldom)
    def peer_says_too_much(self, tag: str, beyond: int, really: bool) -> None:
        if not really:
            return
        options = self.server.model.options
        fields = {"role": "user", "respond": False} if tag == "text" else {}
        text = json.dumps({"t": tag, **fields, "text": ""})
        text = text[:-2] + "x" * (options.max_text_size + beyond - len(text)) + text[-2:]
        too_long = len(text) > options.longest_text()
        wire: Wire = ("bad", 1009) if too_long else ("text", text)
        self.inject("server", [(FIN | TEXT, text.encode())], wire, told_by=4 if too_long else 0)

    @rule(name=sides, goodbye=closes, really=seldom)
    def close(self, name: str, goodbye: tuple[int, str], really: bool) -> None:
        if not really:
            return
        side = self.side(name)
        side.model.close(*goodbye)
        self.expect(None, side.connection.close, *goodbye)

    @rule(which=st.integers(0, 10), name=sides)
    def ask_for_the_impossible(self, which: int, name: str) -> None:
        """Arguments that are never right: an error, and nothing has changed, as the next steps will tell."""
        client, server = self.client_core, self.server_core
        refused: list[tuple[Any, ...]] = [
            (self.side(name).connection.close, 1005),
            (self.side(name).connection.close, 999, "why"),
            (self.side(name).connection.close, 1000, "\ud800"),
            (self.side(name).connection.send_audio, b"odd"),
            (client.send_tool_result, "a", {"not": "text"}),
            (client.send_tool_result, "nobody asked", "1"),
            (server.send_interruption, "nobody"),
            (server.send_error, "x", "\udfff"),
            (server.send_tool_call, "a", "f", {"not": "text"}),
            (server.send_response_end, "abandoned"),
            (server.send_response_end, "failed", None),
        ]
        verb, *args = refused[which]
        with pytest.raises((SpekoError, TypeError)):
            verb(*args)
        self.arm()

    # What holds

    @invariant()
    def cores_agree_with_their_models(self) -> None:
        for side in (self.client, self.server):
            connection, model = side.connection, side.model
            assert connection.state is model.state
            assert connection.open_calls == tuple(model.open)
            if isinstance(connection, ClientConnection) and model.offered is not None:
                takes = [name for name in COMMANDS if connection.capabilities.takes(name)]
                assert takes == [name for name in COMMANDS if name in model.offered]
            assert connection.next_deadline() == min(model.timers.values(), default=None)
            if connection.state is State.CLOSED:
                assert connection.next_deadline() is None

    @invariant()
    def nothing_is_sent_after_sending_failed(self) -> None:
        for side in (self.client, self.server):
            if side.model.send_failed:
                assert side.connection.data_to_send() == b""

    def settle(self) -> None:
        """Everything that is under way arrives, until nobody has more to say."""
        moved = True
        while moved:
            moved = False
            for name in ("client", "server"):
                self.flush(name)
                moved |= self.peer(name).arrive(1_000_000)
                moved |= self.peer(name).take_events()
            self.arm()

    @rule()
    def come_to_rest(self) -> None:
        self.settle()
        client, server = self.client, self.server
        if client.model.state is server.model.state is State.OPEN and not (client.cut or server.cut):
            assert client.connection.open_calls == server.connection.open_calls

    def teardown(self) -> None:
        try:
            # When a step has failed, what holds at the end is of no more interest.
            if hasattr(self, "client") and sys.exc_info()[0] is None:
                self.end()
        finally:
            self.patch.undo()

    def end(self) -> None:
        """Both sides come to their end, and let go of everything."""
        self.settle()
        for side in (self.client, self.server):
            side.connection.receive_eof()
            side.model.eof = True
            side.take_events()
            assert side.connection.state is State.CLOSED
            assert side.connection.next_deadline() is None
            assert side.last_error is not None
            ended = side.connection.closed
            assert side.closed == ([] if ended is None else [ended])
            side.take_event()
            assert driver.deep_size(side.connection) < MEMORY
