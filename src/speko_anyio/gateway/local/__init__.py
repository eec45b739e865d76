"""The offline voice: really listens and really speaks, from PyPI packages alone (extra ``local``).

Importing this package loads none of the extra's packages; `LocalVoice` does when it is entered.
"""

from __future__ import annotations

from .session import VoiceSession
from .speech import UnknownVoiceError, speak_to_pcm
from .voice import LocalVoice

__all__ = ["LocalVoice", "UnknownVoiceError", "VoiceSession", "speak_to_pcm"]
