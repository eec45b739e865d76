"""What the signature checks of the carriers share."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec

from ..protocol.errors import LocalProtocolError
from ..protocol.errors import SignatureError as SignatureError

MAX_FIELDS: Final = 1000
"""Fields in the body or in the query of a webhook; a carrier sends about 30."""

MAX_AGE: Final = 300.0
"""Seconds that a signature with a time is valid for, in both directions: clocks differ."""


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a carrier: a webhook, or the handshake of a media stream's WebSocket."""

    method: str
    """``POST`` or ``GET``; a WebSocket's handshake is a GET."""
    url: str
    """The whole URL as the carrier calls it: with the public host, and with its query."""
    headers: Mapping[str, str]
    """The fields of the header; upper and lower case do not matter in their names."""
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return the value of a field of the header, or an empty string."""
        wanted = name.lower()
        return next((value for field, value in self.headers.items() if field.lower() == wanted), "")

    def parts(self) -> SplitResult:
        """Return the parts of the URL; `SignatureError` if it is not one."""
        try:
            return urlsplit(self.url)
        except ValueError:
            raise SignatureError("the request can't be checked, because its URL is not valid") from None

    def query(self) -> list[tuple[str, str]]:
        """Return the fields of the URL's query in their order."""
        return _parse(self.parts().query, strict=False)

    def form(self) -> list[tuple[str, str]]:
        """Return the fields of the body in their order; `SignatureError` if it is not a form."""
        return _parse(self.body.decode(errors="replace"), strict=True) if self.body else []

    def __repr__(self) -> str:
        # Signatures, tokens and phone numbers are in the rest.
        return f"SignedRequest({self.method}, <{len(self.body)} bytes>)"


def _parse(fields: str, *, strict: bool) -> list[tuple[str, str]]:
    try:
        return parse_qsl(fields, keep_blank_values=True, strict_parsing=strict, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise SignatureError(
            "the request can't be checked, because its body is not a form or has too many fields; it is not "
            "from the carrier"
        ) from None


def missing(header: str, carrier: str) -> SignatureError:
    """Return the error for a request without its signature."""
    return SignatureError(f"the request has no {header}, which {carrier} sends; it is not from {carrier}")


def key_of(secret: Any, carrier: str) -> bytes:
    """Return the secret as a key; `LocalProtocolError` for none: anybody can sign with an empty one."""
    if not isinstance(secret, str) or not secret:
        raise LocalProtocolError(f"there is no secret to check the signatures of {carrier} with; set it")
    return secret.encode(errors="replace")


def is_same(given: str, right: bytes) -> bool:
    """Compare two signatures in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), right)


def wrong(carrier: str) -> SignatureError:
    """Return the error for a request with a wrong signature."""
    return SignatureError(
        f"the signature is not that of {carrier} for this URL; check that the secret is that of the account "
        "and that the gateway's public URL is the one that the carrier calls"
    )


def check_age(made: float, now: float, carrier: str) -> None:
    """`SignatureError` for a signature from too long ago, or from the future."""
    if not abs(now - made) <= MAX_AGE:
        raise SignatureError(
            f"{carrier} signed the request {now - made:.0f} s ago, and {MAX_AGE:.0f} s are allowed; "
            "check this machine's clock"
        )
