"""An observed core tells each command that its core took, as the server gets it."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from speko_anyio._observe.observed_core import ObservedCore
from speko_anyio._observe.observer import SessionObserver
from speko_anyio.protocol import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    LocalProtocolError,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
)

VERBS: list[tuple[str, tuple[Any, ...], dict[str, Any], Command]] = [
    ("send_audio", (b"\0\0",), {}, AudioIn(b"\0\0", 16_000)),
    ("commit", (), {}, Commit()),
    ("clear", (), {}, Clear()),
    ("end_turn", (), {}, EndTurn()),
    ("interrupt", (), {}, Interrupt()),
    ("send_tool_result", ("c1", "noon"), {}, ToolResult("c1", "noon")),
    ("send_text", ("hi",), {}, TextIn("hi", "user", True)),
    ("send_text", ("hi",), {"role": "assistant"}, TextIn("hi", "assistant", False)),
    ("send_text", ("hi",), {"respond": False}, TextIn("hi", "user", False)),
    ("send_image", (b"x",), {"mime_type": "image/png"}, ImageIn("image/png", b"x", False)),
    ("respond", ("briefly",), {}, Respond("briefly")),
    ("say", ("hello",), {}, Say("hello")),
    ("update", (Update(voice="Ara"),), {}, Update(voice="Ara")),
    ("report_played", (1.234,), {}, Played(1234)),
]


@pytest.mark.parametrize(("verb", "arguments", "keywords", "command"), VERBS, ids=range(len(VERBS)))
def test_each_verb_tells_its_command(
    verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any], command: Command
) -> None:
    core, observers = Mock(input_sample_rate=16_000), Mock()
    getattr(ObservedCore(core, observers), verb)(*arguments, **keywords)
    getattr(core, verb).assert_called_once()
    observers.tell.assert_called_once_with(SessionObserver.sent, command)


@pytest.mark.parametrize(("verb", "arguments", "keywords", "command"), VERBS, ids=range(len(VERBS)))
def test_what_was_refused_is_not_told(
    verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any], command: Command
) -> None:
    core, observers = Mock(input_sample_rate=16_000), Mock()
    getattr(core, verb).side_effect = LocalProtocolError("no")
    with pytest.raises(LocalProtocolError):
        getattr(ObservedCore(core, observers), verb)(*arguments, **keywords)
    observers.tell.assert_not_called()
