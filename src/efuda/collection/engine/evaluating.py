"""One search on one version: its tree turned into a set of pictures from the leaves up.

    search = Evaluation(version, parse("glasses -hat"))
    search.found                # a bitmap
    search.similar              # what `like:` found, the nearest first

What each condition means is said in `conditions`. Whatever the tree, only pictures of `universe` are found: those that
are neither missing nor removed, unless the search asks about that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from math import ceil, floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.adding import RATING_PREFIX
from efuda.collection.conditions import (
    By,
    Condition,
    Family,
    FileTypes,
    Hash,
    Like,
    Numbers,
    Parents,
    PathText,
    Ratings,
    Score,
    SourceText,
    State,
)
from efuda.collection.engine.bitmaps import NOTHING, bitmap_of, numbers_of, union_of
from efuda.collection.engine.saying import known_sources, said_by
from efuda.collection.engine.version import Version
from efuda.collection.meant import unknown_picture, unknown_source, unknown_tag
from efuda.collection.metatags import FILETYPES
from efuda.collection.query import All, And, Metatag, Node, Not, Or, Query, Tag, Wildcard
from efuda.collection.record import rows
from efuda.collection.values import Interval
from efuda.errors import CollectionError, QueryError

__all__ = ["Evaluation"]


class Evaluation:
    """Finds what a query asks for.

    Raises:
        QueryError: it names a tag, a source or a picture that there is not.
    """

    def __init__(self, version: Version, query: Query) -> None:
        self.version, self.query = version, query
        self.universe = version.everything if query.everything else version.found
        self.similar: list[int] = []

    @cached_property
    def found(self) -> BitMap:
        """The pictures that the query finds, of which it may want a sample only."""
        found = self.of(self.query.node) & self.universe
        wanted = self.query.sample
        if wanted is None or wanted >= len(found):
            return found
        return BitMap(found[place] for place in random.sample(range(len(found)), wanted))

    def of(self, node: Node) -> BitMap:
        """What a part of the tree finds; it may hold pictures that are outside the universe."""
        match node:
            case All():
                return self.universe
            case Tag(name, at):
                return self.version.carrying(self._number(name, at))
            case Wildcard(pattern, at):
                return union_of([self.version.carrying(tag) for tag in self._matching(pattern, at)])
            case Metatag(condition, _, value_at):
                return self._holding(condition, value_at)
            case And(parts):
                return self._both(parts)
            case Or(parts):
                return union_of([self.of(part) for part in parts])
            case Not(part):
                return self.universe - self.of(part)

    def _both(self, parts: tuple[Node, ...]) -> BitMap:
        required = [self.of(part) for part in parts if not isinstance(part, Not)]
        excluded = [self.of(part.part) for part in parts if isinstance(part, Not)]
        found = BitMap.intersection(*sorted(required, key=len)) if required else self.universe
        for bitmap in excluded:
            found = found - bitmap
        return found

    def _holding(self, condition: Condition, at: int) -> BitMap:
        version = self.version
        match condition:
            case Numbers(column):
                return version.where(column, _inside(condition))
            case Ratings(names):
                return self._rated(names)
            case FileTypes(names):
                kinds = np.array([FILETYPES.index(name) for name in names])
                return version.where("filetype", lambda column: np.isin(column, kinds))
            case Hash(kind, values):
                return self._hashed(kind, values)
            case PathText(text):
                return self._at_path(text)
            case SourceText(start):
                return self._from(start)
            case Family(picture):
                return version.where("parent", lambda parents: parents == picture) | self._one(picture, at)
            case Parents(picture):
                return bitmap_of(version.values("parent", numbers_of(self._one(picture, at))))
            case State(name):
                return self._in_state(name)
            case Score():
                return self._scored(condition, at)
            case By():
                return self._said(condition, at)
            case Like():
                return self._like(condition, at)

    # Conditions

    def _rated(self, names: frozenset[str | None]) -> BitMap:
        version = self.version
        ratings = {version.names[tag].removeprefix(RATING_PREFIX): tag for tag in version.tags.ratings}
        found = union_of([version.carrying(tag) for name, tag in ratings.items() if name in names])
        if None in names:
            found = found | self.universe - union_of([version.carrying(tag) for tag in ratings.values()])
        return found

    def _hashed(self, kind: str, values: frozenset[bytes]) -> BitMap:
        assert kind in ("md5", "sha256")
        with self.version.record.read() as db:
            statement = f"SELECT id FROM pictures WHERE {kind} = ?"
            return BitMap(number for value in values for (number,) in rows(db, statement, (value,)))

    def _at_path(self, text: str) -> BitMap:
        if "*" in text:
            return self.version.saying("path", lambda texts: texts.matching(text))
        return self.version.saying("path", lambda texts: texts.containing(text))

    def _from(self, text: str | None) -> BitMap:
        if text is None:
            return self.universe - self.version.saying("source", lambda texts: texts.ids)
        return self.version.saying("source", lambda texts: texts.beginning(text))

    def _one(self, picture: int, at: int) -> BitMap:
        if picture >= 1 << 32 or picture not in self.version.everything:
            raise unknown_picture(picture, text=self.query.text, at=at)
        return BitMap([picture])

    def _in_state(self, name: str) -> BitMap:
        sets = self.version.sets
        match name:
            case "removed":
                return sets.removed
            case "missing":
                return sets.missing - sets.removed
            case "present":
                return self.version.found
        return self.universe

    def _scored(self, score: Score, at: int) -> BitMap:
        tags = self._matching(score.tag, at) if "*" in score.tag else [self._number(score.tag, at)]
        if score.least is None:
            return self._marked(tags, lambda segment, tag: segment.predicted(tag))
        if score.least > score.most:
            return NOTHING
        above = self._reaching(tags, score.most + 1) if score.most < 255 else NOTHING
        return (self._reaching(tags, score.least) if score.least > 0 else self.universe) - above

    def _reaching(self, tags: list[int], least: int) -> BitMap:
        return self._marked(tags, lambda segment, tag: segment.reaching(tag, least))

    def _marked(self, tags: list[int], find: Callable[[Any, int], NDArray[np.uint32]]) -> BitMap:
        """The pictures that something finds for any of these tags."""
        parts = []
        for segment, live in self.version.layers:
            here = np.concatenate([find(segment, tag) for tag in tags])
            parts.append(bitmap_of(here) & live)
        return union_of(parts)

    def _said(self, by: By, at: int) -> BitMap:
        tag_at = at + len(by.source) + 1 + by.no
        tags = None
        if by.tag is not None:
            tags = self._matching(by.tag, tag_at) if "*" in by.tag else [self._number(by.tag, tag_at)]
        found = said_by(self.version, by.source, tags, by.no)
        if found is None:
            raise unknown_source(by.source, known_sources(self.version), text=self.query.text, at=at)
        return found

    def _like(self, like: Like, at: int) -> BitMap:
        nearest = self.version.likeness.nearest
        if nearest is None:
            raise QueryError("pictures cannot be compared here", self.query.text, at)
        try:
            found = nearest(like.picture, count=like.count, least=like.least)
        except CollectionError as error:
            raise QueryError(str(error), self.query.text, at) from error
        self.similar = [picture for picture, _ in found]
        return BitMap(self.similar)

    # Tags

    def _number(self, name: str, at: int) -> int:
        number = self.version.tags.number(name)
        if number is None:
            lexicon, counts = self.version.tags.lexicon, self.version.counts
            raise unknown_tag(name, lexicon, self.version.names, counts, text=self.query.text, at=at)
        return number

    def _matching(self, pattern: str, at: int) -> list[int]:
        tags = self.version.tags.matching(pattern)
        if not tags:
            raise QueryError(f"no tag matches {pattern}", self.query.text, at)
        return tags


def _inside(numbers: Numbers) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    ranges = [_whole(one) for one in numbers.intervals]

    def holds(column: NDArray[Any]) -> NDArray[np.bool_]:
        limits = np.iinfo(column.dtype)
        inside = np.zeros(len(column), dtype=bool)
        for low, high in ranges:
            if low <= limits.max and high >= limits.min and low <= high:
                # In the column's own type, which is quicker than to turn a million numbers into another.
                inside |= (column >= max(low, limits.min)) & (column <= min(high, limits.max))
        return inside

    return holds


def _whole(interval: Interval) -> tuple[float, float]:
    """The least and the largest whole number in an interval; infinite where it is open."""
    low, high = interval.low, interval.high
    if isfinite(low):
        low = floor(low) + 1 if interval.without_low else ceil(low)
    if isfinite(high):
        high = ceil(high) - 1 if interval.without_high else floor(high)
    return low, high
