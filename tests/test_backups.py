"""Backups are of one moment, whole or not there at all, and restoring loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from efuda.collection.backups import backup, backups_in, restore
from efuda.collection.record import Record, rows
from efuda.errors import CollectionError, OutputError, UsageError


def fill(record: Record, start: int, count: int) -> None:
    """Pictures whose id is said again by a word on them: what must never be there by half."""
    with record.write() as writing:
        operation = writing.operation("edit", "me", "drew")
        tag = writing.tag("hat")
        for n in range(start, start + count):
            writing.db.execute(
                "INSERT INTO pictures (sha256, bytes, filetype, width, height, added, date, revision) "
                "VALUES (?, 1, 'png', 1, 1, ?, ?, ?)",
                (n.to_bytes(32, "big"), writing.at, writing.at, writing.revision),
            )
            writing.word(operation, writing.db.last_insert_rowid(), tag, 1)


def numbers(path: Path) -> tuple[int, int, int]:
    """Pictures, words, changes; after proving that the file is whole by itself."""
    assert not path.with_name(path.name + "-wal").exists()
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        assert rows(db, "PRAGMA integrity_check") == [("ok",)]
        assert rows(db, "PRAGMA foreign_key_check") == []
        [(a,)], [(b,)], [(c,)] = (rows(db, f"SELECT count(*) FROM {t}") for t in ("pictures", "words", "changes"))
    return a, b, c


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    opened = Record.open(tmp_path / "art.efuda", create=True)
    fill(opened, 0, 50)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def test_a_backup_is_one_whole_file(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    assert made.parent == folder and made.name.startswith("art-2") and made.suffix == ".efuda"
    assert numbers(made) == (50, 50, 50)
    assert [*folder.iterdir()] == [made]
    named = backup(record.path, folder / "named.db")
    assert numbers(named) == (50, 50, 50)
    with pytest.raises(UsageError, match="exists"):
        backup(record.path, named)
    with pytest.raises(UsageError, match="--keep goes with a folder"):
        backup(record.path, folder / "other.db", keep=2)
    with pytest.raises(OutputError, match="does not exist"):
        backup(record.path, folder / "none" / "other.db")


def test_a_backup_while_others_write_is_of_one_moment(record: Record, folder: Path) -> None:
    stop = threading.Event()

    def go_on() -> None:
        start = 1000
        while not stop.is_set():
            fill(record, start, 20)
            start += 20

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        made = [backup(record.path, folder) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    found = [numbers(one) for one in made]
    assert found == sorted(found)
    for pictures, words, changes in found:
        assert pictures == words == changes and (pictures - 50) % 20 == 0


def test_the_oldest_are_rotated_away_and_only_those_of_this_collection(record: Record, folder: Path) -> None:
    others = [folder / "other-20200101T000000Z.efuda", folder / "art-holiday.efuda", folder / "art.efuda"]
    for one in (*others, folder / "art-20200101T000000Z.efuda", folder / "art-20210101T000000Z.efuda"):
        one.write_bytes(b"x")
    first = backup(record.path, folder, keep=3)
    second = backup(record.path, folder, keep=3)
    assert backups_in(folder, "art") == [second, first, folder / "art-20210101T000000Z.efuda"]
    assert all(one.exists() for one in others)


def test_a_damaged_collection_pushes_out_no_good_backup(record: Record, folder: Path) -> None:
    good = backup(record.path, folder)
    record.close()
    data = bytearray(record.path.read_bytes())
    data[4096 * 3 : 4096 * 8] = os.urandom(4096 * 5)
    record.path.write_bytes(data)
    with pytest.raises(CollectionError, match="is damaged"):
        backup(record.path, folder, keep=1)
    assert [*folder.iterdir()] == [good] and numbers(good) == (50, 50, 50)


def test_what_is_no_collection_is_neither_backed_up_nor_restored(record: Record, tmp_path: Path, folder: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello" * 1000)
    other = tmp_path / "other.db"
    with closing(apsw.Connection(str(other))) as db:
        db.execute("CREATE TABLE t (x)")
    record.close()
    for path in (text, other, tmp_path / "none"):
        with pytest.raises(CollectionError, match=r"not an efuda collection|is no file"):
            backup(path, folder)
        with pytest.raises(CollectionError, match=r"not an efuda collection|is no file"):
            restore(path, record.path)
    assert [*folder.iterdir()] == []
    assert numbers_of(record.path) == 50


def numbers_of(path: Path) -> int:
    with closing(Record.open(path)) as record, record.read() as db:
        return int(rows(db, "SELECT count(*) FROM pictures")[0][0])


def test_restoring_keeps_the_former_collection(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    fill(record, 100, 5)
    revision = record.revision
    record.close()
    for ending in (".index", ".vectors", ".thumbs"):
        record.path.with_name(record.path.name + ending).write_text("made from it")
    aside = restore(made, record.path)
    assert numbers_of(record.path) == 50 and aside is not None and numbers(aside) == (55, 55, 55)
    left = {one.name for one in record.path.parent.iterdir() if one.name.startswith("art")}
    assert left - {"art.efuda-wal", "art.efuda-shm"} == {"art.efuda", "art.efuda.thumbs", aside.name}
    with closing(Record.open(record.path)) as again:
        assert again.revision == revision + 1  # it goes on rising
    assert numbers(made) == (50, 50, 50)


def test_restoring_where_nothing_is(record: Record, folder: Path, tmp_path: Path) -> None:
    made = backup(record.path, folder)
    assert restore(made, tmp_path / "new.efuda") is None
    assert numbers_of(tmp_path / "new.efuda") == 50


def test_a_stale_wal_is_not_taken_for_that_of_the_restored_file(record: Record, folder: Path, tmp_path: Path) -> None:
    made = backup(record.path, folder)
    fill(record, 100, 5)
    place = tmp_path / "elsewhere" / "art.efuda"
    place.parent.mkdir()
    wal = place.with_name("art.efuda-wal")
    wal.write_bytes(record.path.with_name("art.efuda-wal").read_bytes())
    aside = restore(made, place)
    assert numbers_of(place) == 50
    assert aside is not None and aside.with_name(aside.name + "-wal").exists()


def test_a_damaged_collection_is_restored_and_kept(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    record.close()
    record.path.write_bytes(b"scrambled" * 1000)
    aside = restore(made, record.path)
    assert numbers_of(record.path) == 50
    assert aside is not None and aside.read_bytes() == b"scrambled" * 1000


def test_restoring_is_refused_while_someone_has_it_open(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    code = (
        "import sys; from pathlib import Path; from efuda.collection.record import Record\n"
        "record = Record.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    record.close()
    with subprocess.Popen(
        [sys.executable, "-c", code, record.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(CollectionError, match="is open in another program"):
            restore(made, record.path)
        other.communicate("")
    assert {one.name for one in folder.parent.iterdir()} >= {"art.efuda"}
    assert not [*folder.parent.glob("*before*")] and not [*folder.parent.glob(".*.part*")]
    restore(made, record.path)


def test_a_damaged_backup_is_not_restored(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    record.close()
    data = bytearray(made.read_bytes())
    data[4096 * 3 : 4096 * 8] = os.urandom(4096 * 5)
    made.write_bytes(data)
    with pytest.raises(CollectionError, match="is damaged"):
        restore(made, record.path)
    assert numbers_of(record.path) == 50
    with pytest.raises(CollectionError, match="is the collection itself"):
        restore(record.path, record.path)


def test_a_copy_that_is_only_read(record: Record, folder: Path) -> None:
    made = backup(record.path, folder)
    made.chmod(0o400)
    folder.chmod(0o500)
    try:
        restore(made, folder.parent / "new.efuda")
    finally:
        folder.chmod(0o700)
    assert numbers_of(folder.parent / "new.efuda") == 50


def test_progress_is_told_of_pages(record: Record, folder: Path) -> None:
    told: list[tuple[int, int | None]] = []
    backup(record.path, folder, progress=lambda step, done, total=None, **more: told.append((done, total)))
    assert told and told[-1][0] == told[-1][1]


@pytest.mark.parametrize("verb", ["backup(art, folder, keep=1)", "restore(good, art)"])
def test_a_disk_that_is_full_leaves_everything_as_it_was(record: Record, folder: Path, verb: str) -> None:
    good = backup(record.path, folder)
    fill(record, 1_000, 2_000)
    record.close()
    big = backup(record.path, folder.parent / "big.db") if verb.startswith("restore") else good
    code = (
        "import resource, sys; from pathlib import Path; from efuda.collection.backups import backup, restore\n"
        "from efuda.errors import OutputError\n"
        "art, folder, good = map(Path, sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"try:\n    {verb}\nexcept OutputError as error:\n    print(error)"
    )
    job = [sys.executable, "-c", code, record.path, folder, big]
    said = subprocess.run(job, capture_output=True, text=True, check=True).stdout
    assert "cannot be read or written" in said or "the disk is full" in said
    assert numbers_of(record.path) == 2_050
    assert [*folder.iterdir()] == [good] and numbers(good) == (50, 50, 50)
    assert not [*folder.parent.glob(".*part*")]


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_killed_at_any_moment_every_backup_is_whole(record: Record, folder: Path, verb: str) -> None:
    fill(record, 1_000, 5_000)
    good = backup(record.path, folder / "good.db")
    expected = (5_050,) * 3
    record.close()
    code = (
        "import sys; from pathlib import Path; from efuda.collection import backups; backups._PAGES_AT_ONCE = 20\n"
        "art, folder, good = map(Path, sys.argv[1:])\n"
        "print('go', flush=True)\n"
        "while True:\n"
        f"    {'backups.backup(art, folder, keep=3)' if verb == 'backup' else 'backups.restore(good, art).unlink()'}"
    )
    rng = random.Random(3)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", code, record.path, folder, good], stdout=subprocess.PIPE, text=True
        ) as job:
            assert job.stdout is not None and job.stdout.readline() == "go\n"
            time.sleep(rng.random() * 0.25)
            job.send_signal(signal.SIGKILL)
        made = backups_in(folder, "art")
        assert len(made) <= 4  # one may have come before the oldest went
        for one in (*made, good):
            assert numbers(one) == expected
        assert numbers_of(record.path) == 5_050
    if verb == "backup":
        backup(record.path, folder, keep=1)
        assert [*folder.glob(".*")] == []  # what was killed is cleaned up
        assert len(backups_in(folder, "art")) == 1
