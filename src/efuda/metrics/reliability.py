"""Whether a score of 0.7 means seven in ten: reliability table, calibration error, log loss, from a histogram.

Scores of one fine bin count as its centre, which moves a mean score by 0.0005 at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.counts import Floats
from efuda.metrics.histogram import ScoreHistogram

__all__ = ["Reliability", "calibration_errors", "log_losses", "reliability"]

GROUPS: Final = 20


@dataclass(frozen=True)
class Reliability:
    """Scores in groups of equal width, from 0 up.

    Attributes:
        edges: float64 [groups + 1].
        count: int64 [groups], scores in each.
        score, observed: float64 [groups], the mean score, and the share that was true; NaN where there are none.
    """

    edges: Floats
    count: NDArray[np.int64]
    score: Floats
    observed: Floats

    @property
    def error(self) -> float:
        """ECE: the mean of |score − observed| over groups, weighted by their count (Guo et al. 2017)."""
        total = self.count.sum()
        gap = np.abs(np.nan_to_num(self.score) - np.nan_to_num(self.observed))
        return float((gap * self.count).sum() / total) if total else float("nan")


def reliability(
    histogram: ScoreHistogram, tags: list[int] | NDArray[np.int64] | None = None, *, groups: int = GROUPS
) -> Reliability:
    """The table of some tags pooled; all by default. `groups` divides the histogram's bins evenly."""
    wanted = np.ones(histogram.tags, dtype=np.bool_)
    if tags is not None:
        wanted[:] = False
        wanted[np.asarray(tags, dtype=np.int64)] = True
    count, score, observed = np.zeros(groups), np.zeros(groups), np.zeros(groups)
    for rows, all_, positive in histogram.blocks():
        some = wanted[rows]
        parts = _grouped(histogram, all_[some].sum(axis=0)[None], positive[some].sum(axis=0)[None], groups)
        for total, part in zip((count, score, observed), parts, strict=True):
            total += part[0]
    with np.errstate(invalid="ignore"):
        return Reliability(np.linspace(0, 1, groups + 1), count.astype(np.int64), score / count, observed / count)


def calibration_errors(histogram: ScoreHistogram, *, groups: int = GROUPS) -> Floats:
    """ECE per tag, float64 [tags]; NaN without positives."""
    found = np.full(histogram.tags, np.nan)
    for rows, all_, positive in histogram.blocks():
        count, score, observed = _grouped(histogram, all_, positive, groups)
        error = np.abs(score - observed).sum(axis=1) / np.maximum(count.sum(axis=1), 1)
        found[rows] = np.where(positive.sum(axis=1) > 0, error, np.nan)
    return found


def log_losses(histogram: ScoreHistogram) -> Floats:
    """Binary cross-entropy per tag in nats, averaged over pictures, float64 [tags]; NaN without pictures.

    Scores count as the centres of their bins, the first 2⁻²¹ and the last 1 − 2⁻¹⁷: within 0.2 % of the exact mean.
    """
    if not histogram.pictures:
        return np.full(histogram.tags, np.nan)
    centres = histogram.grid.centres
    there, absent = -np.log(centres), -np.log1p(-centres)
    found = np.empty(histogram.tags)
    for rows, all_, positive in histogram.blocks():
        found[rows] = (positive @ there + (all_ - positive) @ absent) / histogram.pictures
    return found


def _grouped(
    histogram: ScoreHistogram, all_: NDArray[np.int64], positive: NDArray[np.int64], groups: int
) -> tuple[Floats, Floats, Floats]:
    """Count, sum of scores and positives, float64 [tags, groups]."""
    assert histogram.bins % groups == 0, f"{groups} groups do not divide {histogram.bins} bins"
    starts = histogram.grid.first[: histogram.bins : histogram.bins // groups]
    weighted = all_ * histogram.grid.centres
    count, score, observed = (np.add.reduceat(part, starts, axis=1) for part in (all_, weighted, positive))
    return count.astype(np.float64), score, observed.astype(np.float64)
