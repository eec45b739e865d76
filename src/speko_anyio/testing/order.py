"""Other orders in which a gateway may send the same frames; no client may rely on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from random import Random

from ..protocol.frames import (
    Close,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    Transcript,
    Unknown,
)


def reordered(frames: Iterable[Frame], random: Random) -> list[Frame]:
    """Return the frames in another order that the protocol allows, drawn from `random`.

    Each of these keeps its own order: audio, the transcripts of either role, tool calls, the news of each
    tool on the server, usage. Nothing passes `Ready`, an `Interruption`, a `ResponseEnd`, an `ErrorFrame` or
    `Close`.
    """
    result: list[Frame] = []
    streams: dict[object, deque[Frame]] = {}

    def mix() -> None:
        # Each frame that is left has the same chance, so that every order that is allowed can come.
        while streams:
            keys = list(streams)
            (key,) = random.choices(keys, [len(streams[key]) for key in keys])
            result.append(streams[key].popleft())
            if not streams[key]:
                del streams[key]

    for frame in frames:
        if isinstance(frame, Ready | Interruption | ResponseEnd | ErrorFrame | Close):
            mix()
            result.append(frame)
        else:
            streams.setdefault(_stream(frame), deque()).append(frame)
    mix()
    return result


def _stream(frame: Frame) -> object:
    match frame:
        case Transcript(role=role):
            return role
        case ServerToolCall(id=id):
            return ServerToolCall, id
        case Unknown(t=t):
            return Unknown, t
        case _:
            return type(frame)
