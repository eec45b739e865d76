"""The conversation other than by speech: text, pictures, greetings, updates, and how a session begins."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with`

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from speko_anyio import (
    Close,
    ConnectionClosed,
    HandshakeError,
    HistoryItem,
    LocalProtocolError,
    Ready,
    RealtimeSession,
    ResponseEnd,
    ToolCall,
    ToolSpec,
    open_session,
    tool,
)
from speko_anyio.protocol import (
    Command,
    Commit,
    ImageIn,
    Played,
    Respond,
    Say,
    State,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol._extensions import COMMANDS, KNOWN
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.testing.server import FakeServer, connected, grant
from tests.support.cancellation import cancel_at_each_await
from tests.support.drivers import EVERY_DRIVER, EVERY_VIRTUAL_DRIVER, driven, settled

pytestmark = pytest.mark.anyio

Verb = Callable[[RealtimeSession], Coroutine[Any, Any, None]]

VERBS: list[tuple[Verb, Command, str]] = [
    (lambda session: session.send_text("Hello"), TextIn("Hello", "user", True), "takes no text"),
    (lambda session: session.send_text("A", role="system"), TextIn("A", "system", False), "takes no text"),
    (
        lambda session: session.send_image(b"\x89PNG", mime_type="image/png"),
        ImageIn("image/png", b"\x89PNG", False),
        "takes no images",
    ),
    (lambda session: session.respond(), Respond(), "can't be asked to speak"),
    (lambda session: session.respond("Greet."), Respond("Greet."), "can't be asked to speak"),
    (lambda session: session.say("Welcome."), Say("Welcome."), "can't be told what to say"),
    (
        lambda session: session.update(system_prompt="Be brief.", voice="bob", turns="manual"),
        Update(system_prompt="Be brief.", voice="bob", turns="manual"),
        "can't change an open session",
    ),
]


@pytest.fixture(params=EVERY_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


def slow_server(**options: Any) -> FakeServer:
    """A server that accepts the WebSocket and is ready only when the test says so, by `core.send_ready`."""
    server = FakeServer(**options)
    server.greet = server.core.accept
    return server


async def get_weather(city: str) -> str:
    return f"rain in {city}"


async def test_every_verb_reaches_a_server_that_offers_it_in_order() -> None:
    async with connected(FakeServer(extensions=COMMANDS)) as (session, server):
        for verb, _, _ in VERBS:
            await verb(session)
        await session.send_text("I am in Oslo.", respond=False)
        await session.commit()
        await settled()
        assert server.commands == [
            *(command for _, command, _ in VERBS),
            TextIn("I am in Oslo.", "user", False),
            Commit(),
        ]


@pytest.mark.parametrize(("verb", "refused"), [(verb, why) for verb, _, why in VERBS])
async def test_a_service_that_offers_nothing_is_told_nothing(verb: Verb, refused: str) -> None:
    async with connected() as (session, server):
        with pytest.raises(LocalProtocolError, match=f"^this service {refused}"):
            await verb(session)
        await session.commit()
        await settled()
        assert server.commands == [Commit()]
        assert session.history == ()


async def test_what_was_played_is_reported_where_it_is_taken() -> None:
    async with connected(FakeServer(extensions=("played",))) as (session, server):
        await session.commit()
        await settled()
        for seconds in (0, 0.25, 1, 1.2346):
            await session.report_played(seconds)
        await settled()
        assert session.capabilities.truncate
        assert server.commands == [Commit(), Played(0), Played(250), Played(1000), Played(1235)]
    async with connected(FakeServer(extensions=("text",))) as (session, server):
        await session.report_played(0.25)  # too early to know
        await session.commit()
        await settled()
        assert not session.capabilities.truncate
        await session.report_played(0.25)
        for seconds in (-0.1, float("nan"), float("inf"), 1e300):
            with pytest.raises(LocalProtocolError, match="played must be from 0 to"):
                await session.report_played(seconds)
        await settled()
        assert server.commands == [Commit()]


@pytest.mark.parametrize("extensions", [(), ("played",)])
async def test_the_history_learns_what_was_played(extensions: tuple[str, ...]) -> None:
    async with connected(FakeServer(extensions=extensions)) as (session, server):
        server.core.send_transcript("assistant", "One two three four", final=True)
        server.core.send_audio(bytes(4 * 24_000 * 2))
        server.flush()
        await settled()
        await session.report_played(3)
        server.core.send_interruption("user")
        server.flush()
        await settled()
        (item,) = session.history
        assert item.interrupted
        assert "four" in item.unheard
        assert item.text.startswith("One two")


async def test_a_mistake_of_the_caller_changes_nothing() -> None:
    async with connected(FakeServer(extensions=COMMANDS)) as (session, server):
        with pytest.raises(LocalProtocolError, match="the text is empty"):
            await session.send_text("")
        with pytest.raises(LocalProtocolError, match="changes nothing"):
            await session.update()
        with pytest.raises(TypeError, match="tools must be a list"):
            await session.update(tools=get_weather)  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError, match="image/jpeg"):
            await session.send_image(b"x", mime_type="jpeg")
        await settled()
        assert server.commands == []
        assert session.history == ()


async def test_the_capabilities_are_those_that_the_service_announces() -> None:
    record = Capabilities(text=True, say="verbatim", update=("tools",), history=True, text_output=True)
    async with connected(FakeServer(capabilities=record)) as (session, _):
        assert session.capabilities == record
    async with connected(FakeServer(extensions=["text"])) as (session, _):
        assert session.capabilities.text
        assert session.capabilities.say == "no"
    async with connected(slow_server()) as (session, _):
        with pytest.raises(LocalProtocolError, match="not said yet what it takes"):
            _ = session.capabilities


# Before `Ready`


@pytest.mark.parametrize(("verb", "command"), [(verb, command) for verb, command, _ in VERBS])
async def test_a_verb_waits_until_the_service_is_ready(verb: Verb, command: Command) -> None:
    async with connected(slow_server(extensions=COMMANDS)) as (session, server):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(verb, session)
            await settled()
            assert server.commands == []
            server.core.send_ready()
            server.flush()
        assert server.commands == [command]


@pytest.mark.parametrize("verb", [verb for verb, _, _ in VERBS])
async def test_a_verb_learns_that_the_session_ends_instead(verb: Verb) -> None:
    async with connected(slow_server(extensions=COMMANDS)) as (session, server):
        with pytest.raises(ConnectionClosed) as caught:
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    with pytest.raises(ConnectionClosed):
                        await verb(session)

                tasks.start_soon(wait)
                await settled()
                server.core.close(4000, "bye")
                server.flush()
            await verb(session)
        assert caught.value.code == 4000


@pytest.mark.parametrize("anyio_backend", EVERY_VIRTUAL_DRIVER, indirect=True)
@pytest.mark.parametrize("verb", [verb for verb, _, _ in VERBS])
async def test_a_verb_waits_for_the_handshakes_time_only(verb: Verb) -> None:
    async with connected(slow_server(extensions=COMMANDS), handshake_timeout=2.0) as (session, server):
        asked_at = anyio.current_time()
        with pytest.raises(HandshakeError, match=r"not ready within 2 s"):
            await verb(session)
        assert anyio.current_time() - asked_at == pytest.approx(2.0)
        assert session.closed is None
        server.core.send_ready()
        server.flush()
        await verb(session)
        assert len(server.commands) == 1


@pytest.mark.parametrize("verb", [verb for verb, _, _ in VERBS])
async def test_a_verb_that_is_cancelled_while_it_waits_changes_nothing(verb: Verb) -> None:
    async with connected(slow_server(extensions=COMMANDS)) as (session, server):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(verb, session)
            await settled()
            tasks.cancel_scope.cancel()
        server.core.send_ready()
        server.flush()
        await settled()
        assert server.commands == []
        assert session.history == ()
        await session.commit()
        await settled()
        assert server.commands == [Commit()]


async def test_many_verbs_may_wait() -> None:
    async with connected(slow_server(extensions=COMMANDS)) as (session, server):
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(session.say, f"number {number}")
            await settled()
            server.core.send_ready()
            server.flush()
        # In any order: trio wakes tasks in a random one.
        said = {command.text for command in server.commands if isinstance(command, Say)}
        assert said == {f"number {number}" for number in range(5)}


# What a session begins with


HISTORY: list[HistoryItem] = [
    HistoryItem("user", "Hello, I am Ada."),
    HistoryItem("assistant", "Hello", interrupted=True, unheard="Ada!"),
    HistoryItem("assistant", "", interrupted=True, unheard="How are you?"),
    HistoryItem("tool", "rain in Oslo", name="get_weather", arguments='{"city": "Oslo"}', call_id="c1"),
    HistoryItem("tool", "", name="get_weather", arguments="", call_id="c2", pending=True),
    HistoryItem("system", "The caller is at home."),
]

SEEDED = [
    TextIn("Hello, I am Ada.", "user", False),
    TextIn("Hello", "assistant", False),
    TextIn(
        'The tool get_weather was called with {"city": "Oslo"}. It returned: rain in Oslo', "system", False
    ),
    TextIn("The tool get_weather was called with {}. It has not returned yet.", "system", False),
    TextIn("The caller is at home.", "system", False),
]


async def test_history_and_greeting_come_before_anything_the_caller_says() -> None:
    server = slow_server(extensions=COMMANDS)
    on_accepted: Callable[[], None] = server.greet

    def greet() -> None:
        on_accepted()
        server.core.send_ready()

    server.greet = greet
    async with connected(server, history=HISTORY, greeting="Welcome back.") as (session, _):
        await session.commit()
        await settled()
        assert server.commands == [*SEEDED, Say("Welcome back."), Commit()]
        assert session.history == tuple(HISTORY)


async def test_opening_waits_for_the_service_to_be_ready() -> None:
    server = slow_server(extensions=COMMANDS)
    opened: list[RealtimeSession] = []
    async with anyio.create_task_group() as tasks:

        async def talk() -> None:
            async with connected(server, greeting="Hello.") as (session, _):
                opened.append(session)
                assert await session.receive() == Ready(24_000, 24_000, COMMANDS)

        tasks.start_soon(talk)
        await settled()
        assert not opened
        server.core.send_ready()
        server.flush()
    assert server.commands == [Say("Hello."), Close(1000, "client_closed", "remote")]


@pytest.mark.parametrize(
    ("options", "extensions", "refused"),
    [
        ({"history": HISTORY}, (), "takes no history"),
        ({"history": HISTORY}, ("say",), "takes no history"),
        ({"greeting": "Hello."}, (), "takes no greeting"),
        ({"greeting": "Hello.", "history": HISTORY}, ("text",), "takes no greeting"),
    ],
)
async def test_what_the_service_does_not_take_fails_at_once(
    options: Any, extensions: tuple[str, ...], refused: str
) -> None:
    server = FakeServer(extensions=extensions)
    with pytest.raises(LocalProtocolError, match=f"^this service {refused}; leave it out"):
        async with connected(server, **options):
            raise AssertionError("opened")
    assert server.commands == [Close(1000, "client_closed", "remote")]
    assert server.stream.closed


@pytest.mark.parametrize("anyio_backend", EVERY_VIRTUAL_DRIVER, indirect=True)
async def test_a_service_that_is_never_ready_fails_the_opening() -> None:
    server = slow_server(extensions=COMMANDS)
    with pytest.raises(HandshakeError, match="not ready"):
        async with connected(server, greeting="Hello.", handshake_timeout=2.0):
            raise AssertionError("opened")
    assert server.stream.closed


async def test_a_service_that_closes_instead_fails_the_opening() -> None:
    server = FakeServer(extensions=COMMANDS)

    def greet() -> None:
        server.core.accept()
        server.core.close(4000, "not today")

    server.greet = greet
    with pytest.raises(ConnectionClosed, match="not today"):
        async with connected(server, greeting="Hello."):
            raise AssertionError("opened")
    assert server.stream.closed


async def test_a_cancelled_opening_leaves_nothing() -> None:
    server = slow_server(extensions=COMMANDS)
    async with anyio.create_task_group() as tasks:

        async def talk() -> None:
            async with open_session(grant(), stream=server.stream, history=HISTORY):
                raise AssertionError("opened")

        tasks.start_soon(talk)
        await settled()
        tasks.cancel_scope.cancel()
    assert server.commands == [Close(1001, "client_cancelled", "remote")]
    assert server.stream.closed


@pytest.mark.parametrize("options", [{}, {"history": HISTORY, "greeting": "Hello."}], ids=["", "begins"])
@pytest.mark.parametrize("verb", [verb for verb, _, _ in VERBS])
async def test_cancelled_at_each_await_it_ends_and_leaves_nothing(verb: Verb, options: Any) -> None:
    def become_ready(turn: int, server: FakeServer) -> None:
        if turn == 12 and server.core.state is State.OPEN:
            server.core.send_ready()
            server.flush()

    turns = await cancel_at_each_await(
        lambda: slow_server(extensions=COMMANDS),
        lambda session, server: verb(session),
        verb,
        at_turn=become_ready,
        **options,
    )
    assert turns > 12


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"history": "Hello"}, TypeError, "history must be a list of items"),
        ({"history": iter(HISTORY)}, TypeError, "history must be a list of items"),
        ({"history": ["Hello"]}, TypeError, r'such as HistoryItem\("user", "Hello"\)'),
        ({"history": [HistoryItem("pope", "Hello")]}, TypeError, "not valid"),  # type: ignore[arg-type]
        ({"history": [HistoryItem("user", 3)]}, TypeError, "not valid"),  # type: ignore[arg-type]
        ({"greeting": 3}, TypeError, "greeting must be a string"),
        ({"greeting": " "}, ValueError, "the greeting is blank"),
        ({"messages": []}, TypeError, "did you mean history?"),
        ({"output": "text"}, TypeError, "output is fixed when a session is minted"),
    ],
)
async def test_mistakes_in_what_it_begins_with_are_told_at_once(
    options: Any, error: type[Exception], why: str
) -> None:
    server = FakeServer(extensions=COMMANDS)
    with pytest.raises(error, match=why):
        async with open_session(grant(), stream=server.stream, **options):
            raise AssertionError("opened")
    assert server.wire == b""
    assert server.stream.closed


# Tools that change


async def test_functions_of_an_update_are_answered_as_those_of_the_opening() -> None:
    @tool(on_interrupt="cancel")
    async def wait() -> str:
        await anyio.sleep_forever()
        return ""

    async with connected(FakeServer(extensions=KNOWN)) as (session, server):
        await session.update(tools=[get_weather, wait])
        (update,) = server.commands
        assert isinstance(update, Update)
        assert update.fields == ("tools",)
        assert isinstance(update.tools, tuple)
        assert [spec.name for spec in update.tools] == ["get_weather", "wait"]
        server.commands.clear()
        server.core.send_tool_call("c1", "get_weather", '{"city": "Oslo"}')
        server.core.send_tool_call("c2", "wait", "{}")
        server.core.send_interruption()
        server.flush()
        await settled()
        assert sorted(command.call_id for command in server.commands if isinstance(command, ToolResult)) == [
            "c1",
            "c2",
        ]
        assert ToolResult("c1", "rain in Oslo") in server.commands


async def test_calls_under_way_end_and_the_response_under_way_keeps_its_tools() -> None:
    go = anyio.Event()

    async def slow() -> str:
        await go.wait()
        return "slow is done"

    async def old() -> str:
        return "old is done"

    async with connected(FakeServer(extensions=KNOWN), tools=[slow, old]) as (session, server):
        server.core.send_tool_call("c1", "slow", "{}")
        server.flush()
        await settled()
        await session.update(tools=[get_weather])
        server.commands.clear()
        server.core.send_tool_call("c2", "old", "{}")
        server.flush()
        await settled()
        go.set()
        await settled()
        assert server.commands == [ToolResult("c2", "old is done"), ToolResult("c1", "slow is done")]
        server.commands.clear()
        # The next response knows the new tools only.
        server.core.send_response_end("done")
        server.core.send_tool_call("c3", "old", "{}")
        server.flush()
        await settled()
        (answer,) = server.commands
        assert isinstance(answer, ToolResult)
        assert "no tool called 'old'" in answer.output


async def test_an_update_that_is_refused_keeps_the_tools() -> None:
    async with connected(FakeServer(), tools=[get_weather]) as (session, server):
        with pytest.raises(LocalProtocolError):
            await session.update(tools=[])
        server.core.send_tool_call("c1", "get_weather", '{"city": "Oslo"}')
        server.flush()
        await settled()
        assert server.commands == [ToolResult("c1", "rain in Oslo")]


async def test_a_service_that_can_change_other_things_only_goes_on_with_the_tools() -> None:
    able = Capabilities(update=("system_prompt",))
    async with connected(FakeServer(capabilities=able), tools=[get_weather]) as (session, server):
        await session.update(system_prompt="Be brief.", tools=[])
        assert len(server.commands) == 1
        server.core.send_response_end("done")
        server.core.send_tool_call("c1", "get_weather", '{"city": "Oslo"}')
        server.flush()
        await settled()
        assert server.commands[1:] == [ToolResult("c1", "rain in Oslo")]


async def test_declarations_of_an_update_are_answered_by_the_application() -> None:
    async with connected(FakeServer(extensions=KNOWN), tools=[get_weather]) as (session, server):
        await session.update(tools=[ToolSpec(name="lookup")])
        server.commands.clear()
        server.core.send_tool_call("c1", "lookup", "{}")
        server.flush()
        frames = [await session.receive() for _ in range(2)]
        assert frames[1] == ToolCall("c1", "lookup", "{}")
        await session.send_tool_result("c1", "found")
        await settled()
        assert server.commands == [ToolResult("c1", "found")]


async def test_typed_turns_are_timed_as_spoken_ones() -> None:
    async with connected(FakeServer(extensions=KNOWN)) as (session, server):
        await session.send_text("Hello")
        await session.send_text("a fact", role="system")
        server.core.send_audio(bytes(960))
        server.core.send_response_end("done")
        server.flush()
        assert isinstance([await session.receive() for _ in range(3)][-1], ResponseEnd)
        assert len(session.stats().times_to_first_audio) == 1
