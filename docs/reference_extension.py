"""An extension of griffe, which reads the sources for the reference.

It adds constructors of Structs, spells out keywords that a TypedDict describes, and removes labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import griffe

_NOISE: Final = {"class-attribute", "instance-attribute", "module-attribute"}
"""Labels without meaning for readers: a field of a Struct has two of them."""


_LINKED: Final = "SessionOptions"
"""The TypedDict with an entry of its own: signatures link it instead of repeating its fields."""


class Reference(griffe.Extension):
    """Give every class below `msgspec.Struct` an ``__init__``, and every function its real keywords."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        members = list(_walk(pkg))
        for member in members:
            if isinstance(member, griffe.Class) and _is_struct(member) and "__init__" not in member.members:
                member.set_member("__init__", _constructor(member))
            elif isinstance(member, griffe.Function):
                _spell_out_keywords(member)
        for member in members:  # last, since the constructors find the fields by their labels
            member.labels -= _NOISE


def _walk(parent: griffe.Object) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if isinstance(member, griffe.Object):  # not an alias
            yield member
            yield from _walk(member)


def _is_struct(kind: griffe.Class) -> bool:
    return any(_path(base) == "msgspec.Struct" for base in kind.bases) or any(map(_is_struct, _parents(kind)))


def _path(base: str | griffe.Expr) -> str:
    return base if isinstance(base, str) else base.canonical_path


def _parents(kind: griffe.Class) -> list[griffe.Class]:
    return [base for base in kind.resolved_bases if isinstance(base, griffe.Class)]


def _constructor(struct: griffe.Class) -> griffe.Function:
    fields = _fields(struct)
    keyword_only = _says(struct, "kw_only")
    kind = griffe.ParameterKind.keyword_only if keyword_only else griffe.ParameterKind.positional_or_keyword
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    parameters += [
        griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=_default(field.value))
        for field in fields
    ]
    function = griffe.Function(
        "__init__", parameters=griffe.Parameters(*parameters), returns="None", lineno=struct.lineno
    )
    function.parent = struct
    return function


def _spell_out_keywords(function: griffe.Function) -> None:
    """Replace ``**parameters: Unpack[SomeTypedDict]`` by the keywords that the TypedDict has."""
    for parameter in function.parameters:
        annotation = parameter.annotation
        if (
            parameter.kind is not griffe.ParameterKind.var_keyword
            or not isinstance(annotation, griffe.ExprSubscript)
            or annotation.canonical_path != "typing.Unpack"
        ):
            continue
        described = function.modules_collection[_path(annotation.slice)]
        bases = _parents(described)
        linked = next((base for base in bases if base.name == _LINKED), None)
        if described.name == _LINKED:
            return
        del function.parameters[parameter.name]
        for field in _fields(described):
            if linked is None or field.name not in linked.members:
                function.parameters.add(
                    griffe.Parameter(
                        field.name,
                        annotation=field.annotation,
                        kind=griffe.ParameterKind.keyword_only,
                        default="...",
                    )
                )
        if linked is not None:
            annotation = griffe.ExprSubscript(
                annotation.left, griffe.ExprName(_LINKED, parent=described.module)
            )
            function.parameters.add(
                griffe.Parameter("options", annotation=annotation, kind=griffe.ParameterKind.var_keyword)
            )
        return


def _fields(struct: griffe.Class) -> list[griffe.Attribute]:
    """Return the fields of the class and its bases, in the order of the constructor."""
    fields = {field.name: field for base in reversed(_parents(struct)) for field in _fields(base)}
    for member in struct.members.values():
        if isinstance(member, griffe.Attribute) and "instance-attribute" in member.labels:
            fields[member.name] = member
    return list(fields.values())


def _says(struct: griffe.Class, option: str) -> bool:
    """Return whether the class statement, or that of a base, has ``option=True``."""
    own = struct.keywords.get(option)
    if own is not None:
        return str(own) == "True"
    return any(_says(base, option) for base in _parents(struct))


def _default(value: Any) -> Any:
    """Return the default, also that of ``msgspec.field``; show a default factory as its call."""
    if isinstance(value, griffe.ExprCall) and value.function.canonical_path == "msgspec.field":
        for argument in value.arguments:
            if isinstance(argument, griffe.ExprKeyword):
                if argument.name == "default":
                    return argument.value
                if argument.name == "default_factory":
                    return f"{argument.value}()"
        return None
    return value
