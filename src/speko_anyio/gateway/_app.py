"""`Gateway`: its configuration, and the ASGI application made from it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from speko_anyio._extras import install_extra
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS

from ._api_keys import APIKeys
from ._asgi import ASGIOpening
from ._authentication import Authenticator
from ._health import Availability, GatewayState, Health
from ._housekeeping import Housekeeper, background
from ._http_errors import RequestError, shorten
from ._instrumentation import Instrumentation
from ._mint_endpoint import MintEndpoint
from ._minting import Minter
from ._node import Node
from ._opening import Opening, refuse
from ._origins import Origins
from ._phone import Phone
from ._phone_stream import PhoneStream
from ._phone_webhook import PhoneWebhook
from ._playground import playground_routes
from ._public_url import PublicURL
from ._rate_limiter import RateLimiter
from ._served_phone import ServedPhone, check_phones
from ._session import Handler, ServerSession
from ._session_handlers import why_not_a_handler
from ._session_tokens import TokenSigner
from ._sessions_api import SessionsAPI
from ._stream import Stream
from .store import MemoryStore, SessionStore
from .store._deadline import bounded
from .store._key_limits import DAY

if TYPE_CHECKING:
    from ._metrics import Metrics

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

logger: Final = logging.getLogger("speko_anyio.gateway")

_CODES: Final = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Gateway:
    """A self-hosted gateway: the mint, and the WebSocket of every session, each served by a handler.

    - `handlers`: by the provider's name that clients mint with.
    - `phones`: the phone carriers whose calls it takes, by name, such as ``twilio``. A carrier asks
      ``POST /telephony/<carrier>`` what to do with a call, and connects it to the WebSocket at the same path.
      Without `public_url`, carriers must reach the gateway without a proxy.
    - `api_keys`: who may mint, and read the records of what they minted, besides the keys in `store`. Kept as
      hashes.
    - `secret`: signs the session tokens, 32 bytes or more; None for a random one, so that tokens are good
      in this process only and until it ends. Nodes that share a store need the same.
    - `store`: the session records, and more keys; None for a `MemoryStore`.
    - `transcript_retention`: seconds for which the store keeps what was said; None: it is not stored.
    - `record_retention`: seconds for which the store keeps the record of a session, a day or more, since the
      limits of keys count the sessions of a day; None: for as long as it has room.
    - `lease`: seconds; the sessions of a node silent for this long are considered lost.
    - `public_url`: where clients reach the gateway, such as ``https://voice.example.com/api``; None: as the
      mint's request did.
    - `token_lifetime`: seconds from the mint in which the session must be opened.
    - `mint_rate`, `mint_burst`: mints a second, and at once, for each key; more get 429.
    - `read_rate`, `read_burst`: the same for requests of records.
    - `max_sessions`: open at once on this node; more get 503.
    - `idle_timeout`: seconds without a message from the client after which a session is ended; None: it may
      be silent for as long as it lasts.
    - `allowed_origins`: of the web pages that may use the gateway, such as ``https://app.example.com``. None:
      any page may open a session with its token, but browsers let none of another origin mint (CORS).
    - `close_timeout`: seconds that a client has to answer a close.
    - `handler_grace`: seconds that a handler has to return when its session is over; then it is cancelled.
    - `metrics`: serve ``/metrics`` for Prometheus, without authentication: block it in the public proxy.
    - `playground`: for development: serve a page at ``/`` to talk to the gateway with. It adds no way in: its
      user needs an API key.
    - `now`: seconds since the epoch.

    The gateway is an ASGI application itself, so that ``uvicorn module:gateway`` runs it.

    Raises ValueError for a configuration that can't work, TypeError for handlers that are not handlers.
    """

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler],
        phones: Mapping[str, Phone] | None = None,
        api_keys: Iterable[str] = (),
        secret: bytes | str | None = None,
        store: SessionStore | None = None,
        transcript_retention: float | None = None,
        record_retention: float | None = None,
        lease: float = 30.0,
        public_url: str | None = None,
        token_lifetime: int = 60,
        mint_rate: float = 20.0,
        mint_burst: int = 200,
        read_rate: float = 5.0,
        read_burst: int = 20,
        max_sessions: int = 1000,
        idle_timeout: float | None = 300.0,
        allowed_origins: Collection[str] | None = None,
        close_timeout: float = DEFAULT_TIMEOUTS.close,
        handler_grace: float = 5.0,
        metrics: bool = False,
        playground: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        _check_handlers(handlers)
        check_phones({} if phones is None else phones)
        served = [ServedPhone(carrier, phone, handlers) for carrier, phone in (phones or {}).items()]
        base = PublicURL(public_url)
        _check_seconds(
            above_zero={
                "token_lifetime": token_lifetime,
                "transcript_retention": transcript_retention,
                "idle_timeout": idle_timeout,
            },
            at_least={
                "lease": (lease, 1),
                "record_retention": (record_retention, DAY),
                "close_timeout": (close_timeout, 0),
                "handler_grace": (handler_grace, 0),
            },
        )
        if not max_sessions >= 1:
            raise ValueError(f"max_sessions must be 1 or more, not {max_sessions}")
        origins = Origins(allowed_origins)
        self._handlers = dict(handlers)
        self._availability = Availability()
        self._store = MemoryStore() if store is None else store
        self._metrics = _make_metrics(lambda: self._stream.sessions) if metrics else None
        signer = TokenSigner(secret)
        keys = APIKeys(api_keys, may_be_empty=store is not None)
        in_time = bounded(self._store)
        node = Node(
            node_id=f"node_{secrets.token_hex(8)}",
            store=in_time,
            authenticator=Authenticator(keys, in_time),
            signer=signer,
            availability=self._availability,
            instrumentation=self._metrics or Instrumentation(),
            now=now,
        )
        self._stream = Stream(
            node,
            handlers=self._handlers,
            lease=lease,
            keep_transcripts=transcript_retention is not None,
            max_sessions=max_sessions,
            idle_timeout=idle_timeout,
            origins=origins,
            close_timeout=close_timeout,
            handler_grace=handler_grace,
        )
        minter = Minter(
            node,
            limiter=RateLimiter(rate=mint_rate, burst=mint_burst),
            token_lifetime=token_lifetime,
            full=lambda: self._stream.full,
        )
        mint = MintEndpoint(node, handlers=self._handlers, minter=minter, public_url=base)
        self._housekeeper = Housekeeper(
            in_time,
            node_id=node.node_id,
            lease=lease,
            held=lambda: self._stream.held,
            retry=self._stream.record_again,
            transcript_retention=transcript_retention,
            record_retention=record_retention,
            now=now,
        )
        sessions = SessionsAPI(node, limiter=RateLimiter(rate=read_rate, burst=read_burst))
        health = Health(availability=self._availability, store_failure=self._housekeeper.store_failure)
        self.app: Starlette = Starlette(
            routes=[
                Route("/healthz", health.live, methods=["GET"]),
                Route("/readyz", health.ready, methods=["GET"]),
                *((Route("/metrics", self._metrics.answer, methods=["GET"]),) if self._metrics else ()),
                Route("/v1/sessions", _by_method(mint.post, sessions.list), methods=["GET", "POST"]),
                Route("/v1/sessions/{session_id}", sessions.get, methods=["GET"]),
                WebSocketRoute("/v1/realtime/{session_id}", self._stream, name="realtime"),
                *(
                    route
                    for phone in served
                    for route in (
                        Route(
                            phone.path,
                            PhoneWebhook(phone, node, minter, base).answer,
                            methods=["GET", "POST"],
                        ),
                        WebSocketRoute(phone.path, PhoneStream(phone, node, self._stream, base)),
                    )
                ),
                *(playground_routes(self._handlers.keys()) if playground else ()),
                WebSocketRoute("/{path:path}", _NoWebSocketHere()),
            ],
            middleware=origins.middleware,
            exception_handlers={HTTPException: _http_error},
            lifespan=self._lifespan,
        )
        """The ASGI application; its lifespan is `running`."""
        # A path that is not ours is answered as documented, also when only its slash is too much.
        self.app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application: as `app`."""
        await self.app(scope, receive, send)

    @property
    def providers(self) -> frozenset[str]:
        """The names that clients can mint with."""
        return frozenset(self._handlers)

    @property
    def live_sessions(self) -> int:
        """How many sessions are being served."""
        return len(self._stream.sessions)

    @property
    def stop_timeout(self) -> float:
        """Seconds that `drain` takes at most, beyond its patience."""
        return self._stream.stop_timeout

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the gateway during the block.

        Enters the store and the handlers that are async context managers, keeps the leases of the sessions,
        and leaves everything at the end, after `drain`.

        An ASGI server enters this through the application's lifespan. An application that mounts this one
        must enter it in its own lifespan: until then, sessions are refused with 503. Raises what the store or
        a handler raises.
        """
        async with AsyncExitStack() as stack:
            if isinstance(self._store, AbstractAsyncContextManager):
                await stack.enter_async_context(self._store)
            # Around everything else: the sessions live, and need their leases, until the last has ended.
            await stack.enter_async_context(background(self._housekeeper.run))
            await stack.enter_async_context(background(self._stream.end_idle_sessions))
            entered: set[int] = set()
            handlers: list[object] = list(self._handlers.values())
            for handler in handlers:
                if id(handler) not in entered and isinstance(handler, AbstractAsyncContextManager):
                    entered.add(id(handler))
                    await stack.enter_async_context(handler)
            if self._metrics is not None:
                await stack.enter_async_context(background(self._metrics.watch_the_loop))
            self._availability.state = GatewayState.READY
            try:
                yield
            finally:
                self._availability.state = GatewayState.DRAINING
                with anyio.move_on_after(self.stop_timeout, shield=True):
                    await self._stream.stop()

    async def drain(self, *, patience: float = 0.0) -> None:
        """Take no new sessions, give the open ones `patience` seconds, and close the rest with 1012.

        Cancelled, it closes them without patience.
        """
        self._availability.state = GatewayState.DRAINING
        if self.live_sessions:
            logger.info("draining: %d open sessions get %g s to finish", self.live_sessions, patience)
        try:
            with anyio.move_on_after(patience):
                await self._stream.wait_empty()
        finally:
            with anyio.move_on_after(self.stop_timeout, shield=True):
                await self._stream.stop()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield


def _check_handlers(handlers: object) -> None:
    if not isinstance(handlers, Mapping):
        raise TypeError(
            "handlers must be a dict of handlers by the provider's name, such as "
            f"{{'my-bot': handler}}, not {type(handlers).__name__}"
        )
    for name, handler in handlers.items():
        if not isinstance(name, str):
            raise TypeError(f"a handler's name must be a str, not {type(name).__name__}")
        why = why_not_a_handler(handler)
        if why is not None:
            raise TypeError(f"can't use the handler {name!r}: {why}")
    if not handlers:
        raise ValueError("a gateway needs at least one handler; pass handlers=default_handlers()")


def _check_seconds(
    above_zero: Mapping[str, float | None], at_least: Mapping[str, tuple[float | None, int]]
) -> None:
    for name, value in above_zero.items():
        if value is not None and not value > 0:  # also refuses NaN
            raise ValueError(f"{name} must be a number of seconds above 0{_or_none(name)}, not {value}")
    for name, (value, least) in at_least.items():
        if value is not None and not value >= least:
            shown = f"{least} (a day)" if least == DAY else least
            raise ValueError(
                f"{name} must be a number of seconds, {shown} or more{_or_none(name)}, not {value}"
            )


def _or_none(name: str) -> str:
    return ", or None" if name in ("transcript_retention", "record_retention", "idle_timeout") else ""


def _make_metrics(live: Callable[[], Collection[ServerSession]]) -> Metrics:
    try:
        from ._metrics import Metrics
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise ValueError(
            f"metrics need prometheus-client, which is not installed; {install_extra('gateway')}"
        ) from None
    return Metrics(live)


def _by_method(post: Endpoint, get: Endpoint) -> Endpoint:
    """Return one endpoint for both methods: with two routes, a 405 would list only the first one's."""

    async def endpoint(request: Request) -> Response:
        return await (post if request.method == "POST" else get)(request)

    return endpoint


class _NoWebSocketHere:
    """Refuses a WebSocket at any other path, in the documented form."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(ASGIOpening(scope, receive, send))

    async def serve(self, opening: Opening) -> None:
        message = "there is no session here; connect to the mint's wsUrl"
        await refuse(opening, RequestError(404, "NOT_FOUND", message, close_code=4404))


async def _http_error(request: Request, error: Any) -> Response:
    code = _CODES.get(error.status_code, "UNKNOWN")
    message = f"{shorten(f'{request.method} {request.url.path}')}: {error.detail}"
    return RequestError(error.status_code, code, message, headers=error.headers).response
