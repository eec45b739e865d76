"""The session's state machine as a table, the same for both roles.

`TRANSITIONS` alone decides every transition; a missing pair is a bug of the caller, never a mistake of the
peer. The couplings that no table of (state, signal) can hold are in `calls.py` (a tool result needs an open
call) and in `dialect.py` (nothing follows `Close`). The diagram in the documentation is drawn from this table
(``docs/diagrams.py``).
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Where a session is in its life."""

    CONNECTING = "connecting"
    """The WebSocket handshake is under way; nothing can be sent yet."""
    OPEN = "open"
    """Both sides talk."""
    CLOSING = "closing"
    """One side has said goodbye: nothing more is sent, but what the peer still sends is delivered."""
    CLOSED = "closed"
    """Over."""


class Signal(enum.Enum):
    """What can happen to a session."""

    OPENED = "handshake completed"
    REFUSED = "handshake refused"
    MESSAGE_SENT = "message sent"
    """In states without a transition for this, nothing may be sent."""
    MESSAGE_RECEIVED = "message received"
    """In states without a transition for this, messages are ignored."""
    END_RECEIVED = "end received"
    """The peer's ``{"t": "end"}``, which announces its close."""
    CLOSE_SENT = "close sent"
    CLOSE_RECEIVED = "close received"
    VIOLATED = "peer broke the protocol"
    SEND_FAILED = "sending failed"
    """Sending failed. Nothing more is sent, but what the peer still says is delivered."""
    LOST = "transport lost or timed out"


_S = State
_E = Signal

TRANSITIONS: Final[dict[tuple[State, Signal], State]] = {
    (_S.CONNECTING, _E.OPENED): _S.OPEN,
    (_S.CONNECTING, _E.REFUSED): _S.CLOSED,
    # Giving up before the handshake is done: there is no peer yet to say goodbye to.
    (_S.CONNECTING, _E.CLOSE_SENT): _S.CLOSED,
    (_S.CONNECTING, _E.VIOLATED): _S.CLOSED,
    (_S.CONNECTING, _E.SEND_FAILED): _S.CLOSED,
    (_S.CONNECTING, _E.LOST): _S.CLOSED,
    (_S.OPEN, _E.MESSAGE_SENT): _S.OPEN,
    (_S.OPEN, _E.MESSAGE_RECEIVED): _S.OPEN,
    # After `end` the peer ignores whatever we send.
    (_S.OPEN, _E.END_RECEIVED): _S.CLOSING,
    (_S.OPEN, _E.CLOSE_SENT): _S.CLOSING,
    # The echo of the peer's close is queued in the same step, so there is nothing left to wait for.
    (_S.OPEN, _E.CLOSE_RECEIVED): _S.CLOSED,
    (_S.OPEN, _E.VIOLATED): _S.CLOSED,
    (_S.OPEN, _E.SEND_FAILED): _S.CLOSING,
    (_S.OPEN, _E.LOST): _S.CLOSED,
    (_S.CLOSING, _E.MESSAGE_RECEIVED): _S.CLOSING,
    (_S.CLOSING, _E.END_RECEIVED): _S.CLOSING,
    (_S.CLOSING, _E.CLOSE_SENT): _S.CLOSING,
    (_S.CLOSING, _E.CLOSE_RECEIVED): _S.CLOSED,
    (_S.CLOSING, _E.VIOLATED): _S.CLOSED,
    (_S.CLOSING, _E.SEND_FAILED): _S.CLOSING,
    (_S.CLOSING, _E.LOST): _S.CLOSED,
}


def transition(state: State, signal: Signal) -> State:
    """Return the state after `signal`; AssertionError, a bug of this library, if there is none."""
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        raise AssertionError(f"bug in speko_anyio: {signal.name} in state {state.name}") from None
