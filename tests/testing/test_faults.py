"""Whatever goes wrong, in whatever order: the client's session ends once, in time, and says so."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speko_anyio import Audio, Close, Frame, RemoteProtocolError, SpekoError, Transcript
from speko_anyio.client._session import RealtimeSession
from speko_anyio.testing import Step, fake_session, steps
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend

pytestmark = pytest.mark.anyio

SECONDS = st.sampled_from([0.0, 0.01, 1.0, 12.0])
STEPS = st.one_of(
    st.sampled_from(
        [
            steps.stall(),
            steps.stall(receiving=False),
            steps.stall(sending=False),
            steps.resume(),
            steps.deliver(1),
            steps.deliver(65_536),
            steps.send(Transcript("assistant", "hello", True), Audio(bytes(960), 24_000)),
            steps.interrupt(),
            steps.malformed(),
            steps.truncate(),
            steps.drop(),
            steps.reset(),
            steps.fail_sends(),
            steps.close(1012, "restarting"),
        ]
    ),
    SECONDS.map(steps.wait),
    SECONDS.map(steps.delay),
    SECONDS.map(lambda pace: steps.say(bytes(9_600), pace=1 + pace)),
)


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


async def talk(session: RealtimeSession) -> None:
    try:
        while True:
            await session.send_audio(bytes(960))
            await anyio.sleep(0.5)
    except SpekoError:
        return


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(STEPS, max_size=8))
async def test_a_session_ends_once_and_in_time(script: list[Step]) -> None:
    start = anyio.current_time()
    frames: list[Frame] = []
    options: Any = {"ping_interval": 5.0, "ping_timeout": 5.0, "close_timeout": 5.0}
    async with fake_session(script, within=600, **options) as (session, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk, session)
            try:
                async for frame in session:
                    frames.append(frame)  # noqa: PERF401 - those ahead of an error count too
            except RemoteProtocolError:
                pass
    assert [frame for frame in frames if isinstance(frame, Close)] == frames[-1:]
    assert session.closed == frames[-1]
    # Eight waits of 12 s at most, each with speech behind it, then keepalive and goodbye.
    assert anyio.current_time() - start < 8 * 12 + 60
