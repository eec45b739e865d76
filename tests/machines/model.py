"""A simple model of one side of a session: what it should say, deliver and wait for, after each step.

It knows whole messages only and nothing of bytes. Times are instants; `now` is set by the machine.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from speko_anyio.protocol import (
    Audio,
    AudioIn,
    Clear,
    Close,
    Commit,
    ConnectionClosed,
    EndTurn,
    ErrorFrame,
    Expiring,
    HandshakeError,
    ImageIn,
    Interrupt,
    Interruption,
    LocalProtocolError,
    Played,
    Ready,
    RemoteProtocolError,
    Respond,
    ResponseEnd,
    Say,
    ServerToolCall,
    State,
    TextIn,
    ToolCall,
    ToolResult,
    Transcript,
    Unknown,
    Update,
    UpgradeRequest,
    Usage,
)

from .driver import Wire

NOTHING = "need data"

COMMANDS = ("text", "image", "respond", "say", "update", "played")

PONG_COST = 64
"""What a pong that nobody takes counts for, besides its payload."""


@dataclass
class Options:
    """The parameters that both sides of a session are made with. Odd fractions, so that no two timers tie."""

    handshake_timeout: float = 10.0071
    ping_interval: float | None = 7.3017
    ping_timeout: float = 5.1003
    close_timeout: float = 3.7013
    ttl: float | None = 17.3109
    warn_before: float = 6.9027
    max_outbox: int = 2000
    max_open_calls: int = 2
    max_control_frames: int = 20
    max_text_size: int = 3000
    max_image_size: int = 90
    extensions: tuple[str, ...] = ()
    """What the server offers."""

    def longest_text(self) -> int:
        """The most bytes that the server reads as one text."""
        image = -(-self.max_image_size // 3) * 4 if "image" in self.extensions else 0
        return self.max_text_size + image


COMMAND_OF: dict[str, Any] = {
    "text": lambda said: TextIn(said["text"], said["role"], said["respond"]),
    "image": lambda said: ImageIn(said["mimeType"], base64.b64decode(said["data"]), said["respond"]),
    "respond": lambda said: Respond(said.get("instructions", "")),
    "say": lambda said: Say(said["text"]),
    "update": lambda said: Update(system_prompt=said["systemPrompt"]),
    "played": lambda said: Played(said["ms"]),
}


@dataclass
class Model:
    """One side."""

    client: bool
    options: Options
    now: float = 0.0
    state: State = State.CONNECTING
    events: deque[Any] = field(default_factory=deque)
    outbox: list[Wire] = field(default_factory=list)
    error: type[Exception] | None = None
    timers: dict[str, float] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    abandoned: dict[str, None] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    odd: bytes = b""
    goodbye: Close | None = None
    end_reason: str | None = None
    send_failed: bool = False
    ready: bool = False
    asked: bool = False
    heard: bool = False
    eof: bool = False
    controls: int = 0
    queued: int = 0
    owed: int = 0
    taken: bool = False
    """Whether the extension ``usage`` was offered and accepted, as far as this side knows."""
    offered: tuple[str, ...] | None = None
    """What the client knows to be offered."""
    held: list[str] = field(default_factory=list)
    """Ends of answers that wait until it is."""
    answering: bool = False
    cut: bool = False

    def __post_init__(self) -> None:
        self.start("handshake", self.options.handshake_timeout)
        if self.client:
            self.ready = True
            self.outbox.append(("http", 0))

    def start(self, name: str, seconds: float | None) -> None:
        """A timer from now on."""
        if seconds is not None:
            self.timers[name] = self.now + seconds

    # What the peer said

    def expect(self, inbox: deque[Wire]) -> Any:
        """What `next_event` should give: an event, an exception's type or `NOTHING`."""
        while not self.events and self.error is None:
            if inbox and not self.asked:
                self.hear(inbox.popleft())
            elif self.eof:
                self.lost()
            else:
                return NOTHING
        return self.events.popleft() if self.events else self.error

    def hear(self, wire: Wire) -> None:
        """Apply one message."""
        match wire:
            case ("http", 0):
                self.asked = True
                self.events.append(UpgradeRequest)
            case ("http", 101):
                self.opened()
            case ("http", _):
                self.over_before_it_began(HandshakeError)
            case ("binary", pcm):
                self.controls = 0
                pcm = self.odd + pcm
                whole = len(pcm) // 2 * 2
                self.odd = pcm[whole:]
                if whole:
                    self.answering = True
                    self.events.append((Audio if self.client else AudioIn)(pcm[:whole], 24_000))
            case ("text", text):
                self.controls = 0
                self.hear_text(text, json.loads(text))
            case ("ping", payload):
                if self.count_control() and self.state is State.OPEN:
                    self.owed += len(payload) + PONG_COST
                    if self.owed > self.options.max_outbox:
                        self.violated(1008)
                        return
                    self.outbox.append(("pong", payload))
            case ("pong", _):
                self.count_control()
            case ("bad", code):
                self.violated(code)
            case ("close", code, reason):
                if self.goodbye is None and not self.send_failed:
                    self.outbox.append(("close", code, reason))
                if self.end_reason is not None:
                    self.finish(Close(code, self.end_reason, "remote"), ConnectionClosed)
                else:
                    self.finish(self.goodbye or Close(code, reason, "remote"), ConnectionClosed)
            case _:
                raise AssertionError(wire)

    def hear_text(self, text: str, said: dict[str, Any]) -> None:
        """Apply one text message."""
        tag = said.pop("t")
        if len(text) > self.options.max_text_size and not self.takes(tag):
            self.violated(1009)
            return
        match tag:
            case "ready":
                self.offered = offered = tuple(said.get("extensions", ()))
                self.events.append(Ready(said["inputSampleRate"], said["outputSampleRate"], offered))
                if "usage" in offered and not self.taken and self.state is State.OPEN:
                    self.taken = True
                    self.put('{"t":"extensions","use":["usage"]}')
            case "extensions" if not self.options.extensions:
                self.events.append(Unknown(tag, text))
            case "extensions" if "usage" in self.options.extensions:
                self.taken = True
                if self.state is State.OPEN:
                    for end in self.held:
                        self.put(end)
                self.held.clear()
            case "extensions":
                pass
            case _ if tag in COMMANDS:
                self.hear_command(tag, text, said)
            case "transcript":
                self.events.append(Transcript(**said))
            case "tool_call" if said["callId"] in self.open:
                self.events.append(Unknown(tag, text))
            case "tool_call":
                self.open[said["callId"]] = None
                self.cut = False
                self.events.append(ToolCall(said["callId"], said["name"], said["arguments"]))
            case "server_tool_call":
                self.events.append(ServerToolCall(**said))
            case "interruption":
                self.abandon_open()
                self.odd = b""
                self.events.append(Interruption(**said))
                if self.answering and not self.taken:
                    self.answering, self.cut = False, True
                    self.events.append(ResponseEnd("interrupted"))
            case "usage":
                read, seconds = said.get("inputTextTokens", 0), said.get("seconds", 0.0)
                heard, spoken = said["inputAudioTokens"], said["outputAudioTokens"]
                self.events.append(Usage(heard, spoken, read, seconds=seconds))
                if not self.taken:
                    if self.answering or not self.cut:
                        self.events.append(ResponseEnd("done"))
                    self.answering = self.cut = False
            case "response" if self.taken:
                self.events.append(ResponseEnd(**said))
            case "response":
                self.events.append(Unknown(tag, text))
            case "error":
                self.events.append(ErrorFrame(**said))
            case "end":
                if self.state is State.OPEN:
                    self.end_reason = said["reason"]
                    self.start_closing()
            case "control":
                self.odd = b""
                kinds = {"commit": Commit(), "clear": Clear(), "end_turn": EndTurn()}
                self.events.append(kinds[said["action"]])
            case "interrupt":
                self.events.append(Interrupt())
            case "tool_result" if said["callId"] in self.open or said["callId"] in self.abandoned:
                self.answered(said["callId"])
                self.events.append(ToolResult(said["callId"], said["output"]))
            case "tool_result":
                self.events.append(Unknown(tag, text))
            case _:
                raise AssertionError(text)

    def takes(self, tag: str) -> bool:
        """Whether a server takes this command of an extension."""
        return not self.client and self.ready and tag in self.options.extensions and tag in COMMANDS

    def hear_command(self, tag: str, text: str, said: dict[str, Any]) -> None:
        """Apply a command of an extension, with all fields that it needs, of the right types or not."""
        if not self.takes(tag):
            self.events.append(Unknown(tag, text))
            return
        problem = self.problem(tag, len(text), said)
        if problem is None:
            self.events.append(COMMAND_OF[tag](said))
            return
        self.events.append(Unknown(tag, text))
        if self.state is State.OPEN:
            error = {"t": "error", "code": f"{tag.upper()}_REFUSED", "message": problem}
            answer = json.dumps(error, separators=(",", ":"))
            if self.queued + len(answer) > self.options.max_outbox:
                self.violated(1008)
            else:
                self.put(answer)

    def problem(self, tag: str, size: int, said: dict[str, Any]) -> str | None:
        """What is wrong with the command, in words, or nothing."""
        if tag == "image":
            image = base64.b64decode(said["data"])
            if not image:
                return "the image is empty; send the content of its file"
            if len(image) > self.options.max_image_size:
                return f"the image has more than {self.options.max_image_size} bytes; send a smaller one"
            return None
        if not isinstance(said.get("text", ""), str):
            return f"this {tag} message is invalid: Expected `str`, got `int` - at `$.text`"
        if size > self.options.max_text_size:
            return f"this {tag} message has more than {self.options.max_text_size} bytes; send a shorter one"
        if said.get("text") == "":
            return "the text is empty; send some"
        if said.get("ms", 0) < 0:
            return "this played message is invalid: Expected `int` >= 0 - at `$.ms`"
        if tag == "update" and not said:
            return "the update changes nothing; set at least one field"
        return None

    def count_control(self) -> bool:
        """Whether one more control frame is allowed."""
        self.controls += 1
        if self.controls > self.options.max_control_frames:
            self.violated(1008)
            return False
        return True

    def answered(self, call_id: str) -> None:
        """A call has its result."""
        del (self.open if call_id in self.open else self.abandoned)[call_id]

    def abandon_open(self) -> None:
        """Nobody waits for the open calls."""
        self.abandoned |= self.open
        self.open.clear()
        while len(self.abandoned) > self.options.max_open_calls:
            oldest = next(iter(self.abandoned))
            del self.abandoned[oldest]
            self.forgotten.add(oldest)

    # Beginning and end

    def opened(self) -> None:
        """The handshake is done."""
        self.state = State.OPEN
        self.timers.clear()
        self.heard = False
        self.start("ping", self.options.ping_interval)
        if self.options.ttl is not None:
            self.start("warning", self.options.ttl - self.options.warn_before)
            if not self.client:
                self.start("expiry", self.options.ttl)

    def over_before_it_began(self, error: type[Exception]) -> None:
        """No session."""
        self.state = State.CLOSED
        self.asked = False
        self.error = error
        self.timers.clear()

    def lost(self) -> None:
        """The transport is gone."""
        if self.state is State.CLOSED:
            return
        self.drop_outbox()
        if self.state is State.CONNECTING:
            self.over_before_it_began(HandshakeError)
            return
        who = "remote" if self.end_reason is not None else "local" if self.goodbye else "transport"
        self.finish(Close(1006, "", who), ConnectionClosed)  # type: ignore[arg-type]

    def violated(self, code: int) -> None:
        """The peer broke the protocol."""
        if self.goodbye is None and not self.send_failed:
            self.outbox.append(("close", code, ""))
        self.finish(Close(code, "", "local"), RemoteProtocolError)

    def finish(self, close: Close, error: type[Exception]) -> None:
        """Over: one `Close`, last."""
        self.state = State.CLOSED
        self.timers.clear()
        self.events.append(close)
        self.error = error

    def drop_outbox(self) -> None:
        """What is queued will never be sent."""
        self.outbox.clear()
        self.queued = self.owed = 0

    def failed_to_send(self) -> None:
        """As `send_failed`."""
        if self.state is State.CLOSED:
            return
        self.send_failed = self.eof = True
        self.drop_outbox()
        self.timers.clear()
        if self.state is State.CONNECTING:
            self.over_before_it_began(HandshakeError)
        else:
            self.state = State.CLOSING

    # Time

    def expire(self, now: float) -> None:
        """It is `now`."""
        self.now = now
        due = sorted((at, name) for name, at in self.timers.items() if at <= now)
        for at, name in due:
            if name in self.timers:
                del self.timers[name]
                self.fire(name, now - at)

    def fire(self, name: str, late: float) -> None:
        """One timer has come."""
        if name == "handshake":
            self.drop_outbox_of_http()
            self.over_before_it_began(HandshakeError)
        elif name == "close":
            self.lost()
        elif name == "warning":
            self.events.append(Expiring(max(0.0, self.options.warn_before - late)))
        elif name == "expiry":
            self.close(1000, "session_expired")
        elif self.heard:
            self.heard = False
            self.start("ping", self.options.ping_interval)
        elif name == "ping":
            self.outbox.append(("ping", b""))
            self.start("pong", self.options.ping_timeout)
        else:
            self.lost()
            self.outbox.append(("close", 1011, "keepalive timeout"))

    def drop_outbox_of_http(self) -> None:
        """A server says why it gives up; a client has nobody to say it to."""
        if not self.client:
            self.outbox.append(("http", 408))

    # Verbs: each returns the type of exception that it raises, or None

    def refusal(self) -> type[Exception] | None:
        """Why nothing can be said now."""
        if self.error is not None:
            return self.error
        if self.state is State.CONNECTING:
            return LocalProtocolError
        if self.state is State.CLOSING:
            return ConnectionClosed
        return None if self.ready else LocalProtocolError

    def say(self, **message: Any) -> type[Exception] | None:
        """Queue a text message."""
        before_ready = message["t"] in ("ready", "error") and self.state is State.OPEN
        if (error := self.refusal()) is not None and not before_ready:
            return error
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        if self.queued + len(text) > self.options.max_outbox:
            return LocalProtocolError
        self.queued += len(text)
        self.outbox.append(("text", text))
        return None

    def command(self, tag: str, **fields: Any) -> type[Exception] | None:
        """As a client's verb for a command of an extension."""
        if (error := self.refusal()) is not None:
            return error
        if self.offered is None or tag not in self.offered:
            return LocalProtocolError
        text = json.dumps({"t": tag, **fields}, separators=(",", ":"))
        if self.problem(tag, len(text), fields) is not None:
            return LocalProtocolError
        return self.say(t=tag, **fields)

    def put(self, text: str) -> None:
        """Queue a text message that is exempt from the limit."""
        self.queued += len(text)
        self.outbox.append(("text", text))

    def usage(self, heard: int, read: int, seconds: float) -> type[Exception] | None:
        """As `send_usage`, and as `send` with further counts."""
        counts: dict[str, float] = {"inputAudioTokens": heard, "outputAudioTokens": 0}
        if self.taken:
            counts |= {"inputTextTokens": read, "outputTextTokens": 0, "inputImageTokens": 0}
            counts |= {"cachedAudioTokens": 0, "cachedTextTokens": 0, "outputReasoningTokens": 0}
            counts["seconds"] = float(seconds)
        return self.say(t="usage", **counts)

    def response_end(self, status: str, reason: str) -> type[Exception] | None:
        """As `send_response_end`."""
        message = {"t": "response", "status": status, **({"reason": reason} if reason else {})}
        if self.taken:
            return self.say(**message)
        offers = "usage" in self.options.extensions
        if (error := self.refusal()) is None and offers and len(self.held) < 16:
            self.held.append(json.dumps(message, separators=(",", ":")))
        return error

    def audio(self, pcm: bytes) -> type[Exception] | None:
        """As `send_audio`."""
        if (error := self.refusal()) is not None:
            return error
        if len(pcm) % 2 or self.queued + len(pcm) > self.options.max_outbox:
            return LocalProtocolError
        self.queued += len(pcm)
        if pcm:
            self.outbox.append(("binary", pcm))
        return None

    def say_ready(self) -> type[Exception] | None:
        """As `send_ready`."""
        if self.ready:
            return self.refusal() or LocalProtocolError
        offered = {"extensions": self.options.extensions} if self.options.extensions else {}
        error = self.say(t="ready", inputSampleRate=24_000, outputSampleRate=24_000, **offered)
        self.ready = error is None
        return error

    def call(self, call_id: str) -> type[Exception] | None:
        """As `send_tool_call`."""
        taken = call_id in self.open or call_id in self.abandoned
        if self.state is State.OPEN and (taken or len(self.open) >= self.options.max_open_calls):
            return LocalProtocolError
        error = self.say(t="tool_call", callId=call_id, name="f", arguments="{}")
        if error is None:
            self.open[call_id] = None
        return error

    def result(self, call_id: str) -> type[Exception] | None:
        """As `send_tool_result`."""
        if self.state is State.OPEN and call_id not in self.open and call_id not in self.abandoned:
            return LocalProtocolError
        error = self.say(t="tool_result", callId=call_id, output="1")
        if error is None:
            self.answered(call_id)
        return error

    def interruption(self) -> type[Exception] | None:
        """As `send_interruption`."""
        if (error := self.refusal()) is not None:
            return error
        self.queued -= sum(len(wire[1]) for wire in self.outbox if wire[0] == "binary")
        self.outbox = [wire for wire in self.outbox if wire[0] != "binary"]
        text = '{"t":"interruption","at":"user"}'
        if self.outbox[-1:] != [("text", text)]:
            self.put(text)
        self.abandon_open()
        return None

    def close(self, code: int, reason: str) -> None:
        """As the connection's, with a code that may be sent."""
        if self.state is State.CLOSED or self.goodbye is not None or self.send_failed:
            return
        self.goodbye = Close(code, reason, "local")
        if self.state is State.CONNECTING:
            self.drop_outbox()
            self.over_before_it_began(ConnectionClosed)
            return
        if not self.client:
            end = json.dumps({"t": "end", "reason": reason}, separators=(",", ":"))
            self.outbox.append(("text", end))
        self.outbox.append(("close", code, reason[:123]))
        if self.state is State.OPEN:
            self.start_closing()

    def start_closing(self) -> None:
        """Goodbye was said, or announced."""
        self.state = State.CLOSING
        self.timers.clear()
        self.start("close", self.options.close_timeout)

    def accept(self) -> None:
        """As the server's, when asked."""
        self.asked = False
        self.outbox.append(("http", 101))
        self.opened()

    def refuse(self, status: int) -> None:
        """As the server's, when asked."""
        self.outbox.append(("http", status))
        self.over_before_it_began(HandshakeError)
