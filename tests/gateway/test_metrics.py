"""`/metrics`: what Prometheus reads after mints, answers, errors and ends, and that labels stay few."""

from __future__ import annotations

import sys

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from speko_anyio._version import __version__
from speko_anyio.gateway import ServerSession, running_gateway
from speko_anyio.gateway._metrics import MAX_ERROR_CODES, Metrics
from speko_anyio.gateway.store import SessionOutcome
from speko_anyio.protocol import AudioIn, Close, Commit, ErrorFrame, Ready, Usage
from speko_anyio.protocol._dialect import OVER_BUDGET

from .support import make_gateway, mint, raw_client

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def read(url: str) -> Samples:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parse(answer.text)


async def answering(session: ServerSession) -> None:
    async for command in session:
        match command:
            case AudioIn():
                pass
            case Commit():
                await session.send_error("TIRED", "yawn")
                await session.send_audio(bytes(48_000))
                await session.send_tool_call("c1", "nap", "{}")
                await session.send_usage(
                    3,
                    5,
                    input_text_tokens=7,
                    output_text_tokens=11,
                    input_image_tokens=13,
                    cached_audio_tokens=1,
                    cached_text_tokens=2,
                    output_reasoning_tokens=17,
                    seconds=1.5,
                )


@pytest.mark.anyio
async def test_a_session_leaves_its_numbers() -> None:
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": answering}, metrics=True)) as url:
            async with httpx.AsyncClient() as http:
                assert (await http.post(f"{url}/v1/sessions", content=b"{}")).status_code == 401
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert await client.hear() == Ready(24000, 24000, ("usage",))
                client.connection.send_audio(bytes(24_000))
                client.connection.commit()
                await client.flush()
                heard: list[object] = []
                while not isinstance(frame := await client.hear(), Usage):
                    heard.append(frame)
                assert ErrorFrame("TIRED", "yawn") in heard
                during = await read(url)
                client.connection.close()
                await client.flush()
                await client.hear_close()
            after = await read(url)
            while not any(name == "speko_sessions_ended_total" for name, _ in after):
                after = await read(url)
    assert value(during, "speko_sessions", provider="echo") == 1
    assert value(during, "speko_buffered_bytes", direction="out", of="fullest") == 0
    assert ("speko_sessions", (("provider", "echo"),)) not in after
    assert value(after, "speko_gateway_info", version=__version__) == 1
    assert value(after, "speko_mints_total", status="201") == 1
    assert value(after, "speko_mints_total", status="401") == 1
    assert value(after, "speko_sessions_started_total", provider="echo") == 1
    ended = {"provider": "echo", "code": "1000", "closed_by": "remote"}
    assert value(after, "speko_sessions_ended_total", **ended) == 1
    assert value(after, "speko_session_seconds_count", provider="echo") == 1
    assert 0 <= value(after, "speko_session_seconds_sum", provider="echo") < 60
    assert value(after, "speko_audio_seconds_total", provider="echo", direction="in") == 0.5
    assert value(after, "speko_audio_seconds_total", provider="echo", direction="out") == 1.0
    assert value(after, "speko_audio_tokens_total", provider="echo", direction="in") == 3
    assert value(after, "speko_audio_tokens_total", provider="echo", direction="out") == 5
    assert value(after, "speko_text_tokens_total", provider="echo", direction="in") == 7
    assert value(after, "speko_text_tokens_total", provider="echo", direction="out") == 11
    assert value(after, "speko_image_tokens_total", provider="echo") == 13
    assert value(after, "speko_cached_tokens_total", provider="echo", kind="audio") == 1
    assert value(after, "speko_cached_tokens_total", provider="echo", kind="text") == 2
    assert value(after, "speko_reasoning_tokens_total", provider="echo") == 17
    assert value(after, "speko_reported_seconds_total", provider="echo") == 1.5
    assert value(after, "speko_tool_calls_total", provider="echo") == 1
    assert value(after, "speko_time_to_first_audio_seconds_count", provider="echo") == 1
    assert value(after, "speko_time_to_first_audio_seconds_bucket", provider="echo", le="10.0") == 1
    assert value(after, "speko_errors_total", provider="echo", code="TIRED") == 1
    assert ("speko_event_loop_lag_seconds_count", ()) in after


@pytest.mark.anyio
async def test_there_are_no_metrics_unless_they_are_asked_for() -> None:
    transport = httpx.ASGITransport(make_gateway().app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        assert (await http.get("/metrics")).status_code == 404


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "speko_anyio.gateway._metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ValueError, match="with the extra `gateway`"):
        make_gateway(metrics=True)


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if line.startswith(name)]


def test_the_codes_of_handlers_and_clients_make_a_bounded_number_of_series() -> None:
    metrics = Metrics(live=list)
    for index in range(3 * MAX_ERROR_CODES):
        metrics.failed("echo", f"CODE_{index}")
    for code in range(4000, 4500):
        metrics.ended("echo", SessionOutcome(close=Close(code, "", "remote")), 1.0)
    metrics.ended("echo", SessionOutcome(), 1.0)
    errors = lines(metrics, "speko_errors_total")
    assert len(errors) == MAX_ERROR_CODES + 1
    assert f'speko_errors_total{{code="other",provider="echo"}} {2.0 * MAX_ERROR_CODES}' in errors
    assert len(lines(metrics, "speko_sessions_ended_total")) <= 4


def test_floods_are_counted_and_nothing_else_is_taken_for_one() -> None:
    metrics = Metrics(live=list)
    for close in (
        Close(1008, OVER_BUDGET, "local"),
        Close(1008, "the peer sent more than 1024 control frames and no message", "local"),
        Close(1008, "idle", "local"),
        Close(1000, "the peer left", "remote"),
        None,
    ):
        metrics.ended("echo", SessionOutcome(close=close), 1.0)
    assert lines(metrics, "speko_floods_total") == ['speko_floods_total{provider="echo"} 2.0']
