"""Test doubles for applications of this library, and for the library itself: no network, no waiting.

- `fake_session` and `FakeGateway`: a session, or a whole `Speko`, whose service is in memory and scripted
  (`speko_anyio.testing.steps`);
- `virtual_backend`: asyncio and trio on a clock that jumps when there is nothing to do;
- `Recorder`, `Recording`, `replay`: sessions written down, and played again as fakes;
- `draw_timeline`: who spoke when, as a picture; `mumble`: somebody to speak;
- `speko_anyio.testing.providers`: servers that speak as OpenAI, xAI and Gemini do, scripted as well;
- `MemoryStream` and `FakeServer`: what these are made of.

The pytest plugin is `speko_anyio.testing.plugin`; pytest finds it by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .clock import VIRTUAL_BACKENDS, VirtualTimeLoop, virtual_backend
    from .gateway import FakeGateway, fake_session
    from .handler import serve
    from .order import reordered
    from .peer import FakePeer
    from .picture import draw_timeline
    from .recorder import Recorder
    from .recording import Moment, Recording, RecordingError
    from .replaying import peer_of, perform, replay
    from .script import Script, Step
    from .server import FakeServer, connected, grant
    from .streams import MemoryStream, Pipe, stream_pair
    from .timeline import Timeline, timeline_of
    from .voice import mumble

__all__ = [
    "VIRTUAL_BACKENDS",
    "FakeGateway",
    "FakePeer",
    "FakeServer",
    "MemoryStream",
    "Moment",
    "Pipe",
    "Recorder",
    "Recording",
    "RecordingError",
    "Script",
    "Step",
    "Timeline",
    "VirtualTimeLoop",
    "connected",
    "draw_timeline",
    "fake_session",
    "grant",
    "mumble",
    "peer_of",
    "perform",
    "reordered",
    "replay",
    "serve",
    "stream_pair",
    "timeline_of",
    "virtual_backend",
]

# Loaded on first use: pytest imports this package, for its plugin, in every project that has it installed.
_HOMES: Final = {
    **dict.fromkeys(("VIRTUAL_BACKENDS", "VirtualTimeLoop", "virtual_backend"), "clock"),
    **dict.fromkeys(("FakeGateway", "fake_session"), "gateway"),
    "serve": "handler",
    "reordered": "order",
    "FakePeer": "peer",
    "draw_timeline": "picture",
    "Recorder": "recorder",
    **dict.fromkeys(("Moment", "Recording", "RecordingError"), "recording"),
    **dict.fromkeys(("peer_of", "perform", "replay"), "replaying"),
    **dict.fromkeys(("Script", "Step"), "script"),
    **dict.fromkeys(("FakeServer", "connected", "grant"), "server"),
    **dict.fromkeys(("MemoryStream", "Pipe", "stream_pair"), "streams"),
    **dict.fromkeys(("Timeline", "timeline_of"), "timeline"),
    "mumble": "voice",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
