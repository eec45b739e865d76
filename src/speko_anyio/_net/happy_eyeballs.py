"""Connects to whichever address of a host answers first (RFC 8305, "Happy Eyeballs").

anyio does this for its own streams and asyncio for its own loop, but neither does for uvloop's transports.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import anyio

from .sockets import limit_silence

_DELAY: Final = 0.25
"""Seconds for an address to answer before the next is tried beside it (RFC 8305 section 8)."""

Address = tuple[socket.AddressFamily, Any]


async def connect_socket(
    host: str, port: int, *, connect: Callable[[socket.socket, Any], Awaitable[None]]
) -> socket.socket:
    """Return a non-blocking TCP socket, connected to the host by a loop's ``sock_connect``.

    Raises the OSError of the only address, or one whose cause is the group of all errors. Cancelled, it
    leaves nothing open.
    """
    # Not within the group, which would wrap the error of a failed name look-up.
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _connected(addresses[0], connect)
    winners: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            candidate = await _connected(address, connect)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if winners:
            candidate.close()
        else:
            winners.append(candidate)
            attempts.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(_DELAY):
                    await failed.wait()
    except BaseException:
        # Cancelled when one had just connected.
        for winner in winners:
            winner.close()
        raise
    if winners:
        return winners[0]
    raise OSError("no address of the host answers") from ExceptionGroup("", errors)


async def _connected(
    address: Address, connect: Callable[[socket.socket, Any], Awaitable[None]]
) -> socket.socket:
    family, where = address
    candidate = socket.socket(family, socket.SOCK_STREAM)
    try:
        candidate.setblocking(False)
        # Frames are small and urgent: never wait for more data (Nagle's algorithm).
        candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_silence(candidate)
        await connect(candidate, where)
    except BaseException:
        candidate.close()
        raise
    return candidate


async def _addresses(host: str, port: int) -> list[Address]:
    """Return the addresses in the order to try them: the resolver's, but with the families in turn."""
    found: Iterable[tuple[Any, Any, Any, Any, Any]]
    try:
        # A numeric address needs no look-up, which takes a thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[socket.AddressFamily, list[Address]] = {}
    for family, _, _, _, where in found:
        families.setdefault(family, []).append((family, where))
    in_turn = itertools.zip_longest(*families.values())
    return [address for addresses in in_turn for address in addresses if address is not None]
