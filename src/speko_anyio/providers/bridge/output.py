"""What a bridge tells the client, in the client's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol.errors import SpekoError
from ...protocol.frames import ErrorFrame, Interruption, ResponseEnd, Role, Transcript
from ...protocol.session import ServerFrame, ServerProtocol
from ...protocol.state import State
from ..resampling import Converter, ResamplingFactory
from .errors import as_told, for_client


def _ignore(frame: ServerFrame) -> None:
    pass


class ClientOutput:
    """Writes to the core of the client's session, in whose outbox everything waits.

    Speech is converted to the session's rate, texts are cut to size and brought to an end, and errors are
    told without secrets.

    - `client`: that core.
    - `max_text_size`: bytes of a transcript, which is cut there.
    - `secrets`: texts that no message may show.
    - `on_told`: called with each frame that was queued, audio excepted.
    """

    __slots__ = (
        "_client",
        "_converter",
        "_max_text_size",
        "_on_told",
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
        on_told: Callable[[ServerFrame], None] | None,
    ) -> None:
        self._client = client
        self._sample_rate = client.output_sample_rate
        self._converter = Converter(resampling)
        self._max_text_size = max_text_size
        self._partial: dict[Role, str] = {}
        self._secrets = tuple(secret for secret in secrets if secret)
        self._on_told = on_told or _ignore
        self.refused: int = 0
        """Frames that the open session did not take, because its outbox is full."""

    def tell(self, frame: ServerFrame) -> None:
        """Queue `frame` as it is."""
        try:
            self._client.send(frame)
        except SpekoError:
            self._note_refusal()
        else:
            self._on_told(frame)

    def tell_speech(self, pcm: bytes, source_rate: int | None = None) -> None:
        """Queue more of what the provider says, at its rate, of which the end may be held back.

        None as the rate is the client's own: of speech that was converted.
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

    def end_speech(self) -> None:
        """Queue what was held back of the speech; whatever is told next comes behind it."""
        self.tell_speech(self._converter.flush())

    def cut_speech(self, interruption: Interruption) -> None:
        """Drop the rest of the speech, and the calls that nobody waits for any more."""
        self._converter.reset()
        self._client.withdraw_calls()
        self.tell(interruption)

    def tell_text(self, transcript: Transcript) -> None:
        """Queue what was heard or said, so far or in the end."""
        text = self._cut(transcript.text)
        self._partial.pop(transcript.role, None)
        if not transcript.final:
            self._partial[transcript.role] = text
        self.tell(Transcript(transcript.role, text, transcript.final))

    def end_texts(self) -> None:
        """Make final what was heard or said so far: nothing more comes of it."""
        for role, text in self._partial.items():
            self.tell(Transcript(role, text, True))
        self._partial.clear()

    def tell_error(self, error: ErrorFrame) -> ErrorFrame:
        """Queue `error` in the client's words, without what it must not see; return what it was told."""
        told = for_client(error, self._secrets)
        self.tell(told)
        return told

    def tell_end(self, end: ResponseEnd) -> None:
        """Queue the end of an answer, after its speech."""
        self.end_speech()
        self.tell(ResponseEnd(end.status, as_told(end.reason, self._secrets)))

    def _note_refusal(self) -> None:
        # A session that is over takes nothing either, and its `Close` is on its way.
        self.refused += self._client.state is State.OPEN

    def _cut(self, text: str) -> str:
        if 4 * len(text) <= self._max_text_size:
            return text
        return text.encode()[: self._max_text_size].decode(errors="ignore")
