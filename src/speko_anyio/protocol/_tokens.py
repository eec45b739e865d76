"""Tokens and keys as text.

A session token is sent as a WebSocket subprotocol, so it must be an HTTP token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import LocalProtocolError

_TCHAR: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2

_AROUND: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
    "\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
)

_QUOTES: Final = ("'", '"', "`")

_SCHEME: Final = re.compile(r"bearer\b[\s:]", re.IGNORECASE)

_SHORT: Final = 8
"""A secret with fewer characters may be part of an ordinary word."""

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
"""A short secret that is an ordinary word, such as ``test`` or ``wrong``."""

_INTRODUCTIONS: Final = ("Bearer ", "Basic ", "key ", "key: ", "token ", "token: ")
"""Words that come before a secret in a sentence."""

MAX_TOKEN: Final = 4096
"""The most characters that every known client and server accepts (speko-protocol, section 2)."""


def is_token(token: str) -> bool:
    """Whether a WebSocket can carry `token` as its subprotocol."""
    return len(token) <= MAX_TOKEN and _TCHAR.match(token) is not None


def check_token(token: str) -> str:
    """Return `token`; `LocalProtocolError`, which does not show it, if no WebSocket can carry it."""
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
    return text.strip(_AROUND)


def find_key_fault(key: str) -> str | None:
    """Return what was copied along with a key, phrased to follow its name; None if the key is clean.

    Otherwise the service would refuse the key with a bare 401. A file for ``docker run --env-file`` is one
    place where quotes stay in the value.
    """
    if key[:1] in _QUOTES or key[-1:] in _QUOTES:
        return "is in quotes; remove them"
    if _SCHEME.match(key):
        return "begins with `Bearer`; remove that and give the key alone"
    return None


def hide(text: str, secrets: Iterable[str], replacement: str) -> str:
    """Return `text` with each of the `secrets` replaced by `replacement`.

    A secret of fewer than 8 characters is replaced only where it is not part of a longer word: replacing
    parts of words would garble them, and reveal the secret by what is missing. One that is an ordinary word,
    such as ``test``, is left where it stands among the words of a sentence, unless ``key``, ``token``,
    ``Bearer`` or ``Basic`` introduces it.
    """
    # The longest first: one may begin another. A single pass leaves the replacements alone.
    patterns = [_pattern(secret) for secret in sorted(filter(None, secrets), key=len, reverse=True)]
    return re.sub("|".join(patterns), lambda _: replacement, text) if patterns else text


def _pattern(secret: str) -> str:
    """Return a regular expression that finds `secret` in a text."""
    escaped = re.escape(secret)
    if len(secret) >= _SHORT:
        return escaped
    alone = rf"(?<!\w){escaped}(?!\w)"
    if not _WORD.fullmatch(secret):
        return alone
    introduced = "|".join(rf"(?<={before})" for before in _INTRODUCTIONS)
    return rf"(?:{introduced}){escaped}(?!\w)|(?<![A-Za-z] ){alone}(?! [A-Za-z])"
