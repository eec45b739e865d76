"""The core in a plain blocking socket, in turns: say something, then listen. No thread, no event loop."""

import socket
import ssl
import time
from math import inf

from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame
from speko_anyio.protocol.url import parse_url

PATIENCE = 10.0  # seconds for the TCP connection, and for a peer that does not read


def connect(url: str) -> socket.socket:
    where = parse_url(url)
    sock = socket.create_connection((where.host, where.port), timeout=PATIENCE)
    tls = ssl.create_default_context()
    return tls.wrap_socket(sock, server_hostname=where.host) if where.secure else sock


def flush(sock: socket.socket, session: ClientConnection) -> None:
    try:
        sock.settimeout(PATIENCE)
        sock.sendall(session.data_to_send())
    except OSError:  # a timeout, too
        session.send_failed()


def receive(sock: socket.socket, session: ClientConnection, timeout: float = inf) -> None:
    deadline = session.next_deadline()
    wait = min(timeout, inf if deadline is None else deadline - time.monotonic())
    if wait > 0:
        try:
            sock.settimeout(None if wait == inf else wait)
            data = sock.recv(65_536)
            session.receive_data(data) if data else session.receive_eof()
        except TimeoutError:
            pass
        except OSError:
            session.receive_eof()
    session.handle_timeout(time.monotonic())


def talk(url: str, token: str) -> list[Frame]:
    heard, session, event = list[Frame](), ClientConnection(url, token), None
    with connect(url) as sock:
        while not isinstance(event, Close):
            while (event := session.next_event()) is NEED_DATA:
                flush(sock, session)
                receive(sock, session)
            heard.append(event)
            respond(session, event)
        flush(sock, session)  # the answer to the peer's close
    return heard


if __name__ == "__main__":
    main(talk)
