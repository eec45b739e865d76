"""The session's WebSocket: check the token, accept, run the handler, and record the end whatever happens."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from speko_anyio.protocol import close_codes
from speko_anyio.protocol.errors import SpekoError
from speko_anyio.protocol.mint import SessionConfig

from ._asgi import ASGIOpening
from ._capabilities import capabilities_of
from ._http_errors import CREATE_FAILED, RequestError, log_refusal, unavailable
from ._link import Link
from ._log_format import current_session
from ._meter import Meter
from ._node import Node
from ._opening import Admitted, Opening, refuse
from ._origins import Origins
from ._session import Handler, ServerSession, core_options, serving
from ._session_log import log_end, log_start
from ._session_tokens import Claims, TokenError
from .store import Refused, SessionOutcome, SessionRecord, StoreError

logger: logging.Logger = logging.getLogger("speko_anyio.gateway")

FULL: Final = "the gateway has as many sessions as it can serve; try again later"

STOP_REASON: Final = "the gateway is restarting"

_CLEANUP_TIMEOUT: Final = 2.0
"""Seconds that a cancelled handler gets to clean up; after that it is left behind."""

_TELL_TIMEOUT: Final = 1.0
"""Seconds that a client has to take the reason before its session is closed without one, or ended."""

_RECORD_TIMEOUT: Final = 2.0
"""Seconds that the store has to record a session's end."""

_LOOKS: Final = 8
"""Checks of all sessions in each idle timeout: a session ends late by the time between two checks at most."""

MAX_UNRECORDED: Final = 1000
"""Ends that are kept to be recorded later, while the store fails; the records of any more will say that the
node was lost."""


def _unauthorized(message: str) -> RequestError:
    return RequestError(401, "UNAUTHORIZED", message, close_code=close_codes.UNAUTHORIZED)


class Stream:
    """The endpoint, and the sessions that live on it."""

    def __init__(
        self,
        node: Node,
        *,
        handlers: Mapping[str, Handler],
        lease: float,
        keep_transcripts: bool,
        max_sessions: int,
        idle_timeout: float | None,
        origins: Origins,
        close_timeout: float,
        handler_grace: float,
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._lease = lease
        self._keep_transcripts = keep_transcripts
        self._max_sessions = max_sessions
        self._idle_timeout = idle_timeout
        self._origins = origins
        self._close_timeout = close_timeout
        self._handler_grace = handler_grace
        self._sessions: set[ServerSession] = set()
        self._opening = 0
        self._leaving = 0
        self._held: set[str] = set()
        self._unrecorded: dict[str, tuple[SessionOutcome, float]] = {}
        self._all_gone = anyio.Event()

    @property
    def stop_timeout(self) -> float:
        """Seconds that `stop` takes at most."""
        return self._close_timeout + self._handler_grace + _CLEANUP_TIMEOUT

    @property
    def sessions(self) -> frozenset[ServerSession]:
        """The sessions whose handlers run."""
        return frozenset(self._sessions)

    @property
    def full(self) -> bool:
        """Whether as many sessions are open, or being opened, as allowed."""
        return len(self._held) + self._opening + self._leaving >= self._max_sessions

    @property
    def held(self) -> frozenset[str]:
        """The ids of the sessions that were claimed here, until their end is recorded."""
        return frozenset(self._held)

    async def record_again(self) -> None:
        """Record the ends that the store failed to record; raise its error if it fails again."""
        while self._unrecorded:
            session_id = next(iter(self._unrecorded))
            outcome, ended_at = end = self._unrecorded.pop(session_id)
            try:
                await self._node.store.end(session_id, outcome, now=ended_at)
            except BaseException:
                # To the end of the queue: one that is never taken must not hold up the others.
                self._unrecorded[session_id] = end
                raise

    async def wait_empty(self) -> None:
        """Wait until no handler runs."""
        while self._sessions:
            await self._all_gone.wait()

    async def stop(self) -> None:
        """Close every session with 1012 and wait until their handlers are gone.

        That takes `stop_timeout` at most, unless a handler shields itself from being cancelled.
        """
        async with anyio.create_task_group() as tasks:
            for session in self._sessions:
                tasks.start_soon(session.close, close_codes.SERVICE_RESTART, STOP_REASON)
        await self.wait_empty()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as an ASGI application."""
        await self.serve(ASGIOpening(scope, receive, send))

    async def serve(self, opening: Opening) -> None:
        """Serve one connection, over ASGI or directly over its transport."""
        try:
            self._check_opening(HTTPConnection(opening.scope))
            claimed = [await self.claim(opening.token, session_id=opening.scope["path_params"]["session_id"])]
        except RequestError as refusal:
            log_refusal("a WebSocket", refusal)
            await refuse(opening, refusal)
            return
        # Taken from a list: this frame must not keep the configuration as long as the session lasts.
        await self.run(claimed.pop(), opening)

    async def run(self, record: SessionRecord, client: Admitted) -> None:
        """Serve the session of `record`, which was claimed, to its end, and record that."""
        current_session.set(record.session_id)
        provider = record.config.provider
        served: list[ServerSession] = []
        outcome = SessionOutcome()
        begin = anyio.current_time()
        try:
            options = core_options(
                record.config,
                ttl=record.ttl_seconds,
                close_timeout=self._close_timeout,
                capabilities=capabilities_of(self._handlers[provider], record.config),
            )
            link = await client.accept(record.session_id, options)
            if link is not None:
                async with self._open(record, link) as session:
                    log_start(record.session_id, provider, record.config.model, record.key_id)
                    # The session keeps its configuration and metadata in less memory.
                    slim = SessionConfig(provider=provider, model="")
                    record = msgspec.structs.replace(record, config=slim, metadata=None)
                    served.append(session)
                    self._node.instrumentation.started(provider)
                    await self._serve(record, session)
        finally:
            if served:
                outcome = _outcome(served[0])
                seconds = anyio.current_time() - begin
                log_end(record.session_id, provider, outcome.close, seconds)
                self._node.instrumentation.ended(provider, outcome, seconds)
            await self._record_end(record, outcome)
        # It counts as a session until the connection is closed: a client may leave it open after the end.
        self._leaving += 1
        try:
            await client.wait_gone()
        finally:
            self._leaving -= 1

    def _check_opening(self, connection: HTTPConnection) -> None:
        self._node.availability.check_accepting()
        if not self._origins.admit(connection):
            raise RequestError(
                403,
                "FORBIDDEN",
                "this gateway does not serve pages of that origin; its operator can allow it",
                close_code=close_codes.POLICY,
            )

    async def claim(self, token: str | None, *, session_id: str | None) -> SessionRecord:
        """Return the session that `token` opens, now claimed; `RequestError` if it opens none.

        With a `session_id` it must be that session. Pass the record to `run` at once.
        """
        if token is None:
            raise _unauthorized("the session token is missing; offer the mint's wsToken as first subprotocol")
        now = self._node.now()
        try:
            claims = self._node.signer.verify(token, session_id=session_id, now=now)
        except TokenError as error:
            raise _unauthorized(str(error)) from None
        # Only now: a client without a token must not learn how busy the gateway is.
        if self.full:
            raise unavailable(CREATE_FAILED, FULL)
        self._opening += 1
        try:
            record = await self._claim(claims)
        finally:
            self._opening -= 1
        self._held.add(record.session_id)
        # Again: `stop` may have begun while the store was asked.
        if self._node.availability.reason is not None:
            await self._record_end(record, SessionOutcome())
        self._node.availability.check_accepting()
        return record

    async def _claim(self, claims: Claims) -> SessionRecord:
        now = self._node.now()
        try:
            record = await self._node.store.claim(
                claims.session_id, claims.token_id, node_id=self._node.node_id, lease=self._lease, now=now
            )
        except Exception as error:
            # An operator's own store may raise anything: report it to the client and the operator.
            known = isinstance(error, StoreError)
            logger.error(
                "session %s: the store failed to claim it: %s", claims.session_id, error, exc_info=not known
            )
            raise unavailable(
                CREATE_FAILED, "the gateway can't reach its records now; mint a new session"
            ) from None
        if isinstance(record, Refused):
            raise _unauthorized(record.value)
        return record

    def _open(self, record: SessionRecord, link: Link) -> AbstractAsyncContextManager[ServerSession]:
        session = ServerSession(
            link,
            session_id=record.session_id,
            config=record.config,
            metadata=record.metadata,
            meter=Meter(
                keep_transcript=self._keep_transcripts,
                observer=self._node.instrumentation,
                provider=record.config.provider,
            ),
        )
        return serving(session, close_timeout=self._close_timeout)

    async def _serve(self, record: SessionRecord, session: ServerSession) -> None:
        if not self._sessions:
            self._all_gone = anyio.Event()
        self._sessions.add(session)
        try:
            if self._node.availability.reason is None:
                await self._run(self._handlers[record.config.provider], session)
            else:
                # `stop` began while the WebSocket was accepted, and may not have seen this session.
                await session.close(close_codes.SERVICE_RESTART, STOP_REASON)
        except anyio.get_cancelled_exc_class():
            # By an ASGI server that stops at once. The close code still tells the client to connect again.
            with anyio.move_on_after(_TELL_TIMEOUT, shield=True):
                await session.close(close_codes.SERVICE_RESTART, STOP_REASON)
            raise
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._all_gone.set()

    async def _record_end(self, record: SessionRecord, outcome: SessionOutcome) -> None:
        """Record the end in the store, also when this task is cancelled.

        An end that it fails to record is logged, and kept for `record_again`.
        """
        session_id, now = record.session_id, self._node.now()
        recorded = False
        with anyio.move_on_after(_RECORD_TIMEOUT, shield=True) as limit:
            try:
                await self._node.store.end(session_id, outcome, now=now)
                recorded = True
            except StoreError as error:
                logger.error("session %s: its end is not recorded yet: %s", session_id, error)
            except Exception:
                # As when it claims; and what ended the session must not be replaced by this.
                logger.exception("session %s: the store failed to record its end", session_id)
        if limit.cancelled_caught:
            logger.error("session %s: the store took too long to record its end", session_id)
        if not recorded and len(self._unrecorded) < MAX_UNRECORDED:
            self._unrecorded[session_id] = (outcome, now)
        self._held.discard(session_id)

    async def _run(self, handler: Handler, session: ServerSession) -> None:
        """Run the handler until it is done, or too long after the session's end; report its failure."""
        with anyio.CancelScope() as scope:
            session.cancel_after(scope, self._handler_grace)
            try:
                await handler(session)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                # Not only our cancellation ends here: a handler may let one out that it was not sent, such as
                # that of a future that it awaits, or the panic of an extension module.
                if not isinstance(error, Exception) and anyio.current_effective_deadline() == -math.inf:
                    raise
                if not _is_end_of(session, error):
                    logger.exception("session %s: the handler failed", session.session_id)
                    await _tell_failure(session)
        if scope.cancel_called:
            logger.warning(
                "session %s: the handler is cancelled, having run %g s on after the session's end",
                session.session_id,
                self._handler_grace,
            )

    async def end_idle_sessions(self) -> None:
        """End the sessions whose clients have sent nothing for the idle timeout, until cancelled.

        A regular check of all sessions is cheaper than a task for each, or reading the clock for each
        message.
        """
        timeout = self._idle_timeout
        if timeout is None:
            return
        seen: dict[ServerSession, tuple[int, float]] = {}
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(timeout / _LOOKS)
                now = anyio.current_time()
                before, seen = seen, {}
                for session in self._sessions:
                    count = session.meter.messages_in
                    known, since = before.get(session, (-1, now))
                    seen[session] = count, since if count == known else now
                    if count == known and now - since >= timeout and not session.ending:
                        tasks.start_soon(_end_idle, session, timeout)


async def _end_idle(session: ServerSession, timeout: float) -> None:  # noqa: ASYNC109 - of the session
    current_session.set(session.session_id)
    logger.info("session %s: nothing came from the client for %g s", session.session_id, timeout)
    message = f"nothing was heard for {timeout:g} seconds"
    await _end(session, "IDLE_TIMEOUT", message, close_codes.POLICY, "idle")


def _outcome(session: ServerSession) -> SessionOutcome:
    return session.meter.outcome(
        session.closed,
        input_sample_rate=session.input_sample_rate,
        output_sample_rate=session.output_sample_rate,
    )


async def _tell_failure(session: ServerSession) -> None:
    message = "the gateway failed to serve this session"
    await _end(session, "INTERNAL", message, close_codes.INTERNAL_ERROR, "internal error")


async def _end(session: ServerSession, code: str, message: str, close_code: int, reason: str) -> None:
    """Send the reason, and close; a client that reads nothing must not keep its session that way."""
    try:
        with anyio.move_on_after(_TELL_TIMEOUT):
            await session.send_error(code, message)
        await session.close(close_code, reason)
    except SpekoError:
        return  # the session ended first


def _is_end_of(session: ServerSession, error: BaseException) -> bool:
    """Return whether `error` only says that the session is over, perhaps out of the handler's task group."""
    if not session.ending:
        return False
    if isinstance(error, ExceptionGroup):
        return all(_is_end_of(session, inner) for inner in error.exceptions)
    return isinstance(error, SpekoError)
