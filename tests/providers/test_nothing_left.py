"""Nothing is carried over: neither into the next response nor to the next connection."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from speko_anyio.protocol import Audio
from speko_anyio.providers.realtime._gate import RESPONSE_TIMEOUT

from .realtime_talk import audio, created, done, openai, xai


@pytest.mark.parametrize("make", [openai, xai])
def test_half_a_sample_does_not_shift_the_next_response(make: Callable[[], Any]) -> None:
    """Also when its item reuses the id of the previous one."""
    talk = make().make_ready()
    talk.hear(created("r1"), audio("r1", "a", base64.b64encode(b"\1\0\1").decode()), done("r1"))
    frames = talk.hear(created("r2"), audio("r2", "a", base64.b64encode(b"\2\0\2\0").decode()))
    assert [frame.pcm for frame in frames if isinstance(frame, Audio)] == [b"\2\0\2\0"]


@pytest.mark.parametrize("make", [openai, xai])
def test_the_wait_for_the_end_of_a_cut_response_ends_with_it(make: Callable[[], Any]) -> None:
    talk = make().make_ready()
    talk.hear(created("r1"), audio("r1", "a"))
    talk.dialect.interrupt()
    talk.hear(done("r1", "cancelled"), created("r2"), audio("r2", "b"))
    assert talk.wait(RESPONSE_TIMEOUT + 1) == []
    assert [type(frame) for frame in talk.hear(audio("r2", "b"))] == [Audio]
    assert talk.dialect.responding
