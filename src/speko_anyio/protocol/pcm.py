"""Whole samples out of a stream of bytes: PCM16 is two bytes a sample, a message may end between them."""

from __future__ import annotations


def whole_samples(odd: bytes, pcm: bytes) -> tuple[bytes, bytes]:
    """What `pcm` completes after the `odd` byte of the message before, and the odd byte that is left.

    An odd byte is carried into the next message of its direction (speko-protocol, "Rules").
    """
    pcm = odd + pcm
    whole = len(pcm) & ~1
    return pcm[:whole], pcm[whole:]
