"""Proving that a collection is whole: the file, its references, and what efuda itself holds to.

    for problem in check(record, files=True):
        print(problem)                                  # a sentence: what is wrong, and what to do

The log is replayed: each change must begin where the one before it ended, and the last must be what stands there now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import apsw
import numpy as np
from numpy.typing import NDArray

from efuda.collection.adding import is_gone, real_path
from efuda.collection.migrations import MIGRATIONS
from efuda.collection.record import Record, rows
from efuda.collection.taggings import unpacked_scores
from efuda.progress import Progress, silent

__all__ = ["check"]

_BLOBS_AT_ONCE: Final = 2_000
_SHOWN: Final = 3  # examples in a sentence
_COLUMNS: Final = ("removed", "parent", "source", "date")
_RESTORE: Final = "Restore a backup: efuda collection restore."
Look = Callable[[apsw.Connection], Iterator[str]]


def check(record: Record, *, files: bool = False, progress: Progress = silent) -> list[str]:
    """Look for what must not be; an empty list says that all is well.

    Args:
        files: read every file, too, and compare it with what the record says of it.
        progress: told of each look, and of files read.

    Raises:
        CollectionError: the file is damaged so much that it cannot be read.
    """
    problems: list[str] = []
    with record.read() as db:
        for done, look in enumerate(_LOOKS, start=1):
            problems += look(db)
            progress("check", done, len(_LOOKS), unit="checks")
            if look is _damage and problems:
                return problems  # of what is damaged nothing more can be said
        known = rows(db, _FILES) if files else []
    for done, row in enumerate(known, start=1):
        problems += _file(*row)
        progress("read", done, len(known), unit="files")
    return problems


def _damage(db: apsw.Connection) -> Iterator[str]:
    said = [str(line) for (line,) in rows(db, f"PRAGMA integrity_check({_SHOWN})")]
    if said != ["ok"]:
        yield f"The file is damaged: {'; '.join(said)}. {_RESTORE}"


def _schema(db: apsw.Connection) -> Iterator[str]:
    """Tables, indexes and triggers are those of a new collection."""
    fresh = apsw.Connection(":memory:")
    try:
        for migrate in MIGRATIONS:
            migrate(fresh)
        wanted, found = _things(fresh), _things(db)
    finally:
        fresh.close()
    lost = sorted(wanted.keys() - found.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if lost or other:
        yield f"The schema is not efuda's: {_some([*lost, *other])} missing or changed by another program. {_RESTORE}"


def _things(db: apsw.Connection) -> dict[str, str]:
    """Name → what makes it, spaces and quotes aside, which renaming a table changes."""
    found = rows(db, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {name: "".join(str(sql).replace('"', "").split()) for name, sql in found}


def _references(db: apsw.Connection) -> Iterator[str]:
    broken = rows(db, 'SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 1000')
    if broken:
        names = [f"{table} → {parent}" for table, _, parent in broken]
        yield f"{len(broken):,} rows refer to others that are not there: {_some([*dict.fromkeys(names)])}. {_RESTORE}"


def _revisions(db: apsw.Connection) -> Iterator[str]:
    state = dict(rows(db, "SELECT key, value FROM state"))
    revision = state.get("revision")
    if not isinstance(revision, int) or not isinstance(state.get("relations"), int):
        yield f"The collection does not know its revision. {_RESTORE}"
        return
    ahead = rows(db, "SELECT id FROM pictures WHERE revision > ?", (revision,))
    if ahead:
        yield f"{_pictures(ahead)} changed after the last change, revision {revision}. {_RESTORE}"


def _log(db: apsw.Connection) -> Iterator[str]:
    if found := rows(db, "SELECT id FROM operations WHERE undoes >= id"):
        yield f"Operations undo later ones: {_some(one for (one,) in found)}. {_RESTORE}"
    if found := rows(db, _BROKEN_CHAIN):
        yield f"The log does not follow from itself at operations {_some(one for (one,) in found)}. {_RESTORE}"


def _words(db: apsw.Connection) -> Iterator[str]:
    if found := rows(db, _WORDS_UNLIKE_LOG):
        yield f"What persons said is not what the log ends with, at {_pictures(found)}. {_RESTORE}"
    if found := rows(db, _WORDS_OF_OTHERS):
        yield f"Words of persons come from operations that did not say them, at {_pictures(found)}. {_RESTORE}"
    if found := rows(db, _WORDS_OF_MACHINES):
        yield f"Words are said by what is no person, at {_pictures(found)}. {_RESTORE}"


def _columns(db: apsw.Connection) -> Iterator[str]:
    for column in _COLUMNS:
        if found := rows(db, _COLUMN_UNLIKE_LOG.format(column=column)):
            yield f"The {column} is not what the log ends with, at {_pictures(found)}. {_RESTORE}"
    if found := rows(db, "SELECT id FROM pictures WHERE parent = id"):
        yield f"Pictures are their own parents: {_pictures(found)}. Choose other parents for them."


def _taggings(db: apsw.Connection) -> Iterator[str]:
    """Every blob of scores decodes, ascends and speaks of tags that there are."""
    known = np.array([tag for (tag,) in rows(db, "SELECT id FROM tags")], dtype=np.int64)
    is_tag = np.zeros(int(known.max(initial=0)) + 1, dtype=np.bool_)
    is_tag[known] = True
    bad: list[tuple[int]] = []
    read = iter(db.execute("SELECT picture, scores FROM taggings"))
    while some := list(islice(read, _BLOBS_AT_ONCE)):
        if not _are_scores(b"".join(blob for _, blob in some), [len(blob) for _, blob in some], is_tag):
            bad += [(picture,) for picture, blob in some if not _are_scores(blob, [len(blob)], is_tag)]
    if bad:
        yield f"Scores make no sense, at {_pictures(bad)}. Tag them again: efuda collection add."
    if found := rows(db, _TAGGINGS_OF_PERSONS):
        yield f"Taggings are of persons, at {_pictures(found)}. {_RESTORE}"


def _are_scores(blobs: bytes, lengths: list[int], is_tag: NDArray[np.bool_]) -> bool:
    """Whether all of them are, one behind the other."""
    if any(length % 4 for length in lengths):
        return False
    tags, _, _ = unpacked_scores(blobs)
    ends = np.cumsum(lengths) // 4
    rises = np.diff(tags) > 0
    rises[ends[(ends > 0) & (ends < len(tags))] - 1] = True  # from one to the next it need not
    return len(tags) == 0 or bool(tags.max() < len(is_tag) and is_tag[tags].all() and rises.all())


def _embeddings(db: apsw.Connection) -> Iterator[str]:
    lengths = rows(db, "SELECT source, length(vector), count(*) FROM embeddings GROUP BY 1, 2")
    sources = [source for source, _, _ in lengths]
    if any(length % 2 or not length for _, length, _ in lengths) or len(set(sources)) < len(sources):
        yield "Embeddings of one model differ in length. Tag the pictures again: efuda collection add."


def _file(path: Any, sha256: bytes, size: int, mtime_ns: int, missing: str | None) -> Iterator[str]:
    place = real_path(path)
    if missing is not None:
        if place.exists():
            yield f"{place} is back. Note it: efuda collection scan."
        return
    if is_gone(place):
        yield f"{place} is gone. Note it: efuda collection scan."
        return
    try:
        stat = place.stat()
        with place.open("rb") as file:
            same = stat.st_size == size and hashlib.file_digest(file, "sha256").digest() == sha256
    except OSError as error:
        yield f"{place} cannot be read ({(error.strerror or 'unknown').lower()}). Check the disk and its permissions."
        return
    if not same and (stat.st_mtime_ns, stat.st_size) == (mtime_ns, size):
        yield f"{place} holds other bytes, though its time and size are as they were. Compare it with a copy."
    elif not same:
        yield f"{place} has been changed. Note it: efuda collection scan."


def _pictures(found: list[tuple[Any, ...]]) -> str:
    return f"{len(found):,} picture{'' if len(found) == 1 else 's'} ({_some(one[0] for one in found)})"


def _some(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:_SHOWN]) + (" …" if len(listed) > _SHOWN else "")


_LOOKS: Final[tuple[Look, ...]] = (
    _damage,
    _schema,
    _references,
    _revisions,
    _log,
    _words,
    _columns,
    _taggings,
    _embeddings,
)
_FILES: Final = """
SELECT path, sha256, bytes, mtime_ns, missing FROM files JOIN pictures ON pictures.id = files.picture ORDER BY path
"""
# A word's first change begins with nothing said, a column's with anything; each later one where the last ended.
_BROKEN_CHAIN: Final = """
WITH steps AS (
    SELECT operation, what, before, lag(after) OVER w AS last, row_number() OVER w AS at
    FROM changes WHERE what IN ('word', 'removed', 'parent', 'source', 'date')
    WINDOW w AS (PARTITION BY picture, what, tag ORDER BY operation, n)
)
SELECT DISTINCT operation FROM steps
WHERE (at > 1 AND before IS NOT last) OR (at = 1 AND what = 'word' AND before IS NOT NULL)
"""
_LAST: Final = """
last AS (
    SELECT picture, tag, after FROM (
        SELECT picture, tag, after, row_number() OVER (PARTITION BY picture, tag ORDER BY operation DESC, n DESC) AS at
        FROM changes WHERE what = '{what}'
    ) WHERE at = 1
)
"""
_WORDS_UNLIKE_LOG: Final = f"""
WITH {_LAST.format(what="word")}
SELECT picture FROM words WHERE verdict IS NOT (
    SELECT after FROM changes WHERE changes.picture = words.picture AND what = 'word' AND changes.tag = words.tag
    ORDER BY +operation DESC, +n DESC LIMIT 1)
UNION
SELECT picture FROM last WHERE after IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM words WHERE words.picture = last.picture AND words.tag = last.tag)
"""
_WORDS_OF_OTHERS: Final = """
SELECT DISTINCT picture FROM words WHERE NOT EXISTS (
    SELECT 1 FROM changes WHERE changes.picture = words.picture AND +changes.operation = words.operation
    AND what = 'word' AND changes.tag = words.tag AND after = verdict)
"""
_WORDS_OF_MACHINES: Final = """
SELECT DISTINCT picture FROM words JOIN sources ON sources.id = words.source WHERE kind != 'person'
"""
_COLUMN_UNLIKE_LOG: Final = f"""
WITH {_LAST.format(what="{column}")}
SELECT id FROM pictures JOIN last ON last.picture = id WHERE {{column}} IS NOT last.after
"""
_TAGGINGS_OF_PERSONS: Final = """
SELECT DISTINCT picture FROM taggings JOIN sources ON sources.id = taggings.source WHERE kind = 'person'
"""
