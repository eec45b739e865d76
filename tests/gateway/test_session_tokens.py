from __future__ import annotations

import base64

import jwt
import pytest

from speko_anyio.gateway._session_tokens import Claims, TokenError, TokenSigner
from speko_anyio.protocol._tokens import check_token

CLAIMS = Claims("sess_1", "token-1", 1000)


def verify(signer: TokenSigner, token: str) -> Claims:
    return signer.verify(token, session_id="sess_1", now=999.9)


@pytest.mark.parametrize("secret", [None, b"s" * 32, "s" * 32])
def test_a_token_says_what_was_signed_and_can_be_a_subprotocol(secret: bytes | str | None) -> None:
    signer = TokenSigner(secret)
    token = signer.sign(CLAIMS)
    assert verify(signer, check_token(token)) == CLAIMS


def test_a_token_depends_on_nothing_but_claims_and_secret() -> None:
    assert TokenSigner(b"s" * 32).sign(CLAIMS) == TokenSigner("s" * 32).sign(CLAIMS)
    assert TokenSigner().sign(CLAIMS) != TokenSigner().sign(CLAIMS)


def test_it_expires_to_the_second() -> None:
    signer = TokenSigner()
    with pytest.raises(TokenError, match="expired"):
        signer.verify(signer.sign(CLAIMS), session_id="sess_1", now=1000)


def test_it_is_for_one_session() -> None:
    signer = TokenSigner()
    with pytest.raises(TokenError, match="another session"):
        signer.verify(signer.sign(CLAIMS), session_id="sess_2", now=0)


def _unsigned() -> str:
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"none"}', b"{}"))
    return f"{head}.{body}."


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        _unsigned(),
        TokenSigner().sign(CLAIMS),
        jwt.encode({"iss": "speko-anyio", "sub": "sess_1", "jti": "j"}, b"s" * 32),
        jwt.encode({"iss": "other", "sub": "sess_1", "jti": "j", "exp": 9999}, b"s" * 32),
        jwt.encode({"iss": "speko-anyio", "sub": "sess_1", "jti": "j", "exp": "soon"}, b"s" * 32),
        jwt.encode({"iss": "speko-anyio", "sub": "sess_1", "jti": "j", "exp": 9999}, b"s" * 64, "HS512"),
    ],
)
def test_nothing_else_is_taken_and_no_error_shows_the_token(token: str) -> None:
    with pytest.raises(TokenError, match="not one of this gateway") as caught:
        verify(TokenSigner(b"s" * 32), token)
    assert not token or token not in str(caught.value)


def test_a_token_that_nests_too_deeply_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As older releases of PyJWT say it."""

    def decode(*args: object, **options: object) -> None:
        raise RecursionError

    monkeypatch.setattr(jwt, "decode", decode)
    with pytest.raises(TokenError, match="not one of this gateway"):
        verify(TokenSigner(), "a.b.c")


def test_a_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="has 7 bytes") as caught:
        TokenSigner("hunter2")
    assert "hunter2" not in str(caught.value)
