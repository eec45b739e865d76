"""Handlers, the coroutines that serve sessions: the built-in ones, and a check of the operator's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import Any, Final

from speko_anyio._accounts import PROVIDERS, Provider
from speko_anyio._extras import install_extra
from speko_anyio.audio._pcm import SAMPLE_BYTES
from speko_anyio.protocol._commands import AudioIn, Clear, Commit, EndTurn

from ._capabilities import why_not_capabilities
from ._provider_handler import provider_handlers
from ._session import Handler, ServerSession
from .engines import SpeechToText

OWN_NAMES: Final = frozenset({"echo", "local", *(kind.name for kind in PROVIDERS)})
"""Names of the gateway's own handlers, installed or not: what serves a client must not depend on what else is
installed."""

TOKENS_PER_SECOND: Final = 10
"""Audio tokens that `echo` reports for a second of audio: the order of what providers count."""

_LOCAL_NEEDS: Final = ("hibari", "pocketsphinx", "soxr", "webrtcvad")


async def echo(session: ServerSession) -> None:
    """Send the user's audio back as it comes; report every turn's length and usage when it ends.

    For tests, and to measure everything around a handler. The samples are returned unchanged, so with
    different rates they sound at another pitch.
    """
    turn = 0  # bytes of audio since the last commit
    async for command in session:
        match command:
            case AudioIn(pcm=pcm):
                turn += len(pcm)
                await session.send_audio(pcm)
            case Commit() | EndTurn():
                seconds = turn / SAMPLE_BYTES / session.input_sample_rate
                turn = 0
                await session.send_transcript("user", f"{seconds:.2f} seconds of audio", final=True)
                tokens = round(seconds * TOKENS_PER_SECOND)
                await session.send_usage(tokens, tokens)
                await session.send_response_end()
            case Clear():
                turn = 0


def built_in_handlers(*, ear: SpeechToText | None = None) -> dict[str, Handler]:
    """Return those that need no account: ``echo``, and ``local``, the offline voice, if it is installed.

    - `ear`: the offline voice's speech to text, such as `WhisperEar`, in place of its own.

    Raises ValueError if there is an ear, and no offline voice.
    """
    handlers: dict[str, Handler] = {"echo": echo}
    if offline_voice_is_installed():
        from .local import LocalVoice

        handlers["local"] = LocalVoice(ear=ear)
    elif ear is not None:
        raise ValueError(f"the ear's offline voice is not installed; {install_extra('local')}")
    return handlers


def default_handlers(
    *,
    models: Mapping[str, Collection[str]] | None = None,
    provider_options: Mapping[str, Any] | None = None,
    ear: SpeechToText | None = None,
) -> dict[str, Handler]:
    """Return `built_in_handlers`, and a handler for each provider with an API key in the environment.

    These are ``openai``, ``xai`` and ``google``, by ``OPENAI_API_KEY``, ``XAI_API_KEY`` and
    ``GEMINI_API_KEY``; another base URL may be in ``OPENAI_BASE_URL``, ``XAI_BASE_URL`` or
    ``GEMINI_BASE_URL``. Raises `ConfigurationError` for an invalid base URL.

    - `models`: those that clients may use, by the provider's name; any, if the provider is missing.
    - `provider_options`: such as `OpenAIOptions`, by the provider's name; see `ProviderHandler`.
    - `ear`: see `built_in_handlers`.
    """
    accounts = provider_handlers(models=models, provider_options=provider_options)
    return {**built_in_handlers(ear=ear), **accounts}


def offline_voice_is_installed() -> bool:
    """Return whether the packages of the extra ``local`` are installed."""
    return all(find_spec(module) for module in _LOCAL_NEEDS)


def why_not_a_handler(handler: Any) -> str | None:
    """Return what is wrong with an object as a handler, and what to do; None if it can be one."""
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
    return why_not_capabilities(handler)


def _takes_one(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # it has no signature that Python could tell
    return True
