"""The log of a session at DEBUG: a line for everything that happens in it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..protocol._commands import Command
from ..protocol._state import State
from ..protocol.frames import Frame
from .observer import SessionInfo, SessionObserver
from .redaction import describe, redact


class LogObserver(SessionObserver):
    """Logs one session, without audio, texts and `secrets`; see `redaction.py`."""

    def __init__(self, info: SessionInfo, logger: logging.Logger, *, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)
        self._logger = logger
        self._id = redact(info.session_id, self._secrets)
        self._log("session %s: connecting to %s:%d", info.host, info.port)

    def _log(self, text: str, *args: object) -> None:
        self._logger.debug(text, self._id, *args)

    def state_changed(self, state: State) -> None:
        self._log("session %s is %s", state.value)

    def sent(self, command: Command) -> None:
        self._log("session %s > %s", describe(command, self._secrets))

    def received(self, frame: Frame) -> None:
        self._log("session %s < %s", describe(frame, self._secrets))

    def bytes_read(self, size: int) -> None:
        self._log("session %s: read %d bytes", size)

    def bytes_taken(self, size: int) -> None:
        self._log("session %s: writes %d bytes", size)

    def timer_fired(self) -> None:
        self._log("session %s: a timer fired")

    def reading_paused(self) -> None:
        self._log("session %s: reading paused, since a consumer is slow")

    def reading_resumed(self) -> None:
        self._log("session %s: reading resumed")

    def ended(self, error: BaseException | None) -> None:
        # By its kind: the text may be the application's own.
        self._log("session %s: left%s", "" if error is None else f" by {type(error).__name__}")
