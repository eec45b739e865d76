"""Every error of the core. Each says whose fault it is, what happened and what to do.

- `SpekoError`: every error that this library raises on purpose
    - `SignatureError`: a request that claims to come from a service does not
    - `ProtocolError`: one side broke the protocol
        - `LocalProtocolError`: your code did; nothing was sent or changed, and the session goes on
        - `RemoteProtocolError`: the peer did; the session is over
    - `HandshakeError`: the session never opened: the peer refused the WebSocket, or did not answer
    - `ConnectionClosed`: the session is over, so this can't be done any more
        - `SessionExpired`: it reached its time limit

(The errors of minting a session over HTTP are in `speko_anyio.errors`.)
"""

from __future__ import annotations

from functools import partial
from typing import Final, Literal, TypeAlias

from ._text import clean

Initiator: TypeAlias = Literal["local", "remote", "transport"]
"""Who ended a session: this side, the peer, or the connection between them."""

LONE_SURROGATE: Final = (
    "the text holds half of a surrogate pair, which UTF-8 can't carry; send whole characters"
)
"""The message of the error for text that can't be encoded."""


class SpekoError(Exception):
    """Every error that this library raises on purpose."""


class ProtocolError(SpekoError):
    """One side broke the protocol: see the two subclasses."""


class LocalProtocolError(ProtocolError):
    """You asked for something the protocol does not allow here.

    Raised before anything was sent or changed: the session is unchanged and can still be used.
    """


class RemoteProtocolError(ProtocolError):
    """The peer sent something it must not. The session is over; what came before it was delivered."""

    def __init__(self, message: str, *, close_code: int) -> None:
        super().__init__(message)
        self.close_code = close_code
        """The WebSocket close code that tells the peer (RFC 6455 section 7.4)."""

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), close_code=self.close_code), self.args


class HandshakeError(SpekoError):
    """The session never opened: the peer refused the WebSocket upgrade, or did not answer in time."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the refusal; None when there was no answer."""

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), status=self.status), self.args


class SignatureError(SpekoError):
    """A request does not come from the service that it claims, or the secret is not that of its account."""


class ConnectionClosed(SpekoError):
    """The session is over. Every call after the end raises this error."""

    def __init__(self, *, code: int, reason: str, initiated_by: Initiator) -> None:
        who = {"local": "this side", "remote": "the peer", "transport": "a lost connection"}[initiated_by]
        because = f": {clean(reason)}" if reason else ""
        super().__init__(f"the session was ended by {who} with code {code}{because}; open a new one to go on")
        self.code = code
        self.reason = reason
        self.initiated_by: Initiator = initiated_by

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), code=self.code, reason=self.reason, initiated_by=self.initiated_by), ()


class SessionExpired(ConnectionClosed):
    """The session is over because it reached its time limit; an `Expiring` frame warned of it."""
