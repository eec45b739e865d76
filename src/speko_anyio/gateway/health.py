"""Whether the gateway lives (``/healthz``), and whether new sessions should be sent to it (``/readyz``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request


SHUTTING_DOWN: Final = "the gateway is shutting down; connect to another one"

NOT_RUNNING: Final = (
    "the gateway is not running; enter its `running()` in the lifespan of the application that mounts it"
)
"""Why sessions are refused until `Gateway.running` is entered. Starlette and FastAPI run the lifespan of the
outermost application only."""


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    reason: str | None = None


class Health:
    """The two endpoints.

    - `refusing`: why new sessions are refused; None while they are accepted.
    - `trouble`: what is wrong with the store; None when nothing is.
    """

    def __init__(self, *, refusing: Callable[[], str | None], trouble: Callable[[], str | None]) -> None:
        self._refusing = refusing
        self._trouble = trouble

    async def live(self, request: Request) -> Response:
        """200 as long as the event loop turns: whoever gets no answer restarts the process."""
        return _respond(200, _Answer("ok"))

    async def ready(self, request: Request) -> Response:
        """200, or 503 if the gateway is not running, is draining or can't reach its records. A load balancer
        then sends new sessions elsewhere; open sessions continue."""
        if (why := self._refusing()) is not None:
            return _respond(503, _Answer("stopped" if why == NOT_RUNNING else "draining", why))
        if (trouble := self._trouble()) is not None:
            return _respond(503, _Answer("failing", trouble))
        return _respond(200, _Answer("ready"))


def _respond(status: int, answer: _Answer) -> Response:
    return Response(
        msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
