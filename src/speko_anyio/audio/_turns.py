"""Turn detection: where the user's speech begins and ends, and the audio in between. No I/O, no clock.

Time is the audio itself: one frame is 20 ms, however fast it arrives.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from ..protocol._pcm import Buffer, pcm_bytes
from . import _pcm as pcm16
from ._voice_activity import FRAME_SECONDS, energy_vad

if TYPE_CHECKING:
    from ._voice_activity import IsSpeech

_UNDECIDED: Final = 0.5
"""The probability at which an end-of-turn model changes nothing."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When speech begins and when a turn ends, in seconds of audio, rounded to whole frames of 20 ms.

    Raises ValueError if a time is negative or not finite, `onset` or `end` is shorter than a frame, or
    `longest` is shorter than `lead_in` and `onset` together.
    """

    onset: float = 0.06
    """Uninterrupted speech that counts as talking; less is a click."""
    lead_in: float = 0.3
    """Audio from before the onset that belongs to the turn, because a VAD misses soft first consonants."""
    end: float = 0.56
    """Silence that ends the turn. Within a sentence people pause for up to about half a second."""
    tail: float = 0.2
    """Silence at the end that belongs to the turn. When it has passed, it pays to recognise ahead."""
    progress: float = 0.6
    """Speech before the first `SpeechSoFar`. Later ones come at growing distances, half of the turn so far,
    because each recognises the whole turn again."""
    longest: float = 15.0
    """A longer turn is ended, which bounds memory and the recogniser's time."""
    backchannel: float = 0.0
    """While the assistant speaks, shorter speech is a `Backchannel` and does not start a turn. An "mhm" takes
    up to about 0.4 s; interruptions are noticed that much later. 0: any speech starts a turn."""
    sure_end: float = 0.3
    """Silence that ends the turn when the end-of-turn model is certain that the user has finished."""
    unsure_end: float = 1.6
    """Silence that ends the turn when the end-of-turn model is certain that the user will go on."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is a time in seconds, not {getattr(self, name)!r}")
        if min(self.onset, self.end) < FRAME_SECONDS:
            raise ValueError(f"onset and end must be at least one frame of {FRAME_SECONDS} seconds")
        if self.longest < self.lead_in + self.onset:
            raise ValueError("longest must be at least as long as lead_in and onset together")

    def silence_for(self, probability: float) -> float:
        """Return the seconds of silence that end the turn if it is over with this `probability`, 0 to 1.

        0 gives `unsure_end`, 0.5 gives `end` and 1 gives `sure_end`; between these it is linear.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {probability}")
        if probability < _UNDECIDED:
            return self.unsure_end + (self.end - self.unsure_end) * probability / _UNDECIDED
        return self.end + (self.sure_end - self.end) * (probability - _UNDECIDED) / (1 - _UNDECIDED)


class SpeechStarted(NamedTuple):
    """The user began to talk: stop the assistant."""


class SpeechSoFar(NamedTuple):
    """Speech went on for a while, or paused: a good moment to recognise it so far."""

    utterance: bytes
    """The turn so far, PCM16 mono at the detector's rate."""
    paused: bool
    """Whether the user is silent now, so that this may be the whole turn: ask an `EndOfTurn` model."""


class SpeechStopped(NamedTuple):
    """The turn is over: answer it."""

    utterance: bytes
    """The turn, PCM16 mono at the detector's rate. If no speech came since the last `SpeechSoFar`, it is the
    same audio, so what was recognised ahead is the final result."""


class Backchannel(NamedTuple):
    """The user said something short while the assistant spoke, such as "mhm": let the assistant go on.

    To obey a short "stop" nevertheless, recognise `utterance`.
    """

    utterance: bytes
    """PCM16 mono at the detector's rate."""


class NothingSaid(NamedTuple):
    """The client ended a turn without speech."""

    had_audio: bool
    """Whether any audio came since the last turn."""


TurnEvent: TypeAlias = SpeechStarted | SpeechSoFar | SpeechStopped | Backchannel
"""What `TurnDetector.push` returns."""


class EndOfTurn(Protocol):
    """A model that judges whether the user has finished, from the words or from the sound.

    Silence alone can't tell a pause for thought from the end of a sentence. Ask the model upon each
    `SpeechSoFar` that is `paused`, and pass the answer to `TurnDetector.judge`.
    """

    async def probability(self, utterance: bytes, sample_rate: int, text: str) -> float:
        """Return the probability, 0 to 1, that the turn is over.

        `utterance` is the turn so far, PCM16 mono; `text` is what was recognised of it, which may be empty.
        The caller may cancel it, for example when the turn has ended meanwhile. A model that computes for
        long must do so in a thread or a process.
        """
        ...


class TurnDetector:
    """PCM in, turns out. It has no clock and no tasks: the events depend on the audio alone.

    It holds at most `Timing.longest` of audio, and the silence around it.

    Args:
        sample_rate: samples a second of the audio, PCM16 mono.
        is_speech: tells speech from noise, 20 ms at a time. `energy_vad` by default, which needs no
            package; `webrtc_vad` is better in noise. It may have state, so each detector needs its own.
        timing: when a turn begins and ends.
    """

    def __init__(
        self, sample_rate: int, *, is_speech: IsSpeech | None = None, timing: Timing | None = None
    ) -> None:
        if sample_rate * FRAME_SECONDS < 1:
            raise ValueError(
                f"a sample rate is at least {1 / FRAME_SECONDS:g}, a sample for each frame, not {sample_rate}"
            )
        self.sample_rate: int = sample_rate
        self.timing: Timing = timing or Timing()
        self.assistant_speaking: bool = False
        """Set it while the assistant's audio plays: then short speech is a `Backchannel`."""
        self._is_speech = is_speech or energy_vad()
        self._frame_bytes = pcm16.byte_count(FRAME_SECONDS, sample_rate)
        self._silent_frame = bytes(self._frame_bytes)
        # In frames
        self._onset = _frames(self.timing.onset)
        self._tail = _frames(self.timing.tail)
        self._usual_end = _frames(self.timing.end)
        self._longest = _frames(self.timing.longest)
        self._progress = _frames(self.timing.progress)
        # Speech that may be a backchannel is held, too, and no turn is longer.
        self._backchannel = min(
            _frames(self.timing.backchannel), self._longest - _frames(self.timing.lead_in)
        )
        # Silence, where a recording starts or ends with speech at once: recognisers need some around it.
        before = _frames(self.timing.lead_in) + self._onset
        self._before: deque[bytes] = deque([self._silent_frame] * before, maxlen=before)
        self._unframed = b""
        self._silence_ended_turn = False
        self._forget_turn()

    @property
    def in_turn(self) -> bool:
        """Whether the user is talking: a turn has begun and not ended."""
        return bool(self._turn) and not self._held

    def push(self, pcm: Buffer) -> list[TurnEvent]:
        """Take any number of bytes of the stream and return what happened in them.

        TypeError for an array of anything but int16.
        """
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        data = self._unframed + pcm
        size = self._frame_bytes
        whole = len(data) - len(data) % size
        self._unframed = data[whole:]
        events = (self._take(data[at : at + size]) for at in range(0, whole, size))
        return [event for event in events if event is not None]

    def judge(self, paused: SpeechSoFar, probability: float) -> None:
        """Wait longer or shorter in this pause, as an `EndOfTurn` model suggests.

        It is ignored if the user has gone on since `paused`. Raises ValueError if `probability` is not
        between 0 and 1.
        """
        silence = _frames(self.timing.silence_for(probability))
        if paused is self._pause:
            self._end = silence

    def end_turn(self) -> SpeechStopped | NothingSaid | None:
        """End the turn because the client says so; return None if silence has ended it just before."""
        answered = self._silence_ended_turn
        self._silence_ended_turn = False
        if self._turn:
            # The incomplete last frame is the end of the last word
            self._turn += self._unframed[: len(self._unframed) // pcm16.SAMPLE_BYTES * pcm16.SAMPLE_BYTES]
            if not self._silence_run:
                self._speech_end = len(self._turn)
            stopped = SpeechStopped(self._utterance())
            self.clear()
            return stopped
        had_audio = self._had_audio or bool(self._unframed)
        self.clear()
        return None if answered else NothingSaid(had_audio)

    def clear(self) -> None:
        """Discard all audio since the last turn."""
        self._unframed = b""
        self._forget_turn()

    def _forget_turn(self) -> None:
        self._before.extend([self._silent_frame] * len(self._before))
        self._turn = bytearray()
        self._held = False  # speech that may turn out to be a backchannel
        self._speech_start = 0  # bytes of the turn before the onset
        self._speech_end = 0  # bytes of the turn up to the end of the last speech frame
        self._speech_run = 0  # frames of speech in a row
        self._silence_run: int = 0  # frames of silence in a row
        self._since_update = 0  # frames
        self._had_audio: bool = False
        self._resume()

    def _resume(self) -> None:
        self._silence_run = 0
        self._pause: SpeechSoFar | None = None
        self._end = self._usual_end

    def _take(self, frame: bytes) -> TurnEvent | None:
        speech = self._is_speech(frame)
        self._had_audio = True
        self._speech_run = self._speech_run + 1 if speech else 0
        if not self._turn:
            self._before.append(frame)
            if self._speech_run < self._onset:
                return None
            self._turn += b"".join(self._before)
            self._speech_start = len(self._turn) - self._onset * self._frame_bytes
            self._held = True
        else:
            self._turn += frame
        if speech:
            self._speech_end = len(self._turn)
            self._resume()
        else:
            self._silence_run += 1
        return self._decide() if self._held else self._continue()

    def _decide(self) -> TurnEvent | None:
        """Tell the start of a turn from a backchannel."""
        length = (self._speech_end - self._speech_start) // self._frame_bytes
        if not self.assistant_speaking or length >= self._backchannel:
            self._held = False
            self._silence_ended_turn = False
            return SpeechStarted()
        if self._silence_run >= self._tail:
            backchannel = Backchannel(self._utterance())
            self._forget_turn()
            return backchannel
        return None

    def _continue(self) -> TurnEvent | None:
        self._since_update += 1
        length = len(self._turn) // self._frame_bytes
        if not self._silence_run:
            if length >= self._longest:
                return self._stop()
            return self._update() if self._since_update >= max(self._progress, length // 2) else None
        if self._silence_run >= self._end:
            return self._stop()
        if self._silence_run == max(self._tail, 1):
            self._pause = self._update()
            return self._pause
        return None

    def _update(self) -> SpeechSoFar:
        self._since_update = 0
        return SpeechSoFar(self._utterance(), paused=self._silence_run > 0)

    def _stop(self) -> SpeechStopped:
        stopped = SpeechStopped(self._utterance())
        self._forget_turn()
        self._silence_ended_turn = True
        return stopped

    def _utterance(self) -> bytes:
        size = self._speech_end + self._tail * self._frame_bytes
        return bytes(self._turn[:size]).ljust(size, b"\0")


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)
