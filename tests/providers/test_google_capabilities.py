"""The table of what Gemini's models can do, held to the dialect and to the double in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from speko_anyio import Google
from speko_anyio.protocol import Audio, Frame, Interruption, LocalProtocolError
from speko_anyio.protocol._commands import Update
from speko_anyio.protocol.capabilities import UPDATABLE, Capabilities
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers.google import GoogleDialect, GoogleOptions, ServerTool, google_capabilities
from speko_anyio.testing.providers import GoogleDouble, Say
from speko_anyio.testing.providers._double_session import Request
from speko_anyio.testing.providers._google import GoogleSession

from .google_talk import frames

MODELS = (
    "gemini-2.5-flash-native-audio-latest",
    "gemini-3.1-flash-live-preview",
    "gemini-3.8-live",
    "gemini-3.8-live-extended-thinking",
)
JPEG = b"\xff\xd8\xff\xe0"
CHANGES: dict[str, Any] = {"system_prompt": "Be kind.", "tools": (), "voice": "Kore", "turns": "manual"}


class Pair:
    """A dialect and a double, each acting on what the other says at once."""

    def __init__(self, model: str, **parameters: Any) -> None:
        self.double = GoogleDouble(then=Say("Fine.", 0.5))
        self.now = 0.0
        config = SessionConfig(provider="google", model=model)
        self.dialect = GoogleDialect(config, **parameters)
        request = Request("/", (("x-goog-api-key", self.double.api_key),))
        self.session: GoogleSession = self.double.open(request)

    def run(self, seconds: float = 5.0) -> list[Frame]:
        found = []
        end = self.now + seconds
        while True:
            for message in self.dialect.messages_to_send():
                assert isinstance(message, str)
                self.session.receive(message, self.now)
            for output in self.session.take():
                if isinstance(output, bytes):
                    self.dialect.receive_message(output)
            found += frames(self.dialect)
            if self.dialect.queued:
                continue
            due = self.session.next_deadline()
            if due is None or due > end:
                break
            self.now = due
            self.session.advance(due)
        self.now = end
        return found

    @property
    def alive(self) -> bool:
        return self.session.closed is None


def spoke(found: list[Frame]) -> bool:
    return any(isinstance(frame, Audio) for frame in found)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def pair(model: str) -> Pair:
    pair = Pair(model)
    pair.run()
    return pair


def table(model: str) -> Capabilities:
    return google_capabilities(model)


def test_the_record_is_the_same_everywhere(model: str, pair: Pair) -> None:
    assert pair.dialect.capabilities == Google("k").capabilities(model) == table(model)
    assert table(model).as_of is not None


def test_a_session_without_handles_is_not_resumed(model: str) -> None:
    options = GoogleOptions(resumption=False)
    assert Google("k", options=options).capabilities(model).resume == "no"
    assert Pair(model, options=options).dialect.capabilities.resume == "no"


def test_text(model: str, pair: Pair) -> None:
    assert table(model).text
    pair.dialect.send_text("Hello")
    assert spoke(pair.run())
    assert pair.session.texts == [("user", "Hello")]
    assert pair.alive


def test_image(model: str, pair: Pair) -> None:
    assert table(model).image
    pair.dialect.send_image(JPEG, mime_type="image/jpeg")
    assert not spoke(pair.run())
    pair.dialect.send_image(JPEG, mime_type="image/jpeg", respond=True)
    assert spoke(pair.run())
    assert pair.session.images == [("image/jpeg", JPEG)] * 2
    assert pair.alive


def test_respond(model: str, pair: Pair) -> None:
    assert table(model).respond
    pair.dialect.respond()
    assert spoke(pair.run())
    pair.dialect.respond("Greet me.")
    assert spoke(pair.run())
    assert pair.session.texts[-1] == ("user", "Greet me.")
    assert pair.alive


def test_say(model: str, pair: Pair) -> None:
    assert table(model).say == "instructed"
    pair.dialect.say("Good day.")
    assert spoke(pair.run())
    assert pair.alive


def test_history(model: str, pair: Pair) -> None:
    assert table(model).history
    pair.dialect.send_text("Hi.", respond=False)
    pair.dialect.send_text("Hello.", role="assistant")
    assert not spoke(pair.run())
    assert pair.session.texts == [("user", "Hi."), ("model", "Hello.")]
    pair.dialect.send_audio(bytes(4_800))
    pair.run()
    assert pair.alive


@pytest.mark.parametrize("field", UPDATABLE)
def test_update(model: str, pair: Pair, field: str) -> None:
    update = Update(**{field: CHANGES[field]})
    if field in table(model).update:
        pair.dialect.update(update)
        pair.run()
        assert pair.alive
        assert any("contextUpdate" in message for message in pair.session.received)
    else:
        with pytest.raises(LocalProtocolError, match="can't change"):
            pair.dialect.update(update)
        assert not pair.dialect.queued


def test_a_model_that_takes_no_update_refuses_one(model: str, pair: Pair) -> None:
    instruction = {"parts": [{"text": "Be kind."}]}
    pair.session.receive(json.dumps({"contextUpdate": {"systemInstruction": instruction}}), pair.now)
    assert pair.alive is ("system_prompt" in table(model).update)
    if pair.alive:
        assert pair.session.setup["systemInstruction"] == instruction


def test_text_output(model: str) -> None:
    assert not table(model).text_output
    with pytest.raises(LocalProtocolError, match="in speech only"):
        GoogleDialect(SessionConfig(provider="google", model=model, output="text"))
    extra = {"generationConfig": {"responseModalities": ["TEXT"]}}
    pair = Pair(model, options=GoogleOptions(provider_extra=extra))
    pair.run()
    assert not pair.alive, "the double refuses it, too"


def test_turns_interruption_and_resumption(model: str) -> None:
    capabilities = table(model)
    assert capabilities.manual_turns
    assert capabilities.interrupt
    assert not capabilities.truncate
    assert capabilities.resume == "handle"
    assert capabilities.server_tools
    assert not capabilities.full_duplex
    options = GoogleOptions(turns="manual", server_tools=(ServerTool("googleSearch"),))
    pair = Pair(model, options=options)
    pair.run()
    pair.dialect.send_audio(bytes(4_800))
    pair.dialect.commit()
    assert spoke(pair.run(0.01))
    pair.dialect.interrupt()
    assert any(isinstance(frame, Interruption) for frame in pair.run())
    assert pair.alive
    handle = pair.dialect.resumption
    assert handle is not None
    resumed = Pair(model, resumption_handle=handle)
    resumed.session._script.handles.add(handle)
    resumed.run()
    assert resumed.alive
    assert resumed.session.resumed_from == handle
    resumed.dialect.send_text("Hello")
    assert spoke(resumed.run())


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_rates(model: str, rate: Any) -> None:
    capabilities = table(model)
    assert capabilities.input_rates == (16_000, 24_000)
    assert capabilities.output_rates == (24_000,)
    dialect = GoogleDialect(
        SessionConfig(provider="google", model=model, input_sample_rate=rate, output_sample_rate=rate)
    )
    assert dialect.input_sample_rate in capabilities.input_rates
    assert dialect.output_sample_rate in capabilities.output_rates


def content(role: str) -> dict[str, Any]:
    return {"clientContent": {"turns": [{"role": role, "parts": [{"text": "x"}]}], "turnComplete": False}}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gemini-3.1-flash-live-preview", {"realtimeInput": {"text": "x"}}),  # before the history's end
        ("gemini-3.8-live", content("system")),
        ("gemini-2.5-flash-native-audio-latest", content("system")),
        ("gemini-3.8-live", {"realtimeInput": {"video": {"mimeType": "text/plain", "data": "eA=="}}}),
        ("gemini-3.8-live", {"realtimeInput": {"video": {"mimeType": "image/png"}}}),
        ("gemini-3.8-live", {"realtimeInput": {"text": ""}}),
        ("gemini-3.8-live", {"contextUpdate": {"voice": "Kore"}}),
    ],
)
def test_what_the_service_refuses_the_double_refuses(model: str, message: Any) -> None:
    pair = Pair(model)
    pair.run()
    assert pair.alive
    pair.session.receive(json.dumps(message), pair.now)
    assert pair.session.closed is not None
    assert pair.session.closed[0] == 1007


def test_content_after_the_history_of_a_model_that_takes_it_first() -> None:
    pair = Pair("gemini-3.1-flash-live-preview")
    pair.run()
    pair.dialect.send_audio(bytes(4_800))
    pair.run()
    pair.session.receive(json.dumps(content("user")), pair.now)
    assert not pair.alive


@pytest.mark.parametrize(
    ("model", "updates", "history"),
    [
        ("projects/p/locations/l/publishers/google/models/gemini-3.8-live", ("system_prompt", "tools"), True),
        ("gemini-live-2.5-flash-native-audio", ("system_prompt",), True),
        ("projects/p/locations/l/publishers/google/models/gemini-3.1-flash-live", (), False),
        ("gemini-9-live", ("system_prompt", "tools"), True),
    ],
)
def test_other_models(model: str, updates: tuple[str, ...], history: bool) -> None:
    assert table(model).update == updates
    assert table(model).history is history
