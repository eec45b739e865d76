"""The gateway's handlers of providers, in virtual time: doubles of the three at the other end of a stream."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from speko_anyio import XAI, GoogleOptions, OpenAI, OpenAIOptions, ToolSpec, XAIOptions
from speko_anyio._net.driver import Driver
from speko_anyio._net.stream_driver import READ_SIZE
from speko_anyio.errors import APIConnectionError, InternalError
from speko_anyio.gateway import ProviderHandler, ServerSession, default_handlers, serve_session
from speko_anyio.gateway import _provider_driver as provider_driver
from speko_anyio.gateway._meter import Meter
from speko_anyio.protocol import (
    Audio,
    ClientProtocol,
    Close,
    CloseMessage,
    ErrorFrame,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    Role,
    ToolCall,
    Transcript,
    Usage,
)
from speko_anyio.protocol.mint import SampleRate, SessionConfig
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.bridge._bridge import DEFAULT_BRIDGE_LIMITS
from speko_anyio.testing._streams import stream_pair
from speko_anyio.testing.providers import (
    CallTools,
    Die,
    Expire,
    Fail,
    GoAway,
    Hangup,
    Pace,
    ProviderDouble,
    RateLimit,
    Reply,
    ReplyStep,
    Say,
    Wait,
    tone,
)
from tests.support.accounts import DOUBLES, KINDS, MODELS, NAMES
from tests.support.drivers import EVERY_VIRTUAL_DRIVER, driven, driver_over

from .support import MemoryTransport

KEY = "sk-operators-own-key"
WEATHER = ToolSpec(
    name="get_weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}}
)
PROMPT = Pace(latency=0.1, transcription=0.0)
"""The user's words come before the answer."""


@pytest.fixture(params=EVERY_VIRTUAL_DRIVER)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return driven(request.param, monkeypatch)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def double_of(name: str, *replies: Reply, **how: Any) -> ProviderDouble[Any]:
    how.setdefault("api_key", KEY)
    how.setdefault("pace", PROMPT)
    return DOUBLES[name](replies, user_says=["What is the weather?"], **how)


class Client:
    """The session's client, at the other end of a transport in memory."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.core = transport.client
        self.heard: list[Frame] = []
        self.meter = Meter()
        self.session: ServerSession

    def say(self, verb: Callable[..., None], *args: Any) -> None:
        verb(*args)
        self.transport.flush()

    async def begin(self) -> None:
        """Receive `Ready`, and accept the extensions that it offers."""
        await self.hear(is_a(Ready))
        self.transport.flush()

    def ask(self, seconds: float = 0.4) -> None:
        """A turn of the user's."""
        self.say(self.core.send_audio, tone(seconds, self.core.input_sample_rate))
        self.say(self.core.commit)

    async def hear(self, *wanted: Callable[[Frame], bool]) -> list[Frame]:
        """The frames up to the one with which each of `wanted` has been true of some frame."""
        frames, missing = [], list(wanted)
        while missing:
            frame = await self.transport.hear()
            frames.append(frame)
            self.heard.append(frame)
            missing = [test for test in missing if not test(frame)]
        return frames


def is_a(*kinds: type[Any]) -> Callable[[Frame], bool]:
    return lambda frame: isinstance(frame, kinds)


def said(role: Role, text: str) -> Callable[[Frame], bool]:
    return lambda frame: frame == Transcript(role, text, True)


class Network:
    """Where the handler's connections go: to a double, or nowhere, for so many times that it is `down`; or
    nobody answers, when it is `stuck` at that step."""

    def __init__(self, double: ProviderDouble[Any], tasks: TaskGroup, *, down: int, stuck: str) -> None:
        self.double = double
        self.down = down
        self.stuck = stuck
        self.dialled = 0
        self._tasks = tasks

    async def dial(self, where: object, **how: object) -> Driver:
        self.dialled += 1
        if self.stuck == "connecting":
            await anyio.sleep_forever()
        if self.down > 0:
            self.down -= 1
            raise APIConnectionError("provider.test:443 can't be reached (down); check the network")
        ours, theirs = stream_pair()
        self.stream = ours
        if self.stuck != "handshake":
            self._tasks.start_soon(self.double.handle, theirs)
        return driver_over(ours)


@asynccontextmanager
async def served(
    name: str,
    double: ProviderDouble[Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    rate: SampleRate = 24000,
    down: int = 0,
    stuck: str = "",
    config: dict[str, Any] | None = None,
    options: Any = None,
    metadata: dict[str, Any] | None = None,
    models: dict[str, str] | list[str] | None = None,
    offered: bool = False,
) -> AsyncGenerator[tuple[Client, Network], None]:
    """A session that is served by `double` through the handler; both are gone when the block is left.

    `offered`: whether the client is offered what the handler takes beside speech.
    """
    how = {} if options is None else {"options": options}
    handler = ProviderHandler(KINDS[name](KEY, **how), models=models)
    session_config = SessionConfig(
        provider=name,
        **{"model": MODELS[name], "tools": (WEATHER,), **(config or {})},
        input_sample_rate=rate,
        output_sample_rate=rate,
    )
    transport = MemoryTransport()
    transport.client = ClientProtocol(input_sample_rate=rate, output_sample_rate=rate)
    client = Client(transport)

    async def serve() -> None:
        async with serve_session(
            transport,
            session_id="s1",
            config=session_config,
            metadata=metadata,
            meter=client.meter,
            capabilities=handler.capabilities(session_config) if offered else None,
        ) as session:
            client.session = session
            await handler(session)

    try:
        with anyio.fail_after(600):
            async with anyio.create_task_group() as network_tasks:
                network = Network(double, network_tasks, down=down, stuck=stuck)
                monkeypatch.setattr(provider_driver, "dial", network.dial)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve)
                    yield client, network
                    if client.core.closed is None:
                        client.say(client.core.close)
                        transport.say(CloseMessage(1000, ""))
                network_tasks.cancel_scope.cancel()
    finally:
        transport.stop()
    assert KEY not in repr(client.heard)


def sent_of(double: ProviderDouble[Any], kind: str) -> list[dict[str, Any]]:
    return [message for message in double.session.received if message.get("type") == kind]


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.anyio
async def test_a_conversation_at_either_rate(
    name: str, rate: SampleRate, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, Say("It is sunny.", 0.5))
    async with served(name, double, monkeypatch, rate=rate) as (client, _):
        client.ask()
        frames = await client.hear(
            is_a(Usage), said("user", "What is the weather?"), said("assistant", "It is sunny.")
        )
    assert frames[0] == Ready(rate, rate, ("usage",))
    audio = [frame for frame in frames if isinstance(frame, Audio)]
    assert {frame.sample_rate for frame in audio} == {rate}
    assert sum(len(frame.pcm) for frame in audio) == pytest.approx(rate * 2 * 0.5, abs=8)
    assert double.session.closed == (1000, "")


@pytest.mark.anyio
async def test_parallel_tool_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = CallTools([("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})])
    double = double_of(name, calls, Say("Sunny in both.", 0.2))
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        seen: list[ToolCall] = []

        def both(frame: Frame) -> bool:
            if isinstance(frame, ToolCall):
                seen.append(frame)
            return len(seen) == 2

        await client.hear(both)
        for call in reversed(seen):
            city = json.loads(call.arguments)["city"]
            client.say(client.core.send_tool_result, call.call_id, f"sunny in {city}")
        await client.hear(said("assistant", "Sunny in both."))
    received = json.dumps(double.session.received)
    assert received.count("sunny in Oslo") == 1
    assert received.count("sunny in Rome") == 1


@pytest.mark.anyio
async def test_speech_over_the_answer_interrupts_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("A long story.", 8.0))
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        started = anyio.current_time()
        await anyio.sleep(0.25)
        client.say(client.core.send_audio, tone(0.4, 24_000))
        await client.hear(is_a(Interruption))
        elapsed = round((anyio.current_time() - started) * 1000)
    assert client.heard[-1] == Interruption("user")
    if name != "google":  # whose history can't be corrected
        (truncation,) = sent_of(double, "conversation.item.truncate")
        assert truncation["audio_end_ms"] == pytest.approx(elapsed, abs=2)


@pytest.mark.anyio
async def test_an_interruption_by_the_client(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("A long story.", 8.0), Say("Yes?", 0.2))
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        client.say(client.core.interrupt)
        await client.hear(is_a(Interruption))
        await anyio.sleep(4)  # Gemini goes on, unheard
        client.ask()
        frames = await client.hear(said("assistant", "Yes?"))
    assert Interruption("assistant") in client.heard
    assert sum(len(frame.pcm) for frame in frames if isinstance(frame, Audio)) <= 24_000 * 2 * 0.2


@pytest.mark.anyio
async def test_an_interruption_overtakes_what_a_slow_client_has_not_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, Say("A long story.", 20.0))
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        client.transport.writable = anyio.Event()
        await anyio.sleep(2)  # all of the answer is here, and nobody takes it
        client.say(client.core.interrupt)
        await anyio.sleep(1)
        client.transport.writable.set()
        frames = await client.hear(is_a(Interruption))
    unstoppable = 2  # one in the transport, one on its way to it
    assert len([frame for frame in frames if isinstance(frame, Audio)]) <= unstoppable


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_holds_up_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai", Say("A very long story.", 60.0), pace=Pace(speed=1000.0))
    async with served("openai", double, monkeypatch) as (client, network):
        client.ask()
        await client.hear(is_a(Audio))
        client.transport.writable = anyio.Event()
        await anyio.sleep(300)  # longer than any keepalive has patience
        assert not network.stream.receiving
        limit = DEFAULT_BRIDGE_LIMITS.to_client
        # The limit counts an overhead for each message, since tiny ones take much more than their bytes.
        assert limit < client.session._core.queued_memory < limit + 2 * READ_SIZE
        assert client.session.buffered[1] > limit * 0.9
        client.transport.writable.set()
        frames = await client.hear(said("assistant", "A very long story."), is_a(Usage))
    assert not [frame for frame in frames if isinstance(frame, ErrorFrame)]
    total = sum(len(frame.pcm) for frame in client.heard if isinstance(frame, Audio))
    assert total == 60 * 24_000 * 2


@pytest.mark.anyio
async def test_a_provider_that_takes_nothing_holds_up_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai")
    async with served("openai", double, monkeypatch) as (client, network):
        await client.begin()
        await anyio.sleep(1)
        network.stream.outgoing.stall()
        for _ in range(60):
            client.say(client.core.send_audio, bytes(24_000 * 2))  # a second of silence: no event answers it
        await anyio.sleep(1)
        assert client.session.buffered[0] > DEFAULT_BRIDGE_LIMITS.to_provider / 2
        network.stream.outgoing.resume()
        await anyio.sleep(1)
        assert client.session.buffered[0] == 0
        pieces = [message["audio"] for message in sent_of(double, "input_audio_buffer.append")]
    assert sum(len(b64decode(piece)) for piece in pieces) == 60 * 24_000 * 2


@pytest.mark.anyio
async def test_a_provider_that_dies_ends_the_session_with_a_clear_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, [Say("Well.", 0.2), Die()], then=Die())
    options = {"google": GoogleOptions(resumption=False)}.get(name)
    async with served(name, double, monkeypatch, options=options) as (client, network):
        client.ask()
        frames = await client.hear(is_a(Close))
        assert network.dialled == 1
    assert frames[-2] == ErrorFrame(
        "PROVIDER_UNAVAILABLE", "the connection to the provider was lost (close code 1006); try again"
    )
    assert frames[-1] == Close(1011, "provider_unavailable", "remote")


def ends_of(frames: list[Frame]) -> list[ResponseEnd]:
    return [frame for frame in frames if isinstance(frame, ResponseEnd)]


@pytest.mark.anyio
async def test_each_answer_ends_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("First.", 0.2), Say("Second.", 0.2))
    async with served(name, double, monkeypatch) as (client, _):
        await client.begin()
        for text in ("First.", "Second."):
            client.ask()
            await client.hear(said("assistant", text), is_a(ResponseEnd))
            await anyio.sleep(3)
    assert ends_of(client.heard) == [ResponseEnd("done")] * 2


@pytest.mark.anyio
async def test_an_answer_that_dies_with_its_provider_ends_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, [Say("Well.", 0.2), Die()], then=Die())
    async with served(name, double, monkeypatch) as (client, _):
        await client.begin()
        client.ask()
        frames = await client.hear(is_a(ErrorFrame))
    assert [end.status for end in ends_of(frames)] == ["failed"]
    assert len(ends_of(client.heard)) == 1


@pytest.mark.anyio
async def test_a_call_that_waits_to_be_said_is_not_said_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = CallTools([("get_weather", {"city": "Oslo"})])
    double = double_of("openai", [Say("A long story.", 8.0), calls], pace=Pace(speed=1000.0))
    async with served("openai", double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        client.transport.writable = anyio.Event()
        await anyio.sleep(1)
        assert any("function_call" in json.dumps(event) for event in double.session.sent)
        client.say(client.core.interrupt)
        await anyio.sleep(1)
        client.transport.writable.set()
        await client.hear(is_a(Interruption))
        await anyio.sleep(1)
    assert not [frame for frame in client.heard if isinstance(frame, ToolCall)]


@pytest.mark.anyio
async def test_speech_that_waits_does_not_hold_up_a_close_by_the_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = double_of("openai", Say("A long story.", 8.0), pace=Pace(speed=1000.0))
    async with served("openai", double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        client.transport.writable = anyio.Event()
        await anyio.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.session.close, 1012, "the gateway is restarting")
            await anyio.sleep(1)
            client.transport.writable.set()
        frames = await client.hear(is_a(Close))
    assert len([frame for frame in frames if isinstance(frame, Audio)]) <= 1
    assert frames[-1] == Close(1012, "the gateway is restarting", "remote")


@pytest.mark.anyio
async def test_what_was_said_is_heard_before_the_close_of_a_provider_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = double_of("openai", [Say("A long story.", 8.0), Hangup(1000, "")], pace=Pace(speed=1000.0))
    async with served("openai", double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        client.transport.writable = anyio.Event()
        await anyio.sleep(100)  # longer than a client has to answer a close
        client.transport.writable.set()
        await client.hear(is_a(Close))
    total = sum(len(frame.pcm) for frame in client.heard if isinstance(frame, Audio))
    assert total == 8 * 24_000 * 2
    assert client.heard[-1] == Close(1000, "provider_closed", "remote")


@pytest.mark.anyio
async def test_gemini_is_resumed_and_the_client_does_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("google", [Say("First.", 0.2), GoAway(20.0)], Say("Second.", 0.2))
    async with served("google", double, monkeypatch) as (client, network):
        client.ask()
        await client.hear(said("assistant", "First."))
        await anyio.sleep(30)
        assert network.dialled == 2
        assert len(double.sessions) == 2
        client.ask()
        await client.hear(said("assistant", "Second."))
    assert not [frame for frame in client.heard if isinstance(frame, ErrorFrame)]
    assert "handle" in double.session.received[0]["setup"]["sessionResumption"]


@pytest.mark.anyio
async def test_what_is_lost_with_a_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("google", [Say("First of", 0.2), Die(after_ms=0.0)], Say("Second.", 0.2))
    async with served("google", double, monkeypatch) as (client, network):
        client.ask()
        frames = await client.hear(is_a(ErrorFrame))
        assert isinstance(frames[-1], ErrorFrame)
        assert frames[-1].code == "PROVIDER_RESPONSE_LOST"
        await anyio.sleep(1)
        client.ask()
        await client.hear(said("assistant", "Second."))
        assert network.dialled == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1008, "The operation was aborted."),
        (1000, "The operation was cancelled."),
        (1011, "Internal error encountered."),
    ],
)
@pytest.mark.anyio
async def test_a_call_goes_on_after_a_close_that_passes(
    code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(
        "google", [Say("First.", 0.2)], [Say("Second", 0.2), Hangup(code, words)], Say("Third.", 0.2)
    )
    async with served("google", double, monkeypatch) as (client, network):
        client.ask()
        await client.hear(said("assistant", "First."))
        await anyio.sleep(1)
        client.ask()
        await client.hear(
            lambda frame: isinstance(frame, ErrorFrame) and frame.code == "PROVIDER_RESPONSE_LOST"
        )
        await anyio.sleep(1)
        client.ask()
        await client.hear(said("assistant", "Third."))
        assert network.dialled == 2
    assert "handle" in double.session.received[0]["setup"]["sessionResumption"]


@pytest.mark.anyio
async def test_gemini_that_refuses_its_handle_begins_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("google", [Say("First.", 0.2), Wait(1.0), Die()], Say("Second.", 0.2))
    async with served("google", double, monkeypatch) as (client, network):
        client.ask()
        await client.hear(said("assistant", "First."))
        double._script.handles.clear()
        await client.hear(
            lambda frame: isinstance(frame, ErrorFrame) and frame.code == "PROVIDER_CONVERSATION_LOST"
        )
        await anyio.sleep(1)
        client.ask()
        await client.hear(said("assistant", "Second."))
        assert network.dialled == 3
    assert double.session.received[0]["setup"]["sessionResumption"] == {}


@pytest.mark.anyio
async def test_a_provider_that_is_down_for_a_moment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("Here.", 0.2))
    async with served(name, double, monkeypatch, down=2) as (client, network):
        client.ask()
        await client.hear(said("assistant", "Here."))
        assert network.dialled == 3
    assert not [frame for frame in client.heard if isinstance(frame, ErrorFrame)]


@pytest.mark.anyio
async def test_a_provider_that_is_down(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    double = double_of(name)
    async with served(name, double, monkeypatch, down=100) as (client, network):
        frames = await client.hear(is_a(Close))
        assert network.dialled == 4
    assert frames[1:] == [
        ErrorFrame("PROVIDER_UNAVAILABLE", "the provider can't be reached; try again"),
        Close(1011, "provider_unavailable", "remote"),
    ]
    assert "session s1: provider.test:443 can't be reached (down)" in caplog.text


def muted(double: ProviderDouble[Any], monkeypatch: pytest.MonkeyPatch, *, from_the_start: bool) -> None:
    """From now on it accepts every WebSocket, and answers nothing."""
    monkeypatch.setattr(double._session_type, "receive", lambda *args: None)
    if from_the_start:
        monkeypatch.setattr(double._session_type, "_opened", lambda *args: None)


MUTE = {
    "connecting": "provider_unavailable",
    "handshake": "provider_unavailable",
    "configuring": "provider_not_ready",
    "speaking": "provider_not_ready",
}


@pytest.mark.parametrize("step", MUTE)
@pytest.mark.anyio
async def test_a_provider_that_says_nothing(
    name: str, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    double = double_of(name)
    if step in ("configuring", "speaking"):
        muted(double, monkeypatch, from_the_start=step == "speaking")
    async with served(name, double, monkeypatch, stuck=step) as (client, _):
        started = anyio.current_time()
        client.ask()
        await anyio.sleep(19)
        frames = await client.hear(is_a(Close))
        assert anyio.current_time() - started < 25
    told, close = frames[-2:]
    assert isinstance(told, ErrorFrame)
    assert told.code == MUTE[step].upper()
    assert told.message.endswith("; try again")
    assert close == Close(1011, MUTE[step], "remote")


@pytest.mark.anyio
async def test_a_provider_that_says_nothing_when_it_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("google", [Say("First.", 0.2), Wait(1.0), Die()])
    async with served("google", double, monkeypatch) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
        muted(double, monkeypatch, from_the_start=True)
        await client.hear(is_a(ErrorFrame))
        await anyio.sleep(19)
        started = anyio.current_time()
        await client.hear(is_a(Close))
        assert anyio.current_time() - started < 5


@pytest.mark.anyio
async def test_a_wrong_key_is_the_operators_business(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    double = double_of(name, api_key="another")
    async with served(name, double, monkeypatch) as (client, network):
        frames = await client.hear(is_a(Close))
        assert network.dialled == 1
    assert frames[1:] == [
        ErrorFrame(
            "PROVIDER_UNAUTHORIZED",
            "the provider does not accept this server's key; tell the server's operator",
        ),
        Close(1011, "provider_unauthorized", "remote"),
    ]
    assert "session s1: the provider's connection failed: " in caplog.text
    assert "check the API key" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.anyio
async def test_a_failed_response_is_survived(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Fail(), Say("Again.", 0.2))
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        frames = await client.hear(is_a(ErrorFrame))
        assert isinstance(frames[-1], ErrorFrame)
        assert frames[-1].code.startswith("PROVIDER_")
        await anyio.sleep(1)
        client.ask()
        await client.hear(said("assistant", "Again."))


@pytest.mark.anyio
async def test_a_rate_limit_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, RateLimit())
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        frames = await client.hear(is_a(ErrorFrame))
        assert isinstance(frames[-1], ErrorFrame)
        assert frames[-1].code.startswith("PROVIDER_")


@pytest.mark.parametrize("kind", ["openai", "xai"])
@pytest.mark.anyio
async def test_a_time_limit_that_only_the_close_tells(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Your session hit the maximum duration of 60 minutes."
    double = double_of(kind, [Say("Well.", 0.2), Hangup(1001, words)])
    async with served(kind, double, monkeypatch) as (client, _):
        client.ask()
        frames = await client.hear(is_a(Close))
    told, close = frames[-2:]
    assert isinstance(told, ErrorFrame)
    assert told.code == "PROVIDER_SESSION_EXPIRED"
    assert words[:-1] in told.message
    assert close == Close(1000, "provider_session_expired", "remote")


@pytest.mark.parametrize("ending", [Die(), Expire()])
@pytest.mark.anyio
async def test_xai_is_resumed_where_that_was_asked_for(
    ending: ReplyStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of("xai", [Say("First.", 0.2), Wait(1.0), ending], Say("Second.", 0.2))
    options = XAIOptions(resumption=True)
    async with served("xai", double, monkeypatch, options=options) as (client, network):
        client.ask()
        await client.hear(said("assistant", "First."))
        await anyio.sleep(5)
        assert network.dialled == 2
        heard = len(client.heard)
        client.ask()
        await client.hear(said("assistant", "Second."))
    first, second = double.sessions
    conversation = next(event for event in first.sent if event["type"] == "conversation.created")
    assert second.request.query("conversation_id") == conversation["conversation"]["id"]
    assert second.request.query("model") == MODELS["xai"]
    assert second.received[0]["session"]["resumption"] == {"enabled": True}
    replayed = [event for event in second.sent if "What was said before." in json.dumps(event)]
    assert replayed
    assert "What was said before." not in repr(client.heard[heard:])


@pytest.mark.anyio
async def test_xai_that_forgets_its_conversation_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("xai", [Say("First.", 0.2), Expire()])
    async with served("xai", double, monkeypatch) as (client, network):
        client.ask()
        frames = await client.hear(is_a(Close))
        assert network.dialled == 1
    assert frames[-1] == Close(1000, "provider_session_expired", "remote")


@pytest.mark.anyio
async def test_a_provider_that_hangs_up_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, [Say("Bye.", 0.2), Hangup(1000, "")])
    async with served(name, double, monkeypatch) as (client, _):
        client.ask()
        frames = await client.hear(is_a(Close))
    assert frames[-1] == Close(1000, "provider_closed", "remote")


@pytest.mark.anyio
async def test_a_client_that_leaves_while_the_provider_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai")
    async with served("openai", double, monkeypatch, stuck="connecting") as (client, network):
        await client.hear(is_a(Ready))
        await anyio.sleep(1)
        assert network.dialled == 1
        started = anyio.current_time()
    assert anyio.current_time() == started
    assert double.sessions == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"model": ""}, "name of a model"),
        ({"model": "gpt-live-1"}, "has no realtime sessions"),
        ({"tools": (ToolSpec(name="calendar.read"),)}, "'calendar.read' as the name of a tool"),
    ],
)
async def test_what_the_provider_cannot_be_asked_for(
    config: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of("openai")
    async with served("openai", double, monkeypatch, config=config) as (client, network):
        frames = await client.hear(is_a(Close))
        assert network.dialled == 0
    error = frames[-2]
    assert isinstance(error, ErrorFrame)
    assert error.code == "PROVIDER_CONFIGURATION_REFUSED"
    assert problem in error.message
    assert frames[-1] == Close(1008, "provider_configuration_refused", "remote")


async def refusal_of(model: str, models: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the client is told when `model` is refused before anything is dialled."""
    double = double_of("openai")
    async with served("openai", double, monkeypatch, config={"model": model}, models=models) as (
        client,
        network,
    ):
        frames = await client.hear(is_a(Close))
        assert network.dialled == 0
    error = frames[-2]
    assert isinstance(error, ErrorFrame)
    assert error.code == "PROVIDER_CONFIGURATION_REFUSED"
    assert frames[-1] == Close(1008, "provider_configuration_refused", "remote")
    return error.message


@pytest.mark.parametrize(
    ("model", "models"),
    [("gpt-live-1", None), ("voice", {"voice": "gpt-live-1"}), ("gpt-live-1", ["gpt-live-1"])],
)
@pytest.mark.anyio
async def test_a_model_that_has_no_realtime_sessions_is_refused_at_once(
    model: str, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await refusal_of(model, models, monkeypatch)
    assert "gpt-live-1 has no realtime sessions" in message
    assert "choose" in message


@pytest.mark.parametrize("models", [{"voice": "gpt-realtime-2.1"}, ["gpt-realtime-2.1"]])
@pytest.mark.parametrize("model", ["gpt-realtime-2.1-pro", "GPT-realtime-2.1", " gpt-realtime-2.1", ""])
@pytest.mark.anyio
async def test_only_the_models_that_are_named_are_dialled(
    model: str, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await refusal_of(model, models, monkeypatch)
    assert "this gateway does not serve that model of openai; choose from" in message


@pytest.mark.parametrize("asked", ["inf", 4096, 200, None])
@pytest.mark.anyio
async def test_the_operators_options_are_caps(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("openai", Say("First.", 0.2))
    options = OpenAIOptions(max_output_tokens=200)
    metadata = {"provider_options": {"openai": {"max_output_tokens": asked}}}
    async with served("openai", double, monkeypatch, options=options, metadata=metadata) as (client, _):
        client.ask()
        await client.hear(said("assistant", "First."))
    updates = [event for event in double.sessions[0].received if event["type"] == "session.update"]
    assert [event["session"]["max_output_tokens"] for event in updates] == [200]


@pytest.mark.parametrize("models", ["gpt-realtime-2.1", [], {}])
def test_models_that_make_no_sense(models: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="models"):
        ProviderHandler(OpenAI(KEY), models=models)


def test_speko_s_name_of_a_model_that_is_named_is_good_too() -> None:
    handler = ProviderHandler(XAI(KEY), models=["grok-voice-latest"])
    assert handler.why_not(SessionConfig(provider="xai", model="grok-voice-beta"), None) is None
    assert handler.why_not(SessionConfig(provider="xai", model="grok-voice-latest"), None) is None
    other = ProviderHandler(XAI(KEY), models=["grok-other"])
    assert other.why_not(SessionConfig(provider="xai", model="grok-voice-beta"), None) is not None


@pytest.mark.anyio
async def test_a_client_can_have_less_than_the_operators_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    double = double_of("google", [Say("First.", 0.2), GoAway(20.0)], Say("Second.", 0.2))
    options = GoogleOptions(max_output_tokens=100, compression=False)
    metadata = {"caller": "42", "provider_options": {"google": {"max_output_tokens": 50}}}
    async with served("google", double, monkeypatch, options=options, metadata=metadata) as (client, _):
        client.ask()
        await client.hear(said("assistant", "First."))
        await anyio.sleep(30)
        client.ask()
        await client.hear(said("assistant", "Second."))
    assert len(double.sessions) == 2
    for session in double.sessions:
        setup = session.received[0]["setup"]
        assert setup["generationConfig"]["maxOutputTokens"] == 50
        assert "contextWindowCompression" not in setup


@pytest.mark.parametrize("wishes", [{"nope": 1}, {"server_tools": []}, {"turns": 5}, [1]])
@pytest.mark.anyio
async def test_what_a_client_can_not_have_of_the_provider(
    name: str, wishes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"provider_options": {name: wishes}}
    async with served(name, double_of(name), monkeypatch, metadata=metadata) as (client, network):
        *_, error, close = await client.hear(is_a(Close))
        assert network.dialled == 0
    assert isinstance(error, ErrorFrame)
    assert error.code == "PROVIDER_CONFIGURATION_REFUSED"
    assert "provider_options" in error.message
    assert close == Close(1008, "provider_configuration_refused", "remote")


@pytest.mark.parametrize("name", ["openai", "xai"])
@pytest.mark.anyio
async def test_time_to_first_audio_is_known_without_a_commit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, Say("It is sunny.", 0.5), pace=Pace(latency=0.25))
    async with served(name, double, monkeypatch) as (client, _):
        client.say(client.core.send_audio, tone(0.4, 24_000) + bytes(48_000))
        await client.hear(is_a(Usage))
    assert client.meter.time_to_first_audio == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", ["openai", "xai"])
@pytest.mark.anyio
async def test_time_to_first_audio_is_from_the_commit_where_there_is_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = double_of(name, Say("It is sunny.", 0.5), pace=Pace(latency=0.25))
    async with served(name, double, monkeypatch) as (client, _):
        client.say(client.core.send_audio, tone(0.4, 24_000))
        started = anyio.current_time()
        client.say(client.core.commit)
        await client.hear(is_a(Audio))
        elapsed = anyio.current_time() - started
        await client.hear(is_a(Usage))
    assert client.meter.time_to_first_audio == pytest.approx(elapsed, abs=0.001)


@pytest.mark.anyio
async def test_models_that_speko_calls_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of("xai")
    async with served("xai", double, monkeypatch, config={"model": "grok-voice-beta"}) as (client, _):
        client.ask()
        await client.hear(is_a(Audio))
    assert double.session.request.query("model") == "grok-voice-latest"


@pytest.mark.anyio
async def test_cancelled_it_leaves_nothing_behind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    double = double_of(name, Say("A long story.", 8.0))
    with anyio.CancelScope() as scope:
        async with served(name, double, monkeypatch) as (client, _):
            client.ask()
            await client.hear(is_a(Audio))
            scope.cancel()
            await anyio.sleep(1)
    assert scope.cancelled_caught
    await anyio.lowlevel.checkpoint()
    assert double.session.closed is not None


@pytest.mark.anyio
async def test_it_may_be_cancelled_at_any_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(20):
        calls = CallTools([("get_weather", {"city": "Oslo"})])
        double = double_of(name, calls, Say("A long story.", 8.0))
        with anyio.move_on_after(step * 0.04):
            async with served(name, double, monkeypatch, down=step % 2) as (client, _):
                client.ask()
                (*_, call) = await client.hear(is_a(ToolCall))
                assert isinstance(call, ToolCall)
                client.say(client.core.send_tool_result, call.call_id, "sunny")
                await client.hear(is_a(Audio))
                client.transport.writable = anyio.Event()
                await anyio.sleep(0.2)
                client.say(client.core.interrupt)
                await anyio.sleep_forever()
        for session in double.sessions:
            assert session.closed is not None


def test_providers_are_served_when_their_key_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS.values():
        monkeypatch.delenv(kind.key_variable, raising=False)
    assert not {"openai", "xai", "google"} & set(default_handlers())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    handlers = default_handlers()
    assert {"openai", "google"} <= set(handlers)
    assert "xai" not in handlers
    assert "ws://127.0.0.1:9/v1" in repr(handlers["openai"])
    assert KEY not in repr(handlers)


@pytest.mark.anyio
async def test_a_bug_while_the_provider_is_heard_is_one_error_and_drops_both(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come in a callback of the event loop, where nobody awaits anything."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    double = double_of(name, Say("It is sunny.", 0.5))
    sessions: list[ServerSession] = []
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with served(name, double, monkeypatch) as (client, _):
            await client.begin()
            sessions.append(client.session)
            monkeypatch.setattr(Bridge, "_receive", fail)
            client.ask()
            await anyio.sleep_forever()
    error: BaseException = caught.value
    for _ in range(2):  # the groups of `served`
        assert isinstance(error, BaseExceptionGroup)
        (error,) = error.exceptions
    assert isinstance(error, InternalError)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert sessions[0].closed is not None
    assert double.session.closed is not None
