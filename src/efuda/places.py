"""Places: paths of this machine and URLs that fsspec knows (`s3://…`, `gs://…`, `hf://…`), behind one face.

A place is a string. What is on this machine is read by the operating system alone; fsspec is imported for the rest.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from efuda.errors import InputError, MissingExtra

__all__ = ["Stat", "exists", "expand", "is_folder", "is_remote", "join", "open_binary", "read_bytes", "stat", "walk"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE: Final = "file://"


@dataclass(frozen=True, slots=True)
class Stat:
    """`stamp` changes when the file does: its time of modification in nanoseconds, or what a remote store says."""

    size: int
    stamp: str


def is_remote(place: str) -> bool:
    """Whether it is a URL of another file system."""
    return bool(_URL.match(place)) and not place.startswith(_FILE)


def join(place: str, relative: str) -> str:
    """`relative` within `place`; one that is whole already is returned as it is."""
    if is_remote(relative) or os.path.isabs(relative):
        return relative
    return f"{place.rstrip('/')}/{relative}" if is_remote(place) else os.path.join(_local(place), relative)


def read_bytes(place: str) -> bytes:
    """The whole file; raises OSError as `open` does."""
    with open_binary(place) as file:
        return file.read()


def open_binary(place: str) -> BinaryIO:
    """Open for reading; raises OSError as `open` does."""
    if not is_remote(place):
        return open(_local(place), "rb")
    system, path = _remote(place)
    return cast(BinaryIO, system.open(path, "rb"))


def stat(place: str) -> Stat:
    """Raises OSError where there is no such file."""
    if not is_remote(place):
        found = os.stat(_local(place))
        return Stat(found.st_size, str(found.st_mtime_ns))
    system, path = _remote(place)
    return _told(system.info(path))


def is_folder(place: str) -> bool:
    """Whether files can lie beneath it."""
    if not is_remote(place):
        return os.path.isdir(_local(place))
    system, path = _remote(place)
    return bool(system.isdir(path))


def exists(place: str) -> bool:
    """Whether there is a file or folder."""
    if not is_remote(place):
        return os.path.exists(_local(place))
    system, path = _remote(place)
    return bool(system.exists(path))


def expand(place: str) -> list[str]:
    """The files that a pattern (`*`, `?`, `[…]`) stands for, sorted; a place without one is itself."""
    if not glob.has_magic(place) or exists(place):
        return [place]
    if not is_remote(place):
        return sorted(glob.glob(_local(place), recursive=True))
    system, path = _remote(place)
    return sorted(str(system.unstrip_protocol(found)) for found in system.glob(path))


def walk(place: str, *, unreadable: Callable[[str, str], None] | None = None) -> Iterator[tuple[str, Stat]]:
    """Every file beneath, as its relative path with `/`, in a stable order.

    Links to folders are not followed, so a loop of links cannot trap the walk; a folder that cannot be read is told to
    `unreadable` (path, reason) and left out.
    """
    if is_remote(place):
        system, path = _remote(place)
        found = system.find(path, detail=True)
        for name in sorted(found):
            yield name[len(path.rstrip("/")) + 1 :], _told(found[name])
        return
    top = _local(place)

    def tell(error: OSError) -> None:
        if unreadable:
            unreadable(str(error.filename), error.strerror or str(error))

    for folder, folders, files in os.walk(top, onerror=tell):
        folders.sort()
        inside = os.path.relpath(folder, top).replace(os.sep, "/")
        for name in sorted(files):
            try:
                told = os.stat(os.path.join(folder, name))
            except OSError as error:
                tell(error)
                continue
            yield (name if inside == "." else f"{inside}/{name}"), Stat(told.st_size, str(told.st_mtime_ns))


def _local(place: str) -> str:
    return place.removeprefix(_FILE)


def _remote(place: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Reading {place}", "ray", "fsspec") from error
    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise InputError(f"{place} cannot be opened: {error}.") from error
    return system, str(path)


def _told(info: Any) -> Stat:
    stamp = next((info[key] for key in ("ETag", "etag", "mtime", "LastModified", "created") if info.get(key)), "")
    return Stat(int(info.get("size") or 0), str(stamp))
