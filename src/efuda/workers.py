"""Hands for pure functions: processes of this machine, or none; `cluster` gives the same face to many machines.

with LocalWorkers() as workers:
    for result in workers.map(function, jobs):      # in the order of the jobs, few of them ahead
        ...
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType, TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from efuda.errors import EfudaError, OutputError

__all__ = [
    "ATTEMPTS",
    "InProcess",
    "LocalWorkers",
    "Workers",
    "attempt",
    "cores",
    "few_ahead",
    "name_of",
    "outcome",
    "spawn",
]

ATTEMPTS: Final = 3
T = TypeVar("T")
R = TypeVar("R")
B = TypeVar("B")


class Workers(Protocol):
    """Something that applies a function to jobs.

    Attributes:
        local: whether they see the disks of this machine: then large results need not come back through a pipe.
    """

    local: bool

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """The results, in the order of the jobs, which are taken lazily, only some ahead.

        The function is pure: a job whose worker dies is done again elsewhere, up to `ATTEMPTS` times. What the function
        raises is raised here, as it is.

        Raises:
            OutputError: a job's worker died each time; the job is named by its `name` or `file`, where it has one.
        """
        ...


class InProcess:
    """No other process: for one worker."""

    local = True

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """One after the other."""
        return map(function, jobs)


def few_ahead(
    jobs: Iterable[T], begin: Callable[[T], B], ahead: Callable[[], int], cancel: Callable[[B], object]
) -> Generator[tuple[T, B], None, None]:
    """Begin jobs in their order, at most `ahead()` at a time; those that nobody asked for in the end are cancelled."""
    coming = iter(jobs)
    flying: deque[tuple[T, B]] = deque()
    try:
        while True:
            while len(flying) < ahead():
                try:
                    job = next(coming)
                except StopIteration:
                    break
                flying.append((job, begin(job)))
            if not flying:
                return
            yield flying.popleft()
    finally:
        for _, begun in flying:
            cancel(begun)


class LocalWorkers:
    """Processes of this machine, one a core by default, started when there are jobs for them.

    Every process has a thread here that hands it one job at a time, so it is known whose job a dead process had, and
    the others do not notice.
    """

    local = True

    def __init__(self, count: int | None = None) -> None:
        self.count = count or cores()
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[_Process] = []
        self._alive: set[_Process] = set()
        self._closing = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is still at work is killed: nobody will ask for it."""
        with self._lock:
            self._closing = True
            for process in self._alive:
                process.kill()
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._alive:
            process.bury()
        self._threads, self._idle, self._alive, self._closing = None, [], set(), False

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """See `Workers.map`."""

        def begin(job: T) -> Future[R]:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="efuda-worker")
            return self._threads.submit(self._do, function, job)

        with closing(few_ahead(jobs, begin, lambda: 2 * self.count, Future.cancel)) as begun:
            for _, future in begun:
                yield future.result()

    def _do(self, function: Callable[[T], R], job: T) -> R:
        """In a thread: have it done by a process, by another one if that dies."""
        how = ""
        for _ in range(ATTEMPTS):
            process = self._take()
            try:
                answer = process.ask(function, job)
            except OSError:  # the pipe broke: nobody is at its other end
                how = self._lose(process)
                continue
            except BaseException:  # the job or the function cannot be sent
                self._idle.append(process)
                raise
            self._idle.append(process)
            result: R = outcome(answer)
            return result
        raise OutputError(
            f"A worker process died {ATTEMPTS} times at {name_of(job)} ({how}). If the machine ran out of memory, try "
            "fewer --workers; if not, see whether that file is sound."
        )

    def _take(self) -> _Process:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._lock:
            if self._closing:
                raise CancelledError
            process = _Process()
            self._alive.add(process)
        if not process.is_ready():
            how = self._lose(process)
            raise OutputError(
                f"A worker process could not start ({how}). Look above for its reason, or use --workers 1."
            )
        return process

    def _lose(self, process: _Process) -> str:
        """How it died; raises CancelledError where that is our own doing."""
        with self._lock:
            if self._closing:
                raise CancelledError
            self._alive.discard(process)
            return process.bury()


def spawn(target: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """A new process that runs `target`, deaf to Ctrl-C from its first moment, for that reaches all of a terminal.

    It does not import the program's main file again, as multiprocessing's own would: a script needs no guard.
    """
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    main = sys.modules["__main__"]
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # it would unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


class _Process:
    """A process that waits for jobs, and the pipe to it."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = spawn(_work, theirs)
        self._function: Any = None
        theirs.close()

    def is_ready(self) -> bool:
        try:
            return bool(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return False

    def ask(self, function: Callable[[Any], Any], job: Any) -> bytes:
        """Raises OSError when the process is gone, and whatever pickle does for what cannot be pickled."""
        same = function is self._function  # a function may carry much; it is sent once
        message = pickle.dumps((same, None if same else function, job), pickle.HIGHEST_PROTOCOL)
        try:
            self._pipe.send_bytes(message)
            self._function = function
            return self._pipe.recv_bytes()
        except EOFError as error:
            raise BrokenPipeError from error

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> str:
        """End it in any case; says how it ended."""
        self._process.join(1)  # its own end first: a broken pipe is seen before the exit
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        self._pipe.close()
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _work(pipe: Connection) -> None:
    """The life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    pipe.send_bytes(b"ready")
    function: Any = None
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return

        def undo(message: bytes = message) -> Any:
            nonlocal function
            same, sent, job = pickle.loads(message)
            if not same:
                function = sent
            return function(job)

        pipe.send_bytes(attempt(undo))


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would otherwise finish its job, and wait for the next for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def attempt(call: Callable[[], Any]) -> bytes:
    """Call it, and pack what it returns or raises, whatever it is, for `outcome` to unpack elsewhere."""
    try:
        return pickle.dumps((True, call()), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        error.add_note(f"In a worker:\n{''.join(traceback.format_tb(error.__traceback__))}")
        # Most of ours are not made of their message alone, which is all that pickle would give them.
        what = (type(error), error.args, vars(error)) if isinstance(error, EfudaError) else error
        try:
            packed = pickle.dumps((False, what))
            pickle.loads(packed)
        except Exception:
            plain = RuntimeError(f"{type(error).__name__}: {error}")
            plain.__notes__ = error.__notes__
            packed = pickle.dumps((False, plain))
        return packed


def outcome(packed: bytes) -> Any:
    """What `attempt` packed: returned or raised."""
    done, what = pickle.loads(packed)
    if done:
        return what
    if isinstance(what, BaseException):
        raise what
    kind, arguments, attributes = what
    error = kind.__new__(kind, *arguments)
    vars(error).update(attributes)
    raise error


def name_of(job: Any) -> str:
    """A job in a sentence."""
    return str(getattr(job, "name", None) or getattr(job, "file", None) or repr(job)[:200])


def cores() -> int:
    """Those that we may use, where the system says."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
