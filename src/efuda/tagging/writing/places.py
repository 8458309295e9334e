"""Where files beside pictures go, and how they are written: never half, never two at once, never over a person's.

Every file is written under a name of its own in the same folder and then renamed, so that no reader sees half of it and
jobs that run at once in one folder do not disturb each other.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from efuda.errors import OutputError, UsageError

__all__ = [
    "Locked",
    "Refused",
    "beside",
    "cannot_write",
    "keep_spare",
    "new_name",
    "reason",
    "write_all",
    "write_new",
    "write_over",
]

_WORDS: Final = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "no space left (quota)",
    errno.EROFS: "read-only disk",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOENT: "the file or its folder is gone",
    errno.ENAMETOOLONG: "the name would be too long",
    errno.EISDIR: "a folder is in the way",
}


class Refused(Exception):
    """One picture's tags cannot be written; its text is the reason."""


def reason(error: OSError) -> str:
    """A short phrase that groups well in a report."""
    return f"not written: {_WORDS.get(error.errno or 0, error.strerror or str(error))}"


def cannot_write(path: Path, error: OSError) -> OutputError:
    """For a file of results, without which the job is pointless."""
    return OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another --out or free it.")


def beside(picture: Path) -> Path:
    """The picture, or for a page of an archive its stand-in: `a.cbz/003.png` → `a.cbz.tags/003.png`.

    Raises:
        Refused: the page's name leads out of the archive.
    """
    for archive in picture.parents:
        if archive.is_dir():
            return picture
        if archive.is_file():
            page = picture.relative_to(archive)
            if ".." in page.parts:
                raise Refused("not written: its name leads out of the archive")
            return archive.with_name(f"{archive.name}.tags") / page
    return picture


def new_name(folder: Path) -> Path:
    """A name that nobody has; short, since the picture's own may be as long as names can be."""
    return folder / f".efuda-{secrets.token_hex(8)}.part"


def write_over(path: Path, data: bytes, *, spare: bool) -> None:
    """Write a file whole, over what is there; through a link, to where it leads.

    Args:
        spare: keep what is there as `.bak`.

    Raises:
        OSError: everything is then as it was.
    """
    path = Path(os.path.realpath(path))
    with _written(path, data, durable=True) as made:
        with suppress(OSError):
            made.chmod(path.stat().st_mode & 0o7777)
        if spare:
            keep_spare(path)
        os.replace(made, path)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file that is not there, or is empty; False where another has meanwhile written it.

    Raises:
        OSError: nothing was written.
    """
    with _written(path, data, durable=False) as made:
        try:
            os.link(made, path)
        except FileExistsError:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path)) from None
            if path.stat().st_size:
                return False
            os.replace(made, path)
        except OSError:  # a file system without links
            os.replace(made, path)
    return True


def write_all(file: io.FileIO, data: bytes) -> None:
    """A full disk takes a part of what it is given, and only says so when it is given the rest."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@contextmanager
def _written(path: Path, data: bytes, *, durable: bool) -> Iterator[Path]:
    made = new_name(path.parent)
    try:
        # By its number: a file object that Ctrl-C meets before `with` has it would complain of not being closed.
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            write_all(io.FileIO(descriptor, "wb", closefd=False), data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield made
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)


def keep_spare(path: Path) -> None:
    """Keep a file that is about to be replaced, as `.bak`, or `.bak2`, … where earlier ones are kept already."""
    number = 1
    while path.exists():
        spare = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            os.link(path, spare)
        except FileExistsError:
            number += 1
        except OSError:  # a file system without links: for a moment there is no file
            if not spare.exists():
                os.replace(path, spare)
                return
            number += 1
        else:
            return


class Locked:
    """`with Locked(path):` one job at a time writes the file; another is refused at once.

    Raises:
        UsageError: another job is writing it.
        OutputError: its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(f".{path.name}.lock")
        self._descriptor = -1

    def __enter__(self) -> Self:
        while self._descriptor < 0:
            try:
                descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise cannot_write(self.path, error) from error
            try:
                _take(descriptor)
                if os.path.samestat(os.fstat(descriptor), os.stat(self._lock)):  # noqa: PTH116
                    self._descriptor = descriptor
                    return self
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path} is being written by another job. Wait, or choose another --out."
                ) from error
            except FileNotFoundError:
                time.sleep(0.001)  # the other job has just finished and taken its lock away
            finally:
                if self._descriptor < 0:
                    os.close(descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._lock.unlink()
        os.close(self._descriptor)
        self._descriptor = -1


def _take(descriptor: int) -> None:
    """Raises BlockingIOError where another has it; a file system without locks goes without."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return
