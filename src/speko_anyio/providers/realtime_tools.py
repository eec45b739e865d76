"""The tools of a realtime dialect: the caller's, whose calls it hands out, and the provider's own."""

from __future__ import annotations

from typing import Final

from ..protocol import close_codes
from ..protocol.frames import Error, ServerToolCall, ToolCall, ToolStatus
from . import codes
from . import realtime_events as wire
from .realtime_base import LIVE
from .realtime_gate import Reason
from .realtime_user import UserSide

_REMEMBERED_SERVER_TOOLS: Final = 256


class ToolSide(UserSide):
    """See the top."""

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._check_result(call_id, output)
        result = self._make(wire.CreateItem, item=wire.FunctionCallOutput(call_id, output))
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

    def _issue_call(
        self,
        response_id: str | None,
        call_id: str | None,
        name: str | None,
        arguments: str | None,
        *,
        repeats: bool = True,
    ) -> None:
        """Hand a call to the caller; `repeats`: to have seen it before is worth counting."""
        if not call_id:
            self._tell(Error(codes.UNNAMED, "the provider made a tool call without an id"))
        elif self._calls.was_issued(call_id):
            self.stats.repeated_events += repeats
        elif self._calls.full:
            self._break(
                close_codes.POLICY,
                f"the provider has {self.limits.max_open_calls} tool calls open and issued another",
            )
        else:
            group = response_id or self._gate.response_id or ""
            self._calls.issue(group, call_id)
            if self._gate.phase not in LIVE or self._gate.has_ended(group):
                self._calls.response_over(group)
            self._tell(ToolCall(call_id, name or "", arguments or ""))

    def _server_tool(self, item_id: str | None, name: str | None, status: ToolStatus) -> None:
        known, before = self._server_tools.get(item_id or "", ("", None))
        if before is not None and (status == "started" or before != "started"):
            return  # told before, in another event
        name = name or known
        self._server_tools[item_id or ""] = name, status
        if len(self._server_tools) > _REMEMBERED_SERVER_TOOLS:
            del self._server_tools[next(iter(self._server_tools))]
        self._tell(ServerToolCall(item_id or "", name, status))


def is_server_tool(item: wire.Item) -> bool:
    """Whether the item is a call that the provider runs itself: ``mcp_call``, ``web_search_call``, …"""
    return item.type is not None and item.type.endswith("_call") and item.type != "function_call"
