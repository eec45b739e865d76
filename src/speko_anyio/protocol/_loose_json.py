"""JSON of peers that are not strict about it: providers, carriers, and servers compatible with them."""

from __future__ import annotations

import json
from typing import Any, Final

from ._codec import MalformedMessage

BLANK: Final = "\ufeff \t\r\n"
"""White space of JSON, and the byte order mark that some servers write around it."""


def parse(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Accept also what Python's own encoder writes (NaN, lone surrogates), numbers of any length, and byte order
    marks around the object. Raise `MalformedMessage` for anything else.
    """
    try:
        value = _JSON.decode(text.strip(BLANK))
    except RecursionError:
        raise MalformedMessage("it is nested too deeply") from None
    except ValueError as error:
        raise MalformedMessage(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedMessage("it is not a JSON object")
    return value


def text_of(data: bytes) -> str:
    """Decode text that came as bytes: UTF-8, with invalid bytes replaced by U+FFFD."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    try:
        return data.decode(errors="surrogatepass")  # surrogate halves encoded in three bytes each
    except UnicodeDecodeError:
        return data.decode(errors="replace")


def _integer(digits: str) -> int | float:
    # Python refuses to parse thousands of digits, and no real value has them.
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_MAX_DIGITS: Final = 400
_JSON: Final = json.JSONDecoder(strict=False, parse_int=_integer)
