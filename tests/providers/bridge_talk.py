"""A bridge made ready for a test: what the client says and hears, what the provider hears and says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from speko_anyio.protocol import (
    Close,
    CloseMessage,
    Command,
    Limits,
    State,
)
from speko_anyio.protocol._resampling import ResamplingFactory
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._provider import PROVIDER_LIMITS, ProviderDialect
from speko_anyio.providers.bridge import Bridge, ClientFrame
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.openai import OpenAIDialect, OpenAIOptions
from speko_anyio.providers.realtime import RealtimeDialect
from speko_anyio.providers.xai import XAIDialect, XAIOptions

from . import google_talk, realtime_talk
from .fake_resampling import FakeResampling

Json = dict[str, Any]
DialectT = TypeVar("DialectT", bound=ProviderDialect)
CREATED: Json = {"type": "session.created", "session": {"id": "sess_1"}}
UPDATED: Json = {"type": "session.updated", "session": {}}


class BridgeTalk(Generic[DialectT]):
    """Plays both sides of one bridge.

    `make` makes a dialect for a resumption; with `opening` the provider becomes ready.
    """

    def __init__(
        self,
        make: Callable[[str | None, State], DialectT],
        check: Callable[[Json], None] | None,
        opening: tuple[Json, ...],
        *,
        rates: tuple[int, int] = (24_000, 24_000),
        ready: bool = True,
        bridge_class: type[Bridge] = Bridge,
        resampling: ResamplingFactory = FakeResampling,
        **parameters: Any,
    ) -> None:
        self.bridge = bridge_class(
            input_sample_rate=rates[0],
            output_sample_rate=rates[1],
            resampling=resampling,
            **parameters,
        )
        self._make = make
        self._check = check
        self._opening = opening
        self.now = 100.0
        self.resumptions: list[str | None] = []
        self.closing: CloseMessage | None = None
        self.closed: Close | None = None
        if ready:
            self.connect()
            self.tell(*opening)
            self.sent()

    @property
    def provider(self) -> ProviderDialect:
        provider = self.bridge.provider
        assert provider is not None
        return provider

    def wants_connection(self) -> bool:
        return self.bridge.wanted is not None

    def waits_for_client(self) -> bool:
        return self.bridge.provider_must_wait

    def waits_for_provider(self) -> bool:
        return self.bridge.client_must_wait

    def bytes_for_client(self) -> int:
        """What waits for the client."""
        return self.bridge._client.queued

    def is_done(self) -> bool:
        return self.bridge.done

    def connect(self, state: State = State.OPEN) -> DialectT:
        """The connection that the bridge wants; it is open, or still to be dialled."""
        assert self.bridge.wanted is not None
        self.resumptions.append(self.bridge.wanted.resumption)
        dialect = self._make(self.bridge.wanted.resumption, state)
        self.closing = None
        self.bridge.attach(dialect, self.now)
        return dialect

    def make_ready(self) -> list[ClientFrame]:
        """A connection, and the provider accepts the session on it."""
        self.connect()
        return self.hear(*self._opening)

    def say(self, *commands: Command) -> list[ClientFrame]:
        """The client says these; what it hears of that at once."""
        for command in commands:
            self.bridge.receive_command(command, self.now)
        return self.frames()

    def tell(self, *messages: Json) -> None:
        """The provider says these."""
        for message in messages:
            with self.bridge.at(self.now):
                self.provider.receive_message(json.dumps(message))

    def hear(self, *messages: Json) -> list[ClientFrame]:
        """The provider says these; what the client hears."""
        self.tell(*messages)
        return self.frames()

    def provider_closes(self, code: int = 1000, reason: str = "") -> list[ClientFrame]:
        with self.bridge.at(self.now):
            self.provider.receive_close(code, reason)
        return self.frames()

    def provider_is_lost(self) -> list[ClientFrame]:
        with self.bridge.at(self.now):
            self.provider.receive_lost()
        return self.frames()

    def frames(self) -> list[ClientFrame]:
        """What the client hears."""
        frames: list[ClientFrame] = []
        while (frame := self.bridge.next_frame()) is not None:
            assert self.closed is None, "something follows Close"
            if isinstance(frame, Close):
                self.closed = frame
            frames.append(frame)
        return frames

    def sent(self) -> list[Json]:
        """What the provider is told, checked."""
        found = []
        for message in self.provider.messages_to_send():
            if isinstance(message, CloseMessage):
                assert self.closing is None
                self.closing = message
                continue
            assert self.closing is None, "something follows the close"
            assert isinstance(message, str)
            found.append(json.loads(message))
            if self._check is not None:
                self._check(found[-1])
        return found

    def pass_time(self, seconds: float) -> None:
        """That much time passes, and every deadline in it."""
        end = self.now + seconds
        deadlines = 0
        while (deadline := self.bridge.next_deadline()) is not None and deadline <= end:
            deadlines += 1
            assert deadlines < 100, "a deadline that never passes"
            self.now = max(self.now, deadline)
            self.bridge.handle_timeout(self.now)
        self.now = end
        self.bridge.handle_timeout(self.now)

    def wait(self, seconds: float) -> list[ClientFrame]:
        """As `pass_time`; what the client hears."""
        self.pass_time(seconds)
        return self.frames()

    def answer_close(self) -> list[ClientFrame]:
        """The provider answers our goodbye."""
        assert self.provider.state is State.CLOSING
        self.sent()
        assert self.closing is not None
        return self.provider_closes(self.closing.code)


def openai(
    options: OpenAIOptions = OpenAIOptions(),  # noqa: B008 - immutable
    config: SessionConfig = realtime_talk.OPENAI,
    dialect_limits: Limits = PROVIDER_LIMITS,
    check: Callable[[Json], None] | None = realtime_talk.check_openai,
    **parameters: Any,
) -> BridgeTalk[RealtimeDialect]:
    return BridgeTalk(
        lambda _, state: OpenAIDialect(config, options=options, limits=dialect_limits, ttl=None, state=state),
        check,
        (CREATED, UPDATED),
        **parameters,
    )


def xai(
    options: XAIOptions = XAIOptions(resumption=True),  # noqa: B008 - immutable
    config: SessionConfig = realtime_talk.XAI,
    check: Callable[[Json], None] | None = realtime_talk.check_xai,
    **parameters: Any,
) -> BridgeTalk[RealtimeDialect]:
    return BridgeTalk(
        lambda _, state: XAIDialect(config, options=options, state=state),
        check,
        (CREATED, UPDATED),
        **parameters,
    )


def google(
    options: GoogleOptions = GoogleOptions(),  # noqa: B008 - immutable
    config: SessionConfig = google_talk.GOOGLE,
    check: Callable[[Json], None] | None = google_talk.check,
    **parameters: Any,
) -> BridgeTalk[GoogleDialect]:
    return BridgeTalk(
        lambda resumption, state: GoogleDialect(
            config, options=options, resumption_handle=resumption, state=state
        ),
        check,
        (google_talk.READY,),
        **parameters,
    )
