"""Text of others as it may be shown: on one line, and unable to steer a terminal or to forge a line."""

from __future__ import annotations

import re
from typing import Final

UNSAFE: Final = re.compile(
    # Control characters, line separators, what changes the direction of writing, invisible characters, and
    # halves of surrogate pairs. U+200C and U+200D stay: Persian, Hindi and emoji need them.
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""One character that must not reach a terminal or a log as it is."""


INVISIBLE: Final = re.compile(rf"(?!\s){UNSAFE.pattern}")
"""An unsafe character that does not separate words."""


def escape(text: str) -> str:
    """Return `text` with Python's escapes in place of its unsafe characters: a line end becomes ``\\n``."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def clean(text: str, *, limit: int | None = None) -> str:
    """Return `text` for people, on one line: whitespace becomes single spaces, the rest as in `escape`.

    It has `limit` characters at most; what is cut ends with an ellipsis.
    """
    line = escape(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"
