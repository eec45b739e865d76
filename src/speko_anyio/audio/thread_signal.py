"""Waking a task from another thread that must not wait: an audio device's callback."""

from __future__ import annotations

import socket
import threading

import anyio


class ThreadSignal:
    """Set in any thread, waited for in a task; what is set while nobody waits is kept, once.

    A pair of sockets, which every event loop can wait for. `anyio.from_thread` would make the thread wait for
    the event loop: too long for a callback that has a few milliseconds.
    """

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        # Lest the other thread write to whatever gets the number of a socket that is being closed.
        self._lock = threading.Lock()

    def set(self) -> None:
        """Wake the waiting task, or the next one to wait. Never blocks; nothing after `close`."""
        with self._lock:
            if self._outside.fileno() >= 0:
                try:
                    self._outside.send(b"\0")
                except BlockingIOError:
                    pass  # as many are under way as fit

    async def wait(self) -> None:
        """Wait until it was set since the last wait. One task at a time.

        Raises `anyio.BusyResourceError` for a second one, and `anyio.ClosedResourceError` after `close`.
        """
        if self._inside.fileno() < 0:
            raise anyio.ClosedResourceError
        await anyio.wait_readable(self._inside)
        if self._inside.fileno() < 0:
            # Closed when it had just been set.
            raise anyio.ClosedResourceError
        self._inside.recv(4096)

    def close(self) -> None:
        """Wake whoever waits, for the last time."""
        with self._lock:
            if self._inside.fileno() >= 0:
                anyio.notify_closing(self._inside)
                self._inside.close()
                self._outside.close()
