from __future__ import annotations

import pytest

from speko_anyio.protocol.pcm import whole_samples


@pytest.mark.parametrize(
    ("odd", "pcm", "whole", "left"),
    [
        (b"", b"", b"", b""),
        (b"", b"a", b"", b"a"),
        (b"", b"ab", b"ab", b""),
        (b"", b"abc", b"ab", b"c"),
        (b"a", b"", b"", b"a"),
        (b"a", b"b", b"ab", b""),
        (b"a", b"bc", b"ab", b"c"),
        (b"a", b"bcd", b"abcd", b""),
    ],
)
def test_whole_samples(odd: bytes, pcm: bytes, whole: bytes, left: bytes) -> None:
    assert whole_samples(odd, pcm) == (whole, left)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 20])
def test_cut_anywhere_the_samples_are_the_same(size: int) -> None:
    stream = bytes(range(20))
    odd, samples = b"", b""
    for start in range(0, len(stream), size):
        whole, odd = whole_samples(odd, stream[start : start + size])
        assert len(whole) % 2 == 0
        samples += whole
    assert (samples, odd) == (stream, b"")
