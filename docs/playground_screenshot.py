"""Take the screenshot ``playground.png`` of the playground in a real browser, after a few questions.

Run it from the project's root: ``python -m docs.playground_screenshot``.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import expect

from speko_anyio.audio.wav import format_wav
from speko_anyio.gateway.local import speak_to_pcm
from tests.browser.conftest import RATE, chromium, hearing, serving

PICTURE = Path(__file__).parent / "playground.png"
PAUSE = bytes(2 * RATE * 5)


def main() -> None:
    """Ask three questions, and take the picture while the last one is answered."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        questions = ["What time is it?", "What is the weather in Paris?", "Roll the dice."]
        speech = PAUSE + b"".join(speak_to_pcm(question, RATE) + PAUSE for question in questions)
        (folder / "microphone.wav").write_bytes(format_wav(speech, RATE))
        browser = stack.enter_context(chromium(*hearing(folder / "microphone.wav")))
        page = browser.new_page(viewport={"width": 1120, "height": 980})
        page.goto(stack.enter_context(serving()))
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("log")).to_contain_text("You rolled a", timeout=90_000)
        expect(page.locator("#speaker-level")).not_to_have_attribute("value", re.compile(r"^0$"))
        page.screenshot(path=PICTURE)


if __name__ == "__main__":
    main()
