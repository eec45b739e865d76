"""Options of all TCP sockets: how long a peer may be silent before the system breaks the connection.

By default the system repeats unacknowledged data for 15 minutes, and probes a silent peer after 2 hours.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

_PROBE_AFTER: Final = 20
_PROBE_EVERY: Final = 5
_PROBES: Final = 4

PEER_TIMEOUT: Final = _PROBE_AFTER + _PROBE_EVERY * _PROBES
"""Seconds after which a peer that acknowledges nothing, or accepts no data, is considered lost. A session's
default keepalive takes as long: 20 s of silence, and 20 s for the answer to its ping."""

_OPTIONS: Final = (
    # Seconds of silence before the first probe; macOS has another name for it.
    ("TCP_KEEPIDLE", _PROBE_AFTER),
    ("TCP_KEEPALIVE", _PROBE_AFTER),
    ("TCP_KEEPINTVL", _PROBE_EVERY),
    ("TCP_KEEPCNT", _PROBES),
    # Milliseconds for data that the peer does not acknowledge, or has no room for; only Linux has it.
    ("TCP_USER_TIMEOUT", PEER_TIMEOUT * 1000),
)


def limit_silence(sock: socket.socket) -> None:
    """Have the system break the connection once its peer is dead for `PEER_TIMEOUT` seconds.

    Sockets that a listener accepts inherit this. Options that the system, or this kind of socket, lacks are
    left out.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return  # not a TCP socket, such as one that a program handed over


def drop_unsent(sock: socket.socket) -> None:
    """Have the close of the socket reset the connection.

    Otherwise the system keeps what the peer does not take, up to some MiB, until `PEER_TIMEOUT`.
    """
    at_once = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
