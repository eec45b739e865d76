"""The table of the session's states: every cell of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from docs import diagrams
from speko_anyio.protocol import ClientProtocol, LocalProtocolError, ServerProtocol, SpekoError, State
from speko_anyio.protocol import _state as state
from speko_anyio.protocol._state import TRANSITIONS, Signal, transition

from .helpers import client, open_pair

# Written out once more, by hand, so that a change of the table is a change here too.
EXPECTED = """
                  CONNECTING  OPEN     CLOSING  CLOSED
OPENED            OPEN        -        -        -
REFUSED           CLOSED      -        -        -
MESSAGE_SENT      -           OPEN     -        -
MESSAGE_RECEIVED  -           OPEN     CLOSING  -
END_RECEIVED      -           CLOSING  CLOSING  -
CLOSE_SENT        CLOSED      CLOSING  CLOSING  -
CLOSE_RECEIVED    -           CLOSED   CLOSED   -
VIOLATED          CLOSED      CLOSED   CLOSED   -
SEND_FAILED       CLOSED      CLOSING  CLOSING  -
LOST              CLOSED      CLOSED   CLOSED   -
"""


def expected_cells() -> dict[tuple[State, Signal], State | None]:
    head, *rows = EXPECTED.strip().splitlines()
    states = [State[name] for name in head.split()]
    cells: dict[tuple[State, Signal], State | None] = {}
    for row in rows:
        signal, *after = row.split()
        for before, name in zip(states, after, strict=True):
            cells[before, Signal[signal]] = None if name == "-" else State[name]
    return cells


def test_the_expectation_covers_the_whole_product() -> None:
    assert set(expected_cells()) == {(state, signal) for state in State for signal in Signal}


@pytest.mark.parametrize(("cell", "after"), expected_cells().items(), ids=str)
def test_every_cell(cell: tuple[State, Signal], after: State | None) -> None:
    before, signal = cell
    if after is None:
        with pytest.raises(AssertionError, match=f"bug in speko_anyio: {signal.name} in state {before.name}"):
            transition(before, signal)
    else:
        assert transition(before, signal) is after


def test_no_arc_leaves_closed() -> None:
    assert [arc for arc in TRANSITIONS if arc[0] is State.CLOSED] == []


def test_every_state_is_reached_from_the_first_and_closed_from_every_state() -> None:
    def reachable(start: State) -> set[State]:
        found = {start}
        while True:
            more = {after for (before, _), after in TRANSITIONS.items() if before in found}
            if more <= found:
                return found
            found |= more

    assert reachable(State.CONNECTING) == set(State)
    assert all(State.CLOSED in reachable(start) for start in State)


def test_the_table_knows_no_role() -> None:
    source = inspect.getsource(state).lower()
    assert "client" not in source
    assert "server" not in source


def test_both_roles_walk_the_same_states() -> None:
    def walk(session: ClientProtocol | ServerProtocol) -> list[State]:
        seen = [session.state]
        session.close(1000, "bye")
        seen.append(session.state)
        session.receive_close(1000)
        seen.append(session.state)
        return seen

    both = [walk(ClientProtocol()), walk(ServerProtocol())]
    assert both == [[State.OPEN, State.CLOSING, State.CLOSED]] * 2


def test_a_message_may_be_sent_in_exactly_the_states_of_the_table() -> None:
    connecting = client()
    open_, _ = open_pair()
    closing, _ = open_pair()
    closing.close()
    closed, _ = open_pair()
    closed.receive_lost()
    for session in (connecting, open_, closing, closed):
        if (session.state, Signal.MESSAGE_SENT) in TRANSITIONS:
            session.commit()
        else:
            with pytest.raises(SpekoError):
                session.commit()
    assert [session.state for session in (connecting, open_, closing, closed)] == list(State)


def test_sending_while_connecting_is_the_callers_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="wait for the handshake"):
        client().commit()


@pytest.mark.parametrize("name", diagrams.PAGES)
def test_the_committed_diagram_is_what_the_table_gives(name: str) -> None:
    committed = (Path(diagrams.__file__).parent / name).read_text(encoding="utf-8")
    assert committed == diagrams.PAGES[name](), "run: python docs/diagrams.py"


def test_the_diagram_has_every_state_and_every_arc() -> None:
    texts = [element.text for element in ET.fromstring(diagrams.svg()).iter() if element.tag[-4:] == "text"]
    assert sorted(str(text) for text in texts) == sorted(
        [state.name for state in State] + [signal.value for _, signal in TRANSITIONS]
    )


def test_the_diagram_is_written_beside_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagrams, "HERE", tmp_path)
    diagrams.main()
    assert {path.name for path in tmp_path.iterdir()} == set(diagrams.PAGES)
