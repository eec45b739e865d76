"""Functions that the model may call: their JSON Schema from the signature, and how a call is run.

A tool is declared to the service as a `ToolSpec`. One that comes as a function is also answered here: its
arguments are validated (msgspec, strict) before it runs, and it is answered exactly once whatever happens.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_type_hints,
    overload,
)

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from ..protocol.frames import ToolCall
from ..protocol.mint import ToolSpec
from . import pydantic_models

logger: Final = logging.getLogger("speko_anyio")

P = ParamSpec("P")
R = TypeVar("R")

MAX_OUTPUT: Final = 128 * 1024
"""Bytes of UTF-8 in a result: half of what this library takes in one text message, since escapes in JSON
make it longer. A longer result would end the session; the model could hardly use it."""


_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What every provider takes as a function's name."""

InterruptPolicy: TypeAlias = Literal["finish", "cancel"]
"""What becomes of a running tool when the user interrupts the answer that it was called for:

- ``finish``: it runs on, and its result is sent: the model knows it in later turns, and nobody waits for it.
- ``cancel``: it is cancelled, and the model is told so. A sync function's thread runs on, unheard.
"""

ToolErrors: TypeAlias = Literal["log", "raise"]
"""Where a tool's exception goes, beside the text that the model gets: into the log, or out of the session's
``async with``. A `ToolError`, and a tool that takes too long, are for the model alone."""

Report: TypeAlias = Callable[[str, Exception], None]
"""Told of a tool, by its name, that failed, and how."""


def log_failure(name: str, error: Exception) -> None:
    """The `Report` of ``tool_errors="log"``."""
    logger.error("tool %s failed", name, exc_info=error)


class ToolError(Exception):
    """Raise it in a tool to tell the model, in your own words, what went wrong.

    The text of any other exception is not shown to the model: it may hold what is not meant for it.
    """


class Tool(Generic[P, R]):
    """A function the model may call. Make it with `tool`; calling it calls the function."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        on_interrupt: InterruptPolicy = "finish",
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        summary, about = _parse_docstring(inspect.getdoc(function) or "")
        own_name = name or str(getattr(function, "__name__", type(function).__name__))
        if not _NAME.fullmatch(own_name):
            raise ValueError(
                f"{own_name!r} can't be the name of a tool: it must be 1 to 64 letters, digits, _ or -; pass "
                "tool(name=...)"
            )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"tool {own_name}: the timeout is {timeout}; pass seconds above 0, or None")
        if on_interrupt not in get_args(InterruptPolicy):
            raise ValueError(
                f"tool {own_name}: there is no policy {on_interrupt!r}; on_interrupt is one of "
                f"{', '.join(get_args(InterruptPolicy))}"
            )
        self.timeout = timeout
        """Seconds that a call may take; None for as long as the session lasts."""
        self.on_interrupt: InterruptPolicy = on_interrupt
        """What an interruption does to a running call."""
        self._arguments = _arguments_type(own_name, function, about)
        self.spec: ToolSpec = ToolSpec(
            name=own_name,
            description=summary if description is None else description,
            parameters=_schema(self._arguments),
        )
        """How the tool is declared to the service."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.spec.name!r})"

    def parse(self, arguments: str) -> dict[str, Any]:
        """JSON arguments, as a model writes them, as keyword arguments for the function.

        Raises `msgspec.ValidationError` for those that don't fit, and for those that are no JSON
        `msgspec.DecodeError`, UnicodeError or RecursionError.
        """
        given = msgspec.json.decode(
            arguments or "{}", type=self._arguments, dec_hook=pydantic_models.validate
        )
        return {
            name: value
            for name in given.__struct_fields__
            if (value := getattr(given, name)) is not msgspec.UNSET
        }

    async def run(self, arguments: dict[str, Any]) -> str:
        """Call the function; its result as text, anything but a str as JSON. Raises what it raises.

        A sync function runs in a worker thread, which goes on, its result forgotten, when this is
        cancelled.
        """
        call: Callable[[], object] = functools.partial(self.function, **arguments)
        result: object
        if inspect.iscoroutinefunction(inspect.unwrap(self.function)):
            result = call()
        else:
            result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, str):
            return result
        return msgspec.json.encode(result, enc_hook=pydantic_models.dump).decode()


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    on_interrupt: InterruptPolicy = "finish",
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    on_interrupt: InterruptPolicy = "finish",
) -> Any:
    """Make a `Tool` of a sync or async function; use as ``@tool`` or ``@tool(timeout=...)``.

    Every parameter needs a type that msgspec can validate (dataclasses, TypedDicts, enums and so on), or a
    pydantic model; one with a default is optional for the model. The description is the docstring's first
    paragraph, those of the parameters come from its ``Args:`` section (Google style) or from
    ``Annotated[..., msgspec.Meta(description=...)]``.

    - `timeout`: seconds after which a call is cancelled, and the model told that it took too long. The
      thread of a sync function can't be stopped: it runs on, its result forgotten.
    - `on_interrupt`: what an interruption does to a running call, see `InterruptPolicy`.

    Raises TypeError for a signature that has no JSON Schema; ValueError for a name that is not 1 to 64 ASCII
    letters, digits, ``_`` or ``-``, for a timeout that is not above 0 and for a policy that there is not.
    """
    make = functools.partial(
        Tool, name=name, description=description, timeout=timeout, on_interrupt=on_interrupt
    )
    return make if function is None else make(function)


AnyTool: TypeAlias = ToolSpec | Mapping[str, Any] | Tool[..., Any] | Callable[..., Any]
"""What ``tools=[...]`` takes: a declaration, whose calls the application answers, or a function."""


class Toolbox:
    """The tools of one session. TypeError for what is no tool, ValueError for a name given twice."""

    __slots__ = ("_declared_only", "_functions", "specs")

    def __init__(self, tools: Iterable[AnyTool] = ()) -> None:
        self._functions: dict[str, Tool[..., Any]] = {}
        specs: dict[str, ToolSpec] = {}
        for item in tools:
            if isinstance(item, ToolSpec):
                spec = item
            elif isinstance(item, Mapping):
                try:
                    spec = msgspec.convert(item, ToolSpec)
                except msgspec.ValidationError as error:
                    raise TypeError(
                        f"a dict is not a tool ({error}); give it name, description and parameters"
                    ) from None
            elif callable(item):
                function = item if isinstance(item, Tool) else Tool(item)
                spec = function.spec
                self._functions[spec.name] = function
            else:
                raise TypeError(
                    f"{item!r} is not a tool; pass a function, a ToolSpec or a dict with name, description "
                    "and parameters"
                )
            if spec.name in specs:
                raise ValueError(f"two tools are called {spec.name!r}; give each its own name")
            specs[spec.name] = spec
        self.specs = tuple(specs.values())
        """As declared to the service."""
        # A tuple: most sessions have none, and an empty set takes 200 bytes.
        self._declared_only = tuple(specs.keys() - self._functions.keys())

    def answers(self, call: ToolCall) -> bool:
        """Whether `run` is to answer it; else the application does. A name that nobody declared is
        answered here as soon as any function is."""
        return bool(self._functions) and call.name not in self._declared_only

    def cancels(self, call: ToolCall) -> bool:
        """Whether an interruption is to cancel the run of `call`."""
        function = self._functions.get(call.name)
        return function is not None and function.on_interrupt == "cancel"

    async def run(self, call: ToolCall, report: Report = log_failure) -> str:
        """The text that answers `call`, also when it fails: then `report` is told why. Raises nothing but
        cancellation."""
        function = self._functions.get(call.name)
        if function is None:
            known = ", ".join(self._functions)
            return f"There is no tool called {call.name!r}. The tools are: {known}."
        try:
            arguments = function.parse(call.arguments)
        except msgspec.DecodeError as error:
            return f"The arguments of {call.name} do not fit its schema: {error}"
        except (UnicodeError, RecursionError):
            return f"The arguments of {call.name} are not JSON."
        output = None
        try:
            with anyio.move_on_after(function.timeout):
                output = await function.run(arguments)
        except ToolError as error:
            output = str(error)
        except anyio.get_cancelled_exc_class() as error:
            await anyio.lowlevel.checkpoint_if_cancelled()
            # Not the session's doing: asyncio has the same exception for what the function waited for.
            stray = RuntimeError("something that the tool waited for was cancelled")
            stray.__cause__ = error
            report(call.name, stray)
            return f"The tool {call.name} failed ({type(error).__name__})."
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            report(call.name, error)
            return f"The tool {call.name} failed ({type(error).__name__})."
        if output is None:
            logger.warning("tool %s took longer than its %g s", call.name, function.timeout)
            return f"The tool {call.name} took too long and was stopped."
        size = len(output.encode(errors="replace"))
        if size > MAX_OUTPUT:
            logger.error("tool %s gave %d bytes, more than %d: not sent", call.name, size, MAX_OUTPUT)
            return f"The tool {call.name} gave a result that is too long to be sent."
        return output.encode(errors="replace").decode()


def _arguments_type(
    tool_name: str, function: Callable[..., Any], about: Mapping[str, str]
) -> type[msgspec.Struct]:
    """A Struct with a field for each parameter; UNSET stands for the function's own default."""
    hinted = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = get_type_hints(inspect.unwrap(hinted), include_extras=True)
    except NameError as error:
        raise TypeError(
            f"tool {tool_name}: the type {error.name!r} can't be found; define it at the top of the module"
        ) from error
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"tool {tool_name} takes {parameter}, which the model can't name; use plain parameters"
            )
        if parameter.name not in hints:
            raise TypeError(f"tool {tool_name}: give the parameter {parameter.name!r} a type")
        kind = hints[parameter.name]
        if parameter.name in about:
            kind = Annotated[kind, msgspec.Meta(description=about[parameter.name])]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
        else:
            fields.append((parameter.name, kind | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(tool_name, fields, kw_only=True, forbid_unknown_fields=True, module=__name__)


_DEFS: Final = "#/$defs/"


def _schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    models = pydantic_models.Schemas(_DEFS)
    (reference,), components = msgspec.json.schema_components(
        [arguments], schema_hook=models.schema, ref_template=_DEFS + "{name}"
    )
    schema: dict[str, Any] = components.pop(reference["$ref"].removeprefix(_DEFS))
    models.add_to(components)
    # Some providers refuse these two; that unknown arguments are refused is seen to when a call comes.
    schema.pop("title", None)
    schema.pop("additionalProperties", None)
    if components:
        schema["$defs"] = components
    return schema


_SECTION: Final = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_PARAMETER: Final = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def _parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The text ahead of the first section as one paragraph, and what ``Args:`` says of each parameter."""
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
