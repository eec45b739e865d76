"""`answer_call`: a carrier's calls joined to sessions, on virtual time."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from speko_anyio import (
    Audio,
    Close,
    ConfigurationError,
    HandshakeError,
    Interruption,
    PhoneCall,
    RealtimeSession,
    RemoteProtocolError,
    ResponseEnd,
    answer_call,
)
from speko_anyio.client._phone import CLOSE_TIMEOUT, START_TIMEOUT
from speko_anyio.protocol import TextIn
from speko_anyio.telephony import CallEnded
from speko_anyio.testing import (
    VIRTUAL_BACKENDS,
    CarrierSocket,
    FakeCarrier,
    FakePeer,
    fake_session,
    stream_pair,
    virtual_backend,
)
from speko_anyio.testing.providers import Say, tone
from tests.support.accounts import DOUBLES, KEY, KINDS, MODELS, NAMES
from tests.support.phone import WholeCall, call_through

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Joined:
    """A call that is joined to a session with a peer in memory."""

    def __init__(
        self, carrier: FakeCarrier, call: PhoneCall, session: RealtimeSession, peer: FakePeer
    ) -> None:
        self.carrier = carrier
        self.call = call
        self.session = session
        self.peer = peer
        self.over = anyio.Event()
        """The call is no longer joined."""
        self.error: BaseException | None = None

    async def end(self) -> BaseException | None:
        """Wait until it is over; return what `join` raised."""
        with anyio.fail_after(60):
            await self.over.wait()
        return self.error

    def must_wait(self) -> bool:
        assert self.call._bridge is not None
        return self.call._bridge.session_must_wait

    def say(self, seconds: float) -> bytes:
        """Let the peer say something; return it."""
        pcm = tone(seconds, 8000)
        self.peer.send(Audio(pcm, 8000), ResponseEnd("done"))
        return pcm


@asynccontextmanager
async def joined(
    *,
    wrap: Callable[[Any], Any] = lambda socket: socket,
    on_digit: Any = None,
    peer: FakePeer | None = None,
    carrier: Any = "twilio",
) -> AsyncGenerator[Joined, None]:
    peer = peer or FakePeer(input_sample_rate=8000, output_sample_rate=8000)
    with anyio.fail_after(600):
        async with FakeCarrier(carrier) as line, anyio.create_task_group() as tasks:
            async with answer_call(wrap(line.ring()), carrier) as call:
                async with fake_session(peer=peer, within=600) as (session, _):
                    both = Joined(line, call, session, peer)

                    async def join() -> None:
                        try:
                            await call.join(session, on_digit=on_digit)
                        except Exception as error:  # noqa: BLE001 - returned by `end`
                            both.error = error
                        both.over.set()

                    tasks.start_soon(join)
                    yield both
                    await both.end()


# Whole calls


@pytest.mark.parametrize("name", NAMES)
async def test_a_whole_call_with_a_provider(name: str) -> None:
    """A greeting, two turns, an interruption, keys, and the caller hangs up."""
    said = [Say("Hello.", 1.0), Say("One.", 1.2), Say("Two.", 1.4), Say("A long story.", 30.0)]
    double = DOUBLES[name]([*said, Say("Yes?", 0.6), Say("Twelve.", 0.7)], api_key=KEY)
    ours, theirs = stream_pair()
    ended: list[Close | CallEnded | None] = []
    wholes: list[WholeCall] = []

    async def answer(socket: CarrierSocket) -> None:
        async with answer_call(socket, "twilio") as call:
            async with KINDS[name](KEY).connect(model=MODELS[name], stream=ours) as session:
                await session.respond("Greet the caller.")
                await call.join(session)
            ended.extend((session.closed, call.ended))

    with anyio.fail_after(300):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(double.handle, theirs)
            async with FakeCarrier("twilio") as carrier, anyio.create_task_group() as calls:
                calls.start_soon(answer, carrier.ring())
                wholes.append(await call_through(carrier, [tone(0.5, 8000)] * 4))
            tasks.cancel_scope.cancel()
    (whole,) = wholes
    lengths = [len(pcm) / 16_000 for pcm in (whole.greeting, *whole.answers)]
    assert lengths == pytest.approx([1.0, 1.2, 1.4, 0.6, 0.7], abs=0.002)
    assert whole.played == pytest.approx(1.6, abs=0.15)
    assert ended == [Close(1000, "caller_hung_up", "local"), CallEnded()]
    assert double.session.closed is not None
    assert double.session.closed[0] == 1000
    if name != "google":  # it is not told
        _, heard = double.session.truncations[-1]
        assert heard / 1000 == pytest.approx(whole.played, abs=0.02)


# The end, in any phase


async def test_the_caller_hangs_up() -> None:
    async with joined() as both:
        both.say(20)
        await both.carrier.wait_played(3)
        await both.carrier.hang_up()
        assert await both.end() is None
        assert both.session.closed == Close(1000, "caller_hung_up", "local")
        assert both.call.ended == CallEnded()
        assert both.peer.said()[-1] == Close(1000, "caller_hung_up", "remote")


async def test_the_carriers_websocket_is_lost() -> None:
    async with joined() as both:
        await both.carrier.hang_up(1006, stop=False)
        assert await both.end() is None
        assert both.session.closed == Close(1000, "line_lost", "local")


@pytest.mark.parametrize("carrier", ["telnyx", "plivo", "vonage"])
async def test_the_other_carriers_call_too(carrier: Any) -> None:
    async with joined(carrier=carrier) as both:
        assert both.call.started.carrier == carrier
        answer = both.say(1)
        await both.carrier.say(tone(0.2, both.carrier.sample_rate))
        heard = await both.carrier.listen()
        assert len(heard) / both.carrier.sample_rate == pytest.approx(len(answer) / 8000, abs=0.4)
        await both.carrier.press("7#")
        await both.peer.expect(TextIn("7", "user", respond=True))
        both.say(9)
        await both.carrier.wait_playing()
        await both.carrier.wait_played(both.carrier.played + 1)
        both.peer.send(Interruption("user"))
        await both.carrier.wait_quiet(0.1)
        assert both.carrier.answers[-1].played == pytest.approx(1, abs=0.05)
        await both.carrier.hang_up()
        assert await both.end() is None
        assert both.session.closed == Close(1000, "caller_hung_up", "local")


async def test_the_caller_hangs_up_before_the_call_starts() -> None:
    async with FakeCarrier("twilio") as carrier:
        socket = carrier.ring()
        await socket.accept()
        await carrier.hang_up()
        while isinstance(carrier._to_application._sent[0].message, str):
            await socket.receive()
        with pytest.raises(HandshakeError, match="twilio closed the WebSocket before the call started; the"):
            async with answer_call(Accepted(socket), "twilio"):
                raise AssertionError("nobody calls")


def unready() -> FakePeer:
    """A peer that accepts the WebSocket, and says nothing from then on."""
    peer = FakePeer(input_sample_rate=8000, output_sample_rate=8000)
    peer.greet = peer.core.accept
    return peer


async def test_the_caller_hangs_up_before_the_session_is_ready() -> None:
    async with joined(peer=unready()) as both:
        await anyio.sleep(2)
        await both.carrier.hang_up()
        assert await both.end() is None
        assert both.session.closed == Close(1000, "caller_hung_up", "local")


async def test_a_session_that_does_not_become_ready_is_an_error() -> None:
    async with joined(peer=unready()) as both:
        error = await both.end()
        assert isinstance(error, HandshakeError)
        assert "the service was not ready within" in str(error)


async def test_the_callers_first_words_wait_for_a_session_that_is_slow() -> None:
    peer = unready()
    async with joined(peer=peer) as both:
        await both.carrier.say(tone(1, 8000))
        peer.core.send_ready()
        peer.flush()
        await anyio.sleep(0.5)
        assert len(peer.audio()) == pytest.approx(1.5 * 16_000, rel=0.1)
        assert max(peer.audio()[:16_000]) > 0, "the words themselves"
        await both.carrier.hang_up()


async def test_the_session_ends_and_its_last_words_are_played() -> None:
    async with joined() as both:
        pcm = both.say(4)
        both.peer.close(1000, "goodbye")
        assert await both.carrier.wait_ended() == (1000, "")
        assert len(both.carrier.heard_audio()) == len(pcm)
        assert both.carrier.hung_up_by == "application"
        assert await both.end() is None
        assert both.session.closed == Close(1000, "goodbye", "remote")
        assert both.call.ended is None


async def test_the_program_ends_the_session() -> None:
    async with joined() as both:
        both.say(2)
        await both.carrier.wait_playing()
        await both.session.close()
        assert await both.carrier.wait_ended() == (1000, "")
        assert len(both.carrier.heard_audio()) == 32_000


async def test_the_service_breaks_its_protocol() -> None:
    async with joined() as both:
        both.say(1)
        await both.carrier.wait_playing()
        both.peer.malformed()
        error = await both.end()
        assert isinstance(error, RemoteProtocolError)
        assert len(both.carrier.heard_audio()) == 16_000
        assert (await both.carrier.wait_ended())[0] == error.close_code


async def test_the_carrier_breaks_its_protocol() -> None:
    async with joined() as both:
        both.carrier._to_application.send("nonsense")
        error = await both.end()
        assert isinstance(error, RemoteProtocolError)
        assert "twilio" in str(error)
        assert both.session.closed == Close(1000, "carrier_protocol_error", "local")
        assert (await both.carrier.wait_ended())[0] == error.close_code


async def test_a_session_that_is_over_ends_the_call() -> None:
    async with FakeCarrier("twilio") as carrier:
        async with answer_call(carrier.ring(), "twilio") as call:
            async with fake_session(within=60) as (session, _):
                await session.close()
                assert [type(frame) async for frame in session][-1] is Close
                with anyio.fail_after(60):
                    await call.join(session)
        assert await carrier.wait_ended() == (1000, "")


async def test_a_call_is_joined_once() -> None:
    async with joined() as both:
        await anyio.sleep(1)
        with pytest.raises(RuntimeError, match="joined to one session, once; answer the next call"):
            await both.call.join(both.session)
        await both.carrier.hang_up()


# The block of answer_call


async def test_leaving_the_block_hangs_up() -> None:
    async with FakeCarrier("twilio") as carrier:
        async with answer_call(carrier.ring(parameters={"tier": "gold"}), "twilio") as call:
            assert call.started.carrier == "twilio"
            assert call.started.parameters == {"tier": "gold"}
            assert call.ended is None
            assert repr(call) == f"<PhoneCall twilio {call.started.call_id}>"
        assert await carrier.wait_ended() == (1000, "")


async def test_an_error_in_the_block_hangs_up_and_comes_out() -> None:
    async with FakeCarrier("twilio") as carrier:
        with pytest.raises(ZeroDivisionError):
            async with answer_call(carrier.ring(), "twilio"):
                raise ZeroDivisionError
        assert await carrier.wait_ended() == (1011, "")


async def test_a_cancelled_block_hangs_up() -> None:
    async with FakeCarrier("twilio") as carrier:
        with anyio.move_on_after(1) as scope:
            async with answer_call(carrier.ring(), "twilio"):
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert await carrier.wait_ended() == (1001, "")


class Wrapped:
    """A socket with a fault."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def accept(self) -> None:
        await self._socket.accept()

    async def receive(self) -> MutableMapping[str, Any]:
        message: MutableMapping[str, Any] = await self._socket.receive()
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self._socket.send(message)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        await self._socket.close(code, reason)


class Accepted(Wrapped):
    """A socket that the application has accepted, as Starlette's says it."""

    class _State:
        name = "CONNECTED"

    application_state = _State()

    async def accept(self) -> None:
        raise RuntimeError("it is accepted already")


async def test_a_websocket_may_be_accepted_already() -> None:
    async with FakeCarrier("twilio") as carrier:
        socket = carrier.ring()
        await socket.accept()
        async with answer_call(Accepted(socket), "twilio") as call:
            assert call.started.call_id


async def test_a_carrier_that_does_not_start_the_call() -> None:
    class Silent(Wrapped):
        async def receive(self) -> MutableMapping[str, Any]:
            await anyio.sleep_forever()
            raise AssertionError

    async with FakeCarrier("twilio") as carrier:
        began = anyio.current_time()
        with pytest.raises(HandshakeError, match="twilio did not start the call within 10 s; use the URL"):
            async with answer_call(Silent(carrier.ring()), "twilio"):
                raise AssertionError("nobody calls")
        assert anyio.current_time() - began == pytest.approx(START_TIMEOUT, abs=0.1)
        assert (await carrier.wait_ended())[0] == 1011


async def test_a_flood_instead_of_a_start_ends_at_once() -> None:
    class Flood(Wrapped):
        async def receive(self) -> MutableMapping[str, Any]:
            return {"type": "websocket.receive", "text": '{"event":"connected"}'}  # without any wait

    async with FakeCarrier("twilio") as carrier:
        with pytest.raises(HandshakeError, match="twilio did not start the call within 64 messages"):
            async with answer_call(Flood(carrier.ring()), "twilio"):
                raise AssertionError("nobody calls")
        assert (await carrier.wait_ended())[0] == 1011


async def test_a_websocket_that_can_not_be_accepted() -> None:
    class Gone(Wrapped):
        async def accept(self) -> None:
            raise OSError("broken pipe")

    socket: Any = None
    with pytest.raises(HandshakeError, match="the WebSocket of twilio could not be accepted") as caught:
        async with answer_call(Gone(socket), "twilio"):
            raise AssertionError("nobody calls")
    assert isinstance(caught.value.__cause__, OSError)


async def test_an_unknown_carrier() -> None:
    socket: Any = None
    with pytest.raises(ConfigurationError, match=r"unknown carrier 'twillio'; choose from .*twilio"):
        async with answer_call(socket, "twillio"):
            raise AssertionError("nobody calls")


async def test_what_is_no_websocket_is_told_before_anything_is_done() -> None:
    socket: Any = object()
    with pytest.raises(TypeError, match=r"takes the WebSocket of FastAPI or Starlette .*, not object"):
        async with answer_call(socket):
            raise AssertionError("nobody calls")


async def test_what_is_no_session_is_not_joined() -> None:
    async with FakeCarrier() as line, answer_call(line.ring()) as call:
        session: Any = object()
        with pytest.raises(TypeError, match="join takes an open session, not object; write `async with"):
            await call.join(session)
        assert call.ended is None


async def test_the_close_has_a_deadline() -> None:
    class NeverCloses(Wrapped):
        async def close(self, code: int = 1000, reason: str | None = None) -> None:
            await anyio.sleep_forever()

    async with FakeCarrier("twilio") as carrier:
        async with answer_call(NeverCloses(carrier.ring()), "twilio"):
            began = anyio.current_time()
        assert anyio.current_time() - began == pytest.approx(CLOSE_TIMEOUT, abs=0.1)


async def test_the_carriers_last_message_counts_though_its_websocket_takes_nothing_more() -> None:
    class Broken(Wrapped):
        async def send(self, message: MutableMapping[str, Any]) -> None:
            raise OSError("gone")

    async with joined(wrap=Broken) as both:
        both.say(1)
        await anyio.sleep(0.5)
        await both.carrier.hang_up()
        assert await both.end() is None
        assert both.session.closed == Close(1000, "caller_hung_up", "local")
    async with joined(wrap=Broken) as both:
        both.say(1)
        assert await both.end() is None
        assert both.session.closed == Close(1000, "line_lost", "local")


# A line that is full


class Slow(Wrapped):
    """A socket whose network has stalled, until `flows` is set."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self.flows = anyio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.flows.wait()
        await super().send(message)


async def test_a_long_answer_waits_in_the_session_and_an_interruption_acts_at_once() -> None:
    async with joined() as both:
        for _ in range(150):
            both.peer.send(Audio(tone(1, 8000), 8000))
        await both.carrier.wait_played(3.5)  # the line has room again at the next whole second
        assert both.must_wait()
        both.peer.send(Interruption("user"))
        await anyio.lowlevel.checkpoint()
        await both.carrier.wait_quiet(0.1)
        assert both.carrier.clears == [pytest.approx(3.5, abs=0.05)]
        assert not both.must_wait()
        answer = both.say(0.5)
        assert len(await both.carrier.listen()) == len(answer)
        await both.carrier.hang_up()


async def test_a_network_that_stalls_loses_nothing() -> None:
    sockets: list[Slow] = []

    def wrap(socket: Any) -> Slow:
        sockets.append(Slow(socket))
        return sockets[0]

    async with joined(wrap=wrap) as both:
        answer = both.say(5)
        await anyio.sleep(3)
        assert both.carrier.played == 0
        sockets[0].flows.set()
        assert len(await both.carrier.listen()) == len(answer)
        await both.carrier.hang_up()


async def test_a_call_whose_socket_takes_nothing_ends_with_its_session() -> None:
    async with joined(wrap=Slow) as both:
        both.say(5)
        both.peer.close(1000, "")
        assert await both.end() is None


# Keys


async def test_keys_become_a_text_that_is_answered() -> None:
    async with joined() as both:
        await both.carrier.press("12#")
        assert await both.peer.expect(TextIn) == TextIn("12", "user", respond=True)
        await both.carrier.press("3")
        assert await both.peer.expect(TextIn) == TextIn("3", "user", respond=True)
        await both.carrier.hang_up()


async def test_keys_go_to_a_function() -> None:
    pressed: list[str] = []
    async with joined(on_digit=pressed.append) as both:
        await both.carrier.press("1#")
        await both.carrier.hang_up()
        await both.end()
        assert pressed == ["1", "#"]
        assert not any(isinstance(command, TextIn) for command in both.peer.commands)


async def test_keys_go_to_an_async_function_one_at_a_time_and_speech_does_not_wait() -> None:
    pressed: list[str] = []

    async def slow(digit: str) -> None:
        await anyio.sleep(2)
        pressed.append(digit)

    async with joined(on_digit=slow) as both:
        await both.carrier.press("12")
        await anyio.sleep(1.5)
        assert len(both.peer.audio()) > 1.5 * 16_000
        await anyio.sleep(3)
        assert pressed == ["1", "2"]
        await both.carrier.hang_up()


async def test_an_error_of_that_function_comes_out() -> None:
    def fail(digit: str) -> None:
        raise ZeroDivisionError(digit)

    async with joined(on_digit=fail) as both:
        await both.carrier.press("7")
        assert isinstance(await both.end(), ZeroDivisionError)
        assert both.session.closed is None


async def test_that_function_may_find_out_that_the_session_is_over() -> None:
    async def send(digit: str) -> None:
        await anyio.sleep(0.5)
        await both.session.send_text(digit)

    async with joined(on_digit=send) as both:
        both.say(3)
        both.peer.close(1000, "")
        await both.carrier.press("7")
        assert await both.end() is None
        assert both.call.stats.dropped_digits == 0


async def test_a_session_that_takes_no_text_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    peer = FakePeer(input_sample_rate=8000, output_sample_rate=8000, extensions=())
    async with FakeCarrier("twilio") as carrier, anyio.create_task_group() as tasks:
        async with answer_call(carrier.ring(), "twilio") as call:
            async with fake_session(peer=peer, within=60) as (session, _):
                tasks.start_soon(call.join, session)
                await carrier.press("5#")
                await anyio.sleep(1)
                assert "does not take what the caller keyed in" in caplog.text
                before = len(peer.audio())
                await anyio.sleep(1)
                assert len(peer.audio()) > before
                await carrier.hang_up()
                await anyio.sleep(1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
