"""Functions that the model may call: their JSON Schema from the signature, and how a call is run.

A tool is declared to the service as a `ToolSpec`. One that comes as a function is also answered here: its
arguments are validated before it runs, and it is answered exactly once whatever happens.

msgspec validates arguments, strictly at first. But models also write ``3.0`` or ``"3"`` for 3, and null for
an argument that they leave out; JSON Schema (2020-12, 4.2.3) calls 3.0 an integer. So arguments that fail the
strict validation get a second try that reads numbers and booleans from text, and ignores null for what is
optional. A parameter that takes text keeps the text.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    overload,
)

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

from ..protocol._codec import mended
from ..protocol.frames import ToolCall
from ..protocol.mint import ToolSpec
from . import _pydantic_models as pydantic_models
from . import _tool_parameters as tool_parameters
from ._model_json import has_infinity, with_integers, with_whole_texts, without_halves, without_nulls

logger: Final = logging.getLogger("speko_anyio")

P = ParamSpec("P")
R = TypeVar("R")

MAX_OUTPUT: Final = 128 * 1024
"""Bytes of UTF-8 in a result: half of what this library takes in one text message, since escapes in JSON
make it longer. A longer result would end the session; the model could hardly use it."""


_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A name that every provider accepts for a function."""

_DECLARED_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""A name that at least one provider accepts; each dialect checks the rule of its own provider."""

InterruptPolicy: TypeAlias = Literal["finish", "cancel"]
"""What happens to a running tool when the user interrupts the answer that called it:

- ``finish``: it runs to completion, and its result is sent, so that the model knows it in later turns.
- ``cancel``: it is cancelled, and the result sent to the model says so. The thread of a sync function
  runs on; its result is discarded.
"""

ToolErrors: TypeAlias = Literal["log", "raise"]
"""What to do with a tool's exception, besides telling the model: log it, or raise it from the session's
``async with``. A `ToolError` and a timeout are reported to the model only."""

ReportFailure: TypeAlias = Callable[[str, Exception], None]
"""Called with the name of a tool that failed, and its exception."""


def log_failure(name: str, error: Exception) -> None:
    """Log a failure: the `ReportFailure` of ``tool_errors="log"``."""
    logger.error("tool %s failed", name, exc_info=error)


class ToolError(Exception):
    """Raise it in a tool to tell the model, in your own words, what went wrong.

    The text of any other exception is not shown to the model: it may hold secrets.
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
        if isinstance(function, Tool):
            raise TypeError(
                f"{function.spec.name} is a tool already; pass it as is, or make another from its .function"
            )
        origin = tool_parameters.Origin(function)
        # Don't copy its attributes: a callable object may have one named `run` or `timeout`.
        functools.update_wrapper(self, origin.named, updated=())
        self.__wrapped__ = function
        self.function = function
        own_name = origin.name if name is None else name
        if name is None and own_name == "<lambda>":
            raise ValueError("a lambda has no name; write a def, or pass tool(name=...)")
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
        """What an interruption does to a running call; see `InterruptPolicy`."""
        if (fault := origin.fault) is not None:
            raise TypeError(f"tool {own_name} {fault}; pass a function that returns the result")
        self._is_async = origin.is_async
        given = {
            parameter.name: parameter for parameter in tool_parameters.parameters(own_name, function, origin)
        }
        self._arguments = msgspec.defstruct(
            own_name,
            [parameter.field() for parameter in given.values()],
            kw_only=True,
            forbid_unknown_fields=True,
            module=__name__,
        )
        self.spec: ToolSpec = ToolSpec(
            name=own_name,
            description=(
                tool_parameters.parse_docstring(origin.docstring)[0] if description is None else description
            ),
            parameters=tool_parameters.schema(self._arguments, given),
        )
        """How the tool is declared to the service."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.spec.name!r})"

    def parse(self, arguments: str) -> dict[str, Any]:
        """Parse JSON arguments, as a model writes them, into keyword arguments for the function.

        Half of a surrogate pair becomes U+FFFD. Raises `msgspec.ValidationError` if they don't fit, and
        `msgspec.DecodeError` or RecursionError if they are not JSON.
        """
        text = without_halves(arguments.strip())
        if text in ("", "null"):
            text = "{}"
        try:
            given = msgspec.json.decode(text, type=self._arguments, dec_hook=pydantic_models.validate)
        except msgspec.ValidationError:
            given = self._parse_leniently(msgspec.json.decode(text))
        return {
            name: value
            for name in given.__struct_fields__
            if (value := getattr(given, name)) is not msgspec.UNSET
        }

    def _parse_leniently(self, value: Any) -> msgspec.Struct:
        if isinstance(value, str):
            # Some models encode the whole object twice.
            try:
                value = msgspec.json.decode(without_halves(value.strip()) or "{}")
            except msgspec.DecodeError:
                pass
        return msgspec.convert(
            with_integers(without_nulls(value, msgspec.inspect.type_info(self._arguments))),
            self._arguments,
            # Otherwise the text "nan" would become a number that JSON does not have.
            strict=has_infinity(value),
            str_keys=True,
            dec_hook=pydantic_models.validate,
        )

    async def run(self, arguments: dict[str, Any]) -> str:
        """Call the function and return its result as text.

        A str is returned unchanged, bytes decoded as UTF-8, anything else as JSON. Half of a surrogate pair
        in text becomes U+FFFD. Raises what the function raises, and TypeError or ValueError if the result
        can't be encoded.

        A sync function runs in a worker thread, which goes on, its result forgotten, when this is
        cancelled. `ToolError` when too many such threads have not ended yet.
        """
        call: Callable[[], object] = functools.partial(self.function, **arguments)
        result: object
        if self._is_async:
            result = call()
        else:
            result = await _ThreadedCall(self.spec.name, call).run()
        if inspect.isawaitable(result):
            result = await result
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(
                f"tool {self.spec.name} returned a generator, but a call has one result; return a list of "
                "what it yields"
            )
        if isinstance(result, str):
            return mended(result)
        if isinstance(result, bytes | bytearray | memoryview):
            # msgspec would write base64, which a model can't read.
            return bytes(result).decode()
        try:
            text = msgspec.json.encode(result, enc_hook=pydantic_models.dump)
        except UnicodeEncodeError:
            plain = msgspec.to_builtins(result, enc_hook=pydantic_models.dump, str_keys=True)
            text = msgspec.json.encode(with_whole_texts(plain))
        return text.decode()


MAX_LEFT_OVER: Final = 8
"""Threads of one sync tool that may go on after their calls were cancelled, by a timeout or an interruption;
at this number further calls are refused. A thread can't be stopped, and each takes memory."""

_MAX_ALL_LEFT_OVER: Final = 32
"""The same for all tools of the process."""

_MAX_THREADS: Final = 40 + _MAX_ALL_LEFT_OVER
"""Threads of tools in one event loop; anyio's own default is 40. They have a limit of their own, so that
hanging tools take no thread from the rest of the program."""

_limiter: Final = RunVar[anyio.CapacityLimiter]("speko_anyio_tool_threads")


class _ThreadedCall:
    """A call of a sync function in a worker thread, which may outlive the task that waits for it."""

    _lock: ClassVar = threading.Lock()
    _left_over: ClassVar[Counter[str]] = Counter()
    """Running threads of each tool whose calls were cancelled."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name = name
        self._call = call
        self._runs = self._given_up = False

    async def run(self) -> object:
        """Call the function; `ToolError` when too many threads are left over."""
        left_over = self._left_over
        if left_over[self._name] >= MAX_LEFT_OVER or left_over.total() >= _MAX_ALL_LEFT_OVER:
            logger.error("tool %s is refused: too many calls that took too long still run", self._name)
            raise ToolError(
                f"The tool {self._name} can't run now: too many calls that took too long have not ended yet."
            )
        try:
            limiter = _limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(_MAX_THREADS)
            _limiter.set(limiter)
        try:
            # In a tuple, since the result may be a coroutine, which trio rejects as the result of a thread.
            (result,) = await anyio.to_thread.run_sync(
                self._in_thread, abandon_on_cancel=True, limiter=limiter
            )
        except anyio.get_cancelled_exc_class():
            self._give_up()
            raise
        return result

    def _in_thread(self) -> tuple[object]:
        with self._lock:
            if self._given_up:
                return (None,)
            self._runs = True
        try:
            return (self._call(),)
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._runs = False
            if self._given_up:
                self._left_over[self._name] -= 1
                if not self._left_over[self._name]:
                    del self._left_over[self._name]

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._runs:
                self._left_over[self._name] += 1


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

    It may also be a bound method, a callable object or a `functools.partial`. The model sees the remaining
    parameters of a partial, under the function's own name and docstring.

    Every parameter needs a type that msgspec can validate (dataclasses, TypedDicts, enums and so on), or a
    pydantic model. A parameter with a default is optional; the model sees the default. The tool's description
    is the docstring up to its first section. Descriptions of parameters come from its ``Args:`` section
    (Google style), or from ``Annotated[..., "text"]``, `msgspec.Meta` or pydantic's `Field`, which may also
    set limits.

    - `timeout`: seconds after which a call is cancelled, and the model told that it took too long. The
      thread of a sync function can't be stopped: it runs on, its result forgotten. While 8 threads of a tool
      do, further calls of it are refused.
    - `on_interrupt`: what an interruption does to a running call, see `InterruptPolicy`.

    Raises TypeError for a class, a generator function, and a signature that has no JSON Schema; ValueError
    for a name that is not 1 to 64 ASCII letters, digits, ``_`` or ``-``, for a timeout that is not above 0
    and for an unknown policy.
    """
    make = functools.partial(
        Tool, name=name, description=description, timeout=timeout, on_interrupt=on_interrupt
    )
    return make if function is None else make(function)


AnyTool: TypeAlias = ToolSpec | Mapping[str, Any] | Tool[..., Any] | Callable[..., Any]
"""What ``tools=[...]`` takes: a declaration, whose calls the application answers, or a function."""


class Toolbox:
    """The tools of one session.

    Raises TypeError for an object that is not a tool, and ValueError for a duplicate name or one that no
    provider accepts.
    """

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
            if not _DECLARED_NAME.fullmatch(spec.name):
                raise ValueError(
                    f"{spec.name!r} is not a valid tool name; use 1 to 64 letters, digits, _ or - (Gemini "
                    "also takes . and :, and up to 128 characters)"
                )
            if spec.name in specs:
                raise ValueError(f"two tools are called {spec.name!r}; give each its own name")
            specs[spec.name] = spec
        self.specs: tuple[ToolSpec, ...] = tuple(specs.values())
        """As declared to the service."""
        # A tuple: most sessions have none, and an empty set takes 200 bytes.
        self._declared_only = tuple(specs.keys() - self._functions.keys())

    def has(self, name: str) -> bool:
        """Return whether a tool has this name."""
        return name in self._functions or name in self._declared_only

    def answers(self, call: ToolCall) -> bool:
        """Return whether `run` answers `call`; otherwise the application does.

        An undeclared name is answered here if any function is.
        """
        return bool(self._functions) and call.name not in self._declared_only

    def cancels(self, call: ToolCall) -> bool:
        """Return whether an interruption cancels the run of `call`."""
        function = self._functions.get(call.name)
        return function is not None and function.on_interrupt == "cancel"

    async def run(self, call: ToolCall, report: ReportFailure = log_failure) -> str:
        """Return the text that answers `call`. If it fails, the text says so and `report` is called.

        Raises nothing but cancellation.
        """
        function = self._functions.get(call.name)
        if function is None:
            known = ", ".join(self._functions)
            return f"There is no tool called {call.name!r}. The tools are: {known}."
        try:
            arguments = function.parse(call.arguments)
        except msgspec.DecodeError as error:
            return f"The arguments of {call.name} do not fit its schema: {error}"
        except RecursionError:
            return f"The arguments of {call.name} are not JSON."
        output = None
        try:
            with anyio.move_on_after(function.timeout):
                output = await function.run(arguments)
        except ToolError as error:
            output = mended(str(error))
        except anyio.get_cancelled_exc_class() as error:
            await anyio.lowlevel.checkpoint_if_cancelled()
            # The session was not cancelled: on asyncio, what the function awaited may raise this too.
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
        size = len(output.encode())
        if size > MAX_OUTPUT:
            logger.error("tool %s gave %d bytes, more than %d: not sent", call.name, size, MAX_OUTPUT)
            return f"The tool {call.name} gave a result that is too long to be sent."
        return output
