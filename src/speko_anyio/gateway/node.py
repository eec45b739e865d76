"""The settings that the parts of one gateway share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .authentication import Authenticator
    from .health import Availability
    from .instrumentation import Instrumentation
    from .session_tokens import TokenSigner
    from .store import SessionStore


class Node(NamedTuple):
    """One gateway among those that share a store."""

    node_id: str
    store: SessionStore
    authenticator: Authenticator
    signer: TokenSigner
    availability: Availability
    instrumentation: Instrumentation
    now: Callable[[], float]
    """Seconds since the epoch."""
