"""A TCP proxy in front of a server that can stop forwarding, as a network or a host does that hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StoppingProxy:
    """Forwards to the Unix socket `target`. Stopped, it still accepts connections, and nothing passes."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._closed = False
        self._open: list[socket.socket] = []
        self._forgotten: set[int] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Forward nothing from now on."""
        self._flows.clear()

    def go_on(self, *, forget: bool = False) -> None:
        """Forward again; if `forget`, only over new connections: the others stay silent for ever."""
        if forget:
            self._forgotten.update(connection.fileno() for connection in self._open)
        self._flows.set()

    def close(self) -> None:
        self._closed = True
        self._flows.set()
        with socket.create_connection(self._listener.getsockname()):
            pass  # wakes the thread that accepts
        self._threads[0].join()
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its peer was faster
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._flows.wait()
            if self._closed:
                client.close()
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            for origin, to in ((client, server), (server, client)):
                thread = threading.Thread(target=self._forward, args=(origin, to))
                self._threads.append(thread)
                thread.start()

    def _forward(self, origin: socket.socket, to: socket.socket) -> None:
        try:
            while data := origin.recv(65536):
                self._flows.wait()
                if origin.fileno() in self._forgotten:
                    continue
                to.sendall(data)
            self._flows.wait()
            if origin.fileno() not in self._forgotten:
                to.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # either peer has gone


@contextmanager
def stopping_proxy(target: str) -> Iterator[StoppingProxy]:
    """A proxy while the block runs."""
    proxy = StoppingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
