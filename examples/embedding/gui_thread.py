"""Run the blocking socket of `blocking_socket.py` in a thread, so that a GUI never waits for it."""

import queue
import threading
from collections.abc import Callable
from functools import partial

from blocking_socket import connect, flush, receive
from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, SpekoError

TICK = 0.02  # seconds between two looks at the commands


class SessionThread(threading.Thread):
    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.session = ClientConnection(url, token)
        self.commands = queue.Queue[Callable[[ClientConnection], object]](1000)  # for `put_nowait` of the GUI
        self.frames = queue.Queue[Frame | Exception](1000)  # for `get_nowait` of the GUI

    def run(self) -> None:
        event = None
        try:
            with connect(self.url) as sock:
                while not isinstance(event, Close):
                    while (event := self.session.next_event()) is NEED_DATA:
                        self.run_commands()
                        flush(sock, self.session)
                        receive(sock, self.session, TICK)
                    flush(sock, self.session)
                    self.frames.put(event)  # blocks when it is full, so the server has to wait
        except (SpekoError, OSError) as error:
            self.frames.put(error)

    def run_commands(self) -> None:
        while not self.commands.empty():
            try:
                self.commands.get()(self.session)
            except SpekoError as error:
                self.frames.put(error)


def talk(url: str, token: str) -> list[Frame]:
    thread = SessionThread(url, token)
    thread.start()
    frames: list[Frame] = []
    while not frames or not isinstance(frames[-1], Close):
        event = thread.frames.get()  # a GUI would call `get_nowait` from a timer
        if isinstance(event, Exception):
            raise event
        frames.append(event)
        thread.commands.put_nowait(partial(respond, frame=event))
    return frames


if __name__ == "__main__":
    main(talk)
