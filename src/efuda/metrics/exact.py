"""Ranks without bins: average precision and ROC-AUC equal to scikit-learn's to 1e-9, from scores that are all kept.

Memory is 4 bytes a score, so it is for hundreds of tags or thousands of pictures; `ScoreHistogram` is for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.counts import Floats
from efuda.metrics.histogram import check_scores
from efuda.metrics.labels import Labels, pairs

__all__ = ["ExactScores"]

_TAGS_AT_ONCE: Final = 64


class ExactScores:
    """Every score of some pictures."""

    def __init__(self, tags: int) -> None:
        self.tags, self.pictures = tags, 0
        self._scores: list[NDArray[np.float32]] = []
        self._labels: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def update(self, scores: NDArray[np.float32], labels: Labels) -> None:
        """Add pictures, as for a histogram; `scores` is kept, not copied."""
        assert scores.ndim == 2 and scores.shape[1] == self.tags, (scores.shape, self.tags)
        check_scores(scores)
        pictures, tags = pairs(labels, scores.shape)
        self._scores.append(scores)
        self._labels.append((pictures + self.pictures, tags))
        self.pictures += len(scores)

    def average_precision(self) -> Floats:
        """AP per tag, float64 [tags]; NaN without positives."""

        def one(ranked: NDArray[np.float32], positives: NDArray[np.float32]) -> float:
            above = len(ranked) - np.searchsorted(ranked, positives)
            right = len(positives) - np.searchsorted(positives, positives)
            return float((right / above).mean())

        return self._each(one)

    def roc_auc(self) -> Floats:
        """ROC-AUC per tag, float64 [tags]; NaN where all pictures carry the tag, or none does."""

        def one(ranked: NDArray[np.float32], positives: NDArray[np.float32]) -> float:
            negatives = len(ranked) - len(positives)
            below, upto = (
                np.searchsorted(ranked, positives, side) - np.searchsorted(positives, positives, side)
                for side in ("left", "right")
            )
            return float((below + upto).mean() / (2 * negatives)) if negatives else float("nan")

        return self._each(one)

    def _each(self, measure: Callable[[NDArray[np.float32], NDArray[np.float32]], float]) -> Floats:
        """`measure` of each tag's sorted scores, and of those of its positives, sorted too."""
        found = np.full(self.tags, np.nan)
        if not self._labels:
            return found
        pictures, tags = (np.concatenate(part) for part in zip(*self._labels, strict=True))
        order = np.argsort(tags, kind="stable")
        ends = np.searchsorted(tags[order], np.arange(self.tags + 1))
        for start in range(0, self.tags, _TAGS_AT_ONCE):
            columns = np.concatenate([part[:, start : start + _TAGS_AT_ONCE] for part in self._scores]).T
            columns = np.ascontiguousarray(columns, dtype=np.float32)
            for tag, ranked in enumerate(columns, start):
                positives = np.sort(ranked[pictures[order[ends[tag] : ends[tag + 1]]]])
                if len(positives):
                    ranked.sort()
                    found[tag] = measure(ranked, positives)
        return found
