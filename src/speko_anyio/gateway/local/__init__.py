"""The offline voice: listens and speaks for real, with PyPI packages alone (extra ``local``).

Importing this package loads none of the extra's packages; `LocalVoice` does when it is entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from speko_anyio._lazy import lazy_exports

if TYPE_CHECKING:
    from ._dialogue import SmallTalk
    from ._ears import ExpectsPhrases, PocketsphinxEar, RecognizesAhead, WhisperEar
    from ._grammar import Grammar
    from ._offline_voice import LocalVoice
    from ._synthesizer import Synthesizer, UnknownVoiceError, speak_to_pcm
    from ._voice_session import VoiceSession

__all__ = [
    "ExpectsPhrases",
    "Grammar",
    "LocalVoice",
    "PocketsphinxEar",
    "RecognizesAhead",
    "SmallTalk",
    "Synthesizer",
    "UnknownVoiceError",
    "VoiceSession",
    "WhisperEar",
    "speak_to_pcm",
]

# Loaded on first use: a client that only speaks a question needs nothing of the gateway.
lazy_exports(
    __name__,
    {
        "_dialogue": "SmallTalk",
        "_ears": "ExpectsPhrases PocketsphinxEar RecognizesAhead WhisperEar",
        "_grammar": "Grammar",
        "_offline_voice": "LocalVoice",
        "_synthesizer": "Synthesizer UnknownVoiceError speak_to_pcm",
        "_voice_session": "VoiceSession",
    },
    extra="gateway",
    requires={"starlette"},
)
