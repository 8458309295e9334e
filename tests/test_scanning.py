"""Looking through folders: everything is known by its content, and nothing is thought gone too easily."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collection_world import make_tagger, tagged
from PIL import Image

from efuda.collection import Collection
from efuda.collection.record import Record, rows
from efuda.collection.scanning import (
    Scanned,
    folders_of,
    forget_folder,
    remember_folders,
    scan,
    scan_files,
)
from efuda.collection.watching import watch
from efuda.errors import CollectionError


def draw(path: Path, colour: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    """A picture whose bytes depend on its colour and size alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour % 256, colour // 256, 0)).save(path, "PNG")
    return path


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    opened = Record.open(tmp_path / "art.efuda", create=True)
    yield opened
    opened.close()


@pytest.fixture
def art(tmp_path: Path) -> Path:
    for number in range(3):
        draw(tmp_path / "art" / f"{number}.png", number)
    return tmp_path / "art"


def counts(done: Scanned) -> dict[str, int]:
    """Those that are not nought, without the number of files."""
    names = ("unchanged", "added", "copied", "moved", "changed", "touched", "returned", "missing")
    return {name: number for name in names if (number := getattr(done, name))}


def files(record: Record) -> dict[str, tuple[int, bool]]:
    """Name → its picture, and whether it is marked missing."""
    with record.read() as db:
        found = rows(db, "SELECT path, picture, missing FROM files ORDER BY path")
    return {Path(os.fsdecode(path)).name: (picture, missing is not None) for path, picture, missing in found}


def test_new_pictures_are_known_without_a_model(record: Record, art: Path) -> None:
    draw(art / "deep" / "3.png", 3, (20, 10))
    done = scan(record, [art])
    assert counts(done) == {"added": 4} and done.files == 4
    with record.read() as db:
        [row] = rows(db, "SELECT width, height, filetype, length(md5) FROM pictures WHERE id = 4")
    assert row == (20, 10, "png", 16)
    assert counts(scan(record)) == {"unchanged": 4}  # the folder is remembered


def test_moved_and_renamed_files_are_the_same_pictures(record: Record, art: Path) -> None:
    scan(record, [art])
    (art / "0.png").rename(art / "renamed.png")
    (art / "sub").mkdir()
    (art / "1.png").rename(art / "sub" / "1.png")
    assert counts(scan(record)) == {"unchanged": 1, "moved": 2}
    assert files(record) == {"2.png": (3, False), "renamed.png": (1, False), "1.png": (2, False)}


def test_duplicates_share_one_entry(record: Record, art: Path) -> None:
    shutil.copy(art / "0.png", art / "copy.png")
    assert counts(scan(record, [art])) == {"added": 3, "copied": 1}
    assert files(record)["copy.png"] == files(record)["0.png"] == (1, False)


def test_missing_files_are_kept_and_marked_until_they_come_back(record: Record, art: Path) -> None:
    scan(record, [art])
    kept = (art / "0.png").read_bytes()
    (art / "0.png").unlink()
    before = record.revision
    assert counts(scan(record)) == {"unchanged": 2, "missing": 1}
    assert files(record)["0.png"] == (1, True) and record.revision == before + 1
    assert counts(scan(record)) == {"unchanged": 2}  # marked once
    assert record.revision == before + 1
    (art / "0.png").write_bytes(kept)
    assert counts(scan(record)) == {"unchanged": 2, "returned": 1}
    assert files(record)["0.png"] == (1, False)
    (art / "0.png").unlink()
    scan(record)
    (art / "elsewhere.png").write_bytes(kept)
    assert counts(scan(record)) == {"unchanged": 2, "returned": 1}
    assert files(record) == {"1.png": (2, False), "2.png": (3, False), "elsewhere.png": (1, False)}


def test_other_contents_at_a_path_are_another_picture(record: Record, art: Path) -> None:
    scan(record, [art])
    draw(art / "0.png", 99)
    assert counts(scan(record)) == {"unchanged": 2, "changed": 1}
    assert files(record)["0.png"] == (4, False)
    with Collection.open(record.path) as collection:
        assert collection.picture(1).path == Path() and collection.picture(1).missing is not None


def test_a_touched_file_is_read_and_stays_what_it_was(record: Record, art: Path) -> None:
    scan(record, [art])
    os.utime(art / "0.png", (1, 1))
    assert counts(scan(record)) == {"unchanged": 2, "touched": 1}
    assert counts(scan(record)) == {"unchanged": 3}


def test_a_dry_run_says_the_same_and_writes_nothing(record: Record, art: Path) -> None:
    shutil.copy(art / "0.png", art / "copy.png")
    assert counts(scan(record, [art], dry_run=True)) == {"added": 3, "copied": 1}
    assert record.revision == 0 and folders_of(record) == []
    scan(record, [art])
    (art / "0.png").rename(art / "renamed.png")
    (art / "1.png").unlink()
    revision = record.revision
    said = counts(scan(record, dry_run=True))
    assert said == {"unchanged": 2, "moved": 1, "missing": 1} and record.revision == revision
    assert counts(scan(record)) == said


@pytest.mark.parametrize("gone", ["folder", "contents"])
def test_an_unplugged_drive_makes_nothing_missing(record: Record, art: Path, gone: str) -> None:
    scan(record, [art])
    revision = record.revision
    art.rename(art.with_name("unplugged"))
    if gone == "contents":
        art.mkdir()  # the empty place that it was mounted at
    done = scan(record)
    assert counts(done) == {} and record.revision == revision
    [sentence] = done.withheld
    assert "3 files of the collection would be marked as missing" in sentence and "--yes" in sentence
    done = scan(record, trust=True)
    assert counts(done) == {"missing": 3} and done.withheld == []
    art.exists() and art.rmdir()
    art.with_name("unplugged").rename(art)
    assert counts(scan(record)) == {"returned": 3}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_makes_nothing_missing(record: Record, art: Path) -> None:
    scan(record, [art])
    art.chmod(0)
    try:
        done = scan(record)
    finally:
        art.chmod(0o755)
    assert counts(done) == {} and [one.reason for one in done.failed] == ["cannot be read (no permission to read it)"]


def test_one_drive_unplugged_does_not_keep_another_from_being_scanned(
    record: Record, art: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    draw(other / "a.png", 50)
    draw(other / "b.png", 51)
    scan(record, [art, other])
    shutil.rmtree(art)
    (other / "a.png").unlink()
    draw(other / "c.png", 52)
    done = scan(record)
    assert counts(done) == {"unchanged": 1, "added": 1, "missing": 1}
    assert len(done.withheld) == 1 and done.withheld[0].startswith(str(art))


def test_most_of_a_folder_is_not_thought_gone_either(record: Record, tmp_path: Path) -> None:
    art = tmp_path / "art"
    for number in range(202):
        draw(art / ("deep" if number else "top") / f"{number}.png", number)
    scan(record, [art])
    shutil.rmtree(art / "deep")
    done = scan(record)
    assert counts(done) == {"unchanged": 1}
    assert "lacks most of its pictures: 201 files" in done.withheld[0]


def test_what_is_no_picture_fails_alone(record: Record, art: Path) -> None:
    (art / "text.jpg").write_text("hello")
    (art / "empty.png").touch()
    (art / "link.png").symlink_to(art / "nowhere.png")
    (art / "notes.txt").write_text("no picture's name")
    (art / ".hidden.png").write_bytes((art / "0.png").read_bytes())
    done = scan(record, [art])
    assert counts(done) == {"added": 3}
    assert {(one.path.name, one.reason) for one in done.failed} == {
        ("text.jpg", "not a picture"),
        ("empty.png", "an empty file"),
    }


def test_names_that_are_no_text(record: Record, art: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(art) + b"/\xff\xfe.png"))
    draw(odd, 77)
    draw(art / "絵札.png", 78)
    assert counts(scan(record, [art])) == {"added": 5}
    assert counts(scan(record)) == {"unchanged": 5}
    odd.unlink()
    assert counts(scan(record)) == {"unchanged": 4, "missing": 1}


def test_files_that_lie_in_no_folder_are_looked_at_too(tmp_path: Path, art: Path) -> None:
    alone = draw(tmp_path / "alone" / "a.dat", 60)
    beside = draw(tmp_path / "alone" / "b.png", 61)
    tagger = make_tagger(tmp_path / "model", ["hat"])
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        collection.add([tagged(tagger, path, {"hat": 0.9}) for path in (alone, beside)], tagger)
        assert counts(scan(collection.record)) == {"unchanged": 2}
        alone.unlink()
        assert counts(scan(collection.record)) == {"unchanged": 1, "missing": 1}
        assert counts(scan(collection.record, [art])) == {"added": 3}  # only there


def test_folders_are_remembered_once(record: Record, art: Path, tmp_path: Path) -> None:
    (art / "sub").mkdir()
    remember_folders(record, [art, art / "sub", art])
    assert [one.path for one in folders_of(record)] == [art]
    forget_folder(record, art)
    assert folders_of(record) == []
    with pytest.raises(CollectionError, match="is none of the folders"):
        forget_folder(record, art)
    with pytest.raises(CollectionError, match="knows no folder to look through"):
        scan(record)


def test_a_folder_in_another_is_looked_through_once(record: Record, art: Path) -> None:
    draw(art / "sub" / "9.png", 9)
    assert scan(record, [art / "sub"]).files == 1
    assert scan(record, [art]).files == 4
    assert scan(record).files == 4


def test_a_removed_picture_stays_removed(record: Record, art: Path) -> None:
    scan(record, [art])
    with record.write() as writing:
        writing.set(writing.operation("remove", "me", "removed 1 picture"), 1, "removed", 1)
    shutil.copy(art / "0.png", art / "again.png")
    assert counts(scan(record)) == {"unchanged": 3, "copied": 1}
    with Collection.open(record.path) as collection:
        assert collection.picture(1).removed


def test_single_files_as_a_watch_names_them(record: Record, art: Path) -> None:
    scan(record, [art])
    new = draw(art / "new.png", 40)
    (art / "0.png").rename(art / "renamed.png")
    (art / "1.png").unlink()
    done = scan_files(record, [new, art / "renamed.png", art / "0.png", art / "1.png"])
    assert counts(done) == {"added": 1, "moved": 1, "missing": 1}
    shutil.rmtree(art)
    assert counts(scan_files(record, [new, art / "2.png"])) == {}  # a whole folder: that is for a scan to say


def test_progress_is_told(record: Record, art: Path) -> None:
    told: list[tuple[str, int, int | None]] = []

    def progress(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        told.append((step, done, total))

    scan(record, [art], progress=progress)
    assert told == [("look", 3, 3), ("read", 1, 3), ("read", 2, 3), ("read", 3, 3)]


def test_a_scan_killed_at_any_moment_is_gone_on_with(tmp_path: Path) -> None:
    art = tmp_path / "art"
    for number in range(300):
        draw(art / f"{number}.png", number)
    path = tmp_path / "art.efuda"
    code = (
        "import sys; from pathlib import Path; from efuda.collection.record import Record\n"
        "from efuda.collection import scanning; scanning._BATCH = 10\n"
        "scanning.scan(Record.open(Path(sys.argv[1]), create=True), [Path(sys.argv[2])])"
    )
    rng = random.Random(7)
    seen = 0
    for _ in range(6):
        job = subprocess.Popen([sys.executable, "-c", code, path, art])
        time.sleep(0.2 + rng.random() * 0.6)
        job.send_signal(signal.SIGKILL)
        job.wait()
        if path.exists():
            with Collection.open(path, create=True) as collection, collection.record.read() as db:
                assert rows(db, "PRAGMA integrity_check") == [("ok",)]
                assert rows(db, "PRAGMA foreign_key_check") == []
                [(pictures,)] = rows(db, "SELECT count(*) FROM pictures")
                [(kept,)] = rows(db, "SELECT count(*) FROM files")
                assert pictures == kept >= seen
                seen = pictures
    record = Record.open(path, create=True)
    assert counts(scan(record, [art])) in ({"unchanged": seen, "added": 300 - seen}, {"unchanged": 300}, {"added": 300})
    record.close()


@pytest.mark.parametrize("events", [True, False])
def test_a_watch_notes_what_happens(record: Record, art: Path, events: bool) -> None:
    if events:
        pytest.importorskip("watchfiles")
    stop = threading.Event()
    seen: list[dict[str, int]] = []
    every = 600.0 if events else 0.5

    def look() -> None:
        seen.extend(map(counts, watch(record, [art], every=every, settled=0.2, events=events, stop=stop)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        wait_for(lambda: seen == [{"added": 3}])
        time.sleep(0.5)  # the system begins to tell
        with (art / "growing.png").open("wb") as file:
            data = draw(art.parent / "new.png", 70).read_bytes()
            for start in range(0, len(data), 10):
                file.write(data[start : start + 10])
                file.flush()
                time.sleep(0.02)
        wait_for(lambda: files(record).get("growing.png") == (4, False))
        (art / "0.png").rename(art / "renamed.png")
        wait_for(lambda: files(record).get("renamed.png") == (1, False) and "0.png" not in files(record))
        (art / "1.png").unlink()
        wait_for(lambda: files(record)["1.png"] == (2, True))
    finally:
        stop.set()
        thread.join()
    assert sum(one.get("added", 0) for one in seen) == 4  # the growing file came once, whole


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_a_watch_misses_nothing_that_happens_during_its_first_look(record: Record, art: Path) -> None:
    pytest.importorskip("watchfiles")
    looks = watch(record, [art], settled=0.1, events=True)
    assert counts(next(looks)) == {"added": 3}
    draw(art / "meanwhile.png", 90)
    time.sleep(0.5)
    assert counts(next(looks)) == {"added": 1}
    looks.close()
