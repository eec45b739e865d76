"""The programs of the page on text, greetings and history, against the offline voice."""

from __future__ import annotations

import re

import anyio
import pytest

from speko_anyio import HistoryItem
from speko_anyio.gateway import Gateway, running_gateway
from speko_anyio.gateway.local import LocalVoice

from .programs import programs

GREET, TYPE, GO_ON, CHANGE, HAND_OVER, SHOW, WRITE = programs("conversation.md")
KEY = "sk_docs_0123456789"

pytestmark = pytest.mark.anyio


def test_the_hand_over_has_at_most_forty_lines() -> None:
    assert len(HAND_OVER.source.splitlines()) <= 40


GREETING = "Good morning, this is the front desk."

VOICE = {
    GREET: re.escape(GREETING),
    TYPE: r"I can tell the time, call your tools, and repeat what I hear\.",
    GO_ON: r"(HistoryItem\(role=.*\n){3}HistoryItem\(role='assistant', text='Today is \w+\.'.*",
    CHANGE: r"(?i)rain in oslo\.",
    SHOW: r"this service takes no images; .*",
    WRITE: r"Hello! I am the offline voice\. .*",
}
"""What each program says with the offline voice."""


def said_in(printed: str) -> list[tuple[str, str]]:
    """The items of a history that a program has printed, with all words, heard or not."""
    items = [eval(line, {"HistoryItem": HistoryItem}) for line in printed.splitlines()]
    return [(item.role, f"{item.text} {item.unheard}".strip()) for item in items]


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
    assert said_in(capsys.readouterr().out) == [
        ("assistant", "How can I help?"),
        ("user", "Hello!"),
        ("assistant", "Hello! I am the offline voice. Ask me what time it is."),
        ("user", "Transfer me to billing."),
        ("tool", "Billing takes over."),
        ("assistant", "Billing takes over."),
        ("assistant", "How can I help?"),
        ("user", "Find invoice seven."),
        ("tool", "Invoice 7 is paid."),
        ("assistant", "Invoice 7 is paid."),
    ]
