"""From the record's tables to segments: whose word counts, what implies what, and which rating a picture has.

    with record.read() as db:
        for segment, facts in read_segments(db, Names.read(db), since=-1):      # all pictures, so many at a time

A picture carries what its latest model and its imports say is present; a person's yes adds, a person's no takes away,
and then what a carried tag implies joins unless a person said no to it. Its rating is a person's, else an import's,
else the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import apsw
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.bitmaps import bitmap_of, is_among, sorted_once
from efuda.collection.engine.grouped import Grouped
from efuda.collection.engine.names import Names
from efuda.collection.engine.segments import COLUMNS, Segment
from efuda.collection.metatags import FILETYPES
from efuda.collection.record import rows
from efuda.vocabulary import Category

__all__ = ["Facts", "read_segments"]

_AT_ONCE: Final = 1 << 16  # pictures; more take more memory and are hardly quicker
_BY_CATEGORY: Final = {
    "gentags": Category.GENERAL,
    "arttags": Category.ARTIST,
    "copytags": Category.COPYRIGHT,
    "chartags": Category.CHARACTER,
    "metatags": Category.META,
}

# A key is row << 34 | tag << 2 | whose word it is, the one that counts most being the least; a row is a place in `ids`.
_PERSON, _IMPORT, _MODEL, _IMPLIED = range(4)
_WHOSE, _TAG, _ROW = np.uint64(2), np.uint64(0xFFFFFFFF), np.uint64(34)
_Keys = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Facts:
    """What is true of some of a segment's pictures and is kept as sets.

    Attributes:
        missing: none of their files is there.
        removed: a person removed them.
        said: source → pictures of which it said something.
        latest: model → pictures for which it is the latest.
    """

    missing: BitMap
    removed: BitMap
    said: dict[int, BitMap]
    latest: dict[int, BitMap]


class _Entries(NamedTuple):
    """What taggings say, end to end: a row and a packed score for every tag."""

    row: NDArray[np.uint32]
    packed: NDArray[np.uint32]

    def present(self, whose: int) -> _Keys:
        kept = (self.packed & np.uint32(256)) != 0
        return _keys(self.row[kept], self.packed[kept] >> np.uint32(9), whose)


def read_segments(db: apsw.Connection, names: Names, since: int) -> Iterator[tuple[Segment, Facts]]:
    """All pictures whose revision is above `since`, in segments of ascending ids."""
    found = rows(db, "SELECT id FROM pictures WHERE revision > ?", (since,))
    ids = np.sort(np.fromiter((one for (one,) in found), dtype=np.uint32, count=len(found)))
    del found
    for block in np.split(ids, np.flatnonzero(np.diff(ids // _AT_ONCE)) + 1) if len(ids) else ():
        yield _Reader(db, names, block, since).read()


class _Reader:
    """Reads one block of pictures."""

    def __init__(self, db: apsw.Connection, names: Names, ids: NDArray[np.uint32], since: int) -> None:
        self.db, self.names, self.ids = db, names, ids
        between = f"BETWEEN {int(ids[0])} AND {int(ids[-1])}"
        # The "+" has it look for what changed by the index of revisions.
        changed = f"IN (SELECT id FROM pictures WHERE revision > {since} AND +id {between})"
        self.among = changed if since >= 0 else between
        self.said: dict[int, BitMap] = {}
        self.latest: dict[int, BitMap] = {}

    def read(self) -> tuple[Segment, Facts]:
        columns = self._pictures()
        removed = bitmap_of(self.ids[columns.pop("removed") != 0])
        model, imports = self._taggings(columns)
        carried = self._carried(model, imports, *self._words())
        self._count(columns, carried, model)
        segment = Segment(
            self.ids,
            {name: columns[name].astype(kind) for name, kind in COLUMNS.items()},
            self._tags(carried),
            self._scores(model),
        )
        there = BitMap(one for (one,) in self._fetch(_THERE))
        return segment, Facts(segment.every - there, removed, self.said, self.latest)

    def _pictures(self) -> dict[str, NDArray[np.int64]]:
        names = ("id", "width", "height", "filesize", "added", "date", "changed", "duration", "parent", "removed")
        *numbers, filetypes = zip(*self._fetch(_PICTURES), strict=True)
        columns = {name: np.array(values, dtype=np.int64) for name, values in zip(names, numbers, strict=True)}
        kinds = {name: place for place, name in enumerate(FILETYPES)}
        width, height = columns["width"], columns["height"]
        columns["ratio"] = (200 * width + height) // np.maximum(2 * height, 1)  # half up
        columns["filetype"] = np.array([kinds.get(name, len(FILETYPES)) for name in filetypes])
        for picture, at in self._fetch(_EDITED):
            self._moved(columns["changed"], np.array([picture]), np.array([at]))
        return columns

    def _moved(self, changed: NDArray[np.int64], picture: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        np.maximum.at(changed, self._row(picture), at)

    def _row(self, picture: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(self.ids, picture)

    def _taggings(self, columns: dict[str, NDArray[np.int64]]) -> tuple[_Entries, _Entries]:
        """What the latest models and what imports say; notes who said something, and when."""
        found = self._fetch(_TAGGINGS)
        blobs = [row[-1] for row in found]
        table = np.array([row[:-1] for row in found], dtype=np.int64).reshape(-1, 6)
        self._moved(columns["changed"], table[:, 1], table[:, 4])
        order = np.lexsort((table[:, 0], table[:, 1]))
        order = order[table[order, 5] == 0]  # not withdrawn
        _, picture, source, is_model, _, _ = table[order].T
        models = np.flatnonzero(is_model)
        latest = models[np.diff(picture[models], append=-1) != 0]
        self.said = _by_source(source, picture)
        self.latest = _by_source(source[latest], picture[latest])
        return self._entries(blobs, order[latest], table), self._entries(blobs, order[is_model == 0], table)

    def _entries(self, blobs: list[bytes], chosen: NDArray[np.int64], table: NDArray[np.int64]) -> _Entries:
        kept = [blobs[one] for one in chosen.tolist()]
        sizes = np.fromiter(map(len, kept), dtype=np.int64, count=len(kept)) // 4
        row = np.repeat(self._row(table[chosen, 1]).astype(np.uint32), sizes)
        return _Entries(row, np.frombuffer(b"".join(kept), dtype="<u4"))

    def _words(self) -> tuple[_Keys, _Keys]:
        """What persons said yes and no to; notes who said something."""
        picture, tag, verdict, source = np.array(self._fetch(_WORDS), dtype=np.int64).reshape(-1, 4).T
        for person, pictures in _by_source(source, picture).items():
            self.said[person] = self.said.get(person, BitMap()) | pictures
        keys = _keys(self._row(picture), tag, _PERSON)
        return keys[verdict > 0], np.sort(keys[verdict < 0])

    def _carried(self, model: _Entries, imports: _Entries, yes: _Keys, no: _Keys) -> _Keys:
        """Keys, ascending, of what the pictures carry; of a picture's ratings one at most."""
        keys = model.present(_MODEL)
        if len(yes) or len(imports.row):
            keys = np.concatenate([keys, imports.present(_IMPORT), yes])
        if (keys[1:] <= keys[:-1]).any():
            keys = np.sort(keys)
            keys = keys[np.append(True, np.diff(keys >> _WHOSE) != 0)]  # of each tag the word that counts
        keys = keys[~_in(keys, no)] if len(no) else keys
        return self._with_one_rating(self._with_implied(keys, no))

    def _with_implied(self, keys: _Keys, no: _Keys) -> _Keys:
        ahead = keys
        while len(self.names.implications) and len(ahead):
            places, implied = self.names.implied_by((ahead >> _WHOSE & _TAG).astype(np.int64))
            new = sorted_once(_keys(ahead[places] >> _ROW, implied, _IMPLIED))
            ahead = new[~(_in(new, keys) | _in(new, no))]
            keys = np.sort(np.concatenate([keys, ahead]))
        return keys

    def _with_one_rating(self, keys: _Keys) -> _Keys:
        row, tag = keys >> _ROW, (keys >> _WHOSE & _TAG).astype(np.int64)
        ratings = np.flatnonzero(self.names.kinds[tag] == Category.RATING)
        whose = (keys[ratings] & np.uint64(3)).astype(np.int64)
        order = np.lexsort((self.names.rating_places[tag[ratings]], whose, row[ratings]))
        first = np.append(True, np.diff(row[ratings[order]]) != 0)[: len(order)]
        kept = np.ones(len(keys), dtype=bool)
        kept[ratings] = False
        kept[ratings[order[first & (whose[order] != _IMPLIED)]]] = True
        return keys[kept]

    def _count(self, columns: dict[str, NDArray[np.int64]], carried: _Keys, model: _Entries) -> None:
        """The columns that count tags and average scores."""
        size, row = len(self.ids), (carried >> _ROW).astype(np.int64)
        kinds = self.names.kinds[(carried >> _WHOSE & _TAG).astype(np.int64)]
        for name, category in _BY_CATEGORY.items():
            columns[name] = np.bincount(row[kinds == category], minlength=size)
        columns["tagcount"] = np.bincount(row[kinds != Category.RATING], minlength=size)
        is_tag = self.names.kinds[model.packed >> np.uint32(9)] != Category.RATING
        counted = is_tag & ((model.packed & np.uint32(256)) != 0)
        number = np.bincount(model.row[counted], minlength=size)
        sums = np.bincount(model.row[counted], model.packed[counted] & np.uint32(0xFF), minlength=size)
        columns["score"] = np.rint(1000 * sums / np.maximum(number, 1)).astype(np.int64)

    def _tags(self, carried: _Keys) -> Grouped:
        sizes = np.bincount((carried >> _ROW).astype(np.int64), minlength=len(self.ids))
        small = np.uint16 if len(self.names) <= 1 << 16 else np.uint32
        return Grouped(self.ids, np.append(0, np.cumsum(sizes)), ((carried >> _WHOSE & _TAG).astype(small),))

    def _scores(self, model: _Entries) -> Grouped:
        """Tag → pictures and marks; one sort for all of it."""
        tag, row, mark = model.packed >> np.uint32(9), model.row << np.uint32(9), model.packed & np.uint32(0x1FF)
        keys = np.sort(tag.astype(np.uint64) << np.uint64(32) | row | mark)
        row = keys.astype(np.uint32) >> np.uint32(9)
        marks = keys.astype(np.uint16) & np.uint16(0x1FF)
        return Grouped.by((keys >> np.uint64(32)).astype(np.uint32), self.ids[row], marks)

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        return rows(self.db, statement.replace("AMONG", self.among))


_PICTURES: Final = """
SELECT id, width, height, bytes, unixepoch(added), coalesce(unixepoch(date), unixepoch(added)), unixepoch(added),
coalesce(duration_ms, 0), coalesce(parent, 0), removed, filetype FROM pictures WHERE id AMONG ORDER BY id
"""
_THERE: Final = "SELECT DISTINCT picture FROM files WHERE missing IS NULL AND picture AMONG"
_TAGGINGS: Final = """
SELECT taggings.id, picture, source, kind = 'model', unixepoch(at), withdrawn, scores
FROM taggings JOIN sources ON sources.id = taggings.source WHERE picture AMONG
"""
_WORDS: Final = "SELECT picture, tag, verdict, source FROM words WHERE picture AMONG"
_EDITED: Final = """
SELECT picture, unixepoch(max(at)) FROM changes JOIN operations ON operations.id = changes.operation
WHERE picture AMONG GROUP BY picture
"""


def _keys(row: NDArray[Any], tag: NDArray[Any], whose: int) -> _Keys:
    keys: _Keys = row.astype(np.uint64) << _ROW | tag.astype(np.uint64) << _WHOSE | np.uint64(whose)
    return keys


def _in(keys: _Keys, others: _Keys) -> NDArray[np.bool_]:
    """Which keys have their picture and tag among the others, which ascend."""
    return is_among(keys >> _WHOSE, others >> _WHOSE)


def _by_source(source: NDArray[np.int64], picture: NDArray[np.int64]) -> dict[int, BitMap]:
    return {one: bitmap_of(picture[source == one]) for one in set(source.tolist())}
