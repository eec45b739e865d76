"""Turn detection: voice activity, endpointing and the audio of a turn. No I/O, no clock.

Time is the audio itself: one frame is 20 ms, however fast it arrives.
"""

from __future__ import annotations

import importlib
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from speko_anyio._extras import install_extra
from speko_anyio.audio import _pcm as pcm16

from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME_MS: Final = 20

FRAME_BYTES: Final = pcm16.byte_count(FRAME_MS / 1000, SAMPLE_RATE)

_SILENT_FRAME: Final = bytes(FRAME_BYTES)

IsSpeech: TypeAlias = "Callable[[bytes], bool]"
"""Whether a frame of `FRAME_BYTES` bytes is speech."""


class Timing(NamedTuple):
    """When speech begins and when a turn ends. All in milliseconds of audio."""

    onset: int = 60
    """Uninterrupted speech that counts as talking; less is a click."""
    lead_in: int = 300
    """Audio from before the onset that belongs to the turn: the VAD misses soft first consonants."""
    end: int = 560
    """Silence that ends the turn. Within a sentence people pause for up to about half a second."""
    tail: int = 200
    """Silence at the end that belongs to the turn; after it, recognising ahead is worth while."""
    progress: int = 600
    """Speech before the first suggestion to recognise what was said so far; later ones come at growing
    distances, half of the turn so far, since each recognises the whole turn again."""
    longest: int = 15_000
    """A turn that lasts longer is ended: it bounds memory and the recogniser's time."""


class SpeechStarted(NamedTuple):
    """The user began to talk."""


class SpeechPaused(NamedTuple):
    """Speech went on for a while, or paused: a good moment to recognise it so far."""

    utterance: bytes


class TurnEnded(NamedTuple):
    """The turn is over."""

    utterance: bytes
    """PCM16 mono at `SAMPLE_RATE`; the same as in the last `SpeechPaused` when no speech came since."""


class NothingSaid(NamedTuple):
    """The client ended a turn without speech."""

    had_audio: bool
    """Whether any audio had come since the last turn."""


Event: TypeAlias = SpeechStarted | SpeechPaused | TurnEnded | NothingSaid


class Listener:
    """PCM in, turns out.

    Args:
        is_speech: tells speech from noise, frame by frame; see `webrtc_vad`.
        timing: when a turn begins and ends.
    """

    def __init__(self, is_speech: IsSpeech, *, timing: Timing | None = None) -> None:
        self._is_speech = is_speech
        self._timing = timing or Timing()
        self._unframed = bytearray()
        self._turn_ended_by_silence = False
        self._turn = bytearray()
        self._speech_end = 0  # bytes of the turn up to the end of the last speech frame
        self._speech = 0  # milliseconds of speech in a row
        self._silent = 0  # milliseconds of silence in a row
        self._unrecognised = 0  # milliseconds since the last suggestion
        self._heard_bytes = 0
        self._in_turn = False
        frames_before = (self._timing.lead_in + self._timing.onset) // FRAME_MS
        # Silence, where a recording starts or ends with speech at once: the recogniser needs some around it.
        self._before: deque[bytes] = deque([_SILENT_FRAME] * frames_before, maxlen=frames_before)

    @property
    def in_turn(self) -> bool:
        """Whether the user is speaking: a turn has begun and not ended."""
        return self._in_turn

    def push(self, pcm: bytes) -> Iterator[Event]:
        """Take whole samples and yield their events. Iterate to the end: work is done on the way."""
        self._unframed += pcm
        while len(self._unframed) >= FRAME_BYTES:
            frame = bytes(self._unframed[:FRAME_BYTES])
            del self._unframed[:FRAME_BYTES]
            yield from self._frame(frame)

    def end_turn(self) -> Event | None:
        """End the turn, as the client says; return None if silence has ended it just before."""
        answered = self._turn_ended_by_silence
        self._turn_ended_by_silence = False
        if self._in_turn:
            # The incomplete last frame is the end of the last word
            self._turn += self._unframed
            self._speech_end = len(self._turn) if self._silent == 0 else self._speech_end
            ended = TurnEnded(self._utterance())
            self.clear()
            return ended
        had_audio = self._heard_bytes > 0 or bool(self._unframed)
        self.clear()
        return None if answered else NothingSaid(had_audio)

    def clear(self) -> None:
        """Forget all audio since the last turn."""
        self._unframed.clear()
        self._forget_turn()

    def _forget_turn(self) -> None:
        self._before.extend([_SILENT_FRAME] * (self._before.maxlen or 0))
        self._in_turn = False
        self._turn = bytearray()
        self._speech_end = 0
        self._speech = 0
        self._silent = 0
        self._unrecognised = 0
        self._heard_bytes = 0

    def _frame(self, frame: bytes) -> Iterator[Event]:
        speech = self._is_speech(frame)
        self._heard_bytes += len(frame)
        self._speech = self._speech + FRAME_MS if speech else 0
        if self._in_turn:
            self._turn += frame
            yield from self._in_turn_frame(speech=speech)
            return
        self._before.append(frame)
        if self._speech >= self._timing.onset:
            self._in_turn = True
            self._turn_ended_by_silence = False
            self._turn += b"".join(self._before)
            self._speech_end = len(self._turn)
            yield SpeechStarted()

    def _in_turn_frame(self, *, speech: bool) -> Iterator[Event]:
        timing = self._timing
        self._unrecognised += FRAME_MS
        if speech:
            self._speech_end = len(self._turn)
            self._silent = 0
            if self._turn_ms() >= timing.longest:
                yield self._end_by_itself()
            elif self._unrecognised >= max(timing.progress, self._turn_ms() // 2):
                self._unrecognised = 0
                yield SpeechPaused(self._utterance())
            return
        self._silent += FRAME_MS
        if self._silent >= timing.end:
            yield self._end_by_itself()
        elif self._silent == timing.tail:
            self._unrecognised = 0
            yield SpeechPaused(self._utterance())

    def _end_by_itself(self) -> TurnEnded:
        ended = TurnEnded(self._utterance())
        self._forget_turn()
        self._turn_ended_by_silence = True
        return ended

    def _turn_ms(self) -> int:
        return len(self._turn) // FRAME_BYTES * FRAME_MS

    def _utterance(self) -> bytes:
        tail = pcm16.byte_count(self._timing.tail / 1000, SAMPLE_RATE)
        return bytes(self._turn[: self._speech_end + tail]).ljust(self._speech_end + tail, b"\0")


def webrtc_vad(*, loudness_floor: float = -50.0) -> IsSpeech:
    """Make a WebRTC voice activity detector; it has state, so each stream needs its own.

    It costs about 2 us a frame.

    Args:
        loudness_floor: dBFS under which a frame is never speech, since the detector takes
            synthetic noise at any level for speech.

    Raises:
        ImportError: the extra ``local`` is not installed.
    """
    try:
        webrtcvad = importlib.import_module("webrtcvad")
    except ImportError as error:
        raise ImportError(
            f"detecting speech needs webrtcvad, which is not installed; {install_extra('local')}",
            name="webrtcvad",
        ) from error
    detector = webrtcvad.Vad(3)  # the strictest mode: the others run on for up to 300 ms after speech

    def is_speech(frame: bytes) -> bool:
        # Asked first, since the detector adapts to every frame.
        speech = bool(detector.is_speech(frame, SAMPLE_RATE))
        return speech and pcm16.rms_dbfs(frame) >= loudness_floor

    return is_speech
