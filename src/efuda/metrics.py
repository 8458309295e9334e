"""Streaming multi-label measurements: scores and labels go in by the batch, precision, recall, F1 and AP come out.

Memory is `tags × bins`, whatever the number of pictures. A score falls in the bin whose edges enclose it, so
everything at a threshold on the grid of `1 / bins` is exact; average precision sees scores rounded down to that grid.

    histogram = ScoreHistogram(tags=len(vocabulary))
    histogram.update(scores, labels)                      # float32 [n, tags], bool [n, tags]
    counts = histogram.counts(0.5)                        # or one threshold a tag
    counts.micro().f1, counts.macro().f1, histogram.mean_average_precision()

Formulas: precision tp/(tp+fp), recall tp/(tp+fn), F1 2tp/(2tp+fp+fn). Micro pools the counts of all tags; macro is
the mean over tags. A tag without positives has no recall and no F1: it is left out of every mean and counted, never
scored 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "Score", "ScoreHistogram"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 over `tags` tags."""

    precision: float
    recall: float
    f1: float
    tags: int


@dataclass(frozen=True)
class Counts:
    """Per tag, int64 [tags]: predicted and there (tp), predicted and not there (fp), there and not predicted (fn)."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]

    @property
    def positives(self) -> NDArray[np.int64]:
        """How many pictures carry each tag."""
        return self.tp + self.fn

    def f1(self) -> Floats:
        """Per tag; NaN without positives."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, self.positives)

    def precision(self) -> Floats:
        """Per tag; 0 where nothing was predicted, NaN without positives."""
        return _ratio(self.tp, self.tp + self.fp, self.positives)

    def recall(self) -> Floats:
        """Per tag; NaN without positives."""
        return _ratio(self.tp, self.positives, self.positives)

    def micro(self) -> Score:
        """Over the pooled counts of all tags, those without positives included: their false positives count."""
        tp, fp, fn = (int(part.sum()) for part in (self.tp, self.fp, self.fn))
        return Score(
            tp / (tp + fp) if tp + fp else 0.0,
            tp / (tp + fn) if tp + fn else 0.0,
            2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
            len(self.tp),
        )

    def macro(self, *, minimum_positives: int = 1) -> Score:
        """Mean over the tags with at least so many positives; NaN where there are none."""
        kept = self.positives >= max(minimum_positives, 1)
        if not kept.any():
            return Score(float("nan"), float("nan"), float("nan"), 0)
        precision, recall, f1 = (
            float(per_tag[kept].mean()) for per_tag in (self.precision(), self.recall(), self.f1())
        )
        return Score(precision, recall, f1, int(kept.sum()))

    def only(self, tags: list[int]) -> Counts:
        """The counts of some tags, for example of one category."""
        return Counts(self.tp[tags], self.fp[tags], self.fn[tags])


class ScoreHistogram:
    """How many scores fell in each bin, per tag, for all pictures and for those that carry the tag."""

    def __init__(self, tags: int, *, bins: int = 1000) -> None:
        self.tags, self.bins, self.pictures = tags, bins, 0
        width = bins + 1  # the last bin is for scores of exactly 1
        self._all = np.zeros((tags, width), dtype=np.int64)
        self._positive = np.zeros((tags, width), dtype=np.int64)
        self._edges = np.append(np.arange(1, width, dtype=np.float64) / bins, np.inf).astype(np.float32)
        self._offsets = np.arange(tags, dtype=np.int64) * width
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def update(self, scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
        """Add pictures: scores in 0–1, float32 [n, tags], and their labels, bool [n, tags]."""
        assert scores.shape == labels.shape == (len(scores), self.tags), (scores.shape, labels.shape, self.tags)
        bins = np.minimum((scores.astype(np.float32) * np.float32(self.bins)).astype(np.int64), self.bins)
        # The product is rounded; compare with the edges themselves, so that `score >= threshold` is meant to the bit.
        bins += scores >= self._edges[bins]
        bins -= (bins > 0) & (scores < self._edges[bins - 1])
        keys = bins + self._offsets
        self._waiting.append((keys.ravel(), keys[labels]))
        self.pictures += len(scores)
        if sum(len(one) for one, _ in self._waiting) > self._all.size:
            self._flush()

    def counts(self, thresholds: float | NDArray[np.float32] | Floats) -> Counts:
        """What is right and wrong where `score >= threshold`; thresholds are rounded up to the grid of 1 / bins."""
        self._flush()
        wanted = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (self.tags,))
        first = np.clip(np.ceil(np.round(wanted * self.bins, 3)).astype(np.int64), 0, self.bins)[:, None]
        above = np.arange(self.bins + 1)[None, :] >= first
        tp = (self._positive * above).sum(axis=1)
        predicted = (self._all * above).sum(axis=1)
        return Counts(tp, predicted - tp, self._positive.sum(axis=1) - tp)

    def curve(self, tags: list[int] | None = None) -> Counts:
        """Pooled counts of these tags at every threshold, int64 [bins + 1]; entry k is the threshold k / bins."""
        self._flush()
        rows = slice(None) if tags is None else tags
        return _at_every_threshold(self._all[rows].sum(axis=0)[None], self._positive[rows].sum(axis=0)[None], 0)

    def tag_curve(self, tag: int) -> Counts:
        """One tag's counts at every threshold of the grid, int64 [bins + 1]."""
        self._flush()
        return _at_every_threshold(self._all, self._positive, tag)

    def average_precision(self) -> Floats:
        """AP per tag, NaN without positives: the sum of precision times gained recall, from the highest bin down."""
        self._flush()
        predicted = np.cumsum(self._all[:, ::-1], axis=1)
        positive = self._positive[:, ::-1]
        precision = np.cumsum(positive, axis=1) / np.maximum(predicted, 1)
        total = positive.sum(axis=1)
        return _ratio((precision * positive).sum(axis=1), total, total)

    def mean_average_precision(self, *, minimum_positives: int = 1) -> float:
        """mAP: the mean of AP over the tags with at least so many positives."""
        self._flush()
        kept = self._positive.sum(axis=1) >= max(minimum_positives, 1)
        return float(self.average_precision()[kept].mean()) if kept.any() else float("nan")

    def _flush(self) -> None:
        if self._waiting:
            for table, part in ((self._all, 0), (self._positive, 1)):
                keys = np.concatenate([pair[part] for pair in self._waiting])
                table += np.bincount(keys, minlength=table.size).reshape(table.shape)
            self._waiting.clear()


def _at_every_threshold(all_: NDArray[np.int64], positive: NDArray[np.int64], row: int) -> Counts:
    predicted = np.cumsum(all_[row, ::-1])[::-1]
    tp = np.cumsum(positive[row, ::-1])[::-1]
    return Counts(tp, predicted - tp, tp[0] - tp)


def _ratio(part: NDArray[np.int64] | Floats, whole: NDArray[np.int64], positives: NDArray[np.int64]) -> Floats:
    values = np.divide(part, whole, out=np.zeros(len(part), dtype=np.float64), where=whole > 0)
    return np.where(positives > 0, values, np.nan)
