"""Who watches a session, and how they come to see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from ..protocol.errors import LocalProtocolError
from ..protocol.url import parse_url
from .observer import Observer, Observers, SessionInfo, SessionObserver, each

if TYPE_CHECKING:
    from ..client.pump import ClientCore

logger: Final = logging.getLogger("speko_anyio.client")


def audience_of(
    session_id: str, url: str, observers: Observers, *, secrets: Iterable[str]
) -> Audience | None:
    """Who watches the session at `url`, where anybody does.

    `observers` are the user's; the log is another one when its level asks for it now. `secrets` must not be
    logged, whoever says them.
    """
    makers: list[Observer] = [*each(observers)]
    if logger.isEnabledFor(logging.DEBUG):
        from .logs import LogObserver

        makers.append(lambda info: LogObserver(info, logger, secrets=secrets))
    return Audience(_info(session_id, url), makers) if makers else None


def _info(session_id: str, url: str) -> SessionInfo:
    try:
        where = parse_url(url)
    except LocalProtocolError:
        # Whoever connects finds that out for themselves; there is no host to name.
        return SessionInfo(session_id=session_id, host="", port=0)
    return SessionInfo(session_id=session_id, host=where.host, port=where.port)


class Audience:
    """The observers of one session; one that fails is told no more."""

    def __init__(self, info: SessionInfo, makers: Iterable[Observer]) -> None:
        self._session_id = info.session_id
        self._observers: list[SessionObserver] = []
        for make in makers:
            try:
                self._observers.append(make(info))
            except Exception:
                logger.exception("session %s: an observer could not be made", info.session_id)

    def watch(self, core: ClientCore) -> ClientCore:
        """The core, telling the observers what happens in it."""
        from .core import ObservedCore

        return ObservedCore(core, self)

    def ended(self, error: BaseException | None) -> None:
        """The session is over, by `error` where it is one."""
        self.tell(SessionObserver.ended, error)

    def tell(self, what: Callable[..., None], *args: object) -> None:
        """Call the method `what` of every observer."""
        for observer in tuple(self._observers):
            try:
                getattr(observer, what.__name__)(*args)
            except Exception:
                self._observers.remove(observer)
                logger.exception("session %s: an observer failed and is told no more", self._session_id)
