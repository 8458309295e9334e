"""Duplicates: the same pixels, nearly the same, variants told by tags; counted as pictures come and go; merging."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from collection_world import make_tagger, tagged
from conftest import Efuda
from PIL import Image
from test_previews import scene

from efuda.collection import Collection
from efuda.collection.duplicates import Duplicates, Member
from efuda.collection.hamming import distances, near
from efuda.collection.taggings import packed_scores, put_tagging
from efuda.errors import CollectionError
from efuda.tagging import Tagger
from efuda.vocabulary import Category, Tag

# Hashes


def plain_near(hashes: list[int], distance: int) -> tuple[list[int], list[set[int]]]:
    """All compared with all."""
    count = range(len(hashes))
    linked = [{b for b in count if b != a and (hashes[a] ^ hashes[b]).bit_count() <= distance} for a in count]
    groups, left = [], set(count)
    while left:
        group, ahead = set[int](), [min(left)]
        while ahead:
            one = ahead.pop()
            if one not in group:
                group.add(one)
                ahead.extend(linked[one])
        groups.append(group)
        left -= group
    return [len(one) for one in linked], groups


@pytest.mark.parametrize("distance", [0, 1, 4])
@pytest.mark.parametrize("spread", [64, 12, 6], ids=["even", "few_bits", "crowded"])
def test_near_is_what_comparing_all_with_all_finds(distance: int, spread: int) -> None:
    rng = random.Random(spread)
    hashes = [rng.getrandbits(spread) << (64 - spread) for _ in range(150)]
    for _ in range(150):
        hashes.append(rng.choice(hashes) ^ sum(1 << rng.randrange(64) for _ in range(rng.randrange(7))) & (1 << 64) - 1)
    found = near(np.array(hashes, np.uint64), distance)
    counts, groups = plain_near(hashes, distance)
    assert found.counts.tolist() == counts
    assert sorted(sorted(np.flatnonzero(found.groups == number).tolist()) for number in set(found.groups)) == sorted(
        sorted(group) for group in groups
    )


def test_no_hashes_and_one() -> None:
    assert near(np.array([], np.uint64)).counts.tolist() == []
    assert near(np.array([7], np.uint64)).counts.tolist() == [0]
    assert distances(np.array([0b1011, 0], np.uint64), 0b0001).tolist() == [2, 1]


# A collection's


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "art.efuda", create=True) as opened:
        yield opened


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    tags = ["hat", "smile", "blue_eyes", "heterochromia", Tag("highres", Category.META), "1girl"]
    return make_tagger(tmp_path / "model", tags, ratings=False)


Add = Callable[..., int]


@pytest.fixture
def add(collection: Collection, tagger: Tagger, tmp_path: Path) -> Add:
    """Add a picture, with scores, and look at it; gives its number."""

    def add(name: str, picture: Image.Image, **scores: float) -> int:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        picture.save(path, **({"quality": 60} if path.suffix in (".jpg", ".webp") else {}))
        collection.add([tagged(tagger, path, scores, picture.size)], tagger)
        assert collection.make_previews().made == 1
        with collection.record.read() as db:
            number = db.execute("SELECT max(id) FROM pictures").get
        assert isinstance(number, int)
        return number

    return add


def ids(groups: list[object]) -> list[list[int]]:
    return [[one.id for one in group.pictures] for group in groups]  # type: ignore[attr-defined]


def other() -> Image.Image:
    """Nothing like the scene."""
    picture = Image.new("RGB", (300, 300), "black")
    for x in range(0, 300, 30):
        picture.paste("white" if x % 60 else "crimson", (x, x // 2, x + 17, 300 - x // 3))
    return picture


def test_exact_near_and_different(collection: Collection, add: Add) -> None:
    original = add("a.png", scene(), hat=0.9)
    same = add("b.bmp", scene(), hat=0.9)
    resized = add("c.png", scene().resize((300, 200)), hat=0.9)
    recompressed = add("d.jpg", scene(), hat=0.9)
    add("e.png", scene().crop((150, 100, 600, 400)), hat=0.9)
    add("f.png", other(), hat=0.9)
    duplicates = Duplicates(collection.record)
    total, (group,) = duplicates.groups("pixels")
    assert (total, group.kind, group.verdict, group.shared_tags) == (1, "pixels", "duplicate", 1)
    assert {one.id for one in group.pictures} == {original, same}
    total, (group,) = duplicates.groups("near")
    assert (total, group.verdict) == (1, "duplicate")
    assert {one.id for one in group.pictures} == {original, same, resized, recompressed}
    assert group.pictures[0].id == same, "of equal size, the larger file comes first"
    assert group.pictures[-1].id == resized, "the smallest comes last"
    assert duplicates.counts() == dict.fromkeys((original, same, resized, recompressed), 3)


def test_pictures_of_one_colour_are_alike_only_if_they_are_the_same(collection: Collection, add: Add) -> None:
    red = [add(name, Image.new("RGB", (30, 30), "red")) for name in ("a.png", "b.bmp")]
    add("c.png", Image.new("RGB", (30, 30), "blue"))
    duplicates = Duplicates(collection.record)
    assert ids(duplicates.groups("near")[1]) == []
    assert sorted(ids(duplicates.groups("pixels")[1])[0]) == red
    assert duplicates.counts() == dict.fromkeys(red, 1)


def test_another_eye_colour_is_a_variant(collection: Collection, add: Add) -> None:
    both = add("a.png", scene(), blue_eyes=0.9, smile=0.45, **{"1girl": 0.9})
    one = add("b.png", scene(eye="red"), blue_eyes=0.8, smile=0.3, heterochromia=0.7, highres=0.9, **{"1girl": 0.9})
    (group,) = Duplicates(collection.record).groups("near")[1]
    # The smile is on the first alone (0.35 is the threshold), but the model gives the other 0.3; highres is a meta tag.
    assert (group.verdict, group.shared_tags) == ("variant", 2)
    assert sorted(group.pictures, key=lambda one: one.id) == [Member(both, ()), Member(one, ("heterochromia",))]


def test_what_persons_say_tells_variants_apart(collection: Collection, add: Add) -> None:
    first = add("a.png", scene(), smile=0.9)
    second = add("b.png", scene(eye="red"), smile=0.8)
    assert Duplicates(collection.record).groups("near")[1][0].verdict == "duplicate"
    collection.edit([second], remove=["smile"])
    (group,) = Duplicates(collection.record).groups("near")[1]
    assert group.verdict == "variant"
    assert {one.id: one.only_tags for one in group.pictures} == {first: ("smile",), second: ()}


def test_counts_follow_the_record(collection: Collection, add: Add, tmp_path: Path) -> None:
    duplicates = Duplicates(collection.record)
    assert duplicates.counts() == {}
    first, second = add("a.png", scene()), add("b.png", scene(eye="red"))
    assert duplicates.counts() == {first: 1, second: 1}
    third = add("c.bmp", scene())
    assert duplicates.counts() == {first: 2, second: 2, third: 2}
    collection.remove([second])
    assert duplicates.counts() == {first: 1, third: 1} == Duplicates(collection.record).counts()
    collection.undo()
    add("d.png", other())
    collection.edit([first], add=["hat"])
    assert duplicates.counts() == {first: 2, second: 2, third: 2} == Duplicates(collection.record).counts()
    assert ids(duplicates.groups("pixels")[1]) == ids(Duplicates(collection.record).groups("pixels")[1])


@pytest.mark.parametrize("seed", range(3))
def test_counts_followed_step_by_step_are_those_counted_anew(collection: Collection, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    duplicates = Duplicates(collection.record)
    with collection.record.write() as writing:
        for number in range(1, 61):
            writing.db.execute(
                "INSERT INTO pictures (id, sha256, bytes, filetype, width, height, added, date, revision) "
                "VALUES (?, randomblob(32), 1, 'png', 1, 1, '', '', 0)",
                (number,),
            )
            writing.db.execute("INSERT INTO files (path, picture, mtime_ns) VALUES (?, ?, 0)", (str(number), number))
    for _ in range(25):
        with collection.record.write() as writing:
            for number in rng.sample(range(1, 61), rng.randint(1, 8)):
                which = rng.randrange(8)
                pixels, phash = bytes([which] * 16), (None, 0, 1, 15, 255, -1, -2, 1 << 40)[which]
                removed = rng.random() < 0.3
                writing.db.execute(
                    "UPDATE pictures SET pixels = ?, phash = ?, removed = ? WHERE id = ?",
                    (pixels, phash, removed, number),
                )
                writing.touch([number])
        assert duplicates.groups("pixels") == Duplicates(collection.record).groups("pixels")
        assert duplicates.counts() == Duplicates(collection.record).counts()


# Merging


def import_tags(collection: Collection, picture: int, *names: str) -> None:
    with collection.record.write() as writing:
        source = writing.source("import", "sidecars", "sidecars")
        operation = writing.operation("import", source, "imported")
        tags = np.array(sorted(writing.tag(name) for name in names))
        put_tagging(
            writing, operation, picture, source, packed_scores(tags, np.full(len(tags), 255), np.ones(len(tags), bool))
        )


def said(collection: Collection, picture: int) -> dict[str, str]:
    return {tag.name: tag.by for tag in collection.picture(picture).tags}


def test_merging_keeps_what_persons_and_imports_said(collection: Collection, add: Add) -> None:
    keep, drop = add("a.png", scene(), hat=0.9, smile=0.9), add("b.jpg", scene(), hat=0.9, heterochromia=0.9)
    collection.edit([keep], remove=["hat"], by="ann")
    collection.edit([drop], add=["hat", "cape"], remove=["smile"], rating="general", by="bob")
    import_tags(collection, keep, "scan")
    import_tags(collection, drop, "sketch", "scan")
    before, was_dropped = collection.picture(keep), collection.picture(drop)
    operation = collection.merge(keep, [drop], by="ann")
    assert (operation.kind, operation.by, operation.changed) == ("merge", "ann", 2)
    kept = collection.picture(keep)
    # ann's no to the hat stands against bob's yes; the model's heterochromia of the other picture does not come along.
    assert said(collection, keep) == {"cape": "person", "scan": "import", "sketch": "import"}
    assert {tag.name: tag.source for tag in kept.refused} == {"hat": "ann", "smile": "bob"}
    assert next(tag for tag in kept.tags if tag.name == "cape").source == "bob"
    assert kept.rating == "general"
    assert (collection.picture(drop).removed, collection.picture(drop).parent) == (True, keep)
    assert was_dropped.path.exists()
    assert Duplicates(collection.record).counts() == {}
    collection.undo()
    assert (collection.picture(keep), collection.picture(drop)) == (before, was_dropped)
    collection.redo()
    assert said(collection, keep) == {"cape": "person", "scan": "import", "sketch": "import"}
    assert {tag.name for tag in collection.picture(keep).refused} == {"hat", "smile"}


def test_merging_moves_relatives_and_the_address(collection: Collection, add: Add) -> None:
    keep, drop, child, parent = (add(f"{n}.png", scene(300 + n)) for n in range(4))
    with collection.record.write() as writing:
        operation = writing.operation("edit", "me", "related")
        writing.set(operation, drop, "source", "https://example.org/1")
        writing.set(operation, child, "parent", drop)
        writing.set(operation, keep, "parent", drop)
        writing.set(operation, drop, "parent", parent)
    collection.merge(keep, [drop])
    facts = {one: collection.picture(one) for one in (keep, drop, child)}
    assert facts[keep].source == "https://example.org/1"
    assert {one: picture.parent for one, picture in facts.items()} == {keep: parent, drop: keep, child: keep}
    collection.undo()
    assert collection.picture(child).parent == drop and collection.picture(keep).parent == drop


def test_what_cannot_be_merged(collection: Collection, add: Add) -> None:
    keep, drop = add("a.png", scene()), add("b.jpg", scene())
    for wish, message in {
        (keep, ()): "Nothing is to be merged",
        (keep, (keep,)): "cannot be kept and dropped",
        (keep, (drop, 99)): "no picture 99",
    }.items():
        with pytest.raises(CollectionError, match=message):
            collection.merge(wish[0], list(wish[1]))
    assert not collection.picture(drop).removed
    collection.merge(keep, [drop])
    with pytest.raises(CollectionError, match="was removed"):
        collection.merge(drop, [keep])


# From the command line


def test_listing_and_merging_from_the_command_line(collection: Collection, add: Add, efuda: Efuda) -> None:
    first, second = add("a.png", scene(), hat=0.9), add("b.bmp", scene(), hat=0.9)
    third = add("c.png", scene(eye="red"), hat=0.9, smile=0.9)
    done = efuda("collection", "duplicates", collection.path)
    assert done.out.splitlines()[:2] == ["1 group", "duplicates, 1 tag in common"]
    assert f"merge {collection.path} {second} {first}" in done.err
    (group,) = efuda("collection", "duplicates", collection.path, "--near", "--json").data["groups"]
    assert (group["verdict"], group["shared_tags"]) == ("variant", 1)
    assert {one["id"]: one["only_tags"] for one in group["pictures"]} == {first: [], second: [], third: ["smile"]}
    merged = efuda("collection", "merge", collection.path, second, first)
    assert (merged.code, merged.out.splitlines()[0]) == (0, f"Merged 1 picture into {second}.")
    assert efuda("collection", "duplicates", collection.path).out == "0 groups\n"
    assert efuda("collection", "undo", collection.path).code == 0
    assert efuda("collection", "duplicates", collection.path, "--json").data["total"] == 1
    refused = efuda("collection", "merge", collection.path, first, 99)
    assert (refused.code, refused.err.count("\n")) == (3, 1)


def test_similar_from_the_command_line(collection: Collection, add: Add, efuda: Efuda, tmp_path: Path) -> None:
    numbers = [add("a.png", scene(), hat=0.9), add("b.png", other(), smile=0.9), add("c.bmp", scene(), hat=0.8)]
    listed = efuda("collection", "similar", collection.path, numbers[0], "--paths").out.splitlines()
    assert listed == [str(tmp_path / "in" / name) for name in ("c.bmp", "b.png")]
    found = efuda("collection", "similar", collection.path, numbers[0], "--among", "smile", "--json").data["pictures"]
    assert [one["id"] for one in found] == [numbers[1]]
    searched = efuda("search", collection.path, f"like:{numbers[0]},1", "--json").data
    assert [one["id"] for one in searched["pictures"]] == [numbers[2]]
    with_one = efuda("search", collection.path, "duplicates:1", "--json").data
    assert sorted(one["id"] for one in with_one["pictures"]) == [numbers[0], numbers[2]]
