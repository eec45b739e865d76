"""The history of a session: what was said and really heard, in its order and bounds, there and back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import (
    HistoryItem,
    Interruption,
    RealtimeSession,
    ResponseEnd,
    ToolCall,
    Transcript,
)
from speko_anyio.client._history import MAX_CHARACTERS, MAX_ITEMS, History
from speko_anyio.protocol import TextIn
from speko_anyio.protocol._extensions import KNOWN
from speko_anyio.testing import VIRTUAL_BACKENDS, FakePeer, fake_session, virtual_backend

RATE = 24_000


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


def speech(seconds: float) -> bytes:
    return bytes(round(seconds * RATE) * 2)


class Conversation:
    """A `History` whose audio and clock a test moves."""

    def __init__(self) -> None:
        self.audio_bytes_received = 0
        self.on_first_audio: Callable[[], None] | None = None
        self.now = 100.0
        self.history = History(self, lambda: self.now, lambda: RATE)

    def audio(self, seconds: float) -> None:
        """Receive so much speech, as the pump does."""
        self.audio_bytes_received += len(speech(seconds))
        if self.on_first_audio is not None:
            first, self.on_first_audio = self.on_first_audio, None
            first()

    def hear(self, *frames: Any) -> None:
        for frame in frames:
            self.history.receive(frame)

    def said(self, text: str, *, final: bool = True) -> None:
        self.hear(Transcript("assistant", text, final))

    def asked(self, text: str, *, final: bool = True) -> None:
        self.hear(Transcript("user", text, final))

    @property
    def items(self) -> list[HistoryItem]:
        return list(self.history.items)


def test_both_sides_in_the_order_of_the_conversation() -> None:
    talk = Conversation()
    talk.asked("What", final=False)
    talk.asked("What time is it?")
    talk.said("It is", final=False)
    talk.audio(1)
    talk.said("It is two.")
    talk.hear(ResponseEnd("done"))
    talk.history.write("system", "They are in Oslo.")
    talk.history.write("user", "Thanks.")
    assert talk.items == [
        HistoryItem("user", "What time is it?"),
        HistoryItem("assistant", "It is two."),
        HistoryItem("system", "They are in Oslo."),
        HistoryItem("user", "Thanks."),
    ]


def test_what_the_player_reports_decides_what_was_heard() -> None:
    talk = Conversation()
    talk.said("One two three four five six seven eight nine ten")
    talk.audio(10)
    talk.now += 5
    talk.history.played(2)  # it began 3 seconds late
    talk.now += 1
    talk.hear(Interruption())
    assert talk.items[0].text == "One two three"
    # The count begins again.
    talk.said("Alpha beta gamma delta")
    talk.audio(4)
    talk.now += 1
    talk.history.played(2)
    talk.history.played(9)  # of before the interruption
    talk.hear(Interruption())
    assert (talk.items[1].text, talk.items[1].unheard) == ("Alpha beta", "gamma delta")


def test_a_report_moves_all_answers_that_wait() -> None:
    talk = Conversation()
    for text in ("One two three four", "five six seven eight"):
        talk.said(text)
        talk.audio(4)
        talk.hear(ResponseEnd("done"))
    talk.now += 8  # by the clock, all was heard
    talk.history.played(5)
    talk.hear(Interruption())
    assert [(item.text, item.unheard) for item in talk.items] == [
        ("One two three four", ""),
        ("five", "six seven eight"),
    ]


def test_a_report_of_all_cuts_nothing() -> None:
    talk = Conversation()
    talk.said("One two")
    talk.audio(2)
    talk.hear(ResponseEnd("done"))
    talk.now += 0.5
    talk.history.played(2.001)  # rounded
    talk.hear(Interruption())
    assert talk.items == [HistoryItem("assistant", "One two")]


def test_a_text_that_grows_is_there_already() -> None:
    talk = Conversation()
    talk.said("It is", final=False)
    assert talk.items == [HistoryItem("assistant", "It is")]
    talk.said("", final=True)
    assert talk.items == [HistoryItem("assistant", "It is")]


def test_a_question_that_is_transcribed_late_stands_before_its_answer() -> None:
    talk = Conversation()
    talk.said("Hello, how can I help?")
    talk.audio(2)
    talk.hear(ResponseEnd("done"))
    talk.now += 5
    talk.audio(3)
    talk.said("It is two.")
    talk.hear(ResponseEnd("done"))
    talk.now += 1
    talk.asked("What time is it?")
    assert talk.items == [
        HistoryItem("assistant", "Hello, how can I help?"),
        HistoryItem("user", "What time is it?"),
        HistoryItem("assistant", "It is two."),
    ]


def test_a_late_question_stands_before_the_tool_that_it_calls() -> None:
    talk = Conversation()
    talk.hear(ToolCall("c1", "get_time", "{}"), ResponseEnd("done"))
    talk.history.answer("c1", "two")
    talk.audio(3)
    talk.said("It is two.")
    talk.asked("What time is it?")
    talk.asked("And the day?")
    assert talk.items == [
        HistoryItem("user", "What time is it?"),
        HistoryItem("tool", "two", name="get_time", arguments="{}", call_id="c1"),
        HistoryItem("assistant", "It is two."),
        HistoryItem("user", "And the day?"),
    ]


def test_after_the_greeting_was_heard_the_user_comes_behind_it() -> None:
    talk = Conversation()
    talk.audio(2)
    talk.said("Hello!")
    talk.hear(ResponseEnd("done"))
    talk.now += 3
    talk.asked("Hi.")
    assert talk.items == [HistoryItem("assistant", "Hello!"), HistoryItem("user", "Hi.")]


def test_of_an_interrupted_answer_the_heard_words_remain() -> None:
    talk = Conversation()
    talk.audio(4)
    talk.said("one two three four")
    talk.now += 2  # of 4 seconds: half of it
    talk.hear(Interruption("user"))
    assert talk.items == [HistoryItem("assistant", "one two", True, "three four")]
    talk.asked("Stop.")
    assert talk.items[-1] == HistoryItem("user", "Stop.")


def test_what_comes_of_its_text_later_was_not_heard() -> None:
    talk = Conversation()
    talk.audio(2)
    talk.said("one two three", final=False)
    talk.audio(1)
    talk.now += 1.1
    talk.hear(Interruption("user"))
    talk.said("one two three four")
    talk.hear(ResponseEnd("interrupted"))
    assert talk.items == [HistoryItem("assistant", "one", True, "two three four")]


@pytest.mark.parametrize("heard", ["One two", "One", ""])
def test_a_service_may_tell_what_was_heard(heard: str) -> None:
    """Its final transcript has no more than that; what the clock says is an estimate."""
    talk = Conversation()
    talk.said("One two three four.", final=False)
    talk.audio(4.0)
    talk.now += 2.5
    talk.hear(Interruption("user"))
    talk.said(heard)
    talk.hear(ResponseEnd("interrupted"))
    unheard = "One two three four."[len(heard) :].strip()
    (item,) = talk.history.items
    assert item == HistoryItem("assistant", heard, interrupted=True, unheard=unheard)
    talk.said("One", final=False)
    talk.said("One more.")
    assert [item.text for item in talk.history.items] == [heard, "One more."]


def test_an_answer_that_is_complete_but_not_played_is_cut_too() -> None:
    talk = Conversation()
    talk.said("one two")
    talk.audio(2)
    talk.hear(ResponseEnd("done"))
    talk.said("three four")
    talk.audio(2)
    talk.hear(ResponseEnd("done"))
    talk.now += 1.2
    talk.hear(Interruption("user"))
    assert talk.items == [
        HistoryItem("assistant", "one", True, "two"),
        HistoryItem("assistant", "", True, "three four"),
    ]


def test_what_was_heard_to_the_end_is_not_cut() -> None:
    talk = Conversation()
    talk.said("one two")
    talk.audio(2)
    talk.hear(ResponseEnd("done"))
    talk.now += 10
    talk.hear(Interruption("user"))
    assert talk.items == [HistoryItem("assistant", "one two")]


def test_a_written_answer_was_read() -> None:
    talk = Conversation()
    talk.said("one two")
    talk.hear(Interruption("user"), ResponseEnd("interrupted"))
    talk.said("three")
    assert talk.items == [HistoryItem("assistant", "one two"), HistoryItem("assistant", "three")]


def test_a_text_that_comes_only_after_the_interruption_is_cut() -> None:
    talk = Conversation()
    talk.audio(4)
    talk.now += 1
    talk.hear(Interruption("user"), ResponseEnd("interrupted"))
    talk.said("one two three four")
    talk.audio(1)
    talk.said("five")
    assert talk.items == [
        HistoryItem("assistant", "one", True, "two three four"),
        HistoryItem("assistant", "five"),
    ]


def test_a_text_that_nothing_completes_ends_with_the_next_answer() -> None:
    talk = Conversation()
    talk.said("one two", final=False)
    talk.audio(1)
    talk.hear(ResponseEnd("done"))
    talk.said("three", final=False)
    talk.audio(1)
    talk.said("three four")
    assert talk.items == [HistoryItem("assistant", "one two"), HistoryItem("assistant", "three four")]


def test_two_messages_of_one_answer_share_its_audio() -> None:
    talk = Conversation()
    talk.said("let me see")
    talk.audio(1)
    talk.said("it is two o'clock")
    talk.audio(1)
    talk.now += 1
    talk.hear(Interruption("user"))
    assert talk.items == [
        HistoryItem("assistant", "let me see"),
        HistoryItem("assistant", "it", True, "is two o'clock"),
    ]


def test_the_result_of_a_call_belongs_to_it() -> None:
    talk = Conversation()
    talk.hear(ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g", ""))
    talk.history.answer("c2", "two")
    talk.history.answer("c3", "nobody's")
    assert talk.items == [
        HistoryItem("tool", "", name="f", arguments='{"a": 1}', call_id="c1", pending=True),
        HistoryItem("tool", "two", name="g", arguments="", call_id="c2"),
    ]


def test_the_oldest_items_are_forgotten() -> None:
    talk = Conversation()
    for number in range(MAX_ITEMS + 10):
        talk.said(f"{number}")
    assert len(talk.items) == MAX_ITEMS
    assert talk.items[0] == HistoryItem("assistant", "10")
    talk = Conversation()
    for _ in range(10):
        talk.said("x" * (MAX_CHARACTERS // 4))
        talk.hear(ResponseEnd("done"))
    assert len(talk.items) == 4
    talk.said("y" * (2 * MAX_CHARACTERS))
    assert len(talk.items) == 1


@pytest.mark.parametrize("ends", [False, True])
def test_what_is_forgotten_takes_no_memory(ends: bool) -> None:
    talk = Conversation()
    tracemalloc.start()
    try:
        for number in range(40):
            talk.audio(60)
            talk.said(f"{number}" + "x" * (MAX_CHARACTERS - 2))
            talk.hear(ToolCall(f"{number}" + "x" * (MAX_CHARACTERS - 2), "f", "{}"))
            if ends:
                talk.hear(ResponseEnd("done"))
        assert tracemalloc.get_traced_memory()[0] < 3 * MAX_CHARACTERS
    finally:
        tracemalloc.stop()


def test_a_growing_text_that_is_forgotten_counts_no_more() -> None:
    talk = Conversation()
    talk.asked("old", final=False)
    for number in range(MAX_ITEMS):
        talk.history.write("system", f"{number}")
    talk.asked("old " + "x" * MAX_CHARACTERS)
    assert len(talk.items) == MAX_ITEMS


FRAMES = st.one_of(
    st.builds(Transcript, st.sampled_from(["user", "assistant"]), st.text(max_size=20), st.booleans()),
    st.builds(ToolCall, st.sampled_from(["c1", "c2"]), st.just("f"), st.just("{}")),
    st.just(Interruption("user")),
    st.just(ResponseEnd("done")),
)


@given(st.lists(st.one_of(FRAMES, st.floats(0, 3), st.sampled_from(["c1", "c2"])), max_size=60))
def test_whatever_comes_no_final_text_and_no_call_is_lost(events: list[Any]) -> None:
    talk = Conversation()
    said: list[str] = []
    calls = 0
    for event in events:
        if isinstance(event, float):
            talk.audio(event)
            talk.now += event / 2
        elif isinstance(event, str):
            talk.history.answer(event, "done")
        else:
            talk.hear(event)
            calls += isinstance(event, ToolCall)
            if isinstance(event, Transcript) and event.final and event.text.strip():
                said.append(event.text)
    whole = [(item.text + item.unheard).replace(" ", "") for item in talk.items if item.role != "tool"]
    for text in said:
        assert "".join(text.split()) in ["".join(each.split()) for each in whole]
    assert sum(item.role == "tool" for item in talk.items) == calls
    assert HistoryItem.from_json(HistoryItem.to_json(talk.items)) == tuple(talk.items)


# As JSON

EXAMPLES: list[HistoryItem] = [
    HistoryItem("user", 'He said "hi"\n'),
    HistoryItem("assistant", "one", True, "two"),
    HistoryItem("tool", name="f", arguments="{}", pending=True),
    HistoryItem("tool", "done", name="f", arguments='{"a": 1}', call_id="c1"),
]


@pytest.mark.parametrize("items", [EXAMPLES, []])
def test_json_there_and_back(items: list[HistoryItem]) -> None:
    text = HistoryItem.to_json(items)
    assert HistoryItem.from_json(text) == tuple(items)
    assert HistoryItem.from_json(text.encode()) == tuple(items)
    assert text.count("\n") == (len(items) + 2 if items else 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"type": "song"}]',
        '[{"type": "message", "role": "pope", "text": ""}]',
        b"\xff",
        "[" * 9999,
    ],
)
def test_other_json_is_refused_in_a_sentence(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^this is not the JSON of a history "):
        HistoryItem.from_json(text)


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    assert HistoryItem.from_json('[{"type":"message","role":"user","text":"a","new":1}]') == (
        HistoryItem("user", "a"),
    )


# In a session


async def get_weather(city: str) -> str:
    return f"rain in {city}"


@pytest.mark.anyio
async def test_a_session_keeps_it_and_another_goes_on_with_it() -> None:
    async def assistant(peer: FakePeer) -> None:
        await peer.expect(TextIn)
        peer.transcript("user", "What is the weather?")
        await peer.call_tool("get_weather", city="Oslo")
        peer.transcript("assistant", "It rains in Oslo, and it will rain tomorrow.")
        await peer.say(speech(4))
        peer.end_response()
        await anyio.sleep(2)
        peer.interrupt()
        await anyio.sleep(1)

    async def talk(session: RealtimeSession) -> None:
        await session.send_text("The user is Ada.", role="system")
        async for _ in session:
            pass

    async with fake_session(assistant, tools=[get_weather]) as (session, _):
        await talk(session)
    assert session.history == (
        HistoryItem("system", "The user is Ada."),
        HistoryItem("user", "What is the weather?"),
        HistoryItem(
            "tool", "rain in Oslo", name="get_weather", arguments='{"city": "Oslo"}', call_id="call-1"
        ),
        HistoryItem("assistant", "It rains in Oslo, and", True, "it will rain tomorrow."),
    )
    async with fake_session(history=session.history) as (second, peer):
        assert second.history == session.history
    assert [getattr(command, "text", "") for command in peer.said()][:4] == [
        "The user is Ada.",
        "What is the weather?",
        'The tool get_weather was called with {"city": "Oslo"}. It returned: rain in Oslo',
        "It rains in Oslo, and",
    ]


@pytest.mark.anyio
async def test_results_of_the_application_belong_to_it_too() -> None:
    async with fake_session(peer=FakePeer(extensions=KNOWN)) as (session, peer):
        peer.send(ToolCall("c1", "lookup", "{}"))
        assert isinstance([await session.receive() for _ in range(2)][-1], ToolCall)
        assert session.history == (
            HistoryItem("tool", "", name="lookup", arguments="{}", call_id="c1", pending=True),
        )
        await session.send_tool_result("c1", "found")
        assert session.history == (HistoryItem("tool", "found", name="lookup", arguments="{}", call_id="c1"),)


def test_messages_in_another_form_are_not_lost_silently() -> None:
    with pytest.raises(ValueError, match=r"no words at `\$\[1\]`; put them into its `text`"):
        HistoryItem.from_json('[{"role":"user","text":"a"},{"role":"assistant","content":"b"}]')
    unheard = (HistoryItem("assistant", interrupted=True, unheard="all of it"), HistoryItem("tool", name="f"))
    assert HistoryItem.from_json(HistoryItem.to_json(unheard)) == unheard


ANYTHING: Any = HistoryItem


@pytest.mark.parametrize(
    "items", ["hi", [{"role": "user"}], [ANYTHING("pope", "hi")], [ANYTHING("user", 5)]], ids=str
)
def test_what_could_not_be_read_again_is_not_written(items: Any) -> None:
    with pytest.raises(TypeError, match="history"):
        HistoryItem.to_json(items)
