"""Runs the command; the one place where failures become a line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

import anyio

from .._extras import install_extra
from ..protocol._text import clean
from ..protocol._tokens import redact
from ..protocol.errors import SpekoError
from ._failures import FAILED, INTERRUPTED, CommandError, exit_code_of
from ._parser import make_parser
from ._standard_streams import check_output, sturdy_output

Command: TypeAlias = Callable[[argparse.Namespace], Coroutine[Any, Any, None]]

_MODULES: Final = {
    "bench": "bench",
    "demo": "_ask",
    "gateway": "_gateway_command",
    "say": "_ask",
    "timeline": "_recordings",
}
"""The modules of the commands; of any other command it is its name after an underscore."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (see ``--help``)."""
    with sturdy_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        _run(options)
        check_output("the command did its work")
    except KeyboardInterrupt:
        return _interrupted()
    except CommandError as error:
        return _failed(*error.lines, exit_code=error.exit_code)
    except SpekoError as error:
        return _failed(str(error), exit_code=exit_code_of(error))
    except ImportError as error:
        if error.name is None or error.name.startswith("speko_anyio."):
            raise
        return _failed(
            f"`speko-anyio {options.command}` needs {error.name}, which is not installed; "
            f"{install_extra('cli', 'gateway', 'local')}"
        )
    except BaseExceptionGroup as group:
        # trio delivers Ctrl-C inside whichever task runs, and that task's group wraps it.
        if group.split(KeyboardInterrupt)[0] is not None:
            return _interrupted()
        broken = group.split(OSError)[0]
        if broken is None:
            raise
        return _failed(f"the system reports: {_first(broken)}; check the files and addresses")
    except OSError as error:
        return _failed(f"the system reports: {error}; check the files and addresses")
    return 0


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _interrupted() -> int:
    # On trio Ctrl-C may strike between the creation of a task and its start. Python would then warn about a
    # coroutine that was never awaited when the process ends.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    return _failed("interrupted", exit_code=INTERRUPTED)


def _failed(*messages: str, exit_code: int = FAILED) -> int:
    for message in messages:
        # A peer could use control characters against the terminal.
        print(f"speko-anyio: {clean(redact(message))}", file=sys.stderr)
    return exit_code


def _run(options: argparse.Namespace) -> None:
    command = _load(options.command)
    if options.backend == "uvloop":
        _require("uvloop", "install uvloop, or choose --backend asyncio")
        anyio.run(command, options, backend="asyncio", backend_options={"use_uvloop": True})
    else:
        if options.backend == "trio":
            _require("trio", f"{install_extra('trio')}, or choose --backend asyncio")
        anyio.run(command, options, backend=options.backend)


def _load(name: str) -> Command:
    # Imported when chosen: `--help` and mistakes are answered without loading a server or a voice.
    module = importlib.import_module("." + _MODULES.get(name, f"_{name}"), __package__)
    command: Command = getattr(module, name)
    return command


def _require(module: str, advice: str) -> None:
    try:
        __import__(module)
    except ImportError:
        raise CommandError(f"{module} is not installed; {advice}") from None
