"""From lines to posts with labels, by hand: what is sampled, filtered, counted, cut and numbered."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from conftest import old_post, post, write_lines

from efuda.datasets.reading import Entries, Task, do_task, read_entries
from efuda.datasets.relations import Relations
from efuda.datasets.sampling import EVERY_ENTRY, Sampling
from efuda.datasets.selection import Selection, choose_vocabulary, label_posts, select
from efuda.datasets.sources import find_jobs
from efuda.datasets.times import UNKNOWN, microseconds
from efuda.errors import InputError, MetadataError
from efuda.recipes import load_recipe
from efuda.vocabulary import Category, Tag, Vocabulary
from efuda.workers import InProcess

NONE = Relations.resolve({})


@dataclass
class Read:
    """Files of these rows, read and selected."""

    folder: Path
    files: Sequence[Sequence[Any]]
    overrides: Sequence[str] = ()
    relations: Relations = field(default=NONE)

    def __post_init__(self) -> None:
        self.recipe = load_recipe(None, ["vocabulary.minimum_count=1", "posts.max_bad_lines=1.0", *self.overrides])
        for number, rows in enumerate(self.files):
            write_lines(self.folder / f"posts{number}.json", list(rows))
        self.entries: Entries = read_entries(
            find_jobs([str(self.folder)])[1],
            self.folder,
            self.relations,
            workers=InProcess(),
            max_bad_lines=self.recipe.posts.max_bad_lines,
            sampling=Sampling(self.recipe.posts.every, self.recipe.posts.sample_by),
        )
        self.selection: Selection = select(self.entries, self.recipe, self.relations)

    @property
    def vocabulary(self) -> Vocabulary:
        return choose_vocabulary(self.entries, self.selection, self.recipe, self.relations)[0]

    @property
    def posts(self) -> list[dict[str, Any]]:
        table = label_posts(self.entries, self.selection, self.vocabulary, self.folder / "labelled.arrow", times=True)
        names = self.vocabulary.names
        return [{**row, "tags": [names[tag] for tag in row["tags"]]} for row in table.to_pylist()]

    @property
    def ids(self) -> list[int]:
        return [row["id"] for row in self.posts]

    @property
    def reasons(self) -> list[tuple[int | None, str]]:
        return [(row["id"], row["reason"]) for row in self.selection.rejected.to_pylist()]


def read(folder: Path, *files: Sequence[Any], overrides: Sequence[str] = (), relations: Relations = NONE) -> Read:
    return Read(folder, files, overrides, relations)


# Lines


def test_both_schemas_give_the_same_post(tmp_path: Path) -> None:
    old = old_post(7, ["hat"])
    old["tags"] += [{"id": "2", "name": "someone", "category": "1"}, {"id": "3", "name": "miku", "category": "4"}]
    new = post(8, ["hat"], md5=old["md5"], tag_string_artist="someone", tag_string_character="miku")
    one, other = read(tmp_path, [old], [new]).posts
    assert {**one, "id": 8} == other
    assert sorted(one["tags"]) == ["hat", "miku", "someone"]


def test_too_many_bad_lines_stop_unless_allowed(tmp_path: Path) -> None:
    rows = [post(number, ["a"]) for number in range(1, 99)]
    message = r"2 of 100 lines cannot be used, more than 1\.0%: posts0\.json, line 99: not a JSON object 'oops'"
    with pytest.raises(MetadataError, match=message):
        read(tmp_path, [*map(_json, rows), "oops", "oops"], overrides=["posts.max_bad_lines=0.01"])
    read(tmp_path, [*map(_json, rows), "oops", "oops"], overrides=["posts.max_bad_lines=0.02"])


def test_more_bad_lines_than_are_kept_are_all_counted(tmp_path: Path) -> None:
    entries = read(tmp_path, [_json(post(1, ["a"])), *["oops"] * 150]).entries
    assert (entries.bad_count, len(entries.bad)) == (150, 100)


def test_names_that_are_none_are_left_out_and_counted(tmp_path: Path) -> None:
    names = ["hat", "a,b", "two words", "bell\x07", "", "x" * 171]
    old = {**old_post(1, names), "id": "1"}
    done = read(tmp_path, [old, post(2, ["hat", "", "a,b"])])
    assert done.vocabulary.names == ("hat",)
    assert done.entries.bad_names == {"a,b": 2, "two words": 1, "bell\x07": 1, "x" * 171: 1}


def test_a_chunk_is_read_again_only_when_its_file_or_the_aliases_changed(tmp_path: Path) -> None:
    rows = [post(1, ["kitty"])]
    read(tmp_path, rows)
    chunk = tmp_path / "000000.arrow"
    written = chunk.stat().st_mtime_ns
    again = Read(tmp_path, [], relations=NONE)
    assert chunk.stat().st_mtime_ns == written
    assert again.ids == [1]
    aliased = Read(tmp_path, [], relations=Relations.resolve({"kitty": "cat"}))
    assert aliased.vocabulary.names == ("cat",)


# Sampling


def test_every_kth_entry_starts_with_the_first_across_files(tmp_path: Path) -> None:
    rows = [post(number, ["a"]) for number in range(10, 17)]
    done = read(tmp_path, rows[:3], rows[3:], overrides=["posts.every=3"])
    assert (done.entries.total, done.entries.sampled, done.selection.posts) == (7, 3, 3)
    assert done.ids == [10, 13, 16]


def test_the_reference_samples_740982_of_2963928_entries() -> None:
    reference = load_recipe("reference").posts
    mask = Sampling(reference.every, reference.sample_by).chosen(np.arange(1, 2_963_929), 0)
    assert int(mask.sum()) == 740_982
    assert np.flatnonzero(mask)[:3].tolist() == [0, 4, 8]


def test_a_sample_by_hash_does_not_depend_on_what_else_there_is(tmp_path: Path) -> None:
    rows = [post(number, ["a"]) for number in range(1, 401)]
    overrides = ["posts.every=4", "posts.sample_by=hash"]
    whole = read(tmp_path / "one", rows, overrides=overrides).ids
    part = read(tmp_path / "two", rows[100:], overrides=overrides).ids
    assert 60 <= len(whole) <= 140
    assert part == [number for number in whole if number > 100]


@pytest.mark.parametrize("by", ["order", "hash"])
@pytest.mark.parametrize("fault", [None, b"nonsense\n", b"\n", b'{"id": null, "rating": "s", "tags": "a"}\n'])
def test_a_sample_is_what_reading_everything_and_choosing_gives(tmp_path: Path, fault: bytes | None, by: Any) -> None:
    """Whether its lines are picked from the file, the file is packed, or a line needs a closer look."""
    lines = [
        json.dumps(post(number, [f"tag{number % 5}"], parent_id=number % 3 or None)).encode() + b"\n"
        for number in range(1, 60)
    ]
    data = b"".join([*lines[:20], fault or b"", *lines[20:]])
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    (tmp_path / "plain" / "posts.json").write_bytes(data)
    (tmp_path / "packed" / "posts.json.gz").write_bytes(gzip.compress(data))

    def read_from(name: str, sampling: Sampling) -> Entries:
        jobs = find_jobs([str(tmp_path / name)])[1]
        folder = tmp_path / name / f"chunks{sampling.every}"
        folder.mkdir()
        return read_entries(jobs, folder, NONE, workers=InProcess(), max_bad_lines=1.0, sampling=sampling)

    whole = read_from("plain", EVERY_ENTRY)
    table = arrow.concat_tables([chunk.open().drop_columns(["tags"]) for chunk in whole.chunks])
    wanted = Sampling(4, by).chosen(table["id"].fill_null(0).to_numpy(), 0)
    for name in ("plain", "packed"):
        some = read_from(name, Sampling(4, by))
        assert (some.total, some.sampled) == (whole.total, int(wanted.sum()))
        assert arrow.concat_tables([chunk.open().drop_columns(["tags"]) for chunk in some.chunks]).equals(
            table.filter(arrow.array(wanted))
        )
        assert some.parents.tolist() == whole.parents.tolist()
        assert [(bad.line, bad.reason) for bad in some.bad] == [(bad.line, bad.reason) for bad in whole.bad]


def test_chunks_are_read_again_where_the_sample_or_an_earlier_file_changed(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", [post(number, ["a"]) for number in range(1, 6)])
    write_lines(tmp_path / "b.json", [post(number, ["a"]) for number in range(6, 12)])
    (tmp_path / "chunks").mkdir()

    def ids(every: int) -> list[int]:
        jobs = find_jobs([str(tmp_path / name) for name in ("a.json", "b.json")])[1]
        arguments: dict[str, Any] = {"workers": InProcess(), "max_bad_lines": 0.0, "sampling": Sampling(every)}
        entries = read_entries(jobs, tmp_path / "chunks", NONE, **arguments)
        return [number for chunk in entries.chunks for number in chunk.open()["id"].to_pylist()]

    assert ids(4) == [1, 5, 9]
    first = (tmp_path / "chunks" / "000000.arrow").stat().st_mtime_ns
    assert ids(4) == [1, 5, 9]
    assert (tmp_path / "chunks" / "000000.arrow").stat().st_mtime_ns == first
    (tmp_path / "chunks" / "000001.key").unlink()  # as if killed
    assert ids(4) == [1, 5, 9]
    assert (tmp_path / "chunks" / "000000.arrow").stat().st_mtime_ns == first
    assert ids(2) == [1, 3, 5, 7, 9, 11]
    write_lines(tmp_path / "a.json", [post(number, ["a"]) for number in (1, 5)])
    assert ids(2) == [1, 6, 8, 10]


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "posts.json", [post(number, ["a"]) for number in range(1, 9)])
    (job,) = find_jobs([str(tmp_path / "posts.json")])[1]
    brief, parsed = do_task(Task(0, job, survey=True), NONE)
    write_lines(tmp_path / "posts.json", [post(1, ["a"])])
    with pytest.raises(MetadataError, match=r"posts\.json changed while it was read"):
        do_task(Task(0, job, survey=False, wanted=np.ones(8, bool), brief=brief, parsed=parsed), NONE)


def test_rows_without_an_id_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [post(1, ["a"]), {**post(2, ["a"]), "id": None}, post(0, ["a"]), {**post(3, ["a"]), "id": -5}]
    done = read(tmp_path, rows)
    assert done.ids == [1]
    assert list(done.vocabulary) == [Tag("a", count=4)]
    assert done.reasons == [(None, "no id")] * 3


def test_of_one_id_the_last_updated_stays(tmp_path: Path) -> None:
    rows = [
        post(3, ["old"], updated_at="2020-01-01T00:00:00.000-04:00"),
        post(3, ["new"], updated_at="2021-01-01T00:00:00.000-04:00"),
        post(3, ["older"], updated_at="2019-01-01T00:00:00.000-04:00"),
        post(4, ["first"]),
        post(4, ["last"]),
    ]
    done = read(tmp_path, rows)
    assert [(row["id"], row["tags"]) for row in done.posts] == [(3, ["new"]), (4, ["last"])]
    assert done.reasons == [(3, "a later entry has the same id")] * 2 + [(4, "a later entry has the same id")]


# Filters

FILTERED = [
    (["posts.deleted=false"], {"is_deleted": True}, "deleted"),
    (["posts.banned=false"], {"is_banned": True}, "banned"),
    (['posts.ratings=["s"]'], {"rating": "q"}, "rating q"),
    (["posts.minimum_score=5"], {"score": 4}, "score below 5"),
    (["posts.minimum_score=5"], {"score": None}, "score below 5"),
    (["posts.minimum_id=1"], {"id": None}, "no id"),
    (["posts.maximum_id=100"], {"id": 101}, "id above 100"),
    (["posts.created_from=2015-01-01"], {"created_at": "2014-12-31T23:59:59Z"}, "created before 2015-01-01"),
    (["posts.created_before=2016-01-01"], {"created_at": "2016-01-01T00:00:00Z"}, "created on 2016-01-01 or later"),
    (["posts.created_before=2016-01-01"], {"created_at": "soon"}, "date unknown"),
    (['posts.file_types=["jpg"]'], {"file_ext": "png"}, "file type png"),
    (["posts.minimum_tags=2"], {"tag_string_general": "a"}, "fewer than 2 tags"),
    (['posts.without=["com*"]'], {"tag_string_meta": "comic"}, "carries a tag of posts.without"),
]


@pytest.mark.parametrize(("overrides", "fault", "reason"), FILTERED, ids=[reason for *_, reason in FILTERED])
def test_filters_leave_out_what_they_name_and_nothing_else(
    tmp_path: Path, overrides: list[str], fault: dict[str, Any], reason: str
) -> None:
    good = post(7, ["a", "b"], score=5, created_at="2015-06-01T12:00:00Z", is_banned=False)
    done = read(tmp_path, [good, {**good, "id": 8, **fault}], overrides=overrides)
    assert done.ids == [7]
    assert [words for _, words in done.reasons] == [reason]
    assert dict.fromkeys(done.vocabulary.names) == {"a": None, "b": None}


def test_filtered_posts_are_not_counted(tmp_path: Path) -> None:
    done = read(tmp_path, [post(1, ["a"]), post(2, ["a"], is_deleted=True)], overrides=["posts.deleted=false"])
    assert list(done.vocabulary) == [Tag("a", count=1)]


# Vocabulary


def test_the_minimum_count_is_met_by_exactly_so_many(tmp_path: Path) -> None:
    rows = [post(1, ["a", "b"]), post(2, ["a", "b"]), post(3, ["a"])]
    done = read(tmp_path, rows, overrides=["vocabulary.minimum_count=2"])
    assert list(done.vocabulary) == [Tag("a", count=3), Tag("b", count=2)]
    with pytest.raises(InputError, match="No tag is left: none of 2 occurs in at least 4"):
        read(tmp_path, rows, overrides=["vocabulary.minimum_count=4"]).vocabulary  # noqa: B018


def test_a_tag_that_moved_between_categories_is_one_tag_of_the_commoner(tmp_path: Path) -> None:
    rows = [post(n, ["hat"], tag_string_artist="moved", tag_string_character="miku") for n in (1, 2)]
    rows.append(post(3, ["hat", "moved"]))
    assert list(read(tmp_path, rows).vocabulary) == [
        Tag("hat", Category.GENERAL, 3),
        Tag("miku", Category.CHARACTER, 2),
        Tag("moved", Category.ARTIST, 3),
    ]
    assert read(tmp_path, rows, overrides=['vocabulary.categories=["character"]']).vocabulary.names == ("miku",)


def test_a_tag_counts_once_where_it_and_its_alias_stand_together(tmp_path: Path) -> None:
    rows = [post(1, ["cat", "kitty", "cat"]), post(2, ["kitty"]), post(3, ["cat"], tag_string_meta="kitty")]
    aliased = read(tmp_path / "one", rows, relations=Relations.resolve({"kitty": "cat"}))
    assert list(aliased.vocabulary) == [Tag("cat", Category.GENERAL, 3)]
    without = read(tmp_path / "two", rows)
    assert {tag.name: tag.count for tag in without.vocabulary} == {"cat": 2, "kitty": 3}


def test_implied_tags_are_added_and_counted(tmp_path: Path) -> None:
    relations = Relations.resolve({"kitty_ears": "cat_ears"}, [("cat_ears", "animal_ears"), ("animal_ears", "ears")])
    rows = [post(1, ["kitty_ears"]), post(2, ["animal_ears", "hat"]), post(3, ["hat"])]
    done = read(tmp_path, rows, relations=relations)
    assert {tag.name: tag.count for tag in done.vocabulary} == {"animal_ears": 2, "cat_ears": 1, "ears": 2, "hat": 2}
    assert [set(row["tags"]) for row in done.posts] == [
        {"cat_ears", "animal_ears", "ears"},
        {"animal_ears", "ears", "hat"},
        {"hat"},
    ]


def test_counts_are_those_of_the_sample(tmp_path: Path) -> None:
    rows = [post(number, ["a" if number % 2 else "b"]) for number in range(1, 9)]
    assert list(read(tmp_path, rows, overrides=["posts.every=2"]).vocabulary) == [Tag("a", count=4)]


def test_vocabulary_limits(tmp_path: Path) -> None:
    rows = [post(1, ["a", "b", "c", "b_(x)"]), post(2, ["a", "b"]), post(3, ["a"])]

    def names(*overrides: str) -> tuple[str, ...]:
        return read(tmp_path, rows, overrides=overrides).vocabulary.names

    assert names("vocabulary.maximum_size=2") == ("a", "b")
    assert names('vocabulary.exclude=["b*"]') == ("a", "c")
    assert names('vocabulary.exclude=["b"]') == ("a", "b_(x)", "c")
    assert names("vocabulary.maximum_size=3") == ("a", "b", "b_(x)")  # of equals the first by name
    (tmp_path / "only.txt").write_text("c\na\nz\n")
    assert names(f"vocabulary.only={tmp_path / 'only.txt'}") == ("a", "c")


def test_a_tag_list_gives_categories_where_the_source_has_none(tmp_path: Path) -> None:
    rows = [post(1, ["hatsune_miku", "hat"])]
    relations = Relations.resolve({}, [], {"hatsune_miku": 4, "hat": 0})
    assert list(read(tmp_path, rows, relations=relations).vocabulary) == [
        Tag("hat", Category.GENERAL, 1),
        Tag("hatsune_miku", Category.CHARACTER, 1),
    ]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("sqe", [["general"], ["questionable"], ["explicit"]]),
        ("gsqe", [["general"], ["sensitive"], ["questionable"], ["explicit"]]),
    ],
)
def test_ratings_of_three_and_of_four_levels(tmp_path: Path, letters: str, expected: list[list[str]]) -> None:
    rows = [post(number, ["a"], rating=letter) for number, letter in enumerate(letters, start=1)]
    done = read(tmp_path, rows, overrides=["vocabulary.ratings=true"])
    assert done.vocabulary.names == ("general", "sensitive", "questionable", "explicit", "a")
    assert [tag.count for tag in done.vocabulary][:4] == [1, int("g" in letters), 1, 1]
    assert [row["tags"] for row in done.posts] == [[*names, "a"] for names in expected]


def test_held_out_posts_are_marked_and_not_counted(tmp_path: Path) -> None:
    rows = [post(1, ["a", "secret"]), post(2, ["a"])]
    done = read(tmp_path, rows, overrides=['split.hold_out=["secret"]'])
    assert [row["held_out"] for row in done.posts] == [True, False]
    assert list(done.vocabulary) == [Tag("a", count=1)]
    with pytest.raises(InputError, match=r"split\.hold_out: no post carries any of nothing"):
        read(tmp_path, rows, overrides=['split.hold_out=["nothing"]'])


def test_parents_are_those_of_every_entry(tmp_path: Path) -> None:
    rows = [post(5, ["a"], parent_id=3), post(9, ["a"], parent_id=5), post(4, ["a"]), post(8, ["a"], parent_id=77)]
    done = read(tmp_path, rows, [old_post(3, ["a"])], overrides=["posts.every=4"])
    assert done.entries.parents.tolist() == [[5, 3], [9, 5], [8, 77]]


def test_times_of_every_dump() -> None:
    import pyarrow as arrow

    written = [
        "1970-01-01T00:00:01.500+00:00",
        "1970-01-01 00:00:01.5 UTC",
        "1969-12-31T20:00:02-04:00",
        "1970-01-01T00:00:03",
        "4",
        "1970-02-31T00:00:00Z",
        "soon",
        None,
    ]
    expected = [1_500_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, UNKNOWN, UNKNOWN, UNKNOWN]
    assert microseconds(arrow.array(written)).tolist() == expected


def _json(row: dict[str, Any]) -> str:
    import json

    return json.dumps(row)
