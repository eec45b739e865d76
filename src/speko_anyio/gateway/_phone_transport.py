"""A phone call as the client of a session: a carrier's messages on one side, the session's on the other."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Final, get_args

import anyio
from anyio.lowlevel import checkpoint

from speko_anyio._net.event_loop import clock
from speko_anyio._observe.redaction import quote
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._dialect import NEED_DATA
from speko_anyio.protocol._outbox import CloseMessage
from speko_anyio.protocol._state import State
from speko_anyio.protocol.frames import Close, Interruption, Ready, Role, ToolCall
from speko_anyio.telephony import Digit, deliver
from speko_anyio.telephony._bridge import CALLER_HUNG_UP, GOODBYE_TIMEOUT

if TYPE_CHECKING:
    from speko_anyio.protocol._session import ClientProtocol, ServerProtocol
    from speko_anyio.protocol.frames import Frame
    from speko_anyio.telephony import PhoneBridge

    from ._message_link import MessageTransport

logger: Final = logging.getLogger("speko_anyio.gateway")

CUT_OFF: Final = 2.0
"""Seconds that the line gets to play the last audio of a session that did not end normally, such as when the
gateway restarts; otherwise it is `GOODBYE_TIMEOUT`."""

_CLOSE_TIMEOUT: Final = 1.0
"""Seconds to write the close of the carrier's WebSocket."""

_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

_MESSAGES_PER_TURN: Final = 16
"""Messages of the carrier that are read or written in one turn of the event loop."""

_LOOK: Final = 0.02
"""Seconds after which a session that waits for the line looks whether it was interrupted."""

_POLITE: Final = frozenset({close_codes.NORMAL, close_codes.SERVICE_RESTART})
"""Codes of a session that ends without an error: the carrier's WebSocket is closed with 1000."""

_NO_TOOLS: Final = '{"error": "tools are not available on this phone line"}'
"""The result of each call of a tool, which the client of a session runs."""

_INTERRUPTIONS: Final = frozenset(codec.encode(Interruption(role)) for role in get_args(Role))

_OPEN: Final = State.OPEN


class PhoneTransport:
    """The `MessageTransport` of a session whose client is a phone call.

    - `carrier`: moves the messages of the carrier's WebSocket, on which the call has started.
    - `bridge`: joins the call to `client`, the client's core of the session.
    - `server`: the server's core of the session. The carrier's messages use up its budget, and an
      interruption that waits there ends a wait for the line.
    - `close_timeout`: seconds that the session waits for an answer to its close.
    - `greeting`: whether the assistant is asked to speak first, with instructions if it is text.
    """

    def __init__(
        self,
        carrier: MessageTransport,
        bridge: PhoneBridge,
        *,
        client: ClientProtocol,
        server: ServerProtocol,
        session_id: str,
        close_timeout: float,
        greeting: bool | str,
    ) -> None:
        self._carrier = carrier
        self._bridge = bridge
        self._client = client
        self._server = server
        self._session_id = session_id
        self._cut_off = min(CUT_OFF, close_timeout / 2)
        self._greeting = greeting
        self._now = clock()
        self._ready = anyio.Event()
        self._reading = anyio.CancelScope()
        self._flushing = False
        self._moved = 0
        self._goodbye: CloseMessage | None = None
        self._lost = False
        self._ignored_digits = 0

    # For the session

    async def receive(self) -> str | bytes | CloseMessage | None:
        # The session's rates and abilities come first: what the client may send depends on them.
        await self._ready.wait()
        while True:
            if self._goodbye is not None:
                if self._goodbye.code != close_codes.NORMAL:
                    await self._hang_up(self._cut_off)
                return self._goodbye
            if self._lost:
                return None  # a connection that broke; any other end has a goodbye
            if (message := self._client.next_message()) is not None:
                return message
            if self._server.budget.due:
                return b""  # not audio, but a chance for the session to check the budget
            await self._listen()

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, bytes) and not await self._has_room():
            return
        self._client.receive_message(message)
        while (frame := self._client.next_event()) is not NEED_DATA:
            self._hear(frame)
        await self._flush()

    async def close(self, code: int, reason: str) -> None:
        self._end(CloseMessage(code, reason))
        self._bridge.send_frame(Close(code, reason, "local"), self._now())
        self._ready.set()
        self._reading.cancel()

    # After the session

    async def leave(self) -> None:
        """Let the caller hear the end, and hang up by closing the carrier's WebSocket: in a bounded time."""
        await self._hang_up(GOODBYE_TIMEOUT)
        self._log_losses()

    async def _hang_up(self, patience: float) -> None:
        """Close the carrier's WebSocket once the line has played everything, or after `patience` seconds."""
        budget = self._server.budget
        with anyio.move_on_after(patience):
            while not (self._bridge.done or self._lost):
                await self._listen()
                if budget.due and not budget.keeps(self._now()):
                    break
        if self._lost:
            return
        self._lost = True
        goodbye = self._goodbye or CloseMessage(close_codes.NORMAL, "")
        code = goodbye.code if self._bridge.error is None else self._bridge.error.close_code
        with contextlib.suppress(*_GONE), anyio.move_on_after(_CLOSE_TIMEOUT):
            await self._carrier.close(close_codes.NORMAL if code in _POLITE else code, goodbye.reason)

    def _log_losses(self) -> None:
        stats = self._bridge.stats
        losses = {
            "keys ignored, since the handler takes no text": self._ignored_digits,
            "keys lost": stats.dropped_digits,
            "s of the caller's audio lost": stats.dropped_audio,
            "s of the last audio not played": stats.cut_goodbye,
        }
        told = [f"{count:g} {what}" for what, count in losses.items() if count]
        if told:
            logger.info("session %s: its call had %s", self._session_id, ", ".join(told))

    # The carrier

    async def _listen(self) -> None:
        """Take the carrier's next message, or act on the bridge's next deadline."""
        await self._take_turns()
        raw: str | bytes | CloseMessage | None = ""
        with anyio.CancelScope(deadline=self._deadline()) as self._reading:
            try:
                raw = await self._carrier.receive()
            except _GONE:
                raw = None
        bridge, now = self._bridge, self._now()
        if raw == "" and self._reading.cancelled_caught:
            bridge.handle_timeout(now)
        elif isinstance(raw, str | bytes):
            self._server.budget.spent += 1
            bridge.receive_message(raw, now)
        else:
            self._lost = True
            self._take_end(raw)
        self._take_events()
        with contextlib.suppress(*_GONE):
            # What follows says how the call ended.
            await self._flush()

    def _take_end(self, close: CloseMessage | None) -> None:
        """Note that the carrier has closed its WebSocket, or that it was lost."""
        bridge = self._bridge
        if close is None:
            bridge.receive_lost()
            return
        bridge.receive_close(close.code, close.reason)
        goodbye = bridge.goodbye
        hung_up = goodbye is not None and goodbye.reason == CALLER_HUNG_UP
        self._end(CloseMessage(close_codes.NORMAL, CALLER_HUNG_UP) if hung_up else close)

    def _take_events(self) -> None:
        bridge, client = self._bridge, self._client
        while (event := bridge.next_event()) is not NEED_DATA:
            if isinstance(event, Digit):
                self._ignored_digits += 1
            elif client.state is not _OPEN:
                continue  # the session is over, and the rest is not for it
            else:
                deliver(event, client)
        goodbye = bridge.goodbye
        if goodbye is None or self._lost:
            return
        if bridge.error is None:
            client.close(goodbye.code, goodbye.reason)
        else:
            reason = quote(str(bridge.error))
            logger.warning("session %s: the carrier broke its protocol: %s", self._session_id, reason)
            client.close(bridge.error.close_code, goodbye.reason)

    def _end(self, goodbye: CloseMessage) -> None:
        if self._goodbye is None:
            self._goodbye = goodbye

    async def _flush(self) -> None:
        """Send what the line may have now. Of two tasks, the one that sends already sends for both."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while (message := self._bridge.next_message(self._now())) is not None:
                await self._take_turns()
                await self._carrier.send(message)
        finally:
            self._flushing = False
            self._reading.deadline = self._deadline()

    async def _take_turns(self) -> None:
        self._moved += 1
        if not self._moved % _MESSAGES_PER_TURN:
            # A server that has many messages ready, or room for them, never waits.
            await checkpoint()

    def _deadline(self) -> float:
        deadline = self._bridge.next_deadline()
        return math.inf if deadline is None else deadline

    # The session's messages

    def _hear(self, frame: Frame) -> None:
        client = self._client
        if isinstance(frame, Ready):
            if self._greeting and client.capabilities.respond:
                client.respond(self._greeting if isinstance(self._greeting, str) else "")
            self._ready.set()
        elif isinstance(frame, ToolCall) and client.state is _OPEN:
            client.send_tool_result(frame.call_id, _NO_TOOLS)
        self._bridge.send_frame(frame, self._now())

    async def _has_room(self) -> bool:
        """Wait until the bridge takes more audio; return False if it would not be played anyway."""
        while self._bridge.session_must_wait:
            interrupted = not _INTERRUPTIONS.isdisjoint(self._server.outbox.messages)
            # A session that ends must be closed in time, and the line has enough for its last words.
            if interrupted or self._server.state is not _OPEN:
                return False
            await anyio.sleep(_LOOK)
            await self._flush()
        return True
