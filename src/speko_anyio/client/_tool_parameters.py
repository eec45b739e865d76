"""A tool's name, parameters and JSON Schema, from the signature and docstring of its function."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec

from . import _pydantic_models as pydantic_models

_ANY_CALL: Final = object.__call__.__doc__
"""What `inspect.getdoc` finds for a `__call__` without a docstring: "Call self as a function."."""


class Origin:
    """Where the name, docstring and types of a callable come from.

    It looks through partials, decorators and ``__call__``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        bound: set[str] = set()
        outermost: Any = None
        target: Any = function
        while True:
            if isinstance(target, functools.partial):
                bound |= target.keywords.keys()
                target = target.func
            else:
                outermost = outermost or target
                if inspect.isclass(target) or not hasattr(target, "__wrapped__"):
                    break
                target = target.__wrapped__
        self.named = outermost
        """The object with the name and the docstring; `functools.wraps` copies both to a decorated
        function."""
        self.bound: frozenset[str] = frozenset(bound)
        """Parameters that a partial sets by keyword; the model does not see them."""
        self.name: str = str(getattr(outermost, "__name__", type(outermost).__name__))
        called = _called(outermost)
        self.is_async: bool = inspect.iscoroutinefunction(called)
        self.hinted: Any = _called(target)
        """The object with the annotations."""
        self.fault: str | None = None
        """Why a call would not have exactly one result; None if it would."""
        if inspect.isclass(target):
            self.fault = "is a class"
        elif inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            self.fault = "is a generator function, but a call has one result"
        elif inspect.isasyncgenfunction(self.hinted) and not self.is_async:
            # Without `async` it can't collect the items. An async wrapper, or one of a plain generator, can.
            self.fault = "wraps an async generator function, but a call has one result"
        doc = inspect.getdoc(outermost)
        if called is not outermost and "__doc__" not in getattr(outermost, "__dict__", {}):
            # An object: the docstring of its `__call__` describes the call better than that of its class.
            doc = _written(called) or (None if _is_generated(type(outermost)) else doc)
        self.docstring: str = doc or ""


def _written(call: Any) -> str | None:
    """Return the docstring of a `__call__`, without the one that Python has for every `__call__`."""
    doc = inspect.getdoc(call)
    return None if doc == _ANY_CALL else doc


def _is_generated(kind: type) -> bool:
    """Whether a class has the docstring that `dataclass` or `NamedTuple` generates: its signature."""
    return (kind.__doc__ or "").startswith(f"{kind.__name__}(")


def _called(target: Any) -> Any:
    return target if inspect.isroutine(target) or inspect.isclass(target) else type(target).__call__


class Parameter:
    """A parameter that the model may set."""

    def __init__(self, name: str, kind: Any, default: Any) -> None:
        self.name = name
        self._kind = kind
        self.optional: bool = default is not inspect.Parameter.empty
        self._default = default

    def field(self) -> tuple[str, Any] | tuple[str, Any, Any]:
        """Return the field for `msgspec.defstruct`. UNSET stands for the function's own default."""
        if self.optional:
            return self.name, self._kind | msgspec.UnsetType, msgspec.UNSET
        return self.name, self._kind

    def default(self) -> Any:
        """Return the default for the schema; None if it is None or can't be written as JSON."""
        try:
            return msgspec.json.decode(msgspec.json.encode(self._default, enc_hook=pydantic_models.dump))
        except (TypeError, ValueError, RecursionError):
            return None


def parameters(tool_name: str, function: Callable[..., Any], origin: Origin) -> Iterator[Parameter]:
    """Yield the parameters that the model may set. Raises TypeError for one that it can't set."""
    about = parse_docstring(origin.docstring)[1]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        if isinstance(function, functools.partial):
            raise TypeError(
                f"tool {tool_name}: the partial sets an argument that the function does not take ({error}); "
                "correct it"
            ) from None
        raise TypeError(f"tool {tool_name} has no signature; wrap it in a def with types") from None
    hints = _hints(tool_name, origin.hinted)
    for place, parameter in enumerate(signature.parameters.values()):
        name = parameter.name
        if name in origin.bound:
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"tool {tool_name} takes {parameter}, which the model can't set by name; use plain parameters"
            )
        kind = hints.get(name, parameter.annotation)
        if kind is parameter.empty or isinstance(kind, str):
            if place == 0 and name in ("self", "cls"):
                raise TypeError(
                    f"tool {tool_name} is a method without its object; pass the bound method, as in "
                    f"tool(lamp.{tool_name})"
                )
            raise TypeError(
                f"tool {tool_name}: give the parameter {name!r} a type; a lambda has none, write a def"
                if origin.name == "<lambda>"
                else f"tool {tool_name}: give the parameter {name!r} a type"
            )
        if pydantic_models.is_field(parameter.default):
            raise TypeError(
                f"tool {tool_name}: the default of {name!r} is a pydantic Field; write "
                f"{name}: Annotated[..., Field(...)] = default"
            )
        yield Parameter(name, _with_meta(tool_name, name, kind, about.get(name)), parameter.default)


def _hints(tool_name: str, hinted: Any) -> dict[str, Any]:
    try:
        return get_type_hints(hinted, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"tool {tool_name}: the type {error.name!r} can't be found; define it at the top of the module"
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise TypeError(
            f"tool {tool_name}: a type can't be read ({error}); correct the annotation"
        ) from error


_LIMITS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")


def _with_meta(tool_name: str, name: str, kind: Any, about: str | None) -> Any:
    """`kind` with the description and limits of its ``Annotated`` and the docstring, as a `msgspec.Meta`.

    msgspec itself ignores the other usual forms: ``Annotated[int, "text"]``, `typing_extensions.Doc`, the
    limits of `annotated_types`, and pydantic's `Field`.
    """
    said: dict[str, Any] = {}
    if get_origin(kind) is Annotated:
        for extra in _flat(get_args(kind)[1:]):
            if isinstance(extra, msgspec.Meta):
                continue
            text = extra if isinstance(extra, str) else _text(extra)
            if text is not None:
                said["description"] = text
            said |= {key: value for key in _LIMITS if (value := getattr(extra, key, None)) is not None}
    if about:
        said["description"] = about
    kind = Annotated[kind, msgspec.Meta(**said)] if said else kind
    try:
        msgspec.json.schema_components([kind], schema_hook=pydantic_models.Schemas("").schema)
    except (TypeError, NotImplementedError) as error:
        why = str(error).strip().splitlines()[-1:] or [str(kind)]
        raise TypeError(
            f"tool {tool_name}: the parameter {name!r} has no JSON Schema ({why[0]}); use a type that JSON "
            "has, a dataclass, a TypedDict, an Enum, a msgspec.Struct or a pydantic model"
        ) from error
    return kind


def _flat(extras: tuple[Any, ...]) -> Iterator[Any]:
    for extra in extras:
        yield extra
        # Pydantic keeps the limits of a Field in a separate list.
        if isinstance(inner := getattr(extra, "metadata", None), list):
            yield from inner


def _text(extra: Any) -> str | None:
    for name in ("description", "documentation"):
        if isinstance(text := getattr(extra, name, None), str):
            return text
    return None


_DEFS: Final = "#/$defs/"


def schema(arguments: type[msgspec.Struct], given: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the JSON Schema of `arguments`, the Struct with the fields of the parameters `given`."""
    models = pydantic_models.Schemas(_DEFS)
    (reference,), components = msgspec.json.schema_components(
        [arguments], schema_hook=models.schema, ref_template=_DEFS + "{name}"
    )
    schema: dict[str, Any] = components.pop(reference["$ref"].removeprefix(_DEFS))
    models.add_to(components)
    # Some providers refuse these two. Unknown arguments are refused when a call arrives.
    schema.pop("title", None)
    schema.pop("additionalProperties", None)
    for name, declared in schema["properties"].items():
        # A default of null adds nothing: the parameter is optional anyway.
        if given[name].optional and (default := given[name].default()) is not None:
            declared["default"] = default
    if components:
        schema["$defs"] = components
    return schema


_SECTION: Final = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_PARAMETER: Final = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section, and the description of each parameter in ``Args:``."""
    summary: list[str] = []
    about: dict[str, str] = {}
    section = name = ""
    indent = -1
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif not section:
            summary.append(line.strip())
        elif section in ("Args", "Arguments", "Parameters"):
            entry = _PARAMETER.match(line)
            if entry and (indent in (-1, len(entry[1]))):
                indent = len(entry[1])
                name = entry[2]
                about[name] = entry[3]
            elif name and line.strip():
                about[name] = f"{about[name]} {line.strip()}".strip()
    return "\n".join(summary).strip(), about
