"""Models whose end their provider has announced: the date, and what replaces them.

Add an entry when an announcement appears; a test fails 30 days before the end of any model that this project
itself names. Dates are text because this package reads no clock.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ..protocol.capabilities import Capabilities


class AnnouncedEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The announced end of one model."""

    model: str
    """The provider's name for it. Its dated snapshots, such as ``model-2025-08-28``, end with it."""
    date: str
    """ISO 8601. From that day on the provider rejects the model."""
    successor: str
    """A model of the same provider for the same use."""
    source: str
    """Where the announcement was read, and when."""


AS_OF: Final = "2026-11-30"
"""The date (ISO 8601) of the last search for announcements."""

_TYPES: Final = "docstrings of the PyPI package openai 3.57.0, read 2026-11-30"

ANNOUNCED_ENDS: Final = tuple(
    AnnouncedEnd(model=model, date=date, successor=successor, source=_TYPES)
    for model, date, successor in (
        ("gpt-realtime", "2027-01-20", "gpt-realtime-2.1"),
        ("gpt-realtime-mini", "2027-01-20", "gpt-realtime-2.1-mini"),
        ("whisper-1", "2027-02-26", "gpt-live-transcribe"),
        ("gpt-4o-transcribe", "2027-02-26", "gpt-live-transcribe"),
        ("gpt-4o-transcribe-diarize", "2027-02-26", "gpt-live-transcribe"),
        ("gpt-4o-mini-transcribe", "2027-02-26", "gpt-live-transcribe"),
    )
)
"""All known ends. None is known for models of Google or xAI."""

_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


def announced_end(model: str) -> AnnouncedEnd | None:
    """Return the announced end of `model`, or of the model of which it is a dated snapshot."""
    names = (model, _SNAPSHOT.sub("", model))
    return next((end for end in ANNOUNCED_ENDS if end.model in names), None)


def end_notes(*models: str | None) -> list[str]:
    """Return a log message for each of `models` whose end is announced."""
    return [
        f"the provider has announced the end of {model} for {end.date}: use {end.successor}"
        for model in models
        if model is not None and (end := announced_end(model)) is not None
    ]


def dated(capabilities: Capabilities, model: str) -> Capabilities:
    """Return `capabilities` with what is known of the end of `model`."""
    end = announced_end(model)
    return msgspec.structs.replace(
        capabilities,
        shutdown=None if end is None else end.date,
        replaced_by=None if end is None else end.successor,
        as_of=AS_OF,
    )
