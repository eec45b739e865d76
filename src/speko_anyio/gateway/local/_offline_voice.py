"""The offline voice as a handler of the gateway."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, Self, get_args

import anyio

from speko_anyio.audio._turns import TurnDetector
from speko_anyio.audio._voice_activity import webrtc_vad
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.protocol.mint import SampleRate

from ..engines import Engines
from ._conversation import VoiceConversation
from ._dialogue import SmallTalk
from ._ears import PocketsphinxEar
from ._synthesizer import Synthesizer
from ._worker_messages import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import datetime

    from speko_anyio.audio._turns import EndOfTurn, Timing

    from ..engines import LanguageModel, SpeechToText, TextToSpeech
    from ._voice_session import VoiceSession


class LocalVoice(anyio.AsyncContextManagerMixin):
    """The provider ``local``: listens and speaks without network or account. A demo and a CI peer.

    An async context manager that runs its engines, and the handler of sessions while it is open::

        async with LocalVoice() as handler:
            await handler(session)

    Besides speech it takes text, which it answers like speech, and says a given text; it speaks first when it
    is asked to, and changes its tools and voice in mid-call. It can answer in text alone.

    Each engine can be replaced by one of your own; see `speko_anyio.gateway.engines`. An engine is shared by
    all sessions. One that is an async context manager is entered with `LocalVoice`, and exited at the end.

    - `ear`: speech to text, by default `PocketsphinxEar`, which understands English, and best of all what
      `SmallTalk` can answer. It takes one utterance at a time for each worker, at about 0.1 s of work for a
      second of speech, so one serves about five people who talk at once. A turn that it can't take gets an
      `ErrorFrame` with code ``OVERLOADED`` or ``RECOGNIZER_FAILED`` and no answer.
    - `brain`: decides what to say, by default `SmallTalk`. It ignores the session's model, system prompt and
      temperature. Besides the client's tools, any brain may call three of the offline voice:
      ``set_timer`` with ``{"seconds": 10, "text": "Time is up."}``, ``cancel_timers`` and ``check_timers``.
    - `voice`: text to speech, by default `Synthesizer`, which says what voices a session may choose.

    The client cancels the echo of its loudspeaker; otherwise it interrupts the voice.

    Args:
        ear: speech to text.
        brain: the language model.
        voice: text to speech.
        workers: processes of the default ear, each about 180 MB.
        timing: when a turn begins and ends. By default any speech interrupts an answer; with
            ``Timing(backchannel=0.4)`` an "mhm" does not.
        end_of_turn: judges, whenever the user pauses, whether the turn is over.
        now: returns the local time that the default brain mentions; a parameter for tests.

    Raises TypeError for an engine that is a class, or lacks the method of its interface.

    Entering raises what an engine raises: `EngineError` if a worker does not start, and ImportError if the
    extra ``local`` is not installed.
    """

    capabilities: Final = Capabilities(
        text=True,
        respond=True,
        say="verbatim",
        update=("system_prompt", "tools", "voice"),
        history=True,
        manual_turns=True,
        interrupt=True,
        truncate=True,
        text_output=True,
        input_rates=get_args(SampleRate),
        output_rates=get_args(SampleRate),
    )

    def __init__(
        self,
        *,
        ear: SpeechToText | None = None,
        brain: LanguageModel | None = None,
        voice: TextToSpeech | None = None,
        workers: int = 1,
        timing: Timing | None = None,
        end_of_turn: EndOfTurn | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        for name, engine, method in (
            ("ear", ear, "transcribe"),
            ("brain", brain, "answer"),
            ("voice", voice, "synthesize"),
        ):
            if engine is not None:
                _check_engine(name, engine, method)
        self._ear = ear or PocketsphinxEar(workers=workers)
        self._brain = brain
        self._voice = voice or Synthesizer()
        self._timing = timing
        self._end_of_turn = end_of_turn
        self._now = now
        self._preparing: anyio.CapacityLimiter | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self, None]:
        webrtc_vad(SAMPLE_RATE)  # fail now if a package is missing, and not in a session
        async with AsyncExitStack() as entered:
            for engine in list[object]([self._ear, self._brain, self._voice]):
                if isinstance(engine, AbstractAsyncContextManager):
                    await entered.enter_async_context(engine)
            # Made here and not in the constructor, which may run on trio while the gateway serves on asyncio.
            self._preparing = anyio.CapacityLimiter(1)
            try:
                yield self
            finally:
                self._preparing = None

    async def __call__(self, session: VoiceSession) -> None:
        """Serve `session` until it closes. Cancelling it stops as soon as its engines do."""
        if self._preparing is None:
            raise RuntimeError(
                "the offline voice is not running; serve sessions inside `async with LocalVoice()`"
            )
        # One for each session, since it keeps what it found out about the session's tools.
        brain = self._brain or SmallTalk(now=self._now)
        engines = Engines(self._ear, brain, self._voice)
        turns = TurnDetector(SAMPLE_RATE, is_speech=webrtc_vad(SAMPLE_RATE), timing=self._timing)
        await VoiceConversation(session, engines, turns, self._end_of_turn, self._preparing).run()


def _check_engine(name: str, engine: object, method: str) -> None:
    """Raise TypeError unless `engine` can be one. Otherwise each of its sessions would fail."""
    if isinstance(engine, type):
        raise TypeError(
            f"{name} must be an object, not the class {engine.__name__}; pass {engine.__name__}()"
        )
    if not callable(work := getattr(engine, method, None)):
        raise TypeError(
            f"{name} must be an object with a method {method}, not {type(engine).__name__}; "
            "see speko_anyio.gateway.engines"
        )
    if method != "transcribe" and inspect.iscoroutinefunction(work):
        raise TypeError(
            f"{name}.{method} returns one value, but must be an async generator; use yield instead of return"
        )
