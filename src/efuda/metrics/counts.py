"""What was said against what is true: counts per tag, and precision, recall and F1 from them.

Precision tp/(tp+fp), recall tp/(tp+fn), F1 2tp/(2tp+fp+fn). Micro pools the counts of all tags; macro is the mean over
tags. A tag without positives has no recall and no F1: it is left out of every mean and counted, never scored 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "Score", "decades", "ratio"]

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
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, self.positives)

    def precision(self) -> Floats:
        """Per tag; 0 where nothing was predicted, NaN without positives."""
        return ratio(self.tp, self.tp + self.fp, self.positives)

    def recall(self) -> Floats:
        """Per tag; NaN without positives."""
        return ratio(self.tp, self.positives, self.positives)

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

    def only(self, tags: Sequence[int] | NDArray[np.int64]) -> Counts:
        """The counts of some tags, for example of one category."""
        rows = np.asarray(tags, dtype=np.int64)
        return Counts(self.tp[rows], self.fp[rows], self.fn[rows])


def decades(frequencies: Sequence[int] | NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Tags by the power of ten of their frequency, the commonest first: "1,000–9,999" → rows, int64."""
    counts = np.asarray(frequencies, dtype=np.int64)
    powers = np.floor(np.log10(np.maximum(counts, 1)) + 1e-12).astype(np.int64)
    groups = {}
    for power in sorted({*powers[counts > 0].tolist()}, reverse=True):
        groups[f"{10**power:,}–{10 ** (power + 1) - 1:,}"] = np.flatnonzero((powers == power) & (counts > 0))
    if (counts <= 0).any():
        groups["0"] = np.flatnonzero(counts <= 0)
    return groups


def ratio(part: NDArray[np.int64] | Floats, whole: NDArray[np.int64], positives: NDArray[np.int64]) -> Floats:
    """part / whole per tag, 0 where whole is 0, NaN where there are no positives."""
    values = np.divide(part, whole, out=np.zeros(len(part), dtype=np.float64), where=whole > 0)
    return np.where(positives > 0, values, np.nan)
