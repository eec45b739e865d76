"""Whole samples out of a stream of bytes: PCM16 is two bytes a sample, a message may end between them."""

from __future__ import annotations


class Alignment:
    """The odd byte of one direction, carried into the next message (speko-protocol, "Rules")."""

    __slots__ = ("odd",)

    def __init__(self) -> None:
        self.odd = b""
        """Half a sample that waits for its other half."""

    def push(self, pcm: bytes) -> bytes:
        """The whole samples that `pcm` completes, in order."""
        pcm = self.odd + pcm
        whole = len(pcm) & ~1
        self.odd = pcm[whole:]
        return pcm[:whole]

    def reset(self) -> None:
        """The stream starts anew: forget half a sample that will never be whole."""
        self.odd = b""
