"""The record beneath a collection: older files converted, reads of one moment, writes whole or not at all."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from efuda.collection import Collection, TagOn
from efuda.collection.migrations import MIGRATIONS
from efuda.collection.record import Record, rows
from efuda.errors import CollectionError
from efuda.vocabulary import Category


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path / "art.efuda", create=True)
    yield record
    record.close()


def add_pictures(record: Record, count: int) -> None:
    with record.write() as writing:
        for picture in range(1, count + 1):
            values = (picture.to_bytes(32, "big"), writing.at, writing.at, writing.revision)
            writing.db.execute(
                "INSERT INTO pictures (sha256, bytes, filetype, width, height, added, date, revision) "
                "VALUES (?, 1, 'png', 1, 1, ?, ?, ?)",
                values,
            )


def revisions(record: Record) -> list[int]:
    with record.read() as db:
        return [one for (one,) in rows(db, "SELECT revision FROM pictures ORDER BY id")]


# Older files


def make_version_1(path: Path) -> None:
    """Two pictures, one of them seen by two models, the other no longer on the disk."""
    db = apsw.Connection(str(path))
    db.pragma("application_id", 0x65667564)
    MIGRATIONS[0](db)
    db.pragma("user_version", 1)
    at = "2026-01-02T03:04:05Z"
    for number in (1, 2):
        db.execute("INSERT INTO pictures VALUES (?, ?, 10, 'png', 4, 3, ?)", (number, bytes([number] * 32), at))
    db.execute("INSERT INTO files VALUES ('/a.png', 1, 1700000000123456789)")
    db.execute("INSERT INTO files VALUES (x'8e97', 1, 1800000000000000000)")
    db.execute("INSERT INTO tags VALUES (3, 'hat', 0), (300, 'rating:general', 9), (1, 'miku', 4)")
    db.execute("INSERT INTO models VALUES (5, 'old@1', 'old'), (6, 'new@2', 'new')")
    db.execute("INSERT INTO taggings VALUES (11, 1, 5, '2026-02-01T00:00:00Z'), (12, 2, 5, ?), (20, 1, 6, ?)", (at, at))
    db.execute("INSERT INTO predictions VALUES (11, 3, 20, 0), (20, 300, 255, 1), (20, 3, 200, 1), (20, 1, 128, 1)")
    db.close()


def test_a_file_of_version_1_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "art.efuda"
    make_version_1(path)
    with Collection.open(path) as collection:
        by = {"by": "model", "source": "new@2", "at": "2026-01-02T03:04:05Z"}
        [picture] = collection.search("hat").pictures
        assert picture.tags == [
            TagOn("hat", Category.GENERAL, 200 / 255, **by),
            TagOn("miku", Category.CHARACTER, 128 / 255, **by),
        ]
        assert (picture.id, picture.path, picture.rating, picture.model) == (1, Path("/a.png"), "general", "new")
        assert (picture.date, picture.md5) == ("2023-11-14T22:13:20Z", "")
        assert collection.picture(2).missing == collection.picture(2).date == "2026-01-02T03:04:05Z"
        with collection.record.read() as db:
            found = rows(db, "SELECT id, picture, source, operation, scores FROM taggings")
            assert found == [
                (11, 1, 5, 1, struct.pack("<I", 3 << 9 | 20)),
                (12, 2, 5, 1, b""),
                (20, 1, 6, 2, struct.pack("<3I", 1 << 9 | 256 | 128, 3 << 9 | 256 | 200, 300 << 9 | 256 | 255)),
            ]
            assert rows(db, "SELECT at, source, kind, summary FROM operations") == [
                ("2026-01-02T03:04:05Z", 5, "add", "added with old before there was a log"),
                ("2026-01-02T03:04:05Z", 6, "add", "added with new before there was a log"),
            ]
            assert rows(db, "PRAGMA foreign_key_check") == []
            assert rows(db, "SELECT name FROM sqlite_schema WHERE name LIKE 'old%' OR name = 'predictions'") == []


# Reading and writing


def test_a_write_is_whole_or_not_there(record: Record) -> None:
    add_pictures(record, 2)
    with pytest.raises(ZeroDivisionError), record.write() as writing:
        operation = writing.operation("edit", "me", "added hat to 1 picture")
        writing.word(operation, 1, writing.tag("hat"), 1)
        raise ZeroDivisionError
    with record.read() as db:
        for table in ("operations", "changes", "words", "tags", "sources"):
            assert rows(db, f"SELECT * FROM {table}") == []
    assert record.revision == 1


def test_each_write_stamps_what_it_touches(record: Record) -> None:
    add_pictures(record, 3)
    assert (record.revision, revisions(record)) == (1, [1, 1, 1])
    with record.write() as writing:
        writing.touch([1, 3])
    assert (record.revision, revisions(record)) == (2, [2, 1, 2])
    with record.write():
        pass
    assert record.revision == 2
    with record.write() as writing:
        writing.word(writing.operation("edit", "me", "…"), 2, writing.tag("hat"), -1)
    assert (record.revision, revisions(record)) == (3, [2, 3, 2])


def test_a_read_is_of_one_moment(record: Record) -> None:
    add_pictures(record, 1)
    with record.read() as db:
        assert rows(db, "SELECT count(*) FROM words") == [(0,)]
        with record.write() as writing:
            writing.word(writing.operation("edit", "me", "…"), 1, writing.tag("hat"), 1)
        with record.read() as same:
            assert rows(same, "SELECT count(*) FROM words") == [(0,)]
    with record.read() as db:
        assert rows(db, "SELECT count(*) FROM words") == [(1,)]
        with pytest.raises(apsw.ReadOnlyError):
            db.execute("DELETE FROM words")


def test_the_log_cannot_be_altered(record: Record) -> None:
    add_pictures(record, 1)
    with record.write() as writing:
        writing.word(writing.operation("edit", "me", "…"), 1, writing.tag("hat"), 1)
    statements = (
        "UPDATE operations SET kind = ''",
        "DELETE FROM operations",
        "UPDATE changes SET n = 9",
        "DELETE FROM changes",
    )
    for statement in statements:
        with pytest.raises(apsw.ConstraintError, match="append-only"), record.write() as writing:
            writing.db.execute(statement)


def test_threads_write_one_after_another_and_read_meanwhile(record: Record) -> None:
    add_pictures(record, 4)
    failures: list[BaseException] = []

    def work(picture: int) -> None:
        try:
            for step in range(25):
                with record.write(durable=False) as writing:
                    operation = writing.operation("edit", f"person {picture}", f"step {step}")
                    writing.word(operation, picture, writing.tag(f"tag{step}"), 1)
                with record.read() as db:
                    count = "SELECT count(*), (SELECT count(*) FROM operations) FROM words"
                    [(words, operations)] = rows(db, count)
                    assert words == operations
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(picture,)) for picture in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert record.revision == 101
    with record.read() as db:
        assert rows(db, "SELECT count(*), count(DISTINCT tag) FROM words") == [(100, 25)]


def test_a_closed_record_says_so(record: Record) -> None:
    record.close()
    for use in (record.read, record.write):
        with pytest.raises(CollectionError, match="has been closed"):
            enter(use())


def enter(context: Any) -> None:
    with context:
        raise AssertionError("it is closed")
