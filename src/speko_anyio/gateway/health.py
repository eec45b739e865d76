"""Whether the gateway lives (``/healthz``), and whether new sessions should be sent to it (``/readyz``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    reason: str | None = None


class Health:
    """The two endpoints.

    - `accepting`: whether new sessions are taken.
    - `trouble`: what is wrong with the store; None when nothing is.
    """

    def __init__(self, *, accepting: Callable[[], bool], trouble: Callable[[], str | None]) -> None:
        self._accepting = accepting
        self._trouble = trouble

    async def live(self, request: Request) -> Response:
        """200 as long as the event loop turns: whoever gets no answer restarts the process."""
        return _respond(200, _Answer("ok"))

    async def ready(self, request: Request) -> Response:
        """200, or 503 while it drains or can't reach its records: a load balancer sends new sessions
        elsewhere, and those that live go on."""
        if not self._accepting():
            return _respond(503, _Answer("draining", "the gateway is shutting down"))
        if (trouble := self._trouble()) is not None:
            return _respond(503, _Answer("failing", trouble))
        return _respond(200, _Answer("ready"))


def _respond(status: int, answer: _Answer) -> Response:
    return Response(
        msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
