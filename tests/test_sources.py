"""Every format that posts come in, told apart by its contents; what is broken costs itself and nothing else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet
import pytest
from conftest import old_post, post, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from efuda.datasets.entries import CATEGORIES, BadLine
from efuda.datasets.sources import find_jobs
from efuda.datasets.sources.arrays import LinedRecords, records_start
from efuda.datasets.sources.lines import json_jobs, look_into
from efuda.datasets.sources.records import KINDS
from efuda.datasets.sources.sidecars import path_id
from efuda.datasets.sources.tables import table_jobs
from efuda.errors import MetadataError
from efuda.tagging.reading import read_caption

Row = dict[str, Any]


def read(*places: Path | str) -> tuple[list[str], list[Row], list[BadLine]]:
    """Formats, entries and bad lines."""
    found, jobs = find_jobs([str(place) for place in places])
    parsed = [pickle.loads(pickle.dumps(job)).read() for job in jobs]  # as workers do
    rows = [row for one in parsed for row in one.table.to_pylist()]
    return [one.name for one in found], rows, [bad for one in parsed for bad in one.bad]


def tags_of(row: Row) -> dict[str, list[str]]:
    """Category → tags, only those that are any."""
    return {name: tags for name in CATEGORIES if (tags := [tag for tag in row[name] or [] if tag])}


def lines_of(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# Places


def test_metadata_is_found_as_named_in_a_folder_below_it_or_by_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "metadata"
    for name in ("posts1.json", "posts0.jsonl", "other.json"):
        write_lines(folder / name, [post(1, [name])])
    for name in ("tag_aliases0.json", "notes.json"):
        write_lines(folder / name, [{"a": 1}])
    names = [[row["general"] for row in read(place)[1]] for place in (folder, tmp_path, folder / "posts*")]
    assert names == [[["posts0.jsonl"], ["posts1.json"]]] * 3
    assert tags_of(read(folder / "other.json")[1][0]) == {"general": ["other.json"]}
    for name in ("posts1.json", "posts0.jsonl"):
        (folder / name).unlink()
    assert len(read(folder)[1]) == 1


def test_urls_are_places_too(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/shelf/metadata/posts0.json.gz", gzip.compress(lines_of([post(1, ["a"])])))
    memory.pipe("/shelf/metadata/posts1.json", lines_of([post(2, ["b"])]))
    memory.pipe("/art/x/3.png", b"")
    memory.pipe("/art/x/3.txt", b"hat, smile")
    names, rows, bad = read("memory://shelf", "memory://shelf/metadata/posts1*", "memory://art")
    assert names == ["Danbooru 2021 JSON lines, gz", *["Danbooru 2021 JSON lines"] * 2, "caption files"]
    assert [row["id"] for row in rows] == [1, 2, 2, 3]
    assert rows[3]["path"] == "memory://art/x/3.png"
    assert not bad


def test_no_metadata_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tag_aliases0.json").touch()
    for places, message in (
        ([tmp_path], "holds no metadata"),
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([tmp_path / "*.nothing"], "does not exist|matches no file"),
        ([], "No metadata file was named"),
    ):
        with pytest.raises(MetadataError, match=message):
            read(*places)


@pytest.mark.parametrize("text", ["", '{"name": "a tag"}\n', "hello\n", "[1, 2]"])
def test_a_file_that_holds_no_posts_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "posts0.json").write_text(text)
    with pytest.raises(MetadataError, match=r"posts0\.json does not look like posts"):
        read(tmp_path)


# Kinds of records


def test_each_kind_is_named_and_files_of_one_kind_are_one_source(tmp_path: Path) -> None:
    write_lines(tmp_path / "posts0.json", [post(1, ["a"])])
    write_lines(tmp_path / "posts1.json", [post(2, ["a"])])
    write_lines(tmp_path / "posts2.json", [old_post(3, ["a"])])
    (tmp_path / "posts3.json.gz").write_bytes(gzip.compress(lines_of([post(4, ["a"])])))
    names, rows, _ = read(tmp_path)
    assert names == ["Danbooru 2021 JSON lines", "Danbooru 2017–2020 JSON lines", "Danbooru 2021 JSON lines, gz"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4]


def test_the_two_generations_say_the_same(tmp_path: Path) -> None:
    old = {
        **old_post(7, ["hat"]),
        "parent_id": "5",
        "score": "-3",
        "created_at": "2008-06-10 03:08:07.34205 UTC",
        "updated_at": "1970-01-01 00:00:00 UTC",
        "is_banned": True,
    }
    old["tags"] += [{"id": "2", "name": "someone", "category": "1"}, {"id": "3", "name": "miku", "category": "4"}]
    new = post(7, ["hat"], tag_string_artist="someone", tag_string_character="miku", parent_id=5, score=-3)
    new |= {"created_at": old["created_at"], "updated_at": None, "is_banned": True}
    (one,) = read(write_lines(tmp_path / "old.json", [old]))[1]
    (other,) = read(write_lines(tmp_path / "new.json", [new]))[1]
    assert tags_of(one) == tags_of(other) == {"general": ["hat"], "artist": ["someone"], "character": ["miku"]}
    assert (
        {key: value for key, value in one.items() if key not in CATEGORIES}
        == {
            "id": 7,
            "parent_id": 5,
            "rating": "s",
            "deleted": False,
            "banned": True,
            "md5": f"{7:032x}",
            "ext": "jpg",
            "score": -3,
            "created": "2008-06-10 03:08:07.34205 UTC",
            "updated": None,
            "path": None,
        }
        == {key: value for key, value in other.items() if key not in CATEGORIES}
    )


def test_tags_of_the_old_dumps_go_to_their_categories(tmp_path: Path) -> None:
    named = [("a", "0"), ("b", "4"), (None, "0"), ("", "1"), ("c", 5), ("d", "9"), ("e", None), ("f", "3"), ("g", "1")]
    rows = [
        {"id": "1", "tags": [{"name": name, "category": category} for name, category in named]},
        {"id": "2", "tags": []},
        {"id": "3", "rating": "s"},
        {"id": "4", "tags": [{"name": "z", "category": "4"}, {"name": "y", "category": "4"}]},
    ]
    found = read(write_lines(tmp_path / "posts.json", rows))[1]
    assert [tags_of(row) for row in found] == [
        {"general": ["a", "d", "e"], "artist": ["g"], "copyright": ["f"], "character": ["b"], "meta": ["c"]},
        {},
        {},
        {"character": ["z", "y"]},
    ]


def test_tags_without_categories_are_general(tmp_path: Path) -> None:
    bare = {"id": 1, "tag_string": "hat miku", "rating": "g"}
    partly = {"id": 2, "tag_string": "hat miku", "tag_string_character": "miku"}
    rows = read(write_lines(tmp_path / "posts.json", [bare, partly]))[1]
    assert [tags_of(row) for row in rows] == [{"general": ["hat", "miku"]}, {"general": ["hat"], "character": ["miku"]}]


def test_gelbooru_and_safebooru(tmp_path: Path) -> None:
    safebooru = {"id": 6, "tags": "hat smile", "rating": "general", "hash": "ab" * 16, "image": "x.PNG", "parent_id": 0}
    gelbooru = {"id": 7, "tags": "hat", "rating": "questionable", "md5": "cd" * 16, "file_url": "https://x/y.webp?1"}
    (tmp_path / "s.json").write_text(json.dumps([safebooru], indent=1))
    (tmp_path / "g.json").write_text(json.dumps({"@attributes": {"count": 1}, "post": [gelbooru]}))
    names, rows, bad = read(tmp_path / "s.json", tmp_path / "g.json")
    assert names == ["Gelbooru JSON"] * 2
    assert [(row["id"], row["rating"], row["md5"][:2], row["ext"], row["parent_id"]) for row in rows] == [
        (6, "g", "ab", "png", None),
        (7, "q", "cd", "webp", None),
    ]
    assert tags_of(rows[0]) == {"general": ["hat", "smile"]}
    assert not bad


# Containers

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: arrow.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("shape", ["lines", "array", "pretty array", "object"])
def test_every_shape_in_every_packing(tmp_path: Path, packing: str, shape: str) -> None:
    rows = [post(number, ["a", f"t{number}"]) for number in range(1, 2 if shape == "object" else 8)]
    text = {
        "lines": lines_of(rows),
        "array": json.dumps(rows).encode(),
        "pretty array": json.dumps(rows, indent=1).encode(),
        "object": json.dumps(rows[0], indent=1).encode(),
    }[shape]
    (tmp_path / f"posts.json{packing}").write_bytes(PACK[packing](text))
    _, found, bad = read(tmp_path)
    assert [(row["id"], row["general"]) for row in found] == [(row["id"], ["a", f"t{row['id']}"]) for row in rows]
    assert not bad


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("shape", ["lines", "array"])
def test_a_file_that_breaks_off_gives_what_came_before(tmp_path: Path, packing: str, shape: str) -> None:
    rng = random.Random(0)
    rows = [post(number, [f"{rng.random()}"]) for number in range(1, 4000)]
    data = PACK[packing](lines_of(rows) if shape == "lines" else json.dumps(rows, indent=1).encode())
    (tmp_path / f"posts.json{packing}").write_bytes(data[: len(data) * 2 // 3])
    _, found, bad = read(tmp_path)
    assert 500 < len(found) < 4000
    assert [row["id"] for row in found] == list(range(1, len(found) + 1))
    assert "ends early or is damaged" in bad[-1].reason


@settings(max_examples=40)
@given(block=st.integers(1, 4000), window=st.integers(1, 4000), newline=st.booleans(), crlf=st.booleans())
def test_blocks_of_any_size_give_the_same_entries(
    tmp_path_factory: pytest.TempPathFactory, block: int, window: int, newline: bool, crlf: bool
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    end = b"\r\n" if crlf else b"\n"
    lines = [json.dumps(post(number, ["a"] * (number % 7))).encode() for number in range(1, 13)]
    lines[4:4] = [b"oops", b""]
    text = b"\xef\xbb\xbf" + end.join(lines) + (end if newline else b"")
    for name, data in (("posts.json", text), ("posts.json.gz", gzip.compress(text))):
        (folder / name).write_bytes(data)
        kind = look_into(str(folder / name)).kind
        assert kind is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("efuda.datasets.sources.lines._WINDOW", window)
            parsed = [job.read() for job in json_jobs(str(folder / name), kind, block=block)]
        rows = [row for one in parsed for row in one.table.to_pylist()]
        assert [row["id"] for row in rows] == list(range(1, 13))
        assert [len([tag for tag in row["general"] if tag]) for row in rows] == [number % 7 for number in range(1, 13)]
        place = 0
        for one in parsed:
            assert all(place + bad.line == 5 and bad.text == "oops" for bad in one.bad)
            place += one.lines
        assert sum(len(one.bad) for one in parsed) == 1


inside = st.recursive(
    st.none() | st.integers(-9, 9) | st.text('ab"\\{}[],: \n\té', max_size=6),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text("ab}{", max_size=3), some, max_size=3),
    max_leaves=8,
)


AWKWARD = [
    b"",
    b"  ",
    b"nonsense",
    b"[1]",
    b'{"id": "12", "parent_id": "0", "rating": "s", "tags": []}',
    b'{"id": 3, "tag_string_general": "caf\xe9"}',
    b'{"id": 3, "source": "\xff", "tag_string_general": "a"}',
    '{"id": 4, "tag_string_general": "é"}'.encode(),
    b'{"id": -4, "tag_string_general": "a"}',
    b'{"id": 4.0, "parent_id": "7", "tag_string_general": "a"}',
    b'{"id": 5, "name": "hat", "category": 0}',
    b'{"id": 6}',
    b'{"id": 99999999999999999999, "rating": "s"}',
    b'{"id": 8, "parent_id": 7, "tag_string_general": "a b", "score": "many"}\r',
    b'\xef\xbb\xbf{"id": 9, "tag_string_general": "a"}',
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(AWKWARD), st.integers(1, 99)), min_size=1, max_size=12),
    st.booleans(),
    st.integers(0, 4095),
)
def test_a_brief_says_of_every_entry_what_reading_says(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes | int], ended: bool, bits: int
) -> None:
    file = tmp_path_factory.mktemp("brief") / "posts.json"
    posts = [part if isinstance(part, bytes) else post(part, ["a", "b"], parent_id=part % 4 or None) for part in parts]
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in posts]
    file.write_bytes(b"\n".join(lines) + b"\n" * ended)
    for job in json_jobs(str(file), KINDS["Danbooru 2021"]):
        table, brief = job.read().table, job.brief()
        assert brief.ids.tolist() == [max(number or 0, 0) for number in table["id"].to_pylist()]
        assert brief.parents.tolist() == [number or 0 for number in table["parent_id"].to_pylist()]
        if brief.lined:
            wanted = np.array([bits >> place & 1 for place in range(len(table))], bool)
            assert job.read(wanted).table.equals(table.filter(arrow.array(wanted)))


@given(
    extra=st.lists(inside, min_size=1, max_size=4),
    shape=st.sampled_from(["array", "held", "printed one after another"]),
    indent=st.sampled_from([None, 1]),
    step=st.integers(1, 60),
)
def test_records_that_are_not_one_a_line_come_out_one_a_line(
    extra: list[Any], shape: str, indent: int | None, step: int
) -> None:
    rows = [{"id": number, "tags": "a", "more": more, "last": {"b": [1]}} for number, more in enumerate(extra, start=1)]
    text = {
        "array": lambda: json.dumps(rows, indent=indent),
        "held": lambda: json.dumps({"@attributes": {"post": [[1], {"a": 2}]}, "post": rows}, indent=indent),
        "printed one after another": lambda: "\n".join(json.dumps(row, indent=1) for row in rows),
    }[shape]().encode()
    start = records_start(text)
    assert start is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efuda.datasets.sources.arrays._STEP", step)
        lined = LinedRecords(io.BytesIO(text[start[0] :]), start[1], 1 << 20)
        lines = b"".join(iter(lambda: lined.read(50), b"")).splitlines()
    assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize(
    ("text", "ids", "reasons"),
    [
        (b'[%s, {"id": 2, "tags": "b",]}, %s]', [1, 3], ["not a JSON object"]),
        (b'[%s, "x", %s]', [1, 3], ["not a JSON object"]),
        (b'[%s, {"foo": 1}, %s]', [1, 3], ["a JSON object without any field of a post"]),
        (b'[\n%s,\n{"id": 2, "tags": "b},\n%s\n]', [1, 3], ["not a JSON object"]),
        (b"[%s, %s", [1, 3], ["the file ends early"]),
        (b'[%s, %s, {"id": 4, "tags": "c', [1, 3], ["not a JSON object", "the file ends early"]),
        (b'[%s, {"id": 2, "tags": "b\xff"}, %s]', [1, 3], ["not valid UTF-8"]),
    ],
)
def test_what_is_broken_in_an_array_costs_only_itself(
    tmp_path: Path, text: bytes, ids: list[int], reasons: list[str]
) -> None:
    (tmp_path / "posts.json").write_bytes(
        text % (json.dumps(post(1, ["a"])).encode(), json.dumps(post(3, [])).encode())
    )
    names, rows, bad = read(tmp_path)
    assert names == ["Danbooru API JSON"]
    assert [row["id"] for row in rows] == ids
    assert [one.reason.partition(" or is")[0] for one in bad] == reasons


def test_an_array_is_cut_into_jobs_and_its_endless_record_left_out(tmp_path: Path) -> None:
    rows = [post(number, ["a", "b" * (30_000 if number == 5 else 10)]) for number in range(1, 40)]
    file = tmp_path / "posts.json"
    for indent in (None, 1):
        file.write_text(json.dumps(rows, indent=indent))
        kind = look_into(str(file)).kind
        assert kind is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("efuda.datasets.sources.arrays._STEP", 500)
            parsed = [job.read() for job in json_jobs(str(file), kind, block=2000, longest=9000)]
        assert [row["id"] for one in parsed for row in one.table.to_pylist()] == [*range(1, 5), *range(6, 40)]
        assert ["longer than 9,000" in bad.reason for one in parsed for bad in one.bad] == [True]
        assert len(parsed) > 4


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_keys_of_jobs_change_with_the_file(tmp_path: Path, packing: str) -> None:
    file = tmp_path / f"posts.json{packing}"

    def keys(tag: str) -> list[str]:
        file.write_bytes(PACK[packing](lines_of([post(number, [tag]) for number in range(1, 30)])))
        kind = look_into(str(file)).kind
        assert kind is not None
        return [job.key for job in json_jobs(str(file), kind, block=2000)]

    first = keys("a")
    assert len(set(first)) == len(first) > 2
    os.utime(file, ns=(1, 1))
    assert not set(first) & set(keys("b"))


# What is broken


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r'{"id": 2, "tag_string": "\ud800 a"}', (2, ["\ufffd", "a"])),
        (r'{"id": 2, "tag_string": "a", "md5": "\ud800"}', (2, ["a"])),
        (r'{"id": 2, "tags": [{"name": "\ud800", "category": "0"}]}', (2, ["\ufffd"])),
        ('{"id": %s, "tag_string": "a"}' % ("9" * 5000), (None, ["a"])),
        ('{"id": 2, "tag_string": "a", "x": ' + "[" * 99_999 + "]" * 99_999 + "}", "nested too deeply"),
        ('{"id": 2, "tag_string": "a", "score": NaN}', (2, ["a"])),
        ('{"id": 2, "tag_string": "a\\tb,c\\u0000"}', (2, ["a\tb,c\0"])),
        ('{"id": 2, "tags": ["a", "b"]}', (2, ["a", "b"])),
        ('{"id": 2, "tags": ["b", "a"], "tag_string": "a b", "tag_string_general": "a"}', (2, ["a"])),
        ('{"id": 2, "tag_string": ["a", "b"]}', (2, ["a", "b"])),
        ('{"id": 2, "rating": "s"}', (2, None)),
        ('{"id": "470575", "name": "1girl", "category": "0"}', "a JSON object without any field of a post"),
    ],
)
def test_strange_records_are_understood_or_left_out(tmp_path: Path, line: str, expected: Any) -> None:
    (tmp_path / "posts.json").write_text(json.dumps(post(1, ["x"])) + "\n" + line + "\n")
    _, (first, *others), bad = read(tmp_path)
    assert first["general"] == ["x"]
    found = [(row["id"], row["general"]) for row in others] + [one.reason for one in bad]
    assert found == [expected]


def test_a_damaged_file_without_a_readable_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "posts.json.gz").write_bytes(b"this was never packed")
    with pytest.raises(MetadataError, match=r"does not look like posts.*ends early or is damaged"):
        read(tmp_path)


def test_bad_lines_keep_their_place_and_cost_only_themselves(tmp_path: Path) -> None:
    good = [json.dumps(post(number, ["a"])).encode() for number in range(1, 4)]
    lines = [
        good[0],
        b"oops",
        b"",
        good[1],
        b"[1]",
        good[2],
        b'{"foo": 1}',
        b'{"id": 9, "tag_string": "\xff"}',
        b'{"id": 9, ',
    ]
    (tmp_path / "posts.json").write_bytes(b"\n".join(lines))
    _, rows, bad = read(tmp_path)
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [(one.line, one.reason, one.text) for one in bad] == [
        (2, "not a JSON object", "oops"),
        (5, "not a JSON object", "[1]"),
        (7, "a JSON object without any field of a post", '{"foo": 1}'),
        (8, "not valid UTF-8", '{"id": 9, "tag_string": "\ufffd"}'),
        (9, "not a JSON object", '{"id": 9,'),
    ]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", "12", 12),
        ("id", 12.0, 12),
        ("id", 1e30, None),
        ("id", 2**70, None),
        ("id", -4, None),
        ("id", 0, None),
        ("id", "twelve", None),
        ("id", [1], None),
        ("parent_id", 0, None),
        ("score", "abc", None),
        ("score", -(2**80), None),
        ("rating", "general", "g"),
        ("rating", "x", None),
        ("rating", 5, None),
        ("md5", 5, "5"),
        ("is_deleted", "yes", None),
    ],
)
@pytest.mark.parametrize("generation", [post, old_post])
def test_a_value_that_makes_no_sense_is_null_and_the_row_stays(
    tmp_path: Path, generation: Callable[..., Row], field: str, value: Any, expected: Any
) -> None:
    rows = [generation(1, ["a"]), {**generation(2, ["b"]), field: value}, generation(3, ["c"])]
    _, found, bad = read(write_lines(tmp_path / "posts.json", rows))
    assert not bad
    assert [row["general"] for row in found] == [["a"], ["b"], ["c"]]
    assert found[1][{"is_deleted": "deleted"}.get(field, field)] == expected


def test_records_of_another_kind_in_one_file_are_read_by_their_own(tmp_path: Path) -> None:
    rows = [old_post(1, ["a"]), post(2, ["b"]), {"id": 3, "tags": "c", "rating": "general"}, old_post(4, ["d"])]
    _, found, bad = read(write_lines(tmp_path / "posts.json", rows))
    assert [(row["id"], row["general"]) for row in found] == [(1, ["a"]), (2, ["b"]), (3, ["c"]), (4, ["d"])]
    assert not bad


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_line_of_enormous_length_is_one_bad_line(tmp_path: Path, packing: str) -> None:
    lines = [json.dumps(post(1, ["a"])), json.dumps(post(2, ["b" * 50_000])), json.dumps(post(3, ["c"]))]
    file = tmp_path / f"posts.json{packing}"
    file.write_bytes(PACK[packing]("\n".join(lines).encode()))
    kind = look_into(str(file)).kind
    assert kind is not None
    parsed = [job.read() for job in json_jobs(str(file), kind, block=4000, longest=4000)]
    assert [row["id"] for one in parsed for row in one.table.to_pylist()] == [1, 3]
    (bad,) = [bad for one in parsed for bad in one.bad]
    assert "longer than 4,000" in bad.reason
    before = 0
    for one in parsed:
        if one.bad:
            assert before + one.bad[0].line == 2
        before += one.lines


def test_two_gigabytes_in_one_line_do_not_fill_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "posts.json"
    with file.open("wb") as stream:
        stream.write(lines_of([post(1, ["a"])]))
        stream.truncate(stream.tell() + (2 << 30))  # a hole: nothing on the disk
        stream.seek(0, io.SEEK_END)
        stream.write(b"\n" + lines_of([post(2, ["b"])]))
    kind = look_into(str(file)).kind
    assert kind is not None
    jobs = list(json_jobs(str(file), kind))
    parsed = [job.read() for job in jobs]
    assert [row["id"] for one in parsed for row in one.table.to_pylist()] == [1, 2]
    assert [bad.reason[:8] for one in parsed for bad in one.bad] == ["a line o"]


# Tables


def table_of_posts() -> arrow.Table:
    return arrow.table(
        {
            "id": [1, 2, None],
            "rating": ["g", "e", None],
            "md5": ["ab" * 16, None, None],
            "file_ext": ["png", "jpg", "jpg"],
            "score": [5, -2, 0],
            "is_deleted": [False, True, None],
            "created_at": ["2021-09-14T14:33:47.088-04:00", None, None],
            "tag_string_general": ["hat smile", "hat", ""],
            "tag_string_character": ["miku", None, ""],
            "something_else": [1.5, 2.5, 3.5],
        }
    )


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_tables_have_the_api_s_columns(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"posts.{ending}"
    if ending == "parquet":
        parquet.write_table(table_of_posts(), file, row_group_size=2)
    else:
        sink = io.BytesIO()
        arrow_csv.write_csv(table_of_posts(), sink)
        file.write_bytes(gzip.compress(sink.getvalue()) if ending.endswith("gz") else sink.getvalue())
    names, rows, bad = read(tmp_path)
    assert names == ["Parquet" if ending == "parquet" else "CSV"]
    assert [(row["id"], row["rating"], row["deleted"] or False, row["score"]) for row in rows] == [
        (1, "g", False, 5),
        (2, "e", True, -2),
        (None, None, False, 0),
    ]
    assert tags_of(rows[0]) == {"general": ["hat", "smile"], "character": ["miku"]}
    assert rows[0]["created"] == "2021-09-14T14:33:47.088-04:00"
    assert not bad


def test_rows_of_a_csv_that_do_not_fit_are_bad_lines(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("id,tag_string\n1,a b\n2,a,b,c\n3.0,c\nnine,d\n")
    _, rows, bad = read(tmp_path)
    assert [(row["id"], row["general"]) for row in rows] == [(1, ["a", "b"]), (3, ["c"]), (None, ["d"])]
    assert [(one.line, one.reason) for one in bad] == [(3, "4 columns, not 2")]


@pytest.mark.parametrize("name", ["posts.csv", "posts.parquet"])
def test_tables_without_tags_or_sense_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(MetadataError, match=rf"{name}.*(no column of tags|cannot be read)"):
        list(find_jobs([str(tmp_path)])[1])


@given(
    sources=st.lists(st.sampled_from(["a", "x\ny", 'say "hi"\n', "a,b", ""]), min_size=1, max_size=12),
    block=st.integers(60, 300),
    end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from(",\t;"),
)
def test_a_csv_is_cut_only_between_rows(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str], block: int, end: str, delimiter: str
) -> None:
    file = tmp_path_factory.mktemp("csv") / "posts.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, delimiter=delimiter)
    writer.writerow(["id", "source", "tag_string", "rating", "parent_id", "score"])
    writer.writerows([number, source, "a b", "General", "0", -number] for number, source in enumerate(sources, start=1))
    file.write_bytes(text.getvalue().encode("utf-8-sig"))
    parsed = [job.read() for job in table_jobs(str(file), block=block)]
    assert not [bad for one in parsed for bad in one.bad]
    rows = [row for one in parsed for row in one.table.to_pylist()]
    assert [(row["id"], row["general"], row["rating"], row["parent_id"], row["score"]) for row in rows] == [
        (number, ["a", "b"], "g", None, -number) for number in range(1, len(sources) + 1)
    ]


def test_csv_rows_that_are_broken_cost_only_themselves(tmp_path: Path) -> None:
    file = tmp_path / "posts.csv"
    file.write_bytes(b"id,tag_string\n1,a\n2,b\xff\n3,c\n4," + b"d" * 500 + b"\n5,e\n")
    parsed = [job.read() for job in table_jobs(str(file), block=30, longest=100)]
    assert [row["id"] for one in parsed for row in one.table.to_pylist()] == [1, 3, 5]
    assert [bad.reason for one in parsed for bad in one.bad] == ["not valid UTF-8", "a row longer than 100 bytes"]


@pytest.mark.parametrize("group", [3, 7, 100])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_parquet_is_cut_into_jobs_whatever_its_row_groups(tmp_path: Path, group: int, rows: int) -> None:
    file = tmp_path / "posts.parquet"
    table = arrow.table(
        {
            "id": arrow.array(range(1, 21), arrow.uint32()),
            "parent_id": arrow.array([None, 3.0] * 10),  # as Pandas writes them
            "rating": ["sensitive", "unknown"] * 10,
            "created_at": arrow.array([0, 10**12] * 10, arrow.timestamp("ms", "America/New_York")),
            "tag_string_general": arrow.array([["a", "b"]] * 20),
        }
    )
    parquet.write_table(table, file, row_group_size=group)
    found = [row for job in table_jobs(str(file), rows=rows) for row in job.read().table.to_pylist()]
    assert [row["id"] for row in found] == list(range(1, 21))
    assert [(row["parent_id"], row["rating"], row["created"], row["general"]) for row in found[:2]] == [
        (None, "s", "1970-01-01T00:00:00.000Z", ["a", "b"]),
        (3, None, "2001-09-09T01:46:40.000Z", ["a", "b"]),
    ]


# Beside pictures


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_gallery_dl_s_files_beside_pictures(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "danbooru" / "a.jpg"), picture(tmp_path / "danbooru" / "b.png")
    Path(f"{one}.json").write_text(json.dumps(post(70, ["hat"], tag_string_character="miku"), indent=4))
    Path(f"{other}.json").write_text(json.dumps({"id": 71, "tags": "hat smile", "rating": "safe"}))
    picture(tmp_path / "danbooru" / "c.jpg")
    Path(tmp_path / "danbooru" / "c.jpg.json").write_text("{oops")
    names, rows, bad = read(tmp_path)
    assert names == ["gallery-dl sidecars (Danbooru)"]
    assert [(row["id"], row["path"], tags_of(row)) for row in rows] == [
        (70, str(one), {"general": ["hat"], "character": ["miku"]}),
        (71, str(other), {"general": ["hat", "smile"]}),
    ]
    assert [one.reason for one in bad] == ["not a JSON object with the tags of a post"]


def test_captions_beside_pictures(tmp_path: Path) -> None:
    for name, text in (
        ("1", "1girl, long hair, miku \\(vocaloid\\)\n"),
        ("2", "1girl\nlong hair\n"),
        ("x/y", "1girl smile"),
    ):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "alone.txt").write_text("1girl")
    names, rows, _ = read(tmp_path)
    assert names == ["caption files"]
    assert [(row["id"], row["general"]) for row in rows] == [
        (1, ["1girl", "long_hair", "miku_(vocaloid)"]),
        (2, ["1girl", "long_hair"]),
        (path_id("x/y.png"), ["1girl", "smile"]),
    ]
    assert rows[2]["path"] == str(tmp_path / "x/y.png")


def test_hydrus_s_files_beside_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "ab12.jpg")
    (tmp_path / "ab12.jpg.txt").write_text(
        "long hair\ncharacter:hatsune miku\nseries:vocaloid\ncreator:someone\nrating:safe\nmeta:highres\n:d\n"
    )
    names, (row,), _ = read(tmp_path)
    assert names == ["Hydrus sidecars"]
    assert row["rating"] == "s"
    assert tags_of(row) == {
        "general": ["long_hair", ":d"],
        "character": ["hatsune_miku"],
        "copyright": ["vocaloid"],
        "artist": ["someone"],
        "meta": ["highres"],
    }


word = st.text("abcxyz:^_()0", min_size=1, max_size=8).filter(lambda text: text.strip("_"))


@given(st.lists(word, min_size=2, max_size=8), st.sampled_from([", ", ",", "\n", " "]))
def test_captions_are_read_back_whatever_separates_them(tags: list[str], separator: str) -> None:
    assert read_caption(separator.join(tags)) == tags
    if separator != " ":
        assert read_caption(separator.join(tag.replace("_", " ") for tag in tags)) == [
            tag.strip("_").replace("__", "_") if "__" in tag or tag != tag.strip("_") else tag for tag in tags
        ] or any("__" in tag or tag != tag.strip("_") for tag in tags)


def test_a_loop_of_links_and_an_unreadable_folder_do_not_stop_the_walk(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.txt").write_text("hat")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    closed = tmp_path / "closed"
    closed.mkdir()
    (tmp_path / "a" / "2.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "posts.json").symlink_to(tmp_path / "posts.json")
    closed.chmod(0)
    try:
        assert [row["id"] for row in read(tmp_path)[1]] == [1]
    finally:
        closed.chmod(0o755)


def test_a_caption_that_cannot_be_read_is_a_bad_line(tmp_path: Path) -> None:
    for name in ("1", "2"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("hat")
    _, jobs = find_jobs([str(tmp_path)])
    os.unlink(tmp_path / "1.txt")  # noqa: PTH108
    parsed = [job.read() for job in jobs]
    assert [row["id"] for one in parsed for row in one.table.to_pylist()] == [2]
    assert [bad.reason for one in parsed for bad in one.bad] == ["cannot be read (No such file or directory)"]


def test_gallery_dl_s_own_split_of_tags_is_used(tmp_path: Path) -> None:
    danbooru = {**post(1, ["hat"], tag_string_character="miku"), "tags": ["hat", "miku"], "tags_general": ["hat"]}
    gelbooru = {"id": 2, "tags": "hat miku", "tags_general": "hat", "tags_character": "miku", "rating": "explicit"}
    for name, record in (("a", danbooru), ("b", gelbooru)):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.png.json").write_text(json.dumps(record))
    _, rows, bad = read(tmp_path)
    assert [(row["id"], row["rating"], tags_of(row)) for row in rows] == [
        (1, "s", {"general": ["hat"], "character": ["miku"]}),
        (2, "e", {"general": ["hat"], "character": ["miku"]}),
    ]
    assert not bad


def test_another_json_file_among_pictures_does_not_hide_their_captions(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "1.txt").write_text("hat, smile")
    (tmp_path / "info.json").write_text('{"title": "a gallery"}')
    assert read(tmp_path)[0] == ["caption files"]


def test_one_number_in_two_folders_is_two_pictures(tmp_path: Path) -> None:
    for name in ("a/1", "b/1", "b/2"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("hat")
    ids = [row["id"] for row in read(tmp_path)[1]]
    assert len(set(ids)) == 3
    assert ids[2] == 2
    assert ids == [row["id"] for row in read(tmp_path)[1]]
    assert all(0 < number < 2**62 for number in ids)


def test_captions_in_any_encoding_are_read_or_named(tmp_path: Path) -> None:
    for name, data in (
        ("1", "hat, smile".encode("utf-16")),
        ("2", b"\xef\xbb\xbfhat\r\nsmile\r\n"),
        ("3", b"hat\xff"),
        ("4", b""),
    ):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.caption").write_bytes(data)
    _, rows, bad = read(tmp_path)
    assert [(row["id"], row["general"]) for row in rows] == [(1, ["hat", "smile"]), (2, ["hat", "smile"]), (4, [])]
    assert [(Path(one.file).name, one.reason) for one in bad] == [("3.caption", "not valid UTF-8")]


def test_dates_of_gelbooru_become_iso(tmp_path: Path) -> None:
    row = {"id": 1, "tags": "a", "created_at": "Sat Sep 13 11:30:22 -0500 2025", "change": 1757694622}
    (found,) = read(write_lines(tmp_path / "posts.json", [row]))[1]
    assert (found["created"], found["updated"]) == ("2025-09-13T11:30:22-05:00", "1757694622")
