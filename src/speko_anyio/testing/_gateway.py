"""The service in memory: a session with its fake peer, or a whole `Speko`, mint and sessions included."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self, Unpack

import httpx
import msgspec

from .._net.contexts import never_swallows
from ..client._api import Speko
from ..client._mint import AnyGrant, MintClient
from ..client._parameters import OutputKind, SessionOptions
from ..client._realtime import Realtime, open_session
from ..client._session import RealtimeSession
from ..client.tools import AnyTool
from ..protocol.mint import (
    DEFAULT_SAMPLE_RATE,
    APIErrorBody,
    InvalidRequestError,
    MintRequest,
    SessionGrant,
    decode_request,
)
from ._peer import FakePeer, Script
from ._script import scripted
from .server import connected

API_KEY: Final = "sk_fake"
"""The API key that a fake gateway accepts, and that `FakeGateway.speko` uses."""

BASE_URL: Final = "http://speko.test"
"""The apparent address of a fake gateway. The name can't be resolved (RFC 6761), so nothing leaves the
process."""


@never_swallows
async def fake_session(
    script: Script | None = None,
    *,
    peer: FakePeer | None = None,
    tools: Iterable[AnyTool] = (),
    ttl_seconds: float | None = None,
    within: float = 30.0,
    **options: Unpack[SessionOptions],
) -> AsyncGenerator[tuple[RealtimeSession, FakePeer], None]:
    """Open a real session of the client with a fake gateway; yields both ends. No sockets, no waiting.

    - `script`: what the gateway does; without one, play the peer by hand.
    - `peer`: a `FakePeer` of your own, for example with other sample rates.
    - `within`: seconds after which the test is considered hung; then TimeoutError.

    The other parameters are those of `open_session`. A failure of the script is raised by the block, see
    `scripted`.
    """
    peer = peer or FakePeer()
    opening = connected(peer, tools=tools, ttl_seconds=ttl_seconds, within=within, **options)
    async with scripted(peer, script, opening) as (session, _):
        yield session, peer


class FakeGateway:
    """A mint and its sessions in memory, for applications that open their own: give them its `speko()`.

    - `script`: what the gateway does in every session; change it between sessions as you like.
    - `minted`: the requests for sessions, in order; `sessions`: the peers of those that were opened.

    A failure of the script is raised by the session's block, in the application. Since the application may
    handle it like a failure of the service, `check` raises it again; the fixture ``speko_gateway`` calls it.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.minted: list[MintRequest] = []
        self.sessions: list[FakePeer] = []
        self._waiting: dict[str, FakePeer] = {}
        self._refusals: deque[httpx.Response] = deque()
        self._failures: list[Exception] = []

    @property
    def session(self) -> FakePeer:
        """The peer of the only session. AssertionError if there was none, or more than one."""
        assert len(self.sessions) == 1, f"{len(self.sessions)} sessions were opened, not one"
        return self.sessions[0]

    def speko(self, **options: Any) -> Speko:
        """Make a `Speko` whose sessions are minted and served here; `options` are those of `Speko`."""
        speko = Speko(API_KEY, BASE_URL, http_client=self, **options)
        self._redirect(speko)
        return speko

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """Make every `Speko` created in the block use this gateway, whatever its key and URL.

        For applications that make their own.
        """
        original = Speko.__init__

        def init(speko: Speko, *_: object, **options: Any) -> None:
            options.update(api_key=API_KEY, base_url=BASE_URL, http_client=self)
            original(speko, **options)
            self._redirect(speko)

        # Patch the class itself, since applications have imported it by now.
        Speko.__init__ = init  # type: ignore[method-assign,assignment]  # ignores its arguments
        try:
            yield self
        finally:
            Speko.__init__ = original  # type: ignore[method-assign]  # as it was

    def refuse(
        self,
        status: int,
        code: str = "UNKNOWN",
        message: str = "refused by the test",
        *,
        retry_after: float | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next `times` requests for a session with an HTTP error: several, to outlast retries."""
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        body = msgspec.json.encode(APIErrorBody(error=message, code=code))
        self._refusals.extend(httpx.Response(status, headers=headers, content=body) for _ in range(times))

    def check(self) -> None:
        """Raise the first failure of a script, if there was one."""
        if self._failures:
            raise self._failures[0]

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: dict[str, str],
        timeout: float,  # noqa: ASYNC109 - httpx's own parameter
        follow_redirects: bool,
    ) -> httpx.Response:
        """Answer as the mint: this is the `http_client` of the fake `Speko`."""
        assert (method, url) == ("POST", f"{BASE_URL}/v1/sessions"), f"a fake mint has no {method} {url}"
        if self._refusals:
            return self._refusals.popleft()
        if headers.get("Authorization") != f"Bearer {API_KEY}":
            body = APIErrorBody(error="the API key is wrong", code="UNAUTHORIZED")
            return httpx.Response(401, content=msgspec.json.encode(body))
        try:
            request = decode_request(content)
        except InvalidRequestError as error:
            refusal = APIErrorBody(error=str(error), code="VALIDATION_ERROR")
            return httpx.Response(400, content=msgspec.json.encode(refusal))
        return httpx.Response(201, content=msgspec.json.encode(self._grant(request)))

    def take(self, grant: SessionGrant) -> FakePeer:
        """Return the peer for a grant, once; any other grant gets a peer that refuses with 401."""
        peer = self._waiting.pop(grant.ws_token, None)
        if peer is None:
            refusing = FakePeer()
            body = APIErrorBody(error="the token opens no session, or was used", code="UNAUTHORIZED")
            text = msgspec.json.encode(body).decode()
            refusing.greet = lambda: refusing.core.refuse(401, text)
            return refusing
        self.sessions.append(peer)
        return peer

    def note_failure(self, error: Exception) -> None:
        """Keep a failure of a script for `check`."""
        self._failures.append(error)

    def _redirect(self, speko: Speko) -> None:
        """Redirect the sessions of `speko` to here; its HTTP requests already come here."""
        speko.realtime = _FakeRealtime(speko.realtime._mint, self)

    def _grant(self, request: MintRequest) -> SessionGrant:
        self.minted.append(request)
        number = len(self.minted)
        config = request.s2s
        peer = FakePeer(
            config=config,
            input_sample_rate=config.input_sample_rate or DEFAULT_SAMPLE_RATE,
            output_sample_rate=config.output_sample_rate or DEFAULT_SAMPLE_RATE,
        )
        token = f"wst_fake_{number}"
        self._waiting[token] = peer
        return SessionGrant(
            session_id=f"session-{number}",
            ws_url=f"wss://speko.test/v1/sessions/session-{number}/stream",
            ws_token=token,
            expires_at="2030-01-01T00:00:00Z",
            input_sample_rate=peer.core.input_sample_rate,
            output_sample_rate=peer.core.output_sample_rate,
        )


class _FakeRealtime(Realtime):
    def __init__(self, mint: MintClient, gateway: FakeGateway) -> None:
        super().__init__(mint)
        self._gateway = gateway

    @never_swallows
    async def open(
        self,
        grant: AnyGrant,
        *,
        tools: Iterable[AnyTool] = (),
        ttl_seconds: float | None = None,
        output: OutputKind = "audio",
        **options: Unpack[SessionOptions],
    ) -> AsyncGenerator[RealtimeSession, None]:
        assert isinstance(grant, SessionGrant), "nothing else is minted here"
        gateway = self._gateway
        peer = gateway.take(grant)
        options["stream"] = peer.stream
        opening = open_session(grant, tools=tools, ttl_seconds=ttl_seconds, **options)
        async with scripted(peer, gateway.script, opening, failed=gateway.note_failure) as session:
            yield session
