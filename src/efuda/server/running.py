"""Run the server until it is told to stop; then what runs is finished, jobs stop at a batch, and nothing new begins.

serve(Settings(), collection=Path("art.efuda"), model="model", ready=print)
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from efuda.collection import Collection
from efuda.errors import OutputError, UsageError
from efuda.server.app import create_app
from efuda.server.security import Guard
from efuda.server.settings import Settings
from efuda.tagging import Tagger

__all__ = ["serve"]


def serve(
    settings: Settings,
    *,
    collection: Path | None = None,
    model: str | Path | None = None,
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve a collection, a tagger, or both; returns after SIGTERM or Ctrl-C.

    Args:
        ready: told the address, once it can be asked.

    Raises:
        UsageError: there is neither a collection nor a model.
        OutputError: the address or the port cannot be used.
        CollectionError, ArtifactError: as for opening them.
    """
    if collection is None and model is None:
        raise UsageError("Name a collection, a --model, or both.")
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listening(settings.host, settings.port))
        settings = replace(settings, port=listening.getsockname()[1])
        opened = stack.enter_context(Collection.open(collection)) if collection is not None else None
        tagger = Tagger.open(model, threads=1) if model is not None else None
        if tagger is not None:
            tagger.identity  # noqa: B018  # read now: the first to ask should not wait for a hash of the weights
        app = create_app(settings, collection=opened, tagger=tagger)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            proxy_headers=bool(settings.names),
            timeout_graceful_shutdown=int(settings.limits.stop_seconds) + 1,
        )
        server = _Server(config, app, lambda: ready(_address(settings)))
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready, refuses from the first signal on, and then just ends."""

    def __init__(self, config: uvicorn.Config, guard: Guard, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._guard, self._ready = guard, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals are answered by stopping; uvicorn's own would raise them again at the end."""
        before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not in the main thread: somebody else hears signals
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._guard.life.stopping = True
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
    except OSError as error:
        raise OutputError(f"{host} is no address to listen at ({error.strerror}). Name one of this machine.") from error
    with listening:
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
            listening.setblocking(False)
        except OSError as error:
            raise OutputError(_why_not(host, port, error)) from error
        yield listening


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use, perhaps by another efuda serve. Choose another: --port {port + 1}."
    if error.errno == errno.EACCES:
        return f"Port {port} needs rights that efuda should not have. Choose one above 1023: --port 8420."
    return f"{host} port {port} cannot be listened at ({error.strerror}). Name an address of this machine with --host."


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/"
