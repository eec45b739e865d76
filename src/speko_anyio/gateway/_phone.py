"""`Phone`: how a gateway serves the calls of one carrier."""

from __future__ import annotations

from typing import Any

import msgspec


class Phone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a gateway serves the calls of one carrier: each call becomes a session of `handler`.

    ::

        Gateway(
            handlers=default_handlers(),
            phones={"twilio": Phone(handler="local")},
            public_url="https://voice.example.com",
            api_keys=[...],
        )

    The handler finds the call in its session's metadata, under ``phone``: ``carrier``, ``call_id``, and
    ``caller`` and ``called`` if the carrier tells them. ``parameters`` are those of the query of the
    webhook's URL. The session's record keeps all of it.
    """

    handler: str
    """The name of a handler of the gateway."""
    auth_token: str | None = None
    """What the carrier's signatures are checked with: the account's auth token (Twilio, Plivo), public key
    (Telnyx) or signature secret (Vonage). None: from the environment, ``TWILIO_AUTH_TOKEN``,
    ``PLIVO_AUTH_TOKEN``, ``TELNYX_PUBLIC_KEY`` or ``VONAGE_SIGNATURE_SECRET``."""
    unsigned: bool = False
    """For development: check no signatures, and take calls only from this machine."""
    greeting: bool | str = True
    """Whether the assistant speaks first, if the handler can; a text gives it instructions for that."""
    barge_in: bool = False
    """Whether the gateway stops the assistant as soon as the caller talks over it, and interrupts the session
    then. Otherwise only the handler does that."""
    model: str | None = None
    """The handler's model; None for its usual one."""
    voice: str | None = None
    system_prompt: str | None = None
    temperature: float | None = None
    metadata: dict[str, Any] = {}
    """Further metadata of each session, such as ``provider_options``."""
    ttl_seconds: int | None = None
    """Seconds that a call may last; None for the gateway's maximum, 30 minutes."""
    max_calls: int | None = None
    """Calls at once, on all nodes that share the store."""
    calls_per_minute: int | None = None
    """Calls within any 60 seconds, on all nodes that share the store."""
    minutes_per_day: int | None = None
    """Minutes of calls within a day of UTC, on all nodes that share the store."""

    def __repr__(self) -> str:
        return f"Phone(handler={self.handler!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("handler", self.handler)]
