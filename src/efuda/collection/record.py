"""The record: a collection's SQLite file, read at one moment and written one change at a time, from any thread.

    record = Record.open(Path("art.efuda"), create=True)
    with record.read() as db:                                   # everything inside is of one moment
        count = db.execute("SELECT count(*) FROM pictures").get
    with record.write() as writing:                             # all of it or nothing
        operation = writing.operation("edit", "me", "added hat to 1 picture")
        writing.word(operation, 7, writing.tag("hat"), 1)

A write stamps a new revision on every picture it touches, so that an index, another process and an open page alike ask
"what changed since" by number. What is undone later is written through `Writing`, which keeps the log as it writes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

import apsw

from efuda.collection.schema import open_database, speaking, transaction
from efuda.errors import CollectionError
from efuda.vocabulary import Category

__all__ = ["LARGEST", "Record", "Verdict", "Writing", "now", "number", "rows"]

LARGEST: Final = 2**63 - 1  # number that SQLite holds

Verdict = Literal[-1, 1] | None
Kind = Literal["person", "model", "import"]
Column = Literal["removed", "parent", "source", "date"]


class Record:
    """An open file. Any thread may use it, and several processes may have the same file open."""

    def __init__(self, path: Path, db: apsw.Connection) -> None:
        self.path = path
        self._writer, self._lock = db, threading.Lock()
        self._own = threading.local()
        self._readers: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Open a file, or with `create` make one where there is none.

        Raises:
            CollectionError: it is missing, is something else, or was made by a newer efuda.
            OutputError: it cannot be created.
        """
        return cls(path, open_database(path, create=create))

    def close(self) -> None:
        """Let go of the file, once a write that is under way is through."""
        with self._lock:
            self._closed = True
            for db in (*self._readers, self._writer):
                with suppress(apsw.ThreadingViolationError, apsw.BusyError):  # a thread is reading: its end closes it
                    db.close()

    @property
    def revision(self) -> int:
        """How many writes there have been; a few microseconds, other processes' included."""
        with self.read() as db:
            return number(db, "SELECT value FROM state WHERE key = 'revision'")

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Everything read inside is of one moment, whatever others write meanwhile; within itself it is that moment."""
        with speaking(self.path):
            db = self._reader()
            if db.in_transaction:
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                with suppress(apsw.Error):
                    db.execute("ROLLBACK")

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Writing]:
        """One change: whole and on the disk when the block ends, not there at all where it raises. Do not nest.

        Args:
            durable: survive a power cut, too. Without, one can take back the last changes (never damage the file):
                right for what running again brings back, such as tagging.
        """
        with self._lock, speaking(self.path), suppress(_Discarded):
            self._check_open()
            db = self._writer
            db.pragma("synchronous", "FULL" if durable else "NORMAL")
            with transaction(db):
                before = db.total_changes()
                writing = Writing(db, number(db, "SELECT value FROM state WHERE key = 'revision'") + 1)
                yield writing
                if writing.discarded:
                    raise _Discarded
                writing.stamp()
                if db.total_changes() != before:
                    db.execute("UPDATE state SET value = ? WHERE key = 'revision'", (writing.revision,))

    def _reader(self) -> apsw.Connection:
        """This thread's connection, made on its first use and closed when the thread is gone."""
        self._check_open()
        db: apsw.Connection | None = getattr(self._own, "db", None)
        if db is None:
            db = open_database(self.path, create=False)
            db.pragma("query_only", True)
            self._own.db = db
            self._readers.add(db)
        return db

    def _check_open(self) -> None:
        if self._closed:
            raise CollectionError(f"{self.path} has been closed. Open it again.")


class _Discarded(Exception):
    """What was written is to be as if it had not been."""


class Writing:
    """A change being written.

    Attributes:
        db: the connection, in a transaction; write what is not part of the log through it.
        revision: the number that this change will have.
        discarded: set it, and nothing of the change will be there: it came to nothing, or was a rehearsal.
    """

    def __init__(self, db: apsw.Connection, revision: int) -> None:
        self.db, self.revision, self.at = db, revision, now()
        self.discarded = False
        self._touched: set[int] = set()
        self._next: dict[int, int] = {}  # operation → the number of its next change
        self._origins: dict[int, tuple[int, str]] = {}  # operation → its source and time

    def touch(self, pictures: Iterable[int]) -> None:
        """Note that something about these pictures has changed: they get this revision."""
        self._touched.update(pictures)

    def operation(self, kind: str, by: int | str, summary: str, undoes: int | None = None) -> int:
        """Append an operation to the log.

        Args:
            kind: "add", "tag", "import", "edit", "merge", "remove", "undo", "redo", …
            by: the number of a source, or a person's name.
            summary: a phrase for a list: "added hat to 3 pictures".
            undoes: the operation that this one takes back.
        """
        source = self.source("person", by, by) if isinstance(by, str) else by
        values = (self.at, source, kind, summary, undoes)
        return number(
            self.db,
            "INSERT INTO operations (at, source, kind, summary, undoes) VALUES (?, ?, ?, ?, ?) RETURNING id",
            values,
        )

    def source(self, kind: Kind, identity: str, name: str) -> int:
        """The number of a person, a model or an import, which is made known if need be."""
        known = "SELECT id FROM sources WHERE kind = ? AND identity = ? AND name = ?"
        found = self.db.execute(known, (kind, identity, name)).get
        if isinstance(found, int):
            return found
        return number(
            self.db,
            "INSERT INTO sources (kind, identity, name) VALUES (?, ?, ?) "
            "ON CONFLICT (kind, identity) DO UPDATE SET name = excluded.name RETURNING id",
            (kind, identity, name),
        )

    def tag(self, name: str, category: Category | None = None) -> int:
        """The number of a tag, which is made if need be.

        Args:
            category: what becomes its category. "General" says little, so it changes no other.
        """
        row = self.db.execute("SELECT id, category FROM tags WHERE name = ?", (name,)).fetchone()
        if row is None:
            self._forget_alias(name)
            wanted = Category.GENERAL if category is None else category
            return number(self.db, "INSERT INTO tags (name, category) VALUES (?, ?) RETURNING id", (name, int(wanted)))
        if category not in (None, Category.GENERAL, row[1]):
            assert category is not None
            self.db.execute("UPDATE tags SET category = ? WHERE id = ?", (int(category), row[0]))
            self.relations_changed()
        return int(row[0])

    def _forget_alias(self, name: str) -> None:
        """A name is a tag or an alias, never both."""
        if self.db.execute("DELETE FROM tag_aliases WHERE name = ? RETURNING 1", (name,)).get is not None:
            self.relations_changed()

    def relations_changed(self) -> None:
        """Note that aliases, implications or categories are not what they were."""
        self.db.execute("UPDATE state SET value = value + 1 WHERE key = 'relations'")

    # What can be undone: written and logged in one

    def word(self, operation: int, picture: int, tag: int, verdict: Verdict, origin: int | None = None) -> bool:
        """Set what persons say of a tag on a picture: yes, no or nothing; False where they already said so.

        Args:
            operation: the operation this is part of.
            origin: the operation whose person and time the word gets; this one by default.
        """
        before = self.db.execute("SELECT verdict FROM words WHERE picture = ? AND tag = ?", (picture, tag)).get
        if before == verdict:
            return False
        if verdict is None:
            self.db.execute("DELETE FROM words WHERE picture = ? AND tag = ?", (picture, tag))
        else:
            source, at = self._origin(origin or operation)
            self.db.execute(_WORD, (picture, tag, verdict, source, at, origin or operation))
        self.log(operation, picture, "word", tag, before, verdict)
        return True

    def set(self, operation: int, picture: int, what: Column, value: Any) -> bool:
        """Set a column of a picture; False where it has that value."""
        assert what in {"removed", "parent", "source", "date"}
        before = self.db.execute(f"SELECT {what} FROM pictures WHERE id = ?", (picture,)).get
        if before == value:
            return False
        self.db.execute(f"UPDATE pictures SET {what} = ? WHERE id = ?", (value, picture))
        self.log(operation, picture, what, None, before, value)
        return True

    def log(self, operation: int, picture: int, what: str, tag: int | None, before: Any, after: Any) -> None:
        """Append what an operation did to a picture, and touch it."""
        if operation not in self._next:
            count = "SELECT coalesce(max(n), 0) FROM changes WHERE operation = ?"
            self._next[operation] = number(self.db, count, (operation,)) + 1
        n = self._next[operation]
        self._next[operation] = n + 1
        self.db.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)", (operation, n, picture, what, tag, before, after)
        )
        if what != "skipped":
            self._touched.add(picture)

    def stamp(self) -> None:
        """Give the touched pictures this revision; `Record.write` does so at the end."""
        values = ((self.revision, picture) for picture in sorted(self._touched))
        self.db.executemany("UPDATE pictures SET revision = ? WHERE id = ?", values)
        self._touched.clear()

    def _origin(self, operation: int) -> tuple[int, str]:
        if operation not in self._origins:
            row = self.db.execute("SELECT source, at FROM operations WHERE id = ?", (operation,)).fetchone()
            assert row is not None
            self._origins[operation] = row
        return self._origins[operation]


_WORD: Final = """
INSERT INTO words (picture, tag, verdict, source, at, operation) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (picture, tag) DO UPDATE SET verdict = excluded.verdict, source = excluded.source, at = excluded.at,
operation = excluded.operation
"""


def now() -> str:
    """The time as the record writes it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def number(db: apsw.Connection, statement: str, values: tuple[Any, ...] = ()) -> int:
    """The one integer that a statement gives."""
    value = db.execute(statement, values).get
    assert isinstance(value, int)
    return value


def rows(db: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows that a statement gives."""
    return db.execute(statement, values).fetchall()
