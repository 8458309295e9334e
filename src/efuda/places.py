"""Places: paths of this machine and URLs that fsspec knows (`s3://…`, `gs://…`, `hf://…`), behind one face.

A place is a string. What is on this machine is read by the operating system alone; fsspec is imported for the rest.
A chain such as `zip://folder::s3://bucket/file.zip` is a place too.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat as modes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, cast

from efuda.errors import EfudaError, InputError, MissingExtra

__all__ = [
    "RemotePath",
    "Stat",
    "exists",
    "expand",
    "is_folder",
    "is_remote",
    "join",
    "open_binary",
    "read_bytes",
    "stat",
    "walk",
]

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ONE_SLASH: Final = re.compile(r"((?:^|::)[a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)
_FILE: Final = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
# What the stores call their mark of a version, the surest first.
_STAMPS: Final = ("ETag", "etag", "blob_id", "sha", "CRC", "mtime", "LastModified", "last_modified", "created")

Unreadable = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Stat:
    """`stamp` changes when the file does: its time of modification in nanoseconds, or what a remote store says."""

    size: int
    stamp: str


def is_remote(place: str) -> bool:
    """Whether it is a URL of another file system."""
    return bool(_URL.match(place)) and not _FILE.match(place)


def join(place: str, relative: str) -> str:
    """`relative` within `place`; one that is whole already is returned as it is."""
    if is_remote(relative) or os.path.isabs(relative):
        return relative
    if not is_remote(place):
        return os.path.join(_local(place), relative)
    inner, chained, outer = place.partition("::")
    return f"{inner if inner.endswith('/') else f'{inner}/'}{relative}{chained}{outer}"


def read_bytes(place: str) -> bytes:
    """The whole file; raises OSError as `open` does, whatever a remote store raised."""
    with _reaching(place), open_binary(place) as file:
        return file.read()


def open_binary(place: str) -> BinaryIO:
    """Open for reading; raises OSError as `open` does."""
    if not is_remote(place):
        return open(_local(place), "rb")
    with _reaching(place):
        system, path = _remote(place)
        file = system.open(path, "rb")
        with suppress(AttributeError):
            file.kept = system  # an archive is closed when nothing refers to it
        return cast(BinaryIO, file)


def stat(place: str) -> Stat:
    """Raises OSError where there is no such file."""
    if not is_remote(place):
        found = os.stat(_local(place))
        return Stat(found.st_size, str(found.st_mtime_ns))
    with _reaching(place):
        system, path = _remote(place)
        return _told(system.info(path))


def is_folder(place: str) -> bool:
    """Whether files can lie beneath it; raises InputError where a remote store cannot be asked."""
    if not is_remote(place):
        return os.path.isdir(_local(place))
    with _asking(place):
        system, path = _remote(place)
        return bool(system.isdir(path))


def exists(place: str) -> bool:
    """Whether there is a file or folder; raises InputError where a remote store cannot be asked."""
    if not is_remote(place):
        return os.path.exists(_local(place))
    with _asking(place):
        system, path = _remote(place)
        return bool(system.exists(path))


def expand(place: str) -> list[str]:
    """What a pattern stands for, sorted; a place without one is itself.

    `*`, `?` and `[…]` are within a name, `**` finds files at any depth; as in a shell, they pass over hidden names.
    """
    if not glob.has_magic(place) or exists(place):
        return [place]
    if not is_remote(place):
        path = _local(place)
        return _deep(path) if "**" in path.split("/") else sorted(glob.glob(path))
    with _asking(place):
        system, path = _remote(place)
        _, chained, outer = place.partition("::")
        return sorted(f"{system.unstrip_protocol(found)}{chained}{outer}" for found in system.glob(path))


def walk(place: str, *, unreadable: Unreadable | None = None) -> Iterator[tuple[str, Stat]]:
    """Every file beneath, as its relative path with `/`, sorted by it: the same order on every kind of store.

    Links to folders are not followed, so a loop of links cannot trap the walk. A folder that cannot be read, what is no
    ordinary file, and a name that is not UTF-8 are told to `unreadable` (path, reason) and left out.

    Raises:
        InputError: a remote store cannot be asked.
    """
    told = unreadable or (lambda path, reason: None)
    return _walk_remote(place) if is_remote(place) else _walk_local(_local(place), told)


def _walk_remote(place: str) -> Iterator[tuple[str, Stat]]:
    with _asking(place):
        system, path = _remote(place)
        system.invalidate_cache()  # as it is now, not when this process looked last
        found = system.find(path, detail=True)
    inside = {name.removeprefix(path.rstrip("/")).lstrip("/"): info for name, info in found.items()}
    for name in sorted(inside):
        if name and not name.endswith("/"):  # itself, where it is a file; a mark that some tools leave for a folder
            yield name, _told(inside[name])


def _walk_local(top: str, unreadable: Unreadable) -> Iterator[tuple[str, Stat]]:
    """With a stack of its own: folders may lie deeper than calls."""
    stack = [_listed(top, "", unreadable)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        name, path = entry
        if name.endswith("/"):
            stack.append(_listed(path, name, unreadable))
            continue
        try:
            found = os.stat(path)
        except OSError as error:
            unreadable(path, error.strerror or str(error))
            continue
        if modes.S_ISREG(found.st_mode):
            yield name, Stat(found.st_size, str(found.st_mtime_ns))
        elif not modes.S_ISDIR(found.st_mode):
            unreadable(path, "not an ordinary file")


def _listed(folder: str, inside: str, unreadable: Unreadable) -> Iterator[tuple[str, str]]:
    """The entries of a folder, as (relative name, path); a folder's name ends in `/`, by which it is also sorted."""
    names = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if not _is_text(entry.name):
                    unreadable(os.fsencode(entry.path).decode(errors="replace"), "its name is not UTF-8")
                else:
                    names.append(entry.name + "/" * entry.is_dir(follow_symlinks=False))
    except OSError as error:
        unreadable(folder, error.strerror or str(error))
    names.sort()
    return ((f"{inside}{name}", os.path.join(folder, name.rstrip("/"))) for name in names)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # how Python carries bytes that are not UTF-8
        return False
    return True


def _deep(pattern: str) -> list[str]:
    """The files that a pattern with `**` stands for; `glob` would follow a loop of links round and round."""
    parts = pattern.split("/")
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    top = "/".join(parts[:first]) or ("/" if first else "")
    return [os.path.join(top, name) for name, _ in walk(top) if _fits(name.split("/"), parts[first:])]


def _fits(names: list[str], parts: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] != "**":
        return bool(names) and _fits_one(names[0], parts[0]) and _fits(names[1:], parts[1:])
    visible = next((at for at, name in enumerate(names) if name.startswith(".")), len(names))
    if not parts[1:]:
        return bool(names) and visible == len(names)
    return any(_fits(names[at:], parts[1:]) for at in range(visible + 1))


def _fits_one(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))


def _local(place: str) -> str:
    return _FILE.sub("", place, count=1) if place[:5].lower() == "file:" else place


def _remote(place: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Reading {place}", "ray", "fsspec") from error
    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise InputError(f"{place} cannot be opened: {error}. Check the address.") from error
    return system, str(path)


@contextmanager
def _reaching(place: str) -> Iterator[None]:
    """Stores raise what they like when credentials lack or the network does; here it is an OSError."""
    try:
        yield
    except (OSError, EfudaError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, _first_line(error), place) from error


@contextmanager
def _asking(place: str) -> Iterator[None]:
    """A store that does not answer must not look like one that holds nothing."""
    try:
        with _reaching(place):
            yield
    except OSError as error:
        reason = (error.strerror or _first_line(error)).rstrip(".")
        raise InputError(f"{place} cannot be reached: {reason}. Check the address and your credentials.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _told(info: Any) -> Stat:
    stamp = next((info[key] for key in _STAMPS if info.get(key)), "")
    moment = stamp.timestamp() if isinstance(stamp, datetime) else stamp  # some say it now in one way, now in the other
    return Stat(int(info.get("size") or 0), str(moment))


class RemotePath(PurePosixPath):
    """A URL where a path is expected: `str` gives the URL back, which a path would write with one slash."""

    __slots__ = ()

    def __str__(self) -> str:
        return _ONE_SLASH.sub(r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(self)
