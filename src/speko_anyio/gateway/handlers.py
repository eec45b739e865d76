"""What serves a session: a coroutine over a `ServerSession`, found by the provider's name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from speko_anyio.accounts import PROVIDERS, Provider

from .echo_handler import echo
from .provider_handler import provider_handlers
from .session import ServerSession

Handler: TypeAlias = Callable[[ServerSession], Awaitable[None]]
"""Serves one session and returns when it is done with it; then the session is closed with 1000.

An exception is logged and closes that session, with 1011. When the session ends first, the handler finds
`Close` last among the commands, and is cancelled when it has not returned some seconds later.

A handler that is also an async context manager is entered when the gateway starts and left when it stops.
"""

OWN_NAMES: Final = frozenset({"echo", "local", *(kind.name for kind in PROVIDERS)})
"""Of the gateway's own handlers, whether they are there or not: what serves a client must not depend on what
else is installed."""

_LOCAL_NEEDS: Final = ("espeakng_loader", "pocketsphinx", "soxr", "webrtcvad")


def built_in_handlers() -> dict[str, Handler]:
    """Those that need no account: ``echo``, and ``local``, the offline voice, if its extra is installed."""
    handlers: dict[str, Handler] = {"echo": echo}
    if all(find_spec(module) for module in _LOCAL_NEEDS):
        from .local import LocalVoice

        handlers["local"] = LocalVoice()
    return handlers


def default_handlers() -> dict[str, Handler]:
    """`built_in_handlers`, and ``openai``, ``xai`` and ``google`` where the environment holds the API key of
    an account (``OPENAI_API_KEY``, ``XAI_API_KEY``, ``GEMINI_API_KEY``; another base URL may be in
    ``OPENAI_BASE_URL``, ``XAI_BASE_URL``, ``GEMINI_BASE_URL``).

    `ConfigurationError` when such a base URL is none.
    """
    return {**built_in_handlers(), **provider_handlers()}


def why_not_a_handler(handler: Any) -> str | None:
    """What is wrong with an object that is to be a handler, and what to do; None when it can be one."""
    if isinstance(handler, type):
        return "it is a class; use an instance of it"
    if isinstance(handler, Provider):
        return f"it is a provider; use ProviderHandler({type(handler).__name__}())"
    called = handler
    while isinstance(called, functools.partial):
        called = called.func
    if not (inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(type(called).__call__)):
        return "it is not async; write `async def` with one argument, the session"
    if not _takes_one(handler):
        return "it can't be called with the session alone; give it that one argument"
    return None


def _takes_one(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # it has no signature that Python could tell
    return True
