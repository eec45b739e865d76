"""The tables of capabilities, the dialects and the doubles say the same, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from speko_anyio import XAI, OpenAI
from speko_anyio.protocol import LocalProtocolError
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.capabilities import UPDATABLE, Capabilities, extensions_of
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from speko_anyio.providers._endpoint import Endpoint
from speko_anyio.providers.openai import OpenAIDialect, OpenAIOptions, openai_capabilities, openai_endpoint
from speko_anyio.providers.xai import XAIDialect, XAIOptions, xai_capabilities, xai_endpoint
from speko_anyio.testing.providers import Joined, OpenAIDouble, Request, Say, XAIDouble, tone

from .realtime_talk import Event, Talk, check_openai, check_xai, created, speech


class Family(NamedTuple):
    """One row of a table."""

    model: str
    capabilities: Callable[[str], Capabilities]
    dialect: Any
    options: Any
    double: Any
    endpoint: Callable[[str, str], Endpoint]
    check: Callable[[Event], None]

    @property
    def table(self) -> Capabilities:
        return self.capabilities(self.model)

    def talk(self, options: Any = None, **config: Any) -> Talk[Any]:
        return Talk(self.make(options, **config), self.check)

    def make(self, options: Any = None, **config: Any) -> Any:
        config = {"provider": "any", "model": self.model, **config}
        return self.dialect(SessionConfig(**config), options=options or self.options())

    def join(self, **config: Any) -> Joined[Any]:
        double = self.double([Say("Hello there, it is sunny.", 0.2)] * 4)
        return Joined(self.make(**config), double.open(Request.to(self.endpoint("test-key", self.model))))


_OPENAI = (openai_capabilities, OpenAIDialect, OpenAIOptions, OpenAIDouble, openai_endpoint, check_openai)
_XAI = (xai_capabilities, XAIDialect, XAIOptions, XAIDouble, xai_endpoint, check_xai)
FAMILIES = [
    *(
        Family(model, *_OPENAI)
        for model in (
            "gpt-realtime-2.1",
            "gpt-realtime-2.1-mini",
            "gpt-realtime-1.5",
            "gpt-realtime",
            "gpt-realtime-mini-2025-12-15",
            "gpt-4o-realtime-preview-2025-06-03",
            "somebody-elses",
        )
    ),
    *(Family(model, *_XAI) for model in ("grok-voice-latest", "grok-voice-think-fast-2.0")),
]
ALL = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model)

VERBS: dict[str, Callable[[Any], None]] = {
    "text": lambda dialect: dialect.send_text("Hello!"),
    "image": lambda dialect: dialect.send_image(b"\x89PNG", mime_type="image/png"),
    "respond": lambda dialect: dialect.respond("Greet the user."),
    "say": lambda dialect: dialect.say("Good morning!"),
    "update": lambda dialect: dialect.update(Update(system_prompt="Be brief.")),
}
CHANGES: dict[str, Any] = {
    "system_prompt": "Be brief.",
    "tools": (ToolSpec(name="f"),),
    "voice": "rex",
    "turns": "manual",
}


@ALL
def test_a_session_says_what_the_table_says(family: Family) -> None:
    dialect = family.make()
    table = family.table
    if family.dialect is XAIDialect:
        table = msgspec.structs.replace(table, resume="no")  # without the option
    assert dialect.capabilities == table
    offered = set(extensions_of(table))
    assert offered - {"usage", "played"} == {name for name in VERBS if table.takes(name)}
    assert ("played" in offered) is table.truncate


@ALL
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_exactly_where_the_table_says_so(family: Family, verb: str) -> None:
    talk = family.talk().make_ready()
    if family.table.takes(verb):
        VERBS[verb](talk.dialect)
        assert talk.sent()
    else:
        with pytest.raises(LocalProtocolError, match=talk.dialect.who):
            VERBS[verb](talk.dialect)
        assert talk.sent() == []


@ALL
@pytest.mark.parametrize("verb", VERBS)
def test_the_double_takes_exactly_what_the_table_says(family: Family, verb: str) -> None:
    joined = family.join()
    if not family.table.takes(verb):
        # The message that another model of the same protocol gets.
        other = next(other for other in FAMILIES if other.table.takes(verb))
        talk = other.talk().make_ready()
        VERBS[verb](talk.dialect)
        refused = talk.sent()[0]
        joined.session.receive(msgspec.json.encode(refused).decode(), 0.0)
        assert len(joined.session.errors) == (family.dialect is XAIDialect)
        return
    VERBS[verb](joined.dialect)
    joined.run(5.0)
    assert joined.session.errors == []


@ALL
@pytest.mark.parametrize("field", UPDATABLE)
def test_a_field_changes_exactly_where_the_table_says_so(family: Family, field: str) -> None:
    joined = family.join()
    before = msgspec.json.encode(joined.session.config)
    update = Update(**{field: CHANGES[field]})
    if field in family.table.update:
        joined.dialect.update(update)
        joined.run(1.0)
        assert msgspec.json.encode(joined.session.config) != before
        assert joined.session.errors == []
    else:
        with pytest.raises(LocalProtocolError, match=field):
            joined.dialect.update(update)


@ALL
def test_text_output_exactly_where_the_table_says_so(family: Family) -> None:
    if not family.table.text_output:
        with pytest.raises(LocalProtocolError, match="speaks"):
            family.make(output="text")
        return
    joined = family.join(output="text")
    joined.dialect.send_text("Hello!")
    frames = joined.run(5.0)
    kinds = {type(frame).__name__ for frame in frames}
    assert kinds == {"Transcript", "Usage", "ResponseEnd"}
    assert joined.session.errors == []


@ALL
def test_manual_turns_interrupting_and_truncating(family: Family) -> None:
    manual = family.talk(family.options(turns="manual")).make_ready()
    manual.dialect.send_audio(tone(0.2, 24_000))
    manual.sent()
    manual.dialect.commit()
    sent = manual.sent_types()
    assert ("input_audio_buffer.commit" in sent) is family.table.manual_turns
    manual.dialect.playback.clock(0.0)
    manual.hear(created("r1", {}), speech("r1", "a1", 1000))
    manual.dialect.playback.clock(0.5)
    manual.dialect.interrupt()
    sent = manual.sent_types()
    assert ("response.cancel" in sent) is family.table.interrupt
    assert ("conversation.item.truncate" in sent) is family.table.truncate


@ALL
@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_rate_is_the_provider_s_own_exactly_where_the_table_has_it(family: Family, rate: Any) -> None:
    dialect = family.make(input_sample_rate=rate, output_sample_rate=rate)
    assert (dialect.input_sample_rate == rate) is (rate in family.table.input_rates)
    assert (dialect.output_sample_rate == rate) is (rate in family.table.output_rates)


@ALL
def test_a_conversation_goes_on_as_the_table_says(family: Family) -> None:
    able = family.table.resume == "handle"
    options = family.options(resumption=True) if able else None
    talk = family.talk(options).make_ready()
    talk.hear({"type": "conversation.created", "conversation": {"id": "c1"}})
    assert (talk.dialect.resumption == "c1") is able
    assert talk.dialect.capabilities.resume == family.table.resume


@ALL
def test_server_tools_exactly_where_there_is_an_option_for_them(family: Family) -> None:
    assert hasattr(family.options(), "server_tools") is family.table.server_tools
    assert not family.table.full_duplex
    assert family.table.history is family.table.text


def test_the_end_of_a_model_is_told() -> None:
    for model, end in (
        ("gpt-realtime", ("2027-01-20", "gpt-realtime-2.1")),
        ("gpt-realtime-mini-2025-12-15", ("2027-01-20", "gpt-realtime-2.1-mini")),
        ("gpt-realtime-2.1", (None, None)),
    ):
        found = openai_capabilities(model)
        assert (found.shutdown, found.replaced_by) == end
        assert found.as_of is not None


def test_an_account_says_it_before_a_connection() -> None:
    assert OpenAI("key").capabilities("gpt-realtime") == openai_capabilities("gpt-realtime")
    table = xai_capabilities("grok-voice-latest")
    assert XAI("key", options=XAIOptions(resumption=True)).capabilities("grok-voice-latest") == table
    assert XAI("key").capabilities("grok-voice-latest").resume == "no"
    with pytest.raises(LocalProtocolError, match="has no realtime sessions"):
        OpenAI("key").capabilities("gpt-live-1")


def test_a_model_of_another_protocol_has_no_capabilities_here() -> None:
    with pytest.raises(LocalProtocolError, match="has no realtime sessions"):
        openai_capabilities("gpt-live-1")
