"""The gateway's end of the recogniser processes: starts them, feeds them, replaces them."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from speko_anyio.protocol.errors import SpekoError

from . import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from anyio.abc import Process, TaskStatus
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from .grammar import Grammar

_ReplyT = TypeVar("_ReplyT", wire.Heard, wire.Warm)

START_TIMEOUT: Final = 30.0
"""Seconds for loading the models; 0.7 s on an idle machine."""

HEAR_TIMEOUT: Final = 20.0
"""Seconds for one utterance. The longest, 15 s, takes about 1.5 s."""

QUEUE_PER_WORKER: Final = 8
"""Utterances that may wait for each process; more are refused, because a late answer is none."""

REAP_TIMEOUT: Final = 5.0
"""Seconds until a killed process must be gone."""

WORKER_COMMAND: Final = (sys.executable, "-m", "speko_anyio.gateway.local.recognizer_worker")


class RecognizerError(SpekoError):
    """Speech could not be recognised; the message says why, `code` is what the client is told."""

    code = "RECOGNIZER_FAILED"


class RecognizerBusyError(RecognizerError):
    """Too many utterances wait already."""

    code = "OVERLOADED"


class _Job:
    """One utterance on its way; whoever waits for it may have left (`abandoned`)."""

    __slots__ = ("abandoned", "done", "outcome", "request")

    def __init__(self, request: wire.Hear) -> None:
        self.request = request
        self.abandoned = False
        self.done = anyio.Event()
        self.outcome: wire.Heard | RecognizerError | None = None

    def finish(self, outcome: wire.Heard | RecognizerError) -> None:
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

    async def hear(self, pcm: bytes, grammar: Grammar) -> wire.Heard:
        """What is said in `pcm`, PCM16 mono at `wire.SAMPLE_RATE`.

        Cancelling it drops the utterance, unless a worker is at it already: that one finishes it, unheard.

        Raises:
            RecognizerBusyError: too many utterances wait.
            RecognizerError: the worker crashed or hung. It is replaced, so the next call may succeed.
        """
        job = _Job(wire.Hear(pcm, grammar))
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
        if isinstance(job.outcome, wire.Heard):
            return job.outcome
        raise job.outcome or RecognizerError("the gateway's recogniser gave no answer; try again")


@asynccontextmanager
async def open_recognizer(
    *, workers: int = 1, command: Sequence[str] = WORKER_COMMAND
) -> AsyncIterator[Recognizer]:
    """Start `workers` recogniser processes and wait until they have loaded their models.

    The processes are killed when the context ends; who still waits for an utterance gets an error.

    Args:
        workers: how many processes.
        command: what to run; a process that speaks `wire` on its standard input and output.

    Raises:
        RecognizerError: a worker did not start, most likely because the extra ``local`` is not installed.
        ValueError: fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"the recogniser needs at least one worker, not {workers}")
    send, receive = anyio.create_memory_object_stream[_Job](workers * QUEUE_PER_WORKER)
    pids: set[int] = set()
    # Kept aside and raised outside the task group, which would wrap it in an ExceptionGroup.
    failure: Exception | None = None

    async with send, receive, anyio.create_task_group() as tasks:
        try:
            for _ in range(workers):
                await tasks.start(_Worker(receive.clone(), pids, command).run)
            yield Recognizer(send, pids)
        except Exception as error:  # noqa: BLE001  (raised below)
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Worker:
    """One process after the other, and the utterances that they take from the common queue."""

    def __init__(self, jobs: MemoryObjectReceiveStream[_Job], pids: set[int], command: Sequence[str]) -> None:
        self._jobs = jobs
        self._pids = pids
        self._command = command

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled. Raises RecognizerError when the very first process does not start."""
        with self._jobs:
            try:
                started = False
                while True:
                    async with self._process() as process:
                        try:
                            await process.expect(wire.Warm, START_TIMEOUT)
                        except _ProcessFailedError as error:
                            failure = RecognizerError(
                                f"the gateway's recogniser process {error} while starting; see its error "
                                "output, and install 'speko-anyio[local]' if it is missing"
                            )
                            if not started:
                                raise failure from None
                            (await self._jobs.receive()).finish(failure)
                            continue
                        if not started:
                            started = True
                            task_status.started()
                        await self._serve(process)
            finally:
                self._fail_queued()

    async def _serve(self, process: _WorkerProcess) -> None:
        """Hand utterances to `process` until it fails."""
        async for job in self._jobs:
            if job.abandoned:
                continue
            try:
                await process.send(job.request, HEAR_TIMEOUT)
                job.finish(await process.expect(wire.Heard, HEAR_TIMEOUT))
            except _ProcessFailedError as error:
                job.finish(
                    RecognizerError(f"the gateway's recogniser process {error}; it is replaced, so try again")
                )
                return
            finally:
                if not job.done.is_set():
                    job.finish(_stopping())

    def _fail_queued(self) -> None:
        try:
            while True:
                self._jobs.receive_nowait().finish(_stopping())
        except (anyio.WouldBlock, anyio.EndOfStream):
            return

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[_WorkerProcess]:
        process = await anyio.open_process(self._command, stderr=None)
        self._pids.add(process.pid)
        try:
            yield _WorkerProcess(process)
        finally:
            self._pids.discard(process.pid)
            if process.returncode is None:
                process.kill()
            # A killed process is gone at once; the deadline is for a kernel that does not manage.
            with anyio.move_on_after(REAP_TIMEOUT, shield=True):
                await process.aclose()


def _stopping() -> RecognizerError:
    return RecognizerError("the gateway is shutting down; connect to another one")


class _ProcessFailedError(Exception):
    """The process broke the exchange; reads as the rest of a sentence about it."""


class _WorkerProcess:
    """Messages to and from one process."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process must have been opened with pipes")
        self._process = process
        self._stdin = process.stdin
        self._replies = BufferedByteReceiveStream(process.stdout)

    async def send(self, request: wire.Hear, seconds: float) -> None:
        """Write one request."""
        with _failing(seconds):
            await self._stdin.send(wire.encode(request))

    async def expect(self, kind: type[_ReplyT], seconds: float) -> _ReplyT:
        """Read one reply, which must be a `kind`."""
        with _failing(seconds):
            (length,) = wire.HEADER.unpack(await self._replies.receive_exactly(wire.HEADER.size))
            if length > wire.MAX_MESSAGE:
                raise _ProcessFailedError("sent what is no message")
            reply = wire.decode_reply.decode(await self._replies.receive_exactly(length))
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
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise _ProcessFailedError("ended") from None
    except msgspec.DecodeError:
        raise _ProcessFailedError("sent what is no message") from None
