"""Wakes a task from a thread that must not block, such as an audio device's callback."""

from __future__ import annotations

import socket
import threading

import anyio


class ThreadSignal:
    """Set in any thread, waited for in a task. Setting it while nobody waits is remembered, once.

    A pair of sockets, which every event loop can wait for. `anyio.from_thread` would make the thread wait for
    the event loop: too long for a callback that has a few milliseconds.
    """

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        # Otherwise the other thread could write to a descriptor that has just been closed and reused.
        self._lock = threading.Lock()

    def set(self) -> None:
        """Wake the waiting task, or the next one to wait. Never blocks; does nothing after `close`."""
        with self._lock:
            if self._outside.fileno() >= 0:
                try:
                    self._outside.send(b"\0")
                except BlockingIOError:
                    pass  # the buffer is full of wake-ups already

    async def wait(self) -> None:
        """Wait until it was set since the last wait. One task at a time.

        Raises `anyio.BusyResourceError` for a second one, and `anyio.ClosedResourceError` after `close`.
        """
        if self._inside.fileno() < 0:
            raise anyio.ClosedResourceError
        await anyio.wait_readable(self._inside)
        if self._inside.fileno() < 0:
            # It was closed just after it was set.
            raise anyio.ClosedResourceError
        self._inside.recv(4096)

    def close(self) -> None:
        """Wake the waiting task for the last time."""
        with self._lock:
            if self._inside.fileno() >= 0:
                anyio.notify_closing(self._inside)
                self._inside.close()
                self._outside.close()
