"""The base of cores that wrap another one passes every member of the interface on."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock, call

import pytest

from speko_anyio.protocol import NEED_DATA, Audio, ClientConnection, LocalProtocolError, SpekoError, Update
from speko_anyio.protocol._client_core import ClientCore, CoreWrapper

AUDIO = Audio(b"\0\0", 24_000)
SHORTCUTS = {"receive_audio", "next_events"}
"""Not passed on, since they would bypass what a wrapper does to bytes and events."""
MEMBERS = {
    name: member
    for name, member in vars(ClientCore).items()
    if not name.startswith("_") and name not in SHORTCUTS
}
KEYWORDS: dict[str, dict[str, Any]] = {
    "send_text": {"role": "system", "respond": True},
    "send_image": {"mime_type": "image/png", "respond": True},
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "yield_after": (64, print),
    "receive_data": (b"x",),
    "receive_lost": ("gone",),
    "close": (4000, "why"),
    "handle_timeout": (1.5,),
    "send_audio": (b"\0\0",),
    "send_tool_result": ("c1", "noon"),
    "send_text": ("hi",),
    "send_image": (b"x",),
    "respond": ("briefly",),
    "say": ("hello",),
    "update": (Update(voice="a"),),
    "report_played": (1.234,),
    "send_provider_event": ("{}",),
    "watch_provider": (print,),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_is_passed_on_with_its_arguments(name: str) -> None:
    core = Mock()
    wrapper = CoreWrapper(core)
    if isinstance(MEMBERS[name], property):
        assert getattr(wrapper, name) is getattr(core, name)
        return
    arguments, keywords = ARGUMENTS.get(name, ()), KEYWORDS.get(name, {})
    result = getattr(wrapper, name)(*arguments, **keywords)
    getattr(core, name).assert_called_once_with(*arguments, **keywords)
    assert result is getattr(core, name).return_value or result is None


def test_a_wrapper_sees_every_read_and_every_event() -> None:
    core = Mock()
    core.next_event.side_effect = [AUDIO, NEED_DATA]
    wrapper = CoreWrapper(core)
    assert wrapper.receive_audio(b"x") is None
    assert wrapper.next_events(9) == [AUDIO]
    assert wrapper.next_events(9) == []
    assert core.mock_calls == [call.next_event(), call.next_event()]


def test_a_wrapped_connection_behaves_as_it_does_alone() -> None:
    ends = []
    for wrapped in (False, True):
        core = ClientConnection("ws://speko.test/s", "wst_token")
        tried: ClientCore = CoreWrapper(core) if wrapped else core
        assert tried.data_to_send().startswith(b"GET /s ")
        tried.receive_lost()
        tried.close()
        with pytest.raises(SpekoError) as caught:
            tried.next_event()
        ends.append((str(caught.value), tried.closed, tried.state))
    assert ends[0] == ends[1]


def test_a_speko_session_has_no_provider_to_talk_to() -> None:
    client = ClientConnection("ws://speko.test/s", "wst_token")
    heard: list[str] = []
    client.watch_provider(heard.append)
    with pytest.raises(LocalProtocolError, match="takes no events of a provider's protocol"):
        client.send_provider_event("{}")
    assert heard == []
