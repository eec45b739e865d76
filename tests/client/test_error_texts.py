"""The errors of a session's methods speak to its user, who knows nothing of the core inside."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import anyio
import pytest

from speko_anyio import LocalProtocolError, RealtimeSession, SpekoError
from speko_anyio.protocol import Limits
from speko_anyio.testing.server import connected

pytestmark = pytest.mark.anyio

Call: TypeAlias = Callable[[RealtimeSession], Awaitable[object]]

FOR_EMBEDDERS: Final = (
    "data_to_send",
    "messages_to_send",
    "next_event",
    "receive_data",
    "send_failed",
    "send_ready",
    "outbox ",
    "queue",
    "dialect",
    " core",
)
"""Words of the core's interface, which a user of a session never calls."""

FLOATS: Final[Any] = array("f", [0.5])
"""The type checker refuses it, too."""

MISTAKES: Final[dict[str, tuple[Call, str]]] = {
    "odd number of bytes": (lambda session: session.send_audio(bytes(3)), "whole samples"),
    "more than fits": (lambda session: session.send_audio(bytes(4096)), "pass less at a time"),
    "an array of floats": (lambda session: session.send_audio(FLOATS), "int16"),
    "no such call": (lambda session: session.send_tool_result("nobody", "{}"), "nobody"),
    "a code of the protocol": (lambda session: session.close(1001), "4000 to 4999"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_an_error_names_nothing_that_only_embedders_call(mistake: str) -> None:
    call, advice = MISTAKES[mistake]
    async with connected(limits=Limits(max_outbox=1024)) as (session, _):
        with anyio.fail_after(5), pytest.raises((LocalProtocolError, TypeError)) as caught:
            await call(session)
        text = str(caught.value)
        assert advice in text
        assert [word for word in FOR_EMBEDDERS if word in text] == []


async def test_a_session_that_is_over_says_so_in_the_same_language() -> None:
    async with connected() as (session, _):
        await session.close()
        with pytest.raises(SpekoError) as caught:
            await session.send_audio(bytes(2))
        assert [word for word in FOR_EMBEDDERS if word in str(caught.value)] == []
