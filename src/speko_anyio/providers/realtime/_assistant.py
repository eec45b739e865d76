"""The assistant's side of a realtime session: the audio, words, usage and end of the response in flight."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from ...protocol._pcm import whole_samples
from ...protocol.frames import Audio, ResponseEnd, ResponseStatus, Usage
from .._heard import HeardEstimate
from . import _errors as errors
from . import _events as wire
from ._transcripts import Transcripts

_NO_ITEM: Final = " none"
"""No provider's id of an item: nothing was spoken yet."""

_NOTHING: Final = Usage()

_CORRECTED: Final = 16
"""Most items to remember as truncated or deleted: the provider's errors about those don't concern the
user."""


class Assistant:
    """The output of the response in flight, and how much of it the listener has heard.

    `ResponseGate` knows which response that is; nothing here depends on its id.
    """

    def __init__(self, playback: HeardEstimate, sample_rate: int) -> None:
        self.playback = playback
        self.sample_rate = sample_rate
        """Samples a second of the assistant's audio, PCM16 mono."""
        self.words: Transcripts = Transcripts("assistant")
        self.seen: bool = False
        """Whether any event of the response came, so that its end has to be reported."""
        self.spoke: bool = False
        """Whether it had output."""
        self.announced: bool = False
        """Whether its beginning was reported, rather than inferred from its output."""
        self.corrected: deque[str] = deque(maxlen=_CORRECTED)
        """The items that `corrections` truncated or deleted."""
        self.item_id: str | None = None
        """The item that is being spoken, for audio that does not tell."""
        self._audio_item: str | None = _NO_ITEM
        self._odd = b""
        self._usage = _NOTHING  # what was not reported yet

    @property
    def has_spoken(self) -> bool:
        """Whether any audio came in this session."""
        return self._audio_item is not _NO_ITEM

    def begin(self) -> None:
        """Start over for another response, whose items may reuse the ids of earlier ones."""
        self.seen, self.spoke, self.announced = True, False, False
        self.words.begin_all_again()
        self._odd = b""
        self.playback.begin()

    def audio(self, event: wire.AudioDelta) -> Audio | None:
        """Return the whole samples of an event, if there are any."""
        if event.item_id != self._audio_item:
            # Another item is another piece of speech: half a sample of the last must not shift it.
            self._audio_item = event.item_id
            self._odd = b""
        pcm = event.delta
        if self._odd or len(pcm) & 1:
            pcm, self._odd = whole_samples(self._odd, pcm)
        if not pcm:
            return None
        self.playback.add(event.item_id or "", event.content_index or 0, len(pcm))
        return Audio(pcm, self.sample_rate)

    def flush(self) -> None:
        """Apply an interruption: forget the unplayed audio, as the player does."""
        self._odd = b""
        self.playback.flush()

    def corrections(
        self, ids: wire.EventIds, *, played_ms: int | None = None, growing: bool
    ) -> list[wire.ClientEvent]:
        """Return messages that make the provider's history match what the listener heard.

        Call it before `flush`. `played_ms`: milliseconds that were heard of the item being played, if the
        caller knows better than the estimate. `growing`: the provider may have made more of the last item
        than it has sent.
        """
        events = []
        heard = self.playback.heard()
        for position, item in enumerate(heard):
            played = item.heard
            if position == 0 and played_ms is not None:
                played = max(0, min(played_ms, item.sent))
            if any(other.item_id == item.item_id for other in heard[position + 1 :]):
                continue  # skip an earlier item with the same id: the provider would apply it to the last one
            complete = played >= item.sent and not (growing and position == len(heard) - 1)
            if not item.item_id or complete:
                continue
            self.corrected.append(item.item_id)
            if played > 0:
                events.append(
                    ids.make(
                        wire.TruncateItem,
                        item_id=item.item_id,
                        content_index=item.content_index,
                        audio_end_ms=played,
                    )
                )
            else:
                # Nothing of it was heard, and providers refuse to truncate an item to nothing.
                events.append(ids.make(wire.DeleteItem, item_id=item.item_id))
        return events

    def end(self, reported: ResponseEnd | None, *, cut: bool) -> list[ResponseEnd]:
        """Return the end of the response, if anything of it was seen.

        - `reported`: the end as the provider reported it, if it did.
        - `cut`: the response was cut off before.
        """
        seen, spoke = self.seen, self.spoke
        self.seen = self.spoke = self.announced = False
        if not seen:
            return []
        # xAI sends neither output nor an end for a response that the user talked over.
        end = reported or ResponseEnd("done" if spoke else "interrupted")
        return [ResponseEnd("interrupted", end.reason) if cut else end]

    # Usage

    def count_usage(self, event: wire.ResponseDone) -> bool:
        """Add the usage of a response; return False if the event has none."""
        for usage in (event.response.usage, event.usage):
            if usage is not None and usage != _NO_USAGE:
                self._usage = _sum(self._usage, usage)
                return True
        return False

    def count_seconds(self, usage: wire.TranscriptionUsage | None) -> None:
        """Add the usage of a transcription that is charged by time."""
        seconds = None if usage is None else usage.seconds
        if seconds is not None and seconds > 0:
            self._usage = msgspec.structs.replace(self._usage, seconds=self._usage.seconds + seconds)

    def take_usage(self) -> Usage:
        """Return the usage that was counted since the last call."""
        usage, self._usage = self._usage, _NOTHING
        return usage

    def take_unreported(self) -> list[Usage]:
        """Return as `take_usage`, or nothing if nothing was counted."""
        return [] if self._usage == _NOTHING else [self.take_usage()]


_NO_USAGE: Final = wire.UsageInfo()
_NO_TOKENS: Final = wire.TokenDetails()
_NOT_CACHED: Final = wire.CachedTokens()


def _sum(before: Usage, usage: wire.UsageInfo) -> Usage:
    spent_in = usage.input_token_details or _NO_TOKENS
    spent_out = usage.output_token_details or _NO_TOKENS
    cached = spent_in.cached_tokens_details or _NOT_CACHED
    seconds = (
        usage.output_audio_seconds if usage.billable_audio_seconds is None else usage.billable_audio_seconds
    )
    return Usage(
        input_audio_tokens=before.input_audio_tokens + (spent_in.audio_tokens or 0),
        output_audio_tokens=before.output_audio_tokens + (spent_out.audio_tokens or 0),
        input_text_tokens=before.input_text_tokens + (spent_in.text_tokens or 0),
        output_text_tokens=before.output_text_tokens + (spent_out.text_tokens or 0),
        input_image_tokens=before.input_image_tokens + (spent_in.image_tokens or 0),
        cached_audio_tokens=before.cached_audio_tokens + (cached.audio_tokens or 0),
        cached_text_tokens=before.cached_text_tokens + (cached.text_tokens or 0),
        output_reasoning_tokens=before.output_reasoning_tokens + (spent_out.reasoning_tokens or 0),
        seconds=before.seconds + max(0.0, seconds or 0.0),
    )


_STATUSES: Final[dict[str | None, ResponseStatus]] = {
    "cancelled": "interrupted",
    "canceled": "interrupted",
    "incomplete": "incomplete",
    "failed": "failed",
}
"""The end that a response's status means. Any other status, or none, means that it is complete."""

_CUT_OFF: Final = frozenset({"turn_detected", "client_cancelled"})
"""Reasons of interrupted responses, which some servers call incomplete."""


def end_of(response: wire.Response) -> ResponseEnd:
    """Return the end that the provider reports."""
    status = _STATUSES.get(response.status, "done")
    if status == "done":
        return ResponseEnd(status)
    details = response.status_details
    if status == "failed":
        error = errors.response_failure(details)
        return ResponseEnd(status, str(error.code or error.type or ""))
    reason = details if isinstance(details, str) else wire.dig(details, str, "reason") or ""
    return ResponseEnd("interrupted" if reason in _CUT_OFF else status, reason)
