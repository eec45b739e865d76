"""Texts, images, requests to speak and changes on their way through a bridge, whatever the provider."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar

import pytest

from speko_anyio.protocol import (
    AudioIn,
    Capabilities,
    Clear,
    Commit,
    ErrorFrame,
    ImageIn,
    LocalProtocolError,
    Respond,
    ResponseEnd,
    Say,
    State,
    TextIn,
    Update,
)
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._commands import ExtensionCommand
from speko_anyio.protocol.mint import ToolSpec
from speko_anyio.providers.bridge._bridge import SETTLED_AFTER, BridgeLimits
from speko_anyio.providers.realtime import RealtimeDialect
from speko_anyio.providers.xai import XAIDialect, XAIOptions

from . import realtime_talk
from .bridge_talk import CREATED, UPDATED, BridgeTalk
from .realtime_talk import created, done

CONVERSATION = {"type": "conversation.created", "conversation": {"id": "conv"}}


class Able(RealtimeDialect):
    """Takes everything, and writes it to the provider as the client's message, which is easy to read."""

    able: ClassVar[Capabilities] = Capabilities(
        text=True, image=True, respond=True, say="verbatim", update=("system_prompt", "tools", "voice")
    )
    locked: ClassVar[tuple[str, ...]] = ()
    """Fields that are refused although they can change."""

    @property
    def capabilities(self) -> Capabilities:
        return self.able

    def _queue_extension(self, command: ExtensionCommand) -> None:
        if isinstance(command, Update):
            for name in command.fields:
                if name in self.locked:
                    raise LocalProtocolError(f"the {name} can't change after the first audio")
        self.outbox.put(codec.encode(command))


def talk(
    kind: type[RealtimeDialect] = Able, *, ready: bool = True, **parameters: Any
) -> BridgeTalk[RealtimeDialect]:
    def make(_: object, state: State) -> RealtimeDialect:
        dialect = XAIDialect(realtime_talk.XAI, options=XAIOptions(resumption=True), state=state)
        dialect.__class__ = kind
        return dialect

    return BridgeTalk(make, None, (CREATED, CONVERSATION, UPDATED), ready=ready, **parameters)


def said(talk: BridgeTalk[Any]) -> list[Any]:
    """What the provider was told besides its configuration; audio as its first sample."""
    found: list[Any] = []
    for message in talk.sent():
        match message.get("type") or message["t"]:
            case "session.update":
                pass
            case "input_audio_buffer.append":
                audio = base64.b64decode(message["audio"])
                found.append(int.from_bytes(audio[:2], "little"))
            case "input_audio_buffer.commit" | "response.create" as name:
                found.append(name)
            case _:
                command = codec.decode_from_client(json.dumps(message))
                found.append(command)
    return found


def speech(number: int) -> AudioIn:
    return AudioIn(number.to_bytes(2, "little") * 2400, 24_000)


HI = TextIn("Hi", respond=True)
CONTEXT = TextIn("It rains.", "system")
ALL: list[Any] = [
    HI,
    CONTEXT,
    ImageIn("image/png", b"png"),
    Respond("Greet."),
    Say("Yes."),
    Update(voice="v"),
]


def test_each_reaches_the_provider() -> None:
    talking = talk()
    assert talking.say(*ALL) == []
    assert said(talking) == ALL


def test_what_comes_before_the_provider_is_ready_keeps_its_place() -> None:
    talking = talk(ready=False)
    commands: list[Any] = [CONTEXT, speech(1), HI, speech(2), Say("Yes."), Update(voice="v"), speech(3)]
    talking.say(*commands)
    talking.make_ready()
    found = said(talking)
    assert found == [CONTEXT, 1, HI, 2, Say("Yes."), Update(voice="v"), 3]


def test_clear_leaves_what_was_written() -> None:
    talking = talk(ready=False)
    talking.say(CONTEXT, speech(1), HI, speech(2), Clear(), Say("Yes."))
    talking.make_ready()
    assert said(talking) == [CONTEXT, HI, Say("Yes.")]


def test_what_is_held_is_bounded_by_letting_the_client_wait() -> None:
    limits = BridgeLimits(to_provider=10_000)
    talking = talk(ready=False, limits=limits)
    talking.say(TextIn("x" * 9_000))
    assert not talking.waits_for_provider()
    talking.say(TextIn("x" * 1_000))
    assert talking.waits_for_provider()
    talking.make_ready()
    talking.sent()
    assert not talking.waits_for_provider()


def test_a_flood_of_tiny_ones_is_bounded_too() -> None:
    talking = talk(ready=False, limits=BridgeLimits(to_provider=10_000))
    count = 0
    while not talking.waits_for_provider():
        talking.say(Respond())
        count += 1
    assert count < 50


def test_an_image_counts_while_it_waits() -> None:
    talking = talk(ready=False)
    talking.say(ImageIn("image/png", bytes(2 * 1024 * 1024)))
    assert talking.waits_for_provider()


class Unable(Able):
    able = Capabilities()


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("ready", [True, False])
def test_a_provider_that_can_t_costs_one_error(command: Any, ready: bool) -> None:
    talking = talk(Unable, ready=ready)
    heard = talking.say(command, speech(1))
    if not ready:
        heard += talking.make_ready()
    [error] = [frame for frame in heard if isinstance(frame, ErrorFrame)]
    tag = type(command).__struct_config__.tag
    assert error.code == f"{tag.upper()}_REFUSED"
    assert said(talking) == [1]
    assert talking.closed is None


def test_a_field_that_can_t_change_is_named_and_the_others_take_effect() -> None:
    talking = talk()
    tools = (ToolSpec(name="f"),)
    heard = talking.say(Update(turns="manual", system_prompt="Be kind.", tools=tools))
    [error] = heard
    assert isinstance(error, ErrorFrame)
    assert error.code == "UPDATE_REFUSED"
    assert "turns" in error.message
    assert said(talking) == [Update(system_prompt="Be kind.", tools=tools)]


class Locked(Able):
    locked = ("voice",)


def test_a_field_that_can_t_change_any_more_is_named_too() -> None:
    talking = talk(Locked)
    heard = talking.say(Update(turns="manual", system_prompt="Be kind.", voice="v"))
    [error] = heard
    assert isinstance(error, ErrorFrame)
    assert error.message == (
        "not changed: turns, voice; xAI Grok Voice can't change turns in an open session; open a new one for "
        "that; the voice can't change after the first audio"
    )
    assert said(talking) == [Update(system_prompt="Be kind.")]


def test_what_the_operator_fixed_can_t_be_changed() -> None:
    talking = talk(fixed=("voice",))
    heard = talking.say(Update(system_prompt="Be kind.", voice="v"))
    [error] = heard
    assert isinstance(error, ErrorFrame)
    assert error.code == "UPDATE_REFUSED"
    assert "operator" in error.message
    assert said(talking) == [Update(system_prompt="Be kind.")]


def breaks(talking: BridgeTalk[Any]) -> list[Any]:
    frames = talking.provider_closes(1011)
    if not talking.wants_connection():
        talking.wait(2)  # it is not tried at once for ever
    assert talking.wants_connection()
    return frames


def test_a_change_holds_on_the_next_connection() -> None:
    talking = talk()
    talking.say(Update(system_prompt="One.", voice="v"))
    talking.say(Update(system_prompt="Two.", tools=()))
    talking.sent()
    for _ in range(2):
        breaks(talking)
        talking.say(speech(1))
        talking.make_ready()
        # First, before anything that was said meanwhile.
        assert said(talking) == [Update(system_prompt="Two.", voice="v", tools=()), 1]


def test_a_refused_change_is_not_repeated() -> None:
    talking = talk(Locked)
    talking.say(Update(system_prompt="One.", voice="v", turns="manual"))
    talking.sent()
    breaks(talking)
    assert talking.make_ready() == []
    assert said(talking) == [Update(system_prompt="One.")]


def test_a_change_made_between_two_connections_holds() -> None:
    talking = talk()
    breaks(talking)
    talking.say(HI, Update(voice="v"), CONTEXT)
    talking.make_ready()
    assert said(talking) == [HI, Update(voice="v"), CONTEXT]
    talking.wait(SETTLED_AFTER)
    breaks(talking)
    talking.make_ready()
    assert said(talking) == [Update(voice="v")]


def codes_of(frames: list[Any]) -> list[str]:
    return [frame.code for frame in frames if isinstance(frame, ErrorFrame)]


@pytest.mark.parametrize("command", [HI, CONTEXT, ImageIn("image/png", b"png", respond=True), Say("Yes.")])
def test_what_a_lost_connection_takes_along_is_told(command: Any) -> None:
    talking = talk()
    talking.say(command)
    assert codes_of(breaks(talking)) == ["PROVIDER_RESPONSE_LOST"]
    talking.make_ready()
    # Told once.
    assert codes_of(breaks(talking)) == []


def test_context_counts_as_arrived_after_a_while_and_a_question_does_not() -> None:
    talking = talk()
    talking.say(CONTEXT)
    talking.wait(SETTLED_AFTER)
    assert codes_of(breaks(talking)) == []
    talking.make_ready()
    talking.say(HI)
    talking.wait(SETTLED_AFTER)
    assert codes_of(breaks(talking)) == ["PROVIDER_RESPONSE_LOST"]


def test_what_was_answered_is_not_lost() -> None:
    talking = talk()
    talking.say(HI)
    heard = talking.hear(created("r1"), realtime_talk.speech("r1", "a1", 20), done("r1"))
    assert ResponseEnd("done") in heard
    assert codes_of(breaks(talking)) == []


def test_after_the_end_nothing_is_taken() -> None:
    talking = talk(ready=False)
    talking.wait(30)
    assert talking.closed is not None
    assert talking.say(*ALL) == []
    assert talking.is_done()


def test_a_connection_that_closes_meanwhile_is_no_error() -> None:
    talking = talk()
    with talking.bridge.at(talking.now):
        talking.provider.close()
    assert talking.provider.state is not State.OPEN
    assert talking.say(*ALL) == []


def test_secrets_stay_out_of_refusals() -> None:
    class Leaky(Able):
        def _queue_extension(self, command: ExtensionCommand) -> None:
            raise LocalProtocolError("sk-very-secret-key can't")

    talking = talk(Leaky, secrets=["sk-very-secret-key"])
    [error] = talking.say(HI)
    assert isinstance(error, ErrorFrame)
    assert "secret" not in error.message


def test_a_commit_after_a_text_comes_after_it() -> None:
    talking = talk(ready=False)
    talking.say(speech(1), TextIn("Mind the gap."), Commit())
    talking.make_ready()
    found = said(talking)
    assert found[:2] == [1, TextIn("Mind the gap.")]
