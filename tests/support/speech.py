"""Spoken questions, always the same samples."""

from __future__ import annotations

import functools

from speko_anyio.gateway.local import speak_to_pcm


@functools.cache
def spoken(text: str, sample_rate: int) -> bytes:
    """PCM16 mono of `text` at `sample_rate`, by the offline voice."""
    return speak_to_pcm(text, sample_rate)
