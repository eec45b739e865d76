"""The log for machines."""

from __future__ import annotations

import json
import logging
import types
from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio.gateway import ServerSession, running_gateway
from speko_anyio.gateway._log_format import JSONFormatter, TextFormatter, current_session
from tests.protocol.test_text import ANY_TEXT, unsafe

from .support import make_gateway, mint, raw_client


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord("speko_anyio.x", logging.WARNING, "f.py", 1, message, arguments, info)
    record.created = 0.25
    return JSONFormatter().format(record)


def test_a_record_is_one_object_on_one_line() -> None:
    text = line("it\nbroke: %s", "here")
    assert "\n" not in text
    assert json.loads(text) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "WARNING",
        "logger": "speko_anyio.x",
        "message": "it\nbroke: here",
    }


def test_an_exception_has_its_type_words_and_traceback() -> None:
    told = json.loads(line("failed", error=ValueError("no\nway")))
    assert told["error"] == "ValueError: no\nway"
    assert "ValueError" in told["traceback"]


def test_half_of_a_surrogate_pair_is_told_too() -> None:
    told = json.loads(line("no file %s", "a\udc80", error=OSError("a\udc80")))
    assert told["message"] == r"no file a\udc80"
    assert told["error"] == r"OSError: a\udc80"


def test_for_people_a_record_is_one_line_too() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f.py", 1, "session %s", ("1\r\nERROR x: no",), None)
    assert TextFormatter("%(name)s: %(message)s").format(record) == r"x: session 1\r\nERROR x: no"


def failed(text: str) -> tuple[type[BaseException], BaseException, types.TracebackType | None]:
    """The information of an exception that says `text`, chained to another one."""
    try:
        try:
            raise ValueError(text)
        except ValueError as first:
            raise OSError(text) from first
    except OSError as error:
        return type(error), error, error.__traceback__


@given(ANY_TEXT, ANY_TEXT, st.booleans())
def test_no_text_can_forge_a_line_or_steer_a_terminal(text: str, said: str, stack: bool) -> None:
    record = logging.LogRecord("speko.x", logging.ERROR, "f.py", 1, "it broke: %s", (text,), failed(said))
    if stack:
        record.stack_info = f"Stack (most recent call last):\n{said}"
    for formatter in (JSONFormatter(), TextFormatter("%(levelname)s %(name)s: %(message)s")):
        lines = formatter.format(record).split("\n")
        assert [unsafe(line) for line in lines] == [[]] * len(lines)
        assert len("\n".join(lines).splitlines()) == len(lines)
        if isinstance(formatter, JSONFormatter):
            assert len(lines) == 1
            told = json.loads(lines[0])
            assert "it broke: " in told["message"]
        else:
            assert lines[0].startswith("ERROR speko.x: it broke: ")
            assert all(line.startswith("  ") for line in lines[1:])


def test_another_handlers_text_of_an_exception_is_not_changed() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "no", (), failed("a\x1bb"))
    plain = logging.Formatter().format(record)
    told = TextFormatter().format(record)
    assert logging.Formatter().format(record) == plain
    assert "a\x1bb" in plain
    assert "a\\x1bb" in told


def test_no_log_shows_a_key_wherever_it_stands() -> None:
    record = logging.LogRecord(
        "x", logging.ERROR, "f.py", 1, "at %s", ("pg://me:hunter2@db",), failed("key sk_live_0123456789 of x")
    )
    for formatter in (JSONFormatter(), TextFormatter()):
        told = formatter.format(record)
        assert "hunter2" not in told
        assert "sk_live" not in told
        assert "OSError: key *** of x" in told


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.lines: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("speko_anyio.test")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.anyio
async def test_what_a_handler_logs_names_its_session(lines: Lines) -> None:
    async def talkative(session: ServerSession) -> None:
        logging.getLogger("speko_anyio.test").warning("hello")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inner)

    async def inner() -> None:
        logging.getLogger("speko_anyio.test").warning("from a task")

    with anyio.fail_after(20):
        async with running_gateway(make_gateway({"echo": talkative})) as url:
            grants = [await mint(url), await mint(url)]
            for grant in grants:
                async with raw_client(grant.ws_url, grant.ws_token) as client:
                    await client.hear_close()
    told = [(told["session"], told["message"]) for told in lines.lines]
    assert told == [(g.session_id, text) for g in grants for text in ("hello", "from a task")]
    assert current_session.get() is None
