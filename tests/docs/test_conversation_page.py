"""The programs of the page on text, greetings and history, against the doubles and the offline voice."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from speko_anyio import XAI, BadRequestError, Google, HistoryItem, OpenAI
from speko_anyio.gateway import Gateway, ProviderHandler, running_gateway
from speko_anyio.gateway.local import LocalVoice
from speko_anyio.gateway.local._dialogue import GREETING as LOCAL_GREETING
from speko_anyio.testing.providers import (
    CallTools,
    GoogleDouble,
    OpenAIDouble,
    ProviderDouble,
    Reply,
    Say,
    XAIDouble,
)

from .programs import Program, programs

GREET, TYPE, GO_ON, CHANGE, HAND_OVER, SHOW, WRITE = programs("conversation.md")
KEY = "sk_docs_0123456789"

pytestmark = pytest.mark.anyio


def test_the_hand_over_has_at_most_forty_lines() -> None:
    assert len(HAND_OVER.source.splitlines()) <= 40


GREETING = "Good morning, this is the front desk."

VOICE = {
    GREET: re.escape(GREETING),
    TYPE: r"I can tell you the time and the date, .* And interrupt me whenever you like\.",
    GO_ON: r"(HistoryItem\(role=.*\n){3}HistoryItem\(role='assistant', text='Today is \w+, \w+ \d+\.'.*",
    CHANGE: r"(?i)rain in oslo\.",
    SHOW: r"this service takes no images; .*",
    WRITE: r"Hello! I am the offline voice\. .*",
}
"""What each program says with the offline voice."""


def said_in(printed: str) -> list[tuple[str, str]]:
    """The items of a history that a program has printed, with all words, heard or not."""
    items = [eval(line, {"HistoryItem": HistoryItem}) for line in printed.splitlines()]
    return [(item.role, f"{item.text} {item.unheard}".strip()) for item in items]


HANDED_OVER = [
    ("assistant", "How can I help?"),
    ("user", "Hello!"),
    ("assistant", LOCAL_GREETING),
    ("user", "Transfer me to billing."),
    ("tool", "Billing takes over."),
    ("assistant", "Billing takes over."),
    ("assistant", "How can I help?"),
    ("user", "Find invoice seven."),
    ("tool", "Invoice 7 is paid."),
    ("assistant", "Invoice 7 is paid."),
]


@pytest.mark.speech
async def test_the_offline_voice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with anyio.fail_after(90):
        async with running_gateway(Gateway(handlers={"local": LocalVoice()}, api_keys=[KEY])) as url:
            monkeypatch.setenv("SPEKO_API_KEY", KEY)
            monkeypatch.setenv("SPEKO_BASE_URL", url)
            for program, said in VOICE.items():
                await program.run(monkeypatch)
                assert re.fullmatch(said, capsys.readouterr().out.strip()), program
            await HAND_OVER.run(monkeypatch)
    assert said_in(capsys.readouterr().out) == HANDED_OVER


MODELS = {"openai": "gpt-realtime-2.1", "xai": "grok-voice-latest", "google": "gemini-3.8-live"}
DOUBLES: dict[str, tuple[type[ProviderDouble[Any]], type[Any]]] = {
    "openai": (OpenAIDouble, OpenAI),
    "xai": (XAIDouble, XAI),
    "google": (GoogleDouble, Google),
}
REPLIES: dict[Program, tuple[Reply, ...]] = {
    GREET: (),
    TYPE: (Say("I can talk."),),
    GO_ON: (Say("It is Monday."),),
    CHANGE: (CallTools([("get_weather", {"city": "Oslo"})]), Say("It rains.")),
    HAND_OVER: (
        Say(LOCAL_GREETING),
        CallTools([("transfer_to_billing", {})]),
        Say("Billing takes over."),
        CallTools([("find_invoice", {"number": 7})]),
        Say("Invoice 7 is paid."),
    ),
    SHOW: (Say("A dot."),),
    WRITE: (Say("Hello."),),
}
"""What the model of a double answers each program."""

SAYS = {
    GREET: re.escape(GREETING),
    TYPE: "I can talk.",
    GO_ON: r"(HistoryItem\(.*\n){3}HistoryItem\(role='assistant', text='.*",
    CHANGE: "It rains.",
    SHOW: "A dot.|.* takes no images; .*",
    WRITE: "Hello.",
}


@pytest.mark.parametrize("name", DOUBLES)
@pytest.mark.parametrize("program", REPLIES, ids=repr)
async def test_the_doubles(
    program: Program, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, account_kind = DOUBLES[name]
    double = kind(REPLIES[program], api_key=KEY)
    with anyio.fail_after(30):
        async with double.serve() as provider_url:
            account = account_kind(KEY, base_url=provider_url)
            able = account.capabilities(MODELS[name])
            handler = ProviderHandler(account, models={"any": MODELS[name]})
            async with running_gateway(Gateway(handlers={"local": handler}, api_keys=[KEY])) as url:
                monkeypatch.setenv("SPEKO_API_KEY", KEY)
                monkeypatch.setenv("SPEKO_BASE_URL", url)
                if program is WRITE and not able.text_output:
                    with pytest.raises(BadRequestError, match="text only"):
                        await program.run(monkeypatch)
                    return
                await program.run(monkeypatch)
    printed = capsys.readouterr().out
    if program is HAND_OVER:
        assert said_in(printed) == HANDED_OVER
        assert len(double.sessions) == 2
        assert "The tool transfer_to_billing was called with" in str(double.sessions[1].received)
    else:
        assert re.fullmatch(SAYS[program], printed.strip())
