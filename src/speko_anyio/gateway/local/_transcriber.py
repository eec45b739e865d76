"""Transcripts of the user's speech: partial ones while they talk, and the final one of each turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..engines import EngineError
from ._ears import RecognizesAhead
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from speko_anyio.audio._turns import EndOfTurn, SpeechSoFar, TurnDetector

    from ..engines import SpeechToText
    from ._voice_session import VoiceSession


class HeardTurn:
    """The transcript of one turn of the user, as far as it is known."""

    def __init__(self) -> None:
        self.closed = False
        """No more partial transcripts: the turn has ended, or was forgotten."""
        self.recognising: bytes | None = None
        self.recognised: anyio.Event = anyio.Event()
        self.result: tuple[bytes, str] | None = None
        self.shown = ""


class Transcriber:
    """Recognises speech before the turn ends, so that the final transcript costs no time then."""

    def __init__(
        self,
        session: VoiceSession,
        ear: SpeechToText,
        turns: TurnDetector,
        end_of_turn: EndOfTurn | None,
    ) -> None:
        self._session = session
        self.ear: SpeechToText = ear
        self._turns = turns
        self._end_of_turn = end_of_turn
        self._suggested: tuple[HeardTurn, SpeechSoFar] | None = None
        self._suggestion = anyio.Event()

    def suggest(self, turn: HeardTurn, so_far: SpeechSoFar) -> None:
        """Recognise the turn so far, if the ear likes to; a newer suggestion replaces it."""
        ear, paused = self.ear, so_far.paused
        if ear.recognizes_ahead(paused=paused) if isinstance(ear, RecognizesAhead) else paused:
            self._suggested = (turn, so_far)
            self._suggestion.set()

    async def run(self) -> None:
        """Recognise what was suggested and send it as partial transcripts, until cancelled."""
        while True:
            await self._suggestion.wait()
            self._suggestion = anyio.Event()
            if self._suggested is not None:
                await self._recognise(*self._suggested)

    async def finish(self, turn: HeardTurn, utterance: bytes) -> str:
        """Return the final text of a turn; raise `EngineError` if it can't be recognised."""
        if turn.recognising == utterance:
            await turn.recognised.wait()
        if turn.result is not None and turn.result[0] == utterance:
            return turn.result[1]
        return await self.ear.transcribe(utterance, SAMPLE_RATE)

    async def _recognise(self, turn: HeardTurn, so_far: SpeechSoFar) -> None:
        if turn.closed:
            return
        utterance = so_far.utterance
        turn.recognising = utterance
        turn.recognised = anyio.Event()
        try:
            heard = await self.ear.transcribe(utterance, SAMPLE_RATE)
        except EngineError:
            # Nobody waits for a partial result; the final one tries again and says what is wrong.
            return
        finally:
            turn.recognising = None
            turn.recognised.set()
        turn.result = (utterance, heard)
        if heard and heard != turn.shown and not turn.closed:
            turn.shown = heard
            await self._session.send_transcript("user", heard, final=False)
        if self._end_of_turn is not None and so_far.paused and not turn.closed:
            try:
                probability = await self._end_of_turn.probability(utterance, SAMPLE_RATE, heard)
            except EngineError:
                return  # then silence alone decides
            self._turns.judge(so_far, probability)
