"""The collection on real SQLite files: what is kept, moved, replaced and refused, and what a kill leaves behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest
from collection_world import make_file, make_tagger, tagged

from efuda.collection import Added, Collection, TagOn
from efuda.collection.adding import File
from efuda.collection.schema import VERSION
from efuda.errors import CollectionError, InputError, OutputError, QueryError
from efuda.tagging import Failed, Tagged, Tagger
from efuda.vocabulary import Category, Tag

TAGS = ["glasses", "hat", "smile", "ribbon"]


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    return make_tagger(tmp_path / "model", TAGS)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        yield collection


def ids(collection: Collection, query: str = "") -> list[int]:
    return [picture.id for picture in collection.search(query).pictures]


def paths(collection: Collection, query: str = "") -> list[Path]:
    return [picture.path for picture in collection.search(query).pictures]


# What is kept


def test_a_picture_comes_back_as_it_was_tagged(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.png")
    scores = {"glasses": 0.5, "hat": 0.8, "smile": 0.2, "ribbon": 0.01, "general": 0.9, "sensitive": 0.1}
    assert collection.add([tagged(tagger, path, scores, (300, 200))], tagger) == Added(1, 0, [])
    [picture] = collection.search().pictures
    assert (picture.id, picture.path, picture.width, picture.height) == (1, path, 300, 200)
    by = {"by": "model", "source": tagger.identity, "at": picture.added}
    assert picture.tags == [
        TagOn("hat", Category.GENERAL, 204 / 255, **by),
        TagOn("glasses", Category.GENERAL, 128 / 255, **by),
    ]
    assert list(picture.ratings.items())[:2] == [("general", 230 / 255), ("sensitive", 26 / 255)]
    assert (picture.model, picture.rating, picture.filetype) == ("model", "general", "png")
    assert picture.added.endswith("Z") and picture.missing is None and not picture.removed
    content = path.read_bytes()
    assert picture.md5 == hashlib.md5(content).hexdigest() and picture.sha256 == hashlib.sha256(content).hexdigest()


def test_low_scores_are_kept_to_the_floor_and_no_further(tmp_path: Path, collection: Collection) -> None:
    tagger = make_tagger(tmp_path / "low", ["glasses", "hat", "smile"], ratings=False, threshold=0.02)
    collection.add([tagged(tagger, make_file(tmp_path / "a.png"), {"glasses": 0.03, "hat": 0.019})], tagger)
    assert ids(collection, "glasses") == ids(collection, "ai:glasses>=0.02") == [1]
    with pytest.raises(QueryError, match="no picture has the tag hat"):
        collection.search("hat")


def test_the_best_rating_wins_however_low(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    collection.add([tagged(tagger, make_file(tmp_path / "a.png"), {"general": 0.01, "explicit": 0.0101})], tagger)
    assert ids(collection, "rating:e") == [1]
    assert ids(collection, "rating:g") == []
    [picture] = collection.search().pictures
    assert (next(iter(picture.ratings)), picture.rating) == ("explicit", "explicit")


def test_scores_that_are_no_numbers_count_as_nothing(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    row = np.full(len(tagger.vocabulary), np.nan, dtype=np.float32)
    collection.add([Tagged.of(make_file(tmp_path / "a.png"), (1, 1), row)], tagger)
    assert collection.search().pictures[0].tags == []


def test_status_and_tags(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    for number, scores in enumerate([{"hat": 0.9, "smile": 0.1}, {"hat": 0.9, "glasses": 0.9}]):
        collection.add([tagged(tagger, make_file(tmp_path / f"{number}.png"), {**scores, "general": 0.9})], tagger)
    assert collection.tags() == [("hat", Category.GENERAL, 2), ("glasses", Category.GENERAL, 1)]
    status = collection.status()
    assert status.pop("bytes") > 0
    assert status == {
        "pictures": 2,
        "missing": 0,
        "removed": 0,
        "files": 2,
        "tags": 3,
        "postings": 12,
        "words": 0,
        "models": [{"name": "model", "identity": tagger.identity, "pictures": 2}],
        "imports": [],
        "folders": [],
        "operations": 2,
        "revision": 2,
        "schema": VERSION,
    }


def test_failures_are_counted_and_do_not_stop_the_rest(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    gone = tagged(tagger, tmp_path / "gone.png", {"hat": 1})
    bad = Failed(tmp_path / "bad.png", "truncated")
    seen: list[tuple[int, str]] = []

    def progress(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        seen.append((done, note))

    added = collection.add(
        [bad, gone, tagged(tagger, make_file(tmp_path / "a.png"), {"hat": 1})], tagger, progress=progress
    )
    assert (added.added, [one.path.name for one in added.failed]) == (1, ["bad.png", "gone.png"])
    assert seen == [(1, "1 failed"), (2, "2 failed"), (3, "2 failed")]


# Content and paths


def test_a_moved_file_keeps_its_id_and_is_not_tagged_again(
    collection: Collection, tagger: Tagger, tmp_path: Path
) -> None:
    old = make_file(tmp_path / "old.png")
    collection.add([tagged(tagger, old, {"hat": 1})], tagger)
    new = tmp_path / "folder" / "new.png"
    new.parent.mkdir()
    old.rename(new)
    assert list(collection.untagged([new], tagger.identity)) == []
    assert (ids(collection), paths(collection)) == ([1], [new])
    assert collection.status()["files"] == 1


def test_a_moved_file_that_is_tagged_again_keeps_its_id(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    old = make_file(tmp_path / "old.png")
    collection.add([tagged(tagger, old, {"hat": 1})], tagger)
    new = old.rename(tmp_path / "new.png")
    assert collection.add([tagged(tagger, new, {"smile": 1})], tagger) == Added(0, 1, [])
    assert (ids(collection), paths(collection, "smile")) == ([1], [new])


def test_a_copy_is_the_same_picture_at_two_paths(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    one, two = make_file(tmp_path / "b.png", b"same"), make_file(tmp_path / "a.png", b"same")
    added = collection.add([tagged(tagger, one, {"hat": 1}), tagged(tagger, two, {"hat": 1})], tagger)
    assert (added.added, added.updated) == (1, 1)
    assert (ids(collection), paths(collection)) == ([1], [two])
    assert ids(collection, "path:a.png") == ids(collection, "path:b.png") == [1]


def test_a_tagging_without_a_vector_counts_only_where_none_is_asked_for(
    collection: Collection, tagger: Tagger, tmp_path: Path
) -> None:
    seen, blank = make_file(tmp_path / "a.png"), make_file(tmp_path / "b.png")
    collection.add([tagged(tagger, seen, {"hat": 1}), tagged(tagger, blank, {})], tagger)
    assert list(collection.untagged([seen, blank], tagger.identity)) == []
    assert list(collection.untagged([seen, blank], tagger.identity, vectors=True)) == [blank]


def test_a_changed_file_is_another_picture(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.png", b"first")
    collection.add([tagged(tagger, path, {"hat": 1})], tagger)
    make_file(path, b"second")
    assert list(collection.untagged([path], tagger.identity)) == [path]
    collection.add([tagged(tagger, path, {"smile": 1})], tagger)
    assert (ids(collection), collection.status()["pictures"]) == ([2], 1)
    make_file(path, b"first")
    assert list(collection.untagged([path], tagger.identity)) == []
    assert ids(collection, "hat") == [1]


def test_untagged_passes_over_what_this_model_has_seen(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    one, two, three = (make_file(tmp_path / f"{number}.png") for number in range(3))
    other = make_tagger(tmp_path / "other", TAGS)
    collection.add([tagged(tagger, one, {"hat": 1})], tagger)
    collection.add([tagged(other, two, {"hat": 1})], other)
    assert list(collection.untagged([one, two, three, tmp_path / "gone.png"], tagger.identity)) == [
        two,
        three,
        tmp_path / "gone.png",
    ]
    os.utime(one, (1, 1))
    assert list(collection.untagged([one], tagger.identity)) == []


def test_relative_paths_become_absolute(
    collection: Collection, tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    collection.add([tagged(tagger, Path("a.png"), {"hat": 1})], tagger)
    assert paths(collection) == [path]
    assert list(collection.untagged([path, Path("./a.png")], tagger.identity)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    path = make_file(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\x8e\x97.png")))
    collection.add([tagged(tagger, path, {"hat": 1})], tagger)
    assert paths(collection) == paths(collection, "path:.png") == [path]
    assert list(collection.untagged([path], tagger.identity)) == []


# Models


def test_the_same_model_replaces_and_another_adds(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.png")
    other = make_tagger(tmp_path / "other", [Tag("hat", Category.CHARACTER), "long_hair"])
    collection.add([tagged(tagger, path, {"hat": 1, "smile": 1})], tagger)
    collection.add([tagged(tagger, path, {"hat": 1})], tagger)
    assert collection.tags() == [("hat", Category.GENERAL, 1)]
    collection.add([tagged(other, path, {"hat": 1, "long_hair": 1})], other)
    assert collection.tags() == [("hat", Category.CHARACTER, 1), ("long_hair", Category.GENERAL, 1)]
    assert collection.search().pictures[0].model == "other"
    assert [model["pictures"] for model in collection.status()["models"]] == [1, 1]
    collection.add([tagged(tagger, path, {"smile": 1})], tagger)
    assert collection.search("smile").pictures[0].model == "model"


def test_each_picture_is_searched_by_its_own_latest_model(
    collection: Collection, tagger: Tagger, tmp_path: Path
) -> None:
    one, two = make_file(tmp_path / "1.png"), make_file(tmp_path / "2.png")
    other = make_tagger(tmp_path / "other", TAGS)
    collection.add([tagged(tagger, one, {"hat": 1}), tagged(tagger, two, {"hat": 1})], tagger)
    collection.add([tagged(other, one, {"smile": 1})], other)
    assert (ids(collection, "hat"), ids(collection, "smile")) == ([2], [1])


# Interruption


def test_what_came_before_an_interruption_is_kept(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    for error in (KeyboardInterrupt(), InputError("a folder is gone")):

        def results(error: BaseException = error) -> Iterator[Tagged]:
            for number in range(3):
                yield tagged(tagger, make_file(tmp_path / f"{type(error).__name__}{number}.png"), {"hat": 1})
            raise error

        with pytest.raises(type(error)):
            collection.add(results(), tagger)
    assert ids(collection, "hat") == [6, 5, 4, 3, 2, 1]


def test_a_search_sees_what_another_connection_added(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    assert collection.search().total == 0
    with Collection.open(collection.path) as second:
        second.add([tagged(tagger, make_file(tmp_path / "a.png"), {"hat": 1})], tagger)
        assert collection.search("hat").total == second.search("hat").total == 1


KILLED = """
    import sys
    from pathlib import Path
    from collection_world import make_tagger, tagged
    from efuda.collection import Collection
    from efuda.collection import adding

    adding._BATCH = 7
    root = Path(sys.argv[1])
    tagger = make_tagger(root / "model", ["glasses", "hat", "smile", "ribbon"])
    pictures = sorted((root / "pictures").iterdir())
    with Collection.open(Path(sys.argv[2]), create=True) as collection:
        print("open", flush=True)
        todo = collection.untagged(pictures, tagger.identity)
        results = (tagged(tagger, path, {"hat": 1, "smile": int(path.stem) / 400}) for path in todo)
        collection.add(results, tagger, progress=lambda step, done, total=None, **more: print(done, flush=True))
"""


def content(path: Path) -> list[tuple[object, ...]]:
    """Everything a collection says, without times and tagging numbers."""
    with Collection.open(path) as collection:
        found = collection.search("order:id limit:1000")
        return [
            (one.id, one.path, [(tag.name, tag.score) for tag in one.tags], one.ratings, one.width, one.model)
            for one in found.pictures
        ]


def test_a_kill_at_any_moment_loses_nothing_that_was_whole(tmp_path: Path) -> None:
    for number in range(400):
        make_file(tmp_path / "pictures" / f"{number:03}.png")
    script = tmp_path / "add.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path), str(tmp_path / name)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> int:
        with process:
            return process.wait(60)

    assert finish(start("undisturbed")) == 0
    partial = 0
    moments = (("open", 0), ("open", 0.002), ("1", 0), ("8", 0.001), ("40", 0), ("60", 0.0005), ("90", 0.003))
    for printed, seconds in moments:
        process = start("killed")
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"{printed}\n":
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        finish(process)
        db = apsw.Connection(str(tmp_path / "killed"))
        assert db.execute("PRAGMA integrity_check").get == "ok"
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        whole = db.execute("SELECT count(*) FROM pictures").get
        counts = db.execute("SELECT length(scores) / 4 FROM taggings").fetchall()
        db.close()
        assert len(counts) == whole and {*counts} <= {(5,), (6,)}  # hat, four ratings, and smile from 0.05 on
        partial += isinstance(whole, int) and 0 < whole < 400
    assert partial > 2, "the kills no longer fall into the writing; choose other moments"
    assert finish(start("killed")) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "undisturbed")


# What is refused


def test_what_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="efuda collection add COLLECTION PATHS --model MODEL"):
        Collection.open(tmp_path / "missing")
    with pytest.raises(CollectionError, match="is a folder"):
        Collection.open(tmp_path, create=True)
    (tmp_path / "text").write_text("not a database, and long enough to have a header to look at " * 40)
    foreign = apsw.Connection(str(tmp_path / "foreign"))
    foreign.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    foreign.close()
    (tmp_path / "empty").touch()
    for name, create in (("text", True), ("foreign", True), ("foreign", False), ("empty", False)):
        with pytest.raises(CollectionError, match="not an efuda collection"):
            Collection.open(tmp_path / name, create=create)
    Collection.open(tmp_path / "empty", create=True).close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Collection.open(tmp_path / "art", create=True).close()
    db = apsw.Connection(str(tmp_path / "art"))
    db.pragma("user_version", VERSION + 1)
    db.close()
    with pytest.raises(CollectionError, match="newer efuda"):
        Collection.open(tmp_path / "art")


def test_folders_above_are_made(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "a" / "b" / "絵.efuda", create=True) as collection:
        assert collection.search().total == 0 and collection.tags() == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Collection.open(tmp_path / "file" / "art", create=True)


def test_a_collection_in_use_says_so(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    other = apsw.Connection(str(collection.path))
    other.execute("BEGIN IMMEDIATE")
    collection.record._writer.set_busy_timeout(1)
    with pytest.raises(CollectionError, match="in use"):
        collection.add([tagged(tagger, make_file(tmp_path / "a.png"), {"hat": 1})], tagger)
    other.close()
    collection.add([tagged(tagger, make_file(tmp_path / "a.png"), {"hat": 1})], tagger)
    assert ids(collection, "hat") == [1]


def test_a_full_disk_keeps_what_was_there(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    collection.add([tagged(tagger, make_file(tmp_path / "a.png"), {"hat": 1})], tagger)
    collection.record._writer.pragma("max_page_count", collection.record._writer.pragma("page_count") + 1)
    more = [tagged(tagger, make_file(tmp_path / f"{number}.png"), {"hat": 1}) for number in range(150)]
    with pytest.raises(OutputError, match="the disk is full"):
        collection.add(more, tagger)
    assert ids(collection, "hat") == [1]
    collection.record._writer.pragma("max_page_count", 100_000)
    assert collection.add(more, tagger).added == 150


def test_a_damaged_file_is_named(tmp_path: Path, tagger: Tagger) -> None:
    path = tmp_path / "art"
    with Collection.open(path, create=True) as collection:
        more = [tagged(tagger, make_file(tmp_path / f"{number}.png"), {"hat": 1}) for number in range(150)]
        collection.add(more, tagger)
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * (path.stat().st_size - 4096 * 2))
    with pytest.raises(CollectionError, match="is damaged"), Collection.open(path) as collection:
        collection.search("hat")


def test_several_processes_may_create_one_collection(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from efuda.collection import Collection\n"
    script += "Collection.open(Path(sys.argv[1]), create=True).close()"
    command = [sys.executable, "-c", script, str(tmp_path / "art")]
    processes = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) for _ in "1234"]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("head", "filetype"),
    [
        (b"\xff\x0a", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"\0\0\0\x18ftypheic", "heic"),
        (b"\0\0\0\x18ftypmif1", "heic"),
        (b"\0\0\0\x18ftypavis", "avif"),
        (b"\0\0\0\x18ftypisom", "other"),
        (b"", "other"),
    ],
)
def test_a_file_s_type_is_in_its_first_bytes(tmp_path: Path, head: bytes, filetype: str) -> None:
    (tmp_path / "picture").write_bytes(head)
    assert File.read(tmp_path / "picture").filetype == filetype
