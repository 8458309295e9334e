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
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from efuda.errors import InputError, MissingExtra, OutputError
from efuda.workers import ATTEMPTS, few_ahead, name_of, outcome

__all__ = ["RayWorkers"]

T = TypeVar("T")
R = TypeVar("R")
_PATIENCE: Final = 5.0  # seconds for a head to answer; also between looks at how many nodes there are
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS: Final = 4


class RayWorkers:
    """A cluster as `workers.Workers`."""

    local = False

    def __init__(self, address: str | None = None) -> None:
        """Connect.

        Args:
            address: `host:port` of the head, `ray://host:port`, or `auto` or None for the cluster of this machine.

        Raises:
            MissingExtra: Ray is not installed.
            InputError: there is no cluster.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtra("Working on a cluster", "ray", "ray") from error
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        try:
            _knock(address or "auto")
            if self._ours:
                ray.init(
                    address=address or "auto",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            reason = _first_line(error).rstrip(".")
            raise InputError(
                f"There is no Ray cluster at {address or 'auto'} ({reason}). Start one with: ray start --head"
            ) from error
        self._remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)(_by_value())
        self._counted = (-_PATIENCE, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            self._ray.shutdown()

    @property
    def count(self) -> int:
        """Processors of the cluster, which may grow and shrink."""
        now = time.monotonic()
        if now - self._counted[0] >= _PATIENCE:
            self._counted = now, max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return self._counted[1]

    def map(self, function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
        """See `Workers.map`."""
        dumps = self._ray.cloudpickle.dumps
        own = version("efuda")
        carried: Any = None

        def begin(job: T) -> Any:
            nonlocal carried
            if carried is None:
                carried = self._ray.put(dumps(function))
            return self._remote.remote(own, carried, dumps(job))

        with contextlib.closing(few_ahead(jobs, begin, lambda: 2 * self.count, self._cancel)) as begun:
            for job, reference in begun:
                yield self._result(own, job, reference)

    def _cancel(self, reference: Any) -> None:
        with contextlib.suppress(Exception):
            self._ray.cancel(reference)

    def _result(self, own: str, job: Any, reference: Any) -> Any:
        try:
            have, node, packed = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise OutputError(
                f"The cluster gave up on {name_of(job)}, whose worker died {ATTEMPTS} times ({_first_line(error)}). "
                "See that its nodes are up and have memory, and run the same command again: it goes on where it was."
            ) from error
        if have != own:
            raise InputError(
                f"The node {node} of the cluster has {f'efuda {have}' if have else 'no efuda'}, this machine {own}. "
                f'Install the same on all: pip install "efuda[ray]=={own}"'
            )
        return outcome(packed)


def _by_value() -> Callable[[str, bytes, bytes], tuple[str | None, str, bytes]]:
    """What runs on a node; being local, it is sent as code, and can say that the node lacks efuda or has another."""

    def run(wanted: str, function: bytes, job: bytes) -> tuple[str | None, str, bytes]:
        import pickle
        import socket
        from importlib.metadata import PackageNotFoundError, version

        try:
            have = version("efuda")
        except PackageNotFoundError:
            return None, socket.gethostname(), b""
        if have != wanted:
            return have, socket.gethostname(), b""
        from efuda.workers import attempt

        return have, "", attempt(lambda: pickle.loads(function)(pickle.loads(job)))

    return run


def _knock(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody is there; raises OSError.

    A head speaks gRPC, that is HTTP/2, which answers the hello with its settings.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as line:
        line.sendall(_HELLO)
        answer = line.recv(9)
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise ConnectionError("something else answers there")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
