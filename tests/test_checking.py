"""A collection is checked: whatever another program or a bad disk did to it is named; a good one is left in peace."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest
from collection_world import make_file, make_tagger, tagged

from efuda.collection import Collection
from efuda.collection.checking import check
from efuda.collection.record import Record
from efuda.collection.scanning import scan
from efuda.errors import CollectionError


@pytest.fixture
def art(tmp_path: Path) -> Iterator[Collection]:
    """Three tagged pictures; a person said hat on the first and not scarf, changed their mind, and took it back."""
    tagger = make_tagger(tmp_path / "model", ["hat", "scarf"])
    files = [make_file(tmp_path / "art" / f"{n}.png", f"picture {n}".encode()) for n in range(3)]
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        collection.add([tagged(tagger, path, {"scarf": 0.9, "general": 0.8}) for path in files], tagger)
        for verdicts in ({"hat": 1, "scarf": -1}, {"scarf": 1}, {"scarf": None}):
            with collection.record.write() as writing:
                operation = writing.operation("edit", "me", "said")
                for name, verdict in verdicts.items():
                    writing.word(operation, 1, writing.tag(name), verdict)  # type: ignore[arg-type]
                writing.set(operation, 2, "parent", 1 if verdicts.get("hat") else None)
        yield collection


def test_all_is_well(art: Collection) -> None:
    told: list[tuple[str, int, int | None]] = []
    found = check(
        art.record, files=True, progress=lambda step, done, total=None, **more: told.append((step, done, total))
    )
    assert found == []
    assert told[-1] == ("read", 3, 3)


def test_a_new_collection_and_one_of_version_1_are_well(tmp_path: Path) -> None:
    from efuda.collection.migrations import MIGRATIONS
    from efuda.collection.schema import APPLICATION_ID

    with closing(Record.open(tmp_path / "new.efuda", create=True)) as record:
        assert check(record) == []
    with closing(apsw.Connection(str(tmp_path / "old.efuda"))) as db:
        MIGRATIONS[0](db)
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", 1)
    with closing(Record.open(tmp_path / "old.efuda")) as record:
        assert check(record) == []


HAT, SCARF = "(SELECT id FROM tags WHERE name = 'hat')", "(SELECT id FROM tags WHERE name = 'scarf')"


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM words", "What persons said is not what the log ends with, at 1 picture (1)."),
        ("UPDATE words SET verdict = -1", "What persons said is not what the log ends with, at 1 picture (1)."),
        (
            f"INSERT INTO words SELECT 2, {SCARF}, 1, source, at, operation FROM words",
            "What persons said is not what the log ends with, at 1 picture (2).",
        ),
        ("UPDATE words SET operation = operation + 1", "Words of persons come from operations that did not say them"),
        ("UPDATE words SET source = 1", "Words are said by what is no person, at 1 picture (1)."),
        ("UPDATE words SET operation = 99", "1 rows refer to others that are not there: words → operations."),
        ("DELETE FROM tags WHERE name = 'hat'", "rows refer to others that are not there"),
        ("UPDATE pictures SET revision = 99 WHERE id = 2", "1 picture (2) changed after the last change, revision 4."),
        ("DELETE FROM state WHERE key = 'revision'", "The collection does not know its revision."),
        ("UPDATE pictures SET parent = 3 WHERE id = 2", "The parent is not what the log ends with, at 1 picture (2)."),
        ("UPDATE pictures SET parent = id WHERE id = 3", "Pictures are their own parents: 1 picture (3)."),
        ("UPDATE taggings SET scores = x'00000000'", "Scores make no sense, at 3 pictures (1, 2, 3)."),
        (
            "UPDATE taggings SET scores = CAST (scores || scores AS BLOB) WHERE id = 1",
            "Scores make no sense, at 1 picture (1).",
        ),
        ("UPDATE taggings SET scores = x'ffffffff' WHERE id = 1", "Scores make no sense, at 1 picture (1)."),
        ("UPDATE embeddings SET vector = x'0000' WHERE picture = 1", "Embeddings of one model differ"),
        ("DROP TRIGGER changes_delete", "The schema is not efuda's: changes_delete missing or changed"),
        ("DROP INDEX words_tag", "The schema is not efuda's: words_tag missing or changed"),
        (
            "DROP TRIGGER changes_update; UPDATE changes SET before = 1 WHERE operation = 3 AND n = 1",
            "The log does not follow from itself at operations 3.",
        ),
        (
            "DROP TRIGGER changes_delete; DELETE FROM changes WHERE operation = 3 AND n = 1",
            "The log does not follow from itself at operations 4.",
        ),
        (
            "DROP TRIGGER operations_update; UPDATE operations SET undoes = 4 WHERE id = 2",
            "Operations undo later ones: 2.",
        ),
    ],
)
def test_what_another_program_did_is_named(art: Collection, statement: str, sentence: str) -> None:
    with closing(apsw.Connection(str(art.path))) as db:
        db.pragma("foreign_keys", False)
        db.execute(statement)
    found = check(art.record)
    assert any(sentence in one for one in found), found
    assert all(one.endswith(".") for one in found)


def test_a_damaged_file_is_said_to_be(art: Collection) -> None:
    art.close()
    with closing(apsw.Connection(str(art.path))) as db:
        db.pragma("journal_mode", "delete")
    data = bytearray(art.path.read_bytes())
    data[4096 * 5 : 4096 * 9] = os.urandom(4096 * 4)
    art.path.write_bytes(data)
    with closing(Record.open(art.path)) as record:
        try:
            found = check(record)
        except CollectionError as error:
            found = [str(error)]
    assert "damaged" in found[0] and "estore" in found[0]


def test_files_are_compared_byte_for_byte(art: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "art"
    stat = (folder / "0.png").stat()
    data = bytearray((folder / "0.png").read_bytes())
    data[-1] ^= 1
    (folder / "0.png").write_bytes(data)
    os.utime(folder / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (folder / "1.png").write_bytes(b"other")
    (folder / "2.png").unlink()
    assert check(art.record) == []  # without files nobody looks
    found = check(art.record, files=True)
    assert [one.split(": ")[0] for one in found] == [
        f"{folder}/0.png holds other bytes, though its time and size are as they were. Compare it with a copy.",
        f"{folder}/1.png has been changed. Note it",
        f"{folder}/2.png is gone. Note it",
    ]


def test_a_file_that_came_back_is_told(art: Collection, tmp_path: Path) -> None:
    place = tmp_path / "art" / "2.png"
    data = place.read_bytes()
    place.unlink()
    scan(art.record)
    place.write_bytes(data)
    assert check(art.record, files=True) == [f"{place} is back. Note it: efuda collection scan."]


def test_whatever_persons_do_the_log_says_the_same(art: Collection, tmp_path: Path) -> None:
    """A hundred edits, removals, undos, redos and merges in a random order."""
    rng = random.Random(11)
    tagger = make_tagger(tmp_path / "model", ["hat", "scarf"])

    def one() -> None:
        some = rng.sample((1, 2, 3), rng.randint(1, 3))
        tag = rng.choice(("hat", "scarf", "solo"))
        match rng.randrange(8):
            case 0:
                art.edit(some, add=[tag])
            case 1:
                art.edit(some, remove=[tag], rating=rng.choice((None, "general", "explicit")))
            case 2:
                art.edit(some, forget=[tag])
            case 3:
                art.remove(some, back=rng.random() < 0.7)
            case 4:
                art.undo()
            case 5:
                art.redo()
            case 6:
                art.merge(some[0], some[1:])
            case 7:
                path = tmp_path / "art" / f"{rng.randrange(3)}.png"
                art.add([tagged(tagger, path, {tag: rng.random() for tag in ("hat", "scarf")})], tagger)

    for _ in range(150):
        with suppress(CollectionError):  # nothing to undo, say
            one()
    assert check(art.record, files=True) == []
