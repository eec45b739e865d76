"""The processes beside the one that measures: a provider that sends back the speech it hears, and a gateway.

Each reports on request how much CPU time it has used, and exits when its pipe is closed.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import anyio
import anyio.to_thread
from application_heap import fill_heap

from speko_anyio import XAI, Google, OpenAI
from speko_anyio.gateway import Gateway, ProviderHandler, running_gateway
from speko_anyio.testing.providers import (
    GoogleDouble,
    GoogleSession,
    OpenAIDouble,
    OpenAISession,
    ProviderDouble,
    XAIDouble,
    XAISession,
)

PROVIDER_KEY: Final = "test-key"
GATEWAY_KEY: Final = "bench-key-0123456789"

ACCOUNTS: Final[dict[str, Any]] = {"openai": OpenAI, "xai": XAI, "google": Google}


class _Echo:
    """Sends each piece of the user's audio back as a piece of one endless response."""

    _place: Final = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}

    def _update(self: Any, message: Any) -> None:
        super()._update(message)  # type: ignore[misc]
        self._event("response.created", response={"id": "r", "object": "realtime.response"})

    def _append(self: Any, message: Any) -> None:
        self._event("response.output_audio.delta", **self._place, delta=message["audio"])
        self.received.clear()
        self.sent.clear()


class _EchoOpenAI(_Echo, OpenAISession):
    pass


class _EchoXAI(_Echo, XAISession):
    pass


class _EchoGoogle(GoogleSession):
    def _receive_audio(self, blob: Any) -> None:
        turn = {"role": "model", "parts": [{"inlineData": blob}]}
        self._send({"serverContent": {"modelTurn": turn}})
        self.received.clear()
        self.sent.clear()


class _EchoOpenAIDouble(OpenAIDouble):
    _session_type = _EchoOpenAI


class _EchoXAIDouble(XAIDouble):
    _session_type = _EchoXAI


class _EchoGoogleDouble(GoogleDouble):
    _session_type = _EchoGoogle


_DOUBLES: Final[dict[str, Callable[[], ProviderDouble[Any]]]] = {
    "openai": _EchoOpenAIDouble,
    "xai": _EchoXAIDouble,
    "google": _EchoGoogleDouble,
}


class Helper:
    """Handle of one of these processes, which listens at `url`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        url = pipe.recv()
        assert isinstance(url, str)
        self.url = url

    def cpu(self) -> float:
        """Return the seconds of CPU time used so far."""
        self._pipe.send("cpu")
        seconds = self._pipe.recv()
        assert isinstance(seconds, float)
        return seconds


@contextmanager
def _running(serve: Callable[[Connection], None]) -> Iterator[Helper]:
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=serve, args=(its,), daemon=True)
    process.start()
    its.close()
    try:
        yield Helper(ours)
    finally:
        ours.close()
        process.join(10)
        process.kill()


def provider(name: str) -> Any:
    """Run the double of that provider during the block."""
    return _running(partial(_serve_provider, name))


def gateway(name: str, base_url: str) -> Any:
    """Run a gateway to the provider at `base_url` during the block."""
    return _running(partial(_serve_gateway, name, base_url))


async def _answer(pipe: Connection, url: str) -> None:
    pipe.send(url)
    while True:
        try:
            await anyio.to_thread.run_sync(pipe.recv)
        except EOFError:
            return
        pipe.send(time.process_time())


def _serve_provider(name: str, pipe: Connection) -> None:
    fill_heap()

    async def serve() -> None:
        async with _DOUBLES[name]().serve() as url:
            await _answer(pipe, url)

    anyio.run(serve, backend_options={"use_uvloop": True})


def _serve_gateway(name: str, base_url: str, pipe: Connection) -> None:
    fill_heap()

    async def serve() -> None:
        account = ACCOUNTS[name](api_key=PROVIDER_KEY, base_url=base_url)
        handlers = {name: ProviderHandler(account)}
        async with running_gateway(Gateway(handlers=handlers, api_keys=[GATEWAY_KEY])) as url:
            await _answer(pipe, url)

    anyio.run(serve, backend_options={"use_uvloop": True})
