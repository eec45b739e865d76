"""When the sessions of a load speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.cli._turn import MESSAGE_SECONDS
from speko_anyio.cli.bench._session_runs import Plan

CLOCK = st.floats(0, 1e6)


@given(sessions=st.integers(1, 60), now=CLOCK, data=st.data())
def test_sessions_speak_at_evenly_spread_moments_whenever_they_were_opened(
    sessions: int, now: float, data: st.DataObject
) -> None:
    plan = Plan(kind="echo", provider="echo", model="echo", sessions=sessions, seconds=1, ramp=1, rate=24000)
    moments = []
    for index in range(sessions):
        opened = now + data.draw(st.floats(0, 100), label="opened")
        moment = plan.speaks_at(index, opened)
        assert -1e-6 < moment - opened < MESSAGE_SECONDS + 1e-6
        # Rounded to where it lies in the time of a message.
        moments.append(round((moment / MESSAGE_SECONDS % 1) * sessions, 2) % sessions)
    assert moments == pytest.approx(range(sessions), abs=0.02)
