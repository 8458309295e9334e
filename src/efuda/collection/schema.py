"""The SQLite file beneath a collection: opening it safely, and saying in words what SQLite says in codes.

db = open_database(Path("art.efuda"), create=True)      # an apsw.Connection with every table in place
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from efuda.collection.migrations import MIGRATIONS
from efuda.errors import CollectionError, EfudaError, OutputError
from efuda.files import make_folder

__all__ = ["APPLICATION_ID", "VERSION", "open_database", "speaking", "transaction"]

APPLICATION_ID: Final = 0x65667564  # "efud": tells our files from everyone else's SQLite files
_BUSY_MS: Final = 10_000


VERSION: Final = len(MIGRATIONS)


def open_database(path: Path, *, create: bool) -> apsw.Connection:
    """Open a collection's file, bringing it to this version's schema.

    Args:
        path: the file; any name.
        create: make it, and the folders above it, where it is missing.

    Raises:
        CollectionError: it is missing, is something else, or was made by a newer efuda.
        OutputError: it cannot be created.
    """
    if not path.exists() and not create:
        raise CollectionError(
            f"{path} does not exist. Make it with: efuda collection add COLLECTION PATHS --model MODEL"
        )
    if path.is_dir():
        raise CollectionError(f"{path} is a folder; a collection is one file. Name a file in it, such as art.efuda.")
    if not path.exists():
        make_folder(path.absolute().parent)
    with speaking(path):
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
        db = apsw.Connection(str(path), flags=flags)
        try:
            db.set_busy_timeout(_BUSY_MS)
            _migrate(db, path, create)
            _configure(db)
        except BaseException:
            db.close()
            raise
    return db


def _migrate(db: apsw.Connection, path: Path, create: bool) -> None:
    if _is_current(db, path, create):
        return
    with transaction(db):
        if _is_current(db, path, create):  # another process was quicker
            return
        db.pragma("application_id", APPLICATION_ID)
        for number in range(db.pragma("user_version"), VERSION):
            MIGRATIONS[number](db)
        db.pragma("user_version", VERSION)


def _is_current(db: apsw.Connection, path: Path, create: bool) -> bool:
    empty = db.execute("SELECT count(*) FROM sqlite_schema").get == 0
    version: int = db.pragma("user_version")
    if db.pragma("application_id") != APPLICATION_ID and not (empty and version == 0 and create):
        raise CollectionError(f"{path} is not an efuda collection. Name another file.")
    if version > VERSION:
        raise CollectionError(
            f"{path} was made by a newer efuda (schema {version}; this one knows {VERSION}). Upgrade: "
            "pip install --upgrade efuda"
        )
    return version == VERSION


def _configure(db: apsw.Connection) -> None:
    if db.pragma("journal_mode") != "wal":
        db.pragma("journal_mode", "wal")
    # With WAL, NORMAL never corrupts: a power cut can only take back the last commits, and adding again redoes them.
    # What a person decides cannot be redone: `Record.write` raises this to FULL.
    db.pragma("synchronous", "NORMAL")
    db.pragma("foreign_keys", True)


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Everything inside is written as a whole or not at all; takes the write lock at once, so it cannot deadlock."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(apsw.Error):  # a full disk has rolled it back already
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into words for a person: CollectionError or OutputError, naming the file."""
    try:
        yield
    except (apsw.Error, UnicodeEncodeError) as error:
        raise _in_words(path, error) from error


def _in_words(path: Path, error: Exception) -> EfudaError:
    match error:
        case apsw.NotADBError():
            return CollectionError(f"{path} is not an efuda collection. Name another file.")
        case apsw.BusyError() | apsw.LockedError():
            return CollectionError(f"{path} is in use by another program. Wait until it is done, and run again.")
        case apsw.CorruptError():
            return CollectionError(f"{path} is damaged ({error}). Restore a copy, or add the pictures to a new one.")
        case apsw.FullError():
            return OutputError(f"{path}: the disk is full. What was added before is kept; free space and run again.")
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return OutputError(f"{path} cannot be opened for writing ({error}). Check the permissions of its folder.")
        case apsw.IOError():
            return OutputError(f"{path} cannot be read or written ({error}). Check the disk.")
        case UnicodeEncodeError():
            return CollectionError(f"{path}: a name that is not valid Unicode cannot be kept. Choose a plainer one.")
    raise error  # our own fault: a wrong statement, say
