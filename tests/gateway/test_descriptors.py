"""How many descriptors the process may have, and that it takes what the system grants."""

from __future__ import annotations

import math
import sys

import pytest

from speko_anyio.gateway import _descriptors
from speko_anyio.gateway._descriptors import descriptor_limit, raise_descriptor_limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

INFINITY = -1


class Resource:
    """The limits of a process, in place of this one's."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = INFINITY

    def __init__(self, soft: int, hard: int, *, most: int | None = None) -> None:
        self.limits = (soft, hard)
        self.most = most

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == self.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == self.RLIMIT_NOFILE
        if self.most is not None and limits[0] > self.most:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, 4096),
        (1024, 1 << 20, 65_536),
        (256, INFINITY, 65_536),
        (4096, 4096, 4096),
        (1 << 20, 1 << 20, 1 << 20),
        (INFINITY, INFINITY, math.inf),
    ],
)
def test_what_is_granted_is_used(
    soft: int, hard: int, raised: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = Resource(soft, hard)
    monkeypatch.setattr(_descriptors, "resource", resource)
    raise_descriptor_limit()
    assert descriptor_limit() == raised
    assert resource.limits[1] == hard


def test_a_system_that_grants_less_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descriptors, "resource", Resource(256, INFINITY, most=10_240))
    raise_descriptor_limit()
    assert descriptor_limit() == 10_240
