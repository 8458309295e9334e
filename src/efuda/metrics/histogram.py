"""Scores of any number of pictures as counts per tag and bin: everything about thresholds and ranks follows from them.

    histogram = ScoreHistogram(tags=len(vocabulary))
    histogram.update(scores, labels)                      # float32 [n, tags]; bool [n, tags] or (pictures, tags)
    counts = histogram.counts(0.5)                        # or one threshold a tag
    counts.micro().f1, counts.macro().f1, histogram.mean_average_precision()

Memory is tags × width × 4 bytes up to 65,535 pictures and twice that up to four thousand million, whatever the number
of pictures; the width is 1,673 with 1,000 bins. What depends on thresholds is exact on the grid of 1 / bins; average
precision and ROC-AUC see the scores of one bin (`grid`) as ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from efuda.errors import InputError
from efuda.metrics.counts import Counts, Floats, ratio
from efuda.metrics.grid import grid
from efuda.metrics.labels import Labels, pairs

__all__ = ["ScoreHistogram"]

_BUFFER_BYTES: Final = 16_000_000
_TAGS_AT_ONCE: Final = 64
_ROWS_AT_ONCE: Final = 256


class ScoreHistogram:
    """How many scores fell in each bin, per tag, for all pictures and for those that carry the tag."""

    def __init__(self, tags: int, *, bins: int = 1000) -> None:
        self.tags, self.bins, self.pictures = tags, bins, 0
        self.grid = grid(bins)
        self._all: NDArray[np.unsignedinteger] = np.zeros((tags, self.grid.width), dtype=np.uint16)
        self._positive: NDArray[np.unsignedinteger] = np.zeros((tags, self.grid.width), dtype=np.uint16)
        rows = max(_ROWS_AT_ONCE, _BUFFER_BYTES // (2 * max(tags, 1)))
        self._buffer = np.empty((min(rows, 4096), tags), dtype=np.uint16)
        self._buffered = 0
        self._hits: list[tuple[NDArray[np.int64], NDArray[np.uint16]]] = []

    def update(self, scores: NDArray[np.float32], labels: Labels) -> None:
        """Add pictures.

        Args:
            scores: in 0–1, float32 [n, tags].
            labels: bool [n, tags], or the pairs that are true: (picture within this batch, tag), two int arrays.

        Raises:
            InputError: a score is not a number between 0 and 1.
        """
        assert scores.ndim == 2 and scores.shape[1] == self.tags, (scores.shape, self.tags)
        check_scores(scores)
        pictures, tags = pairs(labels, scores.shape)
        for start in range(0, len(scores), len(self._buffer)):
            end = min(start + len(self._buffer), len(scores))
            inside = slice(*np.searchsorted(pictures, [start, end]))
            self._add(self.grid.place(scores[start:end]), pictures[inside] - start, tags[inside])

    def merge(self, other: ScoreHistogram) -> None:
        """Add what another process counted: the sum is exact, in any order."""
        assert (self.tags, self.bins) == (other.tags, other.bins)
        self._flush()
        other._flush()
        self._hold(self.pictures + other.pictures)
        self._all += other._all.astype(self._all.dtype)
        self._positive += other._positive.astype(self._positive.dtype)
        self.pictures += other.pictures

    def only(self, tags: Sequence[int] | NDArray[np.int64]) -> Self:
        """A copy for some tags, in the order given."""
        self._flush()
        rows = np.asarray(tags, dtype=np.int64)
        made = type(self)(len(rows), bins=self.bins)
        made._all, made._positive, made.pictures = self._all[rows], self._positive[rows], self.pictures
        return made

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Plain int64 arrays that processes add up: `all` and `positive` [tags, width], `pictures` [1]."""
        self._flush()
        return {
            "all": self._all.astype(np.int64),
            "positive": self._positive.astype(np.int64),
            "pictures": np.array([self.pictures], dtype=np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.int64]], *, bins: int = 1000) -> Self:
        """A histogram from what `state` gave, or from the sum of several."""
        made = cls(len(state["all"]), bins=bins)
        assert state["all"].shape == made._all.shape, (state["all"].shape, made._all.shape)
        made.pictures = int(state["pictures"][0])
        made._hold(made.pictures)
        made._all[...] = state["all"]
        made._positive[...] = state["positive"]
        return made

    @property
    def positives(self) -> NDArray[np.int64]:
        """How many pictures carry each tag, int64 [tags]."""
        self._flush()
        return np.asarray(self._positive.sum(axis=1, dtype=np.int64))

    def counts(self, thresholds: float | NDArray[np.float32] | Floats) -> Counts:
        """What is right and wrong where `score >= threshold`.

        Thresholds are rounded up to the grid of 1 / bins; at an infinite one nothing is predicted.
        """
        wanted = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (self.tags,))
        first = self.grid.begins_at(wanted)
        tp, predicted = np.empty(self.tags, np.int64), np.empty(self.tags, np.int64)
        for rows, all_, positive in self.blocks():
            above = np.arange(self.grid.width)[None, :] >= first[rows, None]
            tp[rows] = (positive * above).sum(axis=1)
            predicted[rows] = (all_ * above).sum(axis=1)
        return Counts(tp, predicted - tp, self.positives - tp)

    def curve(self, tags: list[int] | NDArray[np.int64] | None = None) -> Counts:
        """Pooled counts of these tags at every threshold, int64 [bins + 1]; entry k is the threshold k / bins."""
        self._flush()
        rows = slice(None) if tags is None else np.asarray(tags, dtype=np.int64)
        all_, positive = (table[rows].sum(axis=0, dtype=np.int64)[None] for table in (self._all, self._positive))
        pooled = self._at_every_threshold(all_, positive)
        return Counts(pooled.tp[0], pooled.fp[0], pooled.fn[0])

    def tag_curve(self, tag: int) -> Counts:
        """One tag's counts at every threshold of the grid, int64 [bins + 1]."""
        return self.curve([tag])

    def tag_curves(self) -> Iterator[tuple[slice, Counts]]:
        """Some tags at a time: their rows, and their counts at every threshold, int64 [those tags, bins + 1]."""
        for rows, all_, positive in self.blocks():
            yield rows, self._at_every_threshold(all_, positive)

    def average_precision(self) -> Floats:
        """AP per tag, NaN without positives: the sum of precision times gained recall, from the highest bin down.

        As scikit-learn's `average_precision_score`, not interpolated.
        """
        found = np.full(self.tags, np.nan)
        for rows, all_, positive in self.blocks():
            predicted = np.cumsum(all_[:, ::-1], axis=1)
            gained = positive[:, ::-1]
            precision = np.cumsum(gained, axis=1) / np.maximum(predicted, 1)
            total = gained.sum(axis=1)
            found[rows] = ratio((precision * gained).sum(axis=1), total, total)
        return found

    def mean_average_precision(self, *, minimum_positives: int = 1) -> float:
        """mAP: the mean of AP over the tags with at least so many positives."""
        return mean_over(self.average_precision(), self.positives >= max(minimum_positives, 1))

    def roc_auc(self) -> Floats:
        """Per tag, the chance that a picture with it scores above one without, ties counting half; NaN without both.

        Source: the Mann–Whitney statistic, Hanley and McNeil 1982.
        """
        found = np.full(self.tags, np.nan)
        for rows, all_, positive in self.blocks():
            negative = all_ - positive
            below = np.cumsum(negative, axis=1) - negative / 2
            pairs_ = positive.sum(axis=1) * negative.sum(axis=1)
            won = (positive * below).sum(axis=1)
            found[rows] = np.where(pairs_ > 0, won / np.maximum(pairs_, 1), np.nan)
        return found

    def at_or_above(self, tags: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many scores of each tag lie in its bin or higher, int64, for pairs of a tag and a bin."""
        self._flush()
        rows, which = np.unique(tags, return_inverse=True)
        above = np.cumsum(self._all[rows, ::-1], axis=1, dtype=np.int64)[:, ::-1]
        found: NDArray[np.int64] = above[which, bins]
        return found

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
        """Some tags at a time: their rows, and counts of all pictures and of its own, int64 [some, width]."""
        self._flush()
        for start in range(0, self.tags, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, self.tags))
            yield rows, self._all[rows].astype(np.int64), self._positive[rows].astype(np.int64)

    def _add(self, bins: NDArray[np.uint16], pictures: NDArray[np.int64], tags: NDArray[np.int64]) -> None:
        if self._buffered + len(bins) > len(self._buffer):
            self._flush()
        self._buffer[self._buffered : self._buffered + len(bins)] = bins
        self._buffered += len(bins)
        self._hits.append((tags, bins[pictures, tags]))
        self.pictures += len(bins)

    def _flush(self) -> None:
        if not self._buffered:
            return
        self._hold(self.pictures)
        width = self.grid.width
        for start in range(0, self.tags, _TAGS_AT_ONCE):
            keys = self._buffer[: self._buffered, start : start + _TAGS_AT_ONCE].astype(np.int64)
            some = keys.shape[1]
            keys += np.arange(some) * width
            counted = np.bincount(keys.ravel(), minlength=some * width).reshape(some, width)
            self._all[start : start + some] += counted.astype(self._all.dtype)
        tags, bins = (np.concatenate(part) for part in zip(*self._hits, strict=True))
        where, times = np.unique(tags * width + bins, return_counts=True)
        self._positive.reshape(-1)[where] += times.astype(self._positive.dtype)
        self._hits.clear()
        self._buffered = 0

    def _hold(self, pictures: int) -> None:
        """Widen the tables where so many pictures might not fit."""
        kind = np.dtype(np.uint16 if pictures < 1 << 16 else np.uint32 if pictures < 1 << 32 else np.uint64)
        if kind.itemsize > self._all.dtype.itemsize:
            self._all, self._positive = self._all.astype(kind), self._positive.astype(kind)

    def _at_every_threshold(self, all_: NDArray[np.int64], positive: NDArray[np.int64]) -> Counts:
        first = self.grid.first
        predicted = np.cumsum(all_[:, ::-1], axis=1)[:, ::-1][:, first]
        tp = np.cumsum(positive[:, ::-1], axis=1)[:, ::-1][:, first]
        return Counts(tp, predicted - tp, tp[:, :1] - tp)


def check_scores(scores: NDArray[np.float32]) -> None:
    """Raises InputError where a score is not a number between 0 and 1."""
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        at = int((~((scores >= 0) & (scores <= 1))).any(axis=0).argmax())
        raise InputError(
            f"The scores of output {at} are not all between 0 and 1: the model gives logits, or it is broken."
        )


def mean_over(values: Floats, kept: NDArray[np.bool_]) -> float:
    """The mean of the kept tags that have a value; NaN where there are none."""
    some = values[kept & ~np.isnan(values)]
    return float(some.mean()) if len(some) else float("nan")
