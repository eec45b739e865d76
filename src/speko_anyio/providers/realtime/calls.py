"""The tool calls of a session, and when their answers are complete.

The calls of one response are a group: the model wants all their results, then one request to go on, and
that only once the response itself is over (it may still add calls until then).

Ids of calls may repeat: some servers use ``call_0`` in every response, or for every call. Two reports are the
same call only if they belong to the same response and item. While an earlier call with the same id still
takes a result, a new call gets another name for the caller; its result goes to the provider under the
provider's id.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from ...protocol.calls import Calls

_REMEMBERED: Final = 1024
"""Calls whose repeats are recognised; more than can be open."""


class Call(NamedTuple):
    """A call as the provider reports it, perhaps several times."""

    call_id: str
    item_id: str
    name: str
    arguments: str


class _Told(NamedTuple):
    """A call that was reported, with a hash in place of its arguments, which may be long."""

    item_id: str
    name: str
    arguments: int

    def is_same(self, other: _Told) -> bool:
        """Whether two reports with the same id in the same response are one call."""
        if self.item_id and self.item_id == other.item_id:
            return True
        same_name = self.name == other.name or not (self.name and other.name)
        return same_name and self.arguments == other.arguments


class _Group:
    __slots__ = ("calls", "over", "response_id")

    def __init__(self, response_id: str) -> None:
        self.response_id: str | None = response_id
        self.calls: set[str] = set()
        self.over = False


class CallGroups:
    """The calls of one session by the caller's names, grouped by response."""

    def __init__(self, limit: int) -> None:
        self._calls = Calls(limit)
        self._told: dict[tuple[str, str], list[_Told]] = {}
        self._remembered = max(_REMEMBERED, 2 * limit)
        self._groups: list[_Group] = []
        self._renamed: dict[str, str] = {}
        """The provider's ids of renamed calls, by the caller's names."""
        self._unacknowledged: Counter[str] = Counter()

    def __contains__(self, name: object) -> bool:
        """Whether a result for the call of this name would be taken."""
        return name in self._calls

    @property
    def open(self) -> tuple[str, ...]:
        """Names of the calls that wait for a result, oldest first."""
        return self._calls.open

    @property
    def full(self) -> bool:
        """Whether no further call may be issued before one is answered."""
        return self._calls.full

    @property
    def all_acknowledged(self) -> bool:
        """Whether the provider has confirmed every result: then the next response knows them."""
        return not self._unacknowledged

    def was_issued(self, response_id: str, call: Call) -> bool:
        """Whether this call of that response was reported before."""
        told = _told(call)
        return any(told.is_same(other) for other in self._told.get((response_id, call.call_id), ()))

    def issue(self, response_id: str, call: Call) -> str:
        """Record a call of that response, and return its name for the caller. The caller has checked that it
        is new and that there is room."""
        told = self._told.setdefault((response_id, call.call_id), [])
        told.append(_told(call))
        del told[:-_REMEMBERED]
        if len(self._told) > self._remembered:
            del self._told[next(iter(self._told))]
        name = call.call_id
        number = 1
        while name in self._calls:
            number += 1
            name = f"{call.call_id}-{number}"
        self._calls.issue(name)
        if name != call.call_id:
            self._renamed = {other: wire for other, wire in self._renamed.items() if other in self._calls}
            self._renamed[name] = call.call_id
        group = self._group(response_id)
        if group is None:
            group = _Group(response_id)
            self._groups.append(group)
        group.calls.add(name)
        return name

    def _group(self, response_id: str) -> _Group | None:
        return next((group for group in self._groups if group.response_id == response_id), None)

    def provider_id(self, name: str) -> str:
        """The provider's id of the call with this name."""
        return self._renamed.get(name, name)

    def completes(self, name: str) -> bool:
        """Whether a result for this call, which is taken, would be the last that its response waits for."""
        return any(group.over and group.calls == {name} for group in self._groups)

    def answer(self, name: str) -> None:
        """A result went out for a call that takes one."""
        self._calls.answer(name)
        self._unacknowledged[self._renamed.pop(name, name)] += 1
        for group in self._groups:
            group.calls.discard(name)
        self._drop_finished()

    def _drop_finished(self) -> None:
        self._groups = [group for group in self._groups if group.calls or not group.over]

    def acknowledged(self, call_id: str) -> None:
        """The provider has the result in its conversation."""
        if self._unacknowledged[call_id] > 1:
            self._unacknowledged[call_id] -= 1
        else:
            del self._unacknowledged[call_id]

    def forget_acknowledgements(self) -> None:
        """A response that began after the results went out is over: it had them, confirmed or not."""
        self._unacknowledged.clear()

    def response_begins(self, response_id: str) -> None:
        """A response begins. It may reuse the id of an earlier one, whose calls are not its own."""
        for key in [key for key in self._told if key[0] == response_id]:
            del self._told[key]
        group = self._group(response_id)
        if group is not None:
            group.response_id = None
            group.over = True
            self._drop_finished()

    def response_over(self, response_id: str) -> bool:
        """That response adds no more calls. Returns whether it had some and all are answered."""
        group = self._group(response_id)
        if group is None:
            return False
        group.over = True
        complete = not group.calls
        self._drop_finished()
        return complete

    def take_back(self, name: str) -> None:
        """The caller never gets this call."""
        self._calls.answer(name)
        self._renamed.pop(name, None)
        for group in self._groups:
            group.calls.discard(name)
        self._drop_finished()

    def make_moot(self) -> None:
        """An interruption: results are still taken, but nobody need wait for the open calls."""
        self._calls.make_moot()
        for group in self._groups:
            group.calls = {name for name in group.calls if name in self._calls}
        self._drop_finished()


def _told(call: Call) -> _Told:
    return _Told(call.item_id, call.name, hash(call.arguments))
