"""The settings that the parts of one gateway share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ._authentication import Authenticator
from ._health import Availability
from ._instrumentation import Instrumentation
from ._session_tokens import TokenSigner
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
