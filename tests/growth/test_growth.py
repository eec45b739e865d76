"""Nothing that a peer or a file holds is worked on in more than linear time."""

from __future__ import annotations

import pytest

from .cases import CASES
from .measure import MOST, Case, growth


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_work_grows_no_faster_than_its_input(case: Case) -> None:
    assert growth(case) <= MOST


def test_quadratic_work_is_found() -> None:
    def search(names: list[str]) -> None:
        for name in names:
            assert name in names

    case = Case("quadratic", lambda size: [str(number) for number in range(size)], search, 2000)
    assert growth(case) > MOST
