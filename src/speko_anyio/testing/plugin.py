"""The pytest plugin: fixtures for applications of this library. Projects that use none are not affected.

pytest loads it in every project that has the library installed, so it imports nothing but pytest until a
fixture is used.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..recording._recording import Recording
    from ._gateway import FakeGateway

# Repeated here: importing them would import asyncio.
_VIRTUAL_BACKENDS = ("asyncio", "trio") if find_spec("trio") else ("asyncio",)


@pytest.fixture
def speko_gateway() -> Iterator[FakeGateway]:
    """Provide a fake gateway for every `Speko` that the test makes: set its `script`, read its `session`.

    A failure of the script fails the test, also when the application swallows it.
    """
    from ._gateway import FakeGateway

    with FakeGateway().installed() as gateway:
        yield gateway
    gateway.check()


@pytest.fixture(params=_VIRTUAL_BACKENDS)
def speko_virtual_time(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Provide asyncio, and trio if it is installed, on virtual time.

    Make it the backend of a module's tests, and have anyio's plugin run them (``pytest.mark.anyio``)::

    @pytest.fixture
    def anyio_backend(speko_virtual_time): return speko_virtual_time

    With it, a test that pytest-asyncio or pytest-trio runs fails, since they would run it on real time.
    """
    from ._clock import virtual_backend

    return virtual_backend(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that asks for virtual time but is run by another plugin, which uses real time."""
    advice = _advice(item)
    if advice is not None and _asks_for_virtual_time(item):
        pytest.fail(
            f"virtual time has no effect on a test that {advice}: it would run on real time",
            pytrace=False,
        )


def _advice(item: pytest.Item) -> str | None:
    """Return which plugin other than anyio's runs `item` and what to do about it; None if none does."""
    if type(item).__module__.startswith("pytest_asyncio."):
        return (
            "pytest-asyncio runs; mark it pytest.mark.anyio instead of asyncio, and set asyncio_mode = strict"
        )
    if (
        "pytest_trio.plugin" in sys.modules
        and item.get_closest_marker("trio") is not None
        and inspect.iscoroutinefunction(getattr(item, "obj", None))
    ):
        return "pytest-trio runs; mark it pytest.mark.anyio instead of trio, and set trio_mode = false"
    return None


def _asks_for_virtual_time(item: pytest.Item) -> bool:
    if "speko_virtual_time" in getattr(item, "fixturenames", ()):
        return True
    # The module's `anyio_backend` counts, too, although only anyio's plugin requests it.
    fixtures = getattr(item.session, "_fixturemanager", None)
    backends = fixtures.getfixturedefs("anyio_backend", item) if fixtures is not None else None
    if not backends:
        return False
    code = getattr(backends[-1].func, "__code__", None)
    return "speko_virtual_time" in backends[-1].argnames or "virtual_backend" in getattr(code, "co_names", ())


@pytest.fixture
def speko_recording(request: pytest.FixtureRequest) -> Callable[[str], Recording]:
    """Provide a function that loads recorded sessions by name.

    They are in the folder ``recordings`` beside the test's file.
    """
    from ..recording._recording import Recording

    folder = request.path.parent / "recordings"
    return lambda name: Recording.load(folder / name)
