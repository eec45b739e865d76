"""xAI Grok Voice as a dialect, and where to connect for it.

Its events have OpenAI's names and their own habits: what the user said is called complete several times, a
response that the user talks over may never be called done, usage and voice stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ..protocol.errors import LocalProtocolError
from ..protocol.frames import ResponseEnd
from ..protocol.limits import Limits
from ..protocol.mint import SessionConfig
from ..protocol.state import State
from . import codes
from .closes import Service
from .endpoint import AuthStyle, Endpoint, provider_endpoint
from .options import ServerTool
from .provider import PROVIDER_LIMITS
from .realtime import RealtimeDialect
from .realtime import events as wire
from .realtime.gate import Phase
from .realtime.user import first_part, part_of
from .recent_ids import RecentIds
from .xai_config import UpdateSession, XAIOptions, XAIVad, configure

__all__ = ["ServerTool", "XAIDialect", "XAIOptions", "XAIVad", "xai_endpoint"]

_DEFAULT_OPTIONS: Final = XAIOptions()

_REMEMBERED_TEXTS: Final = 256
"""Of the user's: a late word of one of these begins no new turn."""


def xai_endpoint(
    api_key: str,
    model: str,
    *,
    base_url: str = "wss://api.x.ai/v1",
    path: str = "/realtime",
    conversation_id: str | None = None,
    reasoning_effort: str | None = None,
    auth: AuthStyle = "header",
) -> Endpoint:
    """Where and how to connect, with a key or an ephemeral token.

    - `base_url`: may have any path and query of its own; `path` is added to it.
    - `conversation_id`: of an earlier session's `provider_session`, to resume it; `XAIOptions.resumption`
      must be on in both.

    `LocalProtocolError` when something of it can't be used.
    """
    if not model:
        raise LocalProtocolError(
            "xAI needs the name of a model (it silently takes another), and it is empty; "
            "pass for example grok-voice-latest"
        )
    query = [("model", model)]
    if conversation_id is not None:
        query.append(("conversation_id", conversation_id))
    if reasoning_effort is not None:
        query.append(("reasoning.effort", reasoning_effort))
    return provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=query,
        auth=auth,
        subprotocols=("xai-client-secret.",),
    )


class XAIDialect(RealtimeDialect):
    """A session with xAI over WebSocket messages.

    - `config`: the session's parameters; its `provider` and `model` are for `xai_endpoint`. xAI takes and
      gives either of the rates of a Speko session.
    - `options`: what only xAI has.
    - `ttl`: seconds until the session ends, if known: xAI has changed its limit more than once.

    `LocalProtocolError` when the configuration can't be used; `notes` says what of it is not honoured. The
    session is OPEN from the start: the WebSocket is the caller's.
    """

    _service = Service.XAI
    _names_requests = False
    _commits_in_auto = False
    _endings: ClassVar[Mapping[str, str]] = {"max_duration": codes.EXPIRED, "timeout": codes.IDLE_TIMEOUT}

    def __init__(
        self,
        config: SessionConfig,
        *,
        options: XAIOptions = _DEFAULT_OPTIONS,
        limits: Limits = PROVIDER_LIMITS,
        close_timeout: float = 5.0,
        ready_timeout: float = 10.0,
        ttl: float | None = None,
        warn_before: float = 60.0,
        state: State = State.OPEN,
    ) -> None:
        session, rules, notes, input_rate, output_rate = configure(config, options)
        super().__init__(
            rules=rules,
            update=lambda event_id: UpdateSession(event_id=event_id, session=session),
            notes=notes,
            input_sample_rate=input_rate,
            output_sample_rate=output_rate,
            limits=limits,
            close_timeout=close_timeout,
            ready_timeout=ready_timeout,
            ttl=ttl,
            warn_before=warn_before,
            state=state,
        )
        self._resumable = options.resumption
        self._texts = RecentIds(_REMEMBERED_TEXTS)
        """Names of what the user said in turn."""
        self._text: str | None = None
        """The last of them, which may still grow unless it is answered."""
        self._answered = False
        self._said: tuple[str, str] | None = None
        """That text, and its name, when it is called complete and may still grow."""

    @property
    def resumption(self) -> str | None:
        # A session that ended because nobody spoke has nothing to go on with.
        over = not self._may_resume or self._ending.reason == codes.IDLE_TIMEOUT
        return self.provider_session.conversation_id if self._resumable and not over else None

    def _create_response(self) -> tuple[str, wire.ClientEvent]:
        return self._event_id(wire.CreateResponse), wire.CreateResponse()

    def _is_own(self, metadata: Any) -> bool:
        return metadata is not None

    def _cancel(self) -> wire.ClientEvent:
        return self._make(wire.CancelResponse)

    def _arguments_done(self, event: wire.ArgumentsDone) -> None:
        if self._is_live(event.response_id):
            self._issue_call(event.response_id, self._arguments_call(event))

    def _receive_user_text(
        self, event: wire.UserDelta | wire.UserUpdated | wire.UserCompleted | wire.UserFailed
    ) -> None:
        part = part_of(event)
        self._user_goes_on_with(part)
        if not isinstance(event, wire.UserCompleted):
            super()._receive_user_text(event)
            return
        text = event.transcript or ""
        if event.status == "in_progress":
            self._tell(self._user.replace(part, text))
        elif self._answered or part != self._text:
            # It comes late: whoever would have made it final has spoken.
            self._tell(self._user.finish(part, text))
        else:
            # Complete, and yet it comes again when the speaker goes on after a pause.
            self._tell(self._user.replace(part, text))
            self._said = part, text

    def _speech_started(self, item_id: str | None) -> None:
        if item_id is not None:
            self._user_goes_on_with(first_part(item_id))
            self._answered = False
        super()._speech_started(item_id)

    def _audio_committed(self, item_id: str | None) -> None:
        if item_id is not None:
            self._user_goes_on_with(first_part(item_id))
        super()._audio_committed(item_id)

    def _is_live(self, response_id: str | None) -> bool:
        live = super()._is_live(response_id)
        if live:
            self._user_is_done()
            self._answered = not self._turn.speaking
        return live

    def _end_response(self, end: ResponseEnd | None = None) -> None:
        if not self._turn.speaking and self._gate.phase is not Phase.CANCELLING:
            self._user_is_done()
            self._answered = True
            for transcript in self._user.finish_all(but=self._text):
                # It was never called complete, and a whole turn has passed since.
                self._tell(transcript)
        super()._end_response(end)

    def _user_goes_on_with(self, part: str) -> None:
        """The user's words belong to that text: if it is a new one, none before it grows."""
        if self._texts.add(part):
            self._user_is_done()
            self._text = part
            self._answered = False

    def _user_is_done(self) -> None:
        """Someone else speaks: what the user said will not grow."""
        if self._said is not None:
            part, text = self._said
            self._said = None
            self._tell(self._user.finish(part, text))
