"""Barge-in: whether the user begins to talk over the assistant. No I/O, no clock.

What the user's end sends while the assistant speaks may be the user, an "mhm", noise, or the assistant's own
voice, which comes back from a loudspeaker or from the line some time later, softer, and otherwise much the
same. An answer that was cut off by mistake is lost. So in doubt this is not speech, and the service, which
hears the words, decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Final

from . import _pcm as pcm16
from ._turns import SpeechStarted, Timing, TurnDetector
from ._voice_activity import FRAME_SECONDS, energy_vad, level_of

if TYPE_CHECKING:
    from ._voice_activity import IsSpeech

_LATEST_ECHO: Final = 40
"""Frames after which an echo has come back. The way through a phone network and back takes up to half a
second."""

_COMPARED: Final = 25
"""Frames of the user that are compared with the assistant's. In fewer, other speech may look the same."""

_SAME: Final = 5.5
"""The spread in dB below which one loudness follows the other: an echo has 0 to 5 with any delay, recorded
speech over the assistant 5 to 18, and 6 or more in 97 % of cases."""

_DEEPEST: Final = 25.0
"""dB below the loudest frame of the same direction down to which differences count: noise is below."""

_STEADY: Final = 4.0
"""The spread in dB below which a sound is noise or a tone. Syllables differ more."""

_SYLLABLES: Final = 10
"""The fewest frames in which they do."""

_PAUSE: Final = 0.3
"""Seconds of silence after which speech begins anew."""


class BargeInDetector:
    """Tells when the user begins to talk over the assistant.

    It is a `TurnDetector` that also knows what the user's end plays. These do not interrupt the assistant:

    - a backchannel such as "mhm", and any other sound that is shorter;
    - the assistant's echo, which is softer, or follows its loudness up to 0.8 seconds later;
    - noise and tones, steady or beginning suddenly.

    Each call or conversation needs its own. It holds 1.3 seconds of loudness, and less than two of audio.

    Args:
        sample_rate: samples a second of the audio, PCM16 mono, in both directions.
        backchannel: seconds up to which speech is no interruption. "Uh-huh" takes up to half a second;
            interruptions are noticed that much later. With 0, all speech interrupts, and so does noise.
        echo_loss: dB by which the echo is softer than the assistant, and speech need not be. What is louder
            may still be a strong echo.
        is_speech: tells speech from noise, 20 ms at a time. `energy_vad` by default, which needs no package.
            It may have state, so each detector needs its own.

    Raises ValueError if `sample_rate` is below 50, or `backchannel` is negative or not finite.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        backchannel: float = 0.5,
        echo_loss: float = 18.0,
        is_speech: IsSpeech | None = None,
    ) -> None:
        if not 0 <= backchannel < inf:
            raise ValueError(f"backchannel is a time in seconds, not {backchannel!r}")
        longest = backchannel + 0.5  # ending the turn soon bounds memory, and gives speech another chance
        timing = Timing(backchannel=backchannel, lead_in=0.0, end=_PAUSE, progress=longest, longest=longest)
        self._turns = TurnDetector(sample_rate, is_speech=self._is_speech, timing=timing)
        self._sounds_like_speech = is_speech or energy_vad()
        self._echo_loss = echo_loss
        self._size = pcm16.byte_count(FRAME_SECONDS, sample_rate)
        # Audio that is less than a frame
        self._unframed = b""
        self._unframed_playing = b""
        # The loudness of each frame in dBFS
        judged = max(round(backchannel / FRAME_SECONDS), _SYLLABLES)
        self._judged = judged
        self._user = deque([pcm16.SILENCE_DBFS], maxlen=max(judged, _COMPARED))
        self._assistant = deque([pcm16.SILENCE_DBFS], maxlen=_COMPARED + _LATEST_ECHO)

    def push(self, pcm: bytes, playing: bytes) -> bool:
        """Take a piece of the user's audio; return whether an interruption begins in it.

        `playing` is what the user's end has played of the assistant's audio since the last call, empty if
        that was nothing. Both are whole samples, of any length. While the assistant is silent nothing is an
        interruption, but the detector gets to know the noise.
        """
        data, playing = self._unframed + pcm, self._unframed_playing + playing
        size = self._size
        whole = len(data) - len(data) % size
        self._unframed = data[whole:]
        frames = whole // size
        if not frames:
            self._unframed_playing = playing[-_COMPARED * size :]
            return False
        self._unframed_playing = b""
        # Packets come late and then several at once, and what was played in the meantime belongs to all.
        share = len(playing) // frames // pcm16.SAMPLE_BYTES * pcm16.SAMPLE_BYTES
        started = [
            self._take(data[number * size :][:size], playing[number * share :][:share])
            for number in range(frames)
        ]
        return any(started)

    def _take(self, frame: bytes, playing: bytes) -> bool:
        turns = self._turns
        self._user.append(level_of(frame))
        self._assistant.append(level_of(playing[-self._size :]))
        speaking = max(self._assistant) > pcm16.SILENCE_DBFS
        if speaking and not turns.assistant_speaking:
            turns.clear()  # a user who is talking when the assistant begins interrupts it, too
        turns.assistant_speaking = speaking
        started = any(isinstance(event, SpeechStarted) for event in turns.push(frame))
        return started and speaking and not self._is_steady() and not self._is_echo()

    def _is_speech(self, frame: bytes) -> bool:
        heard = self._sounds_like_speech(frame)
        return heard and self._user[-1] >= max(self._assistant) - self._echo_loss

    def _is_steady(self) -> bool:
        return _spread(list(self._user)[-self._judged :]) < _STEADY

    def _is_echo(self) -> bool:
        """Return whether the user's loudness follows the assistant's, with any delay."""
        user = _loudness(list(self._user)[-_COMPARED:])
        assistant = _loudness(self._assistant)
        between = [(one + other) / 2 for one, other in pairwise(assistant)]  # frames do not begin together
        return any(
            _spread(one - other for one, other in zip(user, levels[start:], strict=False)) < _SAME
            for levels in (assistant, between)
            for start in range(len(levels) - len(user) + 1)
        )


def _loudness(levels: Collection[float]) -> list[float]:
    softest = max(levels) - _DEEPEST
    return [max(level, softest) for level in levels]


def _spread(values: Iterable[float]) -> float:
    """Return how far the values are apart, without the lowest and the highest eighth."""
    ordered = sorted(values)
    outer = len(ordered) // 8
    return ordered[-1 - outer] - ordered[outer]
