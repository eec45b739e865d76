"""Session tokens: signed, short-lived, good for one session. The store makes them usable once only.

A token is a JWT (HS256), so it is a legal WebSocket subprotocol. It is a pure function of its claims and
the secret: nothing stores it, and every node that has the secret makes and takes the same ones.
"""

from __future__ import annotations

import secrets
from typing import Final

import jwt
import msgspec

from speko_anyio.protocol.errors import SpekoError

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "speko-anyio"
MIN_SECRET: Final = 32
"""Bytes: an HMAC key shorter than its hash is the weakest part of it (RFC 7518 section 3.2)."""


_NAMES: Final = {"session_id": "sub", "token_id": "jti", "expires_at": "exp"}
"""The registered names of the claims (RFC 7519 section 4.1)."""


class TokenError(SpekoError):
    """An invalid token; the text says why, and never shows the token."""


class Claims(msgspec.Struct, frozen=True, rename=_NAMES):
    """The claims of a token."""

    session_id: str
    token_id: str
    """Unique, which makes the token usable once only."""
    expires_at: int
    """Seconds since the epoch."""


class TokenSigner:
    """Makes and checks tokens with one secret of at least `MIN_SECRET` bytes.

    None is a random secret: the tokens of this process are then valid in this process only.
    """

    def __init__(self, secret: bytes | str | None = None) -> None:
        if secret is None:
            secret = secrets.token_bytes(MIN_SECRET)
        elif isinstance(secret, str):
            secret = secret.encode()
        if len(secret) < MIN_SECRET:
            raise ValueError(
                f"the gateway's secret has {len(secret)} bytes; give at least {MIN_SECRET} random ones, like "
                "secrets.token_bytes(32), or None for a secret of this process only"
            )
        self._secret = secret

    def sign(self, claims: Claims) -> str:
        """Return the token that holds `claims`."""
        return jwt.encode({"iss": _ISSUER, **msgspec.to_builtins(claims)}, self._secret, _ALGORITHM)

    def verify(self, token: str, *, session_id: str | None, now: float) -> Claims:
        """Return the claims of `token`; raise `TokenError` if it is invalid or expired.

        Unless `session_id` is None, raise it for a token of another session, too.
        """
        try:
            payload = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                # Expiry is checked below, against the caller's clock.
                options={"require": ["iss", *_NAMES.values()], "verify_exp": False},
            )
            claims = msgspec.convert(payload, Claims)
        # PyJWT before 2.10 lets the JSON decoder's RecursionError out, of a token that nests too deeply.
        except (jwt.InvalidTokenError, msgspec.ValidationError, RecursionError):
            raise TokenError("the session token is not one of this gateway; mint a new session") from None
        if session_id is not None and claims.session_id != session_id:
            raise TokenError("the session token is for another session; use it with its own wsUrl")
        if claims.expires_at <= now:
            raise TokenError("the session token has expired; mint a new session and open it in time")
        return claims
