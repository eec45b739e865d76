"""Tokens and keys as text.

A session token is sent as a WebSocket subprotocol, so it must be an HTTP token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import LocalProtocolError

_TCHAR: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2

_AROUND: Final = re.compile(r"\A[\s\ufeff\u200b]+|[\s\ufeff\u200b]+\Z")

_QUOTES: Final = ("'", '"', "`")

_SCHEME: Final = re.compile(r"bearer\b[\s:]", re.IGNORECASE)

_SHORT: Final = 8
"""A secret with fewer characters may be part of an ordinary word."""

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
"""A short secret such as ``test`` or ``wrong``, which a sentence may use for itself."""

_INTRODUCTIONS: Final = ("Bearer ", "Basic ", "key ", "key: ", "token ", "token: ")
"""What a sentence says ahead of a secret."""

MAX_TOKEN: Final = 4096
"""Characters that every known client and server passes (speko-protocol, section 2)."""


def is_token(token: str) -> bool:
    """Whether a WebSocket can carry `token` as its subprotocol."""
    return len(token) <= MAX_TOKEN and _TCHAR.match(token) is not None


def check_token(token: str) -> str:
    """`token` itself; `LocalProtocolError`, which does not show it, when no WebSocket can carry it."""
    if not is_token(token):
        raise LocalProtocolError(
            "the session token can't be a WebSocket subprotocol: it must have 1 to "
            f"{MAX_TOKEN} characters of RFC 9110's token set; pass the mint's wsToken unchanged"
        )
    return token


def strip_invisible(text: str) -> str:
    """Remove the invisible characters that files, editors and shells leave around a key or a URL.

    Those are whitespace, line ends, byte order marks (U+FEFF) and zero-width spaces.
    """
    return _AROUND.sub("", text)


def find_key_fault(key: str) -> str | None:
    """Name what was copied along with a key, as the rest of a sentence about it; None for a key alone.

    Sent with it, the key is refused with a plain 401. A file for ``docker run --env-file`` is one place where
    quotes stay in the value.
    """
    if key[:1] in _QUOTES or key[-1:] in _QUOTES:
        return "is in quotes; remove them"
    if _SCHEME.match(key):
        return "begins with `Bearer`; remove that and give the key alone"
    return None


def hide(text: str, secrets: Iterable[str], replacement: str) -> str:
    """`text` with `replacement` for each of the `secrets`.

    A secret of fewer than 8 characters is replaced only where it is not part of a longer word: replacing
    parts of words would garble them, and reveal the secret by what is missing. One that is an ordinary word,
    such as ``test``, is left where it stands among the words of a sentence, unless ``key``, ``token``,
    ``Bearer`` or ``Basic`` introduces it.
    """
    # The longest first: one may be the beginning of another. One pass leaves `replacement` itself whole.
    patterns = [_pattern(secret) for secret in sorted(filter(None, secrets), key=len, reverse=True)]
    return re.sub("|".join(patterns), lambda _: replacement, text) if patterns else text


def _pattern(secret: str) -> str:
    """Where a text has `secret`, as a regular expression."""
    escaped = re.escape(secret)
    if len(secret) >= _SHORT:
        return escaped
    alone = rf"(?<!\w){escaped}(?!\w)"
    if not _WORD.fullmatch(secret):
        return alone
    introduced = "|".join(rf"(?<={before})" for before in _INTRODUCTIONS)
    return rf"(?:{introduced}){escaped}(?!\w)|(?<![A-Za-z] ){alone}(?! [A-Za-z])"
