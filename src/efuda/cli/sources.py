"""Which pictures a command works on: files, folders, archives, URLs, lists on standard input, and folders watched."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from efuda.cli.console import output
from efuda.errors import InputError, UsageError

if TYPE_CHECKING:
    from efuda.images.finding import Skipped

__all__ = ["find", "names", "watched"]

_QUIET = 0.3  # seconds without a new picture, after which those that came are tagged


def find(paths: Sequence[str], *, recursive: bool, videos: bool, skipped: Skipped) -> Iterator[Path]:
    """Pictures in a stable order; see `names`."""
    found = names(paths, recursive=recursive, videos=videos, skipped=skipped)
    return (Path(one) if isinstance(one, str) else one for one in found)


def names(paths: Sequence[str], *, recursive: bool, videos: bool, skipped: Skipped) -> Iterator[str | Path]:
    """Pictures in a stable order: names of this machine's, paths of others.

    Args:
        paths: files, folders, archives, URLs; `-` for a list of paths on standard input.
        skipped: told of what is listed but missing, and of what cannot be looked into.

    Raises:
        InputError: a path that is named outright does not exist.
    """
    from efuda.images import find_names, paths_from
    from efuda.places import is_remote

    for path in paths:
        if path == "-":
            listed = paths_from(sys.stdin.buffer)
            yield from find_names(listed, recursive=recursive, videos=videos, strict=False, skipped=skipped)
        elif is_remote(path):
            yield from _remote(path, recursive, videos)
    here = [Path(path) for path in paths if path != "-" and not is_remote(path)]
    if here:
        yield from find_names(here, recursive=recursive, videos=videos, skipped=skipped)


def watched(paths: Sequence[str], *, recursive: bool, videos: bool) -> Iterator[Path | None]:
    """Pictures that are there, then new and changed ones, until closed; None where no other has come for a moment."""
    from efuda.images import watch
    from efuda.places import is_remote

    if odd := [path for path in paths if path == "-" or is_remote(path)]:
        raise UsageError(f"--watch goes with folders of this machine, not with {odd[0]}.")
    if gone := [path for path in paths if not Path(path).exists()]:
        raise InputError(f"{gone[0]} does not exist. Name pictures or folders of pictures.")
    found: queue.SimpleQueue[Path] = queue.SimpleQueue()
    stop = threading.Event()

    def look() -> None:
        here = [Path(path) for path in paths]
        for path in watch(here, recursive=recursive, videos=videos, stop=stop, skipped=_said):
            found.put(path)

    threading.Thread(target=look, daemon=True).start()
    try:
        yield from _until_quiet(found)
    finally:
        stop.set()


def _until_quiet(found: queue.SimpleQueue[Path]) -> Iterator[Path | None]:
    quiet = True
    while True:
        try:
            yield found.get(timeout=_QUIET)
            quiet = False
        except queue.Empty:
            if not quiet:
                yield None
            quiet = True


def _remote(place: str, recursive: bool, videos: bool) -> Iterator[Path]:
    from efuda.images import SUFFIXES, VIDEOS
    from efuda.places import RemotePath, exists, join, walk

    wanted = SUFFIXES | VIDEOS if videos else SUFFIXES
    if not exists(place):
        raise InputError(f"{place} does not exist, or may not be read.")
    anything = False
    for name, _ in walk(place):
        anything = True
        if Path(name).suffix.lower() in wanted and (recursive or "/" not in name):
            yield cast(Path, RemotePath(join(place, name)))
    if not anything:
        yield cast(Path, RemotePath(place))


def _said(path: Path, reason: str) -> None:
    output.say(f"left out {path}: {reason}")
