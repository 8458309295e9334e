"""The same work on many machines, by Ray: `ray start --head` on one, `ray start --address …` on the others.

with RayWorkers("auto") as workers:
    prepare(metadata, images, out, recipe, workers=workers)

Jobs are pure functions: what a node that died had in hand is done again on another. The parent writes every file, so
the nodes need no common disk for the result; they read pictures and plain metadata from paths or URLs that all can see.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self, TypeVar

from efuda.errors import EfudaError, InputError, MissingExtra, OutputError
from efuda.workers import ATTEMPTS

__all__ = ["RayWorkers"]

T = TypeVar("T")
R = TypeVar("R")


class RayWorkers:
    """A cluster as `workers.Workers`."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: `host:port` of the head, `ray://host:port`, or `auto` for the cluster of this machine.

        Raises:
            MissingExtra: Ray is not installed.
            InputError: there is no cluster.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtra("Working on a cluster", "ray", "ray") from error
        self._ray: Any = ray
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"There is no Ray cluster at {address} ({_first_line(error)}). Start one with: ray start --head"
            ) from error
        self._remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS, retry_exceptions=False)(_run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    @property
    def count(self) -> int:
        """Processors of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """See `Workers.map`."""
        coming = iter(jobs)
        flying: deque[tuple[T, Any]] = deque()
        carried = self._ray.put(function)
        try:
            while True:
                while len(flying) < 2 * self.count:
                    try:
                        job = next(coming)
                    except StopIteration:
                        break
                    flying.append((job, self._remote.remote(version("efuda"), carried, job)))
                if not flying:
                    return
                job, reference = flying.popleft()
                yield self._result(job, reference)
        finally:
            for _, reference in flying:
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference)

    def _result(self, job: Any, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, EfudaError) else error from error
        except self._ray.exceptions.RayError as error:
            what = getattr(job, "name", None) or getattr(job, "file", None) or repr(job)[:200]
            raise OutputError(
                f"The cluster gave up on {what} after {ATTEMPTS} attempts ({_first_line(error)}). See that its nodes "
                "are up, and run the same command again: it goes on where it was."
            ) from error


def _knock(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody is there; raises OSError."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=5):
            pass


def _run(wanted: str, function: Callable[[Any], Any], job: Any) -> Any:
    """Runs on a node."""
    if (have := version("efuda")) != wanted:
        raise InputError(f"A node of the cluster has efuda {have}, this machine {wanted}: install the same on all.")
    return function(job)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
