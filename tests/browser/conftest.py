"""A gateway as `speko-anyio serve` runs it, and a real Chromium whose microphone is a WAV file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from speko_anyio.audio._pcm import silence
from speko_anyio.audio.wav import format_wav, read_wav

from ..support.patience import PATIENCE
from ..support.serve import served
from ..support.speech import spoken

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

RATE = 24_000

expect.set_options(timeout=PATIENCE * 1000)  # milliseconds

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "go-forward-ten-meters.wav"
"""A human says "go forward ten meters"."""

_QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    # There is no sound card; the clock of the audio thread runs all the same.
    "--autoplay-policy=no-user-gesture-required",
)


@pytest.fixture(scope="session")
def playground_url() -> Iterator[str]:
    with serving() as url:
        yield url


@contextmanager
def serving() -> Iterator[str]:
    """`speko-anyio serve`; gives the address that it prints for a browser, with the key in its fragment."""
    with served("--port", "0", "--database", "memory") as (server, told):
        match = re.search(r"playground (\S+)", told)
        assert match is not None, told
        yield match[1]
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A microphone that hears a human ask; see `_recording`."""
    return _recording(tmp_path_factory, read_wav(SPEECH, sample_rate=RATE).pcm)


@pytest.fixture(scope="session")
def weather_microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A microphone that hears a question which one of the page's tools answers."""
    return _recording(tmp_path_factory, spoken("What is the weather in Paris?", RATE))


@pytest.fixture(scope="session")
def curious_microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A microphone that hears a question with a long answer."""
    return _recording(tmp_path_factory, spoken("What can you do?", RATE))


def _recording(tmp_path_factory: pytest.TempPathFactory, speech: bytes) -> Path:
    """What Chromium plays from the moment that a page asks for the microphone: quiet for long enough to
    connect, then `speech`, then quiet again."""
    path = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    path.write_bytes(format_wav(silence(5, RATE) + speech + silence(3, RATE), RATE))
    return path


def hearing(recording: Path) -> tuple[str, ...]:
    """Arguments for a Chromium with this microphone and leave to use it."""
    return "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={recording}%noloop"


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*_QUIET, *arguments], chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            browser.close()
