"""Client masking (RFC 6455 section 5.3): unpredictable keys and a cheap exclusive-or.

Keys are cut from blocks of entropy, since a system call per frame would cost more than the frame. The source
is a parameter, so that a session can be replayed byte for byte. A block must never serve two processes: two
sides of a fork would use the same keys, so the child throws away what it inherited.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from typing import Final, TypeAlias

Entropy: TypeAlias = Callable[[int], bytes]
"""Returns that many unpredictable bytes, like `os.urandom`."""

_BLOCK: Final = 256  # 64 keys. At 4 KiB a key would cost 12 ns, not 20, but each session that talks has one
_KEYS: Final = struct.Struct("4s").iter_unpack
_NUMBERS: Final = struct.Struct(f"<{_BLOCK // 4}I").unpack

_LARGEST_KEPT: Final = 8192  # words: 32 KiB, the largest audio message we send
_MOST_KEPT: Final = 16


def ones(words: int) -> int:
    """Return a number with a one in every fourth byte; multiplied by a key it repeats the key `words` times.

    Our own audio has few sizes, so those are cached; a peer's large messages may have any size.
    """
    return _kept_ones(words) if words <= _LARGEST_KEPT else _make_ones(words)


def _make_ones(words: int) -> int:
    return int.from_bytes(b"\1\0\0\0" * words, "little")


_kept_ones: Final = functools.lru_cache(_MOST_KEPT)(_make_ones)


def mask_in_python(data: bytes, key: bytes) -> bytes:
    """Return `data` exclusive-or the repeated `key`, computed as one wide integer.

    The multiplication repeats the key a fifth faster than `bytes` and `int.from_bytes` do. On CPython 3.11
    all of it takes 2.4 ns a byte, four strided `bytearray.translate` 2.5, and a loop 40.
    """
    size = len(data)
    words = (size + 3) // 4
    masked = int.from_bytes(data, "little") ^ int.from_bytes(key, "little") * ones(words)
    return masked.to_bytes(4 * words, "little")[:size]


def _fastest_mask() -> Callable[[bytes, bytes], bytes]:
    """Find `apply_mask` of websockets' C extension where that is installed: 0.1 µs for 960 bytes.

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
"""Mask or unmask: `data` exclusive-or the repeated `key`. In C where that is installed."""


class MaskingKeys:
    """An endless supply of masking keys."""

    __slots__ = ("__weakref__", "_entropy", "take", "take_number")

    take: Callable[[], tuple[bytes]]
    """Returns the next key, four bytes, in a tuple of one: `struct` makes it so, and no Python code runs."""
    take_number: Callable[[], int]
    """The same as a little-endian number; only exists without a C masker."""

    def __init__(self, entropy: Entropy = os.urandom) -> None:
        self._entropy = entropy
        self.forget()
        _pools.add(self)

    def forget(self) -> None:
        """Discard the keys that are left in the current block."""
        if mask is mask_in_python:
            numbers = itertools.chain.from_iterable(map(_NUMBERS, self._blocks()))
            self.take_number = numbers.__next__
            self.take = map(_as_bytes, numbers).__next__
        else:
            self.take = itertools.chain.from_iterable(map(_KEYS, self._blocks())).__next__

    def _blocks(self) -> Iterator[bytes]:
        while True:
            yield self._entropy(_BLOCK)


def _as_bytes(number: int) -> tuple[bytes]:
    return (number.to_bytes(4, "little"),)


_pools: weakref.WeakSet[MaskingKeys] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in _pools:
        pool.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_all)
