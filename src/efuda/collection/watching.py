"""Watching the folders of a collection: what happens in them is noted as it happens.

    for done in watch(record):                  # a Scanned for every time that something was noted
        print(done.added, done.moved, done.missing)

Where `watchfiles` is installed the system tells of changes at once; else the folders are looked at again and again. A
share of the network tells nothing, and a queue of changes can overflow, so now and then all of it is looked through.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import queue
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from efuda.collection.record import Record
from efuda.collection.scanning import Scanned, folders_of, remember_folders, scan, scan_files
from efuda.images import SUFFIXES
from efuda.images import watch as look_again_and_again
from efuda.progress import Progress, silent

__all__ = ["watch"]

_STEP_MS: Final = 500
_AT_ONCE: Final = 2_000
State = tuple[int, int] | None  # size and time; None of what is gone


def watch(
    record: Record,
    folders: Sequence[Path] = (),
    *,
    every: float = 600.0,
    settled: float = 2.0,
    events: bool | None = None,
    stop: threading.Event | None = None,
    progress: Progress = silent,
) -> Generator[Scanned, None, None]:
    """Look through the folders, and then go on for ever.

    Args:
        folders: as of `scan`.
        every: seconds from one look through everything to the next.
        settled: a file is read when its size and time have been the same for so many seconds.
        events: whether the system is asked to tell; by default where `watchfiles` is installed.
        stop: set it to end; closing the iterator does so too.
        progress: told of the looks through everything.

    Raises:
        CollectionError: as `scan`, at first.
    """
    stop = stop or threading.Event()
    ask = importlib.util.find_spec("watchfiles") is not None if events is None else events
    remember_folders(record, [folder for folder in folders if folder.is_dir()])
    roots = [str(folder) for folder in folders or [one.path for one in folders_of(record)] if folder.is_dir()]
    changes = _told(roots, settled, stop) if ask and roots else _seen(roots, settled, stop)
    with closing(changes):
        next(changes, None)  # from now on it listens: what happens during the first look is not missed
        yield scan(record, folders, progress=progress)
        last = time.monotonic()
        for paths in changes:
            if paths and _noteworthy(done := scan_files(record, paths)):
                yield done
            if stop.is_set():
                return
            if time.monotonic() - last > every:
                if _noteworthy(done := scan(record, folders, progress=progress)):
                    yield done
                last = time.monotonic()


def _noteworthy(done: Scanned) -> bool:
    return bool(done.files > done.unchanged or done.missing or done.failed or done.withheld)


def _told(roots: Sequence[str], settled: float, stop: threading.Event) -> Generator[list[Path], None, None]:
    """Changed and vanished pictures, as the system tells of them, once they have settled; often none."""
    watchfiles: Any = importlib.import_module("watchfiles")
    coming: dict[str, tuple[State, float]] = {}
    told = watchfiles.watch(
        *roots,
        watch_filter=lambda change, path: _is_picture(path),
        debounce=_STEP_MS,
        step=50,
        rust_timeout=_STEP_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=True,
    )
    for changes in told:
        now = time.monotonic()
        for _, path in changes:
            coming[path] = (_state(path), now)
        ready = []
        for path, (before, since) in [*coming.items()]:
            state = _state(path)
            if state != before:
                coming[path] = (state, now)
            elif now - since >= settled:
                del coming[path]
                ready.append(Path(path))
        yield ready


def _seen(roots: Sequence[str], settled: float, stop: threading.Event) -> Generator[list[Path], None, None]:
    """The same by looking; what vanishes is left to the look through everything."""
    found: queue.SimpleQueue[Path] = queue.SimpleQueue()
    leave = threading.Event()

    def look() -> None:
        for path in look_again_and_again(map(Path, roots), settled=settled, every=min(2.0, settled), stop=leave):
            found.put(path)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            yield _waiting(found)
    finally:
        leave.set()
        thread.join()


def _waiting(found: queue.SimpleQueue[Path]) -> list[Path]:
    paths: list[Path] = []
    try:
        paths.append(found.get(timeout=_STEP_MS / 1000))
        while len(paths) < _AT_ONCE:
            paths.append(found.get_nowait())
    except queue.Empty:
        pass
    return [path for path in paths if _is_picture(str(path))]


def _is_picture(path: str) -> bool:
    name = os.path.split(path)[1]
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def _state(path: str) -> State:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
