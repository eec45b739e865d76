"""Reads carriers' JSON: bounded, strict about what the call acts on, lenient about the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from ..protocol import close_codes
from ..protocol._codec import MalformedMessage, mended
from ..protocol._loose_json import parse, text_of
from ..protocol.errors import RemoteProtocolError
from ..protocol.frames import DIGITS
from ._events import Digit, Marked

MAX_MESSAGE: Final = 65_536
"""Bytes, or characters, in one message of a carrier. They send 20 to 100 ms of audio at once: 4 KB."""

MAX_PARAMETERS: Final = 64
"""Custom parameters of a call; further ones are ignored."""

MAX_PARAMETER: Final = 4096
"""Characters in the name and in the value of a parameter; a longer one is ignored. Carriers allow 500."""

_MAX_NAME: Final = 256
"""Characters in the name of a mark; ours are short."""

DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""Errors of msgspec's decoders. A message that raises one is read again, leniently."""


class Odd:
    """Counts odd fields."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Fields:
    """A JSON object of a carrier. A missing field, like null, is empty; an odd one is empty and counted.

    Numbers are taken for text, since carriers write ``"sequenceNumber": "3"`` as well as ``3``.
    """

    __slots__ = ("_odd", "_values")

    def __init__(self, values: Mapping[str, object], odd: Odd) -> None:
        self._values = values
        self._odd = odd

    def raw(self, name: str) -> object:
        """Return the field as it is."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Return the field as text."""
        value = self._values.get(name)
        if isinstance(value, str):
            return mended(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        self._odd.count += value is not None
        return ""

    def whole(self, name: str) -> int:
        """Return the field as a whole number, or 0."""
        value = self.text(name)
        if value.isascii() and value.isdigit() and len(value) < 20:
            return int(value)
        self._odd.count += value != ""
        return 0

    def inner(self, name: str) -> Fields:
        """Return the object in the field."""
        value = self._values.get(name)
        if isinstance(value, dict):
            return Fields(value, self._odd)
        self._odd.count += value is not None
        return Fields({}, self._odd)

    def digit(self, name: str) -> Digit | None:
        """Return the key that the caller pressed; None if the field is not a key of a telephone."""
        value = self.text(name).upper()
        if value in DIGITS:
            return Digit(value)
        self._odd.count += value != ""
        return None

    def mark(self, name: str) -> Marked | None:
        """Return the mark with the name in this field; None if there is none."""
        value = self.text(name)
        if len(value) > _MAX_NAME:
            self._odd.count += 1
            return None
        return Marked(value) if value else None

    def parameters(self, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
        """Return all fields as text: values that are not text are JSON."""
        found: dict[str, str] = {}
        for name, value in self._values.items():
            if name in without:
                continue
            text = _as_text(value)
            if text is None:
                self._odd.count += 1
            elif len(found) < MAX_PARAMETERS and len(name) <= MAX_PARAMETER and len(text) <= MAX_PARAMETER:
                found[mended(name)] = mended(text)
            else:
                self._odd.count += 1
        return found


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return None


def check_size(message: str | bytes, carrier: str) -> None:
    """`RemoteProtocolError` for a message that is longer than any of a carrier."""
    if len(message) > MAX_MESSAGE:
        raise RemoteProtocolError(
            f"{carrier} sent a message of {len(message)} bytes, and {MAX_MESSAGE} are allowed",
            close_code=close_codes.TOO_BIG,
        )


def read(message: str | bytes, carrier: str, odd: Odd) -> Fields:
    """Read a message; `RemoteProtocolError` if it is not a JSON object."""
    try:
        values = msgspec.json.decode(message)
    except DECODE_ERRORS:
        values = None
    if not isinstance(values, dict):
        try:
            values = parse(message if isinstance(message, str) else text_of(message))
        except MalformedMessage as problem:
            raise malformed(f"a message of {carrier} can't be read: {problem}") from None
    return Fields(values, odd)


def malformed(what: str) -> RemoteProtocolError:
    """Return the error for a message that the call can't go on without."""
    return RemoteProtocolError(what, close_code=close_codes.INVALID_DATA)
