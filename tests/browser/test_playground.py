"""The playground in a real browser: a person opens the page, talks, reads and hears the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from speko_anyio import HistoryItem

from .conftest import chromium, hearing

pytestmark = [pytest.mark.browser, pytest.mark.speech]

A_SECOND_OR_MORE = re.compile(r"^[1-9]\d*\.\d s$")


def watched(page: Page) -> list[str]:
    """The page's complaints, as they come: uncaught errors, and what the browser's console calls an error."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    return complaints


HEARD = r"(\w+ )*forward ten\b"
"""Of "go forward ten meters". On a busy machine Chromium loses some of the microphone's samples before the
page gets them, and one word may be misheard; the other tests of the offline voice hear it whole."""


@pytest.fixture
def talking_page(microphone: Path) -> Iterator[Page]:
    with chromium(*hearing(microphone)) as browser:
        yield browser.new_page()


def seconds(page: Page, name: str) -> float:
    return float((page.locator(f"#{name}").text_content() or "").removesuffix(" s"))


def test_hands_free_it_hears_shows_and_plays(talking_page: Page, playground_url: str) -> None:
    page = talking_page
    complaints = watched(page)
    page.goto(playground_url)
    expect(page.get_by_label("Provider")).to_have_value("local")
    assert "key" not in page.url, "the key stays out of the address"
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_have_text("connected: just speak")
    conversation = page.get_by_role("log")
    expect(conversation).to_contain_text(re.compile(rf"You{HEARD}"))
    expect(conversation).to_contain_text("AssistantSorry, I didn't catch that")
    expect(page.locator("#latest")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(page.locator("#latency rect")).to_have_count(1)
    expect(page.locator("#latency")).to_have_attribute("aria-label", re.compile(r"turn: \d+ ms$"))
    # All of the answer came out of the speaker: more than a second, and nothing is left.
    expect(page.locator("#played")).to_have_text(A_SECOND_OR_MORE)
    expect(page.locator("#buffered")).to_have_text("0.0 s")
    assert seconds(page, "sent") > 3
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("not connected")
    expect(conversation).to_contain_text("session over: client_closed (1000)")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert complaints == []


def test_push_to_talk_by_keyboard_alone(talking_page: Page, playground_url: str) -> None:
    page = talking_page
    complaints = watched(page)
    page.goto(playground_url)
    page.get_by_role("radio", name="Push to talk").press("Space")
    page.get_by_role("button", name="Start").press("Enter")
    talk = page.locator("#talk")
    expect(talk).to_be_focused()
    page.keyboard.down("Space")
    expect(talk).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#sent")).to_have_text(re.compile(r"^(9|\d\d+)\.\d s$"))
    page.keyboard.up("Space")
    expect(talk).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("log")).to_contain_text(re.compile(rf"You{HEARD}"))
    before = seconds(page, "sent")
    expect(page.locator("#played")).to_have_text(A_SECOND_OR_MORE)
    assert seconds(page, "sent") == before, "nothing is sent while the button is up"
    assert complaints == []


def test_an_interrupt_silences_the_assistant(curious_microphone: Path, playground_url: str) -> None:
    with chromium(*hearing(curious_microphone)) as browser:
        page = browser.new_page()
        page.goto(playground_url)
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#played")).to_have_text(re.compile(r"^(0\.[3-9]|[1-9].*) s$"))
        page.get_by_role("button", name="Interrupt").click()
        expect(page.locator("#interruptions")).to_have_text("1")
        expect(page.locator("#buffered")).to_have_text("0.0 s")


def test_a_tool_call_is_answered_by_the_page_and_shown(weather_microphone: Path, playground_url: str) -> None:
    with chromium(*hearing(weather_microphone)) as browser:
        page = browser.new_page()
        page.goto(playground_url)
        page.get_by_role("button", name="Start").click()
        conversation = page.get_by_role("log")
        call = 'Toolget_weather({"city":"paris"}) → It is sunny in paris'
        expect(conversation).to_contain_text(call)
        expect(conversation).to_contain_text("AssistantIt is sunny in paris")


def test_a_typed_conversation_needs_no_microphone(playground_url: str) -> None:
    with chromium() as browser:  # with nobody to allow a microphone
        page = browser.new_page()
        complaints = watched(page)
        page.goto(playground_url)
        conversation = page.get_by_role("log")
        field = page.get_by_label("Type to the assistant")
        download = page.get_by_role("button", name="Download transcript")
        suggestion = page.get_by_role("button", name="What time is it?")
        expect(page.get_by_text("Nothing has been said yet.")).to_be_visible()
        for control in (field, suggestion, download):
            expect(control).to_be_disabled()
        page.get_by_role("radio", name="Typing").check()
        page.get_by_label("The assistant speaks first").check()
        page.get_by_role("button", name="Start").click()
        expect(conversation).to_contain_text("AssistantHello! I am the offline voice.")
        expect(page.get_by_text("Nothing has been said yet.")).to_be_hidden()
        expect(field).to_be_focused()
        field.fill("What is the weather in Paris?")
        page.keyboard.press("Enter")
        expect(field).to_have_value("")
        expect(conversation).to_contain_text("YouWhat is the weather in Paris?")
        expect(conversation).to_contain_text("AssistantIt is sunny in paris, says this page")
        with page.expect_download() as downloaded:
            download.click()
        assert downloaded.value.suggested_filename == "conversation.json"
        items = HistoryItem.from_json(downloaded.value.path().read_bytes())
        assert [item.role for item in items] == ["assistant", "user", "tool", "assistant"]
        assert items[2].name == "get_weather"
        page.get_by_role("button", name="Stop").click()
        expect(field).to_be_disabled()
        assert complaints == []


def test_one_click_on_a_suggestion_asks_it(playground_url: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(playground_url)
        page.get_by_role("radio", name="Typing").check()
        page.get_by_role("button", name="Start").click()
        page.get_by_role("button", name="What time is it?").click()
        expect(page.get_by_role("log")).to_contain_text(re.compile("YouWhat time is it.AssistantIt is "))


def test_a_provider_that_takes_no_text_says_so(playground_url: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(playground_url)
        page.get_by_label("Provider").select_option("echo")
        page.get_by_role("radio", name="Typing").check()
        page.get_by_label("The assistant speaks first").check()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_have_text("connected: type")
        expect(page.get_by_label("Type to the assistant")).to_be_disabled()
        expect(page.get_by_placeholder("this provider takes no text")).to_be_visible()
        expect(page.get_by_role("log")).to_contain_text("this provider can't speak first")


def test_a_refused_microphone_is_explained(playground_url: str) -> None:
    with chromium() as browser:  # with nobody to allow it
        page = browser.new_page()
        page.goto(playground_url)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("not allowed to use the microphone")
        expect(page.get_by_role("status")).to_have_text("not connected")
        expect(page.get_by_role("button", name="Start")).to_be_enabled()


def test_a_wrong_key_is_explained(talking_page: Page, playground_url: str) -> None:
    page = talking_page
    page.goto(playground_url.partition("#")[0])
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
    page.get_by_label("API key").fill("sk_wrong")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("does not accept this API key")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


def test_the_page_may_run_nothing_but_its_own_files(playground_url: str) -> None:
    answer = httpx.get(playground_url.partition("#")[0])
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"\son\w+=|style=|<script>", answer.text), "the policy would stop it"
