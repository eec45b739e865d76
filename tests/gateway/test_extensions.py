"""The commands besides speech on their way to a handler that declares that it takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from speko_anyio.gateway import Gateway, ServerSession, running_gateway, takes
from speko_anyio.gateway._session import RECEIVE_BUFFER
from speko_anyio.gateway._session_handlers import why_not_a_handler
from speko_anyio.protocol import (
    DEFAULT_LIMITS,
    AudioIn,
    Capabilities,
    Close,
    Commit,
    ErrorFrame,
    ImageIn,
    Limits,
    Played,
    Ready,
    Respond,
    Say,
    TextIn,
    Unknown,
    Update,
    Usage,
)
from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._commands import ExtensionCommand
from speko_anyio.protocol.mint import SessionConfig, ToolSpec
from tests.support.drivers import settled
from tests.support.event_loops import EVENT_LOOPS, event_loop

from .byte_wire import ByteWire
from .support import CONFIG, KEY, make_gateway, mint, raw_client
from .test_session import Wire, ways

pytestmark = pytest.mark.anyio

EVERYTHING = Capabilities(
    text=True,
    image=True,
    respond=True,
    say="verbatim",
    update=("system_prompt", "tools", "voice", "turns"),
    text_output=True,
    truncate=True,
)
NAMES = ("text", "image", "respond", "say", "update", "played", "usage")
PHOTO = ImageIn("image/jpeg", bytes(DEFAULT_LIMITS.max_image_size))


class TestSession:
    """Of one session, over messages and over bytes."""

    @pytest.fixture(params=ways(EVENT_LOOPS))
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return event_loop(request.param[0])

    @pytest.fixture
    async def wire(self, request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
        transport = request.node.callspec.params["anyio_backend"][1]()
        if isinstance(transport, ByteWire):
            transport.stream.max_receive = 64 * 1024
        yield transport
        transport.stop()

    @asynccontextmanager
    async def session(
        self, wire: Wire, capabilities: Capabilities | None = EVERYTHING, **options: Any
    ) -> AsyncIterator[ServerSession]:
        with anyio.fail_after(30):
            async with wire.serve(
                session_id="sess_1", config=CONFIG, capabilities=capabilities, **options
            ) as session:
                ready = await wire.hear()
                assert isinstance(ready, Ready)
                yield session

    async def test_commands_come_in_the_order_in_which_they_were_sent(self, wire: Wire) -> None:
        said: list[Any] = [
            TextIn("Be brief.", "system"),
            AudioIn(b"\1\2", 16_000),
            TextIn("Hi", respond=True),
            Commit(),
            ImageIn("image/png", b"png", respond=True),
            Respond("Greet."),
            AudioIn(b"\3\4", 16_000),
            Say("Hello."),
            Update(voice="marin", tools=(ToolSpec(name="f"),), system_prompt="", turns="manual"),
            Played(1234),
        ]
        async with self.session(wire) as session:
            for command in said:
                wire.say(command.pcm if isinstance(command, AudioIn) else codec.encode(command))
            assert [await session.receive() for _ in said] == said

    async def test_a_session_offers_what_its_handler_takes(self, wire: Wire) -> None:
        async with self.session(wire):
            assert wire.client.capabilities.say == "verbatim"
            wire.client.send_text("Hi")

    async def test_a_handler_that_declares_nothing_gets_nothing_new(self, wire: Wire) -> None:
        async with self.session(wire, None) as session:
            assert not wire.client.capabilities.text
            wire.say(codec.encode(TextIn("Hi", respond=True)), codec.encode(PHOTO)[:200_000] + '"}')
            command = await session.receive()
            assert isinstance(command, Unknown)
            assert command.t == "text"

    async def test_a_written_turn_starts_the_time_to_first_audio(self, wire: Wire) -> None:
        async with self.session(wire) as session:
            silent: list[ExtensionCommand] = [TextIn("Hm."), Respond(), Say("Hi"), Update(voice="v")]
            for command in silent:
                wire.say(codec.encode(command))
                await session.receive()
                assert session.meter.asked_at is None
            turns: list[ExtensionCommand] = [
                TextIn("Hi", respond=True),
                ImageIn("image/png", b"png", respond=True),
            ]
            for command in turns:
                wire.say(codec.encode(command))
                await session.receive()
                assert session.meter.asked_at is not None
                session.meter.asked_at = None
            assert session.meter.messages_in == 6

    async def test_images_that_nobody_takes_fill_a_bounded_space(self, wire: Wire) -> None:
        images = 6
        message = codec.encode(PHOTO)
        async with self.session(wire) as session:
            for _ in range(images):
                wire.say(message)
            await until_full(session)
            # One command beyond the bound at most.
            assert session.buffered[0] <= RECEIVE_BUFFER + wire.read_ahead + len(PHOTO.data) + 1024
            for _ in range(images):
                assert await session.receive() == PHOTO
                assert session.buffered[0] <= RECEIVE_BUFFER + wire.read_ahead + len(PHOTO.data) + 1024
            assert session.buffered[0] == 0

    async def test_tools_of_an_update_count_as_the_objects_that_they_are(self, wire: Wire) -> None:
        schema = {"type": "object", "properties": {f"p{number}": {} for number in range(5_000)}}
        update = Update(tools=(ToolSpec(name="f", parameters=schema),))
        async with self.session(wire) as session:
            wire.say(codec.encode(update))
            await until_full(session)
            assert await session.receive() == update
            assert session.buffered[0] == 0

    async def test_usage_is_whole_for_a_client_that_knows_it_and_plain_for_others(self, wire: Wire) -> None:
        whole = Usage(1, 2, 3, 4, 5, 6, 7, 8, 9.5)
        async with self.session(wire) as session:
            await session.send_usage(
                1,
                2,
                input_text_tokens=3,
                output_text_tokens=4,
                input_image_tokens=5,
                cached_audio_tokens=6,
                cached_text_tokens=7,
                output_reasoning_tokens=8,
                seconds=9.5,
            )
            assert await wire.hear() == Usage(1, 2)
            wire.flush()  # the client accepts
            wire.say(codec.encode(Commit()))
            await session.receive()
            await session.send_usage(
                1,
                2,
                input_text_tokens=3,
                output_text_tokens=4,
                input_image_tokens=5,
                cached_audio_tokens=6,
                cached_text_tokens=7,
                output_reasoning_tokens=8,
                seconds=9.5,
            )
            assert await wire.hear() == whole
            # It is counted whole in either case.
            assert session.meter.usage == whole + whole


async def until_full(session: ServerSession) -> None:
    while not session.full:
        await settled()
    await settled()


@takes(EVERYTHING)
async def mirror(session: ServerSession) -> None:
    """Tell what came, and in which form answers are wanted."""
    await session.send_transcript("assistant", str(session.config.output), final=True)
    async for command in session:
        match command:
            case TextIn(text=text) | Say(text=text):
                await session.send_transcript("user", text, final=True)
            case ImageIn(data=data):
                await session.send_transcript("user", f"{len(data)} bytes", final=True)
            case Update(fields=fields):
                await session.send_transcript("user", ", ".join(fields), final=True)


async def plain(session: ServerSession) -> None:
    async for _ in session:
        pass


async def test_a_whole_gateway_carries_them(both_ways: str) -> None:
    with anyio.fail_after(30):
        async with running_gateway(make_gateway({"echo": mirror})) as url:
            grant = await mint(url)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                ready = await client.hear()
                assert isinstance(ready, Ready)
                assert ready.extensions == ("usage", *NAMES[:-1])
                assert client.connection.capabilities.text_output
                await client.hear()
                client.connection.send_text("Hi")
                client.connection.send_image(PHOTO.data, mime_type="image/jpeg")
                client.connection.say("Hello")
                client.connection.update(Update(voice="v", system_prompt="Be kind."))
                await client.flush()
                heard = [await client.hear() for _ in range(4)]
                assert [frame.text for frame in heard] == [  # type: ignore[union-attr]
                    "Hi",
                    f"{len(PHOTO.data)} bytes",
                    "Hello",
                    "system_prompt, voice",
                ]
                client.connection.close()
                await client.flush()
                assert await client.hear_close() == Close(1000, "", "local")


async def test_an_image_that_is_too_large_costs_no_session(both_ways: str) -> None:
    with anyio.fail_after(30):
        async with running_gateway(make_gateway({"echo": mirror})) as url:
            grant = await mint(url)
            limits = Limits(max_image_size=2 * DEFAULT_LIMITS.max_image_size)
            async with raw_client(grant.ws_url, grant.ws_token, limits=limits) as client:
                await client.hear()
                await client.hear()
                client.connection.send_image(PHOTO.data + b"!", mime_type="image/jpeg")
                client.connection.send_text("Hi")
                await client.flush()
                refusal = await client.hear()
                assert isinstance(refusal, ErrorFrame)
                assert refusal.code == "IMAGE_REFUSED"
                answer = await client.hear()
                assert answer.text == "Hi"  # type: ignore[union-attr]


async def test_text_alone_is_minted_where_it_can_be_had() -> None:
    gateway = make_gateway({"mirror": mirror, "plain": plain})
    transport = httpx.ASGITransport(app=gateway.app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http,
    ):
        statuses = {}
        for provider in ("mirror", "plain"):
            for output in ("text", "audio", "video"):
                body = {"mode": "s2s", "s2s": {"provider": provider, "model": "m", "output": output}}
                answer = await http.post(
                    "/v1/sessions", json=body, headers={"Authorization": f"Bearer {KEY}"}
                )
                statuses[provider, output] = answer.status_code
                if (provider, output) == ("plain", "text"):
                    assert answer.json() == {
                        "code": "VALIDATION_ERROR",
                        "error": "the request is not valid: plain can't answer in text only; "
                        "leave out `$.s2s.output`",
                    }
    assert statuses == {
        ("mirror", "text"): 201,
        ("mirror", "audio"): 201,
        ("mirror", "video"): 400,
        ("plain", "text"): 400,
        ("plain", "audio"): 201,
        ("plain", "video"): 400,
    }


async def test_the_wanted_form_reaches_the_handler() -> None:
    with anyio.fail_after(30):
        async with running_gateway(make_gateway({"mirror": mirror})) as url:
            s2s = {"provider": "mirror", "model": "m", "output": "text"}
            grant = await mint(url, s2s=s2s)
            async with raw_client(grant.ws_url, grant.ws_token) as client:
                await client.hear()
                told = await client.hear()
                assert told.text == "text"  # type: ignore[union-attr]


class ByModel:
    """A handler whose models differ."""

    def capabilities(self, config: SessionConfig) -> Capabilities:
        return Capabilities(text=config.model == "reader")

    async def __call__(self, session: ServerSession) -> None:
        await plain(session)


async def test_what_is_offered_may_depend_on_the_model() -> None:
    with anyio.fail_after(30):
        async with running_gateway(make_gateway({"h": ByModel()})) as url:
            for model, offered in (("reader", True), ("m", False)):
                grant = await mint(url, s2s={"provider": "h", "model": model})
                async with raw_client(grant.ws_url, grant.ws_token) as client:
                    await client.hear()
                    assert client.connection.capabilities.text is offered


def test_what_a_handler_declares_is_checked() -> None:
    @takes("text")  # type: ignore[arg-type]
    async def wrong(session: ServerSession) -> None: ...

    why = why_not_a_handler(wrong)
    assert why is not None
    assert "Capabilities(text=True)" in why
    assert why_not_a_handler(partial(wrong)) == why
    with pytest.raises(TypeError, match="capabilities"):
        Gateway(handlers={"wrong": wrong}, api_keys=[KEY])
    assert why_not_a_handler(partial(mirror)) is None
    for declared, problem in (
        (Capabilities, "are not Capabilities"),
        (Capabilities(say="yes"), "Invalid enum value 'yes' - at `$.say`"),  # type: ignore[arg-type]
        (Capabilities(text="yes"), "Expected `bool`, got `str` - at `$.text`"),  # type: ignore[arg-type]
        (Capabilities(update="tools"), "at `$.update`"),  # type: ignore[arg-type]
        (Capabilities(update=("prompt",)), "'prompt'; choose from system_prompt, tools, voice, turns"),
    ):
        why = why_not_a_handler(takes(declared)(partial(mirror)))  # type: ignore[arg-type]
        assert why is not None
        assert problem in why
    assert why_not_a_handler(ByModel()) is None
