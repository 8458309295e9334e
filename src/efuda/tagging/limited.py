"""Processes that do with strangers' files what may go wrong: a crash or a hang costs one file and no more.

    with LimitedWorkers(2) as workers:
        for seen in workers.map(look, paths): ...          # what `look` returns for each, or Refused(reason)
        seen = workers.do(look, path)                      # one, from any thread

A process may use so much memory and a file so many seconds. One that dies or takes too long is replaced; the file that
it was at gets one more chance, then it is refused with the reason. `Decoders` does the same for a model's inputs, which
are too large for a pipe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from efuda.errors import ImageError, OutputError
from efuda.images import DECODING_MEMORY, limit_this_process
from efuda.workers import attempt, cores, few_ahead, outcome, spawn

__all__ = ["STOPPED", "LimitedWorkers", "Refused"]

STOPPED: Final = "the decoder was stopped"

T = TypeVar("T")
R = TypeVar("R")
_TRIES: Final = 2
_START: Final = 60.0  # seconds that a process may take to come to life


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing came of a job: a short phrase that groups well in a report."""

    reason: str


class LimitedWorkers:
    """So many processes, started when there is something to do and kept for the next."""

    def __init__(
        self, count: int | None = None, *, memory: int | None = DECODING_MEMORY, seconds: float = 60.0
    ) -> None:
        """`memory`: bytes a process may use beside what it starts with; `seconds`: that one job may take."""
        self.count, self.memory, self.seconds = count or cores(), memory, seconds
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="efuda-limited")
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._alive: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False

    def do(self, function: Callable[[T], R], job: T) -> R | Refused:
        """What the function returns; a Refused where it raised ImageError or MemoryError, crashed or took too long."""
        return self._threads.submit(self._do, function, job).result()

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R | Refused]:
        """The same for many, in their order; the jobs are taken a few ahead."""

        def begin(job: T) -> Future[R | Refused]:
            return self._threads.submit(self._do, function, job)

        with closing(few_ahead(jobs, begin, lambda: 2 * self.count, Future.cancel)) as begun:
            for _, future in begun:
                yield future.result()

    def close(self) -> None:
        """End the processes; what they are at is given up."""
        with self._lock:
            self._closed = True
            for process in self._alive:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._alive:
            process.bury()
        self._alive.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, function: Callable[[T], R], job: T) -> R | Refused:
        refused = Refused(STOPPED)
        for _ in range(_TRIES):
            if self._closed:
                break
            process = self._take()
            try:
                answer = process.ask(function, job, self.seconds)
            except TimeoutError:
                self._lose(process)
                return Refused(f"decoding took more than {self.seconds:g} s")
            except OSError:  # the pipe broke: nobody is at its other end
                refused = Refused(f"the decoder crashed ({self._lose(process)})")
                continue
            self._idle.put(process)
            try:
                result: R = outcome(answer)
            except ImageError as error:
                return Refused(error.reason)
            except MemoryError:
                return Refused("too large for the memory that decoding may use")
            return result
        return Refused(STOPPED) if self._closed else refused

    def _take(self) -> _Process:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        process = _Process(self.memory)
        with self._lock:
            self._alive.add(process)
        if not process.is_ready():
            raise OutputError(f"A process that decodes pictures could not start ({self._lose(process)}).")
        return process

    def _lose(self, process: _Process) -> str:
        with self._lock:
            self._alive.discard(process)
        return process.bury()


class _Process:
    """One process and the pipe to it."""

    def __init__(self, memory: int | None) -> None:
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = spawn(_work, theirs, memory)
        self._ended = ""
        theirs.close()

    def is_ready(self) -> bool:
        try:
            return self._pipe.poll(_START) and bool(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return False

    def ask(self, function: Callable[[Any], Any], job: Any, seconds: float) -> bytes:
        """Raises OSError when the process is gone, TimeoutError (which is one) when it takes too long."""
        began = time.monotonic()
        self._pipe.send_bytes(pickle.dumps((function, job), pickle.HIGHEST_PROTOCOL))
        try:
            if not self._pipe.poll(max(0.0, seconds - (time.monotonic() - began))):
                raise TimeoutError
            return self._pipe.recv_bytes()
        except EOFError as error:
            raise BrokenPipeError from error

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> str:
        """End it in any case; says how it ended."""
        if not self._ended:
            self._process.join(0.2)  # its own end first: a broken pipe is seen before the exit
            self._process.kill()
            self._process.join()
            code = self._process.exitcode or 0
            self._ended = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            self._process.close()
            self._pipe.close()
        return self._ended


def _work(pipe: Any, memory: int | None) -> None:
    """The life of a process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and libjpeg tell the terminal what they think of a file
    if memory is not None:
        limit_this_process(memory)
    pipe.send_bytes(b"ready")
    while True:
        try:
            function, job = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        pipe.send_bytes(_answer(function, job))


def _answer(function: Callable[[Any], Any], job: Any) -> bytes:
    return attempt(lambda: function(job))
