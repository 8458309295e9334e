"""A segment: some pictures with all that a search asks of them, in arrays; an index is a few of these, newest last.

    segment = read_segment(db, names, changed_since(41))    # see reading.py
    segment.ids, segment.columns["width"]
    segment.tags.values[0][segment.tags.of(7)]              # the tags of picture 7
    segment.scores.of(tag)                                  # where its scores lie, by picture

A picture that changes is written into a new segment, and from then on only that one counts for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.bitmaps import bitmap_of, bitmap_of_flags
from efuda.collection.engine.grouped import Grouped
from efuda.collection.engine.texts import Texts
from efuda.collection.record import Record, rows

__all__ = ["COLUMNS", "PRESENT", "Segment"]

PRESENT: Final = np.uint16(256)  # in a mark: the model says that the tag is present; the lower 8 bits are its score

# What is kept of every picture, and in how many bytes.
COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "width": np.dtype("<i4"),
    "height": np.dtype("<i4"),
    "ratio": np.dtype("<i4"),  # hundredths
    "filesize": np.dtype("<i8"),
    "filetype": np.dtype("<u1"),
    "duration": np.dtype("<i4"),
    "date": np.dtype("<i8"),
    "added": np.dtype("<i8"),
    "changed": np.dtype("<i8"),
    "parent": np.dtype("<u4"),
    "tagcount": np.dtype("<u2"),
    "gentags": np.dtype("<u2"),
    "arttags": np.dtype("<u2"),
    "copytags": np.dtype("<u2"),
    "chartags": np.dtype("<u2"),
    "metatags": np.dtype("<u2"),
    "score": np.dtype("<i4"),
}
_DENSE: Final = 4  # a table of places by id is worth its memory up to so many ids for every picture


@dataclass(frozen=True, eq=False)
class Segment:
    """Pictures by ascending id; never changed.

    Attributes:
        columns: `COLUMNS`, a value for each id.
        tags: picture → its effective tags, its rating among them.
        scores: tag → pictures and marks (`PRESENT` and score) of the latest model.
    """

    ids: NDArray[np.uint32]
    columns: dict[str, NDArray[Any]]
    tags: Grouped
    scores: Grouped
    _texts: dict[str, Texts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def every(self) -> BitMap:
        """All pictures of the segment."""
        return bitmap_of(self.ids)

    def places(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Where these ids lie; anything for an id that is not here."""
        if self._table is not None:
            steps = np.clip(ids.astype(np.int64) - int(self.ids[0]), 0, len(self._table) - 1)
            return self._table[steps]
        return np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)

    @cached_property
    def _table(self) -> NDArray[np.int64] | None:
        span = int(self.ids[-1]) - int(self.ids[0]) + 1
        if span > _DENSE * len(self):
            return None
        table = np.zeros(span, dtype=np.int64)
        table[self.ids - self.ids[0]] = np.arange(len(self))
        return table

    def column(self, name: str) -> NDArray[Any]:
        """A column, also those that are not kept."""
        if name == "id":
            return self.ids
        if name == "mpixels":
            return _product(self.columns["width"], self.columns["height"])
        return self.columns[name]

    def values(self, name: str, ids: NDArray[Any]) -> NDArray[np.int64]:
        """A column of these pictures; anything for an id that is not here."""
        places = self.places(ids)
        if name == "mpixels":
            return _product(self.columns["width"][places], self.columns["height"][places])
        return self.column(name)[places].astype(np.int64)

    def where(self, holds: NDArray[np.bool_]) -> BitMap:
        """The pictures for which something holds."""
        first, last = int(self.ids[0]), int(self.ids[-1])
        if last - first + 1 == len(self):
            return bitmap_of_flags(holds, first)
        if self._table is None:
            return bitmap_of(self.ids[holds])
        flags = np.zeros(len(self._table), dtype=bool)
        flags[self.ids - self.ids[0]] = holds
        return bitmap_of_flags(flags, first)

    def tags_of(self, ids: NDArray[np.uint32]) -> NDArray[Any]:
        """The tags that these pictures carry, one after another."""
        return self.tags.values[0][self.tags.places(self.places(ids))[0]]

    def carried(self, ids: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        """A picture and a tag for every tag that these pictures carry."""
        places, sizes = self.tags.places(self.places(ids))
        return np.repeat(ids, sizes), self.tags.values[0][places]

    def reaching(self, tag: int, least: int) -> NDArray[np.uint32]:
        """Pictures to which the model gives at least this score."""
        here = self.scores.of(tag)
        pictures, marks = self.scores.values
        return pictures[here][(marks[here] & 0xFF) >= least]

    def predicted(self, tag: int) -> NDArray[np.uint32]:
        """Pictures on which the model says that the tag is present."""
        here = self.scores.of(tag)
        pictures, marks = self.scores.values
        return pictures[here][marks[here] >= PRESENT]

    def texts(self, kind: str, record: Record) -> Texts:
        """The paths or sources of these pictures, read on first use."""
        if kind not in self._texts:
            self._texts[kind] = self._read_texts(kind, record)
        return self._texts[kind]

    def _read_texts(self, kind: str, record: Record) -> Texts:
        statement = {
            "path": "SELECT picture, path FROM files WHERE picture BETWEEN ? AND ?",
            "source": "SELECT id, source FROM pictures WHERE id BETWEEN ? AND ? AND source != ''",
        }[kind]
        if self._table is None:
            statement = statement.replace("BETWEEN ? AND ?", "= ?")
        with record.read() as db:
            if self._table is not None:
                found = rows(db, statement, (int(self.ids[0]), int(self.ids[-1])))
            else:
                found = [row for one in self.ids.tolist() for row in rows(db, statement, (one,))]
        return Texts.of([number for number, _ in found], [os.fsdecode(text) for _, text in found])

    @classmethod
    def merged(cls, segments: Sequence[Self]) -> Self:
        """One segment for all of these; of a picture in several, the last counts."""
        parts = [one._without(later) for one, later in zip(segments, _later(segments), strict=True)]
        parts = [part for part in parts if len(part)] or list(segments[-1:])
        if len(parts) == 1:
            return parts[0]
        ids = np.concatenate([part.ids for part in parts])
        order = None if (np.diff(ids.astype(np.int64)) > 0).all() else np.argsort(ids)
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS}
        return cls(
            ids if order is None else ids[order],
            columns if order is None else {name: column[order] for name, column in columns.items()},
            Grouped.merged([part.tags for part in parts]),
            Grouped.merged([part.scores for part in parts]),
        )

    def _without(self, gone: BitMap) -> Self:
        here = gone & self.every
        if not here:
            return self
        kept_rows = ~np.isin(self.ids, np.frombuffer(here.to_array(), dtype=np.uint32))
        kept = np.flatnonzero(kept_rows)
        return type(self)(
            self.ids[kept],
            {name: column[kept] for name, column in self.columns.items()},
            self.tags.only(kept),
            self.scores.keeping(kept_rows[self.places(self.scores.values[0])]),
        )


def _product(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64]:
    product: NDArray[np.int64] = one.astype(np.int64) * other
    return product


def _later(segments: Sequence[Segment]) -> list[BitMap]:
    """For each segment the pictures of those after it."""
    later = [BitMap()]
    for one in reversed(segments[1:]):
        later.append(later[-1] | one.every)
    return later[::-1]
