"""The engine by itself, where no session can lead it. All else of it is tried through ``test_connection.py``
(handshake) and ``test_byte_level.py`` (frames)."""

from __future__ import annotations

import pytest

from speko_anyio.protocol import UpgradeRequest
from speko_anyio.protocol.engine import MAX_HEAD, Engine

from .helpers import TOKEN, client


def test_only_what_was_offered_is_accepted() -> None:
    engine = Engine(client=False)
    events, rest = engine.receive_head(client().data_to_send())
    assert [type(event) for event in events] == [UpgradeRequest]
    assert rest == b""
    with pytest.raises(ValueError, match="other"):
        engine.accept("other", [])
    assert TOKEN.encode() in engine.accept(TOKEN, [])


def test_the_longest_head() -> None:
    assert MAX_HEAD == 16_384
