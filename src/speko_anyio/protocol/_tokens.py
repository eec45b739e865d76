"""Tokens and keys as text, and how they are kept out of texts that are shown.

A session token is sent as a WebSocket subprotocol, so it must be an HTTP token.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from ._text import INVISIBLE, clean
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

REDACTED: Final = "***"
"""Stands for a secret."""

_PER_CHARACTER: Final = 16
"""Characters that are examined for each one that may be shown: redaction makes text shorter."""

# Every pattern begins at the start of a word or at a fixed text, and every part has a limit, so that the work
# grows with the length of the text only.

_KEYS: Final = re.compile(
    # Keys and tokens by their makers' prefixes, whole or cut by dots, the parts of a JWT, and what follows
    # the scheme of a header.
    r"\b(?:sk|ek|pk|rk|xai|wst|gsk)[-_](?:[\w-]{6,}|[\w-]{0,5}(?:\.{2,}|…)[\w-]*)"
    r"|\bAIza[\w-]{10,}|\beyJ[\w-]{6,}(?:\.[\w-]+)*"
    r"|(?<=\bBearer )(?!<api key>)\S+|(?<=\bBasic )\S+"
    # User and password in a URL, and mail addresses, which are names of accounts.
    r"|(?<=://)[^\s'\"<>]{1,300}(?=@)|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    # Accounts at OpenAI, xAI and Google.
    r"|\b(?:org|proj)[-_][A-Za-z0-9]{6,}|\b(?:user|team|acct)[-_](?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{6,}"
    r"|(?<=\bprojects/)[^\s/'\"]+|(?<=\borganizations/)[^\s/'\"]+"
)

_MASKED: Final = re.compile(r"(?<![\w-])\w[\w-]{0,200}\*{3,}[\w-]*|(?<!\*)\*{3,}\w[\w-]*")
"""A secret that the service has masked itself, except for its ends: xa***23."""

_NAMED: Final = re.compile(
    # In a query, a connection string or JSON; not the dots in an error's advice, such as ``api_key=...``.
    r"(?<![\w-])([\w-]{0,40}"
    r"(?:pass(?:word|wd|phrase)?|pwd|token|key|secret|authorization|signature|credentials?)"
    r"(?:=|\"\s?:\s?\"))(?!\.\.\.)[^\s&;,'\")\]}]+"
    # An account by its kind, in quotes or with a number in it.
    r"|\b((?:organi[sz]ation|project|team|account|workspace|tenant|subscription|consumer)s?"
    r"(?:[ _-](?:id|number|name))?[\s:=#]{1,3})"
    r"(?:(?P<quote>['\"`])[^'\"`]{1,100}(?P=quote)|(?=[A-Za-z-]{0,40}\d)[\w-]{6,})",
    re.IGNORECASE,
)

_HOSTS: Final = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://[^\s'\"<>)]+"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b(?::\d+)?|\[[0-9a-f]{0,4}:[0-9a-f:.]{1,45}\](?::\d+)?"
    r"|(?<![\w.-])(?:[a-z0-9_-]{1,63}\.){1,9}(?:com|net|org|io|ai|dev|app|cloud|goog|internal|intranet|local|lan"
    r"|corp|svc|cluster|test|example|invalid)\b(?::\d+)?(?:/[^\s'\"<>)]*)?"
    r"|\blocalhost\b(?::\d+)?"
    r"|(?<![\w.-])(?=[\w.-]{0,99}[a-z])[\w-]{1,63}(?:\.[\w-]{1,63}){0,9}:\d{3,5}\b",
    re.IGNORECASE,
)

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


def redact(
    text: str, secrets: Iterable[str] = (), *, replacement: str = REDACTED, hosts: bool = False
) -> str:
    """Return `text` without the `secrets`, and without whatever looks like a key, a token or an account.

    With `hosts`, URLs and the names of hosts are removed too. A secret is also found if it contains invisible
    characters; these are then removed from the text.
    """
    secrets = tuple(secrets)
    told = _redact(text, secrets, replacement, hosts)
    bare = INVISIBLE.sub("", text)
    if bare != text:
        found = _redact(bare, secrets, replacement, hosts)
        if _visible(found, replacement) < _visible(INVISIBLE.sub("", told), replacement):
            return found
    return told


def _visible(text: str, replacement: str) -> int:
    return len(text.replace(replacement, "").replace(REDACTED, ""))


def _redact(text: str, secrets: Iterable[str], replacement: str, hosts: bool) -> str:
    text = hide(_MASKED.sub(REDACTED, text), secrets, replacement)
    if hosts:
        text = _HOSTS.sub(REDACTED, text)
    text = _KEYS.sub(REDACTED, text)
    return _NAMED.sub(lambda found: f"{found[1] or found[2]}{REDACTED}", text)


def shown(
    text: str,
    secrets: Iterable[str] = (),
    *,
    limit: int,
    replacement: str = REDACTED,
    hosts: bool = False,
) -> str:
    """Return a service's words for an error or a log: redacted, on one line, and cut.

    The work is bounded by `limit`, however long the text is.
    """
    most = _PER_CHARACTER * limit
    if len(text) > most:
        text = text[:most].rpartition(" ")[0] or text[:most]
    return clean(redact(text, secrets, replacement=replacement, hosts=hosts), limit=limit)


def hide(text: str, secrets: Iterable[str], replacement: str) -> str:
    """Return `text` with each of the `secrets` replaced by `replacement`.

    Also if a secret is encoded as in URLs, in base64 or in hexadecimal digits, or if only its ends are shown.
    A secret of fewer than 8 characters is replaced only where it is not part of a longer word: replacing
    parts of words would garble them, and reveal the secret by what is missing. One that is an ordinary word,
    such as ``test``, is left where it stands among the words of a sentence, unless ``key``, ``token``,
    ``Bearer`` or ``Basic`` introduces it.
    """
    # The longest first: one may begin another. A single pass leaves the replacements alone.
    known = tuple(sorted(filter(None, secrets), key=len, reverse=True))
    return _finder(known).sub(lambda _: replacement, text) if known and text else text


@lru_cache(maxsize=64)
def _finder(secrets: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_pattern, secrets)))


def _forms(secret: str) -> Iterator[str]:
    """Yield regular expressions for the forms in which a service may quote `secret`."""
    yield "".join(map(_percent_encoded, secret))
    data = secret.encode(errors="surrogatepass")
    for shift in range(3):
        # The digits depend on the position in the encoded text; the first and last share bits with others.
        digits = base64.b64encode(bytes(shift) + data).decode()
        inner = digits[(0, 2, 3)[shift] : (shift + len(data)) * 8 // 6]
        yield re.escape(inner).replace(r"\+", "[+-]").replace("/", "[/_]")
    yield f"(?i:{data.hex()})"
    start, ends = re.escape(secret[:2]), "|".join(re.escape(secret[-size:]) for size in range(_SHORT, 1, -1))
    yield rf"{start}[^\s'\"]{{0,200}}?(?:\.{{2,}}|…|\*{{2,}}|•+)(?:{ends})"


def _percent_encoded(character: str) -> str:
    data = character.encode(errors="surrogatepass")
    return f"(?:(?i:{''.join(f'%{byte:02x}' for byte in data)})|{re.escape(character)})"


def _pattern(secret: str) -> str:
    """Return a regular expression that finds `secret` in a text."""
    if len(secret) >= _SHORT:
        return "|".join(_forms(secret))
    escaped = re.escape(secret)
    alone = rf"(?<!\w){escaped}(?!\w)"
    if not _WORD.fullmatch(secret):
        return alone
    introduced = "|".join(rf"(?<={before})" for before in _INTRODUCTIONS)
    return rf"(?:{introduced}){escaped}(?!\w)|(?<![A-Za-z] ){alone}(?! [A-Za-z])"
