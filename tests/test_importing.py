"""Tags from files beside the pictures, and what is known of tags: on real files and a real collection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from collection_world import make_file, make_tagger, tagged

from efuda.collection import Collection
from efuda.errors import InputError
from efuda.tagging import Tagger
from efuda.vocabulary import Category


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    return make_tagger(tmp_path / "model", ["hat", "smile"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "art"


@pytest.fixture
def collection(tmp_path: Path, folder: Path, tagger: Tagger) -> Iterator[Collection]:
    """Pictures 1 to 3: a.jpg with a hat, b.png with nothing, sub/c.webp with a smile; all general."""
    files = [make_file(folder / name) for name in ("a.jpg", "b.png", "sub/c.webp")]
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        said = ({"hat": 1, "general": 1}, {"general": 1}, {"smile": 1, "general": 1})
        collection.add([tagged(tagger, *one) for one in zip(files, said, strict=True)], tagger)
        yield collection


def imported(collection: Collection, number: int) -> dict[str, Category]:
    return {tag.name: tag.category for tag in collection.picture(number).tags if tag.by == "import"}


def test_captions_of_every_form(collection: Collection, folder: Path) -> None:
    (folder / "a.txt").write_text("1girl, Long Hair, character: hatsune miku, hat")
    (folder / "b.caption").write_text("solo\nlooking at viewer\n")
    (folder / "sub" / "c.txt").write_text("solo blue_eyes")
    done = collection.import_tags(name="captions")
    assert (done.found, done.changed, done.tags, done.left_out, done.failed) == (3, 3, 8, {}, [])
    assert done.new_tags == {"solo": 2, **dict.fromkeys(("1girl", "long_hair", "hatsune_miku"), 1)} | dict.fromkeys(
        ("looking_at_viewer", "blue_eyes"), 1
    )
    general = Category.GENERAL
    assert imported(collection, 1) == {
        "1girl": general,
        "long_hair": general,
        "hatsune_miku": Category.CHARACTER,
        "hat": general,
    }
    assert imported(collection, 2).keys() == {"solo", "looking_at_viewer"}
    assert [tag.name for tag in collection.picture(3).tags] == ["blue_eyes", "solo", "smile"]
    [hat] = [tag for tag in collection.picture(1).tags if tag.name == "hat"]
    assert (hat.source, hat.score) == ("captions", 1.0)


def test_a_booru_s_post(collection: Collection, folder: Path) -> None:
    post = {
        "id": 20,
        "parent_id": 10,
        "rating": "q",
        "source": "https://example.org/1",
        "created_at": "2020-01-02T03:04:05.678-05:00",
        "tag_string_general": "solo hat",
        "tag_string_character": "hatsune_miku",
        "tags": ["solo", "hat", "hatsune_miku", "highres"],
    }
    (folder / "a.jpg.json").write_text(json.dumps(post))
    old = {"id": "10", "rating": "s", "tags": [{"name": "highres", "category": "5"}, {"name": "solo", "category": 0}]}
    (folder / "b.png.json").write_text(json.dumps(old))
    e621 = {"tags": {"general": ["solo"], "artist": ["someone"]}, "rating": "e", "sources": ["https://example.org/3"]}
    (folder / "sub" / "c.webp.json").write_text(json.dumps(e621))
    assert collection.import_tags().changed == 3
    first, second, third = (collection.picture(number) for number in (1, 2, 3))
    assert (first.rating, first.source, first.date) == ("questionable", "https://example.org/1", "2020-01-02T08:04:05Z")
    assert (first.parent, second.children) == (2, (1,))
    assert (second.rating, third.rating, third.source) == ("sensitive", "explicit", "https://example.org/3")
    assert imported(collection, 1)["hatsune_miku"] is Category.CHARACTER
    assert imported(collection, 2) == {"highres": Category.META, "solo": Category.GENERAL}
    assert imported(collection, 3)["someone"] is Category.ARTIST
    before = collection.picture(1).added
    undone = collection.undo()
    assert (undone.changed, undone.skipped) == (3, 0)
    assert (collection.picture(1).parent, collection.picture(1).source, imported(collection, 1)) == (None, None, {})
    assert collection.picture(1).rating == "general" and collection.picture(1).added == before
    collection.redo()
    assert collection.picture(1) == first


def test_hydrus_lists_and_xmp(collection: Collection, folder: Path) -> None:
    (folder / "a.jpg.txt").write_text("creator:some one\nlong hair\nrating:safe\nurl:https://example.org\n")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag><rdf:li>blue eyes</rdf:li>'
        "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    (folder / "b.xmp").write_text(packet)
    collection.import_tags()
    assert imported(collection, 1) == {"some_one": Category.ARTIST, "long_hair": Category.GENERAL}
    assert collection.picture(1).rating == "sensitive"
    assert imported(collection, 2) == {"blue_eyes": Category.GENERAL}


def test_persons_beat_imports_and_importing_again_replaces(collection: Collection, folder: Path) -> None:
    (folder / "a.txt").write_text("solo, hat")
    collection.import_tags()
    collection.edit([1], remove=["solo"], rating="e")
    (folder / "a.txt").write_text("solo, smile, rating:general")
    assert collection.import_tags().changed == 1
    assert [tag.name for tag in collection.picture(1).tags] == ["smile", "hat"]
    assert collection.picture(1).rating == "explicit"
    revision = collection.revision
    again = collection.import_tags()
    assert (again.changed, again.operation, collection.revision) == (0, None, revision)
    assert collection.import_tags(name="other").changed == 1
    assert [one["pictures"] for one in collection.status()["imports"]] == [1, 1]


def test_a_dry_run_says_and_changes_nothing(collection: Collection, folder: Path) -> None:
    (folder / "a.txt").write_text("solo, two\nwords, (weighted:1.2)")
    (folder / "sub" / "c.txt").write_text("solo")
    revision = collection.revision
    tried = collection.import_tags(dry_run=True)
    assert (tried.operation, tried.changed, tried.left_out) == (None, 2, {"(weighted:1.2)": 1})
    assert tried.new_tags == {"solo": 2, "two": 1, "words": 1}
    assert collection.revision == revision and imported(collection, 1) == {}
    done = collection.import_tags()
    assert (done.changed, done.new_tags, done.left_out) == (2, tried.new_tags, tried.left_out)


def test_only_some_folders(collection: Collection, folder: Path) -> None:
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (folder / name).write_text("solo")
    assert collection.import_tags([folder / "sub"]).changed == 1
    assert collection.import_tags([folder / "a.jpg"]).changed == 1
    assert (imported(collection, 1), imported(collection, 2)) == ({"solo": Category.GENERAL}, {})


def test_files_that_cannot_be_read_do_not_stop_the_rest(collection: Collection, folder: Path) -> None:
    (folder / "a.jpg.json").write_text("{")
    (folder / "b.png.json").write_text('{"title": "no post"}')
    (folder / "sub" / "c.webp.json").write_bytes(b"\xff\xfe\xff")
    (folder / "sub" / "c.txt").write_text("solo")
    done = collection.import_tags()
    assert [(one.path.name, one.reason) for one in done.failed] == [
        ("a.jpg.json", "not valid JSON"),
        ("b.png.json", "not a JSON object with the tags of a post"),
        ("c.webp.json", "not valid UTF-8"),
    ]
    assert imported(collection, 3) == {"solo": Category.GENERAL}


def test_half_a_character_is_left_out(collection: Collection, folder: Path) -> None:
    (folder / "a.jpg.json").write_text('{"tags": "solo a\\ud800b", "source": "x\\ud800"}')
    assert collection.import_tags().left_out == {"a\ufffdb": 1}
    assert (imported(collection, 1), collection.picture(1).source) == ({"solo": Category.GENERAL}, "x\ufffd")


# Relations


def test_a_tag_list_gives_aliases_and_categories(collection: Collection, tmp_path: Path) -> None:
    listed = tmp_path / "danbooru.csv"
    listed.write_text('hat,0,10,"headgear,帽子"\nsmile,4,10,\nunknown,1,5,"other_name"\nmiku,4,5,smile\n')
    done = collection.relate([listed])
    assert (done.aliases, done.categories, done.tags, done.own) == (2, 1, 0, [])
    assert collection.edit([2], add=["headgear"]).summary == "added hat"
    assert collection.picture(3).tags[0].category is Category.CHARACTER
    assert collection.relate([listed]).aliases == 0
    tried = collection.relate([listed], everything=True, dry_run=True)
    assert (tried.aliases, tried.tags, tried.own) == (1, 2, ["smile"])
    assert collection.relate([listed], everything=True) == tried
    assert collection.edit([1], add=["other_name"]).summary == "added unknown"


def test_implications_of_tags_that_are_there(collection: Collection, tmp_path: Path) -> None:
    implications = tmp_path / "tag_implications.json"
    pairs = (("hat", "headwear"), ("headwear", "clothes"), ("nowhere", "somewhere"))
    rows = [{"antecedent_name": one, "consequent_name": two, "status": "active"} for one, two in pairs]
    implications.write_text(json.dumps(rows))
    before = relations_of(collection)
    done = collection.relate([implications])
    assert (done.implications, done.tags, relations_of(collection)) == (2, 2, before + 1)
    assert [(tag.name, tag.by) for tag in collection.picture(1).tags] == [
        ("hat", "model"),
        ("clothes", "implied"),
        ("headwear", "implied"),
    ]
    assert (collection.relate([implications]).implications, relations_of(collection)) == (0, before + 1)


def test_a_model_s_tag_is_no_longer_an_alias(collection: Collection, tmp_path: Path) -> None:
    aliases = tmp_path / "tag_aliases.csv"
    aliases.write_text("antecedent_name,consequent_name\ngrin,smirk\nsmirk,smile\n")
    assert collection.relate([aliases]).aliases == 2
    other = make_tagger(tmp_path / "other", ["grin"])
    path = make_file(tmp_path / "new.png")
    collection.add([tagged(other, path, {"grin": 1})], other)
    assert [tag.name for tag in collection.picture(4).tags] == ["grin"]
    assert collection.edit([4], add=["smirk"]).summary == "added smile"


def test_what_is_no_list_is_refused(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\nworld\n")
    for name in ("notes.txt", "absent.csv", "tag_implications_absent.csv"):
        with pytest.raises(InputError, match=name):
            collection.relate([tmp_path / name])


def relations_of(collection: Collection) -> object:
    with collection.record.read() as db:
        return db.execute("SELECT value FROM state WHERE key = 'relations'").get
