"""What the core offers by name."""

from __future__ import annotations

import typing

from speko_anyio import protocol
from speko_anyio.protocol import Command, Frame


def test_every_exported_name_is_there_once_and_has_a_home_in_the_core() -> None:
    assert len(set(protocol.__all__)) == len(protocol.__all__)
    for name in protocol.__all__:
        home = getattr(getattr(protocol, name), "__module__", None)
        assert home is None or home.startswith(("speko_anyio.protocol.", "typing", "types")), (name, home)


def test_everything_that_can_be_received_can_be_named() -> None:
    received = {kind.__name__ for kind in (*typing.get_args(Frame), *typing.get_args(Command))}
    assert received <= set(protocol.__all__)


def test_what_others_build_on_the_core_with_can_be_named() -> None:
    assert {"WebSocketCore", "Dialect", "ClientDialect", "WebSocketURL", "parse_url"} <= set(protocol.__all__)


def test_nothing_else_is_public() -> None:
    public = {name for name in vars(protocol) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(protocol, name)) is type(protocol)}
    assert public - modules == set(protocol.__all__)
