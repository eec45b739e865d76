"""The client's session for a client that takes frames instead of WebSocket messages."""

from __future__ import annotations

from ...protocol import _codec as codec
from ...protocol._commands import ToolResult
from ...protocol._extensions import USAGE
from ...protocol._outbox import CloseMessage
from ...protocol._session import ServerFrame, ServerProtocol
from ...protocol.frames import Audio, Ready, Unknown


class FrameClient:
    """A `ServerProtocol` whose outbox is read as frames."""

    __slots__ = ("core",)

    def __init__(self, *, input_sample_rate: int, output_sample_rate: int) -> None:
        self.core: ServerProtocol = ServerProtocol(
            input_sample_rate=input_sample_rate, output_sample_rate=output_sample_rate, extensions=(USAGE,)
        )
        self.core.send_ready()
        self.core.receive_message(codec.encode(codec.UseExtensions((USAGE,))))
        self.core.messages_to_send()

    def next_frame(self) -> ServerFrame | None:
        """Take the next frame; None when nothing waits."""
        match self.core.next_message():
            case None:
                return None
            case bytes() as pcm:
                return Audio(pcm, self.core.output_sample_rate)
            case str() as text:
                frame = codec.decode_from_server(text, [])
                assert not isinstance(frame, codec.End | Ready | Unknown)
                return frame
            case CloseMessage():
                raise AssertionError("a bridge does not close the session itself")

    def answer(self, call_id: str) -> None:
        """Note that a call was answered, so that it no longer counts as open."""
        self.core.receive_message(codec.encode(ToolResult(call_id, "")))
        self.core.next_event()
