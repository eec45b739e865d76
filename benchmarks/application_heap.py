"""The heap of an application, for processes that are measured.

A benchmark's process is small. glibc then maps any large block anew for each use, such as the 256 KiB that
asyncio allocates for every read of an `asyncio.Protocol`, and libraries that read in this way seem twice as
slow as they are in an application. Every contender therefore runs in a process with `fill_heap` and
`ENVIRONMENT`, except with the option ``--bare``.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final

ENVIRONMENT: Final = {"MALLOC_MMAP_THRESHOLD_": "100000000", "MALLOC_TRIM_THRESHOLD_": "200000000"}
"""Settings of glibc. Both adapt on their own in a process that has allocated and freed large blocks."""

HEAP_MIB: Final = 50
_RECORD_BYTES: Final = 350
"""About what a record below takes."""

_heap: list[dict[str, object]] = []


def environment(*, bare: bool = False) -> dict[str, str]:
    """Return this process's environment, with `ENVIRONMENT` unless `bare`."""
    return dict(os.environ) if bare else {**os.environ, **ENVIRONMENT}


def fill_heap() -> None:
    """Fill this process with 50 MiB of small objects for as long as it lives.

    They are frozen: the benchmarks measure how libraries allocate, and how long a collection takes depends on
    the application alone.
    """
    _heap.extend({"id": index, "name": f"name {index}", "key": bytes(8)} for index in range(_count()))
    gc.collect()
    gc.freeze()


def enter() -> None:
    """Give this program `ENVIRONMENT`, for which it is executed once more, and fill its heap."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, sys.orig_argv, environment())
    fill_heap()


def _count() -> int:
    return HEAP_MIB * 1024 * 1024 // _RECORD_BYTES
