"""Reorders a gateway's frames within what the protocol allows, to test that no client relies on one order."""

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

    The order within each of these stays: audio, the transcripts of either role, tool calls, the news of each
    tool on the server, usage. Nothing overtakes `Ready`, an `Interruption`, a `ResponseEnd`, an `ErrorFrame`
    or `Close`.
    """
    result: list[Frame] = []
    streams: dict[object, deque[Frame]] = {}

    def mix() -> None:
        # Draw each remaining frame with equal chance, so that every allowed order is possible.
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
