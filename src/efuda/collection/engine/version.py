"""The collection at one revision, and what can be looked up in it: sets, columns, texts.

version.carrying(7)                         # the pictures that carry tag 7
version.values("width", ids)                # their widths
version.where("width", lambda column: column > 1000)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.bitmaps import NOTHING, bitmap_of, numbers_of, union_of
from efuda.collection.engine.names import Names
from efuda.collection.engine.segments import Segment
from efuda.collection.engine.sets import Sets
from efuda.collection.engine.texts import Texts
from efuda.collection.record import Record, rows
from efuda.vocabulary import Category

__all__ = ["Resemblance", "Version"]


class Nearest(Protocol):
    """Finds what resembles a picture."""

    def __call__(self, picture: int, *, count: int | None, least: float | None) -> list[tuple[int, float]]:
        """The most similar first, itself left out; raises CollectionError for a picture that cannot be compared."""


@dataclass(frozen=True)
class Resemblance:
    """What knows which pictures resemble one another.

    Attributes:
        nearest: asked by `like:`; None where pictures cannot be compared.
        duplicates: of pictures that have any, how many others are the same or nearly; None: nobody knows.
    """

    nearest: Nearest | None = None
    duplicates: Callable[[], Mapping[int, int]] | None = None


@dataclass(frozen=True, eq=False)
class Version:
    """Never changes.

    Attributes:
        revision: of the record.
        relations: of the record; another means that everything is read anew.
        tags: what tags are called and how they relate.
        segments: the pictures; of one in several, the last counts.
        likeness: what is asked which pictures resemble one another.
        saved: the revision of the snapshot that this comes from; -1 for none.
    """

    record: Record
    revision: int
    relations: int
    tags: Names
    segments: tuple[Segment, ...]
    sets: Sets
    likeness: Resemblance = Resemblance()
    saved: int = -1

    # Tags

    @property
    def names(self) -> list[str]:
        """The name of a tag, by number."""
        return self.tags.names

    @property
    def categories(self) -> list[Category]:
        """The category of a tag, by number."""
        return self.tags.categories

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many pictures that can be found carry a tag, by number."""
        return self.sets.counts

    def carrying(self, tag: int) -> BitMap:
        """The pictures that carry a tag, also those that are missing or removed."""
        return self.sets.tags[tag] if tag < len(self.sets.tags) else NOTHING

    @cached_property
    def sources(self) -> list[str]:
        """The names of all models, imports and persons."""
        with self.record.read() as db:
            return [name for (name,) in rows(db, "SELECT name FROM sources ORDER BY id")]

    @cached_property
    def ranked(self) -> list[int]:
        """Tags, ratings left out, that pictures carry, the most common first."""
        return self.tags.ranked(self.counts)

    @cached_property
    def ranked_by_category(self) -> dict[Category, NDArray[np.int64]]:
        """The same, each category by itself."""
        ranked = np.array(self.ranked, dtype=np.int64)
        kinds = self.tags.kinds[ranked]
        return {Category(kind): ranked[kinds == kind] for kind in np.unique(kinds).tolist()}

    # Pictures

    @cached_property
    def layers(self) -> list[tuple[Segment, BitMap]]:
        """Each segment with those of its pictures for which it counts."""
        found: list[tuple[Segment, BitMap]] = []
        later = NOTHING
        for segment in reversed(self.segments):
            found.append((segment, segment.every - later if later else segment.every))
            later = later | segment.every
        return found[::-1]

    @cached_property
    def everything(self) -> BitMap:
        """All pictures, whatever their state."""
        return union_of([segment.every for segment in self.segments])

    @cached_property
    def found(self) -> BitMap:
        """The pictures that are neither missing nor removed: those that a search finds unless it asks for others."""
        return self.everything - self.sets.missing - self.sets.removed

    def where(self, name: str, holds: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> BitMap:
        """The pictures for whose value in a column something holds."""
        if name in _COUNTED:
            ids, numbers = getattr(self, name)
            rest = self.everything - bitmap_of(ids) if holds(np.zeros(1, dtype=np.int64))[0] else NOTHING
            return bitmap_of(ids[holds(numbers)]) | rest
        parts = []
        for segment, live in self.layers:
            here = segment.where(holds(segment.column(name)))
            parts.append(here if live is segment.every else here & live)
        return union_of(parts)

    def values(self, name: str, ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        """A column of these pictures, which ascend."""
        values = np.zeros(len(ids), dtype=np.int64)
        if name in _COUNTED:
            own, numbers = getattr(self, name)
            held = np.isin(ids, own)
            values[held] = numbers[np.searchsorted(own, ids[held])]
        elif self.segments and len(ids):
            values = self.segments[0].values(name, ids)
            wanted = bitmap_of(ids) if len(self.segments) > 1 else NOTHING
            for segment, live in self.layers[1:]:
                here = numbers_of(live & wanted)
                values[np.searchsorted(ids, here)] = segment.values(name, here)
        return values

    @cached_property
    def children(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Pictures that are parents, and of how many pictures that can be found."""
        ids = numbers_of(self.where("parent", lambda parents: parents > 0) & self.found)
        parents, counts = np.unique(self.values("parent", ids), return_counts=True)
        return parents.astype(np.uint32), counts

    @cached_property
    def duplicates(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Pictures that have duplicates, and how many."""
        counts = self.likeness.duplicates() if self.likeness.duplicates else {}
        pairs = sorted((picture, count) for picture, count in counts.items() if count)
        table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return table[:, 0].astype(np.uint32), table[:, 1]

    def saying(self, kind: str, find: Callable[[Texts], NDArray[np.uint32]]) -> BitMap:
        """The pictures among whose paths or sources something is found."""
        parts = []
        for segment, live in self.layers:
            parts.append(bitmap_of(find(segment.texts(kind, self.record))) & live)
        return union_of(parts)

    def tally(self, here: BitMap) -> NDArray[np.int64]:
        """How many of these pictures carry each tag, by number, counted one by one."""
        counts = np.zeros(len(self.names), dtype=np.int64)
        for segment, live in self.layers:
            ids = numbers_of(here & live)
            for start in range(0, len(ids), _AT_ONCE):
                tags = segment.tags_of(ids[start : start + _AT_ONCE])
                counts += np.bincount(tags, minlength=len(counts))
        return counts

    def carried(self, here: BitMap) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        """A picture and a tag for every tag that these pictures carry."""
        pictures, tags = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.uint16)]
        for segment, live in self.layers:
            ids = numbers_of(here & live)
            if len(ids):
                own = segment.carried(ids)
                pictures.append(own[0])
                tags.append(own[1])
        return np.concatenate(pictures), np.concatenate(tags)


_AT_ONCE: Final = 4096  # pictures whose tags still lie in the processor's cache: a third quicker than all at once
_COUNTED: Final = ("children", "duplicates")
