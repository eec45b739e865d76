"""How a call comes in: the webhook and its signature, the token, the WebSocket, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx
import msgspec
import pytest

from speko_anyio.gateway import Gateway, MemoryStore, Phone, SessionQuery, echo
from speko_anyio.gateway._phone_stream import MAX_EARLY, MAX_WAITING, START_TIMEOUT
from speko_anyio.gateway._phone_webhook import MAX_PARAMETERS, MAX_VALUE
from speko_anyio.testing import VIRTUAL_BACKENDS, CallRefused, FakeCarrier, virtual_backend

from .phone_support import (
    AUTH_TOKEN,
    CALL,
    CALLS,
    KEY,
    PUBLIC,
    Assistant,
    ask,
    call,
    connect,
    life_of,
    parameters_in,
    phone_gateway,
    signed,
    twilio_signature,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


class Clock:
    """The gateway's time of day."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def count(store: MemoryStore) -> int:
    return len((await store.sessions(SessionQuery(limit=100), now=0)).sessions)


# The webhook


async def test_a_signed_webhook_is_answered_with_a_token_for_one_session() -> None:
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), store=store)
    async with gateway.running():
        answer = await ask(gateway)
    assert answer.status_code == 200
    assert "xml" in answer.headers["Content-Type"]
    assert set(parameters_in(answer.text)) == {"token"}
    record, _ = await life_of(store)
    assert msgspec.json.decode(record.metadata or b"")["phone"] == {
        "carrier": "twilio",
        "call_id": "CA0123",
        "caller": "+15550100001",
        "called": "+15550100002",
    }


@pytest.mark.parametrize(
    ("fields", "query", "signature"),
    [
        (CALL, "", "wrong"),
        (CALL, "", ""),
        (CALL, "", twilio_signature(f"{PUBLIC}/telephony/twilio", CALL, token="another")),
        (CALL, "", twilio_signature(f"{PUBLIC}/telephony/twilio", {**CALL, "From": "+15550100009"})),
        (CALL, "", twilio_signature("http://internal.test/telephony/twilio", CALL)),
        (CALL, "?x=1", twilio_signature(f"{PUBLIC}/telephony/twilio", CALL)),
        (CALL, "", twilio_signature(f"{PUBLIC}/telephony/twilio")),
    ],
)
async def test_without_the_right_signature_there_is_no_answer(
    fields: Mapping[str, str], query: str, signature: str
) -> None:
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), store=store)
    async with gateway.running():
        answer = await ask(gateway, fields, query=query, signature=signature)
    assert answer.status_code == 403
    assert answer.json()["code"] == "FORBIDDEN"
    assert await count(store) == 0


async def test_the_query_of_the_webhook_is_signed_and_kept_within_limits() -> None:
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), store=store)
    query = "?campaign=spring&" + "&".join(f"p{number}={'x' * 300}" for number in range(40))
    async with gateway.running():
        answer = await ask(gateway, {**CALL, "From": "+" * 5000}, query=query)
    assert answer.status_code == 200, answer.text
    record, _ = await life_of(store)
    phone = msgspec.json.decode(record.metadata or b"")["phone"]
    assert phone["parameters"]["campaign"] == "spring"
    assert len(phone["parameters"]) == MAX_PARAMETERS
    assert phone["parameters"]["p0"] == "x" * MAX_VALUE
    assert len(phone["caller"]) == MAX_VALUE


async def test_a_webhook_that_comes_again_gets_the_same_session() -> None:
    """Carriers repeat a webhook that they consider lost, and a thief may replay one."""
    store, clock = MemoryStore(), Clock()
    gateway = phone_gateway(Assistant(), store=store, now=clock)
    async with gateway.running():
        first, again = await ask(gateway), await ask(gateway)
        assert first.text == again.text
        other = await ask(gateway, {**CALL, "CallSid": "CA0124"})
        assert other.text != first.text
        assert await count(store) == 2
        # The same call, which comes back later.
        clock.now += 61
        assert (await ask(gateway)).text != first.text


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"a=b&" * 2000, b"{", b"%ff%fe=1"], ids=["bytes", "many", "open", "odd"]
)
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "", "text/plain"])
async def test_whatever_the_body_is_the_webhook_says_what_is_wrong(body: bytes, kind: str) -> None:
    gateway = phone_gateway(echo)
    transport = httpx.ASGITransport(app=gateway.app)
    async with gateway.running(), httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http:
        answer = await http.post(
            "/telephony/twilio", content=body, headers={"Content-Type": kind, "X-Twilio-Signature": "x"}
        )
    assert answer.status_code in (400, 403)
    assert set(answer.json()) == {"error", "code"}


async def test_calls_have_limits_of_their_own() -> None:
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, max_calls=2)
    gateway = phone_gateway(Assistant(), phone=phone)
    async with gateway.running():
        statuses = [
            (await ask(gateway, {**CALL, "CallSid": f"CA{number}"})).status_code for number in range(3)
        ]
    assert statuses == [200, 200, 429]
    phone = Phone(handler="bot", auth_token=AUTH_TOKEN, calls_per_minute=1)
    gateway = phone_gateway(Assistant(), phone=phone)
    async with gateway.running():
        assert (await ask(gateway)).status_code == 200
        late = await ask(gateway, {**CALL, "CallSid": "CA9"})
    assert late.status_code == 429
    assert late.headers["Retry-After"]


async def test_one_node_answers_only_so_many_webhooks_a_second() -> None:
    gateway = phone_gateway(Assistant(), mint_rate=0.01, mint_burst=2)
    async with gateway.running():
        statuses = [
            (await ask(gateway, {**CALL, "CallSid": f"CA{number}"})).status_code for number in range(3)
        ]
        # A request that is not signed takes nothing from those that are.
        assert statuses == [200, 200, 429]
        assert (await ask(gateway, signature="x")).status_code == 403


async def test_a_gateway_that_does_not_run_answers_no_call() -> None:
    gateway = phone_gateway(Assistant())
    assert (await ask(gateway)).status_code == 503
    async with gateway.running():
        await gateway.drain()
        assert (await ask(gateway)).status_code == 503
        with pytest.raises(CallRefused) as caught:
            async with FakeCarrier() as carrier:
                await connect(carrier, gateway, {})
    assert caught.value.status == 503


async def test_without_a_public_url_it_is_that_of_the_request() -> None:
    gateway = Gateway(
        handlers={"bot": echo}, phones={"twilio": Phone(handler="bot", auth_token=AUTH_TOKEN)}, api_keys=[KEY]
    )
    async with gateway.running():
        signature = twilio_signature("http://internal.test/telephony/twilio", CALL)
        answer = await ask(gateway, signature=signature)
    assert answer.status_code != 403, answer.text


# The WebSocket


async def refused_for(
    parameters: Mapping[str, str], gateway: Gateway, *, after: float = 0.0
) -> tuple[int, str]:
    """The close of a call that becomes no session."""
    with anyio.fail_after(60):
        async with FakeCarrier() as carrier:
            await anyio.sleep(after)
            await connect(carrier, gateway, parameters)
            closed = await carrier.wait_ended()
    assert carrier.hung_up_by == "application"
    return closed


async def test_a_token_connects_one_call_and_only_in_time() -> None:
    clock, store = Clock(), MemoryStore()
    gateway = phone_gateway(Assistant(), now=clock, store=store)
    async with gateway.running():
        parameters = parameters_in((await ask(gateway)).text)
        async with FakeCarrier() as carrier:
            await connect(carrier, gateway, parameters)
            await carrier.listen()
        code, reason = await refused_for(parameters, gateway)
        assert (code, "used before" in reason) == (4401, True)
        late = parameters_in((await ask(gateway, {**CALL, "CallSid": "CA1"})).text)
        clock.now += 61
        code, reason = await refused_for(late, gateway)
        assert (code, "expired" in reason) == (4401, True)
    assert await count(store) == 2


@pytest.mark.parametrize(
    "parameters", [{}, {"token": ""}, {"token": "nonsense"}, {"token": "eyJh.eyJh.x"}, {"tok": "x"}]
)
async def test_a_call_without_a_token_is_refused_before_anything_is_spent(parameters: dict[str, str]) -> None:
    store, handled = MemoryStore(), []

    async def handler(session: Any) -> None:
        handled.append(session)

    claims = []
    claim = store.claim

    async def counting(*arguments: Any, **options: Any) -> Any:
        claims.append(arguments)
        return await claim(*arguments, **options)

    store.claim = counting  # type: ignore[method-assign]
    gateway = phone_gateway(handler, store=store)
    async with gateway.running():
        code, _ = await refused_for(parameters, gateway)
    assert code == 4401
    assert not handled
    assert not claims


@pytest.mark.parametrize(
    "signature", ["", "wrong", twilio_signature("wss://voice.test/telephony/twilio", token="x")]
)
async def test_a_websocket_without_the_carrier_s_signature_is_not_accepted(signature: str) -> None:
    gateway = phone_gateway(Assistant())
    async with gateway.running():
        parameters = parameters_in((await ask(gateway)).text)
        with pytest.raises(CallRefused) as caught:
            async with FakeCarrier() as carrier:
                await carrier.call(
                    gateway.app,
                    "/telephony/twilio",
                    headers={"X-Twilio-Signature": signature} if signature else {},
                    parameters=parameters,
                )
        assert caught.value.status == 403
        # The token was not used up by that.
        async with FakeCarrier() as carrier:
            await connect(carrier, gateway, parameters)
            await carrier.listen()


async def test_a_token_of_the_mint_connects_a_call_too() -> None:
    """For an application that answers the carrier itself."""
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), store=store)
    transport = httpx.ASGITransport(app=gateway.app)
    async with gateway.running():
        async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http:
            body = {"mode": "s2s", "s2s": {"provider": "bot", "model": "m"}, "metadata": {"who": "Ada"}}
            grant = (
                await http.post("/v1/sessions", json=body, headers={"Authorization": f"Bearer {KEY}"})
            ).json()
        async with FakeCarrier() as carrier:
            await connect(carrier, gateway, {"token": grant["wsToken"]})
            heard = await carrier.listen()
    assert abs(len(heard) / 16_000 - 1.0) < 0.02
    record, life = await life_of(store)
    assert (record.session_id, life.close_reason) == (grant["sessionId"], "caller_hung_up")


class Mute(FakeCarrier):
    """Says nothing, or only what a test lets it say."""

    says: tuple[str | bytes, ...] = ()

    def _answered(self) -> None:
        self._began = anyio.current_time()
        for message in self.says:
            self._to_application.send(message)
        self._group.start_soon(self._play)


def mute(*says: str | bytes) -> Mute:
    carrier = Mute(within=60)
    carrier.says = says
    return carrier


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ((), 1008),
        (('{"event":"connected","protocol":"Call","version":"1.0.0"}',), 1008),
        (('{"event":"what"}',) * MAX_EARLY, 1008),
        (("nonsense",), 1008),
        ((b"\0\0",), 1008),
        (("[" * 60_000,), 1008),
        (("x" * 100_000,), 1008),
        (('{"event":"start"}',), None),
        (('{"event":"start","start":{"customParameters":{"token":{"a":[]}}}}',), None),
    ],
)
async def test_a_websocket_that_does_not_start_a_call_is_closed_in_time(
    says: tuple[str | bytes, ...], code: int | None
) -> None:
    gateway = phone_gateway(Assistant())
    with anyio.fail_after(60):
        async with gateway.running(), mute(*says) as carrier:
            start = anyio.current_time()
            await connect(carrier, gateway, {})
            closed = await carrier.wait_ended()
            took = anyio.current_time() - start
            silent = says == () or '"connected"' in str(says[0])
            assert took == pytest.approx(START_TIMEOUT if silent else 0.0, abs=0.01)
    assert closed[0] in ((1008, 4401) if code is None else (code,))


async def test_among_many_that_wait_for_their_start_the_longest_wait_is_cut() -> None:
    gateway = phone_gateway(Assistant())
    with anyio.fail_after(60):
        async with gateway.running():
            async with anyio.create_task_group() as tasks:
                closed: list[int] = []

                async def wait(number: int) -> None:
                    async with mute() as carrier:
                        await connect(carrier, gateway, {})
                        await carrier.wait_ended()
                        closed.append(number)

                for number in range(MAX_WAITING):
                    tasks.start_soon(wait, number)
                await anyio.sleep(0.1)
                assert closed == []
                async with FakeCarrier() as carrier:
                    await call(carrier, gateway)
                    await carrier.listen()
                    assert len(closed) == 1
                tasks.cancel_scope.cancel()


# Nothing checks its signatures


@asynccontextmanager
async def unsigned() -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    gateway = Gateway(
        handlers={"bot": Assistant()}, phones={"twilio": Phone(handler="bot", unsigned=True)}, api_keys=[KEY]
    )
    transport = httpx.ASGITransport(app=gateway.app, client=("127.0.0.1", 1234))
    async with gateway.running(), httpx.AsyncClient(transport=transport) as http:
        yield gateway, http


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
async def test_an_unsigned_phone_takes_calls_of_this_machine(host: str) -> None:
    async with unsigned() as (_, http):
        answer = await http.post(f"http://{host}/telephony/twilio", data=dict(CALL))
    assert answer.status_code == 200, answer.text
    assert f'url="ws://{host}/telephony/twilio"' in answer.text


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("voice.test", {}),
        ("192.0.2.1:8000", {}),
        ("127.0.0.1.voice.test", {}),
        ("localhost:8000", {"X-Forwarded-For": "192.0.2.1"}),
        ("localhost:8000", {"Forwarded": "for=192.0.2.1"}),
        ("localhost:8000", {"X-Forwarded-Host": "voice.test"}),
    ],
)
async def test_an_unsigned_phone_is_not_reached_through_a_tunnel(host: str, headers: dict[str, str]) -> None:
    async with unsigned() as (_, http):
        answer = await http.post(f"http://{host}/telephony/twilio", data=dict(CALL), headers=headers)
    assert answer.status_code == 403
    assert "unsigned" in answer.json()["error"]


async def test_an_unsigned_phone_takes_no_call_of_another_machine() -> None:
    async with unsigned() as (gateway, _):
        transport = httpx.ASGITransport(app=gateway.app, client=("192.0.2.1", 1234))
        async with httpx.AsyncClient(transport=transport) as http:
            answer = await http.post("http://localhost:8000/telephony/twilio", data=dict(CALL))
    assert answer.status_code == 403


async def test_an_unsigned_phone_s_websocket_is_not_reached_from_elsewhere() -> None:
    async with unsigned() as (gateway, _):
        with pytest.raises(CallRefused) as caught:
            async with FakeCarrier() as carrier:
                await carrier.call(gateway.app, "/telephony/twilio")
    assert caught.value.status == 403


# What callers and operators get to read


async def test_no_number_and_no_secret_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    gateway = phone_gateway(Assistant())
    with caplog.at_level(logging.DEBUG, "speko_anyio"):
        async with gateway.running():
            answer = await ask(gateway, query="?note=private")
            token = parameters_in(answer.text)["token"]
            await ask(gateway, signature="x")
            async with FakeCarrier() as carrier:
                await call(carrier, gateway)
                await carrier.listen()
                await carrier.press("4711#")
                await anyio.sleep(1)
            await refused_for({"token": token[:-3]}, gateway)
    told = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("speko_anyio")
    )
    assert "phone:twilio" in told
    assert "a call of twilio is refused with 403" in told
    for secret in ("5550100001", "5550100002", AUTH_TOKEN, token[:-3], "4711", "private"):
        assert secret not in told


async def test_calls_are_counted() -> None:
    gateway = phone_gateway(Assistant(), metrics=True)
    transport = httpx.ASGITransport(app=gateway.app)
    async with gateway.running():
        await ask(gateway, signature="x")
        async with FakeCarrier() as carrier:
            await call(carrier, gateway)
            await carrier.listen()
        await refused_for({}, gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gw.test") as http:
            told = (await http.get("/metrics")).text
    for line in (
        'speko_phone_webhooks_total{carrier="twilio",status="403"} 1.0',
        'speko_phone_webhooks_total{carrier="twilio",status="200"} 1.0',
        'speko_phone_streams_total{carrier="twilio",status="101"} 1.0',
        'speko_phone_streams_total{carrier="twilio",status="401"} 1.0',
        'speko_sessions_ended_total{closed_by="remote",code="1000",provider="bot"} 1.0',
    ):
        assert line in told


# The carriers


CARRIERS: Any = ("twilio", "telnyx", "plivo", "vonage")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_calls_with_its_own_signature_and_token(carrier: Any) -> None:
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), carrier=carrier, store=store)
    with anyio.fail_after(60):
        async with gateway.running():
            async with FakeCarrier(carrier) as line:
                await call(line, gateway)
                heard = await line.listen()
            assert abs(len(heard) / 2 / line.sample_rate - 1.0) < 0.05
    record, life = await life_of(store)
    assert record.key_id == f"phone:{carrier}"
    assert (life.close_code, life.close_reason, life.closed_by) == (1000, "caller_hung_up", "client")
    assert msgspec.json.decode(record.metadata or b"")["phone"] == {
        "carrier": carrier,
        "call_id": "CA0123",
        "caller": "+15550100001",
        "called": "+15550100002",
    }


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_s_webhook_is_refused_without_its_signature(carrier: str) -> None:
    store = MemoryStore()
    gateway = phone_gateway(Assistant(), carrier=carrier, store=store)
    url = f"{PUBLIC}/telephony/{carrier}"
    other = signed(carrier, url, {**CALLS[carrier], "From": "+15550100009"}, b"another body")
    async with gateway.running():
        assert (await ask(gateway, carrier=carrier, headers={})).status_code == 403
        assert (await ask(gateway, carrier=carrier, headers=other)).status_code == 403
        nobody = dict.fromkeys(other, "x")
        assert (await ask(gateway, carrier=carrier, headers=nobody)).status_code == 403
    assert await count(store) == 0


@pytest.mark.parametrize("carrier", ["telnyx", "vonage"])
@pytest.mark.parametrize("age", [-400, 400])
async def test_a_signature_with_a_time_has_an_age(carrier: str, age: float) -> None:
    clock = Clock()
    gateway = phone_gateway(Assistant(), carrier=carrier, now=clock)
    fields = CALLS[carrier]
    body = json.dumps(fields).encode() if carrier == "vonage" else urlencode(fields).encode()
    url = f"{PUBLIC}/telephony/{carrier}"
    async with gateway.running():
        for made, status in ((clock.now, 200), (clock.now + age, 403)):
            headers = signed(carrier, url, fields, body, at=made)
            assert (await ask(gateway, carrier=carrier, headers=headers)).status_code == status


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_s_token_is_good_once_and_in_time(carrier: Any) -> None:
    clock = Clock()
    gateway = phone_gateway(Assistant(), carrier=carrier, now=clock)
    path = f"/telephony/{carrier}"
    headers = signed("twilio", f"wss://voice.test{path}", None, b"") if carrier == "twilio" else {}

    async def refused(parameters: dict[str, str]) -> tuple[int, str]:
        async with FakeCarrier(carrier) as line:
            await line.call(gateway.app, path, headers=headers, parameters=parameters)
            return await line.wait_ended()

    def webhook(number: int) -> dict[str, str]:
        fields = {**CALLS[carrier], "number": str(number)}
        body = json.dumps(fields).encode() if carrier == "vonage" else urlencode(fields).encode()
        return signed(carrier, PUBLIC + path, fields, body, at=clock.now)

    async def parameters(number: int) -> dict[str, str]:
        fields = {**CALLS[carrier], "number": str(number)}
        answer = await ask(gateway, fields, carrier=carrier, headers=webhook(number))
        return parameters_in(answer.text)

    with anyio.fail_after(60):
        async with gateway.running():
            given = await parameters(1)
            async with FakeCarrier(carrier) as line:
                await line.call(gateway.app, path, headers=headers, parameters=given)
                await line.listen()
            code, reason = await refused(given)
            assert (code, "used before" in reason) == (4401, True)
            late = await parameters(2)
            clock.now += 61
            code, reason = await refused(late)
            assert (code, "expired" in reason) == (4401, True)
            code, _ = await refused({})
            assert code == 4401


async def test_a_signature_of_plivo_on_an_opening_must_be_right() -> None:
    """Plivo signs openings if the account asks for it."""
    gateway = phone_gateway(Assistant(), carrier="plivo")
    path = "/telephony/plivo"
    right = signed("plivo", f"wss://voice.test{path}", None, b"")
    async with gateway.running():
        parameters = parameters_in((await ask(gateway, carrier="plivo")).text)
        wrong = {**right, "X-Plivo-Signature-V3": "x"}
        with pytest.raises(CallRefused) as caught:
            async with FakeCarrier("plivo") as line:
                await line.call(gateway.app, path, headers=wrong, parameters=parameters)
        assert caught.value.status == 403
        async with FakeCarrier("plivo") as line:
            await line.call(gateway.app, path, headers=right, parameters=parameters)
            await line.listen()
