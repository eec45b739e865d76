"""OpenAI Realtime (GA) as a dialect, and where to connect for it.

Also for servers that are compatible with it: `openai_endpoint` takes any base URL and path, the beta's event
names are understood, and nothing depends on an event or a field that such servers are known to leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import UNSET

from ..protocol.errors import LocalProtocolError
from ..protocol.limits import Limits
from ..protocol.mint import SessionConfig
from ..protocol.state import State
from . import codes
from .closes import Service
from .endpoint import AuthStyle, Endpoint, provider_endpoint
from .openai_config import (
    SAMPLE_RATE,
    OpenAIOptions,
    SemanticVad,
    ServerVad,
    UpdateSession,
    check_model,
    configure,
)
from .options import ServerTool
from .provider import PROVIDER_LIMITS
from .realtime import RealtimeDialect
from .realtime import events as wire

__all__ = [
    "OpenAIDialect",
    "OpenAIOptions",
    "SemanticVad",
    "ServerTool",
    "ServerVad",
    "openai_endpoint",
]

SESSION_SECONDS: Final = 3600.0
"""How long OpenAI lets a session live; it gives no warning."""

_DEFAULT_OPTIONS: Final = OpenAIOptions()
_OWN_REQUEST: Final = "client_event_id"


def openai_endpoint(
    api_key: str,
    model: str,
    *,
    base_url: str = "wss://api.openai.com/v1",
    path: str = "/realtime",
    auth: AuthStyle = "header",
) -> Endpoint:
    """Where and how to connect, with a key or an ephemeral token.

    `base_url` may have any path and query of its own, and may be ``http`` or ``https`` as in other clients
    of OpenAI; `path` is added to it. `LocalProtocolError` when something of it can't be used.
    """
    if not model:
        raise LocalProtocolError(
            "OpenAI needs the name of a model, and it is empty; pass for example gpt-realtime-2.1"
        )
    check_model(model)
    return provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=(("model", model),),
        auth=auth,
        subprotocols=("realtime", "openai-insecure-api-key."),
    )


class OpenAIDialect(RealtimeDialect):
    """A session with OpenAI, or with a server that speaks its protocol, over WebSocket messages.

    - `config`: the session's parameters; its `provider` and `model` are for `openai_endpoint`.
    - `options`: what only OpenAI has.
    - `ttl`: seconds until the session ends, by default OpenAI's own limit; see `Expiring`.

    `LocalProtocolError` when the configuration can't be used; `notes` says what of it is not honoured. The
    session is OPEN from the start: the WebSocket is the caller's. Audio is 24 kHz in both directions.
    """

    _service = Service.OPENAI
    _names_requests = True
    _commits_in_auto = True
    _endings: ClassVar[Mapping[str, str]] = {"session_expired": codes.EXPIRED}

    def __init__(
        self,
        config: SessionConfig,
        *,
        options: OpenAIOptions = _DEFAULT_OPTIONS,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = SESSION_SECONDS,
        warn_before: float = 60.0,
        state: State = State.OPEN,
    ) -> None:
        session, rules, notes = configure(config, options)
        super().__init__(
            rules=rules,
            update=lambda event_id: UpdateSession(event_id=event_id, session=session),
            notes=notes,
            input_sample_rate=SAMPLE_RATE,
            output_sample_rate=SAMPLE_RATE,
            limits=limits,
            close_timeout=close_timeout,
            ready_timeout=ready_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=state,
        )

    def _create_response(self) -> tuple[str, wire.ClientEvent]:
        event_id = self._event_id(wire.CreateResponse)
        # The metadata comes back with the response: that is how ours is told from the turn detection's.
        own = wire.ResponseParams({_OWN_REQUEST: event_id})
        return event_id, wire.CreateResponse(event_id=event_id, response=own)

    def _is_own(self, metadata: Any) -> bool:
        return wire.dig(metadata, str, _OWN_REQUEST) == self._gate.asked

    def _answers_old_request(self, metadata: Any) -> bool:
        request = wire.dig(metadata, str, _OWN_REQUEST)
        return request is not None and request != self._gate.asked

    def _cancel(self) -> wire.ClientEvent:
        response_id = self._gate.response_id
        return self._make(wire.CancelResponse, response_id=UNSET if response_id is None else response_id)

    def _arguments_done(self, event: wire.ArgumentsDone) -> None:
        # Sent for interrupted calls, too. Whether this one is complete shows at the end of the item or, on
        # servers that leave that out, at the end of the response.
        if self._is_live(event.response_id):
            self._unconfirmed.append(self._arguments_call(event))
