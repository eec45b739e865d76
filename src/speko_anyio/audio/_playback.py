"""Unplayed audio: the buffer between a session and a player.

A session answers faster than speech; the player takes the audio at the speed of speech.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from typing import Final, Self

import anyio
import msgspec

from ..protocol._pcm import Buffer, pcm_bytes
from ..protocol.frames import Audio, Close, Frame, Interruption, ResponseEnd, Transcript, Usage
from ..protocol.mint import DEFAULT_SAMPLE_RATE
from ._pcm import SAMPLE_BYTES
from .resample import Resampler

logger: Final = logging.getLogger("speko_anyio")

DEFAULT_MAX_BUFFER: Final = 16 * 1024 * 1024
"""The most bytes of audio that wait to be played: almost six minutes at 24 kHz, longer than any answer. A
playback never blocks, since an interruption must not wait; audio that does not fit is dropped."""

MAX_MARKS: Final = 4096
"""The most transcripts and turns that wait for their place in the audio; beyond that the oldest are
forgotten."""

CHUNK_SECONDS: Final = 0.02
"""Default seconds of audio in one chunk; telephony sends the same."""

_LONGEST_PIECE: Final = 0.1
"""Longest piece, in seconds, whose successor is worth waiting for. Longer ones arrive faster than they
play."""

_ROUNDING: Final = 4 * SAMPLE_BYTES
"""Bytes by which a conversion may fall short because it returns whole samples only."""

MAX_LATE: Final = 0.2
"""Seconds that `Playback.chunks` catches up on after a late reader. More is skipped: a burst of old audio
would only fill the next buffer."""


class Flushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a flush cut off."""

    turn: int
    """The number of the turn that was playing; 0 when nothing had been played yet."""
    played_ms: int
    """Milliseconds of that turn that were played."""
    dropped_ms: int
    """Milliseconds that will never be heard."""
    text: str
    """What the assistant had said by then, according to its transcripts: see `Playback.text`."""


class Playback:
    """Audio that waits to be played: fed by a session, drained by a speaker, a phone bridge or a test.

    Give it to a session as a handler, ``session.on(playback.feed)``, and take from it with `read`, which
    never waits, or by iterating over `chunks`, which keeps to the clock. An `Interruption` flushes it.

    A *turn* is one answer: it begins with the first audio, or transcript of the assistant, after a
    `ResponseEnd`, an `Interruption` or a `flush`. Until the first `ResponseEnd` arrives, it also begins after
    a `Usage`. Turns are counted from 1.

    - `sample_rate`: samples a second of what is read. Audio of another rate is converted, which needs soxr.
    - `max_buffer`: bytes of audio that may wait. Audio beyond that is dropped, and counted in `overflow_ms`.
       A piece that fits only in part is cut.

    Rate conversion holds some audio back: 20 ms from 24 to 16 kHz, up to 80 ms for other rates. Speech that
    arrives just in time is therefore delayed once by that much, and then plays without gaps.

    Everything but the iteration over `chunks` may be called from any thread, and never blocks, so that an
    audio callback can.
    """

    def __init__(
        self, *, sample_rate: int = DEFAULT_SAMPLE_RATE, max_buffer: int = DEFAULT_MAX_BUFFER
    ) -> None:
        if sample_rate <= 0:
            raise ValueError(f"the sample rate is {sample_rate}; pass samples a second, above 0")
        self.sample_rate = sample_rate
        """Samples a second of the audio that `read` returns."""
        self._max_buffer = max_buffer
        # Held only while bytes are copied: an audio callback must not wait longer.
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._taken = 0
        """Bytes of the first piece that were read already."""
        self._written = 0
        self._played = 0
        self._dropped = 0
        self._counted_from = 0
        """`_played` at the last interruption, less what was skipped since."""
        self._skipped = 0
        """Bytes that flushes dropped since then, and nothing followed yet."""
        self._overflow = 0
        self._conversion = _Conversion(sample_rate)
        self._turns = _Turns()
        self._reports_ends = False
        """Whether a `ResponseEnd` has come."""
        self._last_flush: Flushed | None = None
        self._last_read = b""
        self._ended = False

    def __repr__(self) -> str:
        return f"<Playback turn={self.turn} played={self.played_ms} ms buffered={self.buffered_ms} ms>"

    # Writing

    def feed(self, frame: Frame) -> None:
        """Take a frame of any kind: audio waits to be played, an interruption flushes, `Close` is the end."""
        match frame:
            case Audio(pcm=pcm, sample_rate=rate):
                self.write(pcm, rate)
            case Interruption():
                self.flush()
                with self._lock:
                    self._counted_from = self._played
                    self._skipped = 0
            case Transcript(role="assistant", text=text):
                with self._lock:
                    self._turns.begin(self._written, self._played)
                    self._turns.say(text, self._written, self._played)
            case ResponseEnd():
                self._reports_ends = True
                self._end_turn()
            case Usage() if not self._reports_ends:
                self._end_turn()
            case Close():
                self.end()
            case _:
                pass

    def write(self, pcm: Buffer, sample_rate: int | None = None) -> None:
        """Append PCM16 mono, whole samples, at `sample_rate` samples a second; at the playback's own if None.

        ImportError when the rate has to be converted and soxr is not installed; TypeError for an array that
        is not mono int16.
        """
        pcm = pcm_bytes(pcm)
        with self._lock:
            self._turns.begin(self._written, self._played)
            rate = self.sample_rate if sample_rate is None else sample_rate
            if rest := self._conversion.switch(rate):
                self._append(rest)
            if rate != self.sample_rate:
                pcm = self._conversion.convert(pcm)
            room = (self._max_buffer - self._buffered) // SAMPLE_BYTES * SAMPLE_BYTES
            lost = max(0, len(pcm) - room)
            # Keep the beginning: the result must not depend on how the audio was cut into pieces.
            self._append(pcm[: len(pcm) - lost] if lost else pcm)
            first = lost and not self._overflow
            self._overflow += lost
        if first:
            logger.warning("playback: audio arrives faster than it is played; some of it is dropped")

    def _end_turn(self) -> None:
        with self._lock:
            self._append(self._conversion.drain())
            self._turns.between = True

    def end_of_speech(self) -> None:
        """Take note that no audio follows for now, so a rate conversion holds nothing back any longer.

        `feed` does this at the end of an answer. Without it, what is held back is played once nothing has
        followed for as long as a conversion lasts.
        """
        with self._lock:
            self._append(self._conversion.drain())

    def end(self) -> None:
        """Take note that nothing more will come: `chunks` ends once everything was played."""
        with self._lock:
            self._append(self._conversion.drain())
            self._ended = True

    # Reading

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes of PCM16, padded with silence. Never waits.

        ValueError for half a sample.
        """
        if size % SAMPLE_BYTES:
            raise ValueError(f"{size} bytes are not whole PCM16 samples; read an even number")
        with self._lock:
            if self._conversion.holds_back and self._conversion.waits(size, self._buffered):
                pcm = b""
            else:
                if self._conversion.holds_back and size > self._buffered:
                    self._append(self._conversion.drain())
                pcm = self._take(size)
            self._turns.reach(self._played)
        self._last_read = pcm + bytes(size - len(pcm))
        return self._last_read

    def chunks(self, seconds: float = CHUNK_SECONDS) -> Chunks:
        """Iterate over the audio to play, in pieces of `seconds`: see `Chunks`."""
        return Chunks(self, seconds)

    def flush(self) -> Flushed:
        """Drop what was not played yet, and return what that was. The next audio begins a turn."""
        with self._lock:
            dropped = self._buffered
            flushed = Flushed(
                turn=self.turn,
                played_ms=self.turn_played_ms,
                dropped_ms=self._milliseconds(dropped),
                text=self.text,
            )
            self._last_flush = flushed
            self._waiting.clear()
            self._taken = 0
            self._dropped += dropped
            self._skipped += dropped
            self._written = self._played
            self._turns.cut()
            self._conversion.reset()
        return flushed

    # State

    @property
    def played_ms(self) -> int:
        """Milliseconds of audio that were read, silence excluded."""
        return self._milliseconds(self._played)

    @property
    def played_seconds(self) -> float:
        """Seconds of the audio since the last `Interruption` that were read.

        For `RealtimeSession.report_played`. What a `flush` of yours dropped counts as soon as other audio
        follows, since that is farther on in what the service sent.
        """
        return (self._played - self._counted_from) / (SAMPLE_BYTES * self.sample_rate)

    @property
    def buffered_ms(self) -> int:
        """Milliseconds that wait to be played."""
        return self._milliseconds(self._buffered)

    @property
    def dropped_ms(self) -> int:
        """Milliseconds that flushes have cut off."""
        return self._milliseconds(self._dropped)

    @property
    def overflow_ms(self) -> int:
        """Milliseconds that were dropped because `max_buffer` was full."""
        return self._milliseconds(self._overflow)

    @property
    def turn(self) -> int:
        """The number of the turn that is playing, or was last; 0 before the first."""
        return self._turns.current

    @property
    def turn_played_ms(self) -> int:
        """Milliseconds of that turn that were played."""
        return self._milliseconds(self._played - self._turns.started)

    @property
    def text(self) -> str:
        """The assistant's transcript that came with the audio that is playing.

        Services send transcripts at about the time of the audio, so this is close to the words that are
        heard, not exact.
        """
        return self._turns.text

    @property
    def last_read(self) -> bytes:
        """The audio that was read last, silence included: for a level meter."""
        return self._last_read

    @property
    def last_flush(self) -> Flushed | None:
        """What the last flush cut off, such as that of an interruption; None before the first."""
        return self._last_flush

    @property
    def ended(self) -> bool:
        """Whether everything was played, and nothing more will come."""
        return self._ended and not self._buffered

    # The caller holds the lock

    @property
    def _buffered(self) -> int:
        return self._written - self._played

    def _milliseconds(self, size: int) -> int:
        return size * 1000 // (SAMPLE_BYTES * self.sample_rate)

    def _append(self, pcm: bytes) -> None:
        if pcm:
            self._waiting.append(pcm)
            self._written += len(pcm)
            self._counted_from -= self._skipped
            self._skipped = 0

    def _take(self, size: int) -> bytes:
        pieces = []
        missing = min(size, self._buffered)
        while missing:
            first = self._waiting[0]
            piece = first[self._taken : self._taken + missing]
            pieces.append(piece)
            missing -= len(piece)
            self._taken += len(piece)
            self._played += len(piece)
            if self._taken == len(first):
                self._waiting.popleft()
                self._taken = 0
        return b"".join(pieces)


class Chunks:
    """Audio in pieces of equal length, each when it is due.

    `Playback.chunks` makes it; iterate over it. With nothing to play, a piece is silence, as on a phone line.
    The iteration ends when everything before the `Playback.end` was played. Overdue pieces come at once, but
    no more than `MAX_LATE` seconds of them.
    """

    def __init__(self, playback: Playback, seconds: float) -> None:
        samples = round(playback.sample_rate * seconds)
        if samples < 1:
            raise ValueError(f"a chunk of {seconds} s has no sample; make it longer")
        self._playback = playback
        self._size = samples * SAMPLE_BYTES
        self._seconds = samples / playback.sample_rate
        self._due: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        now = anyio.current_time()
        due = now if self._due is None else max(self._due, now - MAX_LATE)
        # Also when it is due: here is the only chance to cancel a caller that reads a silent line.
        await anyio.sleep_until(due)
        if self._playback.ended:
            raise StopAsyncIteration
        self._due = due + self._seconds
        return self._playback.read(self._size)


class _Conversion:
    """The sample rate conversion of a playback, which may hold audio back, and when to wait for that.

    Ending a conversion in mid-speech, or reading half a piece and then silence, is heard as a click. So
    speech is read only once there is enough of it to go on for as long as it arrives in time. When it stops,
    it has paused, and what was held back is played. Sizes are in bytes at the playback's rate.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._resampler: Resampler | None = None
        self.holds_back = False
        """Whether the resampler may hold audio that it has not returned yet."""
        self._owed = 0.0
        """Bytes that the resampler still has to return for the audio pushed so far."""
        self._cushion = 0
        """The most bytes that it holds back at any time."""
        self._piece = 0.0
        """Bytes that the last piece came to, or `_LONGEST_PIECE` if it was longer."""
        self._flowing = False
        """Whether speech is being read, and not waited for."""
        self._waited = 0
        """Bytes of silence read since the last piece was written, while waiting for more audio."""

    def switch(self, rate: int) -> bytes:
        """Expect audio at `rate`; return what was held back at another one. ImportError without soxr."""
        self._waited = 0
        if self._resampler is not None and self._resampler.source_rate == rate:
            return b""
        rest = self.drain()
        self._resampler = None if rate == self._sample_rate else Resampler(rate, self._sample_rate)
        if self._resampler is not None:
            self._cushion = round(self._resampler.max_held_back * self._sample_rate) * SAMPLE_BYTES
        return rest

    def convert(self, pcm: bytes) -> bytes:
        """Convert `pcm` from the rate of `switch`, which is not the playback's; return what is ready."""
        assert self._resampler is not None
        self.holds_back = True
        converted = self._resampler.push(pcm)
        size = len(pcm) * self._sample_rate / self._resampler.source_rate
        self._piece = min(size, _LONGEST_PIECE * SAMPLE_BYTES * self._sample_rate)
        self._owed += size - len(converted)
        return converted

    def drain(self) -> bytes:
        """End the conversion; return what was held back."""
        # Called at every reading of silence, so the usual case must cost nothing.
        if self._resampler is None or not self.holds_back:
            return b""
        self._nothing_held_back()
        return self._resampler.flush()

    def reset(self) -> None:
        """Forget what is held back."""
        if self._resampler is not None:
            self._resampler.reset()
            self._nothing_held_back()

    def waits(self, size: int, buffered: int) -> bool:
        """Return whether to play silence although `buffered` bytes are there, since the rest is under way."""
        missing = size - buffered
        if not self._flowing:
            # A reading that is too large for what a conversion holds back is short of audio in any case.
            if (
                missing <= self._cushion + _ROUNDING
                and (missing > 0 or buffered + self._owed < self._enough_for(size))
                and self._waited < max(self._cushion, self._piece) + _ROUNDING
            ):
                self._waited += size
                return True
            self._flowing = missing <= 0
        return False

    def _enough_for(self, size: int) -> float:
        """Return the bytes with which readings of `size` never run out of pieces that arrive in time.

        Pieces and readings of different lengths drift apart and meet again: between two pieces, readings take
        up to one piece and one reading, less what both have in common.
        """
        whole = round(self._piece)
        common = math.gcd(whole, size) if math.isclose(whole, self._piece) else 0
        return self._piece + size - common + self._cushion

    def _nothing_held_back(self) -> None:
        self.holds_back = self._flowing = False
        self._owed = 0.0
        self._waited = 0


class _Turns:
    """The turns of a playback and their texts, by the positions in the audio where they begin, in bytes."""

    def __init__(self) -> None:
        self.between = True
        """Whether the next audio begins a turn."""
        self.current = 0
        """The number of the turn that is playing, or was last; 0 before the first."""
        self.started = 0
        self.text = ""
        """What the assistant has said in that turn, as far as it was played."""
        self._begun = 0
        self._marks: deque[_Mark] = deque(maxlen=MAX_MARKS)

    def begin(self, position: int, played: int) -> None:
        """Begin a turn at `position` if the one before has ended; `played` bytes were played."""
        if self.between:
            self.between = False
            self._begun += 1
            self._mark(_Mark(position, turn=self._begun), played)

    def say(self, text: str, position: int, played: int) -> None:
        """Note a transcript that belongs to the audio at `position`."""
        self._mark(_Mark(position, text=text), played)

    def cut(self) -> None:
        """Forget the marks that were not reached; the next audio begins a turn."""
        self._marks.clear()
        self.between = True

    def reach(self, played: int) -> None:
        """Apply the marks within the first `played` bytes."""
        while self._marks and self._marks[0].reached(played):
            mark = self._marks.popleft()
            if mark.turn is None:
                self.text = mark.text
            else:
                self.current = mark.turn
                self.started = mark.position
                self.text = ""

    def _mark(self, mark: _Mark, played: int) -> None:
        if self._marks and mark.replaces(self._marks[-1]):
            self._marks.pop()
        self._marks.append(mark)
        self.reach(played)


class _Mark(msgspec.Struct, frozen=True, gc=False):
    """A turn or a text that begins at a position in the audio, in bytes."""

    position: int
    turn: int | None = None
    """The turn that begins there."""
    text: str = ""

    def replaces(self, other: _Mark) -> bool:
        """Whether this makes `other` obsolete: an earlier text for the same position."""
        return self.position == other.position and self.turn is None and other.turn is None

    def reached(self, played: int) -> bool:
        # A turn begins with its first sample, not with the end of the one before.
        return played > self.position if self.turn is not None else played >= self.position
