"""The server's messages, and one of the client's, as pydantic models. Only imported with pydantic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ready(_Message):
    t: Literal["ready"]
    inputSampleRate: int = 0  # noqa: N815 - the names on the wire, since an alias would cost extra
    outputSampleRate: int = 0  # noqa: N815


class Transcript(_Message):
    t: Literal["transcript"]
    role: Literal["user", "assistant"] = "assistant"
    text: str = ""
    final: bool = False


class ToolCall(_Message):
    t: Literal["tool_call"]
    callId: str = ""  # noqa: N815
    name: str = ""
    arguments: str = ""


class ServerToolCall(_Message):
    t: Literal["server_tool_call"]
    id: str = ""
    name: str = ""
    status: Literal["started", "completed", "failed"] = "started"


class Interruption(_Message):
    t: Literal["interruption"]
    at: Literal["user", "assistant"] = "user"


class Usage(_Message):
    t: Literal["usage"]
    inputAudioTokens: int = 0  # noqa: N815
    outputAudioTokens: int = 0  # noqa: N815


class Error(_Message):
    t: Literal["error"]
    code: str = "UNKNOWN"
    message: str = ""


class End(_Message):
    t: Literal["end"]
    reason: str = ""


class ToolResult(_Message):
    t: Literal["tool_result"]
    callId: str = ""  # noqa: N815
    output: str = ""


_MODELS: Final[dict[str, type[_Message]]] = {"transcript": Transcript, "tool_result": ToolResult}

_ServerMessage = Annotated[
    Ready | Transcript | ToolCall | ServerToolCall | Interruption | Usage | Error | End,
    Field(discriminator="t"),
]

decode: Final[Callable[[str], Any]] = TypeAdapter(_ServerMessage).validate_json
"""Turns the JSON text of a server's message into its model."""


def encoder(fields: dict[str, Any]) -> Callable[[], str]:
    """Return a function that writes the message with these fields as JSON text."""
    return _MODELS[fields["t"]](**fields).model_dump_json
