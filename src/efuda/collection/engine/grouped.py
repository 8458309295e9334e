"""Lists of numbers by key, end to end in a few arrays: the tags of each picture, the pictures scored for each tag.

tags = Grouped(keys=np.array([7, 9]), starts=np.array([0, 2, 3]), values=(np.array([4, 5, 4]),))
tags.of(7)          # slice(0, 2): picture 7 has tags 4 and 5, picture 9 has tag 4
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.collection.engine.bitmaps import sorted_once

__all__ = ["Grouped"]

_BLOCK: Final = 4_000_000  # values moved at once, which bounds the memory that moving takes


@dataclass(frozen=True, eq=False)
class Grouped:
    """The list of `keys[i]` is `values[…][starts[i]:starts[i + 1]]`; keys ascend, and none has an empty list twice."""

    keys: NDArray[np.uint32]
    starts: NDArray[np.int64]
    values: tuple[NDArray[Any], ...]

    @classmethod
    def by(cls, keys: NDArray[np.uint32], *values: NDArray[Any]) -> Self:
        """From a key for every value, ascending."""
        firsts = np.flatnonzero(np.diff(keys, prepend=np.uint32(0xFFFFFFFF))) if len(keys) else np.zeros(0, np.int64)
        return cls(keys[firsts], np.append(firsts, len(keys)).astype(np.int64), values)

    def of(self, key: int) -> slice:
        """Where the list of a key lies; an empty slice for a key that is not there."""
        place = int(np.searchsorted(self.keys, np.uint32(key)))
        if place == len(self.keys) or self.keys[place] != key:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def places(self, rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the lists of these rows (places in `keys`), end to end: where every value lies, and how long each is."""
        sizes = self.starts[rows + 1] - self.starts[rows]
        shifts = self.starts[rows] - (np.cumsum(sizes) - sizes)
        return np.repeat(shifts, sizes) + np.arange(int(sizes.sum())), sizes

    def only(self, rows: NDArray[Any]) -> Self:
        """The lists of these rows, which ascend."""
        if len(rows) == len(self.keys):
            return self
        places, sizes = self.places(rows)
        starts = np.append(0, np.cumsum(sizes))
        return type(self)(self.keys[rows], starts, tuple(value[places] for value in self.values))

    def keeping(self, kept: NDArray[np.bool_]) -> Self:
        """Without the values that `kept` says no to, and without keys that have none left."""
        before = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum(kept, out=before[1:])
        starts = before[self.starts]
        left = np.diff(starts) > 0
        values = tuple(value[kept] for value in self.values)
        return type(self)(self.keys[left], np.append(starts[:-1][left], starts[-1]), values)

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """The lists of all parts; where several have a key, its lists follow one another."""
        keys = sorted_once(np.concatenate([part.keys for part in parts]))
        sizes = np.zeros(len(keys), dtype=np.int64)
        for part in parts:
            sizes[np.searchsorted(keys, part.keys)] += np.diff(part.starts)
        starts = np.append(0, np.cumsum(sizes))
        cursor = starts[:-1].copy()
        kinds = [np.result_type(*(part.values[n] for part in parts)) for n in range(len(parts[0].values))]
        values = tuple(np.empty(int(starts[-1]), dtype=kind) for kind in kinds)
        for part in parts:
            at = np.searchsorted(keys, part.keys)
            for block in part._blocks():
                targets = part._targets(block, cursor[at[block]])
                here = slice(int(part.starts[block.start]), int(part.starts[block.stop]))
                for value, own in zip(values, part.values, strict=True):
                    value[targets] = own[here]
            cursor[at] += np.diff(part.starts)
        return cls(keys, starts, values)

    def _targets(self, block: slice, cursor: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the values of a block of keys go, if each key's go to its cursor."""
        starts = self.starts[block.start : block.stop + 1]
        shifts = np.repeat(cursor - starts[:-1], np.diff(starts))
        shifts += np.arange(starts[0], starts[-1])
        return shifts

    def _blocks(self) -> Iterator[slice]:
        """Runs of keys that have together at most about `_BLOCK` values."""
        first = 0
        while first < len(self.keys):
            last = int(np.searchsorted(self.starts, self.starts[first] + _BLOCK))
            last = min(max(last, first + 1), len(self.keys))
            yield slice(first, last)
            first = last
