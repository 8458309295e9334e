"""The search engine: bitmaps of the pictures by tag, columns and scores in memory; counts are exact.

    index = Index.load(record)                              # from the snapshot and what changed since, or the tables
    total, ids = index.find(parse("glasses -hat"), limit=60, offset=0)
    index = index.refreshed(record)                         # another version, in which only touched pictures are new

An `Index` never changes, so any number of threads may search one while another makes the next. A version shares with
the one before all that did not change: an edit copies the bitmaps of the tags it touches and adds a segment of one
picture. Segments are merged when a later one has grown to half of the one before, so that adding costs no more the
more pictures there are. A picture's id is its bit: the order of bits is the order in which pictures came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import apsw
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.evaluating import Evaluation
from efuda.collection.engine.facets import Facets, facets_of
from efuda.collection.engine.names import Names
from efuda.collection.engine.ordering import page_of
from efuda.collection.engine.reading import Facts, read_segments
from efuda.collection.engine.segments import Segment
from efuda.collection.engine.sets import Sets
from efuda.collection.engine.snapshot import read_snapshot
from efuda.collection.engine.version import Resemblance, Version
from efuda.collection.query import Query
from efuda.collection.record import Record, number
from efuda.vocabulary import Category

__all__ = ["Index"]

_GROWN: Final = 2  # a segment at least this many times as large as the next stays apart from it
_NO_RESEMBLANCE: Final = Resemblance()


@dataclass(frozen=True, eq=False)
class Index(Version):
    """One version, and how to come to the next."""

    # Searching

    def find(self, query: Query, *, limit: int, offset: int = 0) -> tuple[int, list[int]]:
        """How many pictures match, and the ids of one page of them; `limit:` in the query takes precedence.

        Raises:
            QueryError: it names a tag, a source or a picture that there is not.
        """
        search = Evaluation(self, query)
        found = search.found
        limit = query.limit or limit
        return len(found), page_of(self, found, query.order, search.similar, limit=limit, offset=offset)

    def ids(self, query: Query) -> NDArray[np.uint32]:
        """All pictures that match, in order; as many of them as a `limit:` in the query says.

        Raises:
            QueryError: as `find`.
        """
        search = Evaluation(self, query)
        limit = query.limit or len(search.found)
        return np.array(page_of(self, search.found, query.order, search.similar, limit=limit, offset=0), np.uint32)

    def bitmap_of(self, query: Query) -> BitMap:
        """The set of pictures that match; not to be changed.

        Raises:
            QueryError: as `find`.
        """
        return Evaluation(self, query).found

    def count_with(self, pictures: BitMap, tag: int) -> int:
        """How many of some pictures carry a tag."""
        return self.carrying(tag).intersection_cardinality(pictures)

    def facets(self, pictures: BitMap, limit: int) -> Facets:
        """The most common tags of some pictures, `limit` of each category, and their ratings; counts are exact."""
        return facets_of(self, pictures, limit)

    def listed(self) -> list[tuple[str, Category, int]]:
        """(name, category, pictures that carry it) by falling count; ratings are not tags and are left out."""
        return [(self.names[tag], self.categories[tag], int(self.counts[tag])) for tag in self.ranked]

    # Versions

    @classmethod
    def load(cls, record: Record, likeness: Resemblance = _NO_RESEMBLANCE) -> Self:
        """The present version: from the snapshot and what changed since, or without one that holds from the tables."""
        with record.read() as db:
            held = read_snapshot(record.path, db)
            if held is None:
                return cls.read(record, likeness)
            names = Names.read(db)
            index = cls(record, held.revision, held.relations, names, held.segments, held.sets, likeness, held.revision)
            return index.refreshed(record)

    @classmethod
    def read(cls, record: Record, likeness: Resemblance = _NO_RESEMBLANCE) -> Self:
        """The present version, from the tables."""
        with record.read() as db:
            return cls._read(record, db, likeness)

    @classmethod
    def _read(cls, record: Record, db: apsw.Connection, likeness: Resemblance) -> Self:
        revision, relations = _state(db)
        names, sets, segments = Names.read(db), Sets.empty(), []
        for segment, facts in read_segments(db, names, -1):
            new = _keys(segment.carried(segment.ids))
            sets = sets.with_pictures(len(names), segment.every, new[:0], new, facts, ours=True)
            segments.append(segment)
        merged = (Segment.merged(segments),) if segments else ()
        return cls(record, revision, relations, names, merged, sets, likeness)

    def refreshed(self, record: Record) -> Self:
        """The version of now: itself where nothing was written, else one in which what was touched is read anew."""
        with record.read() as db:
            revision, relations = _state(db)
            if revision <= self.revision:  # less where this thread reads an earlier moment
                return self
            if relations != self.relations:
                return self._read(record, db, self.likeness)
            index = replace(self, revision=revision, tags=self.tags.grown(db))
            for segment, facts in read_segments(db, index.tags, self.revision):
                index = index._with(segment, facts)
            return index

    def _with(self, segment: Segment, facts: Facts) -> Self:
        """With a segment more, merged with those before it that it has outgrown."""
        old, new = _keys(self.carried(segment.every)), _keys(segment.carried(segment.ids))
        sets = self.sets.with_pictures(len(self.tags), segment.every, old, new, facts)
        segments = [*self.segments, segment]
        first = len(segments) - 1
        size = len(segment)
        while first and len(segments[first - 1]) < _GROWN * size:
            first -= 1
            size += len(segments[first])
        merged = Segment.merged(segments[first:]) if first < len(segments) - 1 else segment
        return replace(self, segments=(*segments[:first], merged), sets=sets)


def _state(db: apsw.Connection) -> tuple[int, int]:
    revision, relations = (number(db, "SELECT value FROM state WHERE key = ?", (key,)) for key in _STATE)
    return revision, relations


_STATE: Final = ("revision", "relations")


def _keys(carried: tuple[NDArray[np.uint32], NDArray[np.unsignedinteger]]) -> NDArray[np.uint64]:
    """tag << 32 | picture of each."""
    pictures, tags = carried
    return tags.astype(np.uint64) << np.uint64(32) | pictures
