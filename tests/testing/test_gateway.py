"""The fake gateway: what scripts do, what applications see of it, and how failures come out."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from speko_anyio import (
    APIStatusError,
    Audio,
    AuthenticationError,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Expiring,
    Frame,
    HandshakeError,
    Interruption,
    LocalProtocolError,
    MissingAPIKeyError,
    RateLimitError,
    Ready,
    RealtimeSession,
    RemoteProtocolError,
    ResponseEnd,
    ServerToolCall,
    Speko,
    ToolCall,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.gateway import takes
from speko_anyio.gateway._session import ServerSession
from speko_anyio.gateway._session_handlers import echo
from speko_anyio.protocol import Capabilities, Clear, Commit, Interrupt, TextIn, ToolResult
from speko_anyio.protocol._extensions import KNOWN
from speko_anyio.testing import FakeGateway, FakePeer, fake_session, run_handler, steps
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing._gateway import API_KEY, BASE_URL

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 4
READY = Ready(24_000, 24_000, KNOWN)
HANDLERS_READY = Ready(24_000, 24_000, ("usage",))
"""That of a handler which declares nothing."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Boom(Exception):
    pass


async def frames_of(session: RealtimeSession) -> list[Frame]:
    return [frame async for frame in session]


# Scripts


async def test_a_list_of_steps_is_a_conversation() -> None:
    async def weather(city: str) -> str:
        await checkpoint()
        return f"rain in {city}"

    script = [
        steps.transcript("user", "Is it", final=False),
        steps.expect(Commit),
        steps.transcript("user", "Is it raining?"),
        steps.call_tool("weather", city="Oslo"),
        steps.interrupt(),
        steps.say(PCM),
        steps.transcript("assistant", "It is."),
        steps.send(Usage(1, 2), ErrorFrame("BUSY", "wait"), ServerToolCall("s", "f", "started")),
        steps.end_response(),
        steps.end_response("failed", "why"),
        steps.send(Unknown("new", '{"t": "new",\n "x": 1}')),
        steps.close(4000, "enough"),
    ]
    async with fake_session(script, tools=[weather]) as (session, peer):
        await session.send_audio(PCM)
        await session.send_audio(PCM)
        await session.commit()
        assert await frames_of(session) == [
            READY,
            Transcript("user", "Is it", False),
            Transcript("user", "Is it raining?", True),
            ToolCall("call-1", "weather", '{"city": "Oslo"}'),
            Interruption("user"),
            *(Audio(PCM[at : at + 960], 24_000) for at in (0, 960)),
            Transcript("assistant", "It is.", True),
            Usage(1, 2),
            ErrorFrame("BUSY", "wait"),
            ServerToolCall("s", "f", "started"),
            ResponseEnd("done"),
            ResponseEnd("failed", "why"),
            Unknown("new", '{"t": "new",\n "x": 1}'),
            Close(4000, "enough", "remote"),
        ]
    assert peer.said() == [Commit(), ToolResult("call-1", "rain in Oslo")]
    assert peer.audio() == PCM * 2


async def test_a_plain_service_tells_no_ends_and_they_are_derived() -> None:
    script = [
        steps.say(PCM),
        steps.interrupt(),
        steps.say(PCM),
        steps.send(Usage(1, 2)),
        steps.end_response(),
    ]
    async with fake_session(script, peer=FakePeer(extensions=())) as (session, _):
        frames = [frame for frame in await frames_of(session) if not isinstance(frame, Audio)]
    assert frames[:-1] == [
        Ready(24_000, 24_000),
        Interruption("user"),
        ResponseEnd("interrupted"),
        Usage(1, 2),
        ResponseEnd("done"),
    ]


async def test_a_coroutine_is_a_script_and_its_end_is_the_end_of_the_session() -> None:
    async def script(peer: FakePeer) -> None:
        await peer.expect(Commit)
        peer.transcript("assistant", "Hello")

    async with fake_session(script) as (session, _):
        await session.commit()
        assert await frames_of(session) == [
            READY,
            Transcript("assistant", "Hello", True),
            Close(1000, "", "remote"),
        ]


async def test_without_a_script_the_peer_is_played_by_hand() -> None:
    async with fake_session() as (session, peer):
        await session.receive()
        peer.send(Audio(PCM, 24_000))
        assert await session.receive() == Audio(PCM, 24_000)
        await session.interrupt()
        assert await peer.expect(Interrupt) == Interrupt()
    assert peer.said() == [Interrupt(), Close(1000, "client_closed", "remote")]


async def test_a_session_has_the_rates_of_its_peer() -> None:
    peer = FakePeer(input_sample_rate=16_000, output_sample_rate=8_000)
    async with fake_session([steps.say(bytes(640)), steps.expect(Commit)], peer=peer) as (session, _):
        assert await session.receive() == Ready(16_000, 8_000, KNOWN)
        assert await session.receive() == Audio(bytes(320), 8_000)
        assert session.input_sample_rate == 16_000
        await session.send_audio(PCM)
        await session.commit()
        await frames_of(session)
    assert peer.commands[0].sample_rate == 16_000  # type: ignore[union-attr]  # an AudioIn


async def test_speech_takes_its_time_or_a_part_of_it() -> None:
    start = anyio.current_time()
    script = [steps.say(bytes(48_000), pace=1.0), steps.say(bytes(48_000), pace=4.0)]
    async with fake_session(script) as (session, _):
        arrivals = [anyio.current_time() - start async for frame in session if isinstance(frame, Audio)]
    assert arrivals[:50] == pytest.approx([index * 0.02 for index in range(50)])
    assert arrivals[50:] == pytest.approx([1.0 + index * 0.005 for index in range(50)])


async def test_an_interrupt_cuts_speech_off() -> None:
    said: list[bool] = []

    async def script(peer: FakePeer) -> None:
        said.append(await peer.say(bytes(48_000), pace=1.0))
        await peer.expect(Interrupt)

    async with fake_session(script) as (session, _):
        await anyio.sleep(0.5)
        await session.interrupt()
        frames = await frames_of(session)
    assert said == [False]
    assert [type(frame) for frame in frames if not isinstance(frame, Audio)] == [Ready, Interruption, Close]
    assert isinstance(frames[-2], Interruption)
    assert session.stats().audio_bytes_received == 26 * 960


async def test_reactions_answer_each_time_and_last_until_the_client_leaves() -> None:
    script = [steps.on_commit(steps.wait(1.0), steps.transcript("assistant", "yes")), steps.expect(Clear)]
    async with fake_session(script) as (session, peer):
        await session.commit()
        await session.clear()
        start = anyio.current_time()
        await session.receive()
        for _ in range(2):
            assert await session.receive() == Transcript("assistant", "yes", True)
            await session.commit()
        assert anyio.current_time() - start == pytest.approx(2.0)
    assert peer.said()[:4] == [Commit(), Clear(), Commit(), Commit()]


async def test_tools_run_at_the_same_time_and_answer_in_any_order() -> None:
    outputs: dict[str, str] = {}

    async def ask(peer: FakePeer, name: str, seconds: float) -> None:
        outputs[name] = await peer.call_tool("nap", seconds=seconds)

    async def script(peer: FakePeer) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, peer, "long", 2.0)
            tasks.start_soon(ask, peer, "short", 1.0)

    async def nap(seconds: float) -> str:
        await anyio.sleep(seconds)
        return f"slept {seconds}"

    async with fake_session(script, tools=[nap]) as (session, _):
        await frames_of(session)
    assert list(outputs.items()) == [("short", "slept 1.0"), ("long", "slept 2.0")]


async def test_a_gateways_own_handler_is_a_script() -> None:
    async with fake_session(run_handler(echo)) as (session, _):
        await session.send_audio(PCM)
        await session.commit()
        received = [await session.receive() for _ in range(4)]
        assert received[:2] == [HANDLERS_READY, Audio(PCM, 24_000)]
        assert isinstance(received[2], Transcript)
        assert isinstance(received[3], Usage)


async def test_a_client_is_offered_what_the_handler_declares() -> None:
    @takes(Capabilities(text=True, say="verbatim"))
    async def handler(session: ServerSession) -> None:
        assert await session.receive() == TextIn("hi", respond=True)

    async with fake_session(run_handler(handler)) as (session, _):
        assert session.capabilities.say == "verbatim"
        with pytest.raises(LocalProtocolError, match="takes no images"):
            await session.send_image(b"x", mime_type="image/png")
        await session.send_text("hi")
        await frames_of(session)
    async with fake_session(run_handler(echo)) as (session, _):
        with pytest.raises(LocalProtocolError, match="takes no"):
            await session.send_text("hi")
    gateway = FakeGateway(run_handler(handler))
    async with gateway.speko() as speko, speko.realtime.connect(provider="local", model="any") as session:
        assert not session.capabilities.image
        await session.send_text("hi")
    peer = FakePeer(capabilities=Capabilities(image=True))
    async with fake_session(run_handler(echo), peer=peer) as (session, _):
        assert session.capabilities.image


async def test_a_handler_that_returns_ends_the_session_and_its_interruption_drops_audio() -> None:
    async def handler(session: ServerSession) -> None:
        assert session.config.provider == "fake"
        await session.receive()
        await session.send_tool_call("c", "f", "{}")
        assert await session.receive() == ToolResult("c", "out")
        await session.send_audio(PCM)
        await session.send_interruption()

    async with fake_session(run_handler(handler)) as (session, _):
        await session.commit()
        assert await session.receive() == HANDLERS_READY
        assert isinstance(await session.receive(), ToolCall)
        await session.send_tool_result("c", "out")
        assert await frames_of(session) == [Interruption("user"), Close(1000, "", "remote")]


async def test_a_handler_that_fails_fails_the_test() -> None:
    async def handler(session: ServerSession) -> None:
        await session.receive()
        raise Boom

    with pytest.raises(Boom):
        async with fake_session(run_handler(handler)) as (session, _):
            await session.commit()
            await anyio.sleep(3600)


# Failures


@pytest.mark.parametrize("wanted", [Commit, Commit(), ToolResult("c", "x")], ids=str)
async def test_another_command_than_the_expected_one_fails_the_test(wanted: Any) -> None:
    with pytest.raises(AssertionError, match=r"got Clear\(\); it sent: 2 × AudioIn, Clear\(\)"):
        async with fake_session([steps.expect(wanted)]) as (session, _):
            await session.send_audio(PCM)
            await session.send_audio(PCM)
            await session.clear()
            await anyio.sleep(3600)


async def test_a_client_that_leaves_with_expectations_unmet_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="expected Commit of the client, got Close"):
        async with fake_session([steps.expect(Commit)]):
            pass


async def test_a_client_that_says_nothing_fails_the_test_in_time() -> None:
    start = anyio.current_time()
    with pytest.raises(AssertionError, match="got nothing within 7 s; it sent: nothing"):
        async with fake_session([steps.expect(Commit, within=7.0)]):
            await anyio.sleep(3600)
    assert anyio.current_time() - start == pytest.approx(7.0)


async def test_an_expectation_after_the_end_says_so() -> None:
    async with fake_session() as (session, peer):
        await session.close()
        assert isinstance(await peer.expect(Close), Close)
        with pytest.raises(AssertionError, match="but the session was ended"):
            await peer.expect(Commit)


async def test_the_block_s_own_failure_comes_out_first() -> None:
    with pytest.raises(Boom):
        async with fake_session([steps.expect(Commit)]):
            raise Boom


async def test_a_failed_script_goes_before_what_it_made_of_the_block() -> None:
    def boom(peer: FakePeer) -> None:
        raise Boom

    with pytest.raises(Boom):
        async with fake_session([boom]):
            try:
                await anyio.sleep(3600)
            finally:
                raise ZeroDivisionError


async def test_cancelling_the_block_cancels_the_script() -> None:
    with anyio.move_on_after(1.0) as scope:
        async with fake_session([steps.wait(3600)]):
            await anyio.sleep(3600)
    assert scope.cancelled_caught


async def test_a_script_that_still_talks_when_the_client_leaves_has_not_failed() -> None:
    async with fake_session([steps.say(bytes(480_000), pace=1.0)]) as (session, _):
        await session.receive()
    async with fake_session([steps.wait(1.0), steps.call_tool("f"), steps.say(PCM)]) as (session, _):
        await session.close()
        await anyio.sleep(2.0)
    # One that was called before the session ended, and a reaction that outlives the script's own close.
    async with fake_session([steps.call_tool("f")]) as (session, _):
        await session.receive()
    talking = steps.on_commit(steps.say(bytes(480_000), pace=1.0))
    async with fake_session([talking, steps.wait(1.0), steps.stall(), steps.close(), steps.wait(1.0)]) as (
        s,
        _,
    ):
        await s.commit()
        await anyio.sleep(1.5)


async def test_a_gateway_can_not_say_what_the_protocol_forbids() -> None:
    async with fake_session() as (_, peer):
        for frame in (READY, Expiring(1.0)):
            with pytest.raises(ValueError, match="leave it out"):
                peer.send(frame)
        with pytest.raises(LocalProtocolError):
            peer.send(Audio(b"odd", 24_000))
        with pytest.raises(LocalProtocolError):
            peer.close(1006)


async def test_a_peer_of_its_own_has_no_stage() -> None:
    with pytest.raises(RuntimeError, match="fake_session"):
        FakePeer().on(Commit)
    with pytest.raises(RuntimeError, match="fake_session"):
        FakePeer().delay(1.0)


# What goes wrong


async def test_a_dropped_connection() -> None:
    async with fake_session([steps.expect(Commit), steps.drop()]) as (session, _):
        await session.commit()
        frames = await frames_of(session)
        assert isinstance(frames[-1], Close)
        assert (frames[-1].code, frames[-1].initiated_by) == (1006, "transport")


async def test_a_reset_connection() -> None:
    async with fake_session([steps.expect(Commit), steps.reset()]) as (session, _):
        await session.commit()
        await frames_of(session)
        with pytest.raises(ConnectionClosed) as caught:
            await session.commit()
        assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)


async def test_sends_that_fail() -> None:
    async with fake_session() as (session, peer):
        peer.send(Audio(PCM, 24_000))
        await anyio.wait_all_tasks_blocked()
        peer.fail_sends()
        with pytest.raises(ConnectionClosed):
            await session.commit()
        assert [type(frame) for frame in await frames_of(session)] == [Ready, Audio, Close]


async def test_a_stalled_connection_goes_on_when_it_is_resumed() -> None:
    script = [steps.stall(receiving=False), steps.wait(3.0), steps.resume(), steps.expect(Commit)]
    async with fake_session(script) as (session, _):
        start = anyio.current_time()
        await session.commit()
        assert anyio.current_time() - start == pytest.approx(3.0)
        assert await frames_of(session) == [READY, Close(1000, "", "remote")]
    silence = [steps.stall(sending=False), steps.send(Usage(1, 2)), steps.wait(3.0), steps.resume()]
    async with fake_session(silence) as (session, _):
        await session.receive()
        start = anyio.current_time()
        assert await session.receive() == Usage(1, 2)
        assert anyio.current_time() - start == pytest.approx(3.0)


async def test_a_connection_that_stays_stalled_ends_by_the_keepalive() -> None:
    async with fake_session(
        [steps.stall(), steps.wait(3600)], within=7200, ping_interval=5.0, ping_timeout=5.0
    ) as (
        session,
        _,
    ):
        frames = await frames_of(session)
        assert isinstance(frames[-1], Close)
        assert frames[-1].initiated_by == "transport"


async def test_delivery_byte_by_byte_and_late_changes_nothing_but_time() -> None:
    frames: list[Frame] = [Audio(PCM, 24_000), Transcript("user", "hé", True), Usage(1, 2)]
    script = [steps.deliver(1), steps.delay(2.0), steps.send(*frames), steps.delay(0.5), steps.send(*frames)]
    async with fake_session(script) as (session, _):
        assert await session.receive() == READY
        start = anyio.current_time()
        # The second batch can't overtake the first: the order stays.
        assert await frames_of(session) == [*frames, *frames, Close(1000, "", "remote")]
        assert anyio.current_time() - start == pytest.approx(2.0)


@pytest.mark.parametrize("message", ['{"t": "transcript"', "[]", '{"t": "transcript", "final": 1}'])
async def test_a_malformed_message_is_the_peer_s_fault(message: str) -> None:
    async with fake_session() as (session, peer):
        peer.send(Usage(1, 2))
        peer.malformed(message)
        assert await session.receive() == READY
        assert await session.receive() == Usage(1, 2)
        assert isinstance(await session.receive(), Close)
        with pytest.raises(RemoteProtocolError):
            await session.receive()
    assert peer.said()[-1] == Close(1007, peer.said()[-1].reason, "remote")  # type: ignore[union-attr]


async def test_a_message_cut_short_gives_nothing_of_itself() -> None:
    async with fake_session([steps.truncate()]) as (session, _):
        assert [type(frame) for frame in await frames_of(session)] == [Ready, Close]


# A whole Speko


async def application(speko: Speko) -> list[str]:
    async with speko.realtime.connect(
        provider="openai", model="gpt-realtime-2.1", input_sample_rate=16_000
    ) as session:
        await session.send_audio(PCM)
        await session.commit()
        return [frame.text async for frame in session if isinstance(frame, Transcript)]


async def test_an_application_that_opens_its_own_sessions() -> None:
    gateway = FakeGateway([steps.expect(Commit), steps.transcript("assistant", "hi")])
    async with gateway.speko() as speko:
        assert await application(speko) == ["hi"]
        assert await application(speko) == ["hi"]
    assert [request.s2s.model for request in gateway.minted] == ["gpt-realtime-2.1"] * 2
    first, second = gateway.sessions
    assert first.said() == second.said() == [Commit()]
    assert first.config is not None
    assert first.core.input_sample_rate == first.config.input_sample_rate == 16_000
    with pytest.raises(AssertionError, match="2 sessions"):
        _ = gateway.session
    gateway.check()


async def test_a_grant_opens_one_session() -> None:
    gateway = FakeGateway()
    async with gateway.speko() as speko:
        grant = await speko.realtime.create_session(provider="p", model="m")
        async with speko.realtime.open(grant) as session:
            assert session.session_id == grant.session_id
        with pytest.raises(HandshakeError, match="401") as caught:
            async with speko.realtime.open(grant):
                raise AssertionError("opened")
    assert caught.value.status == 401
    assert gateway.session.said() == [Close(1000, "client_closed", "remote")]


async def test_a_mint_that_refuses() -> None:
    gateway = FakeGateway([steps.transcript("assistant", "hi")])
    async with gateway.speko(max_retries=1) as speko:
        start = anyio.current_time()
        gateway.refuse(429, "RATE_LIMITED", retry_after=3)
        await speko.realtime.create_session(provider="p", model="m")
        assert anyio.current_time() - start == pytest.approx(3.0)
        gateway.refuse(429, times=2)
        with pytest.raises(RateLimitError):
            await speko.realtime.create_session(provider="p", model="m")
        gateway.refuse(418, "TEAPOT", "short and stout")
        with pytest.raises(APIStatusError, match="short and stout"):
            await speko.realtime.create_session(provider="p", model="m")
    other = Speko("another key", "http://speko.test", http_client=gateway)
    with pytest.raises(AuthenticationError):
        await other.realtime.create_session(provider="p", model="m")
    assert len(gateway.minted) == 1


async def test_a_failure_that_the_application_swallows_is_raised_by_the_check() -> None:
    gateway = FakeGateway([steps.expect(Clear)])
    async with gateway.speko() as speko:
        with pytest.raises(AssertionError, match="expected Clear"):
            await application(speko)
    with pytest.raises(AssertionError, match="expected Clear"):
        gateway.check()


async def test_an_application_that_makes_its_own_speko(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEKO_API_KEY", raising=False)
    script = [steps.expect(Commit), steps.transcript("assistant", "hi")]
    with FakeGateway(script).installed() as gateway:
        async with Speko("a real key", "https://api.example", timeout=3.0) as speko:
            assert await application(speko) == ["hi"]
        assert await application(Speko()) == ["hi"]
    assert len(gateway.sessions) == 2
    with pytest.raises(MissingAPIKeyError):
        Speko()


async def post(gateway: FakeGateway, body: bytes) -> tuple[int, dict[str, Any]]:
    response = await gateway.request(
        "POST",
        f"{BASE_URL}/v1/sessions",
        content=body,
        headers={"Authorization": f"Bearer {API_KEY}"},
        timeout=1.0,
        follow_redirects=False,
    )
    return response.status_code, response.json()


async def test_the_mint_takes_what_a_real_one_takes_and_refuses_the_rest_as_it_does() -> None:
    gateway = FakeGateway()
    s2s = b'"mode":"s2s","s2s":{"provider":"openai","model":"m"}'
    for body in (
        b"\xef\xbb\xbf{%b}" % s2s,
        b'{%b,"ttlSeconds":60.0}' % s2s,
        b'{%b,"metadata":{"a":"x\\ud83d"}}' % s2s,
    ):
        status, _ = await post(gateway, body)
        assert status == 201
    assert [request.ttl_seconds for request in gateway.minted] == [None, 60, None]
    for body, words in (
        (b'{%b,"agentId":"\xed\xa0\xbd"}' % s2s, "the request's body is not JSON"),
        (b'{%b,"ttlSeconds":0}' % s2s, "the request is not valid: `$.ttlSeconds` must be 1 or more"),
        (b'{"mode":"s2s"}', "the request is not valid: Object missing required field `s2s`"),
    ):
        status, refusal = await post(gateway, body)
        assert (status, refusal["code"]) == (400, "VALIDATION_ERROR")
        assert refusal["error"].startswith(words)
    assert len(gateway.minted) == 3
