"""The offline voice as a handler of the gateway."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, get_args

import anyio
import anyio.to_thread

from speko_anyio.audio._turns import TurnDetector
from speko_anyio.audio._voice_activity import webrtc_vad
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.protocol.mint import SampleRate

from ._conversation import VoiceConversation
from ._dialogue import Dialogue
from ._recognizer import Recognizer, open_recognizer
from ._synthesizer import speak_to_pcm
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    from ._voice_session import VoiceSession

_WARM_UP_RATE = 24_000


class LocalVoice:
    """The provider ``local``: listens and speaks without network or account. A demo and a CI peer.

    An async context manager that owns the recogniser processes, and the handler of sessions while it
    is open::

        async with LocalVoice() as handler:
            await handler(session)

    One worker takes one utterance at a time, at about 0.1 s of work for a second of speech, so it
    serves about five people who talk at once, and many more sessions that are mostly silent. Partial
    transcripts are left out while no worker is idle. Eight utterances for each worker may wait for
    their final transcript; a turn beyond that gets an `ErrorFrame` with code ``OVERLOADED`` and no answer.
    A worker that crashes is replaced and the turn it was at tried once more; when that fails too, the turn
    gets an `ErrorFrame` with code ``RECOGNIZER_FAILED``.

    Besides speech it takes text, which it answers like speech, and says a given text; it speaks first when it
    is asked to, and changes its tools and voice in mid-call. It can answer in text alone.

    The session's model, system prompt and temperature are ignored; `voice` is one of espeak-ng's
    names, such as ``en-us``, ``en-us+f3`` or ``de`` (it understands English only, whatever it speaks).
    The client cancels the echo of its loudspeaker; otherwise it interrupts the voice.

    Args:
        workers: recogniser processes, each about 180 MB.
        now: returns the local time that answers mention; a parameter for tests.
        recognizer: opens the recogniser, if not as many processes as `workers`; a parameter for tests.

    Entering raises `speko_anyio.gateway.local._recognizer.RecognizerError` when the recogniser does not
    start, and ImportError when the extra ``local`` is not installed.
    """

    capabilities: Final = Capabilities(
        text=True,
        respond=True,
        say="verbatim",
        update=("system_prompt", "tools", "voice"),
        history=True,
        manual_turns=True,
        interrupt=True,
        text_output=True,
        input_rates=get_args(SampleRate),
        output_rates=get_args(SampleRate),
    )

    def __init__(
        self,
        *,
        workers: int = 1,
        now: Callable[[], datetime] | None = None,
        recognizer: Callable[[], AbstractAsyncContextManager[Recognizer]] | None = None,
    ) -> None:
        self._open = recognizer or (lambda: open_recognizer(workers=workers))
        self._now = now
        self._recognizer: Recognizer | None = None
        self._limiters: tuple[anyio.CapacityLimiter, anyio.CapacityLimiter] | None = None
        self._entered: AbstractAsyncContextManager[LocalVoice] | None = None

    async def __aenter__(self) -> LocalVoice:
        self._entered = self._run()
        return await self._entered.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._entered is None:
            raise RuntimeError("LocalVoice was not entered; use `async with`")
        return await self._entered.__aexit__(kind, error, trace)

    async def __call__(self, session: VoiceSession) -> None:
        """Serve `session` until it closes. Cancelling it stops at once, within about 15 ms of synthesis."""
        if self._recognizer is None or self._limiters is None:
            raise RuntimeError(
                "the offline voice is not running; serve sessions inside `async with LocalVoice()`"
            )
        conversation = VoiceConversation(
            session,
            self._recognizer,
            Dialogue(session.config.tools, now=self._now),
            TurnDetector(SAMPLE_RATE, is_speech=webrtc_vad(SAMPLE_RATE)),
            *self._limiters,
        )
        await conversation.run()

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[LocalVoice]:
        webrtc_vad(SAMPLE_RATE)  # fail now if a package is missing, and not in a session
        # espeak-ng takes turns anyway: more threads would only wait for its lock. Made here and not in the
        # constructor, which may run on trio while the gateway serves on asyncio.
        self._limiters = speaking, _ = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        # Loads espeak-ng and soxr, so that the first reply does not wait for them.
        await anyio.to_thread.run_sync(speak_to_pcm, "ready", _WARM_UP_RATE, limiter=speaking)
        async with self._open() as self._recognizer:
            try:
                yield self
            finally:
                self._recognizer = None
