"""Nothing that a provider has published is news to the dialects."""

from __future__ import annotations

import types as python_types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
from google.genai import types
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel

from speko_anyio.providers.google import _events as google_events
from speko_anyio.providers.realtime import _events as realtime_events


def members(union: Any) -> Iterator[Any]:
    """The types of a union, however it is nested and annotated."""
    if get_origin(union) is Annotated:
        yield from members(get_args(union)[0])
    elif get_origin(union) in (Union, python_types.UnionType):
        for inner in get_args(union):
            yield from members(inner)
    else:
        yield union


def published(union: Any) -> set[str]:
    """The values of ``type`` in a union of OpenAI's models."""
    return {get_args(model.model_fields["type"].annotation)[0] for model in members(union)}


UNUSED = {
    "conversation.item.retrieve",
    "session.update",  # each provider has its own
}


def test_every_event_of_openai_is_known() -> None:
    known = realtime_events.KNOWN | realtime_events.IGNORED
    assert published(RealtimeServerEvent) - known == set()


def test_every_message_to_openai_is_published() -> None:
    ours = {str(kind.__struct_config__.tag) for kind in realtime_events.ClientEvent.__subclasses__()}
    assert ours <= published(RealtimeClientEvent)
    assert published(RealtimeClientEvent) - ours <= UNUSED


def fields(shape: Any) -> dict[str, msgspec.inspect.Type]:
    """The fields of a Struct's type, seen through what may be None and through tuples."""
    match shape:
        case msgspec.inspect.UnionType(types=inner):
            return fields(inner[0])
        case msgspec.inspect.VarTupleType(item_type=item):
            return fields(item)
        case msgspec.inspect.StructType(fields=found):
            return {field.encode_name: field.type for field in found}
    return {}


def missing(model: Any, shape: Any, path: str) -> Iterator[str]:
    """The fields of Google's `model` for which our `shape` has no place."""
    ours = fields(shape)
    if not ours:
        return  # taken as it is
    for field in model.model_fields.values():
        name = field.alias
        if name not in ours:
            yield f"{path}{name}"
            continue
        for inner in members(field.annotation):
            inner = get_args(inner)[0] if get_origin(inner) is list else inner
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from missing(inner, ours[name], f"{path}{name}.")


def test_every_field_of_google_is_known() -> None:
    shape = msgspec.inspect.type_info(google_events.ServerMessage)
    news = list(missing(types.LiveServerMessage, shape, ""))
    # Parts are those of all of Google's API and grow with every release; new ones are skipped and counted.
    assert [name for name in news if not name.startswith("serverContent.modelTurn.parts.")] == []


@pytest.mark.parametrize("name", ["model_turn", "turn_complete"])
def test_the_look_for_missing_fields_sees(name: str) -> None:
    class Narrow(msgspec.Struct):
        x: int = 0

    left_out = list(missing(types.LiveServerContent, msgspec.inspect.type_info(Narrow), ""))
    assert types.LiveServerContent.model_fields[name].alias in left_out
