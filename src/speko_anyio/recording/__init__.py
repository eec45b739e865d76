"""Recordings of sessions: make one, read it, and see who spoke when.

- `Recorder`: an observer that records a session; `Recording`: the result, and its files;
- `timeline_of` and `draw_timeline`: turns, waits and interruptions as data and as a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._picture import draw_timeline
    from ._recorder import Recorder
    from ._recording import Moment, Recording, RecordingError
    from ._timeline import Timeline, timeline_of

__all__ = [
    "Moment",
    "Recorder",
    "Recording",
    "RecordingError",
    "Timeline",
    "draw_timeline",
    "timeline_of",
]

lazy_exports(
    __name__,
    {
        "_picture": "draw_timeline",
        "_recorder": "Recorder",
        "_recording": "Moment Recording RecordingError",
        "_timeline": "Timeline timeline_of",
    },
)
