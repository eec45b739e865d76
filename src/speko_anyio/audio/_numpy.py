"""PCM16 to and from numpy arrays. numpy is imported only here, when one of these is called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Literal

from .._extras import install_extra
from ..protocol._pcm import Buffer, pcm_bytes
from ._pcm import FULL_SCALE, SAMPLE_BYTES

if TYPE_CHECKING:
    import numpy.typing as npt

_MAX_CHANNELS: Final = 32
"""More rows or columns than this are not channels."""

_LOUDEST: Final = 16.0
"""Floating-point samples beyond this, 24 dB above full scale, are not samples from -1 to 1."""


def pcm_to_numpy(pcm: Buffer, dtype: Literal["float32", "int16"] = "float32") -> npt.NDArray[Any]:
    """Return PCM16 mono as a new array of one dimension: floats from -1 to 1, or the samples as they are.

    ValueError for an odd number of bytes, TypeError for an array of other samples, ImportError without numpy.
    """
    np = _import_numpy()
    if dtype not in ("float32", "int16"):
        raise ValueError(f"dtype must be 'float32' or 'int16', not {dtype!r}; convert the result with astype")
    content = pcm_bytes(pcm)
    if len(content) % SAMPLE_BYTES:
        raise ValueError(f"{len(content)} bytes are not whole PCM16 samples; pass an even number")
    values = np.frombuffer(content, "<i2").astype(dtype)
    samples: npt.NDArray[Any] = values / np.float32(FULL_SCALE) if dtype == "float32" else values
    return samples


def numpy_to_pcm(samples: Any, *, channel_axis: int | None = None) -> bytes:
    """Return an array as PCM16 mono, the audio that `send_audio` takes.

    - `samples`: int16 of either byte order, or floats from -1 to 1; anything that numpy can read as an array
      of those, such as a list or a tensor in main memory. Floats beyond that range are clipped.
    - `channel_axis`: the axis of the channels in an array of two dimensions, 0 or 1; by default the shorter
      one. The channels are mixed down to their mean. Split interleaved channels first, with ``reshape``.

    It does not change the sample rate: see `resample`. Raises TypeError for other samples, ValueError for
    another shape, NaN, infinity and floats far beyond the range, ImportError without numpy.
    """
    np = _import_numpy()
    try:
        values = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"numpy can't read {type(samples).__name__} as an array ({error}); pass an array of samples"
        ) from None
    kind = values.dtype
    if not (kind.kind == "f" or (kind.kind == "i" and kind.itemsize == SAMPLE_BYTES)):
        raise TypeError(
            f"samples must be int16 or floats from -1 to 1, not {kind}; scale them to one of these, such as "
            "values / 2**31 for int32"
        )
    values = _mono(np, values, channel_axis)
    if kind.kind == "i":
        return bytes(values.astype("<i2").tobytes())
    values = values.astype(np.float64)
    if values.size and not np.isfinite(values).all():
        raise ValueError("samples must be finite numbers, but some are NaN or infinite; remove them")
    if values.size and np.abs(values).max() > _LOUDEST:
        raise ValueError(
            f"floating-point samples are from -1 to 1, but one is {values[np.abs(values).argmax()]:g}; pass "
            "samples.astype('int16') if they have the range of int16, or scale them"
        )
    scaled = np.rint(values * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1)
    return bytes(scaled.astype("<i2").tobytes())


def _mono(np: Any, values: Any, channel_axis: int | None) -> Any:
    """Return the mean of the channels."""
    if values.ndim < 2 and channel_axis is None:
        return values.reshape(-1)
    if values.ndim != 2 or channel_axis not in (None, 0, 1, -1, -2):
        raise ValueError(
            f"an array of shape {values.shape} with channel_axis={channel_axis} is not audio; pass one "
            "dimension for mono, or two with the channels along one of them"
        )
    axis = channel_axis
    if axis is None:
        rows, columns = values.shape
        if rows == columns and rows > 1:
            raise ValueError(
                f"an array of shape {values.shape} does not show which axis has the channels; pass "
                "channel_axis"
            )
        axis = 0 if rows < columns else 1
    channels = values.shape[axis]
    if not 1 <= channels <= _MAX_CHANNELS:
        raise ValueError(
            f"audio has 1 to {_MAX_CHANNELS} channels, not {channels}; pass the right channel_axis, or mono"
        )
    if values.dtype.kind == "f":
        return values.mean(axis=axis, dtype=np.float64)
    # As `downmix`: rounded down.
    return values.sum(axis=axis, dtype=np.int64) // channels


def _import_numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise ImportError(
            f"arrays need numpy, which is not installed; {install_extra('audio')}, or work with bytes",
            name="numpy",
        ) from error
