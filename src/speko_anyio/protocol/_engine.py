"""The only module that imports wsproto, and the one that absorbs its quirks.

wsproto does the handshake, fragments and closing, and judges every bad frame. Only a client's request and an
acceptance in the usual form bypass it, since it takes half a millisecond for the two. Its gaps and
peculiarities are handled here (observed with wsproto 1.2 and 1.3):

- a frame that can't be parsed is reported as a `CloseConnection` event, like the peer's own close; only the
  state, still OPEN, tells them apart;
- messages arrive in pieces, with no limit on their number or size;
- header values are decoded as ASCII or IDNA without a check: a peer can provoke a UnicodeError;
- an empty read during the handshake means the end of input;
- the handshake's nonce comes from `os.urandom` and can't be passed in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec
import wsproto
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError as WsprotoRemoteError

from . import close_codes
from ._commands import UpgradeRequest
from ._headers import Headers, encode_headers
from ._masking import Entropy
from ._tokens import shown
from .errors import LocalProtocolError

MAX_HEAD: Final = 16 * 1024
"""The most bytes of the peer's HTTP head, including all interim responses before it. h11, nginx and Node's
http module have similar limits."""

_MAX_REFUSAL: Final = 4096  # bytes of a refusal's body that we read for its message
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_KEY: Final = re.compile(rb"(?i)(?<=\r\nsec-websocket-key: )[^\r]+")
_OFFER: Final = re.compile(r"([!-~]([\t -~]*[!-~])?)?\Z")
_USUAL_HEAD: Final = re.compile(
    rb"HTTP/1\.1 101( [ -~]*)?\r\n([!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)+\r\n\Z"
)
_UNUSUAL_FIELDS: Final = frozenset({b"sec-websocket-extensions", b"content-length", b"transfer-encoding"})
_PROOF: Final = re.compile(rb"^sec-websocket-accept:.*", re.IGNORECASE | re.MULTILINE)
_HTTP_1_1: Final = re.compile(rb"\A[^\r\n]* HTTP/1\.1\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d[ \r\n]")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

_MAX_QUOTE: Final = 200
"""Characters of the peer's words that an error shows."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """Client: the server accepted the upgrade."""


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Client: the server refused the upgrade."""

    status: int
    body: str


class Broken(msgspec.Struct, frozen=True, gc=False):
    """The peer broke RFC 6455, or a limit."""

    close_code: int
    reason: str


class TextReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole text message."""

    text: str


class BinaryReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole binary message."""

    data: bytes


class CloseReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer's close; 1005 when it gave no code."""

    code: int
    reason: str


HandshakeEvent: TypeAlias = Accepted | Refused | UpgradeRequest | Broken
FrameEvent: TypeAlias = TextReceived | BinaryReceived | CloseReceived | Broken


class _Offer(msgspec.Struct, frozen=True, gc=False):
    """What a client has asked for."""

    target: str
    subprotocols: list[str]
    headers: list[tuple[bytes, bytes]]
    accept: bytes
    """The proof that the server has read the request."""


def _accept_token(nonce: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(nonce + _GUID, usedforsecurity=False).digest())


def _accepts(head: bytes, offer: _Offer) -> bool:
    """Return whether the server's `head` accepts the offer, in the form that nearly all servers use.

    If this returns False, wsproto judges the head.
    """
    if not _USUAL_HEAD.match(head):
        return False
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-2]]
    # Of fields that come twice, the last counts, as in wsproto.
    fields = {name.lower(): value.strip(b"\t ") for name, _, value in lines}
    if not _UNUSUAL_FIELDS.isdisjoint(fields):
        return False
    subprotocol = fields.get(b"sec-websocket-protocol")
    return (
        fields.get(b"sec-websocket-accept") == offer.accept
        and fields.get(b"upgrade", b"").lower() == b"websocket"
        and fields.get(b"connection", b"").lower() == b"upgrade"
        and (subprotocol is None or subprotocol.decode() in offer.subprotocols)
    )


class Engine:
    """One WebSocket in one role: wsproto without its quirks.

    wsproto's objects take a few KiB, so it keeps them only while in use: an idle session has none.
    """

    __slots__ = (
        "_frames",
        "_handshake",
        "_head",
        "_head_done",
        "_interim",
        "_kind",
        "_offer",
        "_pieces",
        "_refusal",
        "_refusal_body",
        "_secrets",
    )

    def __init__(self, *, client: bool) -> None:
        self._kind = wsproto.ConnectionType.CLIENT if client else wsproto.ConnectionType.SERVER
        self._handshake: wsproto.WSConnection | None = None
        if not client:
            self._handshake = wsproto.WSConnection(self._kind)
        self._frames: Connection | None = None
        self._secrets: tuple[str, ...] = ()
        self._head = bytearray()
        self._head_done = False
        self._interim = 0
        self._offer: _Offer | None = None
        self._refusal: RejectConnection | None = None
        self._refusal_body = bytearray()
        self._pieces: list[str] | list[bytes] = []

    # Handshake

    def request(
        self,
        *,
        host: str,
        target: str,
        subprotocols: Sequence[str],
        headers: Headers,
        secrets: Iterable[str],
        entropy: Entropy,
    ) -> bytes:
        """Make the client's opening request.

        It offers `subprotocols`, which may be none; the server may take one of them or none. `redact` removes
        the `secrets`.
        """
        # The longest first: one secret may be part of another.
        self._secrets = tuple(secrets)
        encoded = encode_headers(headers)
        offered = ", ".join(subprotocols)
        if not _OFFER.match(offered):
            raise LocalProtocolError("a subprotocol can't be sent: it must be visible ASCII on one line")
        key = base64.b64encode(entropy(16))
        self._offer = _Offer(target, list(subprotocols), encoded, _accept_token(key))
        fields = [
            (b"Host", host.encode()),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
            *([(b"Sec-WebSocket-Protocol", offered.encode())] if subprotocols else ()),
            *encoded,
        ]
        head = b"".join([b"%b: %b\r\n" % field for field in fields])
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), head)

    def redact(self, text: str) -> str:
        """Return the peer's `text` for an error, without our secrets: the peer may quote our request."""
        return shown(text, self._secrets, limit=_MAX_QUOTE, replacement="<token>")

    def receive_head(self, data: bytes) -> tuple[list[HandshakeEvent], bytes]:
        """Feed bytes of the handshake; return the events, and the bytes after an upgrade's head."""
        if self._head_done:
            return self._feed_handshake(data), b""
        # A line end may be split between two reads.
        start = max(0, len(self._head) - 3)
        self._head += data
        end = _END_OF_HEAD.search(self._head, start)
        while end is not None and self._offer is not None and _INTERIM.match(self._head):
            # RFC 9110 section 15.2: any number of 1xx responses may precede the final one. wsproto would take
            # the first for a rejection.
            self._interim += end.end()
            del self._head[: end.end()]
            end = _END_OF_HEAD.search(self._head)
        if self._interim + (len(self._head) if end is None else end.end()) > MAX_HEAD:
            return [Broken(close_codes.POLICY, f"its HTTP head is longer than {MAX_HEAD} bytes")], b""
        if end is None:
            return [], b""
        self._head_done = True
        head, rest = bytes(self._head[: end.end()]), bytes(self._head[end.end() :])
        self._head.clear()
        if self._offer is not None:
            if _accepts(head, self._offer):
                self._opened()
                return [Accepted()], rest
            head = self._offer_again(self._offer, head)
        elif not _HTTP_1_1.search(head):
            # RFC 6455 section 4.1: at least 1.1. wsproto does not look.
            return [Broken(close_codes.PROTOCOL_ERROR, "it is not an HTTP/1.1 request")], b""
        events = self._feed_handshake(head)
        if rest and self._refusal is not None:
            return events + self._feed_handshake(rest), b""
        return events, rest

    def _offer_again(self, offer: _Offer, head: bytes) -> bytes:
        """Have wsproto make the request, so that it can judge the answer; return the answer to its request.

        wsproto draws the nonce itself, so the proof is translated.
        """
        self._handshake = wsproto.WSConnection(self._kind)
        request = self._handshake.send(
            Request(
                host="host",
                target=offer.target,
                subprotocols=offer.subprotocols,
                extra_headers=offer.headers,
            )
        )
        key = _KEY.search(request)
        assert key is not None
        old, new = offer.accept, _accept_token(key[0])
        # Not elsewhere: the client's error quotes other fields as they are.
        return _PROOF.sub(lambda proof: proof[0].replace(old, new), head)

    def handshake_eof(self) -> Refused | None:
        """Return the refusal that was under way, if any, when the peer hung up during the handshake."""
        return self._refused() if self._refusal is not None else None

    def _feed_handshake(self, data: bytes) -> list[HandshakeEvent]:
        try:
            self._shaking().receive_data(data)
            events = list(self._handshake_events())
        except WsprotoRemoteError as error:
            return [Broken(close_codes.PROTOCOL_ERROR, self.redact(str(error)))]
        except UnicodeError:
            return [Broken(close_codes.PROTOCOL_ERROR, "a header of its handshake is not ASCII")]
        if events and isinstance(events[0], Accepted):
            self._opened()
        return events

    def _handshake_events(self) -> Iterator[HandshakeEvent]:
        for event in self._shaking().events():
            if isinstance(event, AcceptConnection):
                yield Accepted()
            elif isinstance(event, RejectConnection):
                # Only interim answers have no body, and those were skipped.
                self._refusal = event
            elif isinstance(event, RejectData):
                self._refusal_body += event.data
                if event.body_finished or len(self._refusal_body) > _MAX_REFUSAL:
                    yield self._refused()
                    return
            else:
                assert isinstance(event, Request)
                yield UpgradeRequest(
                    target=event.target,
                    host=event.host,
                    subprotocols=tuple(event.subprotocols),
                    headers=tuple(
                        (name.decode("latin-1"), value.decode("latin-1"))
                        for name, value in event.extra_headers
                    ),
                )

    def _refused(self) -> Refused:
        assert self._refusal is not None
        body = self._refusal_body[:_MAX_REFUSAL].decode(errors="replace")
        return Refused(self._refusal.status_code, body)

    def accept(self, subprotocol: str | None, headers: Headers) -> bytes:
        """Make the server's 101 response with `subprotocol`, one of those offered, or None for none."""
        accept = AcceptConnection(subprotocol=subprotocol, extra_headers=encode_headers(headers))
        answer = self._shaking().send(accept)
        self._opened()
        return answer

    def _shaking(self) -> wsproto.WSConnection:
        assert self._handshake is not None, "the handshake is done"
        return self._handshake

    def _opened(self) -> None:
        # Nothing from the handshake is needed any more: no extension was negotiated.
        self._handshake = self._offer = None
        self._secrets = ()

    # Frames

    def receive(self, data: bytes) -> list[FrameEvent]:
        """Feed bytes of frames, up to the end of one frame at most. Returns whole messages.

        Well-formed pings and pongs must not come here.
        """
        if self._frames is None:
            self._frames = Connection(self._kind)
        self._frames.receive_data(data)
        events: list[FrameEvent] = []
        for event in self._frames.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._pieces.append(event.data)  # type: ignore[arg-type]  # one message has one type
                if event.message_finished:
                    events.append(self._assembled(event))
            else:
                assert isinstance(event, CloseConnection)
                events.append(self._close(event, self._frames.state))
        return events

    def rest(self) -> None:
        """Drop wsproto's state: no frame and no message is under way, and the session is open."""
        self._frames = None

    def _assembled(self, last: TextMessage | BytesMessage) -> FrameEvent:
        pieces, self._pieces = self._pieces, []
        if isinstance(last, TextMessage):
            return TextReceived("".join(pieces))  # type: ignore[arg-type]
        return BinaryReceived(b"".join(pieces))  # type: ignore[arg-type]

    def _close(self, event: CloseConnection, state: ConnectionState) -> FrameEvent:
        if state is not ConnectionState.OPEN:
            return CloseReceived(int(event.code), event.reason or "")
        if event.code == close_codes.INVALID_DATA:
            # The decoder's message has an offset within a piece, which means nothing to a reader.
            return Broken(close_codes.INVALID_DATA, NOT_UTF8)
        return Broken(int(event.code), event.reason or "")


NOT_UTF8: Final = "it sent text that is not UTF-8"
"""Why a text message or a close reason was refused, on every path."""
