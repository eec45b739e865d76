"""Mutated inputs, and the bounds that the work on each of them has to keep."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

MEMORY: Final = 256 * 1024 * 1024
"""Bytes by which the process may grow for one input."""

SECONDS: Final = 2.0
"""CPU time for one input, of at most 64 KiB: a hundred times what it should take."""

_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2, 3.0, 0.5, 1e308, -0.0, 2**31, 2**63, 10**40, float("nan")),
    *("", "x", "\ud800", "\ufeff", "null", "1", "-1", "NaN", "Infinity", "object", "a" * 300, "é\u2028\x1b"),
    *([], {}, [[]], [{}], [None], {"": {}}, {"$ref": "#"}, {"type": ["string", []]}, [["a"]], {"t": 1}),
)


def values(dice: random.Random, seed: Any, depth: int = 0) -> Any:
    """Return `seed`, decoded JSON, with some parts replaced, left out or repeated."""
    roll = dice.random()
    if roll < 0.04:
        return dice.choice(_ODD)
    if roll < 0.05 and depth < 6:
        return dice.choice(([seed], {"a": seed}, [seed, seed], [seed] * dice.randrange(40)))
    if isinstance(seed, dict):
        made = {}
        for name, value in seed.items():
            if dice.random() < 0.03:
                continue
            made[dice.choice(("", "type", "t", name)) if dice.random() < 0.02 else name] = values(
                dice, value, depth + 1
            )
        return made
    if isinstance(seed, list):
        made_list = [values(dice, value, depth + 1) for value in seed if dice.random() > 0.03]
        if made_list and dice.random() < 0.05:
            made_list.append(dice.choice(made_list))
        return made_list
    if isinstance(seed, str) and roll < 0.1:
        at = dice.randrange(len(seed) + 1)
        return seed[:at] + dice.choice(("\ud83d", "\x00", "é", "~", "%2f", "9" * 20)) + seed[at:]
    if isinstance(seed, int) and not isinstance(seed, bool) and roll < 0.15:
        return dice.choice((seed + 1, -seed, seed * 10, float(seed), str(seed), 1, 2))
    return seed


def text(dice: random.Random, seed: Any) -> str:
    """Return JSON text made of the mutated `seed`, and sometimes broken."""
    written = json.dumps(values(dice, seed), ensure_ascii=dice.random() < 0.5)
    if dice.random() < 0.1:
        written = raw(dice, written.encode(errors="surrogatepass")).decode(errors="replace")
    return written


def raw(dice: random.Random, seed: bytes) -> bytes:
    """Return `seed` with some bytes changed, cut out, repeated or inserted."""
    made = bytearray(seed)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(made) + 1)
        match dice.randrange(5):
            case 0 if at < len(made):
                made[at] = dice.randrange(256)
            case 1:
                del made[at : at + dice.randrange(20)]
            case 2:
                made[at:at] = dice.randbytes(dice.randrange(8))
            case 3:
                made[at:at] = made[at : at + dice.randrange(60)] * dice.randrange(4)
            case _:
                made[at : at + 4] = dice.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0\0\0", b"\xed\xa0\x80[")
                )
    return bytes(made[:65_536])


@contextlib.contextmanager
def bounded(what: object) -> Iterator[None]:
    """Hold the block to `SECONDS` and `MEMORY`."""
    before, start = _peak(), time.thread_time()
    yield
    took, grown = time.thread_time() - start, _peak() - before
    assert took <= SECONDS, f"{took:.1f} s for {what!r:.2000}"
    assert grown <= MEMORY, f"{grown >> 20} MiB for {what!r:.2000}"


def _peak() -> int:
    """Return the most memory that the process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_memory() -> None:
    """Let the process take 2 GiB at most: beyond that it gets a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def keep_fuzzing(
    targets: Sequence[tuple[str, Callable[[random.Random], None]]], seconds: float, seed: int
) -> int:
    """Fuzz all targets in turn for some time; return the number of inputs.

    A finding ends it with the name and the number that `random.Random` was made of: give both to `again`.
    """
    end = time.monotonic() + seconds
    number = seed
    while time.monotonic() < end:
        for name, target in targets:
            number += 1
            try:
                target(random.Random(number))
            except BaseException:
                print(f"{name}, input {number}", file=sys.stderr)
                raise
    return number - seed
