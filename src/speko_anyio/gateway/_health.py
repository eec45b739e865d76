"""Whether the gateway takes sessions, and the endpoints that say so: ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from speko_anyio.protocol import close_codes

from ._http_errors import CREATE_FAILED, unavailable

logger: Final = logging.getLogger("speko_anyio.gateway")

SHUTTING_DOWN: Final = "the gateway is shutting down; connect to another one"

NOT_RUNNING: Final = (
    "the gateway is not running; enter its `running()` in the lifespan of the application that mounts it"
)
"""The reason to refuse sessions until `Gateway.running` is entered. Starlette and FastAPI run the lifespan of
the outermost application only."""


class GatewayState(enum.Enum):
    """The state of a gateway, as ``/readyz`` calls it."""

    STOPPED = "stopped"
    """`Gateway.running` was not entered."""
    READY = "ready"
    DRAINING = "draining"


class Availability:
    """Whether the gateway takes requests; everything that refuses one for this reason asks here."""

    def __init__(self) -> None:
        self.state = GatewayState.STOPPED
        self._logged = False

    @property
    def reason(self) -> str | None:
        """Why new sessions are refused; None while they are accepted."""
        if self.state is GatewayState.STOPPED and not self._logged:
            self._logged = True
            logger.error("%s", NOT_RUNNING)
        return {
            GatewayState.STOPPED: NOT_RUNNING,
            GatewayState.READY: None,
            GatewayState.DRAINING: SHUTTING_DOWN,
        }[self.state]

    def check_started(self, code: str) -> None:
        """Raise `RequestError` with `code` before the start: no store is there to ask yet."""
        if self.state is GatewayState.STOPPED:
            self._check(code)

    def check_accepting(self) -> None:
        """Raise `RequestError` unless new sessions are accepted."""
        self._check(CREATE_FAILED)

    def _check(self, code: str) -> None:
        if (reason := self.reason) is not None:
            raise unavailable(code, reason, close_code=close_codes.SERVICE_RESTART)


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    reason: str | None = None


class Health:
    """The two endpoints; `store_failure` asks the store, and returns what is wrong with it, or None."""

    def __init__(
        self, *, availability: Availability, store_failure: Callable[[], Awaitable[str | None]]
    ) -> None:
        self._availability = availability
        self._store_failure = store_failure

    async def live(self, request: Request) -> Response:
        """Answer 200 as long as the event loop runs; a supervisor restarts a process that does not answer."""
        return _respond(200, _Answer("ok"))

    async def ready(self, request: Request) -> Response:
        """Answer 200, or 503 if the gateway is not running, is draining or can't reach its records.

        A load balancer then sends new sessions elsewhere; open sessions continue.
        """
        if (reason := self._availability.reason) is not None:
            return _respond(503, _Answer(self._availability.state.value, reason))
        if (failure := await self._store_failure()) is not None:
            return _respond(503, _Answer("failing", failure))
        return _respond(200, _Answer(GatewayState.READY.value))


def _respond(status: int, answer: _Answer) -> Response:
    return Response(
        msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, media_type="application/json"
    )
