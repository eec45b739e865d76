"""Metrics of a gateway for Prometheus (``GET /metrics``); needs ``prometheus-client``.

Labels are bounded: providers are the gateway's own, close codes the known ones, error codes a fixed number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from speko_anyio._version import __version__
from speko_anyio.protocol import close_codes

from ._instrumentation import Instrumentation
from ._session import ServerSession
from .store import SessionOutcome

LAG_INTERVAL: Final = 0.5
"""Seconds between two measurements of the event loop's lag."""

MAX_ERROR_CODES: Final = 64
"""Error codes that are counted by name: handlers choose them, and each is a time series for ever."""

OTHER: Final = "other"

_ANSWER_BUCKETS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds; close together around 300 ms, the time that users take for an answer at once."""

_SESSION_BUCKETS: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800)
_LAG_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics(Instrumentation):
    """Counts what happens; `live` returns the open sessions."""

    def __init__(self, live: Callable[[], Collection[ServerSession]]) -> None:
        registry = CollectorRegistry()
        registry.register(_LiveSessions(live))
        self._registry = registry
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        Gauge("speko_gateway_info", "Always 1", ["version"], registry=registry).labels(__version__).set(1)
        self._mints = counter("speko_mints", "Mints by HTTP status", ["status"])
        self._calls_in = counter(
            "speko_phone_webhooks", "Webhooks of phone calls by HTTP status", ["carrier", "status"]
        )
        self._calls_up = counter(
            "speko_phone_streams",
            "WebSockets of phone calls: 101 for those that became sessions, or the status of the refusal",
            ["carrier", "status"],
        )
        self._started = counter("speko_sessions_started", "Sessions", ["provider"])
        self._ended = counter(
            "speko_sessions_ended",
            "Sessions by close code and by who closed them (local: the gateway, remote: the client)",
            ["provider", "code", "closed_by"],
        )
        self._floods = counter("speko_floods", "Sessions whose client sent too much", ["provider"])
        self._seconds = histogram("speko_session_seconds", "Length", ["provider"], buckets=_SESSION_BUCKETS)
        self._audio = counter("speko_audio_seconds", "Audio of ended sessions", ["provider", "direction"])
        self._audio_tokens = counter(
            "speko_audio_tokens", "Tokens of audio of ended sessions", ["provider", "direction"]
        )
        self._text_tokens = counter(
            "speko_text_tokens", "Tokens of text of ended sessions", ["provider", "direction"]
        )
        self._image_tokens = counter(
            "speko_image_tokens", "Tokens of images that went in, of ended sessions", ["provider"]
        )
        self._cached_tokens = counter(
            "speko_cached_tokens",
            "The part of the tokens in that the provider had cached",
            ["provider", "kind"],
        )
        self._reasoning_tokens = counter(
            "speko_reasoning_tokens", "Tokens of reasoning of ended sessions", ["provider"]
        )
        self._reported = counter(
            "speko_reported_seconds", "Seconds of ended sessions that providers reported", ["provider"]
        )
        self._calls = counter("speko_tool_calls", "Tool calls of ended sessions", ["provider"])
        self._answers = histogram(
            "speko_time_to_first_audio_seconds",
            "From the end of the user's turn, as the gateway knows it, to the first audio of the answer",
            ["provider"],
            buckets=_ANSWER_BUCKETS,
        )
        self._errors = counter("speko_errors", "Errors sent to clients", ["provider", "code"])
        self._error_codes: set[str] = set()
        self._lag = histogram(
            "speko_event_loop_lag_seconds", "How late the event loop woke a task", buckets=_LAG_BUCKETS
        )

    async def answer(self, request: Request) -> Response:
        """Answer a scrape of Prometheus."""
        return Response(self.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    async def watch_the_loop(self) -> None:
        """Measure the event loop's lag until cancelled."""
        while True:
            expected = time.perf_counter() + LAG_INTERVAL
            await anyio.sleep(LAG_INTERVAL)
            self._lag.observe(max(0.0, time.perf_counter() - expected))

    def minted(self, status: int) -> None:
        self._mints.labels(str(status)).inc()

    def called(self, carrier: str, status: int) -> None:
        self._calls_in.labels(carrier, str(status)).inc()

    def connected(self, carrier: str, status: int) -> None:
        self._calls_up.labels(carrier, str(status)).inc()

    def started(self, provider: str) -> None:
        self._started.labels(provider).inc()

    def answered(self, provider: str, seconds: float) -> None:
        self._answers.labels(provider).observe(seconds)

    def failed(self, provider: str, code: str) -> None:
        if len(self._error_codes) < MAX_ERROR_CODES:
            self._error_codes.add(code)
        self._errors.labels(provider, code if code in self._error_codes else OTHER).inc()

    def ended(self, provider: str, outcome: SessionOutcome, seconds: float) -> None:
        close = outcome.close
        code = str(close.code) if close is not None and close.code in _KNOWN_CODES else OTHER
        self._ended.labels(provider, code, "nobody" if close is None else close.initiated_by).inc()
        if code == _POLICY and close is not None and close.reason.startswith(_BREACH):
            self._floods.labels(provider).inc()
        self._seconds.labels(provider).observe(seconds)
        self._audio.labels(provider, "in").inc(outcome.input_audio_seconds)
        self._audio.labels(provider, "out").inc(outcome.output_audio_seconds)
        self._audio_tokens.labels(provider, "in").inc(outcome.input_audio_tokens)
        self._audio_tokens.labels(provider, "out").inc(outcome.output_audio_tokens)
        self._text_tokens.labels(provider, "in").inc(outcome.input_text_tokens)
        self._text_tokens.labels(provider, "out").inc(outcome.output_text_tokens)
        self._image_tokens.labels(provider).inc(outcome.input_image_tokens)
        self._cached_tokens.labels(provider, "audio").inc(outcome.cached_audio_tokens)
        self._cached_tokens.labels(provider, "text").inc(outcome.cached_text_tokens)
        self._reasoning_tokens.labels(provider).inc(outcome.output_reasoning_tokens)
        self._reported.labels(provider).inc(outcome.reported_seconds)
        self._calls.labels(provider).inc(sum(outcome.tool_calls.values()))


_POLICY: Final = str(close_codes.POLICY)
_BREACH: Final = "the peer "
"""How the core's own reasons begin, unlike that of an idle session."""

_KNOWN_CODES: Final = frozenset({*range(1000, 1015), close_codes.UNAUTHORIZED})
"""Those of RFC 6455 and our own; a client may close with any of a thousand others."""


class _LiveSessions(Collector):
    """Counts the open sessions when it is scraped."""

    def __init__(self, live: Callable[[], Collection[ServerSession]]) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        sessions = GaugeMetricFamily("speko_sessions", "Open sessions", labels=["provider"])
        buffered = GaugeMetricFamily(
            "speko_buffered_bytes",
            "Bytes that wait: in for the handlers, out for the clients; of all sessions, and of the fullest",
            labels=["direction", "of"],
        )
        count: dict[str, int] = {}
        depths: list[tuple[int, int]] = []
        for session in self._live():
            count[session.provider] = count.get(session.provider, 0) + 1
            depths.append(session.buffered)
        for provider, number in count.items():
            sessions.add_metric([provider], number)
        for index, direction in enumerate(("in", "out")):
            values = [depth[index] for depth in depths]
            buffered.add_metric([direction, "all"], sum(values))
            buffered.add_metric([direction, "fullest"], max(values, default=0))
        return [sessions, buffered]
