"""What a bridge sends to the client: resampled, bounded, and without secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol._resampling import Converter, ResamplingFactory
from ...protocol._session import ServerFrame, ServerProtocol
from ...protocol._state import State
from ...protocol.errors import SpekoError
from ...protocol.frames import ErrorFrame, Interruption, ResponseEnd, Role, Transcript
from ._errors import as_told, for_client


def _ignore(frame: ServerFrame) -> None:
    pass


class ClientOutput:
    """Writes to the core of the client's session, in whose outbox all of it waits.

    Audio is converted to the session's rate, transcripts are cut to size and completed, and errors lose their
    secrets. There is no queue here: only the resampler may hold audio back, and every method that must not
    overtake that audio flushes it first.

    - `client`: that core.
    - `max_text_size`: bytes of a transcript, which is cut there.
    - `secrets`: texts that no message may show.
    - `on_emitted`: called with each frame that was queued, except audio.
    """

    __slots__ = (
        "_client",
        "_converter",
        "_max_text_size",
        "_on_emitted",
        "_partial",
        "_sample_rate",
        "_secrets",
        "refused",
    )

    def __init__(
        self,
        client: ServerProtocol,
        *,
        resampling: ResamplingFactory,
        max_text_size: int,
        secrets: Sequence[str],
        on_emitted: Callable[[ServerFrame], None] | None,
    ) -> None:
        self._client = client
        self._sample_rate = client.output_sample_rate
        self._converter = Converter(resampling)
        self._max_text_size = max_text_size
        self._partial: dict[Role, str] = {}
        self._secrets = tuple(secret for secret in secrets if secret)
        self._on_emitted = on_emitted or _ignore
        self.refused: int = 0
        """Frames that were lost because the open session's outbox was full."""

    def emit(self, frame: ServerFrame) -> None:
        """Queue `frame` unchanged."""
        try:
            self._client.send(frame)
        except SpekoError:
            self._note_refusal()
        else:
            self._on_emitted(frame)

    def emit_audio(self, pcm: bytes, source_rate: int | None = None) -> None:
        """Queue audio at the provider's rate; the resampler may hold back its end.

        Without `source_rate`, the audio has the client's rate already.
        """
        if source_rate is not None and (
            source_rate != self._sample_rate or self._converter.resampling is not None
        ):
            pcm = self._converter.convert(pcm, source_rate, self._sample_rate)
        if pcm:
            try:
                self._client.send_audio(pcm)
            except SpekoError:
                self._note_refusal()

    def end_audio(self) -> None:
        """Queue the audio that was held back, ahead of whatever comes next."""
        self.emit_audio(self._converter.flush())

    def cut_audio(self, interruption: Interruption) -> None:
        """Queue an interruption; drop the rest of the audio, and the calls that were not sent yet."""
        self._converter.reset()
        self._client.withdraw_calls()
        self.emit(interruption)

    def emit_text(self, transcript: Transcript) -> None:
        """Queue a transcript, partial or final."""
        text = self._cut(transcript.text)
        self._partial.pop(transcript.role, None)
        if not transcript.final:
            self._partial[transcript.role] = text
        self.emit(Transcript(transcript.role, text, transcript.final))

    def finish_texts(self) -> None:
        """Complete the partial transcripts: no more of them will come."""
        for role, text in self._partial.items():
            self.emit(Transcript(role, text, True))
        self._partial.clear()

    def emit_error(self, error: ErrorFrame) -> ErrorFrame:
        """Queue `error` with a stable code and without secrets; return what was queued."""
        told = for_client(error, self._secrets)
        self.emit(told)
        return told

    def emit_response_end(self, end: ResponseEnd) -> None:
        """Queue the end of an answer, behind its audio."""
        self.end_audio()
        self.emit(ResponseEnd(end.status, as_told(end.reason, self._secrets)))

    def _note_refusal(self) -> None:
        # A session that is over refuses everything, but that is no loss.
        self.refused += self._client.state is State.OPEN

    def _cut(self, text: str) -> str:
        if 4 * len(text) <= self._max_text_size:
            return text
        return text.encode()[: self._max_text_size].decode(errors="ignore")
