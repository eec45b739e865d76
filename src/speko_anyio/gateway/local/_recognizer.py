"""The gateway's end of the recogniser processes: starts, feeds and replaces them."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from speko_anyio._extras import install_extra
from speko_anyio._net.tasks import TaskGroup

from .._health import SHUTTING_DOWN
from ..engines import EngineError
from . import _worker_messages as messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from anyio.abc import Process, TaskStatus
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from ._grammar import Grammar

_ReplyT = TypeVar("_ReplyT", messages.Recognised, messages.Warm)

# They tell a hanging process from a slow one: at load 9, a question that takes 0.3 s took 8 s.
START_TIMEOUT: Final = 120.0
"""Seconds for loading the models; 0.7 s on an idle machine."""

HEAR_TIMEOUT: Final = 60.0
"""Seconds for one utterance. The longest, 15 s, takes about 1.5 s."""

QUEUE_PER_WORKER: Final = 8
"""Utterances that may wait for each process; more are refused, because a late answer is useless."""

REAP_TIMEOUT: Final = 5.0
"""Seconds until a killed process must be gone."""

RETRY_DELAY: Final = 0.5
"""Seconds before a process that did not start is tried again, if an utterance waits then."""

POCKETSPHINX: Final = (sys.executable, "-m", "speko_anyio.gateway.local._pocketsphinx_worker")
WHISPER: Final = (sys.executable, "-m", "speko_anyio.gateway.local._whisper_worker")
"""The commands of the two kinds of process; Whisper's takes arguments."""


class RecognizerError(EngineError):
    """Speech could not be recognised; the message says why."""

    def __init__(self, message: str, code: str = "RECOGNIZER_FAILED") -> None:
        super().__init__(code, message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.code)


class RecognizerBusyError(RecognizerError):
    """Too many utterances wait already."""

    def __init__(self, message: str, code: str = "OVERLOADED") -> None:
        super().__init__(message, code)


class _Job:
    """One utterance under way; its caller may have left (`abandoned`)."""

    __slots__ = ("abandoned", "done", "outcome", "request", "retried")

    def __init__(self, request: messages.Hear) -> None:
        self.request = request
        self.abandoned = False
        self.retried = False
        self.done = anyio.Event()
        self.outcome: messages.Recognised | RecognizerError | None = None

    def finish(self, outcome: messages.Recognised | RecognizerError) -> None:
        self.outcome = outcome
        self.done.set()


class Recognizer:
    """Hears utterances in `workers` processes; made by `open_recognizer`."""

    def __init__(self, jobs: MemoryObjectSendStream[_Job], pids: set[int]) -> None:
        self._jobs = jobs
        self._pids = pids

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the workers that run now."""
        return frozenset(self._pids)

    @property
    def idle(self) -> bool:
        """Whether a worker waits for something to do."""
        return self._jobs.statistics().tasks_waiting_receive > 0

    async def hear(self, pcm: bytes, grammar: Grammar) -> messages.Recognised:
        """Return what is said in `pcm`, PCM16 mono at `worker_messages.SAMPLE_RATE`.

        Cancelling it drops the utterance, unless a worker is at it already: that one finishes it, unheard.

        Raises:
            RecognizerBusyError: too many utterances wait.
            RecognizerError: the worker crashed twice, hung, or could not be started again. The next call
                tries anew.
        """
        job = _Job(messages.Hear(pcm, grammar))
        try:
            self._jobs.send_nowait(job)
        except anyio.WouldBlock:
            raise RecognizerBusyError(
                "the gateway's recogniser has too much to do; try again, or give it more workers"
            ) from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise RecognizerError("the gateway's recogniser is not running; restart the gateway") from None
        try:
            await job.done.wait()
        finally:
            job.abandoned = True
        if isinstance(job.outcome, messages.Recognised):
            return job.outcome
        raise job.outcome or RecognizerError("the gateway's recogniser gave no answer; try again")


@asynccontextmanager
async def open_recognizer(
    *, workers: int = 1, command: Sequence[str] = POCKETSPHINX, extra: str = "local"
) -> AsyncIterator[Recognizer]:
    """Start `workers` recogniser processes and wait until they have loaded their models.

    The processes are killed when the context ends; calls that still wait raise an error.

    Args:
        workers: how many processes.
        command: what to run; a process that speaks `worker_messages` on its standard input and output.
        extra: the extra that installs what the process imports.

    Raises:
        RecognizerError: a worker did not start, because its model can't be had or the extra is not installed;
            or the recogniser itself is faulty, which ends the context.
        ValueError: fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"the recogniser needs at least one worker, not {workers}")
    send, receive = anyio.create_memory_object_stream[_Job](workers * QUEUE_PER_WORKER)
    pids: set[int] = set()

    async with send, receive, TaskGroup("the recogniser") as tasks:
        for _ in range(workers):
            await tasks.start(_Worker(receive.clone(), pids, command, extra).run)
        yield Recognizer(send, pids)
        tasks.cancel_scope.cancel()


class _Worker:
    """One process after the other, and the utterances that they take from the common queue."""

    def __init__(
        self, jobs: MemoryObjectReceiveStream[_Job], pids: set[int], command: Sequence[str], extra: str
    ) -> None:
        self._jobs = jobs
        self._pids = pids
        self._command = command
        self._extra = extra
        self._job: _Job | None = None  # taken from the queue, and not finished

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled. Raises RecognizerError when the very first process does not start."""
        started = False
        with self._jobs:
            try:
                while True:
                    try:
                        async with self._process() as process:
                            if not started:
                                started = True
                                task_status.started()
                            await self._serve(process)
                    except _ProcessFailedError as error:
                        failure = RecognizerError(f"the gateway's recogniser process {error}")
                        if not started:
                            raise failure from None
                        self._finish(failure)
                        # Takes no utterance meanwhile: another worker may be well.
                        await anyio.sleep(RETRY_DELAY)
                        await self._take()
            except RecognizerError:
                raise
            except Exception as error:
                raise RecognizerError(
                    "the gateway's recogniser failed by a fault of its own; report it to speko-anyio and "
                    "restart the gateway"
                ) from error
            finally:
                self._finish(_stopping())
                self._fail_queued()

    async def _serve(self, process: _WorkerProcess) -> None:
        """Hand utterances to `process` until it fails."""
        while True:
            job = await self._take()
            try:
                await process.send(job.request, HEAR_TIMEOUT)
                outcome = await process.expect(messages.Recognised, HEAR_TIMEOUT)
            except _ProcessEndedError as error:
                # It may have ended before, while it had nothing to do; only an utterance shows that.
                if job.retried:
                    self._finish(_replaced(error))
                job.retried = True
                return
            except _ProcessFailedError as error:
                self._finish(_replaced(error))
                return
            self._finish(outcome)

    async def _take(self) -> _Job:
        """Return the utterance in progress, else the next one that was not abandoned."""
        while self._job is None or self._job.abandoned:
            self._job = await self._jobs.receive()
        return self._job

    def _finish(self, outcome: messages.Recognised | RecognizerError) -> None:
        if self._job is not None:
            self._job.finish(outcome)
            self._job = None

    def _fail_queued(self) -> None:
        try:
            while True:
                self._jobs.receive_nowait().finish(_stopping())
        except (anyio.WouldBlock, anyio.EndOfStream):
            return

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[_WorkerProcess]:
        """Start a process and wait until it has loaded its models, or raise _ProcessFailedError."""
        try:
            process = await anyio.open_process(self._command, stderr=None)
        except OSError as error:
            raise _ProcessFailedError(
                f"could not be started ({error.strerror}); check the machine's limits of files, processes "
                "and memory"
            ) from None
        self._pids.add(process.pid)
        try:
            ready = _WorkerProcess(process)
            try:
                await ready.expect(messages.Warm, START_TIMEOUT)
            except _ProcessRefusedError:
                raise
            except _ProcessFailedError as error:
                raise _ProcessFailedError(
                    f"{error} while starting; see its error output, and if a module is missing, "
                    f"{install_extra(self._extra)}"
                ) from None
            yield ready
        finally:
            self._pids.discard(process.pid)
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            # A killed process is gone at once; the deadline is a safeguard.
            with anyio.move_on_after(REAP_TIMEOUT, shield=True):
                await process.aclose()


def _replaced(error: _ProcessFailedError) -> RecognizerError:
    return RecognizerError(f"the gateway's recogniser process {error}; it is replaced, so try again")


def _stopping() -> RecognizerError:
    return RecognizerError(SHUTTING_DOWN)


class _ProcessFailedError(Exception):
    """The process broke the exchange; reads as the rest of a sentence about it."""


class _ProcessEndedError(_ProcessFailedError):
    """The process is gone."""


class _ProcessRefusedError(_ProcessFailedError):
    """The process says why it can't start."""


class _WorkerProcess:
    """Messages to and from one process."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process must have been opened with pipes")
        self._process = process
        self._stdin = process.stdin
        self._replies = BufferedByteReceiveStream(process.stdout)

    async def send(self, request: messages.Hear, seconds: float) -> None:
        """Write one request."""
        with _failing(seconds):
            await self._stdin.send(messages.encode(request))

    async def expect(self, kind: type[_ReplyT], seconds: float) -> _ReplyT:
        """Read one reply, which must be a `kind`."""
        with _failing(seconds):
            (length,) = messages.HEADER.unpack(await self._replies.receive_exactly(messages.HEADER.size))
            if length > messages.MAX_MESSAGE:
                raise _ProcessFailedError("sent an invalid message")
            reply = messages.decode_reply.decode(await self._replies.receive_exactly(length))
        if isinstance(reply, messages.Refused):
            raise _ProcessRefusedError(reply.reason)
        if not isinstance(reply, kind):
            raise _ProcessFailedError("answered out of turn")
        return reply


@contextmanager
def _failing(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise _ProcessFailedError(f"gave no answer within {seconds:g} s") from None
    except (
        anyio.EndOfStream,
        anyio.IncompleteRead,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
        OSError,  # a pipe's own error, which not every backend translates
    ):
        raise _ProcessEndedError("ended") from None
    except msgspec.DecodeError:
        raise _ProcessFailedError("sent an invalid message") from None
