"""The core in a thread with queues: a GUI calls `do` and `poll` from its own thread, and neither waits."""

import queue
import threading
from collections.abc import Callable
from functools import partial

from blocking_socket import connect, flush, receive
from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, SpekoError

TICK = 0.02  # seconds until an order is obeyed, at most


class SessionThread(threading.Thread):
    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.url, self.session = url, ClientConnection(url, token)
        self._orders = queue.Queue[Callable[[ClientConnection], object]](maxsize=1000)
        self.heard = queue.Queue[Frame | Exception](maxsize=1000)
        self.do = self._orders.put_nowait  # have the thread call a verb; queue.Full: far too many wait
        self.poll = self.heard.get_nowait  # the next frame or failure; queue.Empty: nothing new

    def run(self) -> None:
        event = None
        try:
            with connect(self.url) as sock:
                while not isinstance(event, Close):
                    while (event := self.session.next_event()) is NEED_DATA:
                        self._obey()
                        flush(sock, self.session)
                        receive(sock, self.session, TICK)
                    flush(sock, self.session)
                    self.heard.put(event)  # no room: nothing more is read, so the server has to wait
        except (SpekoError, OSError) as error:
            self.heard.put(error)

    def _obey(self) -> None:
        while not self._orders.empty():
            try:
                self._orders.get()(self.session)
            except SpekoError as error:
                self.heard.put(error)


def talk(url: str, token: str) -> list[Frame]:
    thread, event, heard = SessionThread(url, token), None, list[Frame]()
    thread.start()
    while not isinstance(event, Close):
        event = thread.heard.get()  # a GUI would `poll` from a timer of its own
        if isinstance(event, Exception):
            raise event
        heard.append(event)
        thread.do(partial(respond, frame=event))
    return heard


if __name__ == "__main__":
    main(talk)
