"""The offline voice: listens and speaks for real, with PyPI packages alone (extra ``local``).

Importing this package loads none of the extra's packages; `LocalVoice` does when it is entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from speko_anyio._lazy import lazy_exports

if TYPE_CHECKING:
    from ._offline_voice import LocalVoice
    from ._synthesizer import UnknownVoiceError, speak_to_pcm
    from ._voice_session import VoiceSession

__all__ = ["LocalVoice", "UnknownVoiceError", "VoiceSession", "speak_to_pcm"]

# Loaded on first use: a client that only speaks a question needs nothing of the gateway.
lazy_exports(
    __name__,
    {
        "_offline_voice": "LocalVoice",
        "_synthesizer": "UnknownVoiceError speak_to_pcm",
        "_voice_session": "VoiceSession",
    },
    extra="gateway",
    requires={"starlette"},
)
