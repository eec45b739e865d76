"""`FakeCarrier`: what it says to an application, and what its line plays."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from speko_anyio.testing import (
    VIRTUAL_BACKENDS,
    CallRefused,
    CarrierSocket,
    FakeCarrier,
    mumble,
    virtual_backend,
)
from speko_anyio.testing._carrier_wire import CarrierName, Encoding, decode, encode

pytestmark = pytest.mark.anyio

CARRIERS: Final[tuple[CarrierName, ...]] = ("twilio", "telnyx", "plivo", "vonage")
CLEARED: Final = {"plivo": "clearedAudio", "vonage": "websocket:cleared"}
"""What a carrier answers to a clear, besides marks."""


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Line:
    """The application's end of a call, in the carrier's own messages."""

    socket: CarrierSocket

    def __init__(self, carrier: FakeCarrier) -> None:
        self.carrier = carrier
        self.name = carrier.carrier
        self.started = anyio.Event()
        self.stream: dict[str, str] = {}
        self.log: list[tuple[float, Any]] = []
        """The messages that are not audio, with their times."""
        self.audio = bytearray()
        """The caller's audio as it came."""

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self.socket.send({"type": "websocket.send", kind: message})

    async def play(self, pcm: bytes) -> None:
        if self.name == "vonage":
            size = self.carrier.sample_rate // 50 * 2
            for at in range(0, len(pcm), size):
                await self.send(pcm[at : at + size].ljust(size, b"\0"))
            return
        payload = base64.b64encode(encode(pcm, "ulaw")).decode()
        match self.name:
            case "plivo":
                media = {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}
                await self.send(json.dumps({"event": "playAudio", "media": media}))
            case _:
                await self.send(json.dumps({"event": "media", "media": {"payload": payload}, **self.stream}))

    async def mark(self, name: str) -> None:
        match self.name:
            case "vonage":
                said: Any = {"action": "notify", "payload": {"name": name}}
            case "plivo":
                said = {"event": "checkpoint", "name": name, **self.stream}
            case _:
                said = {"event": "mark", "mark": {"name": name}, **self.stream}
        await self.send(json.dumps(said))

    async def clear(self) -> None:
        if self.name == "vonage":
            await self.send(json.dumps({"action": "clear"}))
        else:
            event = "clearAudio" if self.name == "plivo" else "clear"
            await self.send(json.dumps({"event": event, **self.stream}))

    async def answer(self) -> None:
        """Accept, and read until the end of the WebSocket."""
        await self.socket.accept()
        await self.read()

    async def read(self) -> None:
        while (message := await self.socket.receive())["type"] == "websocket.receive":
            now = anyio.current_time()
            if (data := message.get("bytes")) is not None:
                self.audio += data
                continue
            said = json.loads(message["text"])
            match said.get("event"):
                case "media":
                    self.audio += decode(base64.b64decode(said["media"]["payload"]), "ulaw")
                    continue
                case "start":
                    field = {"twilio": "streamSid", "telnyx": "stream_id", "plivo": "streamId"}[self.name]
                    self.stream = {field: said.get(field) or said["start"][field]}
                    self.started.set()
                case "websocket:connected":
                    self.started.set()
            self.log.append((now, said))
        self.log.append((anyio.current_time(), (message["code"], message["reason"])))

    def marks(self) -> list[tuple[float, str]]:
        """The marks that were answered."""
        found = []
        for at, said in self.log:
            match said:
                case {"event": "mark", "mark": {"name": name}}:
                    found.append((at, name))
                case {"event": "playedStream", "name": name}:
                    found.append((at, name))
                case {"event": "websocket:notify", "payload": {"name": name}}:
                    found.append((at, name))
        return found


async def with_line(carrier: FakeCarrier, work: Callable[[Line], Awaitable[None]], **parameters: str) -> Line:
    """Run `work` beside an application that reads; returns the application's end after the call."""
    line = Line(carrier)
    async with carrier, anyio.create_task_group() as tasks:
        with anyio.fail_after(600):
            line.socket = carrier.ring(parameters=parameters)
            tasks.start_soon(line.answer)
            await line.started.wait()
            await work(line)
            await carrier.hang_up()
    return line


async def call(
    carrier: FakeCarrier, app: Any, work: Callable[[FakeCarrier], Awaitable[object]] = FakeCarrier.wait_ended
) -> None:
    with anyio.fail_after(60):
        async with carrier:
            await carrier.call(app)
            await work(carrier)


@pytest.mark.parametrize("name", CARRIERS)
async def test_a_call_from_start_to_hang_up(name: CarrierName) -> None:
    said = mumble(0.5, sample_rate=16_000 if name == "vonage" else 8000)

    async def work(line: Line) -> None:
        await line.carrier.say(said)
        await line.carrier.press("1#")

    carrier = FakeCarrier(name)
    line = await with_line(carrier, work, customer="7")
    expected = decode(encode(said, "ulaw"), "ulaw") if name != "vonage" else said
    frame = carrier.sample_rate // 50 * 2
    # A frame may have gone before it; the two digits take 0.2 seconds.
    lead = 0 if any(line.audio[:frame]) else frame
    assert line.audio[lead : lead + len(said)] == expected
    rest = line.audio[lead + len(said) :]
    assert not any(rest)
    assert len(rest) == pytest.approx(0.2 * carrier.sample_rate * 2, abs=2 * frame)
    assert (carrier.closed, carrier.hung_up_by) == ((1000, ""), "caller")
    events = [message.get("event") for _, message in line.log[:-1]]
    match name:
        case "twilio":
            assert events == ["connected", "start", "dtmf", "dtmf", "stop"]
            assert line.log[1][1]["start"]["customParameters"] == {"customer": "7"}
            assert [message["dtmf"]["digit"] for _, message in line.log[2:4]] == ["1", "#"]
        case "telnyx":
            assert events == ["connected", "start", "dtmf", "dtmf", "stop"]
            start = line.log[1][1]["start"]
            assert (start["custom_parameters"], start["from"]) == ({"customer": "7"}, "+15550100001")
        case "plivo":
            assert events == ["start", "dtmf", "dtmf"]
            assert line.log[0][1]["extra_headers"] == "customer=7"
        case _:
            assert events == ["websocket:connected", "websocket:dtmf", "websocket:dtmf"]
            assert line.log[0][1]["customer"] == "7"
    assert line.log[-1][1] == (1000, "")


@pytest.mark.parametrize("name", CARRIERS)
async def test_a_mark_is_answered_when_its_audio_was_played(name: CarrierName) -> None:
    carrier = FakeCarrier(name)
    sound = mumble(1.0, sample_rate=carrier.sample_rate)

    async def work(line: Line) -> None:
        start = anyio.current_time()
        await line.mark("nothing before it")
        await line.play(sound)
        await line.mark("a")
        await anyio.sleep(0.25)
        assert carrier.played == pytest.approx(0.25, abs=1e-9)
        assert carrier.buffered == pytest.approx(0.75, abs=1e-9)
        await line.play(sound)
        await line.mark("b")
        await carrier.wait_quiet()
        assert [(round(at - start, 6), mark) for at, mark in line.marks()] == [
            (0.0, "nothing before it"),
            (1.0, "a"),
            (2.0, "b"),
        ]
        assert anyio.current_time() - start == pytest.approx(2.5)

    await with_line(carrier, work)
    heard = sound if name == "vonage" else decode(encode(sound, "ulaw"), "ulaw")
    assert carrier.heard_audio() == heard * 2
    assert len(carrier.answers) == 1


@pytest.mark.parametrize("name", CARRIERS)
async def test_a_clear_drops_what_waits(name: CarrierName) -> None:
    carrier = FakeCarrier(name)

    async def work(line: Line) -> None:
        await line.play(mumble(1.0, sample_rate=carrier.sample_rate))
        await line.mark("a")
        await line.play(mumble(1.0, sample_rate=carrier.sample_rate))
        await line.mark("b")
        await carrier.wait_played(1.2345)
        at = anyio.current_time()
        await line.clear()
        await anyio.sleep(1.0)
        dropped = [mark for when, mark in line.marks() if when == at]
        # Twilio and Telnyx answer the marks that the clear drops; for the others those were not played.
        assert dropped == (["b"] if name in ("twilio", "telnyx") else [])
        answers = [said["event"] for when, said in line.log if when == at and said["event"] != "mark"]
        assert answers == ([CLEARED[name]] if name in CLEARED else [])
        assert (carrier.played, carrier.buffered) == (0, 0)
        assert [mark for _, mark in line.marks()][:1] == ["a"]
        await line.play(mumble(0.1, sample_rate=carrier.sample_rate))
        await line.mark("c")
        await carrier.wait_played(0.1)
        assert await carrier_says(carrier) == (round(0.1 * carrier.sample_rate), 0)

    await with_line(carrier, work)
    assert carrier.clears == [pytest.approx(1.2345, abs=1 / carrier.sample_rate)]
    assert [(answer.cleared, round(answer.played, 3)) for answer in carrier.answers] == [
        (True, round(carrier.clears[0], 3)),
        (False, 0.1),
    ]
    assert carrier.marks == (
        ["a", "b", "c"] if name != "vonage" else ['{"name": "a"}', '{"name": "b"}', '{"name": "c"}']
    )


async def carrier_says(carrier: FakeCarrier) -> tuple[int, float]:
    return round(carrier.played * carrier.sample_rate), carrier.buffered


async def test_vonage_keeps_a_minute() -> None:
    carrier = FakeCarrier("vonage", sample_rate=8000)

    async def work(line: Line) -> None:
        await line.play(bytes(8000 * 2 * 70))
        await anyio.sleep(1.0)

    await with_line(carrier, work)
    assert carrier.dropped == pytest.approx(70 - 61.44)


async def test_listening_and_waiting() -> None:
    carrier = FakeCarrier()

    async def work(line: Line) -> None:
        await carrier.wait_quiet()  # nothing has been said yet
        async with anyio.create_task_group() as tasks:

            async def answer_later() -> None:
                await anyio.sleep(3.0)
                for _ in range(10):
                    await line.play(mumble(0.2, sample_rate=8000))
                    await anyio.sleep(0.3)

            tasks.start_soon(answer_later)
            assert len(await carrier.listen()) == 2.0 * 16_000

    await with_line(carrier, work)


async def test_jitter_is_seeded_and_keeps_the_order() -> None:
    async def times(seed: int, jitter: float) -> list[float]:
        carrier = FakeCarrier("twilio", jitter=jitter, latency=0.1, seed=seed)
        arrived: list[float] = []

        async def read(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            numbers = []
            while (message := await receive())["type"] == "websocket.receive":
                arrived.append(anyio.current_time() - start)
                numbers.append(json.loads(message["text"]).get("sequenceNumber"))
            assert numbers[1:] == [str(number) for number in range(1, len(numbers))]

        start = anyio.current_time()
        async with carrier:
            await carrier.call(read)
            await carrier.say(bytes(16_000))
        # How many more come until the call ends depends on the scheduler.
        return arrived[:27]

    calm = await times(0, 0.0)
    assert calm[2:27] == pytest.approx([0.1 + number * 0.02 for number in range(25)])
    rough = await times(1, 0.05)
    assert rough == pytest.approx(await times(1, 0.05))
    assert rough != pytest.approx(await times(2, 0.05))
    assert rough == sorted(rough)
    assert all(-1e-9 <= there - here <= 0.05 + 1e-9 for here, there in zip(calm, rough, strict=True))


STREAM: Final = {"streamSid": "MZ00000000000000000000000000000000"}
WRONG: Final[list[tuple[CarrierName, str | bytes, str]]] = [
    ("twilio", b"\0" * 160, "it is binary"),
    ("twilio", "media", "it is not JSON"),
    ("twilio", "[]", "not a JSON object"),
    ("twilio", json.dumps({"event": "clear"}), "streamSid is None"),
    ("twilio", json.dumps({"event": "dtmf", **STREAM}), "event is 'dtmf'"),
    ("twilio", json.dumps({"event": "media", "media": {"payload": "?"}, **STREAM}), "not base64"),
    ("twilio", json.dumps({"event": "media", "media": {"payload": ""}, **STREAM}), "payload is ''"),
    ("twilio", json.dumps({"event": "media", **STREAM}), "media is None"),
    ("twilio", json.dumps({"event": "mark", "mark": {}, **STREAM}), "mark's name is None"),
    ("telnyx", json.dumps({"event": "media", "media": {"payload": "AAAA"}}), "0.02 to 30"),
    ("telnyx", json.dumps({"event": "clear", "stream_id": "other"}), "stream_id is 'other'"),
    ("telnyx", json.dumps({"event": "stop"}), "event is 'stop'"),
    ("plivo", json.dumps({"event": "clearAudio"}), "streamId is None"),
    ("plivo", json.dumps({"event": "playAudio", "media": {"payload": "AAAA"}}), "not as the stream's"),
    ("plivo", json.dumps({"event": "media"}), "event is 'media'"),
    ("vonage", b"\0" * 320, "a frame has 640"),
    ("vonage", json.dumps({"action": "notify"}), "payload is None"),
    ("vonage", json.dumps({"event": "clear"}), "action is None"),
]


@pytest.mark.parametrize(("name", "message", "why"), WRONG)
async def test_a_message_that_the_carrier_would_not_take(
    name: CarrierName, message: str | bytes, why: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
        await anyio.sleep_forever()

    with pytest.raises(AssertionError, match=f"{name} would not take .*{why}"):
        await call(FakeCarrier(name), app)


async def test_half_a_sample_of_pcm() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        media = {"contentType": "audio/x-l16", "sampleRate": 16_000, "payload": "AAAA"}
        await send({"type": "websocket.send", "text": json.dumps({"event": "playAudio", "media": media})})
        await anyio.sleep_forever()

    with pytest.raises(AssertionError, match="middle of a sample"):
        await call(FakeCarrier("plivo", encoding="l16", sample_rate=16_000), app)


@pytest.mark.parametrize(
    ("messages", "status", "body"),
    [
        ([{"type": "websocket.close"}], 403, ""),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b"no ", "more_body": True},
                {"type": "websocket.http.response.body", "body": b"signature"},
            ],
            401,
            "no signature",
        ),
        ([], 500, "the application returned without an answer"),
    ],
)
async def test_a_call_that_is_refused(messages: list[dict[str, Any]], status: int, body: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["path"], scope["query_string"]) == ("/phone", b"token=1")
        assert (b"x-twilio-signature", b"s") in scope["headers"]
        assert await receive() == {"type": "websocket.connect"}
        for message in messages:
            await send(message)

    async with FakeCarrier() as carrier:
        with pytest.raises(CallRefused, match=f"refused the call with {status}") as caught:
            await carrier.call(app, "/phone", query="token=1", headers={"X-Twilio-Signature": "s"})
    assert (caught.value.status, caught.value.body) == (status, body)


async def test_the_application_hangs_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        payload = base64.b64encode(bytes(80)).decode()
        media = json.dumps({"event": "media", "media": {"payload": payload}, **STREAM})
        await send({"type": "websocket.send", "text": media})
        await anyio.sleep(1.0)
        await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
        assert (await receive())["type"] == "websocket.receive"
        while (message := await receive())["type"] == "websocket.receive":
            pass
        assert message == await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "{}"})

    async with FakeCarrier() as carrier:
        await carrier.call(app)
        assert await carrier.wait_ended() == (4000, "bye")
        assert carrier.hung_up_by == "application"
        with pytest.raises(AssertionError, match="the call ended before the line plays something"):
            await carrier.wait_playing()
        with pytest.raises(AssertionError, match="before the line has played 2 seconds; application"):
            await carrier.wait_played(2.0)
        await carrier.say(bytes(16_000))
        await carrier.press("1")
        await carrier.wait_quiet()
    assert carrier.played == 0.01


async def test_an_application_that_returns_hangs_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    async with FakeCarrier() as carrier:
        await carrier.call(app)
        assert await carrier.wait_ended() == (1000, "")


async def test_an_application_that_fails_fails_the_test() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise RuntimeError("of the application")

    with pytest.raises(RuntimeError, match="of the application"):
        await call(FakeCarrier(), app)


async def test_an_application_that_does_not_finish_fails_the_test() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep_forever()

    with pytest.raises(AssertionError, match="still runs 2 seconds later"):
        async with FakeCarrier(within=2.0) as carrier:
            await carrier.call(app)


async def test_an_application_that_does_not_read_fails_the_test() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep_forever()

    with pytest.raises(AssertionError, match="has not read the caller's audio for 30 seconds"):
        await call(FakeCarrier(), app)


async def test_the_blocks_own_error_goes_first() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep_forever()

    async def fail(carrier: FakeCarrier) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await call(FakeCarrier(), app, fail)


async def test_wrong_uses() -> None:
    with pytest.raises(ValueError, match="'skype' is not a carrier; choose from twilio, telnyx"):
        FakeCarrier("skype")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twilio has no l16; choose from ulaw"):
        FakeCarrier("twilio", encoding="l16")
    with pytest.raises(ValueError, match="vonage has no l16 at 44100 Hz; choose from 16000, 8000, 24000"):
        FakeCarrier("vonage", sample_rate=44_100)
    carrier = FakeCarrier()
    with pytest.raises(RuntimeError, match="use a FakeCarrier with `async with`"):
        await carrier.call(lambda *_: anyio.sleep_forever())
    async with FakeCarrier() as carrier:
        for wait in (carrier.say(bytes(320)), carrier.press("1"), carrier.listen(), carrier.wait_ended()):
            with (
                anyio.fail_after(5),
                pytest.raises(RuntimeError, match="there is no call yet; make one with"),
            ):
                await wait
        carrier.ring()
        with pytest.raises(RuntimeError, match="makes one call"):
            carrier.ring()
        with pytest.raises(ValueError, match="'x' is not a key"):
            await carrier.press("x")


async def test_a_lost_connection() -> None:
    async def work(line: Line) -> None:
        await line.carrier.hang_up(1006, stop=False)

    line = await with_line(FakeCarrier(), work)
    assert [message for _, message in line.log[2:]] == [(1006, "")]


async def test_speech_at_another_rate_is_converted() -> None:
    async def work(line: Line) -> None:
        await line.carrier.say(mumble(0.5, sample_rate=24_000), sample_rate=24_000)

    line = await with_line(FakeCarrier(), work)
    assert len(line.audio) == pytest.approx(8000, abs=320)
    assert any(line.audio)


@pytest.mark.parametrize(
    ("encoding", "vectors"),
    [
        # Ends and middle of ITU-T G.711, tables 1 and 2, times 4 and 16.
        ("ulaw", {0xFF: 0, 0x7F: 0, 0x80: 32_124, 0x00: -32_124, 0xFE: 8, 0xEF: 132}),
        ("alaw", {0xD5: 8, 0x55: -8, 0xAA: 32_256, 0x2A: -32_256, 0xD4: 24, 0xC5: 264}),
    ],
)
def test_g711(encoding: Encoding, vectors: dict[int, int]) -> None:
    for code, value in vectors.items():
        assert decode(bytes([code]), encoding) == value.to_bytes(2, "little", signed=True)
    table = [int.from_bytes(decode(bytes([code]), encoding), "little", signed=True) for code in range(256)]
    for value in range(-32_768, 32_768, 7):
        (code,) = encode(value.to_bytes(2, "little", signed=True), encoding)
        # The table's value is as near as any, or one step farther where the steps change size.
        nearest = min(table, key=lambda each: abs(each - value))
        step = max(abs(nearest) >> 4, 8)
        assert abs(table[code] - value) <= abs(nearest - value) + step
    for value in table:
        assert table[encode(value.to_bytes(2, "little", signed=True), encoding)[0]] == value


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_over_a_real_websocket() -> None:
    """The adapter that a test needs for a server: two functions over a WebSocket client."""

    async def application(websocket: ServerConnection) -> None:
        stream: dict[str, str] = {}
        async for message in websocket:
            said = json.loads(message)
            if said["event"] == "start":
                stream = {"streamSid": said["streamSid"]}
                payload = base64.b64encode(bytes(1600)).decode()
                await websocket.send(json.dumps({"event": "media", "media": {"payload": payload}, **stream}))
                await websocket.send(json.dumps({"event": "mark", "mark": {"name": "m"}, **stream}))
            elif said["event"] == "mark":
                await websocket.send(json.dumps({"event": "clear", **stream}))

    async def receive(websocket: Any) -> str | bytes | None:
        try:
            message: str | bytes = await websocket.recv()
        except ConnectionClosed:
            return None
        return message

    with anyio.fail_after(20):
        async with serve(application, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/") as websocket, FakeCarrier() as carrier:
                await carrier.connect(partial(receive, websocket), websocket.send, websocket.close)
                await carrier.wait_playing()
                await carrier.wait_quiet(0.3)
                await carrier.hang_up()
    assert carrier.answers[0].played == 0.2
    assert carrier.clears == [0.2]
    assert carrier.marks == ["m"]
