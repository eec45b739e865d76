"""Recordings: what is written down, saved and read again, and that a replay gives the same session."""

# ruff: noqa: PT012 - what is expected comes out of a whole `async with` or `async for`

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speko_anyio import (
    Audio,
    Close,
    ErrorFrame,
    Expiring,
    Frame,
    Interruption,
    Ready,
    ResponseEnd,
    ServerToolCall,
    SessionInfo,
    ToolCall,
    ToolSpec,
    Transcript,
    Unknown,
    Usage,
)
from speko_anyio.protocol import (
    AudioIn,
    Clear,
    Command,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Respond,
    Say,
    State,
    TextIn,
    ToolResult,
    Update,
)
from speko_anyio.protocol._extensions import KNOWN
from speko_anyio.recording import Moment, Recorder, Recording, RecordingError
from speko_anyio.testing import FakePeer, fake_session, peer_of, perform, replay, steps
from speko_anyio.testing._clock import VIRTUAL_BACKENDS, virtual_backend
from speko_anyio.testing.server import TOKEN

PCM = bytes(range(256)) * 4


@pytest.fixture(params=VIRTUAL_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual_backend(request.param)


# Any conversation that a gateway and a client can have

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SOME_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PIECES = st.integers(1, 400).flatmap(lambda samples: st.binary(min_size=2 * samples, max_size=2 * samples))
RATES = st.sampled_from([16_000, 24_000])
FRAMES = st.one_of(
    st.builds(Audio, PIECES, st.just(0)),
    st.builds(Transcript, st.sampled_from(["user", "assistant"]), TEXTS, st.booleans()),
    st.builds(ServerToolCall, TEXTS, TEXTS, st.sampled_from(["started", "completed", "failed"])),
    st.builds(Interruption, st.sampled_from(["user", "assistant"])),
    st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    st.builds(ResponseEnd, st.sampled_from(["done", "interrupted", "incomplete", "failed"]), TEXTS),
    st.builds(ErrorFrame, TEXTS, TEXTS),
    TEXTS.map(lambda text: Unknown("new", json.dumps({"t": "new", "x": text}, indent=1))),
    st.just("call"),
)
COMMANDS = st.one_of(
    st.builds(AudioIn, PIECES, st.just(0)),
    st.sampled_from([Commit(), Clear(), EndTurn(), Interrupt()]),
    st.tuples(st.just("answer"), TEXTS),
    st.builds(TextIn, SOME_TEXT, st.sampled_from(["user", "assistant", "system"]), st.booleans()),
    st.builds(ImageIn, st.just("image/png"), st.binary(min_size=1, max_size=9), st.booleans()),
    st.builds(Respond, TEXTS),
    st.builds(Say, SOME_TEXT),
    st.builds(Update, system_prompt=TEXTS, tools=st.just((ToolSpec(name="f"),))),
    st.builds(Update, voice=SOME_TEXT, turns=st.sampled_from(["auto", "manual"])),
)
ENDS = st.one_of(
    st.builds(Close, st.sampled_from([1000, 4000, 4401]), TEXTS, st.sampled_from(["remote", "local"])),
    st.just(Close(1006, "the peer hung up without a closing handshake", "transport")),
)


@st.composite
def recordings(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Recording:
    recording = Recording(
        session_id=draw(TEXTS),
        provider=draw(st.none() | TEXTS),
        input_sample_rate=draw(RATES),
        output_sample_rate=draw(RATES),
    )
    rates = recording.input_sample_rate, recording.output_sample_rate
    moments = recording.moments
    moments.append(Moment(0.0, "gateway", Ready(*rates, KNOWN)))
    at, calls, open_calls = 0.0, 0, []
    for what in draw(st.lists(FRAMES | COMMANDS, max_size=12)):
        at = round(at + draw(st.integers(1, 5_000)) / 1000, 6)
        if what == "call":
            calls += 1
            open_calls.append(f"c{calls}")
            what = ToolCall(f"c{calls}", draw(TEXTS), draw(TEXTS))
        elif isinstance(what, tuple):
            if not open_calls:
                continue
            what = ToolResult(open_calls.pop(0), what[1])
        elif isinstance(what, AudioIn):
            what = AudioIn(what.pcm, rates[0])
        elif isinstance(what, Audio):
            what = Audio(what.pcm, rates[1])
        by_client = isinstance(what, get_args(Command)) and not isinstance(what, Unknown)
        moments.append(Moment(at, "client" if by_client else "gateway", what))
    end = draw(ENDS)
    moments.append(Moment(round(at + 0.5, 6), "client" if end.initiated_by == "local" else "gateway", end))
    return recording


@given(recording=recordings(), by=st.sampled_from(["client", "gateway"]))
def test_what_is_saved_is_what_is_loaded(recording: Recording, by: Any) -> None:
    recording.moments.insert(1, Moment(0.0, "gateway", Expiring(60.0)))
    other = (AudioIn if by == "client" else Audio)(PCM, 8_000)
    recording.moments.insert(1, Moment(0.0, by, other))
    with tempfile.TemporaryDirectory() as directory:
        recording.save(directory)
        assert Recording.load(directory) == recording
        Recording.load(directory).save(directory)
        assert Recording.load(directory) == recording


@pytest.mark.anyio
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(recording=recordings())
async def test_a_replay_gives_the_session_that_was_recorded(recording: Recording) -> None:
    again = Recorder(hide=str)
    async with fake_session(
        replay(recording), peer=peer_of(recording), observer=again, within=3600, ping_interval=None
    ) as (session, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(perform, session, recording)
            async for _frame in session:
                pass
    for side in ("client", "gateway"):
        before = [moment for moment in recording.moments if moment.by == side]
        after = [moment for moment in again.recording.moments if moment.by == side]
        assert [moment.what for moment in after] == [moment.what for moment in before]
        assert [moment.at for moment in after] == pytest.approx([moment.at for moment in before])
    assert again.recording.input_sample_rate == recording.input_sample_rate
    assert again.recording.output_sample_rate == recording.output_sample_rate


# What is written down


async def conversation(recorder: Recorder, **options: Any) -> None:
    async def script(peer: FakePeer) -> None:
        await peer.expect(Commit)
        await peer.call_tool("f", city="Oslo")
        peer.send(ErrorFrame("NO", f"the token {TOKEN} is bad"))
        await peer.say(PCM, pace=1.0)

    async def f(city: str) -> str:
        await anyio.sleep(1.0)
        return f"sk_live_0123456789 {city}"

    async with fake_session(script, tools=[f], observer=recorder, **options) as (session, _):
        await anyio.sleep(0.5)
        await session.send_audio(PCM)
        await session.commit()
        async for _frame in session:
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("ends", [True, False])
async def test_a_replay_tells_the_ends_of_answers_also_where_none_was_recorded(ends: bool) -> None:
    recording = Recording(moments=[Moment(0.0, "gateway", Ready(24_000, 24_000))])
    for what in (
        Audio(PCM, 24_000),
        Usage(1, 2),
        ResponseEnd("incomplete", "why"),
        Close(1000, "", "remote"),
    ):
        if ends or not isinstance(what, ResponseEnd):
            recording.moments.append(Moment(0.5, "gateway", what))
    async with fake_session(replay(recording), peer=peer_of(recording)) as (session, _):
        told = [frame async for frame in session if isinstance(frame, ResponseEnd)]
    assert told == [ResponseEnd("incomplete", "why") if ends else ResponseEnd("done")]


@pytest.mark.anyio
async def test_a_recorder_writes_down_both_sides_with_their_times() -> None:
    recorder = Recorder()
    await conversation(recorder)
    recording = recorder.recording
    assert recording.session_id == "s1"
    said: list[tuple[float, str, Command | Frame]] = [(m.at, m.by, m.what) for m in recording.moments]
    assert said == [
        (0.0, "gateway", Ready(24_000, 24_000, KNOWN)),
        (0.5, "client", AudioIn(PCM, 24_000)),
        (0.5, "client", Commit()),
        (0.5, "gateway", ToolCall("call-1", "f", '{"city": "Oslo"}')),
        (1.5, "client", ToolResult("call-1", "*** Oslo")),
        (1.5, "gateway", ErrorFrame("NO", "the token *** is bad")),
        (1.5, "gateway", Audio(PCM[:960], 24_000)),
        (1.52, "gateway", Audio(PCM[960:], 24_000)),
        (pytest.approx(1.521333), "gateway", Close(1000, "", "remote")),
    ]
    assert recording.seconds == pytest.approx(1.521333)
    assert recording.audio("client") == recording.audio("gateway") == PCM


@pytest.mark.anyio
async def test_no_token_and_no_key_is_saved(tmp_path: Path) -> None:
    recorder = Recorder()
    await conversation(recorder)
    recorder.recording.save(tmp_path / "deep" / "weather")
    files = {path.name: path.read_bytes() for path in (tmp_path / "deep" / "weather").iterdir()}
    assert files.keys() == {"session.jsonl", "user.wav", "assistant.wav"}
    for content in files.values():
        assert TOKEN.encode() not in content
        assert b"sk_live" not in content


@pytest.mark.anyio
async def test_texts_are_hidden_as_one_likes() -> None:
    recorder = Recorder(hide=lambda text: "x" * len(text))
    await conversation(recorder)
    calls = [moment.what for moment in recorder.recording.moments if isinstance(moment.what, ToolCall)]
    assert calls == [ToolCall("call-1", "f", "x" * 16)]


@pytest.mark.anyio
async def test_a_recording_is_bounded_and_says_so(tmp_path: Path) -> None:
    recorder = Recorder(max_bytes=1_000)
    await conversation(recorder)
    recording = recorder.recording
    assert recording.truncated
    assert [type(moment.what) for moment in recording.moments][-1] is Close
    assert len(recording.moments) < 6
    recording.save(tmp_path)
    assert Recording.load(tmp_path) == recording


@pytest.mark.anyio
async def test_each_session_is_a_recording_and_none_that_never_opened() -> None:
    recorder = Recorder()
    peer = FakePeer()
    peer.greet = lambda: peer.core.refuse(401, "no")
    with pytest.raises(Exception, match="401"):
        async with fake_session(peer=peer, observer=recorder):
            raise AssertionError("opened")
    with pytest.raises(AssertionError, match="0 sessions"):
        _ = recorder.recording
    for _ in range(2):
        async with fake_session(observer=recorder):
            pass
    assert [type(recording.moments[-1].what) for recording in recorder.recordings] == [Close, Close]
    assert [recording.moments[-1].by for recording in recorder.recordings] == ["client", "client"]


# Replay


@pytest.mark.anyio
async def test_a_replay_waits_for_the_client_and_time_counts_on_from_there() -> None:
    recording = Recording(
        moments=[
            Moment(1.0, "client", Commit()),
            Moment(1.25, "gateway", Transcript("assistant", "hi", True)),
            Moment(2.0, "gateway", Close(1000, "done", "remote")),
        ]
    )
    async with fake_session(replay(recording)) as (session, _):
        await session.receive()
        await anyio.sleep(5.0)
        await session.commit()
        start = anyio.current_time()
        assert await session.receive() == Transcript("assistant", "hi", True)
        assert anyio.current_time() - start == pytest.approx(0.25)
        assert isinstance(await session.receive(), Close)
        assert anyio.current_time() - start == pytest.approx(1.0)


@pytest.mark.anyio
async def test_a_client_that_does_something_else_fails_the_test() -> None:
    recording = Recording(moments=[Moment(1.0, "client", Commit())])
    with pytest.raises(AssertionError, match=r"expected Commit of the client, got Clear\(\)"):
        async with fake_session(replay(recording)) as (session, _):
            await session.clear()
            await anyio.sleep(3600)
    start = anyio.current_time()
    with pytest.raises(AssertionError, match="expected Commit of the client, got nothing within 11 s"):
        async with fake_session(replay(recording)):
            await anyio.sleep(3600)
    assert anyio.current_time() - start == pytest.approx(11.0)


@pytest.mark.anyio
async def test_a_users_part_goes_to_any_gateway() -> None:
    recording = Recording(
        moments=[
            Moment(0.0, "client", AudioIn(PCM, 24_000)),
            Moment(1.0, "client", ToolResult("unknown here", "x")),
            Moment(2.0, "client", Commit()),
            Moment(4.0, "client", Clear()),
        ]
    )
    async with fake_session([steps.expect(Commit)]) as (session, peer):
        start = anyio.current_time()
        await perform(session, recording)
        assert anyio.current_time() - start == pytest.approx(4.0)
    assert peer.said() == [Commit()]
    assert peer.audio() == PCM


# Files that are none


def write(directory: Path, *lines: str) -> None:
    head = '{"format": "speko-anyio recording 1", "inputSampleRate": 24000, "outputSampleRate": 24000}'
    (directory / "session.jsonl").write_text("\n".join([head, *lines]))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2, is invalid"),
        ('{"at": 0, "by": "nobody"}', "line 2, is invalid"),
        ('{"at": 0, "by": "client"}', "line 2: Input data was truncated"),
        ('{"at": 0, "by": "gateway", "message": {"t": "transcript", "final": 1}}', "line 2: Expected `bool`"),
        ('{"at": 0, "by": "gateway", "message": {"t": "end"}}', "line 2: an `end`"),
        ('{"at": 0, "by": "gateway", "audio": 1}', "assistant.wav"),
        ('{"at": 0, "by": "client", "audio": 1}', "user.wav is only the beginning of a WAV file"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, line)
    (tmp_path / "user.wav").write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=reason):
        Recording.load(tmp_path)


def test_audio_that_is_missing_is_noticed(tmp_path: Path) -> None:
    Recording(moments=[Moment(0.0, "client", AudioIn(PCM, 24_000))]).save(tmp_path)
    lines = (tmp_path / "session.jsonl").read_text().replace('"audio":512', '"audio":513')
    (tmp_path / "session.jsonl").write_text(lines)
    with pytest.raises(RecordingError, match="shorter"):
        Recording.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "\x00", "[]", '{"format": "other", "inputSampleRate": 1, "outputSampleRate": 1}']
)
def test_another_file_is_no_recording(tmp_path: Path, content: str) -> None:
    (tmp_path / "session.jsonl").write_text(content)
    with pytest.raises(RecordingError, match="record it again"):
        Recording.load(tmp_path)


def test_a_side_that_no_longer_speaks_leaves_no_file(tmp_path: Path) -> None:
    Recording(moments=[Moment(0.0, "client", AudioIn(PCM, 24_000))]).save(tmp_path)
    Recording().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["session.jsonl"]
    assert Recording.load(tmp_path) == Recording()


def test_the_time_is_known_in_a_callback_of_the_loop_whatever_anyio_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask_anyio() -> float:
        raise AssertionError("older versions of anyio know no loop outside of a task")

    recorder = Recorder()

    async def main() -> None:
        watcher = recorder(SessionInfo(session_id="s1", host="speko.test", port=80))
        loop = asyncio.get_running_loop()
        loop.call_soon(watcher.state_changed, State.OPEN)
        loop.call_soon(watcher.sent, Commit())
        await asyncio.sleep(0)

    monkeypatch.setattr(anyio, "current_time", ask_anyio)
    asyncio.run(main())
    assert [moment.what for moment in recorder.recording.moments] == [Commit()]
