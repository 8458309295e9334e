"""Datasets by hand: what is counted, cut, split, rejected and packed, and what an interruption leaves behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import SIDE, TINY, draw, draw_dump, post, write_lines
from PIL import Image

from efuda.artifacts import Dataset, has_marker
from efuda.datasets import packing, prepare
from efuda.errors import InputError, MetadataError, OutputError
from efuda.recipes import Recipe, load_recipe

MakeRecipe = Callable[..., Recipe]


def table_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row)


# A dump by hand, from lines to shards

HAND = [
    post(1, ["cat", "hat"]),
    post(2, ["kitty", "cat"]),
    post(3, ["hat", "gone"]),
    "oops",
    post(4, ["cat"], parent_id=1),
    post(5, ["cat"], is_deleted=True),
    post(6, ["hat"]),
    post(6, ["cat"]),
    {**post(0, ["hat"]), "id": None},
    post(7, ["cat"]),
    post(8, ["cat"]),
    post(9, ["cat"]),
    post(10, ["cat"]),
    post(11, ["secret", "cat"]),
    post(12, ["hat"], parent_id=11),
]
HAND_RECIPE = [
    "posts.deleted=false",
    "posts.max_bad_lines=0.1",
    "vocabulary.minimum_count=2",
    "vocabulary.ratings=true",
    "images.exact_size=32",
    "images.pack=16",
    "images.single_colour=true",
    "split.near_duplicates=none",
    'split.hold_out=["secret"]',
]


def picture_of(images: Path, number: int) -> Path:
    path = images / f"{number % 1000:04d}" / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hand")
    write_lines(root / "metadata" / "posts.json", [row if isinstance(row, str) else _json(row) for row in HAND])
    aliases = [
        {"antecedent_name": "kitty", "consequent_name": "cat", "status": "active"},
        {"antecedent_name": "gone", "consequent_name": "cat", "status": "deleted"},
    ]
    write_lines(root / "metadata" / "tag_aliases.json", aliases)
    for number in (1, 2, 3, 4, 5, 6, 8, 11, 12):
        Image.new("RGB", (32, 32), (10 * number, 0, 0)).save(picture_of(root / "512px", number))
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture_of(root / "512px", 8))
    picture_of(root / "512px", 8).write_bytes(picture_of(root / "512px", 8).read_bytes()[:-600])
    Image.new("RGB", (20, 32)).save(picture_of(root / "512px", 9))
    picture_of(root / "512px", 10).write_text("not a picture at all")
    return root


@pytest.fixture(scope="module")
def by_hand(hand: Path) -> Dataset:
    return prepare([hand / "metadata"], hand / "512px", hand / "dataset", load_recipe(None, HAND_RECIPE), workers=1)


def test_the_funnel_by_hand(by_hand: Dataset) -> None:
    funnel = by_hand.funnel
    splits = {name: funnel.pop(name) for name in ("train", "validation", "test")}
    assert sum(splits.values()) == 5
    assert funnel == {
        "entries": 14,
        "bad_lines": 1,
        "sampled": 14,
        "unique_tags": 3,  # cat, hat, gone; secret only in what is held out
        "kept_tags": 6,  # four ratings, cat, hat
        "posts": 11,
        "images_found": 10,
        "images_verified": 7,
        "unseen": 2,
    }


def test_what_was_rejected_by_hand(by_hand: Dataset, hand: Path) -> None:
    rows = [tuple(row.values()) for row in table_of(by_hand.root / "rejected.parquet")]
    assert sorted(rows, key=str) == sorted(
        [
            (None, "metadata", "not a JSON object", f"{hand}/metadata/posts.json:4"),
            (None, "posts", "no id", None),
            (6, "posts", "a later entry has the same id", None),
            (5, "posts", "deleted", None),
            (7, "images", "missing", None),
            (8, "images", "truncated", "0008/8.jpg"),
            (9, "images", "20×32 instead of 32×32", "0009/9.jpg"),
            (10, "images", "not a picture", "0010/10.jpg"),
        ],
        key=str,
    )


def test_tags_by_hand(by_hand: Dataset) -> None:
    assert [(tag.name, tag.count) for tag in by_hand.vocabulary] == [
        ("general", 12),
        ("sensitive", 0),
        ("questionable", 0),
        ("explicit", 0),
        ("cat", 8),  # not 5, deleted, nor 11, which is held out
        ("hat", 4),  # not the earlier 6
    ]
    cat = table_of(by_hand.root / "tags.parquet")[4]
    assert cat["aliases"] == ["kitty"]
    assert (cat["train"] + cat["validation"] + cat["test"], cat["unseen"]) == (4, 1)


def test_posts_by_hand(by_hand: Dataset, hand: Path) -> None:
    rows = {row["id"]: row for row in table_of(by_hand.root / "posts.parquet")}
    assert {post: row["tags"] for post, row in rows.items()} == {
        1: [0, 4, 5],
        2: [0, 4],
        3: [0, 5],
        4: [0, 4],
        6: [0, 4],
        11: [0, 4],
        12: [0, 5],
    }
    assert {post: row["group"] for post, row in rows.items() if row["group"] != post} == {4: 1, 12: 11}
    assert rows[1]["split"] == rows[4]["split"] != "unseen"
    assert [post for post, row in rows.items() if row["split"] == "unseen"] == [11, 12]
    original = picture_of(hand / "512px", 1).read_bytes()
    assert rows[1]["md5"] == hashlib.md5(original).hexdigest()
    assert (rows[1]["width"], rows[1]["height"], rows[1]["path"]) == (32, 32, "0001/1.jpg")


def test_the_unseen_split_is_read_like_any_other(by_hand: Dataset) -> None:
    unseen = by_hand.posts("unseen")
    assert unseen.ids.tolist() == [11, 12]
    assert unseen.labels([0, 1], 6).astype(int).tolist() == [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]]


def test_packed_copies_are_jpegs_in_a_tar(by_hand: Dataset) -> None:
    with tarfile.open(by_hand.root / "shards" / "000000.tar") as archive:
        assert archive.getnames() == [f"{number}.jpg" for number in (1, 2, 3, 4, 6, 11, 12)]
        stored = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    unseen = by_hand.posts("unseen")
    for row, number in enumerate(unseen.ids):
        data = unseen.read(row)
        assert data == stored[f"{number}.jpg"]
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (16, 16))
            assert picture.getpixel((8, 8))[0] == pytest.approx(10 * number, abs=3)  # type: ignore[index]


def test_a_finished_dataset_is_not_made_again_nor_overwritten_by_another(by_hand: Dataset, hand: Path) -> None:
    def again(*overrides: str, metadata: Path = hand / "metadata") -> Dataset:
        return prepare([metadata], hand / "512px", by_hand.root, load_recipe(None, [*HAND_RECIPE, *overrides]))

    marker = (by_hand.root / "efuda.json").stat().st_mtime_ns
    start = time.monotonic()
    assert again().digest == by_hand.digest
    assert time.monotonic() - start < 1
    with pytest.raises(OutputError, match="is a finished dataset, made with another recipe"):
        again("vocabulary.minimum_count=3")
    again("train.epochs=77")  # training's keys are none of a dataset's business
    other = write_lines(hand / "other" / "posts.json", [post(1, ["cat"])])
    with pytest.raises(OutputError, match="made from other metadata or images"):
        again(metadata=other)
    assert (by_hand.root / "efuda.json").stat().st_mtime_ns == marker


# The drawn dump, which has both schemas


def test_the_funnel_of_the_drawn_dump(dataset: Dataset) -> None:
    funnel = dataset.funnel
    assert {name: funnel[name] for name in list(funnel)[:8]} == {
        "entries": 120,
        "bad_lines": 0,
        "sampled": 120,
        "unique_tags": 7,  # four grounds, three shapes
        "kept_tags": 7,
        "posts": 120,
        "images_found": 120,
        "images_verified": 120,
    }
    assert funnel["train"] + funnel["validation"] + funnel["test"] == 120
    assert sum(tag.count for tag in dataset.vocabulary) == 240  # a ground and a shape each
    posts = dataset.posts("train")
    assert all(len(posts.tags(row)) == 2 for row in range(len(posts)))
    assert posts.read(0) == posts.picture_path(0).read_bytes()
    assert not list((dataset.root / "shards").glob("*.tar"))


# Faults


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "empty is empty"),
        ("file", "file is not a folder"),
        ("nowhere", "nowhere is not a folder"),
        ("others", "holds none of the 120 posts' pictures"),
    ],
)
def test_a_wrong_images_folder(tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    picture_of(tmp_path / "others", 5).touch()
    with pytest.raises(InputError, match=message):
        prepare([dump / "metadata"], tmp_path / name, tmp_path / "out", tiny_recipe())
    assert not has_marker(tmp_path / "out")


def test_other_faults_stop_before_a_picture_is_opened(tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe) -> None:
    out, images = tmp_path / "out", dump / "512px"
    with pytest.raises(MetadataError, match="does not exist"):
        prepare([tmp_path / "nowhere"], images, out, tiny_recipe())
    with pytest.raises(InputError, match="No tag is left"):
        prepare([dump / "metadata"], images, out, tiny_recipe("vocabulary.minimum_count=1000"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        prepare([dump / "metadata"], images, tmp_path / "file" / "out", tiny_recipe())
    assert not list(out.glob("*.parquet"))


def test_pictures_that_are_all_of_the_wrong_size(tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(InputError, match=f"None of 120 pictures can be used: {SIDE}×{SIDE} instead of 512×512"):
        prepare([dump / "metadata"], dump / "512px", tmp_path / "out", tiny_recipe("images.exact_size=512"), workers=1)
    assert not has_marker(tmp_path / "out")


# Interruptions


def contents(dataset: Path) -> dict[str, str]:
    """Digest of every file that a dataset is made of, its marker apart."""
    files = (path for path in sorted(dataset.rglob("*")) if path.is_file() and path.name != "efuda.json")
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_any_number_of_workers_and_an_interruption_give_the_same_bytes(
    tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "CHUNK", 50)
    recipe = tiny_recipe("images.pack=32")

    def make(name: str, workers: int) -> dict[str, str]:
        return contents(prepare([dump / "metadata"], dump / "512px", tmp_path / name, recipe, workers=workers).root)

    whole = make("one", 1)
    assert sorted(name for name in whole if name.endswith(".tar")) == [f"shards/00000{n}.tar" for n in range(3)]
    assert make("two", 2) == whole
    for name in ("efuda.json", "posts.parquet", "shards/000001.parquet"):
        (tmp_path / "two" / name).unlink()
    kept = (tmp_path / "two" / "shards" / "000002.tar").stat().st_mtime_ns
    assert make("two", 2) == whole
    assert (tmp_path / "two" / "shards" / "000002.tar").stat().st_mtime_ns == kept


KILLED = """
import sys
from pathlib import Path
from efuda.datasets import packing, prepare
from efuda.recipes import load_recipe
packing.CHUNK = 4
dump, out = Path(sys.argv[1]), Path(sys.argv[2])
prepare([dump / "metadata"], dump / "512px", out, load_recipe(None, sys.argv[3:]), workers=1)
"""


def test_a_killed_prepare_goes_on_and_leaves_no_process_behind(
    tmp_path: Path, dump: Path, dataset: Dataset, tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(dump), str(out), *TINY], start_new_session=True)
    first = out / "shards" / "000000.parquet"
    try:
        wait_until(first.is_file)
        process.kill()
        process.wait()
        assert not has_marker(out)
        wait_until(lambda: not group_alive(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    written = first.stat().st_mtime_ns
    monkeypatch.setattr(packing, "CHUNK", 4)
    again = prepare([dump / "metadata"], dump / "512px", out, tiny_recipe(), workers=1)
    assert first.stat().st_mtime_ns == written  # not decoded again
    for name in ("posts.parquet", "tags.parquet", "rejected.parquet", "funnel.json"):
        assert (out / name).read_bytes() == (dataset.root / name).read_bytes()
    assert again.digest == dataset.digest
    assert not list(out.rglob(".*"))


def test_killed_twenty_times_at_random_it_ends_with_the_same_bytes(
    tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 to every process at once, wherever they are: reading, decoding, writing."""
    monkeypatch.setattr(packing, "CHUNK", 4)
    settings = [*TINY, "images.pack=48"]
    whole = contents(
        prepare(dump / "metadata", dump / "512px", tmp_path / "whole", load_recipe(None, settings), workers=1).root
    )
    rng, kills, place = random.Random(11), 0, 0
    code = KILLED.replace("workers=1", "workers=2")
    while kills < 20:
        out = tmp_path / f"out{place}"
        command = [sys.executable, "-c", code, str(dump), str(out), *settings]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            process.wait(timeout=rng.uniform(0.5, 2.5))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        assert contents(out) == whole
        place += 1
    out = tmp_path / f"out{place}"
    assert (
        contents(prepare(dump / "metadata", dump / "512px", out, load_recipe(None, settings), workers=1).root) == whole
    )
    assert not (out / ".work").exists()


LIMITED = """
import resource, sys
from pathlib import Path
from efuda.datasets import prepare
from efuda.errors import OutputError
from efuda.recipes import load_recipe
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
dump, out = Path(sys.argv[1]), Path(sys.argv[2])
try:
    prepare(dump / "metadata", dump / "512px", out, load_recipe(None, sys.argv[4:]), workers=1)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [500, 4_000, 40_000])
def test_a_disk_that_is_full_is_said_and_the_same_command_goes_on(
    tmp_path: Path, dump: Path, limit: int, by_size: dict[str, str]
) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    settings = [*TINY, "images.pack=48"]
    command = [sys.executable, "-c", LIMITED, str(dump), str(tmp_path / "out"), str(limit), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "out" in done.stdout
    assert not has_marker(tmp_path / "out")
    again = prepare(dump / "metadata", dump / "512px", tmp_path / "out", load_recipe(None, settings), workers=1)
    assert contents(again.root) == by_size


@pytest.fixture(scope="module")
def by_size(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    recipe = load_recipe(None, [*TINY, "images.pack=48"])
    return contents(prepare(dump / "metadata", dump / "512px", out, recipe, workers=1).root)


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def group_alive(group: int) -> bool:
    """Whether a process of this group runs; one that waits for its parent to notice its end does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


LOCKING = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def test_two_at_work_in_one_place_are_told(tmp_path: Path, dump: Path, tiny_recipe: MakeRecipe) -> None:
    (tmp_path / "out" / ".work").mkdir(parents=True)
    command = [sys.executable, "-c", LOCKING, str(tmp_path / "out" / ".work" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match="another efuda prepare is at work there"):
            prepare(dump / "metadata", dump / "512px", tmp_path / "out", tiny_recipe(), workers=1)
        other.communicate()


def test_overwrite_makes_it_anew_without_what_is_stale(tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    root = draw_dump(tmp_path / "dump", posts=30)
    recipe = tiny_recipe("images.pack=32", "vocabulary.minimum_count=1")
    made = prepare([root / "metadata"], root / "512px", tmp_path / "out", recipe, workers=1)
    shutil.rmtree(root / "512px" / "0001")  # the first post's picture
    shutil.copy(made.root / "shards" / "000000.tar", made.root / "shards" / "000007.tar")
    again = prepare([root / "metadata"], root / "512px", tmp_path / "out", recipe, overwrite=True, workers=1)
    assert (made.marker.counts["posts"], again.marker.counts["posts"]) == (30, 29)
    assert again.digest != made.digest
    assert sorted(path.name for path in (again.root / "shards").iterdir()) == ["000000.parquet", "000000.tar"]


# A dataset that grows


def split_of(dataset: Dataset) -> dict[int, str]:
    return {row["id"]: row["split"] for row in table_of(dataset.root / "posts.parquet")}


def test_an_extended_dataset_adds_posts_and_tags_and_moves_nothing(
    tmp_path: Path, tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw_dump(tmp_path / "dump", posts=60)
    images = root / "512px"
    recipe = tiny_recipe("images.pack=32", "posts.every=2")
    base = prepare(root / "metadata", images, tmp_path / "one", recipe, workers=1)
    rng = random.Random(5)
    new = []
    for number in range(5000, 5020):
        draw("red", "circle", rng).save(picture_of(images, number))
        parent = 1001 if number == 5000 else None
        new.append(post(number, ["red_background", "circle", "fresh"], parent_id=parent))
    more = write_lines(tmp_path / "more" / "posts.json", new)
    opened: list[int] = []
    read_rgb = packing.read_rgb
    monkeypatch.setattr(packing, "read_rgb", lambda data: opened.append(len(data)) or read_rgb(data))
    grown = prepare(more, images, tmp_path / "two", tiny_recipe("images.pack=32"), extend=base.root, workers=1)
    assert (len(split_of(base)), len(split_of(grown))) == (30, 80)
    assert {post: split_of(grown)[post] for post in split_of(base)} == split_of(base)
    assert split_of(grown)[5000] == split_of(base)[1001]
    added = set(grown.vocabulary.names) - set(base.vocabulary.names)
    assert "fresh" in added and set(base.vocabulary.names) < set(grown.vocabulary.names)
    assert len(opened) == 50  # the thirty known pictures were copied
    report = (grown.root / "report.html").read_text()
    assert "What changed" in report and "fresh" in report
    assert base.digest == Dataset.open(base.root).digest
    again = prepare(more, images, tmp_path / "two", tiny_recipe("images.pack=32"), extend=base.root, workers=1)
    assert again.digest == grown.digest


def test_tags_of_the_earlier_dataset_stay_however_rare_they_become(tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    root = draw_dump(tmp_path / "dump", posts=40)
    few = tiny_recipe("vocabulary.minimum_count=3")
    base = prepare(root / "metadata", root / "512px", tmp_path / "one", few, workers=1)
    more = tiny_recipe("vocabulary.minimum_count=30")
    with pytest.raises(InputError, match="No tag is left"):
        prepare(root / "metadata", root / "512px", tmp_path / "two", more, extend=base.root, workers=1)
    some = tiny_recipe("vocabulary.minimum_count=12")
    grown = prepare(root / "metadata", root / "512px", tmp_path / "two", some, extend=base.root, workers=1)
    assert set(grown.vocabulary.names) == set(base.vocabulary.names)


# Other sources, the whole way


def test_a_folder_of_captioned_pictures_is_a_dataset(tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    rng = random.Random(1)
    (tmp_path / "art" / "more").mkdir(parents=True)
    for number in range(24):
        picture = tmp_path / "art" / ("more" if number % 2 else "") / f"picture {number}.png"
        draw("red" if number % 3 else "blue", "circle", rng).save(picture)
        picture.with_suffix(".txt").write_text(f"{'red' if number % 3 else 'blue'} background, circle\n")
    made = prepare(tmp_path / "art", [], tmp_path / "out", tiny_recipe("vocabulary.minimum_count=2"), workers=1)
    assert made.marker.counts["sources"] == [f"caption files: 24 files at {tmp_path / 'art'}"]
    assert {tag.name: tag.count for tag in made.vocabulary} == {
        "circle": 24,
        "red_background": 16,
        "blue_background": 8,
    }
    posts = made.posts("train")
    assert len(posts.read(0)) > 100


# Near-duplicates


def test_near_duplicates_share_a_group_and_a_split(tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    rows = []
    for number in range(1, 41):
        rng = np.random.default_rng((number + 1) // 2)  # pairs of copies
        picture = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        picture.save(picture_of(tmp_path / "512px", number), quality=95 if number % 2 else 60)
        rows.append(post(number, ["a"]))
    metadata = write_lines(tmp_path / "posts.json", rows)
    recipe = tiny_recipe("split.near_duplicates=4")
    made = prepare(metadata, tmp_path / "512px", tmp_path / "out", recipe, workers=1)
    groups = {row["id"]: row["group"] for row in table_of(made.root / "posts.parquet")}
    assert groups == {number: number - (number + 1) % 2 for number in range(1, 41)}
    splits = split_of(made)
    assert all(splits[number] == splits[number + 1] for number in range(1, 41, 2))
