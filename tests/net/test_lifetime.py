"""The tasks of a session; most of what they do is tested with sessions, in ``tests/adapters``."""

from __future__ import annotations

import contextlib
import dis
import gc
import sys
import warnings
from types import FrameType
from typing import Any

import pytest

from speko_anyio._net.lifetime import Lifetime

pytestmark = pytest.mark.anyio


class Striking:
    """Ctrl-C in a function, behind one of the calls in it: Python looks for signals there, and trio raises
    KeyboardInterrupt in whichever task runs."""

    def __init__(self, function: Any, calls: int) -> None:
        self._code = function.__code__
        self._calls_left = calls
        self._called = False
        self.struck = False

    def __enter__(self) -> Striking:
        self._before = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _enter_frame(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode" and not self.struck:
            called, self._called = self._called, _CODES[self._code.co_code[frame.f_lasti]].startswith("CALL")
            self._calls_left -= called
            if called and self._calls_left < 0:
                self.struck = True
                raise KeyboardInterrupt
        return self._step


_CODES = dis.opname


async def work() -> None:
    """Do nothing, without waiting."""


@pytest.mark.parametrize("shield", [False, True])
async def test_ctrl_c_at_any_call_of_a_task_leaves_no_coroutine_unawaited(shield: bool) -> None:
    def strike(calls: int) -> bool:
        task = Lifetime("test")._run(work, (), shield)
        with warnings.catch_warnings(record=True) as warned, Striking(Lifetime._run, calls) as ctrl_c:
            warnings.simplefilter("always")
            # In the last lines of the function it comes out, as from any code.
            with contextlib.suppress(StopIteration, KeyboardInterrupt):
                task.send(None)
            task.close()
            gc.collect()
        assert [str(warning.message) for warning in warned] == []
        return ctrl_c.struck

    calls = 0
    while True:
        strike(1000)  # CPython 3.12 reports opcodes from the second time on, and 3.13 so after each strike
        if not strike(calls):
            break
        calls += 1
    assert calls >= 3


async def test_a_goodbye_that_fails_is_an_error_of_its_own() -> None:
    lifetime = Lifetime("test")
    ended: list[str] = []

    async def leave() -> None:
        raise ZeroDivisionError

    async def wait_gone() -> None:
        ended.append("gone")

    await lifetime.enter()
    with pytest.raises(ZeroDivisionError):
        await lifetime.exit(None, leave=leave, abort=ended.append, wait_gone=wait_gone)
    assert ended == ["the block of the session was cancelled", "gone"]
