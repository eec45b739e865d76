"""G.711: every sample and every byte, against the tables of the standard and against `audioop`."""

from __future__ import annotations

import importlib.util
import itertools
import struct
import sys
import warnings
from array import array
from bisect import bisect_right
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.protocol._pcm import Buffer
from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.telephony import g711

SAMPLES = range(-32_768, 32_768)
PCM = struct.pack("<65536h", *SAMPLES)
BYTES = bytes(range(256))

# The decision values, as the tables of G.711 give them: intervals of each segment, and their width.
ULAW_SEGMENTS = ((1, 1), (15, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128), (16, 256))
ALAW_SEGMENTS = ((32, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64), (16, 128))


def decision_values(segments: tuple[tuple[int, int], ...]) -> list[int]:
    """Return x(0) to x(128), in the units of the table."""
    widths = itertools.chain.from_iterable([width] * count for count, width in segments)
    return list(itertools.accumulate(widths, initial=0))


ULAW = decision_values(ULAW_SEGMENTS)
ALAW = decision_values(ALAW_SEGMENTS)


def interval(values: list[int], magnitude: int) -> int:
    """Return the number of the interval that holds the magnitude; what is too large is in the last one."""
    return min(bisect_right(values, magnitude) - 1, 127)


def ulaw_of(sample: int) -> int:
    value = sample >> 2
    # A character signal is sent with all its bits inverted.
    return 0xFF - interval(ULAW, value) if value >= 0 else 0x7F - interval(ULAW, -value)


def alaw_of(sample: int) -> int:
    value = sample >> 3
    # Every other bit is inverted. The first interval below zero begins right there.
    code = 0x80 + interval(ALAW, value) if value >= 0 else interval(ALAW, ~value)
    return code ^ 0x55


def sample_of_ulaw(byte: int) -> int:
    number = ~byte & 0x7F
    middle = 0 if number == 0 else (ULAW[number] + ULAW[number + 1]) // 2
    return 4 * (middle if byte & 0x80 else -middle)


def sample_of_alaw(byte: int) -> int:
    number = (byte ^ 0x55) & 0x7F
    middle = (ALAW[number] + ALAW[number + 1]) // 2
    return 8 * (middle if byte & 0x80 else -middle)


def load_without_audioop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the module once more, as it is where `audioop` is missing."""
    monkeypatch.setitem(sys.modules, "audioop", None)
    spec = importlib.util.spec_from_file_location("speko_anyio.telephony.g711_tables", g711.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["as installed", "tables"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return g711 if request.param == "as installed" else load_without_audioop(monkeypatch)


def test_the_oracle_has_the_ends_of_the_standards_tables() -> None:
    assert len(ULAW) == len(ALAW) == 129
    assert (ULAW[-1], ALAW[-1]) == (8159, 4096)
    assert [ULAW[number] for number in (1, 2, 16, 32, 48, 64, 80, 96, 112)] == [
        *(1, 3, 31, 95, 223, 479, 991, 2015, 4063)
    ]
    assert [ALAW[number] for number in (32, 48, 64, 80, 96, 112)] == [64, 128, 256, 512, 1024, 2048]


def test_every_sample_is_encoded_by_the_standard(codec: ModuleType) -> None:
    assert codec.pcm_to_ulaw(PCM) == bytes(map(ulaw_of, SAMPLES))
    assert codec.pcm_to_alaw(PCM) == bytes(map(alaw_of, SAMPLES))


def test_every_byte_is_decoded_by_the_standard(codec: ModuleType) -> None:
    assert codec.ulaw_to_pcm(BYTES) == struct.pack("<256h", *map(sample_of_ulaw, BYTES))
    assert codec.alaw_to_pcm(BYTES) == struct.pack("<256h", *map(sample_of_alaw, BYTES))


def test_all_is_as_audioop_has_it(codec: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop") if codec is g711 else g711.__dict__.get("audioop")
    if audioop is None or sys.byteorder == "big":
        pytest.skip("no audioop to compare with")
    assert codec.pcm_to_ulaw(PCM) == audioop.lin2ulaw(PCM, 2)
    assert codec.pcm_to_alaw(PCM) == audioop.lin2alaw(PCM, 2)
    assert codec.ulaw_to_pcm(BYTES) == audioop.ulaw2lin(BYTES, 2)
    assert codec.alaw_to_pcm(BYTES) == audioop.alaw2lin(BYTES, 2)


def test_audioop_is_used_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load_without_audioop(monkeypatch)._USES_AUDIOOP
    monkeypatch.undo()
    assert (
        importlib.util.find_spec("audioop") is not None and sys.byteorder == "little"
    ) == g711._USES_AUDIOOP


def test_what_was_decoded_is_encoded_as_it_was(codec: ModuleType) -> None:
    # Of the two zeros of µ-law only the positive one comes back.
    assert codec.pcm_to_ulaw(codec.ulaw_to_pcm(BYTES)) == BYTES.replace(b"\x7f", b"\xff")
    assert codec.pcm_to_alaw(codec.alaw_to_pcm(BYTES)) == BYTES


@given(st.binary(max_size=700).map(lambda data: data[: len(data) & ~1]), st.integers(0, 350))
def test_pieces_give_what_the_whole_gives(pcm: bytes, at: int) -> None:
    at *= 2
    for encode, decode in ((g711.pcm_to_ulaw, g711.ulaw_to_pcm), (g711.pcm_to_alaw, g711.alaw_to_pcm)):
        encoded = encode(pcm)
        assert len(encoded) == len(pcm) // 2
        assert encode(pcm[:at]) + encode(pcm[at:]) == encoded
        assert decode(encoded[:at]) + decode(encoded[at:]) == decode(encoded)


@pytest.mark.parametrize("encode", [g711.pcm_to_ulaw, g711.pcm_to_alaw])
def test_half_a_sample_is_refused(encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="two bytes a sample, but this has 3 bytes"):
        encode(b"abc")


@pytest.mark.parametrize("encode", [g711.pcm_to_ulaw, g711.pcm_to_alaw])
def test_arrays_of_samples_are_taken_and_others_refused(encode: Callable[[Buffer], bytes]) -> None:
    samples: Any = array("h", [0, 1000, -1000])
    if sys.byteorder == "little":
        assert encode(samples) == encode(samples.tobytes())
    floats: Any = array("f", [0.5])
    with pytest.raises(TypeError, match="an array of floating-point numbers"):
        encode(floats)


def test_importing_it_warns_of_nothing_and_changes_no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "audioop", raising=False)
    before = list(warnings.filters)
    load_as_is = importlib.util.spec_from_file_location("speko_anyio.telephony.g711_again", g711.__file__)
    assert load_as_is is not None
    assert load_as_is.loader is not None
    load_as_is.loader.exec_module(importlib.util.module_from_spec(load_as_is))
    assert warnings.filters == before
