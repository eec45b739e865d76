"""Drive the core with a plain blocking socket. There are no threads and no event loop."""

import socket
import ssl
import time

from conversation import main, respond

from speko_anyio.protocol import NEED_DATA, ClientConnection, Close, Frame, parse_url

PATIENCE = 10.0  # seconds to connect, and for a peer that does not read


def connect(url: str) -> socket.socket:
    where = parse_url(url)
    sock = socket.create_connection((where.host, where.port), timeout=PATIENCE)
    if where.secure:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=where.host)
    return sock


def flush(sock: socket.socket, session: ClientConnection) -> None:
    sock.settimeout(PATIENCE)
    try:
        sock.sendall(session.data_to_send())
    except OSError:  # includes a timeout
        session.send_failed()


def receive(sock: socket.socket, session: ClientConnection, timeout: float = 3600.0) -> None:
    deadline = session.next_deadline()
    if deadline is not None:
        timeout = min(timeout, deadline - time.monotonic())
    sock.settimeout(max(timeout, 0.001))  # 0 would make the socket non-blocking
    try:
        data = sock.recv(65_536)
        session.receive_data(data) if data else session.receive_eof()
    except TimeoutError:
        pass
    except OSError:
        session.receive_eof()
    session.handle_timeout(time.monotonic())


def talk(url: str, token: str) -> list[Frame]:
    session = ClientConnection(url, token)
    frames: list[Frame] = []
    with connect(url) as sock:
        while not frames or not isinstance(frames[-1], Close):
            while (event := session.next_event()) is NEED_DATA:
                flush(sock, session)
                receive(sock, session)
            frames.append(event)
            respond(session, event)
        flush(sock, session)  # sends the answer to the peer's close
    return frames


if __name__ == "__main__":
    main(talk)
