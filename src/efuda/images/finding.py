"""Find pictures: files named like one at or beneath folders, in archives, and in lists on standard input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final

from efuda.errors import InputError
from efuda.images.archives import ARCHIVES, archive_of, members

__all__ = ["SUFFIXES", "VIDEOS", "Skipped", "files_beneath", "find_names", "find_pictures", "paths_from"]

SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .tif .tiff .avif .heic .heif .jxl".split()  # noqa: SIM905
)
VIDEOS: Final = frozenset(".mp4 .m4v .mov .webm .mkv .avi .ogv .flv .mpg .mpeg .wmv".split())  # noqa: SIM905
_CHUNK: Final = 1 << 16

Skipped = Callable[[Path, str], None]  # told of what is left out that a person might miss, and why


def find_pictures(
    paths: Iterable[Path],
    *,
    recursive: bool = True,
    archives: bool = True,
    videos: bool = False,
    strict: bool = True,
    skipped: Skipped | None = None,
) -> Iterator[Path]:
    """Every file named like a picture at or beneath `paths`, in a stable order, each once.

    A file named outright is yielded whatever its suffix: the person meant it. An archive's members follow one another
    in the order of their page numbers, as `archive/member`. Links to folders are not followed, so a loop of links
    cannot trap the walk, and hidden files and folders are left out.

    Args:
        recursive: look into the folders of a folder.
        archives: look into zip and cbz files.
        videos: yield videos too.
        strict: a path that does not exist is an error, not something skipped.
        skipped: told of folders, files and members that cannot be read, which never stop the walk.

    Raises:
        InputError: a path does not exist.
    """
    return map(
        Path,
        find_names(paths, recursive=recursive, archives=archives, videos=videos, strict=strict, skipped=skipped),
    )


def find_names(
    paths: Iterable[Path],
    *,
    recursive: bool = True,
    archives: bool = True,
    videos: bool = False,
    strict: bool = True,
    skipped: Skipped | None = None,
) -> Iterator[str]:
    """The same as texts: to make a million of `Path` takes longer than to find them."""
    tell = skipped or _nobody
    wanted = SUFFIXES | VIDEOS if videos else SUFFIXES
    given = list(paths) if isinstance(paths, (list, tuple)) else paths
    seen: set[str] | None = None if isinstance(given, list) and len(given) == 1 else set()
    for path in given:
        for found in _at(path, recursive, wanted | ARCHIVES if archives else wanted, strict, tell):
            if seen is not None:
                if found in seen:
                    continue
                seen.add(found)
            if archives and _suffix(found) in ARCHIVES:
                yield from map(str, members(Path(found), wanted, tell))
            else:
                yield found


def paths_from(stream: BinaryIO, *, separator: bytes | None = None) -> Iterator[Path]:
    """The paths of a list, as they arrive: one a line, or a NUL after each (`find -print0`), which any name survives.

    Args:
        stream: such as `sys.stdin.buffer`.
        separator: b"\\n" or b"\\0"; by default NUL if there is one in what arrives first.
    """
    rest = b""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while chunk := read(_CHUNK):
        rest += chunk
        if separator is None and (b"\0" in rest or b"\n" in rest):
            separator = b"\0" if b"\0" in rest else b"\n"
        if separator is not None:
            *whole, rest = rest.split(separator)
            yield from _paths(whole, separator)
    yield from _paths([rest], separator)


def files_beneath(folder: str, recursive: bool, tell: Skipped) -> Iterator[os.DirEntry[str]]:
    """Files of a folder in the order of their names, then those of its folders; hidden ones are left out."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=attrgetter("name"))
        except OSError as error:
            tell(Path(here), _why(error))
            continue
        folders = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                yield entry
        if recursive:
            waiting.extend(reversed(folders))


def _at(path: Path, recursive: bool, wanted: frozenset[str], strict: bool, tell: Skipped) -> Iterator[str]:
    try:
        is_folder = path.is_dir()
        is_there = is_folder or os.path.lexists(path)
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        is_folder = is_there = False
    if is_folder:
        for entry in files_beneath(str(path), recursive, tell):
            if _suffix(entry.name) in wanted:
                if _is_readable(entry):
                    yield entry.path.removeprefix("./")
                else:
                    tell(Path(entry.path), "not a file")
    elif is_there and not path.exists():
        tell(path, "a link that leads nowhere")
    elif is_there and not path.is_file():
        tell(path, "not a file")
    elif is_there or archive_of(path) is not None:
        yield str(path)
    elif strict:
        raise InputError(f"{path} does not exist. Name pictures or folders of pictures.")
    else:
        tell(path, "missing")


def _suffix(name: str) -> str:
    """With its dot; of a name that begins with one, and is hidden, all of it."""
    return name[name.rfind(".") :].lower()


def _is_readable(entry: os.DirEntry[str]) -> bool:
    """Pipes and devices, at which a reader could wait for ever, are not; a link to nowhere gets its reason later."""
    try:
        return entry.is_file() or (entry.is_symlink() and not entry.is_dir() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:
        return True  # whoever reads it will say what is the matter


def _paths(names: Iterable[bytes], separator: bytes | None) -> Iterator[Path]:
    for name in names:
        kept = name if separator == b"\0" else name.removesuffix(b"\n").removesuffix(b"\r")
        if kept:
            yield Path(os.fsdecode(kept))


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "vanished"
    return (os.strerror(error.errno) if error.errno else "cannot be read").lower()


def _nobody(path: Path, reason: str) -> None:
    """For whom nobody listens."""
