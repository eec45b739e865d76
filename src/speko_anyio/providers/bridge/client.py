"""The client's side of a bridge: what it is told, in its own terms."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.frames import Audio, ErrorFrame, Interruption, ResponseEnd, Role, Transcript
from ..resampling import Converter, ResamplingFactory
from .errors import as_told, for_client
from .queue import ClientFrame, ClientQueue


class ClientSide:
    """Speech at the rate of the client's session, texts that are cut to size and brought to an end, errors
    without secrets: all of it through here into the queue, in order.

    - `sample_rate`: of the client's session, in samples a second.
    - `max_text_size`: bytes of a transcript, which is cut there.
    - `secrets`: texts that no message may show.
    """

    __slots__ = ("_converter", "_max_text_size", "_partial", "_sample_rate", "_secrets", "queue")

    def __init__(
        self, *, sample_rate: int, resampling: ResamplingFactory, max_text_size: int, secrets: Sequence[str]
    ) -> None:
        self.queue = ClientQueue()
        self._sample_rate = sample_rate
        self._converter = Converter(resampling)
        self._max_text_size = max_text_size
        self._partial: dict[Role, str] = {}
        self._secrets = tuple(secret for secret in secrets if secret)

    def tell(self, frame: ClientFrame) -> None:
        """As it is."""
        self.queue.put(frame)

    def tell_speech(self, pcm: bytes, sample_rate: int) -> None:
        """More of what the provider says, at its rate; the end of it may be held back."""
        self._tell_audio(self._converter.convert(pcm, sample_rate, self._sample_rate))

    def end_speech(self) -> None:
        """What was held back of it; whatever is told next comes behind it."""
        self._tell_audio(self._converter.flush())

    def cut_speech(self, interruption: Interruption) -> None:
        """Nobody is to hear the rest of it, nor what of it waits."""
        self._converter.reset()
        self.queue.put(interruption)

    def tell_text(self, transcript: Transcript) -> None:
        """What was heard or said, so far or in the end."""
        text = self._cut(transcript.text)
        self._partial.pop(transcript.role, None)
        if not transcript.final:
            self._partial[transcript.role] = text
        self.queue.put(Transcript(transcript.role, text, transcript.final))

    def end_texts(self) -> None:
        """What was heard or said so far is all that will come of it."""
        for role, text in self._partial.items():
            self.queue.put(Transcript(role, text, True))
        self._partial.clear()

    def tell_error(self, error: ErrorFrame) -> ErrorFrame:
        """In the client's words, and without what it must not see; gives what it was told."""
        told = for_client(error, self._secrets)
        self.queue.put(told)
        return told

    def tell_end(self, end: ResponseEnd) -> None:
        """The end of an answer, after its speech."""
        self.end_speech()
        self.queue.put(ResponseEnd(end.status, as_told(end.reason, self._secrets)))

    def _tell_audio(self, pcm: bytes) -> None:
        if pcm:
            self.queue.put(Audio(pcm, self._sample_rate))

    def _cut(self, text: str) -> str:
        if 4 * len(text) <= self._max_text_size:
            return text
        return text.encode()[: self._max_text_size].decode(errors="ignore")
