"""The offline voice: listens and speaks for real, with PyPI packages alone (extra ``local``).

Importing this package loads none of the extra's packages; `LocalVoice` does when it is entered.
"""

from __future__ import annotations

from .offline_voice import LocalVoice
from .synthesizer import UnknownVoiceError, speak_to_pcm
from .voice_session import VoiceSession

__all__ = ["LocalVoice", "UnknownVoiceError", "VoiceSession", "speak_to_pcm"]
