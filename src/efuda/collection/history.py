"""The log of operations: listing it, and undoing and redoing, which append to it.

    for operation in history(db, limit=20):
        print(operation.id, operation.summary, operation.changed, operation.undone)
    undo(record, by="me")              # the latest that can be undone
    redo(record, by="me")              # unless something else was done since

Undoing sets back what is still as the operation left it. What has moved on since (another edit of the same tag, a later
look of the same model) is left alone and counted as skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import apsw

from efuda.collection.record import LARGEST, Record, Writing, rows
from efuda.collection.taggings import Tagging, restore_tagging, tagging_of
from efuda.errors import CollectionError

__all__ = ["UNDONE_BY_DEFAULT", "Operation", "history", "operation_of", "redo", "redoable", "undo", "undoable"]

UNDONE_BY_DEFAULT: Final = ("edit", "merge", "tag", "import", "remove")
_NOT_UNDONE: Final = ("undo", "redo")
_AT_ONCE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of the log.

    Attributes:
        id: rises; 0 for what is not in the log: it had nothing to change, or was a dry run.
        at: ISO 8601, UTC.
        by: the person, the model or the import.
        kind: "add", "tag", "import", "edit", "merge", "remove", "undo", "redo".
        summary: what was asked, in a phrase.
        changed: how many pictures it changed.
        skipped: how many changes an undo left alone because the picture had moved on.
        undoes: the operation that it undoes; of a redo, the undo.
        undone: whether it has been undone, and not redone since.
        new_tags: tags that an edit was the first to use.
    """

    id: int
    at: str
    by: str
    kind: str
    summary: str
    changed: int
    skipped: int = 0
    undoes: int | None = None
    undone: bool = False
    new_tags: tuple[str, ...] = ()


def history(db: apsw.Connection, *, limit: int = 50, before: int | None = None) -> list[Operation]:
    """The log from its end, or from an operation, which is left out, backwards."""
    found = rows(
        db,
        f"{_OPERATION} WHERE operations.id < ? ORDER BY operations.id DESC LIMIT ?",
        (min(before or LARGEST, LARGEST), limit),
    )
    return [_operation(db, row) for row in found]


def operation_of(db: apsw.Connection, number: int) -> Operation:
    """One operation.

    Raises:
        CollectionError: there is none of this number.
    """
    found = rows(db, f"{_OPERATION} WHERE operations.id = ?", (number,)) if number <= LARGEST else []
    if not found:
        raise CollectionError(f"There is no operation {number}. See those there are with: efuda collection history")
    return _operation(db, found[0])


def undoable(db: apsw.Connection) -> Operation | None:
    """What `undo` would undo."""
    marks = ",".join("?" * len(UNDONE_BY_DEFAULT))
    statement = (
        f"{_OPERATION} WHERE operations.kind IN ({marks}) AND NOT ({_UNDONE}) ORDER BY operations.id DESC LIMIT 1"
    )
    found = rows(db, statement, UNDONE_BY_DEFAULT)
    return _operation(db, found[0]) if found else None


def redoable(db: apsw.Connection) -> Operation | None:
    """The undo that `redo` would take back: the latest, if no edit came after it."""
    found = rows(
        db, f"{_OPERATION} WHERE operations.kind = 'undo' AND NOT ({_UNDONE}) ORDER BY operations.id DESC LIMIT 1"
    )
    if not found:
        return None
    marks = ",".join("?" * len(UNDONE_BY_DEFAULT))
    later = f"SELECT 1 FROM operations WHERE id > ? AND kind IN ({marks}) LIMIT 1"
    return None if rows(db, later, (found[0][0], *UNDONE_BY_DEFAULT)) else _operation(db, found[0])


def undo(record: Record, operation: int | None = None, *, by: str, dry_run: bool = False) -> Operation:
    """Undo an operation, or the latest that can be.

    Args:
        operation: its number; also an "add", whose tags are withdrawn while the pictures stay.
        by: the person who undoes.
        dry_run: change nothing, and say what would be done.

    Raises:
        CollectionError: there is nothing to undo, or that operation cannot be.
    """
    with record.write() as writing:
        found = undoable(writing.db) if operation is None else operation_of(writing.db, operation)
        if found is None:
            raise CollectionError("There is nothing to undo. See what was done with: efuda collection history")
        if found.kind in _NOT_UNDONE:
            raise CollectionError(f"Operation {found.id} is itself an {found.kind}. Name the operation it belongs to.")
        if found.undone:
            raise CollectionError(f"Operation {found.id} has been undone already. Bring it back with: redo")
        return _invert(writing, found.id, writing.operation("undo", by, f"undid {found.summary}", found.id), dry_run)


def redo(record: Record, *, by: str, dry_run: bool = False) -> Operation:
    """Take back the latest undo.

    Raises:
        CollectionError: nothing was undone, or something else was done since.
    """
    with record.write() as writing:
        found = redoable(writing.db)
        if found is None:
            raise CollectionError("There is nothing to redo: nothing was undone, or something else was done since.")
        number = writing.operation("redo", by, found.summary.replace("undid", "redid", 1), found.id)
        return _invert(writing, found.id, number, dry_run)


class _Change(NamedTuple):
    n: int
    picture: int
    what: str
    tag: int | None
    before: Any
    after: Any


def _changes(db: apsw.Connection, operation: int) -> Iterator[_Change]:
    """What an operation did, the last first."""
    statement = "SELECT n, picture, what, tag, before, after FROM changes WHERE operation = ? AND n < ? "
    statement += "ORDER BY n DESC LIMIT ?"
    last = LARGEST
    while found := rows(db, statement, (operation, last, _AT_ONCE)):
        for row in found:
            yield _Change(*row)
        last = found[-1][0]


def _invert(writing: Writing, undone: int, number: int, dry_run: bool) -> Operation:
    for change in _changes(writing.db, undone):
        if change.what != "skipped" and not _inverted(writing, undone, number, change):
            writing.log(number, change.picture, "skipped", change.tag, None, None)
    done = operation_of(writing.db, number)
    writing.discarded = dry_run
    return replace(done, id=0) if dry_run else done


def _inverted(writing: Writing, undone: int, number: int, change: _Change) -> bool:
    """Set back one change; False where its picture has moved on."""
    match change.what:
        case "word":
            return _word_inverted(writing, undone, number, change)
        case "tagging" | "withdrawn":
            return _tagging_inverted(writing, undone, number, change)
        case "removed" | "parent" | "source" | "date" as what:
            present = writing.db.execute(f"SELECT {what} FROM pictures WHERE id = ?", (change.picture,)).get
            return present == change.after and writing.set(number, change.picture, what, change.before)
    raise AssertionError(change)


def _word_inverted(writing: Writing, undone: int, number: int, change: _Change) -> bool:
    assert change.tag is not None
    where = (change.picture, change.tag)
    present = writing.db.execute("SELECT verdict FROM words WHERE picture = ? AND tag = ?", where).get
    if present != change.after:
        return False
    origin = None if change.before is None else writing.db.execute(_ORIGIN, (*where, undone)).get
    return writing.word(number, *where, change.before, origin if isinstance(origin, int) else None)


def _tagging_inverted(writing: Writing, undone: int, number: int, change: _Change) -> bool:
    picture, source = change.picture, change.tag
    assert source is not None
    present = tagging_of(writing, picture, source)
    if present is None:
        return False
    if change.what == "withdrawn":  # by an undo: `after` is the tagging that it withdrew
        if (present.id, present.withdrawn) != (change.after, 1):
            return False
        writing.db.execute("UPDATE taggings SET withdrawn = 0 WHERE id = ?", (present.id,))
        writing.log(number, picture, "withdrawn", source, present.id, None)
        return True
    as_left = (present.operation, present.withdrawn) == (undone, 0)
    if not (as_left if change.after is None else present.to_bytes() == change.after):
        return False
    if change.before is None:
        writing.db.execute("UPDATE taggings SET withdrawn = 1 WHERE id = ?", (present.id,))
        writing.log(number, picture, "withdrawn", source, None, present.id)
    else:
        restore_tagging(writing, picture, source, Tagging.from_bytes(change.before))
        writing.log(number, picture, "tagging", source, present.to_bytes(), change.before)
    return True


def _operation(db: apsw.Connection, row: tuple[Any, ...]) -> Operation:
    number, at, by, kind, summary, undoes, undone = row
    changed, skipped = _counts(db, number, kind)
    return Operation(number, at, by, kind, summary, changed, skipped, undoes, bool(undone))


def _counts(db: apsw.Connection, operation: int, kind: str) -> tuple[int, int]:
    """Pictures changed and changes skipped; a tagging has one change a picture, so its last number counts them."""
    if kind in ("add", "tag"):
        return int(rows(db, "SELECT coalesce(max(n), 0) FROM changes WHERE operation = ?", (operation,))[0][0]), 0
    changed, skipped = rows(db, _COUNTS, (operation,))[0]
    return int(changed), int(skipped)


_UNDONE: Final = """
EXISTS (SELECT 1 FROM operations AS undo WHERE undo.undoes = operations.id
 AND NOT EXISTS (SELECT 1 FROM operations AS redo WHERE redo.undoes = undo.id))
"""
_OPERATION: Final = f"""
SELECT operations.id, at, sources.name, operations.kind, summary, undoes, {_UNDONE} FROM operations
JOIN sources ON sources.id = operations.source
"""
_COUNTS: Final = """
SELECT count(DISTINCT picture) FILTER (WHERE what != 'skipped'), count(*) FILTER (WHERE what = 'skipped')
FROM changes WHERE operation = ?
"""
# Whose word stood before an operation.
_ORIGIN: Final = """
SELECT operation FROM changes WHERE picture = ? AND what = 'word' AND tag = ? AND operation < ?
ORDER BY operation DESC LIMIT 1
"""
