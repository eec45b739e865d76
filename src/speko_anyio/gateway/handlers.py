"""What serves a session: a coroutine over a `ServerSession`, found by the provider's name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Final, TypeAlias

from .echo_handler import echo
from .provider_handler import provider_handlers
from .session import ServerSession

Handler: TypeAlias = Callable[[ServerSession], Awaitable[None]]
"""Serves one session and returns when it is done with it; then the session is closed with 1000.

An exception is logged and closes that session, with 1011. When the session ends first, the handler finds
`Close` last among the commands, and is cancelled when it has not returned some seconds later.

A handler that is also an async context manager is entered when the gateway starts and left when it stops.
"""

_LOCAL_NEEDS: Final = ("espeakng_loader", "pocketsphinx", "soxr", "webrtcvad")


def default_handlers() -> dict[str, Handler]:
    """``echo``; ``local``, the offline voice, where its extra is installed; and ``openai``, ``xai`` and
    ``google`` where the environment holds the API key of their account (``OPENAI_API_KEY``, ``XAI_API_KEY``,
    ``GEMINI_API_KEY``; the base URL may be in ``OPENAI_BASE_URL`` and so on).

    `LocalProtocolError` when such a base URL is none.
    """
    handlers: dict[str, Handler] = {"echo": echo, **provider_handlers()}
    if all(find_spec(module) for module in _LOCAL_NEEDS):
        from .local import LocalVoice

        handlers["local"] = LocalVoice()
    return handlers
