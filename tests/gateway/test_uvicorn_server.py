"""`running_gateway` and `serve`: start, stop, and what can go wrong with either."""

from __future__ import annotations

import functools
import logging
import math
import signal
import socket
from types import TracebackType
from typing import Any, cast

import anyio
import httpx
import pytest
import uvicorn
from anyio.abc import TaskStatus
from uvicorn.protocols.http.h11_impl import H11Protocol

from speko_anyio import OpenAI
from speko_anyio.gateway import Gateway, Handler, ProviderHandler, ServerSession, echo, running_gateway, serve
from speko_anyio.gateway import _uvicorn_server as uvicorn_server
from speko_anyio.protocol import Close, HandshakeError, Ready
from tests.support.event_loops import event_loop

from .support import KEY, Recorder, make_gateway, mint, raw_client

pytestmark = pytest.mark.anyio


class Voice:
    """A handler that must be entered, such as the offline voice."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.log: list[str] = []

    async def __aenter__(self) -> Voice:
        if self.error is not None:
            raise self.error
        self.log.append("enter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.append("exit")

    async def __call__(self, session: ServerSession) -> None:
        self.log.append("session")
        await echo(session)
        self.log.append("done")


async def test_it_serves_while_the_block_runs_and_not_longer() -> None:
    async with running_gateway(make_gateway()) as url:
        grant = await mint(url)
        assert grant.ws_url.startswith(url.replace("http", "ws"))
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


class TestOnVirtualTime:
    @pytest.fixture
    def anyio_backend(self) -> Any:
        return event_loop("virtual asyncio")

    async def test_it_stops_as_soon_as_nobody_is_connected_any_more(self) -> None:
        start = anyio.current_time()
        async with httpx.AsyncClient() as http:
            async with running_gateway(make_gateway()) as url:
                assert (await http.get(f"{url}/healthz")).status_code == 200
        assert anyio.current_time() - start < 0.05


async def test_the_same_gateway_can_be_started_again() -> None:
    gateway = make_gateway()
    for _ in range(2):
        async with running_gateway(gateway) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)


async def test_stopping_closes_the_sessions_with_1012_and_waits_for_their_handlers() -> None:
    voice = Voice()
    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": voice, "also": voice})) as url:
            grant = await mint(url)
            stream = raw_client(grant.ws_url, grant.ws_token)
            client = await stream.__aenter__()
            assert isinstance(await client.hear(), Ready)
        assert voice.log == ["enter", "session", "done", "exit"]
        assert await client.hear_close() == Close(1012, "the gateway is restarting", "remote")
        await stream.__aexit__(None, None, None)


async def test_patience_lets_a_session_finish() -> None:
    recorder = Recorder()
    gateway = make_gateway({"echo": recorder})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            stop = anyio.Event()

            async def run(*, task_status: TaskStatus[str]) -> None:
                async with running_gateway(gateway, patience=15) as url:
                    task_status.started(url)
                    await stop.wait()

            grant = await mint(await tasks.start(run))
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)
                stop.set()
                await anyio.wait_all_tasks_blocked()
                client.connection.close(4000, "had my say")
                await client.flush()
                assert await client.hear_close() == Close(4000, "had my say", "local")
    assert recorder.commands == [Close(4000, "had my say", "remote")]


async def test_a_draining_gateway_refuses_new_sessions() -> None:
    gateway = make_gateway()
    async with running_gateway(gateway) as url:
        grant = await mint(url)
        await gateway.drain()
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            with pytest.raises(HandshakeError, match="shutting down") as caught:
                await client.hear()
        assert caught.value.status == 503


async def test_serve_tells_its_url_and_runs_until_cancelled() -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            gateway = make_gateway()
            url = await tasks.start(lambda **kwargs: serve(gateway, port=0, **kwargs))
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                assert isinstance(await client.hear(), Ready)
                assert gateway.live_sessions == 1
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    assert (await client.hear_close()).code == 1012


async def test_a_port_that_is_taken_is_an_error_of_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with running_gateway(make_gateway(), port=taken.getsockname()[1]):
            raise AssertionError


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_it_listens_on_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    async with running_gateway(make_gateway(), host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert (await mint(url)).ws_url.startswith("ws://[::1]:")


async def test_a_handler_that_can_not_start_is_an_error_of_the_caller() -> None:
    first = Voice()
    with pytest.raises(ValueError, match="no models"):
        async with running_gateway(make_gateway({"a": first, "b": Voice(ValueError("no models"))})):
            raise AssertionError
    assert first.log == ["enter", "exit"]


async def test_an_error_of_the_block_leaves_bare() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running_gateway(make_gateway()):
            raise ZeroDivisionError


async def test_cancelling_the_block_stops_the_server() -> None:
    voice = Voice()
    with anyio.fail_after(20), anyio.CancelScope() as scope:
        async with running_gateway(make_gateway({"echo": voice})):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert voice.log == ["enter", "exit"]


async def test_a_server_that_fails_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: uvicorn.Server) -> None:
        raise RuntimeError("uvicorn broke")

    monkeypatch.setattr(uvicorn.Server, "main_loop", fail)
    with anyio.fail_after(20), pytest.raises(RuntimeError, match="uvicorn broke"):
        async with running_gateway(make_gateway()):
            pass


async def test_a_server_that_fails_ends_the_block(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("there the server runs in a thread, and its failure is raised when the block ends")

    async def fail(self: uvicorn.Server) -> None:
        raise RuntimeError("uvicorn broke")

    monkeypatch.setattr(uvicorn.Server, "main_loop", fail)
    with anyio.fail_after(20), pytest.raises(RuntimeError, match="uvicorn broke"):
        async with running_gateway(make_gateway()):
            await anyio.sleep_forever()


async def test_no_signal_handler_and_no_log_configuration_is_touched() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handlers = list(logging.getLogger("uvicorn").handlers)
    async with running_gateway(make_gateway()):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        assert logging.getLogger("uvicorn").handlers == handlers
    assert logging.getLogger("uvicorn.error").filters == []


async def test_a_refusal_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        running_gateway(make_gateway()) as url,
        raw_client(f"{url.replace('http', 'ws')}/v1/realtime/x", "wrong") as client,
    ):
        with pytest.raises(HandshakeError):
            await client.hear()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_variables_of_other_servers_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    async with running_gateway(make_gateway()) as url:
        await mint(url)


@pytest.mark.parametrize("itself", [True, False])
async def test_the_application_runs_its_handlers_under_any_server(itself: bool) -> None:
    """By ASGI's own lifespan, as another server would drive it: the gateway or its `app`."""
    voice = Voice()
    gateway = make_gateway({"echo": voice})
    app = gateway if itself else gateway.app
    to_app, app_receives = anyio.create_memory_object_stream[dict[str, Any]](2)
    app_sends, from_app = anyio.create_memory_object_stream[Any](2)
    with to_app, app_receives, app_sends, from_app, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, {"type": "lifespan"}, app_receives.receive, app_sends.send)
            await to_app.send({"type": "lifespan.startup"})
            assert await from_app.receive() == {"type": "lifespan.startup.complete"}
            assert voice.log == ["enter"]
            await to_app.send({"type": "lifespan.shutdown"})
            assert await from_app.receive() == {"type": "lifespan.shutdown.complete"}
    assert voice.log == ["enter", "exit"]


def test_a_gateway_needs_a_handler() -> None:
    with pytest.raises(ValueError, match="at least one handler"):
        Gateway(handlers={}, api_keys=[KEY])


async def _with_two(session: ServerSession, other: int) -> None: ...


class _Bot:
    async def __call__(self, session: ServerSession) -> None: ...


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        (_Bot(), "handlers must be a dict of handlers by the provider's name, .* not _Bot"),
        (echo, "handlers must be a dict .* not function"),
        ([echo], "handlers must be a dict .* not list"),
        ({3: echo}, "a handler's name must be a str, not int"),
        ({"my-bot": 3}, "can't use the handler 'my-bot': it is not async; write `async def`"),
        ({"my-bot": None}, "can't use the handler 'my-bot': it is not async"),
        ({"my-bot": lambda session: None}, "can't use the handler 'my-bot': it is not async"),
        ({"echo": echo, "my-bot": print}, "can't use the handler 'my-bot': it is not async"),
        ({"my-bot": _Bot}, "can't use the handler 'my-bot': it is a class; use an instance of it"),
        ({"my-bot": _with_two}, "can't use the handler 'my-bot': it can't be called with the session alone"),
        ({"openai": OpenAI("k")}, r"'openai': it is a provider; use ProviderHandler\(OpenAI\(\)\)"),
    ],
)
def test_what_is_no_handler_is_refused(handlers: Any, expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        Gateway(handlers=handlers, api_keys=["k"])


def test_what_can_be_a_handler() -> None:
    bot = _Bot()
    handlers: dict[str, Handler] = {
        "partial": functools.partial(_with_two, other=1),
        "object": bot,
        "method": bot.__call__,
        "partial of an object": functools.partial(bot),
        "provider": ProviderHandler(OpenAI("k")),
    }
    assert Gateway(handlers=handlers, api_keys=["k"]).providers == handlers.keys()


async def test_a_gateway_is_an_asgi_application_itself() -> None:
    gateway = Gateway(handlers={"echo": echo}, api_keys=["k"])
    async with gateway.running(), httpx.AsyncClient(transport=httpx.ASGITransport(gateway)) as http:
        assert (await http.get("http://gateway/healthz")).status_code == 200


def test_uvicorn_takes_a_gateway_for_an_asgi_application() -> None:
    config = uvicorn.Config(Gateway(handlers={"echo": echo}, api_keys=["k"]), log_config=None)
    config.load()
    assert config.interface == "asgi3"


def test_a_gateway_knows_its_providers() -> None:
    assert make_gateway({"a": echo, "b": echo}).providers == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_lifetime", 0),
        ("token_lifetime", -1),
        ("close_timeout", -1.0),
        ("close_timeout", math.nan),
        ("handler_grace", -0.1),
        ("handler_grace", math.nan),
        ("transcript_retention", 0),
        ("record_retention", 86_399),
        ("record_retention", math.nan),
    ],
)
def test_times_that_can_not_work_are_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        make_gateway(**options)


def test_what_it_accepts_sends_without_delay() -> None:
    with uvicorn_server._listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_parser_of_http_has_a_limit_for_headers() -> None:
    """Also where httptools is installed, which uvicorn would prefer."""
    protocol = cast("functools.partial[Any]", uvicorn_server._config(make_gateway()).http)
    assert issubclass(cast(type, protocol.func), H11Protocol)


async def test_no_log_level_shows_a_token(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("uvicorn.error", "uvicorn.asgi"):
        caplog.set_level(1, name)
    async with running_gateway(make_gateway()) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
    assert grant.ws_token not in caplog.text
    assert [record for record in caplog.records if record.levelno < logging.INFO] == []


async def test_a_server_that_ends_leaves_the_logs_of_another_one_alone() -> None:
    async with running_gateway(make_gateway()):
        before = list(logging.getLogger("uvicorn.error").filters)
        async with running_gateway(make_gateway()):
            pass
        assert logging.getLogger("uvicorn.error").filters == before != []


async def test_text_that_is_not_utf8_ends_its_session_and_is_not_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    async with running_gateway(make_gateway({"echo": recorder})) as url:
        grant = await mint(url)
        async with raw_client(grant.ws_url, grant.ws_token) as client:
            assert isinstance(await client.hear(), Ready)
            await client.stream.send(b"\x81\x81" + bytes(4) + b"\xff")
            assert (await client.hear_close()).code == 1007
        await recorder.wait_done()
    assert isinstance(recorder.commands[-1], Close)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
