"""Aliases, implications and tag lists, as Danbooru and a1111's tagcomplete write them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import write_lines

from efuda.datasets.relations import Relations, find_relations, read_relations, read_tag_names
from efuda.errors import MetadataError


def pair(name: str, other: str, **more: Any) -> dict[str, Any]:
    return {"antecedent_name": name, "consequent_name": other, **more}


def test_aliases_are_followed_to_their_end_and_only_active_ones(tmp_path: Path) -> None:
    rows = [pair("a", "b", status="active"), pair("b", "c"), pair("gone", "c", status="deleted")]
    rows += [pair("x", "y"), pair("y", "x")]
    file = write_lines(tmp_path / "tag_aliases000000000000.json", rows)
    assert find_relations([str(tmp_path / "posts0.json")]) == [str(file)]
    aliases = read_relations([str(file)]).aliases
    assert (aliases["a"], aliases["b"]) == ("c", "c")
    assert "gone" not in aliases
    assert {aliases.get("x", "x"), aliases.get("y", "y")} <= {"x", "y"}  # a circle ends somewhere


def test_implications_are_closed_over_canonical_names() -> None:
    relations = Relations.resolve(
        {"kitty_ears": "cat_ears"},
        [("kitty_ears", "animal_ears"), ("animal_ears", "ears"), ("p", "q"), ("q", "p")],
    )
    assert relations.implications == {
        "cat_ears": ("animal_ears", "ears"),
        "animal_ears": ("ears",),
        "p": ("q",),
        "q": ("p",),
    }


@pytest.mark.parametrize("shape", ["lines", "array", "csv", "gz"])
def test_every_shape_of_danbooru_s_own_files(tmp_path: Path, shape: str) -> None:
    rows = [pair("cat_ears", "animal_ears", status="active"), pair("old", "older", status="deleted")]
    name = {"csv": "tag_implications.csv", "gz": "tag_implications0.json.gz"}.get(shape, "tag_implications0.json")
    text = {
        "array": json.dumps(rows),
        "csv": "antecedent_name,consequent_name,status\ncat_ears,animal_ears,active\nold,older,deleted\n",
    }.get(shape, "\n".join(map(json.dumps, rows)))
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if shape == "gz" else data)
    assert read_relations([str(tmp_path / name)]).implications == {"cat_ears": ("animal_ears",)}


def test_a_tag_list_gives_aliases_and_categories_but_no_alias_hides_a_tag(tmp_path: Path) -> None:
    file = tmp_path / "danbooru.csv"
    file.write_text('1girl,0,5000000,"sole_female,1girls"\nhatsune_miku,4,90000,miku\n1girls,0,12,\n')
    relations = read_relations([str(file)])
    assert relations.aliases == {"sole_female": "1girl", "miku": "hatsune_miku"}
    assert relations.categories == {"1girl": 0, "hatsune_miku": 4, "1girls": 0}


def test_what_is_none_of_them_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(MetadataError, match=r"notes\.txt holds neither aliases nor implications"):
        read_relations([str(tmp_path / "notes.txt")])
    with pytest.raises(MetadataError, match=r"nowhere\.csv cannot be read"):
        read_relations([str(tmp_path / "nowhere.csv")])


def test_the_digest_changes_with_any_part() -> None:
    digests = {
        Relations.resolve({}).digest,
        Relations.resolve({"a": "b"}).digest,
        Relations.resolve({}, [("a", "b")]).digest,
        Relations.resolve({}, [], {"a": 4}).digest,
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    "text",
    ["1girl\nhat\n\n", "1girl,0,500,\nhat,0,3,cap\n", "tag_id,name,category,count\n1,1girl,0,5\n2,hat,0,3\n"],
)
def test_a_list_of_tags_in_three_shapes(tmp_path: Path, text: str) -> None:
    (tmp_path / "tags").write_text(text)
    assert read_tag_names(str(tmp_path / "tags")) == {"1girl", "hat"}
    (tmp_path / "none").write_text("\n")
    with pytest.raises(MetadataError, match="names no tag"):
        read_tag_names(str(tmp_path / "none"))
