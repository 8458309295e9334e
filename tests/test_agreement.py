"""What a search finds is what pictures show: two ways to the tags they carry, through all that may happen to them."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from collection_world import make_file, make_tagger, tagged

from efuda.collection import Collection
from efuda.vocabulary import RATINGS

TAGS = [f"tag{number}" for number in range(8)]
IMPLICATIONS = "tag0,tag1\ntag1,tag2\ntag2,tag1\ntag3,above\nabove,top\ntag4,tag0\n"


def test_searches_and_pictures_agree_after_every_change(tmp_path: Path) -> None:
    chance = random.Random(9)
    taggers = [make_tagger(tmp_path / name, TAGS, threshold=0.6) for name in ("one", "two")]
    files = [make_file(tmp_path / "art" / f"{number}.png") for number in range(10)]
    (tmp_path / "tag_implications.csv").write_text(IMPLICATIONS)

    def look() -> None:
        tagger = chance.choice(taggers)
        some = chance.sample(files, 5)
        collection.add(
            [tagged(tagger, path, {name: chance.random() for name in (*TAGS, *RATINGS)}) for path in some], tagger
        )

    def decide() -> None:
        add, remove, forget = chance.sample(TAGS, 3)
        rating = chance.choice([None, *RATINGS])
        pictures = chance.sample(range(1, 11), 4)
        collection.edit(pictures, add=[add], remove=[remove], forget=[forget], rating=rating)

    def read() -> None:
        for path in chance.sample(files, 3):
            words = [*chance.sample(TAGS, 2), *chance.sample(["rating:general", "rating:e", "read"], 1)]
            path.with_suffix(".txt").write_text(", ".join(words))
        collection.import_tags(name=chance.choice(["here", "there"]))

    def go_back() -> None:
        if chance.random() < 0.3 and collection.redoable():
            collection.redo()
        elif collection.undoable():
            collection.undo()

    def take_out() -> None:
        collection.remove(chance.sample(range(1, 11), 2), back=chance.random() < 0.6)

    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        for tagger in taggers:
            collection.add([tagged(tagger, path, dict.fromkeys(TAGS, 0.1)) for path in files], tagger)
        for step in range(60):
            if step == 20:
                collection.relate([tmp_path / "tag_implications.csv"])
            chance.choice([look, decide, decide, read, go_back, go_back, take_out])()
            assert found(collection) == shown(collection), f"step {step}"


def shown(collection: Collection) -> dict[str, set[int]]:
    """Tag or rating → pictures, as each picture says of itself."""
    carrying: dict[str, set[int]] = defaultdict(set)
    for number in range(1, 11):
        picture = collection.picture(number)
        if not picture.removed:
            for name in [tag.name for tag in picture.tags] + [f"rating:{picture.rating}"]:
                carrying[name].add(number)
    return carrying


def found(collection: Collection) -> dict[str, set[int]]:
    """The same, as searches say."""
    names = [name for name, _, count in collection.tags() if count] + [f"rating:{name}" for name in (*RATINGS, "none")]
    carrying = {name: set(collection.ids(name).tolist()) for name in names}
    assert all(len(carrying[name]) == count for name, _, count in collection.tags())
    return {name.replace(":none", ":None"): pictures for name, pictures in carrying.items() if pictures}
