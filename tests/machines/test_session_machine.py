"""A client core and a server core back to back, against a simple model; see `session_machine`."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .session_machine import SessionMachine

ROUND = 1000
"""Examples in one go: Hypothesis remembers each, and a hundred thousand of these would take gigabytes."""


def test_session() -> None:
    wanted = settings().max_examples
    for done in range(0, wanted, ROUND):
        run_state_machine_as_test(SessionMachine, settings=settings(max_examples=min(ROUND, wanted - done)))
