"""PCM16 in messages: accepted types, the size of a message, and samples that are split across messages."""

from __future__ import annotations

import sys
from typing import Final, TypeAlias

from .errors import LocalProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Audio from callers: bytes, or a buffer of int16 such as an `array.array` or a numpy array."""

MAX_AUDIO_MESSAGE: Final = 32 * 1024
"""Bytes of PCM16 in one binary message we send; more is split. 0.7 s at 24 kHz: far below every known
server's limit, and small enough that a control message soon gets its turn."""


MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 192_000
"""The range of sample rates that a session may have: from that of telephones to that of common hardware. One
outside it is a mistake, and a very low one would make a little audio, resampled, fill the memory."""


def is_sample_rate(rate: int) -> bool:
    """Whether a session may have this rate, in samples a second."""
    return MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE


_BYTES: Final = frozenset("Bbc")
"""Buffer formats of plain bytes, which are taken to be PCM16."""

_NATIVE: Final = {"@": sys.byteorder, "=": sys.byteorder, "<": "little", ">": "big", "!": "big"}
"""The byte orders of the `struct` module."""


_TO_PCM: Final = "speko_anyio.audio.numpy_to_pcm(samples)"


def pcm_bytes(pcm: Buffer) -> bytes:
    """Return the bytes of `pcm`, which is bytes or an array of mono, little-endian int16 samples.

    Raises TypeError for anything else: other samples, or the header of a WAV file, read as PCM16, are noise.
    """
    if type(pcm) is bytes:
        return _bare(pcm)
    try:
        view = memoryview(pcm)
    except (TypeError, ValueError, BufferError):
        raise TypeError(
            f"audio must be bytes of PCM16 or an array of int16, not {type(pcm).__name__}; {_advice(pcm)}"
        ) from None
    order, code = view.format[:-1] or "@", view.format[-1:]
    if sum(size > 1 for size in view.shape or ()) > 1:
        wrong = f"an array of shape {view.shape}"
        how = f"pass one channel, such as samples[:, 0], or {_TO_PCM}, which mixes them down"
    elif code in _BYTES or (code == "h" and _NATIVE.get(order) == "little"):
        return _bare(view.tobytes())
    elif code == "h":
        wrong, how = "a big-endian array", "with numpy, pass samples.astype('<i2')"
    elif code in "efdg":
        wrong = "an array of floating-point numbers"
        how = f"with numpy, pass {_TO_PCM} for samples from -1 to 1"
    else:
        wrong = f"an array with items of {view.itemsize} bytes (format {view.format!r})"
        how = "scale the samples to 16 bits and, with numpy, pass samples.astype('<i2')"
    raise TypeError(f"audio must be mono PCM16, little-endian int16, but this is {wrong}; {how}")


def _bare(pcm: bytes) -> bytes:
    if pcm[:4] == b"RIFF" and pcm[8:12] == b"WAVE":
        raise TypeError(
            "audio must be bare PCM16, but this begins with the header of a WAV file; pass "
            "speko_anyio.audio.wav.parse_wav(content, sample_rate=...).pcm"
        )
    return pcm


def _advice(audio: object) -> str:
    """Say what to pass instead of an object that is not a buffer."""
    if isinstance(audio, str) or hasattr(audio, "__fspath__"):
        return "for a WAV file pass speko_anyio.audio.wav.read_wav(path, sample_rate=...).pcm" + (
            ", for base64 text base64.b64decode(text)" if isinstance(audio, str) else ""
        )
    if isinstance(audio, list | tuple) and audio:
        if any(isinstance(item, float) for item in audio):
            return (
                "for floating-point samples from -1 to 1 pass "
                "array.array('h', [round(max(-1, min(1, x)) * 32767) for x in samples])"
            )
        if all(isinstance(item, int) for item in audio):
            return "for a list of samples pass array.array('h', samples)"
        if all(isinstance(item, bytes | bytearray) for item in audio):
            return "pass b''.join(pieces)"
    if hasattr(audio, "pcm"):
        return "pass its .pcm"
    if hasattr(audio, "__array__") or hasattr(audio, "__array_interface__"):
        return f"with numpy, pass {_TO_PCM}"
    if callable(getattr(audio, "read", None)):
        return "pass the bytes that its read() returns"
    return "pass bytes"


def half_a_sample(size: int) -> LocalProtocolError:
    """Return the error for audio of `size` bytes, an odd number."""
    return LocalProtocolError(
        f"audio is PCM16, two bytes a sample, but this has {size} bytes; "
        "send whole samples and keep the odd byte for the next call"
    )


def whole_samples(odd: bytes, pcm: bytes) -> tuple[bytes, bytes]:
    """Join the `odd` byte of the message before and `pcm`; return whole samples and the odd byte left.

    An odd byte is carried into the next message of its direction (speko-protocol, "Rules").
    """
    pcm = odd + pcm
    whole = len(pcm) & ~1
    return pcm[:whole], pcm[whole:]
