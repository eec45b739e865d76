"""Client masking (RFC 6455 section 5.3): unpredictable keys, and the exclusive-or, both made cheap.

Keys are cut from blocks of entropy, since a system call a frame costs more than the frame. The source is a
parameter, so that a session can be replayed byte for byte. A block must never serve two processes: two
sides of a fork would use the same keys, so the child throws away what it inherited.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Final, TypeAlias

Entropy: TypeAlias = Callable[[int], bytes]
"""Gives that many unpredictable bytes, as `os.urandom` does."""

_BLOCK: Final = 256  # 64 keys. At 4 KiB a key would cost 12 ns, not 20, but each session that talks has one
_KEYS: Final = struct.Struct("4s").iter_unpack

_XOR: Final = tuple(bytes(a ^ b for a in range(256)) for b in range(256))


_FIRST, _SECOND, _THIRD, _FOURTH = (slice(lane, None, 4) for lane in range(4))


def exclusive_or_in_python(data: bytes, key: bytes) -> bytearray:
    """`data` exclusive-or `key` repeated.

    Each of the four byte lanes is one table lookup in C (`bytearray.translate`), a quarter of the data at a
    time: 1.6 µs for 960 bytes, against 2.5 for one wide integer and 40 for a loop.
    """
    masked = bytearray(data)
    a, b, c, d = key
    masked[_FIRST] = masked[_FIRST].translate(_XOR[a])
    masked[_SECOND] = masked[_SECOND].translate(_XOR[b])
    masked[_THIRD] = masked[_THIRD].translate(_XOR[c])
    masked[_FOURTH] = masked[_FOURTH].translate(_XOR[d])
    return masked


def mask_in_python(data: bytes, key: bytes) -> bytes:
    """The same, as bytes."""
    return bytes(exclusive_or_in_python(data, key))


def _fastest_mask() -> Callable[[bytes, bytes], bytes]:
    """`apply_mask` of websockets' C extension where that is installed: 0.1 µs for 960 bytes.

    Not a dependency: many applications have `websockets` installed anyway. The extension is loaded by
    itself, since importing its package would load sockets and e-mail into the core.
    """
    package = importlib.util.find_spec("websockets")
    if package is None:
        return mask_in_python
    spec = PathFinder.find_spec("websockets.speedups", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return mask_in_python
    try:
        speedups = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(speedups)
    except ImportError:
        return mask_in_python  # built for another machine
    apply_mask: Callable[[bytes, bytes], bytes] = speedups.apply_mask
    return apply_mask


mask: Final = _fastest_mask()
"""`data` exclusive-or `key` repeated; its own inverse. In C where that is installed."""

exclusive_or: Final[Callable[[bytes, bytes], bytes | bytearray]] = (
    exclusive_or_in_python if mask is mask_in_python else mask
)
"""The same, for who copies the result anyway: in Python it spares one copy."""


class MaskingKeys:
    """An endless supply of masking keys."""

    __slots__ = ("__weakref__", "_entropy", "take")

    take: Callable[[], tuple[bytes]]
    """The next key, four bytes, alone in a tuple: as C makes it, with no frame of Python in between."""

    def __init__(self, entropy: Entropy = os.urandom) -> None:
        self._entropy = entropy
        self.forget()
        _pools.add(self)

    def forget(self) -> None:
        """Use none of the keys that are left of the current block."""
        self.take = itertools.chain.from_iterable(self._blocks()).__next__

    def _blocks(self) -> Iterator[Iterator[tuple[bytes]]]:
        while True:
            yield _KEYS(self._entropy(_BLOCK))


_pools: weakref.WeakSet[MaskingKeys] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in _pools:
        pool.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_all)
