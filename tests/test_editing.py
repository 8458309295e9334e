"""What persons say, on a real collection: it beats models for ever, is one operation, and can be undone and redone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from collection_world import make_file, make_tagger, tagged

from efuda.collection import Collection, Operation, Picture
from efuda.collection.record import rows
from efuda.errors import CollectionError
from efuda.tagging import Tagger
from efuda.vocabulary import Category, Tag

TAGS = ["glasses", "hat", "smile", Tag("miku", Category.CHARACTER)]


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    return make_tagger(tmp_path / "model", TAGS)


@pytest.fixture
def collection(tmp_path: Path, tagger: Tagger) -> Iterator[Collection]:
    """Three pictures: a hat (general), glasses and a smile (sensitive), nothing (general)."""
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        tag_all(collection, tagger, tmp_path)
        yield collection


def tag_all(collection: Collection, tagger: Tagger, root: Path) -> None:
    said = ({"hat": 0.8, "general": 0.9}, {"glasses": 0.8, "smile": 0.6, "sensitive": 0.9}, {"general": 0.9})
    files = [make_file(root / "pictures" / f"{number}.png") for number in (1, 2, 3)]
    collection.add([tagged(tagger, *one) for one in zip(files, said, strict=True)], tagger)


def names(picture: Picture) -> list[str]:
    return [tag.name for tag in picture.tags]


def tags(collection: Collection) -> list[list[str]]:
    return [names(collection.picture(number)) for number in (1, 2, 3)]


FIRST = [["hat"], ["glasses", "smile"], []]


# Editing


def test_an_edit_says_who_and_beats_the_model(collection: Collection) -> None:
    done = collection.edit([1, 2], add=["smile"], remove=["hat"], by="ann")
    assert (done.kind, done.by, done.summary, done.changed) == ("edit", "ann", "added smile, removed hat", 2)
    first, second = collection.picture(1), collection.picture(2)
    assert [(tag.name, tag.by, tag.source, tag.at) for tag in first.tags] == [("smile", "person", "ann", done.at)]
    assert [(tag.name, tag.by, tag.score) for tag in first.refused] == [("hat", "person", 204 / 255)]
    assert [(tag.name, tag.by, tag.score) for tag in second.tags] == [
        ("smile", "person", 153 / 255),
        ("glasses", "model", 204 / 255),
    ]


def test_tagging_again_brings_nothing_back(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    collection.edit([1], add=["smile"], remove=["hat"])
    tag_all(collection, tagger, tmp_path)
    other = make_tagger(tmp_path / "other", TAGS)
    tag_all(collection, other, tmp_path)
    assert tags(collection) == [["smile"], ["glasses", "smile"], []]
    collection.edit([1], forget=["hat", "smile"])
    assert tags(collection) == FIRST


def test_a_query_says_which_pictures(collection: Collection) -> None:
    assert collection.edit("rating:g", add=["solo"]).changed == 2
    assert tags(collection) == [["solo", "hat"], ["glasses", "smile"], ["solo"]]


def test_what_is_so_already_is_not_written(collection: Collection) -> None:
    collection.edit([1], add=["hat"])
    revision = collection.revision
    nothing = collection.edit([1, 1], add=["hat"])
    assert (nothing.id, nothing.changed, nothing.summary) == (0, 0, "added hat")
    assert collection.revision == revision and len(collection.history()) == 2
    assert collection.edit([1, 2], add=["hat"]).changed == 1


def test_a_rating_takes_the_place_of_another(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    assert collection.picture(1).rating == "general"
    collection.edit([1], rating="q")
    assert collection.edit([1], add=["rating:explicit"]).summary == "rated explicit"
    tag_all(collection, tagger, tmp_path)
    picture = collection.picture(1)
    assert (picture.rating, next(iter(picture.ratings))) == ("explicit", "general")
    assert [collection.undo().summary for _ in "12"] == ["undid tagged by model", "undid rated explicit"]
    assert collection.picture(1).rating == "questionable"
    collection.edit([1], forget=["rating:questionable"])
    assert collection.picture(1).rating == "general"


def test_new_tags_are_said_to_be_new(collection: Collection) -> None:
    done = collection.edit([1], add=["Character: Hatsune Miku", "my own tag", "hat"])
    assert done.new_tags == ("hatsune_miku", "my_own_tag")
    assert done.summary == "added hatsune_miku, my_own_tag, hat (new: hatsune_miku, my_own_tag)"
    assert {(tag.name, tag.category) for tag in collection.picture(1).tags} == {
        ("hatsune_miku", Category.CHARACTER),
        ("my_own_tag", Category.GENERAL),
        ("hat", Category.GENERAL),
    }
    assert collection.edit([2], add=["my own tag"]).new_tags == ()


def test_aliases_are_followed(collection: Collection) -> None:
    with collection.record.write() as writing:
        writing.db.execute("INSERT INTO tag_aliases VALUES ('spectacles', ?)", (writing.tag("glasses"),))
    assert collection.edit([1], add=["spectacles"]).summary == "added glasses"
    assert names(collection.picture(1)) == ["glasses", "hat"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"add": ["a,b"]}, '"a,b" cannot be a tag'),
        ({"add": ["order:id"]}, "cannot be a tag"),
        ({"add": ["\udc8e"]}, "not valid Unicode"),
        ({"remove": ["帽子"]}, "no tag 帽子"),
        ({"add": ["or"]}, "cannot be a tag"),
        ({"remove": ["hta"]}, "no tag hta"),
        ({"add": ["hat"], "remove": ["hat"]}, "hat is named twice"),
        ({"add": ["hat"], "forget": ["hat"]}, "hat is named twice"),
        ({"rating": "safe"}, "safe is no rating"),
        ({"rating": "g", "add": ["rating:e"]}, "one rating, not both explicit and general"),
        ({"remove": ["rating:g"]}, "not removed but replaced"),
        ({}, "nothing to do"),
    ],
)
def test_what_is_refused_changes_nothing(collection: Collection, wish: dict[str, list[str]], message: str) -> None:
    revision = collection.revision
    with pytest.raises(CollectionError, match=message):
        collection.edit([1], **wish)  # type: ignore[arg-type]
    for number in (9, -1, 2**70):
        with pytest.raises(CollectionError, match=f"no picture {number} "):
            collection.edit([1, number], add=["hat"])
        with pytest.raises(CollectionError, match=f"no picture {number} "):
            collection.picture(number)
    assert collection.revision == revision and tags(collection) == FIRST


def test_pictures_are_taken_out_and_brought_back(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    collection.remove([1])
    assert collection.search("").total == 2 and collection.picture(1).removed
    assert list(collection.untagged([tmp_path / "pictures" / "1.png"], "other@1")) == []
    tag_all(collection, tagger, tmp_path)
    assert [one.id for one in collection.search("").pictures] == [3, 2]
    collection.undo(collection.history()[1].id)
    assert collection.search("hat").total == 1
    collection.remove("hat")
    collection.remove([1], back=True)
    assert collection.search("hat").total == 1


# Implications


def test_implied_tags_join_unless_refused(collection: Collection) -> None:
    with collection.record.write() as writing:
        tag = {name: writing.tag(name) for name in ("cap", "hat", "headwear", "clothes")}
        pairs = (("cap", "hat"), ("hat", "headwear"), ("headwear", "clothes"), ("clothes", "headwear"))
        writing.db.executemany("INSERT INTO implications VALUES (?, ?)", [(tag[one], tag[two]) for one, two in pairs])
    collection.edit([3], add=["cap"])
    implied = [(one.name, one.by, one.source) for one in collection.picture(3).tags]
    assert implied == [
        ("cap", "person", "me"),
        ("clothes", "implied", "headwear"),
        ("hat", "implied", "cap"),
        ("headwear", "implied", "hat"),
    ]
    assert names(collection.picture(1)) == ["hat", "clothes", "headwear"]
    collection.edit([1, 3], remove=["headwear"])
    assert (names(collection.picture(1)), names(collection.picture(3))) == (["hat"], ["cap", "hat"])


# Undo and redo


def last(collection: Collection) -> tuple[str, int, int]:
    [latest, *_] = collection.history(limit=1)
    return latest.kind, latest.changed, latest.skipped


def test_undo_and_redo_go_step_by_step(collection: Collection) -> None:
    one = collection.edit([1], add=["smile"])
    two = collection.edit([1, 2], remove=["smile"], by="ann")
    after = tags(collection)
    assert collection.undo().undoes == two.id
    [smile, _] = collection.picture(1).tags
    assert (smile.name, smile.source, smile.at) == ("smile", "me", one.at)
    assert collection.undo(by="ann").undoes == one.id
    assert tags(collection) == FIRST
    with pytest.raises(CollectionError, match="nothing to undo"):
        collection.undo()
    assert [collection.redo().summary, collection.redo().summary] == ["redid added smile", "redid removed smile"]
    assert tags(collection) == after
    with pytest.raises(CollectionError, match="nothing to redo"):
        collection.redo()
    assert collection.undo().undoes == two.id
    kinds = [(one.kind, one.undone) for one in reversed(collection.history())]
    assert kinds == [
        ("add", False),
        ("edit", False),
        ("edit", True),
        ("undo", True),
        ("undo", True),
        ("redo", False),
        ("redo", False),
        ("undo", False),
    ]


def test_a_new_edit_ends_what_could_be_redone(collection: Collection) -> None:
    collection.edit([1], add=["smile"])
    collection.undo()
    assert collection.redoable() is not None
    collection.edit([3], add=["hat"])
    assert collection.redoable() is None
    with pytest.raises(CollectionError, match="something else was done since"):
        collection.redo()
    assert collection.undoable() == collection.history(limit=1)[0]


def test_an_undo_leaves_alone_what_has_moved_on(collection: Collection) -> None:
    first = collection.edit([1, 2, 3], add=["solo"])
    collection.edit([2], remove=["solo"])
    undone = collection.undo(first.id)
    assert (undone.changed, undone.skipped) == (2, 1)
    assert [tag.name for tag in collection.picture(2).refused] == ["solo"]
    redone = collection.redo()
    assert (redone.changed, redone.skipped) == (2, 0)
    assert [("solo" in one) for one in tags(collection)] == [True, False, True]


def test_what_cannot_be_undone_says_why(collection: Collection) -> None:
    done = collection.edit([1], add=["smile"])
    undone = collection.undo()
    for operation, message in (
        (done.id, "undone already"),
        (undone.id, "is itself an undo"),
        (2**70, "no operation 1180591620717411303424"),
    ):
        with pytest.raises(CollectionError, match=message):
            collection.undo(operation)


def test_a_tagging_run_is_undone_as_one(collection: Collection, tmp_path: Path) -> None:
    tagger = make_tagger(tmp_path / "model", TAGS, threshold=0.1)
    files = [tmp_path / "pictures" / f"{number}.png" for number in (1, 2)]
    before = dump(collection)
    collection.add([tagged(tagger, path, {"hat": 0.2, "smile": 0.3, "explicit": 0.5}) for path in files], tagger)
    after = dump(collection)
    assert tags(collection) == [["smile", "hat"], ["smile", "hat"], []]
    assert (last(collection), collection.history()[0].summary) == (("tag", 2, 0), "tagged by model")
    collection.undo()
    assert (tags(collection), dump(collection)) == (FIRST, before)
    collection.redo()
    assert dump(collection) == after
    collection.undo()
    assert (last(collection), dump(collection)) == (("undo", 2, 0), before)


def test_another_models_run_is_withdrawn_as_one(collection: Collection, tmp_path: Path) -> None:
    other = make_tagger(tmp_path / "other", TAGS)
    files = [tmp_path / "pictures" / f"{number}.png" for number in (1, 2)]
    collection.add([tagged(other, path, {"miku": 1}) for path in files], other)
    collection.undo()
    assert tags(collection) == FIRST and collection.picture(1).model == "model"
    assert list(collection.untagged(files, other.identity)) == files
    collection.redo()
    assert tags(collection) == [["miku"], ["miku"], []]
    collection.undo()
    collection.add([tagged(other, files[0], {"smile": 1})], other)
    assert tags(collection) == [["smile"], ["glasses", "smile"], []]
    assert collection.redoable() is None


def test_a_run_undone_after_a_later_look_leaves_that(collection: Collection, tagger: Tagger, tmp_path: Path) -> None:
    files = [tmp_path / "pictures" / f"{number}.png" for number in (1, 2)]
    collection.add([tagged(tagger, path, {"miku": 1}) for path in files], tagger)
    run = collection.history()[0]
    collection.add([tagged(tagger, files[0], {"smile": 1})], tagger)
    assert collection.undo(run.id).skipped == 1
    assert tags(collection) == [["smile"], ["glasses", "smile"], []]


def test_adding_is_undone_only_by_name(collection: Collection) -> None:
    [added] = collection.history()
    with pytest.raises(CollectionError, match="nothing to undo"):
        collection.undo()
    assert collection.undo(added.id).changed == 3
    assert tags(collection) == [[], [], []] and collection.search("").total == 3
    collection.redo()
    assert tags(collection) == FIRST


def dump(collection: Collection) -> list[tuple[object, ...]]:
    with collection.record.read() as db:
        return rows(db, "SELECT * FROM taggings ORDER BY id")


def test_five_thousand_at_once(collection: Collection) -> None:
    with collection.record.write() as writing:
        for number in range(4, 5001):
            writing.db.execute(
                "INSERT INTO pictures (id, sha256, bytes, filetype, width, height, added, date, revision) "
                "VALUES (?, ?, 1, 'png', 1, 1, '', '', 1)",
                (number, number.to_bytes(32, "big")),
            )
    begin = time.perf_counter()
    done = collection.edit(range(1, 5001), add=["one", "two"], remove=["hat"])
    assert (done.changed, collection.undo().changed, collection.redo().changed) == (5000, 5000, 5000)
    assert time.perf_counter() - begin < 10  # a second on a slow machine; ten if something is done a picture at a time
    assert names(collection.picture(5000)) == ["one", "two"]


def test_history_goes_backwards_in_pages(collection: Collection) -> None:
    for name in ("a1", "a2", "a3"):
        collection.edit([1], add=[name])
    latest: list[Operation] = collection.history(limit=2)
    assert [one.summary for one in latest] == ["added a3 (new: a3)", "added a2 (new: a2)"]
    assert [one.id for one in collection.history(limit=2, before=latest[-1].id)] == [2, 1]
    assert collection.history(limit=2, before=2**70) == latest
