"""Which pictures carry a tag, are missing or removed, were seen by a model: a bitmap each, replaced and never changed.

    sets = Sets.empty().with_pictures(count, here, old, new, facts)

What a change leaves as it was is shared between the sets before and after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from efuda.collection.engine.bitmaps import NOTHING, bitmap_of, groups_of, is_among, numbers_of
from efuda.collection.engine.reading import Facts

__all__ = ["Sets"]


@dataclass(frozen=True, eq=False)
class Sets:
    """The sets of one version.

    Attributes:
        tags: by number, the pictures that carry the tag, also those that are missing or removed.
        counts: by number, how many of them are neither.
        missing: their files are all gone.
        removed: a person removed them.
        said: source → pictures of which it said something.
        latest: model → pictures for which it is the latest.
    """

    tags: list[BitMap]
    counts: NDArray[np.int64]
    missing: BitMap
    removed: BitMap
    said: dict[int, BitMap]
    latest: dict[int, BitMap]

    @classmethod
    def empty(cls) -> Self:
        """Of no pictures."""
        return cls([], np.zeros(0, dtype=np.int64), BitMap(), BitMap(), {}, {})

    def with_pictures(
        self,
        size: int,
        here: BitMap,
        old: NDArray[np.uint64],
        new: NDArray[np.uint64],
        facts: Facts,
        *,
        ours: bool = False,
    ) -> Self:
        """With some pictures as they are now.

        Args:
            size: how many numbers of tags there are.
            here: these pictures.
            old: tag << 32 | picture of what they carried before.
            new: the same of what they carry now.
            facts: the rest of what holds of them now.
            ours: nobody else has these sets yet, so that they may be changed, which is quicker.
        """
        counts = np.zeros(size, dtype=np.int64)
        counts[: len(self.counts)] = self.counts
        counts -= _counted(old, self.missing | self.removed, size)
        counts += _counted(new, facts.missing | facts.removed, size)
        tags = (self.tags if ours else self.tags.copy()) + [NOTHING] * (size - len(self.tags))
        old, new = np.sort(old), np.sort(new)
        for tag, pictures in groups_of(old[~is_among(old, new)]):
            tags[tag] = tags[tag] - bitmap_of(pictures)
        for tag, pictures in groups_of(new[~is_among(new, old)]):
            come = bitmap_of(pictures)
            if ours and tags[tag] is not NOTHING:
                tags[tag] |= come
            else:
                tags[tag] = tags[tag] | come
        return type(self)(
            tags,
            counts,
            self.missing - here | facts.missing,
            self.removed - here | facts.removed,
            _replaced(self.said, here, facts.said),
            _replaced(self.latest, here, facts.latest),
        )


def _counted(keys: NDArray[np.uint64], hidden: BitMap, size: int) -> NDArray[np.int64]:
    """How often each tag occurs, pictures that are hidden left out."""
    if hidden and len(keys):
        keys = keys[~np.isin(keys.astype(np.uint32), numbers_of(hidden))]
    return np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=size)


def _replaced(old: dict[int, BitMap], here: BitMap, new: dict[int, BitMap]) -> dict[int, BitMap]:
    found = {source: old.get(source, NOTHING) - here | new.get(source, NOTHING) for source in old | new}
    return {source: pictures for source, pictures in found.items() if pictures}
