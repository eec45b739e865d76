"""What a handler takes besides speech, which its sessions offer to clients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from speko_anyio.protocol.capabilities import UPDATABLE, Capabilities
from speko_anyio.protocol.mint import SessionConfig

from ._session import Handler

_HandlerT = TypeVar("_HandlerT")


def takes(capabilities: Capabilities) -> Callable[[_HandlerT], _HandlerT]:
    """Declare what a handler takes besides speech: its sessions offer it to clients.

    ::

        @takes(Capabilities(text=True, say="verbatim"))
        async def bot(session: ServerSession) -> None:
            async for command in session:
                match command:
                    case TextIn(text=text): ...
                    case Say(text=text): ...

    A handler that is an object has an attribute ``capabilities`` instead: a `Capabilities`, or a function
    that returns the one for a `SessionConfig`. A handler without either gets only the commands of the plain
    protocol, and that is all its clients see.
    """

    def declare(handler: _HandlerT) -> _HandlerT:
        declared: Any = handler
        declared.capabilities = capabilities
        return handler

    return declare


def capabilities_of(handler: Handler, config: SessionConfig) -> Capabilities | None:
    """Return what `handler` declares for a session of `config`; None if it declares nothing."""
    declared: Capabilities | Callable[[SessionConfig], Capabilities] | None = _declared(handler)
    return declared(config) if callable(declared) else declared


def why_not_capabilities(handler: Any) -> str | None:
    """Return what is wrong with what `handler` declares, and what to do; None if nothing is."""
    declared = _declared(handler)
    if isinstance(declared, Capabilities):
        return _why_not_valid(declared)
    if declared is None or (callable(declared) and not isinstance(declared, type)):
        return None
    return "its `capabilities` are not Capabilities; declare Capabilities(text=True) or the like"


def _why_not_valid(declared: Capabilities) -> str | None:
    try:
        # A Struct does not check the types of what is passed to it.
        msgspec.convert(msgspec.to_builtins(declared), Capabilities)
    except msgspec.ValidationError as error:
        return f"its `capabilities` are not valid ({error}); correct them"
    if unknown := [name for name in declared.update if name not in UPDATABLE]:
        return f"its `capabilities.update` has {unknown[0]!r}; choose from {', '.join(UPDATABLE)}"
    return None


def _declared(handler: Any) -> Any:
    while isinstance(handler, functools.partial) and not hasattr(handler, "capabilities"):
        handler = handler.func
    return getattr(handler, "capabilities", None)
