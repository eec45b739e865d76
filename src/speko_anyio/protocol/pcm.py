"""PCM16 in messages: how much one takes, and whole samples out of those that end in the middle of one."""

from __future__ import annotations

from typing import Final

MAX_AUDIO_MESSAGE: Final = 32 * 1024
"""Bytes of PCM16 in one binary message we send; more is split. 0.7 s at 24 kHz: far below every known
server's limit, and small enough that a control message soon gets its turn."""


def whole_samples(odd: bytes, pcm: bytes) -> tuple[bytes, bytes]:
    """What `pcm` completes after the `odd` byte of the message before, and the odd byte that is left.

    An odd byte is carried into the next message of its direction (speko-protocol, "Rules").
    """
    pcm = odd + pcm
    whole = len(pcm) & ~1
    return pcm[:whole], pcm[whole:]
