"""Watch folders: new and changed pictures, each once it has stopped growing. By looking again and again, which works on
every disk, network shares and containers included."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from efuda.images.archives import ARCHIVES, members
from efuda.images.finding import SUFFIXES, VIDEOS, Skipped, files_beneath

__all__ = ["watch"]

_IDLE: Final = 4  # after a look that took long, so many times as long a pause: a fifth of a core at most
_State = tuple[int, int]  # size, time of change


def watch(
    paths: Iterable[Path],
    *,
    every: float = 2.0,
    settled: float = 2.0,
    recursive: bool = True,
    videos: bool = False,
    stop: threading.Event | None = None,
    skipped: Skipped | None = None,
) -> Iterator[Path]:
    """The pictures that are at or beneath `paths`, then new and changed ones for ever.

    Args:
        every: seconds between two looks; longer where one look takes long.
        settled: a file is yielded when its size and time were the same for so many seconds.
        stop: set it to end; closing the iterator does so too.
        skipped: told of what cannot be read, once for each place.
    """
    stop = stop or threading.Event()
    wanted = (SUFFIXES | VIDEOS if videos else SUFFIXES) | ARCHIVES
    roots = [str(path) for path in paths]
    told: set[tuple[Path, str]] = set()
    known: dict[str, _State] = {}
    coming: dict[str, tuple[_State, float]] = {}

    def tell(path: Path, reason: str) -> None:
        if skipped is not None and (path, reason) not in told:
            told.add((path, reason))
            skipped(path, reason)

    while not stop.is_set():
        began = time.monotonic()
        present = dict(_look(roots, recursive, wanted, tell))
        for name, state in present.items():
            if known.get(name) == state:
                continue
            before, since = coming.get(name, (None, 0.0))
            if before != state:
                coming[name] = (state, began)
            elif began - since >= settled:
                del coming[name]
                known[name] = state
                yield from _expanded(Path(name), wanted, tell)
                if stop.is_set():
                    return
        known = {name: state for name, state in known.items() if name in present}
        coming = {name: waiting for name, waiting in coming.items() if name in present}
        stop.wait(max(every, _IDLE * (time.monotonic() - began)))


def _look(roots: list[str], recursive: bool, wanted: frozenset[str], tell: Skipped) -> Iterator[tuple[str, _State]]:
    for root in roots:
        if not Path(root).is_dir():
            yield from _state(root)
            continue
        for entry in files_beneath(root, recursive, tell):
            if os.path.splitext(entry.name)[1].lower() in wanted:  # noqa: PTH122 - a million of them
                yield from _state(entry.path)


def _state(name: str) -> Iterator[tuple[str, _State]]:
    """Nothing where it is gone, or no plain file."""
    try:
        stat = Path(name).stat()
    except (OSError, ValueError):
        return
    if stat.st_mode & 0o170000 == 0o100000:
        yield name, (stat.st_size, stat.st_mtime_ns)


def _expanded(path: Path, wanted: frozenset[str], tell: Skipped) -> Iterator[Path]:
    if path.suffix.lower() in ARCHIVES:
        yield from members(path, wanted - ARCHIVES, tell)
    else:
        yield path
