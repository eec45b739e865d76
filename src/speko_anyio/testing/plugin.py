"""The pytest plugin: fixtures for applications of this library. It changes nothing for whoever uses none.

pytest loads it in every project that has the library installed, so it imports nothing but pytest until a
fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .gateway import FakeGateway
    from .recording import Recording

# Written out: importing them would import asyncio.
_VIRTUAL_BACKENDS = ("asyncio", "trio") if find_spec("trio") else ("asyncio",)


@pytest.fixture
def speko_gateway() -> Iterator[FakeGateway]:
    """A fake gateway that serves every `Speko` which the test makes: set its `script`, look at its `session`.

    A failure of the script fails the test, also when the application swallows it.
    """
    from .gateway import FakeGateway

    with FakeGateway().installed() as gateway:
        yield gateway
    gateway.check()


@pytest.fixture(params=_VIRTUAL_BACKENDS)
def speko_virtual_time(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio and trio, where it is installed, on virtual time. Make it the backend of a module's tests::

    @pytest.fixture
    def anyio_backend(speko_virtual_time): return speko_virtual_time
    """
    from .clock import virtual_backend

    return virtual_backend(request.param)


@pytest.fixture
def speko_recording(request: pytest.FixtureRequest) -> Callable[[str], Recording]:
    """Loads recorded sessions by name, from the folder ``recordings`` beside the test's file."""
    from .recording import Recording

    folder = request.path.parent / "recordings"
    return lambda name: Recording.load(folder / name)
