"""Test doubles for applications of this library and for the library itself, without network or delays.

- `fake_session` and `FakeGateway`: a session, or a whole `Speko`, whose service is in memory and scripted
  (`speko_anyio.testing.steps`);
- `virtual_backend`: asyncio and trio on a clock that jumps when there is nothing to do;
- `replay`: a recorded session (`speko_anyio.recording`) played again as a fake; `mumble`: a voice for tests;
- `FakeCarrier`: a phone carrier's end of a call, for applications that answer the phone;
- `speko_anyio.testing.providers`: scripted servers that imitate OpenAI, xAI and Gemini;
- `MemoryStream` and `FakeServer`: the parts that these are made of.

The pytest plugin is `speko_anyio.testing.plugin`; pytest finds it automatically.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._carrier import CallRefused, CarrierSocket, FakeCarrier
    from ._clock import VIRTUAL_BACKENDS, VirtualTimeLoop, virtual_backend
    from ._gateway import FakeGateway, fake_session
    from ._handler import run_handler
    from ._order import reordered
    from ._peer import FakePeer, Script, Step
    from ._phone_line import HeardAnswer
    from ._replaying import peer_of, perform, replay
    from ._streams import MemoryStream, Pipe, stream_pair
    from ._voice import mumble
    from .server import FakeServer, connected, grant

__all__ = [
    "VIRTUAL_BACKENDS",
    "CallRefused",
    "CarrierSocket",
    "FakeCarrier",
    "FakeGateway",
    "FakePeer",
    "FakeServer",
    "HeardAnswer",
    "MemoryStream",
    "Pipe",
    "Script",
    "Step",
    "VirtualTimeLoop",
    "connected",
    "fake_session",
    "grant",
    "mumble",
    "peer_of",
    "perform",
    "reordered",
    "replay",
    "run_handler",
    "stream_pair",
    "virtual_backend",
]

# Loaded on first use: pytest imports this package, for its plugin, in every project that has it installed.
lazy_exports(
    __name__,
    {
        "_carrier": "CallRefused CarrierSocket FakeCarrier",
        "_clock": "VIRTUAL_BACKENDS VirtualTimeLoop virtual_backend",
        "_gateway": "FakeGateway fake_session",
        "_handler": "run_handler",
        "_order": "reordered",
        "_replaying": "peer_of perform replay",
        "_peer": "FakePeer Script Step",
        "_phone_line": "HeardAnswer",
        "server": "FakeServer connected grant",
        "_streams": "MemoryStream Pipe stream_pair",
        "_voice": "mumble",
    },
)
