"""One media stream of one call: what every carrier's codec shares."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, NamedTuple

from ..protocol._pcm import Buffer, half_a_sample, pcm_bytes
from ..protocol.errors import LocalProtocolError
from ._events import CallEnded, CallStarted, CarrierEvent
from ._fields import Odd, check_size
from ._signatures import SignedRequest

FRAME: Final = 0.02
"""Seconds of a frame of telephony."""


class ConnectAnswer(NamedTuple):
    """The answer to a carrier's webhook: it connects the call to a media stream in both directions."""

    content_type: str
    body: str


class Frames:
    """Cuts PCM16 into pieces of whole frames, and holds back what is less than a frame."""

    __slots__ = ("_held", "_most", "frame")

    def __init__(self, frame: int, most: int) -> None:
        """Cut into multiples of `frame` bytes, of `most` bytes at the most."""
        self.frame = frame
        self._most = most - most % frame
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes that were pushed and not returned."""
        return len(self._held)

    def push(self, pcm: bytes) -> list[bytes]:
        """Return the pieces that are complete now."""
        pcm = self._held + pcm
        whole = len(pcm) - len(pcm) % self.frame
        self._held = pcm[whole:]
        return [pcm[start : min(start + self._most, whole)] for start in range(0, whole, self._most)]

    def flush(self) -> bytes:
        """Return the rest as a frame, filled up with silence; nothing if there is no rest."""
        rest, self._held = self._held, b""
        return rest.ljust(self.frame, b"\0") if rest else b""

    def clear(self) -> None:
        """Forget the rest."""
        self._held = b""


class CarrierStream(abc.ABC):
    """One media stream of one call, without I/O: WebSocket messages in, events out, and the reverse.

    Give every message of the carrier's WebSocket to `receive_message`, and send what the other methods
    return, in order. `audio`, `flush`, `mark` and `clear` raise `LocalProtocolError` before `CallStarted`. To
    hang up, close the WebSocket: the carrier goes on after `connect_answer`, which has nothing more.
    """

    name: ClassVar[str]
    """The carrier's name, which is the key in `CARRIERS`."""
    signed_with: ClassVar[str]
    """The secret that `verify` takes, in the carrier's words, such as ``auth token``."""
    environment_variable: ClassVar[str]
    """The environment variable that usually holds it, such as ``TWILIO_AUTH_TOKEN``."""
    webhook_setting: ClassVar[str]
    """The setting at the carrier that is the webhook's URL."""
    call_id_field: ClassVar[str] = "CallSid"
    """The field of the webhook with the carrier's id of the call."""
    caller_field: ClassVar[str] = "From"
    """The field of the webhook with the number that calls."""
    called_field: ClassVar[str] = "To"
    """The field of the webhook with the number that is called."""
    has_marks: ClassVar[bool] = True
    """Whether `mark` works."""

    def __init__(self) -> None:
        self.started: CallStarted | None = None
        """The first event; None until it came."""
        self.ended: bool = False
        """Whether the carrier said that the stream is over."""
        self.sample_rate: int = 8000
        """Samples a second, of `CallAudio` and of `audio`. The start of the call sets it."""
        self.unknown: int = 0
        """Messages of unknown kinds, which were ignored."""
        self.out_of_order: int = 0
        """Messages before the start, after the end, or with a sequence number that had passed already."""
        self.last_error: str = ""
        """The carrier's latest complaint about a message that it was sent, in its own words."""
        self._frames = Frames(2, 16_000)
        self._sequence = 0
        self._odd = Odd()

    @property
    def odd_fields(self) -> int:
        """Fields with an odd value, which were ignored."""
        return self._odd.count

    def receive_message(self, message: str | bytes) -> list[CarrierEvent]:
        """Take one WebSocket message; return what it says, which is often nothing.

        Raise `RemoteProtocolError` for a message of more than 64 KiB, for one that is not JSON, and for a
        start or audio that can't be read: the call can't go on then. Everything else that is odd is counted
        and ignored.
        """
        check_size(message, self.name)
        if self.ended:
            self.out_of_order += 1
            return []
        return self._receive(message)

    def audio(self, pcm: Buffer) -> list[str | bytes]:
        """Return the messages for a piece of the assistant's speech: PCM16 mono at `sample_rate`.

        They are cut as the carrier wants them. Less than a frame of the carrier's is held back for the next
        call: see `unsent` and `flush`.
        """
        self._require_start()
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        if len(pcm) % 2:
            raise half_a_sample(len(pcm))
        return [self._media(piece) for piece in self._frames.push(pcm)]

    @property
    def unsent(self) -> int:
        """Bytes of PCM16 that `audio` took and that are in no message yet: less than 20 ms."""
        return self._frames.held

    def flush(self) -> list[str | bytes]:
        """Return the message for the rest, filled up with silence. Call it where the speech ends."""
        self._require_start()
        rest = self._frames.flush()
        return [self._media(rest)] if rest else []

    def mark(self, name: str) -> str | bytes:
        """Return the message that asks for `Marked` when the audio of the messages before it was played."""
        self._require_start()
        return self._mark(name)

    def clear(self) -> str | bytes:
        """Return the message that drops the audio that was sent and not yet played."""
        self._require_start()
        self._frames.clear()
        return self._clear()

    @staticmethod
    @abc.abstractmethod
    def verify(request: SignedRequest, secret: str, *, now: float) -> None:
        """Check that a request comes from the carrier; raise `SignatureError` if not.

        `now`: the time in seconds since 1970.
        """

    @staticmethod
    def check_secret(secret: str) -> None:
        """Raise `LocalProtocolError` if `verify` can't use this secret, or a package for it is missing."""
        return

    @staticmethod
    def signs_websocket(headers: Iterable[str]) -> bool:
        """Return whether the handshake of the media stream's WebSocket has to pass `verify`, too.

        `headers`: the names of its header fields. Some carriers sign it only if their customer asks for it.
        """
        return False

    @staticmethod
    @abc.abstractmethod
    def connect_answer(url: str, parameters: Mapping[str, str] | None = None) -> ConnectAnswer:
        """Return the answer to a webhook that connects the call to a media stream at `url` (``wss://``).

        The `parameters` come back in `CallStarted.parameters`. Raise `LocalProtocolError` for a URL or for
        parameters that the carrier does not take.
        """

    @abc.abstractmethod
    def _receive(self, message: str | bytes) -> list[CarrierEvent]: ...

    @abc.abstractmethod
    def _media(self, pcm: bytes) -> str | bytes: ...

    @abc.abstractmethod
    def _mark(self, name: str) -> str | bytes: ...

    @abc.abstractmethod
    def _clear(self) -> str | bytes: ...

    # For the carriers' modules

    def _is_second_start(self) -> bool:
        """Return whether the call has started already: only the first start counts, in all its fields."""
        self.out_of_order += self.started is not None
        return self.started is not None

    def _begin(self, started: CallStarted) -> list[CarrierEvent]:
        self.started = started
        self.sample_rate = started.sample_rate
        return [started]

    def _follow(self, sequence: int, event: CarrierEvent | None) -> list[CarrierEvent]:
        """Return the event of a message that may only follow the start.

        `sequence` is its number, 0 if it has none; `event` is None if it has to be ignored.
        """
        if self.started is None:
            self.out_of_order += 1
            return []
        if sequence:
            self.out_of_order += sequence <= self._sequence
            self._sequence = max(sequence, self._sequence)
        return [] if event is None else [event]

    def _whole_samples(self, pcm: bytes) -> bytes:
        if len(pcm) % 2:
            self._odd.count += 1
            return pcm[:-1]
        return pcm

    def _end(self, sequence: int) -> list[CarrierEvent]:
        events = self._follow(sequence, CallEnded())
        self.ended = bool(events)
        return events

    def _unknown(self) -> list[CarrierEvent]:
        self.unknown += 1
        return []

    def _require_start(self) -> None:
        if self.started is None:
            raise LocalProtocolError(
                "the call has not started yet; wait for the CallStarted that receive_message returns"
            )
