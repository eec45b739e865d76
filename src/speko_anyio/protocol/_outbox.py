"""The outbox of a session: WebSocket messages that wait to be sent, in order and within a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from .errors import LocalProtocolError

_OVERHEAD: Final = 64
"""Bytes that a message takes in addition to its payload; otherwise a flood of tiny pieces of audio would meet
no limit."""

_FEW: Final = 1000
"""Up to so many messages, taking the first away from a list costs next to nothing."""

NO_AUDIO: Final = -1
"""An `audio_limit` that no audio fits."""


class CloseMessage(msgspec.Struct, frozen=True, gc=False):
    """In the outbox: close the WebSocket with this code and reason; nothing follows it."""

    code: int
    reason: str


Message: TypeAlias = str | bytes | CloseMessage
"""A WebSocket message: text, binary, or the end."""


class WireBytes(bytes):
    """Bytes that are sent unchanged among the messages, such as a control frame of `WebSocketCore`."""

    __slots__ = ()


class Outbox:
    """Messages that wait to be taken and sent, oldest first; binary messages are audio.

    It counts payload bytes. Call `check_room` before `put`, unless the message is short and must not be lost.
    """

    __slots__ = ("_taken", "audio_limit", "frame_audio", "limit", "messages", "only_audio", "size")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        """The most bytes of payload to hold."""
        self.audio_limit: int = NO_AUDIO
        """The same for audio while the session sends audio as binary messages; otherwise `NO_AUDIO`."""
        self.frame_audio: Callable[[bytes], bytes] | None = None
        """Makes the frame of a piece of audio, as `WebSocketCore` does before it is queued; None queues it as
        is."""
        self.only_audio: bool = True
        """Whether nothing but audio waits."""
        # A list: there are few at a time, and an empty deque takes 600 bytes.
        self.messages: list[Message] = []
        self.size: int = 0
        """Bytes of payload that wait."""
        self._taken = 0  # messages at the front that were taken from there, of many; never all of them

    @property
    def memory(self) -> int:
        """Approximate memory of the waiting messages: the payload, and an overhead for each."""
        return self.size + _OVERHEAD * (len(self.messages) - self._taken)

    def check_room(self, size: int) -> None:
        """`LocalProtocolError` when `size` further bytes would pass the limit."""
        if self.size + size > self.limit:
            raise self.full()

    def full(self) -> LocalProtocolError:
        """Make the error for exceeding the limit."""
        return LocalProtocolError(
            f"more than {self.limit} bytes (max_outbox) would wait to be sent; "
            "pass less at a time, or wait until the transport has taken what came before"
        )

    def put(self, message: Message) -> None:
        """Append a message that may be sent now."""
        if type(message) is bytes:
            self.size += len(message)
            if self.frame_audio is not None:
                message = self.frame_audio(message)
        else:
            self.size += payload_size(message)
            self.only_audio = False
        self.messages.append(message)

    def put_all(self, texts: Sequence[str]) -> None:
        """Append all of the texts, or none: raises as `check_room`."""
        size = sum(map(payload_size, texts))
        if self.size + size > self.limit:
            raise self.full()
        self.size += size
        self.messages += texts
        self.only_audio = False

    def take(self) -> Message | None:
        """Take the oldest message; None when there is none. Not for audio that is framed already."""
        messages = self.messages
        if not messages:
            return None
        if len(messages) <= _FEW and not self._taken:
            message = messages.pop(0)
        else:
            # A list is slow to give up its first item when it is long: it gives up half of them at a time.
            message = messages[self._taken]
            messages[self._taken] = ""
            self._taken += 1
            if 2 * self._taken >= len(messages):
                self._forget_taken()
        self.size -= len(message) if type(message) is bytes else payload_size(message)
        return message

    def take_all(self) -> list[Message]:
        """Take all messages."""
        if self._taken:
            self._forget_taken()
        messages, self.messages = self.messages, []
        self.size = 0
        self.only_audio = True
        return messages

    def hold_back(self, most: int) -> list[Message]:
        """Take away what lies behind the first messages, which are of `most` bytes together, or one message.

        `give_back` undoes it.
        """
        size = 0
        for index, message in enumerate(self.messages):
            size += 0 if isinstance(message, CloseMessage) else len(message)
            if size >= most:
                later = self.messages[index + 1 :]
                del self.messages[index + 1 :]
                return later
        return []

    def give_back(self, later: list[Message], size: int) -> None:
        """Put back what `hold_back` took away, `size` bytes of payload, after the rest was taken."""
        self.messages.extend(later)
        self.size += size
        self.only_audio = self.only_audio and all(type(message) is bytes for message in later)

    def clear(self) -> None:
        """Forget all messages: they can't reach the peer."""
        self.messages.clear()
        self._taken = self.size = 0

    def drop_audio(self) -> None:
        """Forget the audio: an interruption has made it stale."""
        self._forget_taken()
        self.messages = [message for message in self.messages if type(message) is not bytes]
        # Audio may be framed, so its payload is unknown: count the messages that stay.
        self.size = sum(map(payload_size, self.messages))

    def drop_texts(self, unwanted: Callable[[str], bool]) -> None:
        """Forget the texts for which `unwanted` returns True."""
        self._forget_taken()
        kept: list[Message] = []
        for message in self.messages:
            if isinstance(message, str) and unwanted(message):
                self.size -= payload_size(message)
            else:
                kept.append(message)
        self.messages = kept

    def _forget_taken(self) -> None:
        del self.messages[: self._taken]
        self._taken = 0


def payload_size(message: Message) -> int:
    """Return the bytes of payload in a message other than audio.

    A `CloseMessage` and `WireBytes` count nothing.
    """
    if not isinstance(message, str):
        return 0
    # Half of a surrogate pair counts here and is refused where it matters.
    return len(message) if message.isascii() else len(message.encode(errors="surrogatepass"))
