"""Copies of a collection's file: made while it is in use, proven whole, and put back without losing what is there.

    made = backup(Path("art.efuda"), Path("/mnt/backups"), keep=7)      # art-20260102T030405Z.efuda in it
    aside = restore(made, Path("art.efuda"))                            # where the former one is kept

A copy is of one moment. It is checked, flushed to the disk and only then gets its name, so that what bears the name of
a backup is one, whenever the power goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from efuda.collection.record import number
from efuda.collection.schema import APPLICATION_ID, VERSION, speaking
from efuda.errors import CollectionError, OutputError, UsageError
from efuda.progress import Progress, silent

__all__ = ["backup", "backups_in", "restore"]

_PAGES_AT_ONCE: Final = 2_000
_SHOWN: Final = 3
REBUILT: Final = (".index", ".vectors")  # what stands beside a collection and is made anew from it


def backup(path: Path, to: Path, *, keep: int | None = None, progress: Progress = silent) -> Path:
    """Copy a collection as it is at this moment, while others go on using it.

    Args:
        path: the collection's file.
        to: a folder, in which the copy is named by the time; or a file that does not exist yet.
        keep: in a folder, so many of this collection's copies are kept, the oldest are deleted.
        progress: told of the pages copied.

    Returns:
        The copy.

    Raises:
        CollectionError: the collection cannot be read, or is damaged: then no earlier copy is touched.
        OutputError: there is no room, or no permission.
        UsageError: the file exists, or there is nothing to rotate.
    """
    place = _place(path, to, keep)
    _remove_leftovers(place.parent)
    made = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with _opened(path) as source:
            _copy(source, made, progress)
        problem = _damage(made)
        if problem:
            raise CollectionError(f"{path} is damaged ({problem}). No backup was made; restore an earlier one.")
        _flush(made)
        _give_name(made, place)
        _flush_folder(place.parent)
    except OSError as error:
        raise _cannot_write(place, error) from error
    finally:
        _drop(made)
    if keep is not None:
        for old in backups_in(to, path.stem)[keep:]:
            old.unlink(missing_ok=True)
    return place


def backups_in(folder: Path, stem: str) -> list[Path]:
    """The copies in a folder that `backup` made of a collection of this name, the newest first."""
    name = re.compile(rf"{re.escape(stem)}-\d{{8}}T\d{{6}}Z(-\d+)?\.efuda")
    found = [path for path in folder.iterdir() if name.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.stem, reverse=True)


def restore(copy: Path, path: Path, *, dry_run: bool = False, progress: Progress = silent) -> Path | None:
    """Put a backup in a collection's place.

    Args:
        copy: stays as it is.
        path: the collection's file. One that is there is kept beside it under another name.
        dry_run: only prove that the backup is whole and that no one has the collection open.
        progress: told of the pages copied.

    Returns:
        Where the former one is kept; None where there was none.

    Raises:
        CollectionError: the backup is damaged or none, or someone has the collection open.
        OutputError: there is no room, or no permission.
    """
    if path.exists() and copy.exists() and copy.samefile(path):
        raise CollectionError(f"{copy} is the collection itself. Name one of its backups.")
    if path.is_dir():
        raise CollectionError(f"{path} is a folder; name the collection's file.")
    _remove_leftovers(path.parent)
    made = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _opened(copy) as source:
            _copy(source, made, progress)
        problem = _damage(made)
        if problem:
            raise CollectionError(f"{copy} is damaged ({problem}). Nothing was restored; take another backup.")
        revision = _close_down(path)
        if dry_run:
            return None
        _raise_revision(made, revision)
        _flush(made)
        aside = _set_aside(path)
        for ending in REBUILT:
            path.with_name(path.name + ending).unlink(missing_ok=True)
        os.replace(made, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _drop(made)
    return aside


def _place(path: Path, to: Path, keep: int | None) -> Path:
    if not to.is_dir():
        if keep is not None:
            raise UsageError(
                f"--keep goes with a folder of backups; {to} is none. Make the folder, or leave --keep out."
            )
        if to.exists():
            raise UsageError(f"{to} exists. Name another file, or a folder: each backup gets a name of its own there.")
        if not to.parent.is_dir():
            raise OutputError(f"{to.parent} does not exist. Make that folder, or name another.")
        return to
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    place, more = to / f"{path.stem}-{stamp}.efuda", 1
    while place.exists():
        place, more = to / f"{path.stem}-{stamp}-{more}.efuda", more + 1
    return place


def _copy(source: apsw.Connection, made: Path, progress: Progress) -> None:
    """All pages, of one moment: the source is read in one transaction."""
    with speaking(made), closing(apsw.Connection(str(made))) as target:
        target.pragma("synchronous", "OFF")  # flushed as a whole later
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # from here on it is that moment
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(_PAGES_AT_ONCE)
                    progress("copy", copying.page_count - copying.remaining, copying.page_count, unit="pages")
        finally:
            source.execute("ROLLBACK")
        target.pragma("journal_mode", "delete")  # one file, with nothing beside it


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    """A collection's file of whatever version, to read; it is left as it is."""
    if not path.is_file():
        raise CollectionError(f"{path} is no file. Name a collection, or a backup of one.")
    beside = path.with_name(f"{path.name}-wal").exists()
    with speaking(path):
        writable = beside or os.access(path, os.W_OK)
        flags = apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(path), flags=flags)) as db:
            db.set_busy_timeout(10_000)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _check_ours(db, path)
            yield db


def _check_ours(db: apsw.Connection, copy: Path) -> None:
    if db.pragma("application_id") != APPLICATION_ID:
        raise CollectionError(f"{copy} is not an efuda collection. Name another file.")
    if db.pragma("user_version") > VERSION:
        raise CollectionError(f"{copy} was made by a newer efuda. Upgrade: pip install --upgrade efuda")


def _damage(made: Path) -> str:
    """What is wrong with a copy, in a few words; empty for nothing."""
    with closing(apsw.Connection(str(made), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        try:
            said = [str(line) for (line,) in db.execute(f"PRAGMA integrity_check({_SHOWN})")]
        except apsw.Error as error:
            return str(error)
    return "" if said == ["ok"] else "; ".join(said)


def _close_down(path: Path) -> int:
    """Bring all that belongs to the former collection into its one file; returns its revision.

    Raises:
        CollectionError: someone has it open.
    """
    if not path.exists():
        return 0
    in_use = CollectionError(
        f"{path} is open in another program: a server, a search, a job. Stop it and restore again; nothing has changed."
    )
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
            db.set_busy_timeout(500)
            revision = number(db, "SELECT value FROM state WHERE key = 'revision'") if _has_state(db) else 0
            if db.pragma("journal_mode", "delete") != "delete":
                raise in_use
            return revision
    except (apsw.BusyError, apsw.LockedError) as error:
        raise in_use from error
    except apsw.Error:  # damaged, which is why one restores
        if _is_locked(path):
            raise in_use from None
        return 0


def _is_locked(path: Path) -> bool:
    """Whether another process holds one of SQLite's locks on a file that SQLite cannot make sense of."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 512, 0x40000000)
        except OSError:
            return True
    return False


def _raise_revision(made: Path, revision: int) -> None:
    """Revisions go on rising, so that no page or index takes the restored collection for one it knows."""
    with speaking(made), closing(apsw.Connection(str(made))) as db:
        if _has_state(db):
            db.execute("UPDATE state SET value = max(value, ?) + 1 WHERE key = 'revision'", (revision,))


def _has_state(db: apsw.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'state'").get is not None


def _set_aside(path: Path) -> Path | None:
    """Keep the former collection; what stands beside it goes first, lest it be taken for the new one's."""
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]
    if not path.exists() and not any(one.exists() for one in beside):
        return None
    stamp, more = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), 0
    while (aside := path.with_name(f"{path.name}.before-{stamp}{f'-{more}' if more else ''}")).exists():
        more += 1
    if path.exists():
        try:
            os.link(path, aside)
        except OSError:  # a file system without links: for a moment there is no collection
            os.replace(path, aside)
    for one in beside:
        if one.exists():
            os.replace(one, aside.with_name(aside.name + one.name.removeprefix(path.name)))
    return aside


def _remove_leftovers(folder: Path) -> None:
    """What a killed backup or restore of this machine was writing."""
    with suppress(OSError):
        for part in folder.glob(".*.efuda.*.part"):
            with suppress(ValueError, OSError):
                if not _is_running(int(part.suffixes[-2].removeprefix("."))):
                    _drop(part)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _drop(made: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            made.with_name(made.name + ending).unlink(missing_ok=True)


def _give_name(made: Path, place: Path) -> None:
    try:
        os.link(made, place)
    except FileExistsError:
        raise UsageError(f"{place} has meanwhile been written by another program. Run again.") from None
    except OSError:  # a file system without links
        os.replace(made, place)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """So that the new name outlasts a power cut; not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written ({error.strerror or error}). Earlier backups are as they were; free it or choose "
        "another place."
    )
