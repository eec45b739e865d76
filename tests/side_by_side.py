"""Runs all tests: each part in a process of its own, as many parts side by side as there are processors.

While a part makes progress, each of its lines is printed with the part's name in front. What pytest says at
the end of a part, such as its failures, is printed in one piece.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.patience import PATIENCE
from tests.support.processes import running

_ENDS: Final = (b"=====", b"!!!!!")
"""How the lines begin with which pytest ends its progress."""

_READ_SIZE: Final = 65_536


class Part(NamedTuple):
    """Tests that run in one process."""

    name: str
    arguments: Sequence[str]
    """What pytest is told."""
    covered: int | None = None
    """The share of lines and branches, in per cent, that these tests must reach in the part of the package
    with this name."""

    @property
    def commands(self) -> list[list[str]]:
        """What to run, one after the other as long as each succeeds."""
        if self.covered is None:
            return [[sys.executable, "-m", "pytest", *self.arguments]]
        coverage = [sys.executable, "-m", "coverage"]
        where = f"--include=*/speko_anyio/{self.name}/*"
        return [
            [*coverage, "run", "-m", "pytest", *self.arguments],
            [*coverage, "report", where, "--skip-covered", f"--fail-under={self.covered}"],
        ]


_PROGRAMS: Final = [
    f"tests/{name}" for name in ("browser", "cli", "docs", "end_to_end", "examples", "interop", "readme")
]
"""Tests that mostly run programs."""

_MISTAKES: Final = ["tests/machines/test_broken_variants.py", "tests/providers/test_bridge_broken.py"]
"""Tests that find mistakes made on purpose, which takes twice as long while coverage is measured."""

_COVERED: Final = {
    "gateway": 95,
    "providers": 99,
    "client": 97,
    "telephony": 100,
    "protocol": 100,  # all of the core, which outlives everything else
}


def _without(paths: Iterable[str]) -> list[str]:
    return [f"--ignore={path}" for path in paths]


_OWN: Final = [Part(name, [f"tests/{name}", *_without(_MISTAKES)], share) for name, share in _COVERED.items()]

PARTS: Final = [
    *_OWN[:1],
    Part("programs", _PROGRAMS),
    Part("rest", ["tests", *_without([*_PROGRAMS, *_MISTAKES, *(f"tests/{name}" for name in _COVERED)])]),
    Part("mistakes", _MISTAKES),
    *_OWN[1:],
]
"""The longest first. Whatever no other part names is in the rest."""


class _Job:
    """A part that runs, as one process after the other."""

    def __init__(self, part: Part, say: Callable[[str], None]) -> None:
        self.part = part
        self._say = say
        self._commands = deque(part.commands)
        self._line = b""
        self._end: list[bytes] = []

    def start(self, processes: ExitStack) -> int:
        """Run the next command; return the file descriptor of its output."""
        self._process = processes.enter_context(
            running(
                self._commands.popleft(),
                env={**os.environ, "COVERAGE_FILE": f".coverage.{self.part.name}"},
                stderr=subprocess.STDOUT,
                # An interrupt that is ignored here must be ignored there.
                background=signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            )
        )
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self, output: int) -> bool:
        """Pass on what the command says now; return whether there may be more."""
        data = os.read(output, _READ_SIZE)
        *lines, self._line = (self._line + (data or b"\n")).split(b"\n")
        for line in lines:
            if self._end or (line.startswith(_ENDS) and b"test session starts" not in line):
                self._end.append(line)
            elif line:
                self._say(f"{self.part.name:<9}| {line.decode(errors='replace')}\n")
        return bool(data)

    def finish(self) -> bool:
        """Say how the command ended; return whether it succeeded."""
        if self._end:
            end = b"\n".join(self._end).decode(errors="replace")
            self._say(f"\n{self.part.name}\n{end}\n")
            self._end.clear()
        return self._process.wait(PATIENCE) == 0

    @property
    def done(self) -> bool:
        return not self._commands


def run(parts: Sequence[Part], *, at_once: int, say: Callable[[str], None]) -> list[str]:
    """Run the parts, `at_once` of them at a time; return the names of those that failed.

    A terminal that interrupts this interrupts the parts, too: what they have to say is waited for.
    """
    waiting = deque(parts)
    failed: list[str] = []
    interrupted = False
    with ExitStack() as processes, selectors.DefaultSelector() as outputs:

        def step() -> None:
            while waiting and len(outputs.get_map()) < at_once:
                job = _Job(waiting.popleft(), say)
                outputs.register(job.start(processes), selectors.EVENT_READ, job)
            for key, _ in outputs.select():
                job = key.data
                if job.read(key.fd):
                    continue
                outputs.unregister(key.fd)
                if not job.finish():
                    failed.append(job.part.name)
                elif not job.done:
                    outputs.register(job.start(processes), selectors.EVENT_READ, job)

        while waiting or outputs.get_map():
            try:
                step()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                waiting.clear()
    if interrupted:
        raise KeyboardInterrupt
    return failed


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    os.chdir(Path(__file__).parents[1])
    failed = run(PARTS, at_once=os.cpu_count() or 1, say=_say)
    if failed:
        _say(f"failed: {', '.join(failed)}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
