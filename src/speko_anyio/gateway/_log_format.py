"""The format of the gateway's log: text for people, or one JSON object a line, with its session."""

from __future__ import annotations

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from speko_anyio.protocol._text import UNSAFE, escape
from speko_anyio.protocol._tokens import redact

from ._settings import Settings

current_session: Final[ContextVar[str | None]] = ContextVar("current_session", default=None)
"""The id of the session that this task serves; every task that it starts inherits it."""


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    """ISO 8601, UTC, milliseconds."""
    level: str
    logger: str
    message: str
    session: str | None = None
    error: str | None = None
    """The type of the exception and what it says."""
    traceback: str | None = None


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with line breaks escaped so that no text can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = _Line(
            time=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            level=record.levelname,
            logger=record.name,
            message=_encodable(redact(record.getMessage())),
            session=current_session.get(),
        )
        if record.exc_info is not None and (error := record.exc_info[1]) is not None:
            line.error = _encodable(redact(f"{type(error).__name__}: {error}"))
            line.traceback = _encodable(redact("".join(traceback.format_exception(error))))
        # JSON itself escapes line feeds, but not what others take for a line end or a control character.
        return UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], msgspec.json.encode(line).decode())


class TextFormatter(logging.Formatter):
    """Formats a record for people.

    Its message is one line, so that no text in it, such as the name of a model, can forge a line; an
    exception and its traceback follow it, indented for the same reason.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape(redact(super().formatMessage(record)))

    def format(self, record: logging.LogRecord) -> str:
        # A formatter of another handler may have cached its text of the exception, and would take ours.
        cached, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = cached

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join(f"  {escape(line)}" for line in redact(text).split("\n"))


def _encodable(text: str) -> str:
    """Escape what UTF-8 lacks: Python's file names, and so its errors, may hold halves of surrogate pairs."""
    return text.encode(errors="backslashreplace").decode()


def start_log(settings: Settings) -> None:
    """Send the log to standard error, in the format and from the level of the settings."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    if settings.log_level != "debug":
        # It reports its setup at every start; `store.migrate` logs when there is something to do.
        logging.getLogger("alembic").setLevel(logging.WARNING)
