"""Hands for pure functions: processes of this machine, or none; `cluster` gives the same face to many machines.

with LocalWorkers() as workers:
    for result in workers.map(function, jobs):      # in the order of the jobs, few of them ahead
        ...
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from efuda.errors import OutputError

__all__ = ["ATTEMPTS", "InProcess", "LocalWorkers", "Workers"]

ATTEMPTS: Final = 3
T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    """Something that applies a function to jobs."""

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """The results, in the order of the jobs, which are taken lazily, only some ahead.

        The function is pure: a job whose worker dies is done again elsewhere, up to `ATTEMPTS` times.

        Raises:
            OutputError: a job's worker died each time.
        """
        ...


class InProcess:
    """No other process: for one worker."""

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """One after the other."""
        return map(function, jobs)


class LocalWorkers:
    """Processes of this machine, one a core by default, started when there is the first job."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """See `Workers.map`."""
        coming = iter(jobs)
        flying: deque[tuple[T, int, Future[R]]] = deque()
        try:
            while True:
                while len(flying) < 2 * self.count:
                    try:
                        job = next(coming)
                    except StopIteration:
                        break
                    flying.append((job, 1, self._submit(function, job)))
                if not flying:
                    return
                job, attempt, future = flying.popleft()
                try:
                    result = future.result()
                except BrokenProcessPool:
                    flying = self._again(function, [(job, attempt), *((one, tries) for one, tries, _ in flying)])
                    continue
                yield result
        except BaseException:
            self._close()
            raise

    def _again(self, function: Callable[[T], R], jobs: list[tuple[T, int]]) -> deque[tuple[T, int, Future[R]]]:
        """After a worker died: the first job is the one that was waited for, and one of those at work."""
        job, attempt = jobs[0]
        if attempt >= ATTEMPTS:
            raise OutputError(
                f"A worker process died {ATTEMPTS} times at {_name(job)}: it was killed, or ran out of memory. "
                "Try fewer --workers, and see whether that file is sound."
            )
        self._close()
        again = [(job, attempt + 1), *jobs[1:]]
        return deque((one, tries, self._submit(function, one)) for one, tries in again)

    def _submit(self, function: Callable[[T], R], job: T) -> Future[R]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin)
        try:
            return self._pool.submit(function, job)
        except BrokenProcessPool:
            self._close()
            return self._submit(function, job)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin() -> None:
    """Ctrl-C reaches every process of the terminal: a worker finishes its job, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would otherwise wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _name(job: Any) -> str:
    return str(getattr(job, "name", None) or getattr(job, "file", None) or repr(job)[:200])
