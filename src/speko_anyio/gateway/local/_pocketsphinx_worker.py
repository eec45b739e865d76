"""The process of `PocketsphinxEar`: ``python -m speko_anyio.gateway.local._pocketsphinx_worker``.

A process of its own because PocketSphinx holds the interpreter lock while it searches.

Each utterance is searched whole, again for every partial result. Measured on 40 s of human speech,
a whole search, which can normalise the audio by its own mean, has 18 % of words wrong; an incremental
one, which must guess that mean, 37 %. Whole searches are affordable because they are fast: about
0.015 of the audio's duration for the grammar and 0.08 for dictation.

First the grammar is searched. Its best phrase is taken at once when the sound fits it well, taken
if dictation shares a word with it when the fit is middling, and dropped for dictation otherwise.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import numpy as np
from pocketsphinx import Decoder

from ._grammar import Grammar
from ._worker_loop import main
from ._worker_messages import MAX_MESSAGE, SAMPLE_RATE, Recognised

NOISE_LEVEL: Final = 30.0
"""Standard deviation, in sample units, of the noise that is added to all input (-61 dBFS).

Digital silence, which synthesisers and noise gates produce, ruins the features' normalisation:
without noise no synthesised test question of six was recognised; with it all six were.
"""

# Log likelihoods in PocketSphinx's unit (natural log times 10,000) a frame of 10 ms, over words only.
# 66 synthesised known phrases: mean never below -51,000; of wrong ones, most are below -42,000.
SURE_MEAN: Final = -38_000
SURE_WORST_WORD: Final = -62_000
DOUBTFUL_MEAN: Final = -50_000
DOUBTFUL_WORST_WORD: Final = -80_000

CLEAR_MEAN: Final = -35_800
CLEAR_WORST_WORD: Final = -100_000
"""One word may fit worse where the whole phrase fits so well. In 270 synthesised weather questions, whose
pitch flutters from one to the next, the mean is from -21,000 to -35,700 and "oslo" from -62,000 to -82,000.
Where a wrong city is as bad, the mean is below -36,000. (Scores are relative to the best sound of any phrase,
so they fall by a tenth when a grammar doubles.)"""
MAX_UNEXPLAINED_FRAMES: Final = 120
"""Frames of 10 ms around and between the words of a known phrase; more, and something else was said too.

The listener leaves about half a second of silence around an utterance.
"""

MAX_KNOWN_SECONDS: Final = 6.0
"""Utterances longer than this are not searched for a known phrase: none takes as long."""

MAX_GRAMMARS: Final = 16
"""Compiled grammars kept, one for each distinct set of tools in use."""

_QUICK: Final = {"samprate": SAMPLE_RATE, "loglevel": "FATAL", "topn": 2}
"""``topn`` 2 instead of 4: a quarter less time, and no more errors on the test recordings."""


class Fit(NamedTuple):
    """The grammar's best phrase and how well the sound fits it."""

    text: str
    mean: float
    worst_word: float


class _Compiled(NamedTuple):
    search: str | None
    """The search's name in the decoder; None when no template can be pronounced."""
    pattern: re.Pattern[str]


class SpeechEngine:
    """The two searches. Loading takes about 0.7 s and 180 MB."""

    def __init__(self) -> None:
        # Keeping 2,000 hypotheses a frame, not 30,000, makes dictation three times as fast at the
        # same error rate; the second pass over the words (fwdflat) would cost 150 ms at the end.
        self._dictation: Any = Decoder(**_QUICK, fwdflat=False, maxhmmpf=2000, pl_window=5)
        self._known: Any = Decoder(**_QUICK, lm=None)
        self._log = self._known.get_logmath().log
        self._grammars: dict[str, _Compiled] = {}
        self._compiled_count = 0
        generator = np.random.default_rng(0)  # seeded: the same audio is always heard alike
        self._noise = generator.normal(0, NOISE_LEVEL, MAX_MESSAGE // 2).astype(np.float32)

    def warm_up(self) -> None:
        """Touch the pages of both models."""
        self.hear(bytes(SAMPLE_RATE), Grammar(("hello",)))

    def hear(self, pcm: bytes, grammar: Grammar) -> Recognised:
        """Return what is said in `pcm`."""
        audio = self._with_noise(pcm)
        fit = self._fit(audio, grammar) if len(pcm) / 2 / SAMPLE_RATE <= MAX_KNOWN_SECONDS else None
        if fit is not None and fit.mean >= SURE_MEAN and fit.worst_word >= SURE_WORST_WORD:
            return Recognised(fit.text, known=True)
        text = self._dictate(audio)
        if (
            fit is not None
            and fit.mean >= DOUBTFUL_MEAN
            and fit.worst_word >= (CLEAR_WORST_WORD if fit.mean >= CLEAR_MEAN else DOUBTFUL_WORST_WORD)
            and (not text or not set(text.split()).isdisjoint(fit.text.split()))
        ):
            return Recognised(fit.text, known=True)
        return Recognised(text, known=False)

    def _with_noise(self, pcm: bytes) -> bytes:
        values = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
        values += self._noise[: len(values)]
        return np.clip(np.rint(values), -32768, 32767).astype("<i2").tobytes()

    def _fit(self, audio: bytes, grammar: Grammar) -> Fit | None:
        pattern = self._activate(grammar)
        if pattern is None:
            return None
        hypothesis = _search(self._known, audio)
        if hypothesis is None or not pattern.fullmatch(hypothesis):
            return None
        frames = 0
        total = 0.0
        worst = 0.0
        for segment in self._known.seg():
            if segment.word[0] in "<[(":  # silence, noise and grammar bookkeeping
                continue
            length = segment.end_frame - segment.start_frame + 1
            score = self._log(segment.ascore) if segment.ascore > 0 else -1e9
            frames += length
            total += score
            worst = min(worst, score / length)
        if not frames or self._known.n_frames() - frames > MAX_UNEXPLAINED_FRAMES:
            return None
        return Fit(hypothesis, total / frames, worst)

    def _activate(self, grammar: Grammar) -> re.Pattern[str] | None:
        compiled = self._grammars.pop(grammar.key, None) or self._compile(grammar)
        self._grammars[grammar.key] = compiled  # now the most recently used
        if compiled.search is None:
            return None
        self._known.activate_search(compiled.search)
        return compiled.pattern

    def _compile(self, grammar: Grammar) -> _Compiled:
        while len(self._grammars) >= MAX_GRAMMARS:
            oldest = self._grammars.pop(next(iter(self._grammars)))
            if oldest.search is not None:
                self._known.remove_search(oldest.search)
        sayable = grammar.restricted(lambda word: self._known.lookup_word(word) is not None)
        if not sayable.templates:
            return _Compiled(None, sayable.pattern())
        self._compiled_count += 1
        search = f"known{self._compiled_count}"
        try:
            self._known.add_jsgf_string(search, sayable.jsgf())
        except ValueError:
            # Its tools are the client's: a grammar that can't be compiled must not end a worker that all
            # sessions share.
            return _Compiled(None, sayable.pattern())
        return _Compiled(search, sayable.pattern())

    def _dictate(self, audio: bytes) -> str:
        hypothesis = _search(self._dictation, audio)
        return hypothesis or ""


def _search(decoder: Any, audio: bytes) -> str | None:
    # Or else the features carry something over from the utterance before, which another client may have said:
    # scores differ by some percent, and an uncertain phrase is heard at one time and not at another. 0.1 ms.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else None


if __name__ == "__main__":
    main(SpeechEngine)
