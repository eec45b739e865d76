"""`Converter`: audio whose rates may change from piece to piece."""

from __future__ import annotations

from speko_anyio.protocol._resampling import Converter
from tests.providers.fake_resampling import HELD, FakeResampling

PCM = bytes(range(200))


def test_equal_rates_pass_through_without_a_resampler() -> None:
    def refuse(source: int, target: int) -> FakeResampling:
        raise AssertionError("nothing is to be resampled")

    converter = Converter(refuse)
    assert converter.convert(PCM, 8000, 8000) == PCM
    assert converter.flush() == b""
    converter.reset()
    assert converter.convert(PCM, 8000, 8000) == PCM


def test_a_stream_is_converted_piece_by_piece_and_flushed() -> None:
    converter = Converter(FakeResampling)
    assert len(converter.convert(PCM, 8000, 16_000)) == 2 * (len(PCM) - 2 * HELD)
    assert len(converter.convert(PCM, 8000, 16_000)) == 2 * len(PCM)
    assert len(converter.flush()) == 2 * 2 * HELD
    assert converter.flush() == b""


def test_a_new_rate_begins_a_new_stream_behind_the_rest_of_the_old() -> None:
    converter = Converter(FakeResampling)
    converter.convert(PCM, 8000, 16_000)
    assert len(converter.convert(PCM, 16_000, 16_000)) == 2 * 2 * HELD + len(PCM)


def test_a_stream_that_is_cut_off_leaves_nothing() -> None:
    converter = Converter(FakeResampling)
    converter.convert(PCM, 8000, 16_000)
    converter.reset()
    assert converter.flush() == b""
