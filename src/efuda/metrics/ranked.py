"""The head of every tag's ranking, kept sparse, so that average precision can be resampled over pictures.

A tag keeps its positives and its best-scored pictures, about `AT_LEAST + A_POSITIVE × positives` of them: the floor
rises as pictures come, by the histogram. Memory is a few million entries of 10 bytes, whatever the number of pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.counts import Floats
from efuda.metrics.histogram import ScoreHistogram
from efuda.metrics.labels import Labels, pairs

__all__ = ["Ranked", "RankedPart"]

AT_LEAST: Final = 32
A_POSITIVE: Final = 3
_ENTRIES: Final = 2_000_000  # before the first cut
_PART: Final = 1 << 16


@dataclass(frozen=True)
class RankedPart:
    """Some tags' entries, grouped by tag and bin, best first.

    Attributes:
        tags: int64, the tags, in order; `tag_starts` where each one's groups begin.
        pictures: int32 [entries]; `group_starts`, where each group's entries begin.
        positive: float32 [entries], 1 where the picture carries the tag.
        rank: float64 [groups], how many scores lie at or above, for groups below the floor; NaN where all are kept.
    """

    tags: NDArray[np.int64]
    tag_starts: NDArray[np.int64]
    pictures: NDArray[np.int32]
    positive: NDArray[np.float32]
    group_starts: NDArray[np.int64]
    rank: Floats

    def average_precision(self, weights: NDArray[np.float32]) -> Floats:
        """AP per tag where pictures count so often, [pictures, replicates] → [tags, replicates]; NaN without positives.

        Below the floor, where only positives are kept, the number of scores above is that of the whole sample.
        """
        counted = weights[self.pictures]
        all_ = np.add.reduceat(counted, self.group_starts, axis=0, dtype=np.float64)
        counted *= self.positive[:, None]
        gained = np.add.reduceat(counted, self.group_starts, axis=0, dtype=np.float64)
        groups = np.diff(np.append(self.tag_starts, len(all_)))
        above, right = (_within(np.cumsum(part, axis=0), self.tag_starts, groups) for part in (all_, gained))
        deep = ~np.isnan(self.rank)
        above[deep] = self.rank[deep, None]
        precision = np.minimum(right / np.maximum(above, 1), 1)
        total = np.add.reduceat(gained, self.tag_starts, axis=0)
        found = np.add.reduceat(precision * gained, self.tag_starts, axis=0)
        return np.where(total > 0, found / np.maximum(total, 1), np.nan)


class Ranked:
    """The best-scored pictures of each tag, and its positives. `histogram` is updated beside it, before it."""

    def __init__(self, histogram: ScoreHistogram) -> None:
        self.histogram, self.pictures = histogram, 0
        self._floor = np.zeros(histogram.tags, dtype=np.int64)
        self._entries: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16], NDArray[np.bool_]]] = []
        self._count, self._limit = 0, _ENTRIES

    def update(self, scores: NDArray[np.float32], labels: Labels) -> None:
        """Add pictures, the same as to the histogram."""
        rows, tags = pairs(labels, scores.shape)
        edges = np.concatenate([[np.float32(-1)], self.histogram.grid.edges]).astype(np.float32)
        kept = scores >= edges[self._floor]
        kept[rows, tags] = False
        for (pictures, columns), positive in ((pairs(kept, kept.shape), False), ((rows, tags), True)):
            self._entries.append(
                (
                    (pictures + self.pictures).astype(np.int32),
                    columns.astype(np.int32),
                    self.histogram.grid.place(scores[pictures, columns]),
                    np.full(len(columns), positive),
                )
            )
            self._count += len(columns)
        self.pictures += len(scores)
        if self._count > self._limit:
            self._cut()

    def parts(self) -> Iterator[RankedPart]:
        """All tags with positives, some at a time."""
        assert self.pictures == self.histogram.pictures, "the histogram has seen other pictures"
        self._cut()
        pictures, tags, bins, positive = self._joined()
        order = np.lexsort((-bins.astype(np.int32), tags))
        pictures, tags, bins, positive = pictures[order], tags[order], bins[order], positive[order]
        ends = np.searchsorted(tags, np.arange(self.histogram.tags + 1))
        first = 0
        while first < self.histogram.tags:
            last = max(int(np.searchsorted(ends, ends[first] + _PART)) - 1, first + 1)
            last = min(last, self.histogram.tags)
            some = slice(int(ends[first]), int(ends[last]))
            if some.start < some.stop:
                yield self._part(pictures[some], tags[some], bins[some], positive[some])
            first = last

    def _part(
        self,
        pictures: NDArray[np.int32],
        tags: NDArray[np.int32],
        bins: NDArray[np.uint16],
        positive: NDArray[np.bool_],
    ) -> RankedPart:
        group_starts = np.flatnonzero(np.concatenate([[True], (np.diff(tags) != 0) | (np.diff(bins.astype(int)) != 0)]))
        group_tags, group_bins = tags[group_starts], bins[group_starts].astype(np.int64)
        tag_starts = np.flatnonzero(np.concatenate([[True], np.diff(group_tags) != 0]))
        return RankedPart(
            group_tags[tag_starts].astype(np.int64),
            tag_starts,
            pictures,
            positive.astype(np.float32),
            group_starts,
            self._ranks(group_tags.astype(np.int64), group_bins),
        )

    def _ranks(self, tags: NDArray[np.int64], bins: NDArray[np.int64]) -> Floats:
        ranks = np.full(len(tags), np.nan)
        deep = bins < self._floor[tags]
        if deep.any():
            ranks[deep] = self.histogram.at_or_above(tags[deep], bins[deep])
        return ranks

    def _cut(self) -> None:
        """Raise the floors to what is wanted, and drop what lies below."""
        wanted = AT_LEAST + A_POSITIVE * self.histogram.positives
        for rows, all_, _ in self.histogram.blocks():
            above = np.cumsum(all_[:, ::-1], axis=1)[:, ::-1]
            floor = (above > wanted[rows, None]).sum(axis=1)
            self._floor[rows] = np.maximum(self._floor[rows], np.minimum(floor, self.histogram.grid.width - 1))
        pictures, tags, bins, positive = self._joined()
        kept = positive | (bins >= self._floor[tags])
        self._entries = [(pictures[kept], tags[kept], bins[kept], positive[kept])]
        self._count = int(kept.sum())
        self._limit = max(_ENTRIES, 2 * self._count)

    def _joined(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16], NDArray[np.bool_]]:
        pictures, tags, bins, positive = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        return pictures, tags, bins, positive


def _within(totals: Floats, starts: NDArray[np.int64], groups: NDArray[np.int64]) -> Floats:
    """A running total over all groups, made to begin anew at each tag."""
    before = np.where(starts[:, None] > 0, totals[np.maximum(starts - 1, 0)], 0.0)
    return np.asarray(totals - np.repeat(before, groups, axis=0))
