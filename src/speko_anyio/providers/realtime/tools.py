"""The tools of a realtime dialect: the caller's, whose calls it hands out, and the provider's own."""

from __future__ import annotations

from typing import Final

from ...protocol import close_codes
from ...protocol.frames import ErrorFrame, ServerToolCall, ToolCall, ToolStatus
from .. import codes
from . import events as wire
from .base import LIVE
from .calls import Call
from .gate import Reason
from .user import UserSide

_REMEMBERED_TOOLS: Final = 256


class ToolSide(UserSide):
    """See the top."""

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._check_result(call_id, output)
        item = wire.FunctionCallOutput(self._calls.provider_id(call_id), output)
        result = self._make(wire.CreateItem, item=item)
        complete = self._calls.completes(call_id)
        if complete and self._may_request:
            event_id, request = self._create_response()
            self._queue([result, request])
            self._calls.answer(call_id)
            self._requested(event_id, Reason.TOOLS)
            return
        self._queue([result])
        self._calls.answer(call_id)
        if complete:
            self._gate.owe(Reason.TOOLS)
            self._pay()

    def _item_call(self, item: wire.Item) -> Call:
        return Call(item.call_id or item.id or "", item.id or "", item.name or "", item.arguments or "")

    def _arguments_call(self, event: wire.ArgumentsDone) -> Call:
        item_id = event.item_id or ""
        name = event.name or self._function_names.get(item_id, "")
        return Call(event.call_id or item_id, item_id, name, event.arguments or "")

    def _note_function(self, item: wire.Item) -> None:
        """A function call begins. The beta protocol sends its name only here."""
        if item.type == "function_call" and item.id and item.name:
            self._function_names[item.id] = item.name
            if len(self._function_names) > _REMEMBERED_TOOLS:
                del self._function_names[next(iter(self._function_names))]

    def _issue_call(self, response_id: str | None, call: Call, *, repeats: bool = True) -> None:
        """Hand a call to the caller; `repeats`: count a call that was seen before."""
        group = response_id or self._gate.response_id or ""
        if not call.call_id:
            self._tell(ErrorFrame(codes.UNNAMED, "the provider made a tool call without an id"))
        elif self._calls.was_issued(group, call):
            self.stats.repeated_events += repeats
        elif self._calls.full:
            self._break(
                close_codes.POLICY,
                f"the provider has {self.limits.max_open_calls} tool calls open and issued another",
            )
        else:
            name = self._calls.issue(group, call)
            if self._gate.phase not in LIVE or self._gate.has_ended(group):
                self._calls.response_over(group)
            self._tell(ToolCall(name, call.name, call.arguments))

    def _server_tool(self, item_id: str | None, name: str | None, status: ToolStatus) -> None:
        known, before = self._server_tools.get(item_id or "", ("", None))
        if before is not None and (status == "started" or before != "started"):
            return  # told before, in another event
        name = name or known
        self._server_tools[item_id or ""] = name, status
        if len(self._server_tools) > _REMEMBERED_TOOLS:
            del self._server_tools[next(iter(self._server_tools))]
        self._tell(ServerToolCall(item_id or "", name, status))

    def _forget_finished_tools(self, response_id: str) -> None:
        """That response begins. Its tools may reuse the ids of earlier ones."""
        self._approvals = {
            item_id: where for item_id, where in self._approvals.items() if where != response_id
        }
        self._server_tools = {
            item_id: tool for item_id, tool in self._server_tools.items() if tool[1] == "started"
        }

    def _approval_asked(self, item: wire.Item, response_id: str | None = None) -> None:
        """Deny the provider's request to run an MCP tool: nobody can approve it, and without an answer the
        model would wait forever."""
        known = self._approvals.get(item.id or "")
        where = response_id or self._gate.response_id or ""
        if not item.id or (known is not None and (response_id is None or known == where)):
            return  # asked before, in another event
        self._approvals[item.id] = where
        if len(self._approvals) > _REMEMBERED_TOOLS:
            del self._approvals[next(iter(self._approvals))]
        self._server_tool(item.id, item.name, "started")
        self._server_tool(item.id, item.name, "failed")
        self._tell(
            ErrorFrame(
                codes.APPROVAL_DENIED,
                f"the provider asked for approval to run {item.name or 'a tool'!r}, which was denied since "
                'nobody can give it; set "require_approval" of that server tool to "never"',
            )
        )
        self._say(
            [
                self._make(
                    wire.CreateItem, item=wire.ApprovalResponse(f"approval_{self._events_sent}", item.id)
                )
            ]
        )
        # The model continues only when asked to, as it does after the results of functions.
        self._gate.owe(Reason.TOOLS)
        if self._gate.phase not in LIVE:
            self._pay()


def is_server_tool(item: wire.Item) -> bool:
    """Whether the item is a call that the provider runs itself: ``mcp_call``, ``web_search_call``, …"""
    return item.type is not None and item.type.endswith("_call") and item.type != "function_call"


def asks_for_approval(item: wire.Item) -> bool:
    """Whether the item is the provider's request for approval to run a tool."""
    return item.type == "mcp_approval_request"
