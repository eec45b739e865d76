"""The observers of one session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from ..protocol.errors import LocalProtocolError
from ..protocol.url import parse_url
from .observer import ObserverFactory, ObserverOption, SessionInfo, SessionObserver, observer_factories

logger: Final = logging.getLogger("speko_anyio.client")


def make_observers(
    session_id: str, url: str, observers: ObserverOption, *, secrets: Iterable[str]
) -> Observers | None:
    """Make the observers of the session at `url`; None if there are none.

    `observers` are the user's; the log is one more while its level is DEBUG. The log never shows `secrets`.
    """
    makers: list[ObserverFactory] = [*observer_factories(observers)]
    if logger.isEnabledFor(logging.DEBUG):
        from .log_observer import LogObserver

        makers.append(lambda info: LogObserver(info, logger, secrets=secrets))
    return Observers(_info(session_id, url), makers) if makers else None


def _info(session_id: str, url: str) -> SessionInfo:
    try:
        where = parse_url(url)
    except LocalProtocolError:
        # Connecting will raise this error; there is no host to report.
        return SessionInfo(session_id=session_id, host="", port=0)
    return SessionInfo(session_id=session_id, host=where.host, port=where.port)


class Observers:
    """The observers of one session. One that fails is dropped."""

    def __init__(self, info: SessionInfo, makers: Iterable[ObserverFactory]) -> None:
        self._session_id = info.session_id
        self._observers: list[SessionObserver] = []
        for make in makers:
            try:
                self._observers.append(make(info))
            except Exception:
                logger.exception("session %s: an observer could not be made", info.session_id)

    def ended(self, error: BaseException | None) -> None:
        """Tell the observers that the session is over; `error` is what ended it, if anything."""
        self.tell(SessionObserver.ended, error)

    def tell(self, what: Callable[..., None], *args: object) -> None:
        """Call the method `what` of every observer."""
        for observer in tuple(self._observers):
            try:
                getattr(observer, what.__name__)(*args)
            except Exception:
                self._observers.remove(observer)
                logger.exception("session %s: an observer failed and was dropped", self._session_id)
