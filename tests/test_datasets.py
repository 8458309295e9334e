"""Datasets by hand: what is counted, cut, split, rejected and packed, and what an interruption leaves behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import SIDE, TINY, draw_dump, old_post, post, write_lines
from PIL import Image
from sklearn.model_selection import train_test_split

from efuda.artifacts import Dataset, has_marker
from efuda.datasets import packing, prepare
from efuda.datasets.selection import choose_vocabulary, find_groups, sample, split_posts, tag_posts
from efuda.datasets.sources import Connection, connect, find_metadata, read_aliases, read_entries
from efuda.errors import InputError, MetadataError, OutputError
from efuda.recipes import Recipe, SplitRecipe, load_recipe
from efuda.vocabulary import Category, Tag, Vocabulary

MakeRecipe = Callable[..., Recipe]


def table_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def read(folder: Path, *files: Sequence[Any], max_bad_lines: float = 1.0) -> Connection:
    """A database whose `entries` come from files of these rows."""
    paths = [write_lines(folder / f"posts{number}.json", list(rows)) for number, rows in enumerate(files)]
    connection = connect(Path(":memory:"))
    read_entries(connection, paths, max_bad_lines=max_bad_lines)
    return connection


def chosen(connection: Connection, *overrides: str, aliases: dict[str, str] | None = None) -> Vocabulary:
    recipe = load_recipe(None, ["vocabulary.minimum_count=1", *overrides])
    sample(connection, recipe)
    return choose_vocabulary(connection, recipe, aliases or {})[0]


def column(connection: Connection, query: str) -> list[Any]:
    return [row[0] for row in connection.execute(query).fetchall()]


# Metadata


def test_metadata_is_found_as_named_in_a_folder_or_below_it(tmp_path: Path) -> None:
    for name in ("posts1.json", "posts0.jsonl.gz", "tag_aliases0.json", "notes.txt", "other.json"):
        (tmp_path / "metadata").mkdir(exist_ok=True)
        (tmp_path / "metadata" / name).touch()
    posts = [tmp_path / "metadata" / name for name in ("posts0.jsonl.gz", "posts1.json")]
    assert find_metadata([tmp_path / "metadata"]) == posts
    assert find_metadata([tmp_path]) == posts
    named = tmp_path / "metadata" / "other.json"
    assert find_metadata([named]) == [named]


def test_no_metadata_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tag_aliases0.json").touch()
    for paths, message in (
        ([tmp_path], "holds no metadata"),
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([], "No metadata file was named"),
    ):
        with pytest.raises(MetadataError, match=message):
            find_metadata(paths)


def test_a_file_that_holds_no_posts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match=r"posts0\.json does not look like Danbooru posts"):
        read(tmp_path, ['{"name": "a tag"}'])
    with pytest.raises(MetadataError, match=r"posts0\.json does not look like Danbooru posts"):
        read(tmp_path, [])


def test_both_schemas_give_the_same_entry(tmp_path: Path) -> None:
    old = old_post(7, ["hat"])
    old["tags"] += [{"id": "2", "name": "someone", "category": "1"}, {"id": "3", "name": "miku", "category": "4"}]
    new = post(7, ["hat"], tag_string_artist="someone", tag_string_character="miku")
    connection = read(tmp_path, [old], [new])
    one, other = connection.execute(
        "SELECT * REPLACE (nullif(meta, []) AS meta, nullif(copyright, []) AS copyright) FROM entries ORDER BY rowid"
    ).fetchall()
    assert one == other
    assert one[:6] == (7, None, "s", False, f"{7:032x}", "jpg")
    assert one[6:9] == (["hat"], ["someone"], None)


def test_bad_lines_are_counted_and_their_place_is_kept(tmp_path: Path) -> None:
    good = [post(number, ["a"]) for number in range(1, 4)]
    path = write_lines(tmp_path / "posts.json", [])
    lines = [f"{line}\n" for line in (_json(good[0]), "oops", "", _json(good[1]), "[1]", _json(good[2]))]
    path.write_text("".join(lines) + '{"id": 9, "tag_st')
    connection = connect(Path(":memory:"))
    count, bad = read_entries(connection, [path], max_bad_lines=0.5)
    assert count == 3
    assert [(one.line, one.text) for one in bad] == [(2, "oops"), (5, "[1]"), (7, '{"id": 9, "tag_st')]
    assert column(connection, "SELECT id FROM entries ORDER BY rowid") == [1, 2, 3]


def test_more_bad_lines_than_are_kept_are_all_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "posts.json", [_json(post(1, ["a"])), *["oops"] * 150])
    count, bad = read_entries(connect(Path(":memory:")), [path], max_bad_lines=1.0)
    assert (count, len(bad)) == (150, 100)


def test_too_many_bad_lines_stop_unless_allowed(tmp_path: Path) -> None:
    rows = [_json(post(number, ["a"])) for number in range(1, 99)]
    with pytest.raises(
        MetadataError, match=r"2 of 100 lines are not JSON objects, more than 1\.0%: posts0\.json, line 99"
    ):
        read(tmp_path, [*rows, "oops", "oops"], max_bad_lines=0.01)
    read(tmp_path, [*rows, "oops", "oops"], max_bad_lines=0.02)
    read(tmp_path, [*rows[:1], *["oops"] * 50], max_bad_lines=1.0)


def test_aliases_are_followed_to_their_end_and_only_active_ones(tmp_path: Path) -> None:
    posts = write_lines(tmp_path / "posts0.json", [post(1, ["a"])])
    alias = lambda name, tag, **more: {"antecedent_name": name, "consequent_name": tag, **more}  # noqa: E731
    rows = [
        alias("a", "b", status="active"),
        alias("b", "c"),
        alias("gone", "c", status="deleted"),
        alias("x", "y"),
        alias("y", "x"),
    ]
    write_lines(tmp_path / "tag_aliases000000000000.json", rows)
    found = read_aliases([posts])
    assert (found["a"], found["b"]) == ("c", "c")
    assert "gone" not in found
    assert set(found) == {"a", "b", "x", "y"}  # a circle ends somewhere


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row)


# Selection


def test_every_kth_entry_starts_with_the_first_across_files(tmp_path: Path) -> None:
    rows = [post(number, ["a"]) for number in range(10, 17)]
    connection = read(tmp_path, rows[:3], rows[3:])
    assert sample(connection, load_recipe(None, ["posts.every=3"])) == {"entries": 7, "sampled": 3, "posts": 3}
    assert column(connection, "SELECT id FROM posts ORDER BY entry") == [10, 13, 16]


def test_the_reference_samples_740982_of_2963928_entries() -> None:
    connection = connect(Path(":memory:"))
    connection.execute("CREATE TABLE entries AS SELECT range + 1 AS id, false AS deleted FROM range(2963928)")
    funnel = sample(connection, load_recipe("reference"))
    assert funnel == {"entries": 2_963_928, "sampled": 740_982, "posts": 740_982}
    assert column(connection, "SELECT id FROM posts ORDER BY entry LIMIT 3") == [1, 5, 9]


def test_the_reference_splits_84430_as_scikit_learn_does() -> None:
    """ceil(84,430 × 0.2) = 16,886 test; of the 67,544 left ceil(13,508.8) = 13,509 validation."""
    ids = np.arange(84_430, dtype=np.int64) + 1
    splits = np.array(split_posts(ids, ids, np.zeros(84_430, dtype=bool), load_recipe("reference").split))
    assert Counter(splits.tolist()) == {"train": 54_035, "validation": 13_509, "test": 16_886}
    rest, test = train_test_split(ids, test_size=0.2, random_state=0)
    train, validation = train_test_split(rest, test_size=0.2, random_state=0)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        assert set(ids[splits == name].tolist()) == set(expected.tolist())


def test_three_posts_are_too_few_to_split_at_random() -> None:
    ids = np.arange(3, dtype=np.int64)
    with pytest.raises(InputError, match="3 posts are too few"):
        split_posts(ids, ids, np.zeros(3, dtype=bool), SplitRecipe(method="random"))


def test_a_hashed_split_is_about_as_large_as_asked_and_never_changes_for_a_post() -> None:
    ids = np.arange(1, 20_001, dtype=np.int64)
    none = np.zeros(len(ids), dtype=bool)
    splits = split_posts(ids, ids, none, SplitRecipe())
    shares = {name: count / len(ids) for name, count in Counter(splits).items()}
    assert shares == pytest.approx({"train": 0.64, "validation": 0.16, "test": 0.20}, abs=0.01)
    assert split_posts(ids[500:], ids[500:], none[500:], SplitRecipe()) == splits[500:]
    assert split_posts(ids, ids, none, SplitRecipe(seed=1)) != splits


def test_relatives_are_one_group_wherever_they_stand(tmp_path: Path) -> None:
    rows = [post(5, ["a"], parent_id=3), post(9, ["a"], parent_id=5), post(4, ["a"]), post(8, ["a"], parent_id=77)]
    old = old_post(3, ["a"])
    assert find_groups(read(tmp_path, rows, [old])) == {3: 3, 5: 3, 9: 3, 8: 8, 77: 8}


def test_relatives_share_a_split() -> None:
    ids = np.arange(1, 301, dtype=np.int64)
    groups = (ids - 1) // 3 * 3 + 1
    splits = np.array(split_posts(ids, groups, np.zeros(300, dtype=bool), SplitRecipe())).reshape(100, 3)
    assert all(len(set(three)) == 1 for three in splits.tolist())
    assert len(set(splits[:, 0].tolist())) == 3


@pytest.mark.parametrize("method", ["hash", "random"])
def test_held_out_posts_take_their_relatives_along(method: Any) -> None:
    ids = np.arange(1, 31, dtype=np.int64)
    groups = np.where(ids == 2, 1, ids)
    splits = split_posts(ids, groups, ids == 1, SplitRecipe(method=method))
    assert splits[:2] == ["unseen", "unseen"]
    assert "unseen" not in splits[2:]


def test_rows_without_an_id_and_earlier_rows_of_an_id_are_left_out(tmp_path: Path) -> None:
    rows = [post(1, ["a"]), {**post(2, ["a"]), "id": None}, post(3, ["old"]), post(3, ["new"]), post(0, ["a"])]
    connection = read(tmp_path, rows)
    assert sample(connection, load_recipe(None)) == {"entries": 5, "sampled": 5, "posts": 2}
    assert connection.execute("SELECT id, general FROM posts ORDER BY entry").fetchall() == [(1, ["a"]), (3, ["new"])]
    rejected = connection.execute("SELECT id, stage, reason FROM rejected").fetchall()
    assert rejected == [(None, "posts", "no id"), (0, "posts", "no id"), (3, "posts", "a later entry has the same id")]


def test_deleted_posts_are_used_or_not_as_the_recipe_says(tmp_path: Path) -> None:
    connection = read(tmp_path, [post(1, ["a"]), post(2, ["a"], is_deleted=True)])
    assert sample(connection, load_recipe(None))["posts"] == 2
    assert sample(connection, load_recipe(None, ["posts.deleted=false"]))["posts"] == 1
    assert connection.execute("SELECT id, reason FROM rejected").fetchall() == [(2, "deleted")]


def test_the_minimum_count_is_met_by_exactly_so_many(tmp_path: Path) -> None:
    connection = read(tmp_path, [post(1, ["a", "b"]), post(2, ["a", "b"]), post(3, ["a"])])
    assert list(chosen(connection, "vocabulary.minimum_count=2")) == [Tag("a", count=3), Tag("b", count=2)]
    assert list(chosen(connection, "vocabulary.minimum_count=3")) == [Tag("a", count=3)]
    with pytest.raises(InputError, match="No tag is left: none of 2 occurs in at least 4"):
        chosen(connection, "vocabulary.minimum_count=4")


def test_categories_and_a_tag_that_moved_between_them(tmp_path: Path) -> None:
    rows = [post(n, ["hat"], tag_string_artist="moved", tag_string_character="miku") for n in (1, 2)]
    rows.append(post(3, ["hat", "moved"]))
    connection = read(tmp_path, rows)
    assert list(chosen(connection)) == [
        Tag("hat", Category.GENERAL, 3),
        Tag("miku", Category.CHARACTER, 2),
        Tag("moved", Category.ARTIST, 3),
    ]
    assert chosen(connection, 'vocabulary.categories=["character"]').names == ("miku",)


def test_a_tag_counts_once_where_it_and_its_alias_stand_together(tmp_path: Path) -> None:
    rows = [post(1, ["cat", "kitty", "cat"]), post(2, ["kitty"]), post(3, ["cat"], tag_string_meta="kitty")]
    connection = read(tmp_path, rows)
    assert list(chosen(connection, aliases={"kitty": "cat"})) == [Tag("cat", Category.GENERAL, 3)]
    without = chosen(connection, "vocabulary.aliases=false", aliases={"kitty": "cat"})
    assert {tag.name: tag.count for tag in without} == {"cat": 2, "kitty": 3}


def test_counts_are_those_of_the_sample(tmp_path: Path) -> None:
    connection = read(tmp_path, [post(number, ["a" if number % 2 else "b"]) for number in range(1, 9)])
    assert list(chosen(connection, "posts.every=2")) == [Tag("a", count=4)]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("sqe", [["general"], ["questionable"], ["explicit"]]),
        ("gsqe", [["general"], ["sensitive"], ["questionable"], ["explicit"]]),
    ],
)
def test_ratings_of_three_and_of_four_levels(tmp_path: Path, letters: str, expected: list[list[str]]) -> None:
    rows = [post(number, ["a"], rating=letter) for number, letter in enumerate(letters, start=1)]
    connection = read(tmp_path, rows)
    vocabulary = chosen(connection, "vocabulary.ratings=true")
    assert vocabulary.names == ("general", "sensitive", "questionable", "explicit", "a")
    assert [tag.count for tag in vocabulary][:4] == [1, int("g" in letters), 1, 1]
    tag_posts(connection, vocabulary)
    labels = column(connection, "SELECT tags FROM labels ORDER BY entry")
    assert [[vocabulary.names[row] for row in tags] for tags in labels] == [[*names, "a"] for names in expected]


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
        "unique_tags": 4,  # cat, hat, gone, secret
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
        ("general", 14),
        ("sensitive", 0),
        ("questionable", 0),
        ("explicit", 0),
        ("cat", 9),  # not 11, which is held out
        ("hat", 5),
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


@pytest.mark.parametrize("layout", ["{bucket:03d}/{id}.jpg", "{bucket}/{id}.png", "{id}.webp"])
def test_other_layouts_are_found(tmp_path: Path, layout: str) -> None:
    path = tmp_path / layout.format(bucket=7, id=2007)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (found, missing) = packing.locate(tmp_path, [2007, 2008], ["jpg", "jpg"])
    assert isinstance(found, packing.Located) and tmp_path / found.path == path
    assert missing == 2008


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
    for name in ("efuda.json", "posts.parquet", "shards/000001.json"):
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
    first = out / "shards" / "000000.json"
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


def test_a_damaged_scratch_database_is_made_anew(tmp_path: Path) -> None:
    """What a power cut or another version of DuckDB leaves behind."""
    for name in ("metadata.duckdb", "metadata.duckdb.wal"):
        (tmp_path / name).write_bytes(b"no database" * 1000)
    with connect(tmp_path / "metadata.duckdb") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


LOCKING = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"


def test_two_at_work_in_one_place_are_told(tmp_path: Path) -> None:
    database = tmp_path / "metadata.duckdb"
    command = [sys.executable, "-c", LOCKING, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match="another efuda prepare is at work there"):
            connect(database)
        other.communicate()
    assert database.is_file()


def test_overwrite_makes_it_anew_without_what_is_stale(tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    root = draw_dump(tmp_path / "dump", posts=30)
    recipe = tiny_recipe("images.pack=32", "vocabulary.minimum_count=1")
    made = prepare([root / "metadata"], root / "512px", tmp_path / "out", recipe, workers=1)
    shutil.rmtree(root / "512px" / "0001")  # the first post's picture
    shutil.copy(made.root / "shards" / "000000.tar", made.root / "shards" / "000007.tar")
    again = prepare([root / "metadata"], root / "512px", tmp_path / "out", recipe, overwrite=True, workers=1)
    assert (made.marker.counts["posts"], again.marker.counts["posts"]) == (30, 29)
    assert again.digest != made.digest
    assert sorted(path.name for path in (again.root / "shards").iterdir()) == ["000000.json", "000000.tar"]
