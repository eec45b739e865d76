"""`speko-anyio bench`: makes a load as its options say, prints and writes the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from ...client._api import Speko
from .. import _files as files
from .._connecting import SERVED_HERE, base_url_of, gateway_here, usual_model
from .._display import Display
from .._failures import FAILED, CommandError
from ._chart import draw
from ._load import Load
from ._report import make_lines, make_report, make_table
from ._session_runs import Plan


async def bench(options: argparse.Namespace) -> None:
    """Make the load and report it; raise `CommandError` if any session failed or lost a message."""
    for path in filter(None, (options.json, options.plot)):
        files.check_writable(path)
    plan = _plan(options)
    question = b""
    if plan.kind == "turns":
        question = await files.load_or_speak(options.wav, options.text, plan.rate)
    base_url = base_url_of(options)
    with Display() as display:
        async with AsyncExitStack() as stack:
            api_key = None
            if base_url is None and plan.provider in SERVED_HERE:
                display.line("the gateway runs in this process and shares its CPU; --base-url names another")
                base_url, api_key = await stack.enter_async_context(gateway_here())
            speko = await stack.enter_async_context(Speko(api_key, base_url))
            load = Load(speko, plan, question)
            await load.run(_watcher(display, load))
        report = make_report(load, plan, backend=options.backend)
        display.console.print(make_table(report))
        for line in make_lines(report):
            display.line(line)
        if options.json is not None:
            _write(options.json, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n", display)
        if options.plot is not None:
            _write(options.plot, draw(report), display)
    if not report.clean:
        raise CommandError("not every session did what it should; see above", FAILED)


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        kind="echo" if options.wav is None and options.text is None else "turns",
        provider=options.provider,
        model=options.model or usual_model(options.provider),
        sessions=options.sessions,
        seconds=options.seconds,
        ramp=options.ramp,
        rate=options.rate,
    )


def _watcher(display: Display, load: Load) -> Callable[[], None]:
    def watch() -> None:
        received = sum(outcome.received for outcome in load.outcomes)
        failed = load.errors.total()
        display.status(
            f"{load.clock():.0f} s: {load.live} sessions open, {received} messages received, {failed} failed"
        )

    return watch


def _write(path: Path, text: str, display: Display) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}", FAILED) from None
    display.line(f"written   {path}")
