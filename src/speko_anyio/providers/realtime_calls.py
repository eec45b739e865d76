"""The tool calls of a session, and when their answers are complete.

The calls of one response are a group: the model wants all their results, then one request to go on, and
that only once the response itself is over (it may still add calls until then).
"""

from __future__ import annotations

from typing import Final

from ..protocol.calls import Calls
from .recent import Recent

_REMEMBERED: Final = 1024
"""Calls whose repeats are recognised; more than can be open."""


class _Group:
    __slots__ = ("calls", "over")

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.over = False


class CallGroups:
    """The calls of one session by id, in the groups of their responses by id."""

    def __init__(self, limit: int) -> None:
        self._calls = Calls(limit)
        self._seen = Recent(max(_REMEMBERED, 2 * limit))
        self._groups: dict[str, _Group] = {}
        self._unacknowledged: set[str] = set()

    def __contains__(self, call_id: object) -> bool:
        """Whether a result for `call_id` would be taken."""
        return call_id in self._calls

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of the calls that somebody waits for, oldest first."""
        return self._calls.open

    @property
    def full(self) -> bool:
        """Whether no further call may be issued before one is answered."""
        return self._calls.full

    @property
    def all_acknowledged(self) -> bool:
        """Whether the provider has confirmed every result: then the next response knows them."""
        return not self._unacknowledged

    def was_issued(self, call_id: str) -> bool:
        """Whether this call came before."""
        return call_id in self._seen

    def issue(self, response_id: str, call_id: str) -> None:
        """A call of that response goes out. The caller has checked that it is new and that there is room."""
        self._seen.add(call_id)
        self._calls.issue(call_id)
        self._groups.setdefault(response_id, _Group()).calls.add(call_id)

    def completes(self, call_id: str) -> bool:
        """Whether a result for `call_id`, which is taken, would be the last that its response waits for."""
        return any(group.over and group.calls == {call_id} for group in self._groups.values())

    def answer(self, call_id: str) -> None:
        """A result went out for a call that takes one."""
        self._calls.answer(call_id)
        self._unacknowledged.add(call_id)
        for response_id, group in list(self._groups.items()):
            group.calls.discard(call_id)
            if group.over and not group.calls:
                del self._groups[response_id]

    def acknowledged(self, call_id: str) -> None:
        """The provider has the result in its conversation."""
        self._unacknowledged.discard(call_id)

    def forget_acknowledgements(self) -> None:
        """A response that began after the results went out is over: it had them, confirmed or not."""
        self._unacknowledged.clear()

    def response_over(self, response_id: str) -> bool:
        """That response adds no more calls. Returns whether it had some and all are answered."""
        group = self._groups.get(response_id)
        if group is None:
            return False
        group.over = True
        if group.calls:
            return False
        del self._groups[response_id]
        return True

    def make_moot(self) -> None:
        """An interruption: results are still taken, but nobody need wait for the open calls."""
        self._calls.make_moot()
        for response_id, group in list(self._groups.items()):
            group.calls = {call_id for call_id in group.calls if call_id in self._calls}
            if group.over and not group.calls:
                del self._groups[response_id]
