"""A session's configuration is converted once, and not on the event loop if that takes long."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from speko_anyio import Google, OpenAI
from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers.google._config import configure
from speko_anyio.providers.google._schema import convert_parameters

pytestmark = pytest.mark.anyio


def configured(properties: int) -> SessionConfig:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(properties)}}
    return SessionConfig(provider="google", model="m", tools=(ToolSpec(name="f", parameters=schema),))


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each conversion of a tool ran in the thread of the event loop."""
    seen: list[bool] = []
    here = threading.get_ident()

    def watched(*given: Any) -> Any:
        seen.append(threading.get_ident() == here)
        return convert_parameters(*given)

    monkeypatch.setattr("speko_anyio.providers.google._config.convert_parameters", watched)
    return seen


async def test_all_connections_of_a_session_share_one_conversion(conversions: list[bool]) -> None:
    prepared = await Google("key").prepare(configured(3))
    first = prepared.connection()
    second = prepared.connection(resumption="handle")
    assert conversions == [True]
    assert second.dialect.resuming
    assert first.dialect.notes == second.dialect.notes


async def test_a_long_conversion_runs_in_a_thread(conversions: list[bool]) -> None:
    await Google("key").prepare(configured(1000))
    assert conversions == [True, False], "tried for a few milliseconds, then done elsewhere"


async def test_a_long_conversion_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(*given: Any, quick: bool) -> Any:
        if not quick:
            go_on.wait(10)
        return configure(*given, quick=quick)

    monkeypatch.setattr("speko_anyio._accounts.configure", slow)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Google("key").prepare, configured(1000))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    go_on.set()


async def test_what_no_budget_allows_is_refused_in_one_sentence() -> None:
    schema = {
        "type": "object",
        "$defs": {"a": {"type": ["string", "integer", "number"], "enum": list(range(4000))}},
        "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(600)},
    }
    config = SessionConfig(provider="google", model="m", tools=(ToolSpec(name="f", parameters=schema),))
    with pytest.raises(LocalProtocolError, match="all tools together"):
        await Google("key").prepare(config)


async def test_other_providers_convert_at_once() -> None:
    config = configured(1000)
    assert (await OpenAI("key").prepare(config)).connection().dialect.notes == ()
