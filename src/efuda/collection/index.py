"""The search engine: every picture and posting in memory, as bitmaps and columns; counts are exact.

    index = Index.read(db)
    total, ids = index.find(parse("glasses -hat"), limit=50, offset=0)

Built from the database in one pass, about half a second a million postings. A picture's id is its bit, so the order of
bits is the order in which pictures came. Where several models have tagged a picture, the latest tagging is searched.
"""

from __future__ import annotations

import os
import random
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.adding import RATING_PREFIX
from efuda.collection.metatags import FILETYPES, METATAGS, FileTypes, Numbers, Order, PathText, Ratings, Score
from efuda.collection.query import All, And, Metatag, Node, Not, Or, Query, Tag, Wildcard
from efuda.collection.record import rows
from efuda.errors import QueryError
from efuda.vocabulary import Category

__all__ = ["Index"]

_UNION_UP_TO: Final = 100  # a wildcard with more tags than this marks pictures instead of keeping bitmaps for each

# Pictures whose files are all gone are not found, nor those that a person removed.
_FOUND: Final = "SELECT id FROM pictures WHERE NOT removed AND id IN (SELECT picture FROM files WHERE missing IS NULL)"
_PICTURES: Final = f"SELECT id, width, height, bytes, filetype FROM pictures WHERE id IN ({_FOUND})"
_LATEST: Final = f"""
SELECT max(taggings.id), picture, scores FROM taggings JOIN sources ON sources.id = taggings.source
WHERE kind = 'model' AND NOT withdrawn AND picture IN ({_FOUND}) GROUP BY picture
"""
_Columns = dict[str, NDArray[np.int64]]


@dataclass(eq=False)
class _Postings:
    """Which picture has which tag, sorted by tag and then picture; tag t's are at `starts[t]:starts[t + 1]`."""

    starts: NDArray[np.int64]
    pictures: NDArray[np.uint32]
    scores: NDArray[np.uint8]
    present: NDArray[np.bool_]

    def of(self, tag: int) -> slice:
        return slice(int(self.starts[tag]), int(self.starts[tag + 1]))

    def carrying(self, tag: int) -> NDArray[np.uint32]:
        """Pictures in which the tag is present."""
        here = self.of(tag)
        return self.pictures[here][self.present[here]]


@dataclass(eq=False)
class Index:
    """A snapshot of the collection; the store makes a new one when the database has changed."""

    db: apsw.Connection
    all: BitMap
    names: list[str]
    categories: list[Category]
    counts: NDArray[np.int64]
    columns: _Columns
    postings: _Postings
    _bitmaps: dict[int, BitMap] = field(default_factory=dict)

    @classmethod
    def read(cls, db: apsw.Connection) -> Self:
        """Read the whole collection; the caller holds a read transaction."""
        names, categories = _read_tags(db)
        facts = np.array([(*row[:4], _filetype(row[4])) for row in db.execute(_PICTURES)], dtype=np.int64)
        facts = facts.reshape(-1, 5)
        postings = _read_postings(db, len(names))
        columns = _columns(facts)
        counts = _count(postings, categories, columns)
        return cls(db, _bitmap(facts[:, 0]), names, categories, counts, columns, postings)

    def find(self, query: Query, *, limit: int, offset: int) -> tuple[int, list[int]]:
        """How many pictures match, and the ids of one page of them.

        Raises:
            QueryError: a tag that no picture has and no model has considered.
        """
        found = _Evaluation(self, query.text).of(query.node)
        return len(found), self._page(found, query.order, query.limit or limit, offset)

    def tags(self) -> list[tuple[str, Category, int]]:
        """(name, category, pictures that carry it) by falling count; ratings are not tags and are left out."""
        used = sorted(self.usable(), key=lambda tag: (-self.counts[tag], self.names[tag]))
        return [(self.names[tag], self.categories[tag], int(self.counts[tag])) for tag in used if self.counts[tag]]

    def usable(self) -> list[int]:
        """Tags, without ratings, that have postings."""
        held = np.flatnonzero(np.diff(self.postings.starts)).tolist()
        return [tag for tag in held if self.categories[tag] is not Category.RATING]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Name → number, of those with postings."""
        return {self.names[tag]: tag for tag in np.flatnonzero(np.diff(self.postings.starts)).tolist()}

    @cached_property
    def paths(self) -> list[tuple[str, int]]:
        """(path with case folded, picture) for `path:`, read on its first use."""
        files = rows(self.db, "SELECT path, picture FROM files WHERE missing IS NULL")
        return [(os.fsdecode(path).casefold(), picture) for path, picture in files]

    def bitmap(self, tag: int) -> BitMap:
        """Pictures that carry a tag; made on first use, never changed after."""
        if tag not in self._bitmaps:
            self._bitmaps[tag] = _bitmap(self.postings.carrying(tag))
        return self._bitmaps[tag]

    def _page(self, found: BitMap, order: Order, limit: int, offset: int) -> list[int]:
        total = len(found)
        stop = max(total - offset, 0)
        if order == Order():
            return list(reversed(found[max(stop - limit, 0) : stop]))
        if order == Order("id", False):
            return list(found[offset : offset + limit])
        ids = np.frombuffer(found.to_array(), dtype=np.uint32).astype(np.int64)
        if order.column == "random":
            return [int(ids[place]) for place in random.sample(range(total), min(limit, total))]
        keys = self.columns[order.column][ids]
        first = _first(ids, keys if order.falling else -keys, offset + limit)
        return [int(number) for number in first[offset:]]


@dataclass(frozen=True)
class _Evaluation:
    """One query on one index: its tree, turned into a bitmap from the leaves up."""

    index: Index
    text: str

    def of(self, node: Node) -> BitMap:
        match node:
            case All():
                return self.index.all
            case Tag(name, at):
                return self.index.bitmap(self._number(name, at))
            case Wildcard(pattern, at):
                return _bitmap_of_any(self.index, self._matching(pattern, at))
            case Metatag(condition, at):
                return self._metatag(condition, at)
            case And(parts):
                return self._both(parts)
            case Or(parts):
                return BitMap.union(*(self.of(part) for part in parts))
            case Not(part):
                return self.index.all - self.of(part)

    def _both(self, parts: tuple[Node, ...]) -> BitMap:
        required = [self.of(part) for part in parts if not isinstance(part, Not)]
        excluded = [self.of(part.part) for part in parts if isinstance(part, Not)]
        found = BitMap.intersection(*sorted(required, key=len)) if required else self.index.all
        for bitmap in excluded:
            found = found - bitmap
        return found

    def _metatag(self, condition: object, at: int) -> BitMap:
        index = self.index
        match condition:
            case Numbers():
                return index.all & _bitmap(np.flatnonzero(_inside(condition, index.columns[condition.column])))
            case FileTypes(names):
                wanted = np.isin(index.columns["filetype"], [_filetype(name) for name in names])
                return index.all & _bitmap(np.flatnonzero(wanted))
            case Ratings(names):
                return self._rated(names)
            case PathText(text):
                return _bitmap(_matching_paths(index.paths, text))
            case Score():
                return self._scored(condition, at)
        raise QueryError("this cannot be searched yet", self.text, at)

    def _rated(self, names: frozenset[str | None]) -> BitMap:
        index = self.index
        ratings = {name: tag for name, tag in index.numbers.items() if index.categories[tag] is Category.RATING}
        wanted = [tag for name, tag in ratings.items() if name.removeprefix(RATING_PREFIX) in names]
        found = BitMap.union(BitMap(), *(index.bitmap(tag) for tag in wanted))
        if None in names:
            found |= index.all - BitMap.union(BitMap(), *(index.bitmap(tag) for tag in ratings.values()))
        return found

    def _scored(self, score: Score, at: int) -> BitMap:
        tags = self._matching(score.tag, at) if "*" in score.tag else [self._number(score.tag, at + len("ai:"))]
        if score.least is None:
            return _bitmap_of_any(self.index, tags)
        if score.least == 0:
            return self.index.all - self._reaching(tags, score.most + 1)
        found = self._reaching(tags, score.least)
        return found if score.most == 255 else found - self._reaching(tags, score.most + 1)

    def _reaching(self, tags: list[int], least: int) -> BitMap:
        postings, reached = self.index.postings, np.zeros(len(self.index.columns["id"]), dtype=bool)
        for tag in tags:
            here = postings.of(tag)
            reached[postings.pictures[here][postings.scores[here] >= least]] = True
        return _bitmap(np.flatnonzero(reached))

    def _number(self, name: str, at: int) -> int:
        number = self.index.numbers.get(name)
        if number is None:
            raise QueryError(_unknown(name, self.index), self.text, at)
        return number

    def _matching(self, pattern: str, at: int) -> list[int]:
        match = _wildcard(pattern).fullmatch
        names = self.index.names
        tags = [tag for tag in self.index.usable() if match(names[tag])]
        if not tags:
            raise QueryError(f"no tag matches {pattern}", self.text, at)
        return tags


def _unknown(name: str, index: Index) -> str:
    """Words for a tag that is not there, with up to three that are: what it begins, then what it resembles."""
    known = [tag for tag, _, _ in index.tags()]
    prefix, colon, _ = name.partition(":")
    if colon and prefix.isalpha() and len(prefix) > 1:
        near = get_close_matches(prefix, METATAGS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}:?" if near else f"metatags are {', '.join(f'{one}:' for one in METATAGS)}"
        return f"there is no metatag {prefix}: and no tag {name}; {hint}"
    if name == "not":
        return 'there is no "not"; write -tag'
    begun = [tag for tag in known if tag.startswith(name)] if len(name) > 1 else []
    near = list(dict.fromkeys([*begun[:2], *get_close_matches(name, known, n=3, cutoff=0.6)]))[:3]
    return f"no picture has the tag {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _read_tags(db: apsw.Connection) -> tuple[list[str], list[Category]]:
    size = (db.execute("SELECT max(id) FROM tags").get or 0) + 1
    names, categories = [""] * size, [Category.GENERAL] * size
    for number, name, category in db.execute("SELECT id, name, category FROM tags"):
        names[number], categories[number] = name, Category(category)
    return names, categories


def _read_postings(db: apsw.Connection, tags: int) -> _Postings:
    latest = rows(db, _LATEST)
    packed = np.frombuffer(b"".join(blob for _, _, blob in latest), dtype="<u4").astype(np.uint64)
    pictures = np.repeat(
        np.array([picture for _, picture, _ in latest], dtype=np.uint64), [len(blob) // 4 for _, _, blob in latest]
    )
    tag, present, score = packed >> np.uint64(9), packed >> np.uint64(8) & np.uint64(1), packed & np.uint64(0xFF)
    # One sort for every column.
    keys = np.sort(tag << np.uint64(41) | pictures << np.uint64(9) | score << np.uint64(1) | present)
    starts = np.searchsorted(keys, np.arange(tags + 1, dtype=np.uint64) << np.uint64(41))
    return _Postings(
        starts,
        (keys >> np.uint64(9)).astype(np.uint32),
        (keys >> np.uint64(1)).astype(np.uint8),
        (keys & np.uint64(1)).astype(bool),
    )


def _columns(rows: NDArray[np.int64]) -> _Columns:
    """Columns by picture id; rows are id, width, height, bytes, file type."""
    size = int(rows[:, 0].max()) + 1 if len(rows) else 1
    columns = {name: np.zeros(size, dtype=np.int64) for name in ("width", "height", "filesize", "filetype")}
    for place, name in enumerate(columns, start=1):
        columns[name][rows[:, 0]] = rows[:, place]
    width, height = columns["width"], columns["height"]
    columns["id"] = np.arange(size)
    columns["mpixels"] = width * height
    columns["ratio"] = (200 * width + height) // np.maximum(2 * height, 1)  # in hundredths, half up
    return columns


def _count(postings: _Postings, categories: list[Category], columns: _Columns) -> NDArray[np.int64]:
    """Pictures by tag; adds the columns that count and average a picture's tags, ratings left out."""
    tags = np.repeat(np.arange(len(categories), dtype=np.uint32), np.diff(postings.starts))
    is_tag = np.array([category is not Category.RATING for category in categories], dtype=bool)
    counted = postings.present & is_tag[tags]
    pictures, size = postings.pictures[counted], len(columns["id"])
    columns["tagcount"] = np.bincount(pictures, minlength=size)
    sums = np.bincount(pictures, postings.scores[counted], minlength=size)
    columns["score"] = np.rint(1000 * sums / np.maximum(columns["tagcount"], 1)).astype(np.int64)
    return np.bincount(tags[postings.present], minlength=len(categories))


def _filetype(name: object) -> int:
    return FILETYPES.index(name) if name in FILETYPES else len(FILETYPES)


def _inside(numbers: Numbers, column: NDArray[np.int64]) -> NDArray[np.bool_]:
    values = column
    inside = np.zeros(len(column), dtype=bool)
    for one in numbers.intervals:
        low = values > one.low if one.without_low else values >= one.low
        high = values < one.high if one.without_high else values <= one.high
        inside |= low & high
    return inside


def _bitmap(ids: Iterable[int] | NDArray[np.unsignedinteger | np.signedinteger]) -> BitMap:
    if not isinstance(ids, np.ndarray):
        return BitMap(ids)
    return BitMap(array("I", ids.astype(np.uint32).tobytes()))  # eight times as fast as from the numpy array


def _bitmap_of_any(index: Index, tags: list[int]) -> BitMap:
    if len(tags) <= _UNION_UP_TO:
        return BitMap.union(*(index.bitmap(tag) for tag in tags))
    carrying = np.zeros(len(index.columns["id"]), dtype=bool)
    for tag in tags:
        carrying[index.postings.carrying(tag)] = True
    return _bitmap(np.flatnonzero(carrying))


def _first(ids: NDArray[np.int64], keys: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The `count` ids with the largest keys, largest first, of equal ones the newest; ids rise."""
    if count <= 0:
        return ids[:0]
    if count < len(ids):
        cut = np.partition(keys, len(keys) - count)[len(keys) - count]
        above = np.flatnonzero(keys > cut)
        level = np.flatnonzero(keys == cut)
        kept = np.concatenate([above, level[len(level) - (count - len(above)) :]])
        ids, keys = ids[kept], keys[kept]
    return ids[np.lexsort((-ids, -keys))]


def _wildcard(pattern: str) -> re.Pattern[str]:
    """Each part between stars is taken where it first occurs, for good: no pattern can take exponential time."""
    first, *rest = pattern.split("*")
    middle = "".join(f"(?>.*?{re.escape(part)})" for part in rest[:-1] if part)
    return re.compile(f"{re.escape(first)}{middle}.*{re.escape(rest[-1])}", re.DOTALL)


def _matching_paths(paths: list[tuple[str, int]], text: str) -> list[int]:
    if "*" in text:
        whole = _wildcard(text).fullmatch
        return [picture for path, picture in paths if whole(path)]
    return [picture for path, picture in paths if text in path]
