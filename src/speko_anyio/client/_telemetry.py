"""Reports the length and the end of a session with a provider to the service that granted it.

Best effort: a report never fails or delays a session, and a failed report is not retried.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import anyio
import msgspec

from .._net.http import make_http_client
from .._net.proxies import find_http_proxy
from .._net.user_agent import USER_AGENT
from ..protocol.mint import ProviderGrant, TelemetryTarget

logger: Final = logging.getLogger("speko_anyio.client")

SHORTEST_INTERVAL: Final = 1.0
"""Seconds between reports, whatever the service asks for."""

LONGEST_INTERVAL_MS: Final = 3_600_000
"""Milliseconds: no session lasts longer. An integer of JSON may be too large for a clock."""

REPORT_TIMEOUT: Final = 5.0
"""Seconds for one report."""

LAST_REPORT_TIMEOUT: Final = 2.0
"""Seconds for the report of the end, for which the user's block waits."""


class Telemetry:
    """The reports of one session. `clock` gives seconds that never go back, `now` seconds since 1970."""

    def __init__(
        self,
        grant: ProviderGrant,
        target: TelemetryTarget,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._target = target
        self._session_id = grant.session_id
        self._attempt_id = grant.attempt_id or grant.session_id
        self._longest = None if grant.reservation is None else grant.reservation.authorized_duration_seconds
        self._clock = clock
        self._now = now
        self._started = clock()
        self._sequence = 0

    async def run(self) -> None:
        """Report regularly until cancelled."""
        interval = max(SHORTEST_INTERVAL, min(self._target.flush_interval_ms, LONGEST_INTERVAL_MS) / 1000)
        while True:
            await anyio.sleep(interval)
            await self._report(self._events(), REPORT_TIMEOUT)

    async def finish(self) -> None:
        """Report the end; returns in `LAST_REPORT_TIMEOUT` at the latest, also when it is cancelled."""
        closed = {**self._common("session.closed"), "event_id": f"{self._attempt_id}:session.closed"}
        with anyio.CancelScope(shield=True):
            await self._report([*self._events(), closed], LAST_REPORT_TIMEOUT)

    def _events(self) -> list[dict[str, Any]]:
        self._sequence += 1
        seconds = max(0.0, self._clock() - self._started)
        if self._longest is not None:
            seconds = min(seconds, self._longest)
        usage = self._common("usage.reported")
        usage["event_id"] = f"{self._attempt_id}:usage.reported:{self._sequence}"
        usage["data"] = {"unit": "duration_seconds", "quantity_millis": int(seconds * 1000)}
        return [usage]

    def _common(self, kind: str) -> dict[str, Any]:
        return {
            "type": kind,
            "session_id": self._session_id,
            "attempt_id": self._attempt_id,
            "created_at_ms": int(self._now() * 1000),
        }

    async def _report(self, events: list[dict[str, Any]], timeout: float) -> None:  # noqa: ASYNC109 - not ours to wait for
        headers = {
            "Authorization": f"Bearer {self._target.token}",
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
        }
        try:
            with anyio.move_on_after(timeout):
                async with await make_http_client(find_http_proxy(self._target.endpoint)) as client:
                    content = msgspec.json.encode({"events": events})
                    # The body of the answer is not read.
                    async with client.stream(
                        "POST", self._target.endpoint, headers=headers, content=content, timeout=timeout
                    ) as response:
                        status = response.status_code
                    logger.debug("session %s: telemetry, HTTP %s", self._session_id, status)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the session's
            # Log only its type: the text may hold the request.
            logger.debug("session %s: telemetry failed: %s", self._session_id, type(error).__name__)
