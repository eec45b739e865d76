"""The core against stock wsproto, and against itself under other cuts: one behaviour, whatever the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings, target
from hypothesis import strategies as st

from speko_anyio.protocol import (
    ClientConnection,
    ClientProtocol,
    Close,
    Limits,
    RemoteProtocolError,
    ServerConnection,
    ServerProtocol,
    SpekoError,
)

from . import driver
from . import strategies as strat
from .driver import Wire
from .oracle import Oracle

VERBS = ("nothing", "close", "close 4000", "interruption", "call c", "result a", "interrupt", "say")

SHARE = settings(max_examples=max(50, settings().max_examples // 16))
"""The examples of each of the 16 proofs here: profile deep's hundred thousand are those of all of them, which
takes an hour and not a day."""

ROLES = [pytest.param(True, id="client"), pytest.param(False, id="server")]


def say(side: ClientConnection | ServerConnection | ClientProtocol | ServerProtocol, verb: str) -> str | None:
    """Use a verb of the role that `side` has; the name of the error it raises."""
    try:
        if verb == "close":
            side.close()
        elif verb == "close 4000":
            side.close(4000, "enough")
        elif isinstance(side, ServerProtocol | ServerConnection) and verb == "interruption":
            side.send_interruption()
        elif isinstance(side, ServerProtocol | ServerConnection) and verb == "call c":
            side.send_tool_call("c", "h", "")
        elif isinstance(side, ClientProtocol | ClientConnection) and verb == "result a":
            side.send_tool_result("a", "1")
        elif isinstance(side, ClientProtocol | ClientConnection) and verb == "interrupt":
            side.interrupt()
        elif isinstance(side, ClientProtocol | ClientConnection) and verb == "say":
            side.say("Hello.")
    except SpekoError as error:
        return type(error).__name__
    return None


def without_words(events: list[Any], error: SpekoError | None) -> tuple[list[Any], Any]:
    """Events and error, without the words that describe what went wrong in the transport or the peer."""
    if error is None:
        return events, None
    violated = isinstance(error, RemoteProtocolError)
    kept = [
        Close(event.code, "", event.initiated_by)
        if isinstance(event, Close) and (violated or event.code == 1006)
        else event
        for event in events
    ]
    if violated:
        return kept, (RemoteProtocolError, error.close_code)  # type: ignore[attr-defined]
    return kept, (type(error), kept[-1])


def replies_without_words(replies: list[Wire], error: SpekoError | None) -> list[Wire]:
    """Replies, without the words of a close that tells the peer what it did wrong."""
    if isinstance(error, RemoteProtocolError):
        return [("close", wire[1]) if wire[0] == "close" else wire for wire in replies]
    return replies


class Segment:
    """Bytes from the peer, how they are cut, and what this side says after them."""

    def __init__(self, data: bytes, sizes: Sequence[int] | None, verb: str) -> None:
        self.data = data
        self.sizes = sizes
        self.verb = verb

    def __repr__(self) -> str:
        return f"Segment({self.data!r}, {self.sizes!r}, {self.verb!r})"


@st.composite
def scripts(draw: st.DrawFn, *, client: bool, kind: str) -> list[Segment]:
    """A stream in a few segments, split anywhere, with a verb after each but the last."""
    data = draw(strat.streams(client=client, kind=kind))
    splits = sorted(draw(st.lists(st.integers(0, len(data)), max_size=2)))
    parts = [data[a:b] for a, b in zip([0, *splits], [*splits, len(data)], strict=True)]
    return [
        Segment(part, draw(strat.chunkings()), draw(st.sampled_from(VERBS)) if i < len(splits) else "nothing")
        for i, part in enumerate(parts)
    ]


def run_core(
    *, client: bool, limits: Limits, script: list[Segment], eof: bool, coalesced: bool, rush: bool
) -> tuple[list[Any], SpekoError | None, list[Wire], list[str | None]]:
    """The core's events, error and replies to a script, and what its verbs raised.

    With `rush`, the last segment and the end of input come before anything of it is taken.
    """
    connection = driver.make(client=client, limits=limits, ping_interval=None)
    peer = driver.StockPeer(reads_from_client=client)
    opening = driver.opening(client=client)
    raised = []
    events: list[Any] = []
    raw = bytearray()
    if not coalesced:
        more, _, out = driver.drive(connection, [opening], eof=False)
        events += more
        raw += out
        opening = b""
    for i, segment in enumerate(script):
        pieces = strat.chunks(opening + segment.data, segment.sizes)
        if rush and i == len(script) - 1:
            for piece in pieces:
                connection.receive_data(piece)
            break
        more, _, out = driver.drive(connection, pieces, eof=False)
        opening = b""
        events += more
        raw += out
        raised.append(say(connection, segment.verb))
        raw += connection.data_to_send()
    more, error, out = driver.drive(connection, [], eof=eof)
    events += more
    raw += out
    driver.check_end(connection, events, error)
    if not client:  # the 101 goes first
        raw = raw.partition(b"\r\n\r\n")[2]
    replies = [said for _, said in peer.read(bytes(raw))]
    if client:
        assert len(set(peer.keys)) == len(peer.keys), "a masking key was used twice"
        assert len(peer.keys) == len(replies)
    return events, error, replies, raised


def run_oracle(
    *, client: bool, limits: Limits, script: list[Segment], eof: bool, bytewise: bool
) -> tuple[list[Any], SpekoError | None, list[Wire], list[str | None]]:
    """The same by the oracle."""
    oracle = Oracle(client=client, limits=limits, bytewise=bytewise)
    if isinstance(oracle.session, ServerProtocol):
        oracle.session.send_ready()
        oracle.session.send_tool_call("a", "f", "{}")
        oracle.session.send_tool_call("b", "g", "{}")
        oracle.sync()
    raised = []
    for segment in script:
        oracle.receive(segment.data)
        if oracle.error is not None:
            # The oracle's own verdict does not end its session: what a dead one raises is its error.
            raised.append(None if segment.verb in NO_ERROR_AFTER_THE_END else type(oracle.error).__name__)
        elif segment.verb == "close":
            oracle.close(1000, "")
            raised.append(None)
        elif segment.verb == "close 4000":
            oracle.close(4000, "enough")
            raised.append(None)
        else:
            raised.append(say(oracle.session, segment.verb))
            oracle.sync()
    if eof:
        oracle.receive_eof()
    return oracle.events, oracle.error, oracle.replies, raised


NO_ERROR_AFTER_THE_END = ("nothing", "close", "close 4000")


def check_against_wsproto(
    *,
    client: bool,
    limits: Limits,
    script: list[Segment],
    eof: bool,
    coalesced: bool,
    bytewise: bool,
    rush: bool,
) -> None:
    """One script: the core and the oracle do the same."""
    events, error, replies, raised = run_core(
        client=client, limits=limits, script=script, eof=eof, coalesced=coalesced, rush=rush
    )
    oracle = run_oracle(client=client, limits=limits, script=script, eof=eof, bytewise=bytewise)
    expected_events, expected_error, expected_replies, expected_raised = oracle
    assert without_words(events, error) == without_words(expected_events, expected_error)
    if not rush:  # what is not taken before the connection is lost falls with it
        assert replies_without_words(replies, error) == replies_without_words(expected_replies, error)
    assert [name for name, segment in zip(raised, script, strict=False) if applies(client, segment.verb)] == [
        name for name, segment in zip(expected_raised, script, strict=True) if applies(client, segment.verb)
    ]
    target(float(len(events)))


def applies(client: bool, verb: str) -> bool:
    """Whether this role has the verb."""
    return verb.startswith("close") or verb in (
        ("result a", "interrupt", "say") if client else ("interruption", "call c")
    )


@pytest.mark.parametrize("client", ROLES)
@pytest.mark.parametrize("kind", ["valid", "hostile", "mutated"])
@SHARE
@given(data=st.data())
def test_fast_lane_does_what_stock_wsproto_does(client: bool, kind: str, data: st.DataObject) -> None:
    eof = data.draw(st.booleans(), label="eof")
    check_against_wsproto(
        client=client,
        limits=data.draw(st.sampled_from(strat.LIMITS), label="limits"),
        script=data.draw(scripts(client=client, kind=kind), label="script"),
        eof=eof,
        coalesced=client and data.draw(st.booleans(), label="coalesced"),
        bytewise=data.draw(st.booleans(), label="bytewise"),
        rush=eof and data.draw(st.booleans(), label="rush"),
    )


@pytest.mark.parametrize("client", ROLES)
@SHARE
@given(data=st.data())
def test_every_prefix_then_eof_does_what_stock_wsproto_does(client: bool, data: st.DataObject) -> None:
    stream = data.draw(strat.streams(client=client), label="stream")
    upto = data.draw(st.integers(0, len(stream)), label="upto")
    check_against_wsproto(
        client=client,
        limits=strat.LIMITS[1],
        script=[Segment(stream[:upto], data.draw(strat.chunkings()), "nothing")],
        eof=True,
        coalesced=False,
        bytewise=False,
        rush=data.draw(st.booleans(), label="rush"),
    )


@st.composite
def conversations(draw: st.DrawFn, *, client: bool) -> bytes:
    """From the handshake on: mostly a good one with frames after it, sometimes anything at all."""
    valid = driver.opening(client=client)
    kind = draw(st.integers(0, 3))
    head = draw(strat.http_heads(valid)) if kind == 0 else valid
    frames = draw(strat.streams(client=client))
    if not client:  # what comes before the server's answer has a limit of its own
        frames = frames[:8000]
    return draw(strat.mutations(valid + frames)) if kind == 1 else head + frames


@pytest.mark.parametrize("client", ROLES)
@SHARE
@given(data=st.data())
def test_cuts_change_nothing(client: bool, data: st.DataObject) -> None:
    stream = data.draw(conversations(client=client), label="stream")
    limits = data.draw(st.sampled_from(strat.LIMITS), label="limits")
    eof = data.draw(st.booleans(), label="eof")
    outcomes = []
    for sizes in (None, data.draw(strat.chunkings(), label="cuts")):
        connection = driver.make(client=client, limits=limits, ping_interval=None)
        events, error, out = driver.drive(connection, strat.chunks(stream, sizes), eof=eof)
        driver.check_end(connection, events, error)
        outcomes.append((events, driver.comparable_error(error), out))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("client", ROLES)
@SHARE
@given(data=st.data())
def test_when_events_are_taken_changes_nothing(client: bool, data: st.DataObject) -> None:
    stream = data.draw(conversations(client=client), label="stream")
    sizes = data.draw(strat.chunkings(), label="cuts")
    eof = data.draw(st.booleans(), label="eof")
    outcomes = []
    for pull in ("each time", "at the end"):
        connection = driver.make(client=client, limits=strat.LIMITS[1], ping_interval=None)
        events, error, out = driver.drive(connection, strat.chunks(stream, sizes), eof=eof, pull=pull)
        outcomes.append((events, driver.comparable_error(error), out))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("client", ROLES)
@SHARE
@given(data=st.data())
def test_no_bytes_raise_anything_undocumented_or_pile_up(client: bool, data: st.DataObject) -> None:
    stream = data.draw(conversations(client=client) | st.binary(max_size=200), label="stream")
    limits = strat.LIMITS[1]
    connection = driver.make(client=client, limits=limits)
    pieces = list(strat.chunks(stream, data.draw(strat.chunkings(), label="cuts")))
    events, error, _ = driver.drive(connection, pieces, eof=False)
    # What came in one read may be held twice for a moment; more than that is for the limits to say.
    assert driver.deep_size(connection) < 60_000 + 3 * max(map(len, pieces), default=0)
    driver.check_end(connection, events, error)


@pytest.mark.parametrize("client", ROLES)
@SHARE
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
@example(data=b"\r\n\r\n", cut=2)
def test_arbitrary_bytes_never_open_a_session(client: bool, data: bytes, cut: int) -> None:
    connection = driver.make(client=client, limits=Limits())
    events, error, _ = driver.drive(connection, [data[:cut], data[cut:]], eof=True)
    assert events == []
    assert error is not None
    assert type(error) in driver.DOCUMENTED
    driver.check_end(connection, events, error)
