"""What a collection gives to others: persons' words before models', captions, posts, the whole record, pushes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collection_world import make_file, make_tagger, tagged
from pushing_world import AI_TAGS, KEY, HydrusClient, served

from efuda.collection import Collection
from efuda.collection.exporting import chosen_of, decided, posts_of, record_lines
from efuda.collection.pushes import Before, Pushes
from efuda.collection.scanning import scan
from efuda.pushing import Hydrus, Source, push
from efuda.tagging import open_sink
from efuda.vocabulary import Category


@pytest.fixture
def art(tmp_path: Path) -> Iterator[Collection]:
    """Three pictures with hat and scarf of a model; of the first a person says miku and not scarf; hat implies clothes,
    miku implies vocaloid, vocaloid implies music."""
    tagger = make_tagger(tmp_path / "model", ["hat", "scarf"])
    files = [make_file(tmp_path / "art" / f"{n}.png", f"picture {n}".encode()) for n in range(3)]
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        collection.add([tagged(tagger, path, {"hat": 0.8, "scarf": 0.6, "general": 0.9}) for path in files], tagger)
        collection.edit([1], add=["character:hatsune_miku"], remove=["scarf"], rating="s")
        with collection.record.write() as writing:
            for one, other in (("hat", "clothes"), ("hatsune_miku", "vocaloid"), ("vocaloid", "music")):
                values = (writing.tag(one), writing.tag(other))
                writing.db.execute("INSERT INTO implications VALUES (?, ?)", values)
            writing.relations_changed()
        yield collection


def names(chosen: Any) -> list[str]:
    return sorted(name for name, _, _ in chosen.tags)


def test_decided_is_what_persons_say_and_what_that_implies(art: Collection) -> None:
    picture = art.picture(1)
    assert sorted(tag.name for tag in decided(picture)) == ["hatsune_miku", "music", "vocaloid"]
    assert sorted(tag.name for tag in decided(picture, models=True)) == [
        *("clothes", "hat", "hatsune_miku", "music", "vocaloid"),
    ]
    assert decided(art.picture(2)) == []
    assert (picture.rating, picture.rating_by) == ("sensitive", "person")
    assert (art.picture(2).rating, art.picture(2).rating_by) == ("general", "model")


def test_captions_have_persons_words(art: Collection, tmp_path: Path) -> None:
    first, second, _ = chosen_of(art.record, [1, 2, 3])
    assert names(first) == ["clothes", "hat", "hatsune_miku", "music", "vocaloid"] and first.rating == "sensitive"
    assert first.tags[0] == ("hatsune_miku", 1.0, Category.CHARACTER) and first.size == (640, 480)
    assert names(second) == ["clothes", "hat", "scarf"] and second.rating == "general"
    assert {name: score for name, score, _ in second.tags}["hat"] == 0.8  # in steps of 1/255
    [only] = chosen_of(art.record, [2], models=False)
    assert (only.tags, only.rating) == ([], None)
    with open_sink("xmp", "the collection") as sink:
        assert sink.write_many([first]) == []
    text = (tmp_path / "art" / "0.png.xmp").read_text()
    assert "<rdf:li>character/hatsune_miku</rdf:li>" in text and "scarf" not in text  # as Immich and digiKam read it


def test_every_file_of_a_picture_and_another_folder(art: Collection, tmp_path: Path) -> None:
    make_file(tmp_path / "art" / "deep" / "copy.png", b"picture 0")
    scan(art.record, [tmp_path / "art"])
    found = [one.path for one in chosen_of(art.record, [1], every_file=True)]
    assert found == [tmp_path / "art" / "0.png", tmp_path / "art" / "deep" / "copy.png"]
    inside = chosen_of(art.record, [1], every_file=True, into=tmp_path / "out", folders=[tmp_path / "art"])
    assert [one.path for one in inside] == [tmp_path / "out" / "0.png", tmp_path / "out" / "deep" / "copy.png"]
    two = chosen_of(art.record, [1], into=tmp_path / "out", folders=[tmp_path / "b", tmp_path / "art"])
    assert [one.path for one in two] == [tmp_path / "out" / "art" / "0.png"]


def test_missing_pictures_have_no_captions(art: Collection, tmp_path: Path) -> None:
    (tmp_path / "art" / "0.png").unlink()
    scan(art.record)
    assert [one.path.name for one in chosen_of(art.record, [1, 2])] == ["1.png"]


def test_posts_are_danbooru_shaped(art: Collection, tmp_path: Path) -> None:
    first, second = posts_of(art.record, [1, 2])
    assert first["tag_string"].split() == ["hatsune_miku", "music", "vocaloid"]
    assert first["tag_string_character"] == "hatsune_miku" and first["tag_string_refused"] == "scarf"
    assert (first["rating"], first["md5"]) == ("s", art.picture(1).md5)
    assert second["tag_string"] == "" and second["rating"] is None  # no one has decided
    [with_models] = posts_of(art.record, [2], models=True)
    assert with_models["tag_string_general"].split() == ["hat", "scarf", "clothes"] and with_models["rating"] == "g"


def test_the_whole_record_as_lines(art: Collection) -> None:
    lines = [json.loads(json.dumps(line)) for line in record_lines(art.record)]
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "collection" and kinds.count("picture") == 3 and kinds.count("operation") == 2
    first = next(line for line in lines if line["kind"] == "picture")
    assert [(word["tag"], word["says"], word["by"]) for word in first["words"]] == [
        ("scarf", "no", "me"),
        ("rating:sensitive", "yes", "me"),
        ("hatsune_miku", "yes", "me"),
    ]
    [tagging] = first["taggings"]
    assert tagging["scores"]["hat"] == 204 and "hat" in tagging["present"] and tagging["is"] == "model"
    hat = next(line for line in lines if line["kind"] == "tag" and line["name"] == "hat")
    assert hat == {"kind": "tag", "name": "hat", "category": "general", "aliases": [], "implies": ["clothes"]}
    edit = lines[-1]
    assert edit["does"] == "edit" and {change["tag"] for change in edit["changes"]} == {
        *("hatsune_miku", "scarf", "rating:sensitive"),
    }


# The memory of pushes


def test_what_was_pushed_is_remembered_until_the_picture_changes(art: Collection) -> None:
    memory = Pushes(art.record, "somewhere")
    assert memory.unpushed([1, 2, 3], models=False) == [1, 2, 3]
    assert memory.before([1]) == {}
    with art.record.read() as db:
        revision = int(db.execute("SELECT revision FROM pictures WHERE id = 1").get)  # type: ignore[arg-type]
    memory.note([(1, revision, {"hatsune_miku", "rating:sensitive"}, "there")], models=False)
    assert memory.before([1, 2]) == {1: Before(frozenset({"hatsune_miku", "rating:sensitive"}), "there")}
    assert memory.unpushed([1, 2], models=False) == [2]
    assert memory.unpushed([1, 2], models=True) == [1, 2]  # other tags would go along
    assert Pushes(art.record, "elsewhere").unpushed([1], models=False) == [1]
    art.edit([1], add=["hat"])
    assert memory.unpushed([1], models=False) == [1]


def test_from_a_collection_to_hydrus_and_back(art: Collection) -> None:
    client = HydrusClient()
    sums = [bytes.fromhex(art.picture(n).sha256) for n in (1, 2, 3)]
    client.files = {one.hex() for one in sums[:2]}
    with served(client.answer) as url, Hydrus(url, KEY, AI_TAGS) as target:

        def run(**how: Any) -> dict[str, int]:
            source = Source(art, target.identity, **how)
            done = push(source.items(source.todo([1, 2, 3])), target, remember=source.remember)
            return {"pushed": done.pushed, "unchanged": done.unchanged, "absent": done.absent}

        assert run() == {"pushed": 1, "unchanged": 1, "absent": 1}
        assert client.tags(sums[0]) == {*("character:hatsune miku", "music", "vocaloid", "rating:sensitive")}
        assert client.tags(sums[1]) == set()  # no one has decided anything
        assert run() == {"pushed": 0, "unchanged": 0, "absent": 1}  # only what Hydrus did not have is asked for again
        art.edit([1], remove=["hatsune_miku"])
        assert run() == {"pushed": 1, "unchanged": 0, "absent": 1}
        assert "character:hatsune miku" not in client.tags(sums[0])
        assert run(models=True) == {"pushed": 2, "unchanged": 0, "absent": 1}
        assert client.tags(sums[1]) == {"hat", "scarf", "clothes", "rating:general"}
        assert "hat" in client.tags(sums[0]) and "scarf" not in client.tags(sums[0])
        assert run(models=True, again=True) == {"pushed": 0, "unchanged": 2, "absent": 1}
