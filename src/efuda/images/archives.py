"""Pictures within zip and cbz archives: `comic.cbz/003.png` is a path like any other; nothing is unpacked to disk."""

from __future__ import annotations

import errno
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from efuda.errors import ImageError
from efuda.images.reasons import HEAD, kind_of

__all__ = ["ARCHIVES", "MAX_BYTES", "MAX_MEMBERS", "archive_of", "members", "read_bytes", "read_member"]

ARCHIVES: Final = frozenset({".zip", ".cbz"})
MAX_BYTES: Final = 512 << 20  # of one picture, unpacked: Danbooru takes 100 MB
MAX_MEMBERS: Final = 100_000
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, struct.error, ValueError)


def read_bytes(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file or of an archive's member, for who hashes and decodes them.

    Raises:
        ImageError: it cannot be read, or is larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (NotADirectoryError, FileNotFoundError) as error:
        member = read_member(path, max_bytes=max_bytes)
        if member is None:
            raise ImageError("missing", str(path)) from error
        return member
    except IsADirectoryError as error:
        raise ImageError("a folder, not a picture", str(path)) from error
    except PermissionError as error:
        raise ImageError("no permission to read it", str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise ImageError(_of_disk(error), str(path)) from error
    if len(data) > max_bytes:
        raise ImageError(_too_much(max_bytes), str(path))
    return data


def read_member(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes | None:
    """The bytes that `archive/name` stands for; None where no part of the path is an archive.

    Raises:
        ImageError: the archive is damaged, or the member is encrypted, too large, led astray or not there.
    """
    found = archive_of(path)
    if found is None:
        return None
    archive, name = found
    try:
        opened = _open(str(archive), *_state(archive))
        info = opened.getinfo(name)
        if reason := _refusal(info, max_bytes):
            raise ImageError(reason)
        with opened.open(info) as member:
            head = member.read(HEAD)  # a bomb of zeros is no picture: nothing more of it is unpacked
            rest = member.read(max_bytes + 1 - len(head)) if kind_of(head) or head.startswith(b"BM") else b""
    except ImageError as error:
        raise ImageError(error.reason, str(path)) from error
    except KeyError as error:
        raise ImageError("not in its archive", str(path)) from error
    except (NotImplementedError, RuntimeError) as error:
        raise ImageError("packed in a way that is not read", str(path)) from error
    except _BROKEN as error:
        raise ImageError("damaged in its archive", str(path)) from error
    except OSError as error:  # EINVAL: it names a place before its beginning
        reason = "damaged in its archive" if error.errno == errno.EINVAL else _of_disk(error)
        raise ImageError(reason, str(path)) from error
    if len(head) + len(rest) > max_bytes:
        raise ImageError(_too_much(max_bytes), str(path))
    return head + rest


def members(archive: Path, suffixes: frozenset[str], skipped: Callable[[Path, str], None]) -> Iterator[Path]:
    """`archive/name` of every member with one of the suffixes, page 2 before page 10, each once.

    Args:
        skipped: told of members that are named like pictures and will not be read, and of an archive that is damaged.
    """
    try:
        names = _open(str(archive), *_state(archive)).NameToInfo
    except ImageError as error:
        return skipped(archive, error.reason)
    except _BROKEN:
        return skipped(archive, "damaged archive")
    except (NotImplementedError, RuntimeError):
        return skipped(archive, "packed in a way that is not read")
    except OSError as error:
        return skipped(archive, "damaged archive" if error.errno == errno.EINVAL else _of_disk(error))
    for name in sorted(names, key=_natural):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - no path before it is judged
        path = Path(f"{archive}/{name}")
        if suffix in ARCHIVES:
            skipped(path, "an archive within an archive")
        elif suffix in suffixes and not any(part.startswith((".", "__MACOSX")) for part in _safe(name) or ()):
            if reason := _refusal(names[name], MAX_BYTES):
                skipped(path, reason)
            else:
                yield path
    return None


def archive_of(path: Path) -> tuple[Path, str] | None:
    """The archive that a path goes through and the name within it; None where it goes through none."""
    for parent in path.parents:
        try:
            if parent.is_file():
                with parent.open("rb") as file:
                    is_archive = kind_of(file.read(4)) == "archive"
                return (parent, str(path)[len(str(parent)) + 1 :].replace(os.sep, "/")) if is_archive else None
            if parent.exists():
                return None
        except (OSError, ValueError):
            return None
    return None


def _refusal(info: zipfile.ZipInfo, max_bytes: int) -> str:
    """Why a member is not unpacked; "" where it may be."""
    if _safe(info.filename) is None:
        return "a name that leads out of its archive"
    if info.flag_bits & 0x1:
        return "encrypted in its archive"
    return _too_much(max_bytes) if info.file_size > max_bytes else ""


def _safe(name: str) -> list[str] | None:
    """The parts of a member's name; None where, as a path, it would lead elsewhere."""
    parts = name.replace("\\", "/").split("/")
    drive = len(parts[0]) == 2 and parts[0][1] == ":"
    return None if drive or not all(parts) or any(part in (".", "..") for part in parts) else parts


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which page 2 comes before page 10."""
    return [
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part)
        for part in re.split(r"([0-9]{1,18})", name)
    ]


def _state(archive: Path) -> tuple[int, int]:
    stat = archive.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4)
def _open(archive: str, size: int, changed: int) -> zipfile.ZipFile:
    """Kept open while its pages are read one after the other; the arguments tell a changed one from what it was."""
    opened = zipfile.ZipFile(archive)
    if len(opened.NameToInfo) > MAX_MEMBERS:
        opened.close()
        raise ImageError(f"an archive of more than {MAX_MEMBERS:,} files", archive)
    return opened


def _too_much(max_bytes: int) -> str:
    return f"more than {max_bytes >> 20:,} MB"


def _of_disk(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else "cannot be read"
