"""Pydantic models as parameters and results of tools: their schemas, and that pydantic validates them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import Annotated, Any

import msgspec
import pytest

from speko_anyio import Tool, ToolCall
from speko_anyio.client.tools import Toolbox

# The oldest supported dependencies are tested without the optional ones.
pydantic = pytest.importorskip("pydantic", reason="needs pydantic")

from pydantic import BaseModel, ConfigDict, Field, field_validator  # noqa: E402 - it may be missing

pytestmark = pytest.mark.anyio


class Item(BaseModel):
    name: str
    count: int = Field(default=1, ge=1, description="How many.")


class Order(BaseModel):
    model_config = ConfigDict(strict=True)

    items: list[Item]
    due: dt.date
    note: str | None = Field(default=None, alias="remark")

    @field_validator("due")
    @classmethod
    def not_in_the_past(cls, due: dt.date) -> dt.date:
        if due.year < 2000:
            raise ValueError("that is too long ago")
        return due


class Basket(BaseModel):
    items: list[Item] = []
    gift: Item | None = None
    size: int = Field(default=3, alias="howLarge")


class Node(BaseModel):
    children: list[Node] = []


class Struct(msgspec.Struct):
    item: Item


def place(order: Order, gift: Item | None = None) -> dict[str, Any]:
    """Place an order.

    Args:
        order: What to send.
    """
    return {"first": order.items[0], "due": order.due, "gift": gift}


ITEM = {
    "type": "object",
    "title": "Item",
    "properties": {
        "name": {"title": "Name", "type": "string"},
        "count": {
            "title": "Count",
            "type": "integer",
            "default": 1,
            "minimum": 1,
            "description": "How many.",
        },
    },
    "required": ["name"],
}


def test_the_schema_is_the_models_with_its_definitions_at_the_top() -> None:
    parameters = Tool(place).spec.parameters
    assert parameters["$defs"] == {"Item": ITEM}
    order = parameters["properties"]["order"]
    assert order["description"] == "What to send."
    assert order["properties"]["items"]["items"] == {"$ref": "#/$defs/Item"}
    assert parameters["properties"]["gift"] == {"anyOf": [ITEM, {"type": "null"}]}
    assert parameters["required"] == ["order"]


def test_a_model_that_holds_itself_or_is_held_by_a_struct() -> None:
    def grow(tree: Node) -> None: ...
    def hold(held: Struct) -> None: ...

    grown = Tool(grow).spec.parameters
    assert grown["properties"]["tree"] == {"$ref": "#/$defs/Node"}
    assert grown["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert Tool(hold).spec.parameters["$defs"]["Struct"]["properties"]["item"] == ITEM


def test_two_types_of_one_name_are_refused() -> None:
    inner = pydantic.create_model("Item", other=(int, ...))
    outer = pydantic.create_model("Outer", item=(inner, ...))

    def confuse(order: Order, outer: Any) -> None: ...

    confuse.__annotations__["outer"] = outer
    with pytest.raises(TypeError, match="'Item'; rename one"):
        Tool(confuse)


async def answer(arguments: str) -> str:
    return await Toolbox([place]).run(ToolCall("c1", "place", arguments))


async def test_a_valid_model_reaches_the_function_and_comes_back_as_json() -> None:
    text = await answer('{"order": {"items": [{"name": "tea"}], "due": "2030-01-02", "remark": "soon"}}')
    assert text == '{"first":{"name":"tea","count":1},"due":"2030-01-02","gift":null}'


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ('{"items": [{"name": "tea", "count": 0}], "due": "2030-01-02"}', "items.0.count: Input should be"),
        ('{"items": []}', "due: Field required"),
        ('{"items": [], "due": "1999-01-01"}', "that is too long ago"),
        ('{"items": 3, "due": 4}', "; due: "),
        ("3", "Input should be an object"),
    ],
)
async def test_pydantics_findings_are_told_the_model_in_one_line(order: str, expected: str) -> None:
    text = await answer(f'{{"order": {order}}}')
    assert text.startswith("The arguments of place do not fit its schema: ")
    assert expected in text
    assert "\n" not in text
    assert "http" not in text


async def test_a_description_of_an_optional_model() -> None:
    def give(item: Annotated[Item, msgspec.Meta(description="A gift.")] = Item(name="rose")) -> str:  # noqa: B008
        return item.name

    assert Tool(give).spec.parameters["properties"]["item"]["description"] == "A gift."
    assert await Toolbox([give]).run(ToolCall("c1", "give", "{}")) == "rose"
    assert await Toolbox([give]).run(ToolCall("c1", "give", '{"item": {"name": "tea"}}')) == "tea"


def test_tools_without_models_do_not_import_pydantic() -> None:
    program = (
        "import sys; from speko_anyio import tool\n"
        "@tool\ndef f(a: int) -> int: return a\n"
        "assert f.parse('{\"a\": 1}') == {'a': 1}; assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_limits_of_a_field_hold_for_a_plain_parameter() -> None:
    def seat(
        number: Annotated[int, Field(ge=1, le=9, description="As printed on the chair.")],
        name: Annotated[str, Field(max_length=3, pattern="^[A-Z]+$")] = "ANN",
    ) -> None: ...

    made = Tool(seat)
    assert made.spec.parameters["properties"] == {
        "number": {"type": "integer", "minimum": 1, "maximum": 9, "description": "As printed on the chair."},
        "name": {"type": "string", "maxLength": 3, "pattern": "^[A-Z]+$", "default": "ANN"},
    }
    assert made.parse('{"number": "9"}') == {"number": 9}
    with pytest.raises(msgspec.ValidationError, match="<= 9"):
        made.parse('{"number": 10}')


def test_a_field_as_the_default_is_refused() -> None:
    def seat(number: int = Field(1, ge=1)) -> None: ...

    with pytest.raises(TypeError, match=r"the default of 'number' is a pydantic Field; write number: Annot"):
        Tool(seat)


def test_a_models_default_is_in_the_schema() -> None:
    def put(item: Item = Item(name="tea")) -> None: ...  # noqa: B008

    assert Tool(put).spec.parameters["properties"]["item"]["default"] == {"name": "tea", "count": 1}


async def test_null_for_an_optional_model_is_its_absence() -> None:
    def put(item: Item = Item(name="tea")) -> str:  # noqa: B008
        return item.name

    assert await Toolbox([put]).run(ToolCall("c1", "put", '{"item": null}')) == "tea"


async def test_null_for_an_optional_field_inside_a_model_is_its_absence() -> None:
    def fill(basket: Basket) -> str:
        return repr(basket)

    async def said(basket: str) -> str:
        return await Toolbox([fill]).run(ToolCall("c1", "fill", f'{{"basket": {basket}}}'))

    given = '{"items": [{"name": "tea", "count": null}], "gift": null, "howLarge": null}'
    assert await said(given) == "Basket(items=[Item(name='tea', count=1)], gift=None, size=3)"
    assert "items.0.name: Input should be a valid string" in await said('{"items": [{"name": null}]}')
    assert "items.0: Input should be " in await said('{"items": [null]}')
