"""The pool of recogniser processes, with a process that misbehaves on demand."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from speko_anyio.gateway.local import _recognizer as module
from speko_anyio.gateway.local import _worker_messages as messages
from speko_anyio.gateway.local._grammar import Grammar
from speko_anyio.gateway.local._recognizer import (
    QUEUE_PER_WORKER,
    Recognizer,
    RecognizerBusyError,
    RecognizerError,
    open_recognizer,
)
from tests.support.speech import spoken

pytestmark = pytest.mark.anyio

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
EMPTY = Grammar(())


async def hear(recognizer: Recognizer, order: bytes) -> str:
    return (await recognizer.hear(order, EMPTY)).text


async def until_idle(recognizer: Recognizer, *, expected: bool) -> None:
    while recognizer.idle is not expected:
        await anyio.lowlevel.checkpoint()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_hears_and_its_processes_end_with_it() -> None:
    with anyio.fail_after(30):
        async with open_recognizer(workers=2, command=COMMAND) as recognizer:
            pids = recognizer.pids
            assert len(pids) == 2
            assert all(map(is_running, pids))
            assert await hear(recognizer, b"hello") == "hello"
            assert await hear(recognizer, b"again") == "again"
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("fault", [b"crash", b"garbage", b"huge", b"out of turn"])
async def test_a_faulty_process_is_replaced(fault: bytes) -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            before = recognizer.pids
            with pytest.raises(RecognizerError, match="it is replaced, so try again") as caught:
                await hear(recognizer, fault)
            assert caught.value.code == "RECOGNIZER_FAILED"
            assert await hear(recognizer, b"hello") == "hello"
            assert recognizer.pids.isdisjoint(before)


async def test_a_hanging_process_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            monkeypatch.setattr(module, "HEAR_TIMEOUT", 0.05)
            with pytest.raises(RecognizerError, match=r"gave no answer within 0\.05 s"):
                await hear(recognizer, b"hang")
            monkeypatch.undo()
            assert await hear(recognizer, b"hello") == "hello"


async def test_a_process_that_does_not_start_is_told_without_a_group() -> None:
    with (
        anyio.fail_after(30),
        pytest.raises(RecognizerError, match=r"ended while starting.*with the extra `local`"),
    ):
        async with open_recognizer(command=(*COMMAND, "does not start")):
            raise AssertionError("entered")


async def test_a_process_may_say_itself_why_it_does_not_start() -> None:
    with anyio.fail_after(30), pytest.raises(RecognizerError) as caught:
        async with open_recognizer(command=(*COMMAND, "refuses")):
            raise AssertionError("entered")
    assert str(caught.value) == "the gateway's recogniser process has no model; get one"


class Program:
    """A program that runs the fake worker while it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.command = (str(path),)
        self.put()

    def put(self) -> None:
        self._path.write_text(f"#!/bin/sh\nexec {shlex.join(COMMAND)}\n", encoding="utf-8")
        self._path.chmod(0o700)

    def remove(self) -> None:
        self._path.unlink()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "worker")


async def test_a_process_that_can_not_be_started_again_fails_the_waiting_turn_only(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY", 0.01)
    with anyio.fail_after(30):
        async with open_recognizer(command=program.command) as recognizer:
            program.remove()
            for order in (b"crash", b"hello"):
                with pytest.raises(RecognizerError, match=r"could not be started \(No such file") as caught:
                    await hear(recognizer, order)
                assert caught.value.code == "RECOGNIZER_FAILED"
            assert not recognizer.pids
            program.put()
            assert await hear(recognizer, b"hello") == "hello"


async def test_a_first_process_that_can_not_be_started_is_told_without_a_group(tmp_path: Path) -> None:
    with anyio.fail_after(30), pytest.raises(RecognizerError, match="could not be started"):
        async with open_recognizer(command=(str(tmp_path / "nothing"),)):
            raise AssertionError("entered")


async def test_nobody_waiting_means_no_more_starts(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY", 0.01)
    with anyio.fail_after(30):
        async with open_recognizer(command=program.command) as recognizer:
            program.remove()
            with pytest.raises(RecognizerError, match="could not be started"):
                await hear(recognizer, b"crash")
            await until_idle(recognizer, expected=True)
            assert not recognizer.pids


async def test_a_process_that_ended_while_idle_costs_no_turn() -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            (before,) = recognizer.pids
            os.kill(before, signal.SIGKILL)
            assert await hear(recognizer, b"x" * 300_000) == "x" * 300_000
            assert before not in recognizer.pids


async def test_a_fault_of_the_recogniser_itself_is_told_without_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> bytes:
        raise ZeroDivisionError

    async def use() -> None:
        async with open_recognizer(command=COMMAND) as recognizer:
            monkeypatch.setattr(messages, "encode", fail)
            await hear(recognizer, b"hello")

    with anyio.fail_after(30), pytest.raises(RecognizerError, match="a fault of its own"):
        await use()


async def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    with anyio.fail_after(30), pytest.raises(KeyError, match="mine"):
        async with open_recognizer(command=COMMAND):
            raise KeyError("mine")


async def test_too_many_utterances_are_refused() -> None:
    refused = 0
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer, anyio.create_task_group() as tasks:
            await until_idle(recognizer, expected=True)
            tasks.start_soon(hear, recognizer, b"hang")
            await until_idle(recognizer, expected=False)
            for _ in range(QUEUE_PER_WORKER):
                tasks.start_soon(hear, recognizer, b"queued")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RecognizerBusyError, match="too much to do") as caught:
                await hear(recognizer, b"one more")
            assert caught.value.code == "OVERLOADED"
            refused += 1
            tasks.cancel_scope.cancel()
    assert refused == 1


async def test_a_cancelled_utterance_does_not_disturb_the_next() -> None:
    with anyio.fail_after(30):
        async with open_recognizer(command=COMMAND) as recognizer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hear, recognizer, b"first")
                tasks.start_soon(hear, recognizer, b"second")
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert await hear(recognizer, b"third") == "third"


async def test_who_still_waits_at_the_end_is_told() -> None:
    errors: list[RecognizerError] = []

    async def wait(recognizer: Recognizer, order: bytes) -> None:
        try:
            await hear(recognizer, order)
        except RecognizerError as error:
            errors.append(error)

    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(30))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        recognizer = await stack.enter_async_context(open_recognizer(command=COMMAND))
        await until_idle(recognizer, expected=True)
        tasks.start_soon(wait, recognizer, b"hang")
        await until_idle(recognizer, expected=False)
        tasks.start_soon(wait, recognizer, b"queued")
        await anyio.wait_all_tasks_blocked()
    assert [str(error) for error in errors] == ["the gateway is shutting down; connect to another one"] * 2
    with pytest.raises(RecognizerError, match="not running"):
        await hear(recognizer, b"too late")


async def test_no_worker_is_no_recogniser() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        async with open_recognizer(workers=0):
            raise AssertionError("entered")


@pytest.mark.speech
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the worker is the same for all
async def test_the_real_worker_takes_no_notice_of_ctrl_c() -> None:
    with anyio.fail_after(60):
        async with open_recognizer() as recognizer:
            before = recognizer.pids
            (pid,) = before
            os.kill(pid, signal.SIGINT)
            assert await recognizer.hear(bytes(32_000), EMPTY) == messages.Recognised("", known=False)
            assert recognizer.pids == before


@pytest.mark.speech
def test_a_grammar_that_can_not_be_compiled_leaves_dictation(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pytest.importorskip("speko_anyio.gateway.local._pocketsphinx_worker").SpeechEngine()
    monkeypatch.setattr(Grammar, "jsgf", lambda _: "no grammar")
    assert engine.hear(bytes(32_000), Grammar(("hello",))) == messages.Recognised("", known=False)


@pytest.mark.speech
def test_the_same_audio_is_heard_alike_whatever_was_heard_before() -> None:
    engine = pytest.importorskip("speko_anyio.gateway.local._pocketsphinx_worker").SpeechEngine()
    phrase = "what is the weather in oslo"
    grammar = Grammar((phrase, "what time is it"))
    others = [spoken(text, messages.SAMPLE_RATE) for text in ("What time is it?", "Hello there.", "Stop.")]
    audio = spoken(phrase, messages.SAMPLE_RATE)
    # The scores, too: where one is close to what is just accepted, any difference would be heard.
    fits = set()
    for other in (None, *others, audio):
        if other is not None:
            engine.hear(other, grammar)
        fits.add(engine._fit(audio, grammar))
    (fit,) = fits
    assert fit.text == phrase


@pytest.mark.speech
@pytest.mark.parametrize(
    ("mean", "worst_word", "known"),
    [
        (-21_000, -62_000, True),
        (-21_000, -81_000, True),  # one name that is badly pronounced
        (-36_000, -81_000, False),  # another word in its place
        (-21_000, -120_000, False),
    ],
)
def test_one_word_that_fits_badly_does_not_spoil_a_phrase_that_fits_well(
    mean: float, worst_word: float, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = pytest.importorskip("speko_anyio.gateway.local._pocketsphinx_worker")
    engine = worker.SpeechEngine()
    phrase, dictated = "what is the weather in oslo", "what is that whether we are slow"
    monkeypatch.setattr(engine, "_fit", lambda *_: worker.Fit(phrase, mean, worst_word))
    monkeypatch.setattr(engine, "_dictate", lambda _: dictated)
    heard = engine.hear(bytes(32_000), Grammar((phrase,)))
    assert heard == messages.Recognised(phrase if known else dictated, known=known)
