"""The application that all examples share: what client and server say. It does no I/O; verbs only queue."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from speko_anyio.protocol import (
    AudioIn,
    ClientDialect,
    Command,
    Commit,
    ConnectionClosed,
    Frame,
    Ready,
    ServerProtocol,
    SpekoError,
    ToolCall,
    ToolResult,
    Transcript,
)

SPEECH = [bytes(960)] * 10
"""What the user says: silence in pieces of 20 ms, PCM16 mono at 24 kHz."""


def utter(session: ClientDialect) -> Iterator[None]:
    """Send one piece of speech per step, then commit. Stop early if the session ends."""
    with contextlib.suppress(ConnectionClosed):
        for piece in SPEECH:
            session.send_audio(piece)
            yield
        session.commit()
        yield


def respond(session: ClientDialect, frame: Frame) -> None:
    """React to a frame as a client."""
    with contextlib.suppress(ConnectionClosed):  # events still arrive after `close`, but verbs raise
        match frame:
            case Ready():
                list(utter(session))
            case ToolCall(call_id=call_id):
                session.send_tool_result(call_id, '{"celsius": 7}')
            case Transcript(role="assistant", final=True):
                session.close(reason="that was all")


def serve(session: ServerProtocol, command: Command) -> None:
    """React to a command as a server: echo the speech, call the weather tool and report its result."""
    with contextlib.suppress(ConnectionClosed):
        match command:
            case AudioIn(pcm=pcm):
                session.send_audio(pcm)
            case Commit():
                session.send_transcript("user", "What is the weather?", final=True)
                session.send_tool_call("call-1", "get_weather", '{"city": "Oslo"}')
            case ToolResult(output=output):
                session.send_transcript("assistant", f"The weather is {output}.", final=True)


def main(talk: Callable[[str, str], Sequence[object]]) -> None:
    """Run an example from the command line and print the events."""
    if len(sys.argv) != 3:
        print(f"usage: python {sys.argv[0]} WS_URL TOKEN", file=sys.stderr)
        sys.exit(2)
    try:
        for event in talk(sys.argv[1], sys.argv[2]):
            print(event)
    except (SpekoError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
