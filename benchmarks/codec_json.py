"""The JSON messages: our typed codec beside the standard library's and pydantic's.

`json` only makes dictionaries; ours and pydantic's check every field and make typed objects, whose type the
field ``t`` selects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final, NamedTuple

from measuring import Case

from speko_anyio.protocol import _codec as codec
from speko_anyio.protocol._commands import ToolResult
from speko_anyio.protocol.frames import Transcript

OURS = "speko-anyio"
STANDARD = "json"
PYDANTIC = "pydantic"

_PARTIAL: Final = "I would like to book a table for"
_SENTENCE: Final = "I would like to book a table for two at seven tomorrow evening."
_LONG: Final = (
    "I would like to book a table for two at seven tomorrow evening, by the window if you have one, "
    "and please note that one of us can't eat nuts."
)
_OUTPUT: Final = json.dumps({"available": True, "table": 12, "until": "21:30", "note": "by the window"})


class Example(NamedTuple):
    """One message: our object, and the same as a dictionary."""

    name: str
    message: Transcript | ToolResult
    fields: dict[str, Any]


def _transcript(name: str, text: str, *, final: bool) -> Example:
    fields = {"t": "transcript", "role": "user", "text": text, "final": final}
    return Example(f"{name} of {len(text)} characters", Transcript("user", text, final), fields)


PARTIAL: Final = _transcript("partial transcript", _PARTIAL, final=False)
SENTENCE: Final = _transcript("transcript", _SENTENCE, final=True)
LONG: Final = _transcript("transcript", _LONG, final=True)
RESULT: Final = Example(
    "tool result",
    ToolResult("call_7f3a9c", _OUTPUT),
    {"t": "tool_result", "callId": "call_7f3a9c", "output": _OUTPUT},
)


def decode_task(example: Example) -> str:
    return f"decode, {example.name}"


def encode_task(example: Example) -> str:
    return f"encode, {example.name}"


DECODED: Final = (PARTIAL, SENTENCE, LONG)
ENCODED: Final = (SENTENCE, RESULT)


def _text(example: Example) -> str:
    """Return the JSON text, as JavaScript's JSON.stringify writes it."""
    return json.dumps(example.fields, separators=(",", ":"), ensure_ascii=False)


def _ours() -> Iterator[Case]:
    for example in DECODED:
        text = _text(example)
        _same(codec.decode_from_server(text), example.message)
        yield Case(decode_task(example), OURS, _repeated(codec.decode_from_server, text))
    for example in ENCODED:
        _same(codec.encode(example.message), _text(example))
        yield Case(encode_task(example), OURS, _repeated(codec.encode, example.message))


def _standard() -> Iterator[Case]:
    for example in DECODED:
        _same(json.loads(_text(example)), example.fields)
        yield Case(decode_task(example), STANDARD, _repeated(json.loads, _text(example)))
    for example in ENCODED:
        _same(json.loads(json.dumps(example.fields)), example.fields)
        yield Case(encode_task(example), STANDARD, _repeated(json.dumps, example.fields))


def _pydantic() -> Iterator[Case]:
    try:
        from codec_pydantic import decode, encoder
    except ImportError as error:
        print(f"not measured: {error}")
        return
    for example in DECODED:
        _same(decode(_text(example)).model_dump(), example.fields)
        yield Case(decode_task(example), PYDANTIC, _repeated(decode, _text(example)))
    for example in ENCODED:
        encode = encoder(example.fields)
        _same(encode(), _text(example))
        yield Case(encode_task(example), PYDANTIC, _calling(encode))


def _same(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"a codec gives {got!r} instead of {wanted!r}")


def _repeated(work: Callable[[Any], object], argument: object) -> Callable[[int], object]:
    def run(times: int) -> object:
        do = work
        result: object = None
        for data in repeat(argument, times):
            result = do(data)
        return result

    return run


def _calling(work: Callable[[], object]) -> Callable[[int], object]:
    def run(times: int) -> object:
        do = work
        result: object = None
        for _ in repeat(None, times):
            result = do()
        return result

    return run


def cases() -> list[Case]:
    """Return every codec with every message, checked."""
    return [*_ours(), *_standard(), *_pydantic()]
