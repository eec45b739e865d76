from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio._extras import install_extra
from speko_anyio.audio import _pcm as pcm
from speko_anyio.gateway.local import _synthesizer as module
from speko_anyio.gateway.local._synthesizer import (
    MAX_TEXT,
    UnknownVoiceError,
    pieces,
    speak_to_pcm,
    synthesizer,
)


@given(st.text(max_size=1000))
def test_pieces_keep_the_words_and_are_short(text: str) -> None:
    cut = list(pieces(text))
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 200 for piece in cut)


def test_pieces_end_with_sentences() -> None:
    assert list(pieces("It is 3.5 degrees. Bye! ")) == ["It is 3.5 degrees.", "Bye!"]
    assert sum(map(len, pieces("word " * 2000))) <= MAX_TEXT


@pytest.mark.speech
@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_it_speaks(rate: int) -> None:
    spoken = speak_to_pcm("What time is it?", rate)
    assert 0.5 < pcm.duration(spoken, rate) < 2
    assert -40 < pcm.rms_dbfs(spoken) < -6


@pytest.mark.speech
def test_voices_differ_and_do_not_stick() -> None:
    # espeak-ng carries its pitch over from call to call, so the same text varies by 3 %; "de" is 8 % shorter.
    usual = pytest.approx(len(speak_to_pcm("nine hundred", 16_000)), rel=0.04)
    assert len(speak_to_pcm("nine hundred", 16_000, voice="de")) != usual
    assert len(speak_to_pcm("nine hundred", 16_000)) == usual


@pytest.mark.speech
@pytest.mark.parametrize("voice", ["alloy", "../../etc/passwd", "", "en\0us", "x" * 500])
def test_unknown_voices_are_refused(voice: str) -> None:
    with pytest.raises(UnknownVoiceError, match="has no voice"):
        synthesizer().check_voice(voice)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_created", [])
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=re.escape(install_extra("local"))):
        speak_to_pcm("hello", 16_000)
