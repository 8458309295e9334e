"""The search engine: versions made step by step equal one made at once, and both a plain reading of the writes."""

from __future__ import annotations

import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collection_world import make_file, make_tagger, tagged
from pyroaring import BitMap

from efuda.collection import Collection
from efuda.collection.engine import Engine, Index
from efuda.collection.engine.bitmaps import bitmap_of_flags
from efuda.collection.engine.grouped import Grouped
from efuda.collection.engine.segments import COLUMNS
from efuda.collection.engine.snapshot import read_snapshot, snapshot_path, write_snapshot
from efuda.collection.engine.texts import Texts
from efuda.collection.query import parse
from efuda.collection.record import Record, Writing
from efuda.collection.taggings import packed_scores, put_tagging
from efuda.errors import QueryError
from efuda.vocabulary import Category

RATINGS = ["rating:explicit", "rating:general", "rating:questionable", "rating:sensitive"]
TAGS = {
    **dict.fromkeys(["hat", "top_hat", "headwear", "clothes", "1girl"], Category.GENERAL),
    "someone": Category.ARTIST,
    "touhou": Category.COPYRIGHT,
    "marisa": Category.CHARACTER,
    "highres": Category.META,
    **dict.fromkeys(RATINGS, Category.RATING),
}
MODELS, IMPORTS, PERSONS = ["wd@1", "wd@2"], ["booru", "folder"], ["me", "you"]
LONG_AGO = 946684800  # 2000-01-01


@dataclass
class Tagging:
    number: int
    scores: dict[str, tuple[int, bool]]
    withdrawn: bool = False


@dataclass
class Known:
    """What was written of one picture."""

    width: int
    height: int
    parent: int = 0
    removed: bool = False
    files: dict[str, bool] = field(default_factory=dict)  # path → whether it is there
    taggings: dict[str, Tagging] = field(default_factory=dict)
    words: dict[str, tuple[int, str]] = field(default_factory=dict)


class World:
    """Writes at random into a record, and keeps in plain dictionaries what it wrote."""

    def __init__(self, record: Record, seed: int) -> None:
        self.record, self.random = record, random.Random(seed)
        self.pictures: dict[int, Known] = {}
        self.implied: dict[str, set[str]] = {}
        self.taggings = 0
        with record.write() as writing:
            self.tags = {name: writing.tag(name, category) for name, category in TAGS.items()}

    def change(self, count: int) -> None:
        """Write some changes as one."""
        with self.record.write() as writing:
            operation = writing.operation("edit", "me", "at random")
            for _ in range(count):
                steps = [self.add, self.tag, self.tag, self.say, self.say, self.withdraw, self.hide, self.adopt]
                self.random.choice(steps if self.pictures else [self.add])(writing, operation)

    def relate(self) -> None:
        """Write an implication, at times one in a circle."""
        tag, other = self.random.sample([name for name in TAGS if name not in RATINGS], 2)
        with self.record.write() as writing:
            writing.db.execute("INSERT OR IGNORE INTO implications VALUES (?, ?)", (self.tags[tag], self.tags[other]))
            writing.relations_changed()
        self.implied.setdefault(tag, set()).add(other)

    def add(self, writing: Writing, operation: int) -> None:
        known = Known(self.random.randint(1, 4000), self.random.randint(1, 4000))
        number = writing.db.execute(
            "INSERT INTO pictures (sha256, bytes, filetype, width, height, added, date, revision) "
            "VALUES (?, 1000, 'png', ?, ?, '2000-01-01T00:00:00Z', '2000-01-02T00:00:00Z', 0) RETURNING id",
            (self.random.randbytes(32), known.width, known.height),
        ).get
        for path in {f"/art/{self.random.choice('ab')}/{number}.png", f"/art/{number}.png"}:
            known.files[path] = self.random.random() < 0.9
            since = None if known.files[path] else "2001-01-01T00:00:00Z"
            writing.db.execute("INSERT INTO files VALUES (?, ?, 0, ?)", (path, number, since))
        self.pictures[number] = known
        writing.touch([number])
        self.tag(writing, operation, number)

    def tag(self, writing: Writing, operation: int, number: int | None = None) -> None:
        number = number or self.random.choice(list(self.pictures))
        kind, names = self.random.choice([("model", MODELS), ("model", MODELS), ("import", IMPORTS)])
        name = self.random.choice(names)
        chosen = self.random.sample(list(TAGS), self.random.randint(0, len(TAGS)))
        if kind == "import":
            scores = dict.fromkeys(chosen, (255, True))
        else:
            scores = {tag: (self.random.randint(12, 255), self.random.random() < 0.6) for tag in chosen}
            best = self.random.choice(RATINGS)
            scores |= {rating: (self.random.randint(0, 255), rating == best) for rating in RATINGS}
        rows = [(self.tags[tag], score, present) for tag, (score, present) in scores.items()]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        source = writing.source(kind, name, name)
        put_tagging(
            writing, operation, number, source, packed_scores(table[:, 0], table[:, 1], table[:, 2].astype(bool))
        )
        self.taggings += 1
        self.pictures[number].taggings[name] = Tagging(self.taggings, scores)

    def say(self, writing: Writing, operation: int) -> None:
        number, tag = self.random.choice(list(self.pictures)), self.random.choice(list(TAGS))
        verdict = self.random.choice([1, -1, None])
        person = self.random.choice(PERSONS)
        by = writing.operation("edit", person, "a word")
        words = self.pictures[number].words
        if not writing.word(by, number, self.tags[tag], verdict):
            return
        if verdict is None:
            del words[tag]
        else:
            words[tag] = (verdict, person)

    def withdraw(self, writing: Writing, operation: int) -> None:
        number = self.random.choice(list(self.pictures))
        for name, tagging in self.pictures[number].taggings.items():
            tagging.withdrawn = self.random.random() < 0.5
            writing.db.execute(
                "UPDATE taggings SET withdrawn = ? WHERE picture = ? AND source = "
                "(SELECT id FROM sources WHERE identity = ?)",
                (int(tagging.withdrawn), number, name),
            )
        writing.touch([number])

    def hide(self, writing: Writing, operation: int) -> None:
        number = self.random.choice(list(self.pictures))
        known = self.pictures[number]
        if self.random.random() < 0.5:
            known.removed = not known.removed
            writing.set(operation, number, "removed", int(known.removed))
        for path in known.files:
            known.files[path] = self.random.random() < 0.7
            since = None if known.files[path] else "2001-01-01T00:00:00Z"
            writing.db.execute("UPDATE files SET missing = ? WHERE path = ?", (since, path))
        writing.touch([number])

    def adopt(self, writing: Writing, operation: int) -> None:
        child, parent = self.random.choice(list(self.pictures)), self.random.choice(list(self.pictures))
        if writing.set(operation, child, "parent", parent):
            self.pictures[child].parent = parent

    # The plain reading

    def latest(self, known: Known) -> tuple[str, dict[str, tuple[int, bool]]]:
        models = [(name, one) for name, one in known.taggings.items() if name in MODELS and not one.withdrawn]
        name, tagging = max(models, key=lambda one: one[1].number, default=("", Tagging(0, {})))
        return name, tagging.scores

    def carried(self, known: Known) -> set[str]:
        """Tags and at most one rating."""
        model = {tag for tag, (_, present) in self.latest(known)[1].items() if present}
        imported = {
            tag
            for name, one in known.taggings.items()
            if name in IMPORTS and not one.withdrawn
            for tag, (_, present) in one.scores.items()
            if present
        }
        yes = {tag for tag, (verdict, _) in known.words.items() if verdict > 0}
        no = {tag for tag, (verdict, _) in known.words.items() if verdict < 0}
        tags = (model | imported | yes) - no
        whose = [sorted((those - no) & set(RATINGS)) for those in (yes, imported, model)]
        rating = next((ratings[0] for ratings in whose if ratings), None)
        ahead = set(tags)
        while ahead:
            ahead = {other for tag in ahead for other in self.implied.get(tag, ())} - tags - no
            tags |= ahead
        return tags - set(RATINGS) | ({rating} if rating else set())

    def tags_of(self, known: Known) -> set[str]:
        return self.carried(known) - set(RATINGS)

    def score(self, known: Known, tag: str) -> int:
        return self.latest(known)[1].get(tag, (0, False))[0]

    def missing(self, known: Known) -> bool:
        return not any(known.files.values())

    def where(self, holds: Callable[[Known], bool]) -> set[int]:
        return {number for number, known in self.pictures.items() if holds(known)}

    def found(self, holds: Callable[[Known], bool]) -> set[int]:
        return self.where(lambda known: holds(known) and not (known.removed or self.missing(known)))

    def plain(self) -> dict[str, Any]:
        """As `plain` below tells of an index."""
        facts: dict[str, Any] = {
            "missing": self.where(self.missing),
            "removed": self.where(lambda known: known.removed),
            "found": self.found(lambda known: True),
        }
        for tag in TAGS:
            facts[tag] = self.where(lambda known, tag=tag: tag in self.carried(known))
            facts[f"count {tag}"] = len(self.found(lambda known, tag=tag: tag in self.carried(known)))
            for least in (1, 100, 200):
                facts[f"{tag} {least}"] = self.where(
                    lambda known, tag=tag, least=least: self.score(known, tag) >= least
                )
            facts[f"{tag} predicted"] = self.where(lambda known, tag=tag: self.latest(known)[1].get(tag, (0, False))[1])
        for number, known in self.pictures.items():
            facts[f"columns {number}"] = self.columns(known)
            facts[f"children {number}"] = len(self.found(lambda one, number=number: one.parent == number))
        return facts

    def columns(self, known: Known) -> dict[str, int]:
        carried = self.tags_of(known)
        present = [score for tag, (score, on) in self.latest(known)[1].items() if on and tag not in RATINGS]
        kinds = {"gentags": 0, "arttags": 1, "copytags": 3, "chartags": 4, "metatags": 5}
        return {
            "width": known.width,
            "height": known.height,
            "mpixels": known.width * known.height,
            "parent": known.parent,
            "date": LONG_AGO + 86400,
            "added": LONG_AGO,
            "tagcount": len(carried),
            **{name: sum(TAGS[tag] == kind for tag in carried) for name, kind in kinds.items()},
            "score": round(1000 * sum(present) / max(len(present), 1)),
        }


def plain(index: Index) -> dict[str, Any]:
    """All that an index says, in plain sets and numbers."""
    facts: dict[str, Any] = {
        "missing": set(index.sets.missing),
        "removed": set(index.sets.removed),
        "found": set(index.found),
    }
    for tag in TAGS:
        number = index.tags.number(tag)
        assert number is not None
        facts[tag] = set(index.carrying(number))
        facts[f"count {tag}"] = int(index.counts[number])
        for least in (1, 100, 200):
            facts[f"{tag} {least}"] = set(scored(index, lambda segment, n=number, at=least: segment.reaching(n, at)))
        facts[f"{tag} predicted"] = set(scored(index, lambda segment, n=number: segment.predicted(n)))
    ids = np.array(sorted(index.everything), dtype=np.uint32)
    names = ["width", "height", "mpixels", "parent", "date", "added", "tagcount", "score"]
    names += ["gentags", "arttags", "copytags", "chartags", "metatags"]
    columns = {name: index.values(name, ids).tolist() for name in names}
    children = index.values("children", ids).tolist()
    for place, number in enumerate(ids.tolist()):
        facts[f"columns {number}"] = {name: column[place] for name, column in columns.items()}
        facts[f"children {number}"] = children[place]
    return facts


def scored(index: Index, find: Callable[[Any], Any]) -> Iterator[int]:
    for segment, live in index.layers:
        yield from (number for number in find(segment).tolist() if number in live)


def also(index: Index) -> dict[str, Any]:
    """What `World` does not tell of and two versions must agree on."""
    ids = np.array(sorted(index.everything), dtype=np.uint32)
    pictures, tags = index.carried(index.everything)
    return {
        "said": {source: set(bitmap) for source, bitmap in index.sets.said.items()},
        "latest": {source: set(bitmap) for source, bitmap in index.sets.latest.items()},
        "carried": sorted(zip(pictures.tolist(), tags.tolist(), strict=True)),
        "columns": {name: index.values(name, ids).tolist() for name in COLUMNS},
        "facets": index.facets(index.found, 3),
        "revision": index.revision,
    }


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with_closing = Record.open(tmp_path / "art.efuda", create=True)
    yield with_closing
    with_closing.close()


@pytest.mark.parametrize("seed", range(12))
def test_step_by_step_equals_at_once_equals_a_plain_reading(record: Record, seed: int) -> None:
    world = World(record, seed)
    index = Index.load(record)
    for _ in range(12):
        if world.random.random() < 0.15:
            world.relate()
        world.change(world.random.choice([1, 2, 5, 30]))
        index = index.refreshed(record)
        assert plain(index) == world.plain()
        whole = Index.read(record)
        assert (plain(whole), also(whole)) == (plain(index), also(index))
        assert write_snapshot(record.path, index)
        read = Index.load(record)
        assert read.saved == index.revision
        assert (plain(read), also(read)) == (plain(index), also(index))


QUERIES: list[tuple[str, Callable[[World, Known], bool]]] = [
    ("hat", lambda world, known: "hat" in world.carried(known)),
    ("hat -1girl", lambda world, known: "hat" in world.carried(known) and "1girl" not in world.carried(known)),
    ("*hat* or marisa", lambda world, known: bool({"hat", "top_hat", "marisa"} & world.carried(known))),
    ("rating:g,e", lambda world, known: bool({"rating:general", "rating:explicit"} & world.carried(known))),
    ("rating:none", lambda world, known: not set(RATINGS) & world.carried(known)),
    ("width:>2000", lambda world, known: known.width > 2000),
    ("-width:>2000 tagcount:3..6", lambda world, known: known.width <= 2000 and 3 <= len(world.tags_of(known)) <= 6),
    ("ai:hat>=0.5", lambda world, known: world.score(known, "hat") >= 128),
    ("ai:hat<0.5", lambda world, known: world.score(known, "hat") < 128),
    ("ai:*hat<0.3", lambda world, known: all(world.score(known, tag) < 77 for tag in ("hat", "top_hat"))),
    ("ai:hat", lambda world, known: world.latest(known)[1].get("hat", (0, False))[1]),
    ("path:/a/", lambda world, known: any("/a/" in path for path in known.files)),
    ("path:/art/b/*", lambda world, known: any(path.startswith("/art/b/") for path in known.files)),
    ("parent:any", lambda world, known: known.parent > 0),
    ("src:me", lambda world, known: any(person == "me" for _, person in known.words.values())),
    ("src:me:hat", lambda world, known: known.words.get("hat") == (1, "me")),
    ("src:human:-hat", lambda world, known: known.words.get("hat", (0,))[0] == -1),
    ("src:wd", lambda world, known: any(not known.taggings[one].withdrawn for one in MODELS if one in known.taggings)),
    ("src:wd@1:hat", lambda world, known: tagging_has(known, "wd@1", "hat") is True),
    ("src:wd@1:-hat", lambda world, known: tagging_has(known, "wd@1", "hat") is False),
    ("src:booru:hat", lambda world, known: tagging_has(known, "booru", "hat") is True),
]  # fmt: skip


def tagging_has(known: Known, source: str, tag: str) -> bool | None:
    tagging = known.taggings.get(source)
    return None if tagging is None or tagging.withdrawn else tagging.scores.get(tag, (0, False))[1]


@pytest.mark.parametrize("seed", range(3))
def test_queries_find_what_a_plain_reading_finds(record: Record, seed: int) -> None:
    world = World(record, 100 + seed)
    for source in (*MODELS, *IMPORTS):
        with record.write() as writing:
            writing.source("model" if source in MODELS else "import", source, source)
    with record.write() as writing:
        for person in PERSONS:
            writing.source("person", person, person)
    index = Index.load(record)
    for _ in range(8):
        world.change(20)
        index = index.refreshed(record)
        for text, holds in QUERIES:
            expected = world.found(lambda known, holds=holds: holds(world, known))
            total, ids = index.find(parse(text), limit=1000)
            assert (set(ids), total) == (expected, len(expected)), text
            assert ids == sorted(ids, reverse=True)
        assert set(index.find(parse("is:removed"), limit=1000)[1]) == world.where(lambda known: known.removed)
        expected = world.where(lambda known: world.missing(known) and not known.removed)
        assert set(index.find(parse("is:missing"), limit=1000)[1]) == expected
        by_width = sorted(world.found(lambda known: True), key=lambda one: (-world.pictures[one].width, -one))
        assert index.ids(parse("order:width")).tolist() == by_width
        assert index.find(parse("order:width"), limit=5, offset=3)[1] == by_width[3:8]


def test_facets_by_counting_and_by_intersecting_are_the_same(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(record, 7)
    world.change(200)
    index = Index.load(record)
    for query in ("", "hat", "marisa -hat"):
        found = index.bitmap_of(parse(query))
        expected = {tag: sum(tag in world.carried(world.pictures[one]) for one in found) for tag in TAGS}
        for cost in (0, 1e9):
            monkeypatch.setattr("efuda.collection.engine.facets._ONE", cost)
            facets = index.facets(found, 2)
            assert facets.ratings == {rating[7:]: expected[rating] for rating in RATINGS if expected[rating]}
            for category in set(TAGS.values()) - {Category.RATING}:
                counts = sorted((-expected[tag], tag) for tag in TAGS if TAGS[tag] == category and expected[tag])
                assert [(-count, name) for name, kind, count in facets.tags if kind == category] == counts[:2]


def test_aliases_stand_for_their_tags(record: Record) -> None:
    world = World(record, 1)
    world.change(20)
    index = Index.load(record)
    with pytest.raises(QueryError):
        index.find(parse("chapeau"), limit=1)
    with record.write() as writing:
        writing.db.execute("INSERT INTO tag_aliases VALUES ('chapeau', ?)", (world.tags["hat"],))
        writing.relations_changed()
    index = index.refreshed(record)
    assert index.find(parse("chapeau"), limit=99) == index.find(parse("hat"), limit=99)


def test_a_version_stays_as_it_was_while_others_are_made(record: Record) -> None:
    world = World(record, 2)
    world.change(30)
    first = Index.load(record)
    before = plain(first), also(first)
    later = first
    for _ in range(5):
        world.change(20)
        later = later.refreshed(record)
    assert (plain(first), also(first)) == before
    assert later.refreshed(record) is later


def test_many_threads_search_while_one_writes(record: Record) -> None:
    world = World(record, 3)
    world.change(50)
    engine = Engine(record)
    stop, faults = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            index = engine.current()
            total, ids = index.find(parse("hat or -hat"), limit=10_000)
            either = index.find(parse("hat"), limit=0)[0] + index.find(parse("-hat"), limit=0)[0]
            if not total == len(ids) == either == len(index.found):
                faults.append((total, len(ids), either))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        world.change(5)
        assert set(engine.current().found) == world.found(lambda known: True)  # what was written is seen at once
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert plain(engine.current()) == world.plain()


# The snapshot


def test_a_damaged_snapshot_changes_no_answer(record: Record) -> None:
    world = World(record, 4)
    world.change(60)
    index = Index.load(record)
    write_snapshot(record.path, index)
    path = snapshot_path(record.path)
    whole = path.read_bytes()
    expected = plain(index), also(index)
    rng = random.Random(5)
    damaged = [whole[:length] for length in (0, 1, 7, 8, 12, 15, 16, 17, len(whole) - 1)]
    damaged += [whole[: rng.randrange(len(whole))] for _ in range(30)]
    for at in [*range(16), *(rng.randrange(len(whole)) for _ in range(60))]:
        damaged.append(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
    damaged.append(whole + b"\0")
    for content in damaged:
        path.write_bytes(content)
        read = Index.load(record)
        assert read.saved == -1
        assert (plain(read), also(read)) == expected
    path.write_bytes(whole)
    assert Index.load(record).saved == index.revision


def test_a_snapshot_of_another_format_or_another_past_does_not_hold(record: Record, tmp_path: Path) -> None:
    world = World(record, 6)
    world.change(10)
    index = Index.load(record)
    write_snapshot(record.path, index)
    with record.read() as db:
        assert read_snapshot(record.path, db) is not None
    path = snapshot_path(record.path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[12:16], "little")
    for change in (
        {"format": 999},
        {"relations": 77},
        {"revision": 10**9},
        {"columns": []},
        {"last": [1, "", 1, "", ""]},
    ):
        head = json.dumps(json.loads(whole[16 : 16 + length]) | change).encode()
        rest = len(head).to_bytes(4, "little") + head + whole[16 + length :]
        path.write_bytes(whole[:8] + zlib.crc32(rest).to_bytes(4, "little") + rest)
        with record.read() as db:
            assert read_snapshot(record.path, db) is None
        assert plain(Index.load(record)) == plain(index)


def test_a_snapshot_that_cannot_be_written_does_no_harm(record: Record) -> None:
    World(record, 8).change(5)
    index = Index.load(record)
    snapshot_path(record.path).mkdir()
    assert not write_snapshot(record.path, index)
    assert plain(Index.load(record)) == plain(index)


def test_a_snapshot_is_written_when_much_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efuda.collection.engine.engine._SMALL", 10)
    path = snapshot_path(tmp_path / "art.efuda")
    record = Record.open(tmp_path / "art.efuda", create=True)
    world = World(record, 9)
    with record.write() as writing:
        for _ in range(100):
            world.add(writing, writing.operation("add", "me", ""))
    engine = Engine(record)
    engine.current()
    first = path.read_bytes()  # it was built from the tables
    with record.write() as writing:
        world.say(writing, 1)
    engine.close()
    assert path.read_bytes() == first  # one picture of a hundred is not much
    again = Engine(record)
    assert again.current().saved >= 0
    with record.write() as writing:
        world.add(writing, writing.operation("add", "me", ""))
        world.add(writing, writing.operation("add", "me", ""))
    assert len(again.current().everything) == 102
    again.close()
    assert path.read_bytes() != first
    assert plain(Index.load(record)) == world.plain()
    record.close()


# Parts


@pytest.mark.parametrize("first", [0, 1, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_flags_make_the_bitmap_of_their_numbers(first: int, share: float) -> None:
    flags = np.random.default_rng(0).random(200_000) < share
    expected = BitMap(np.flatnonzero(flags) + first)
    assert bitmap_of_flags(flags, first) == expected


def test_grouped_lists() -> None:
    first = Grouped.by(np.array([2, 2, 5], dtype=np.uint32), np.array([20, 21, 50]))
    second = Grouped.by(np.array([1, 5, 5], dtype=np.uint32), np.array([10, 51, 52]))
    both = Grouped.merged([first, second])
    assert both.keys.tolist() == [1, 2, 5]
    assert [both.values[0][both.of(key)].tolist() for key in (1, 2, 3, 5, 9)] == [[10], [20, 21], [], [50, 51, 52], []]
    kept = both.keeping(np.array([False, True, True, True, False, True]))
    assert (kept.keys.tolist(), kept.starts.tolist(), kept.values[0].tolist()) == ([2, 5], [0, 2, 4], [20, 21, 50, 52])
    assert both.only(np.array([0, 2])).values[0].tolist() == [10, 50, 51, 52]


def test_texts_are_found_by_any_of_their_parts() -> None:
    texts = Texts.of([3, 5, 5, 9], ["/Art/Straße.png", "/b/a.png", "/b/ab.gif", "http://www.x.y/z?u=http://q/"])
    assert texts.containing("strasse").tolist() == [3]
    assert texts.containing(".png").tolist() == [3, 5]
    assert texts.matching("/b/*.*g*").tolist() == [5]
    assert texts.matching("/b/a").tolist() == []
    assert texts.matching("*").tolist() == [3, 5, 9]
    for start in ("http://www.x", "www.x.y", "x.y/", "x*u=", "*", "x.y/z?u=http://q/"):
        assert 9 in texts.beginning(start).tolist(), start
    for start in ("q/", "y/z", "w.x", "http://x"):
        assert 9 not in texts.beginning(start).tolist(), start
    assert Texts.of([], []).containing("a").tolist() == []
    assert texts.containing("\0").tolist() == []


def test_a_collection_finds_counts_and_sums_up(tmp_path: Path) -> None:
    tagger = make_tagger(tmp_path / "wd", ["hat", "ribbon", "glasses"])
    with Collection.open(tmp_path / "art.efuda", create=True) as collection:
        for number, scores in enumerate([{"hat": 0.9}, {"hat": 0.8, "ribbon": 0.7}, {"ribbon": 0.6}]):
            path = make_file(tmp_path / f"{number}.png", str(number).encode())
            collection.add([tagged(tagger, path, scores | {"general": 0.9})], tagger)
        assert collection.find("hat") == (2, [2, 1])
        assert collection.count("-hat") == 1
        assert collection.ids("order:id limit:2").tolist() == [1, 2]
        facets = collection.facets("ribbon")
        assert (facets.total, facets.exact, facets.ratings) == (2, True, {"general": 2})
        assert facets.tags == [("ribbon", Category.GENERAL, 2), ("hat", Category.GENERAL, 1)]
        assert [(one.value, one.count) for one in collection.complete("hat rib").suggestions] == [("ribbon", 1)]
