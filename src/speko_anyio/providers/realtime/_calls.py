"""Tool calls: the caller's, grouped by response, and those that the provider runs itself.

The calls of one response form a group: once the response is over (until then it may add calls) and all of the
results were sent, the model needs one request to continue.

Ids of calls may repeat: some servers use ``call_0`` in every response, or for every call. Two reports are the
same call only if they belong to the same response and item. While an earlier call with the same id still
takes a result, a new call gets another name for the caller; its result goes to the provider under the
provider's id.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from ...protocol._calls import Calls
from ...protocol.frames import ServerToolCall, ToolStatus
from .._recent_ids import drop_oldest
from . import _events as wire

_REMEMBERED_CALLS: Final = 1024
"""Calls whose repeats are recognised; more than can be open."""

_REMEMBERED_TOOLS: Final = 256


class Call(NamedTuple):
    """A call as the provider reports it, perhaps several times."""

    call_id: str
    item_id: str
    name: str
    arguments: str


class _Report(NamedTuple):
    """A call that was reported, with a hash of its arguments, which may be long."""

    item_id: str
    name: str
    arguments: int

    def is_same(self, other: _Report) -> bool:
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


class ToolCalls:
    """The caller's calls by their names for the caller, grouped by response.

    `limit`: calls that may be open at a time.
    """

    def __init__(self, limit: int) -> None:
        self._calls = Calls(limit)
        self._reports: dict[tuple[str, str], list[_Report]] = {}
        self._remembered = max(_REMEMBERED_CALLS, 2 * limit)
        self._groups: list[_Group] = []
        self._provider_ids: dict[str, str] = {}
        """The provider's ids of renamed calls, by their names for the caller."""
        self._approvals: set[str] = set()
        """Names of the calls that ask for approval."""
        self._unacknowledged: Counter[str] = Counter()
        self._function_names: dict[str, str] = {}
        """By item. The beta protocol sends a function's name only when the item begins."""
        self.unconfirmed: list[Call] = []
        """Calls of the response in flight that have their arguments but may have been cut off."""

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

    # Reading events

    def note_function(self, item: wire.Item) -> None:
        """Note the function's name if the item that begins is a call."""
        if item.type == "function_call" and item.id and item.name:
            self._function_names[item.id] = item.name
            drop_oldest(self._function_names, _REMEMBERED_TOOLS)

    def of_arguments(self, event: wire.ArgumentsDone) -> Call:
        """Return the call whose arguments are complete."""
        item_id = event.item_id or ""
        name = event.name or self._function_names.get(item_id, "")
        return Call(event.call_id or item_id, item_id, name, event.arguments or "")

    @staticmethod
    def of_item(item: wire.Item) -> Call:
        """Return the call that an item is."""
        return Call(item.call_id or item.id or "", item.id or "", item.name or "", item.arguments or "")

    # Calls for the caller

    def was_issued(self, response_id: str, call: Call) -> bool:
        """Whether this call of that response was reported before."""
        report = _report(call)
        return any(report.is_same(other) for other in self._reports.get((response_id, call.call_id), ()))

    def issue(self, response_id: str, call: Call, *, over: bool, asks_for_approval: bool = False) -> str:
        """Record a call of that response, and return its name for the caller.

        The caller has checked that it is new and that there is room. `over`: the response has ended.
        `asks_for_approval`: the result decides whether the provider runs a tool.
        """
        reports = self._reports.setdefault((response_id, call.call_id), [])
        reports.append(_report(call))
        del reports[:-_REMEMBERED_CALLS]
        drop_oldest(self._reports, self._remembered)
        name = call.call_id
        number = 1
        while name in self._calls:
            number += 1
            name = f"{call.call_id}-{number}"
        self._calls.issue(name)
        if name != call.call_id:
            self._provider_ids = {
                other: wire_id for other, wire_id in self._provider_ids.items() if other in self._calls
            }
            self._provider_ids[name] = call.call_id
        self._approvals.discard(name)  # of an earlier call, which was answered
        if asks_for_approval:
            self._approvals = {known for known in self._approvals if known in self._calls} | {name}
        group = self._group(response_id)
        if group is None:
            group = _Group(response_id)
            self._groups.append(group)
        group.calls.add(name)
        group.over = group.over or over
        return name

    def withdraw(self, name: str) -> None:
        """Forget a call that was not delivered."""
        self._calls.answer(name)
        self._provider_ids.pop(name, None)
        self._drop_from_groups(name)

    def abandon_open(self) -> None:
        """Apply an interruption: results are still accepted, but no group waits for the open calls."""
        self._calls.abandon_open()
        for group in self._groups:
            group.calls = {name for name in group.calls if name in self._calls}
        self._drop_finished()

    # Results for the provider

    def asks_for_approval(self, name: str) -> bool:
        """Whether the result of the call with this name decides whether the provider runs a tool."""
        return name in self._approvals

    def provider_id(self, name: str) -> str:
        """Return the provider's id of the call with this name."""
        return self._provider_ids.get(name, name)

    def completes(self, name: str) -> bool:
        """Whether an accepted result for this call is the last one that its response waits for."""
        return any(group.over and group.calls == {name} for group in self._groups)

    def answer(self, name: str) -> None:
        """Note that a result was sent for a call that accepts one."""
        self._calls.answer(name)
        self._unacknowledged[self._provider_ids.pop(name, name)] += 1
        self._drop_from_groups(name)

    @property
    def all_acknowledged(self) -> bool:
        """Whether the provider has confirmed every result, so that the next response knows them."""
        return not self._unacknowledged

    def acknowledged(self, call_id: str) -> None:
        """Note that the provider has the result in its conversation."""
        if self._unacknowledged[call_id] > 1:
            self._unacknowledged[call_id] -= 1
        else:
            del self._unacknowledged[call_id]

    def forget_acknowledgements(self) -> None:
        """Note that a response was requested, which will know all results, confirmed or not."""
        self._unacknowledged.clear()

    # Responses

    def response_begins(self, response_id: str) -> None:
        """Note that a response begins. It may reuse the id of an earlier one, but not its calls."""
        for key in [key for key in self._reports if key[0] == response_id]:
            del self._reports[key]
        group = self._group(response_id)
        if group is not None:
            group.response_id = None
            group.over = True
            self._drop_finished()

    def response_over(self, response_id: str) -> bool:
        """Note that the response adds no more calls; return whether it had some and all are answered."""
        self.unconfirmed.clear()
        group = self._group(response_id)
        if group is None:
            return False
        group.over = True
        complete = not group.calls
        self._drop_finished()
        return complete

    def _group(self, response_id: str) -> _Group | None:
        return next((group for group in self._groups if group.response_id == response_id), None)

    def _drop_from_groups(self, name: str) -> None:
        for group in self._groups:
            group.calls.discard(name)
        self._drop_finished()

    def _drop_finished(self) -> None:
        self._groups = [group for group in self._groups if group.calls or not group.over]


def _report(call: Call) -> _Report:
    return _Report(call.item_id, call.name, hash(call.arguments))


class ServerTools:
    """The calls that the provider runs itself, each of whose states is reported once."""

    __slots__ = ("_approvals", "_tools")

    def __init__(self) -> None:
        self._tools: dict[str, tuple[str, ToolStatus]] = {}
        self._approvals: dict[str, str] = {}
        """The response that asked for each approval, by item."""

    def update(self, item_id: str | None, name: str | None, status: ToolStatus) -> list[ServerToolCall]:
        """Return the frame for a new state; none if another event has reported it."""
        item_id = item_id or ""
        known, before = self._tools.get(item_id, ("", None))
        if before is not None and (status == "started" or before != "started"):
            return []
        name = name or known
        self._tools[item_id] = name, status
        drop_oldest(self._tools, _REMEMBERED_TOOLS)
        return [ServerToolCall(item_id, name, status)]

    def is_new_approval(self, item: wire.Item, response_id: str | None, active_id: str | None) -> bool:
        """Whether no other event has reported this request for approval.

        `response_id`: the response that the event names, if any; `active_id`: the one in flight.
        """
        known = self._approvals.get(item.id or "")
        asking = response_id or active_id or ""
        if not item.id or (known is not None and (response_id is None or known == asking)):
            return False
        self._approvals[item.id] = asking
        drop_oldest(self._approvals, _REMEMBERED_TOOLS)
        return True

    def response_begins(self, response_id: str) -> None:
        """Forget the finished tools, and this response's approvals: their ids may be reused."""
        self._approvals = {
            item_id: asking for item_id, asking in self._approvals.items() if asking != response_id
        }
        self._tools = {item_id: tool for item_id, tool in self._tools.items() if tool[1] == "started"}


def is_server_tool(item: wire.Item) -> bool:
    """Whether the item is a call that the provider runs itself: ``mcp_call``, ``web_search_call``, …"""
    return item.type is not None and item.type.endswith("_call") and item.type != "function_call"


def asks_for_approval(item: wire.Item) -> bool:
    """Whether the item is a request for approval to run a tool."""
    return item.type == "mcp_approval_request"
