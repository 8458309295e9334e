"""What was said of each picture, right and wrong, kept sparse: for measures by picture and for resampling pictures.

    decisions = Decisions(tags)
    decisions.update(scores >= thresholds, labels)      # bool [n, tags], and labels as everywhere
    decisions.counts().micro().f1, decisions.by_picture().mean().f1

Unlike a histogram's, these counts are exact at any threshold, and at decisions that follow from no threshold at all.
Memory is 8 bytes for each tag that was said or true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.counts import Counts
from efuda.metrics.labels import Labels, pairs

__all__ = ["Decisions", "PictureCounts", "PictureScore", "maximum_cut"]

Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class PictureScore:
    """Example-based precision, recall and F1: means over `pictures` with labels; `without_labels` are left out."""

    precision: float
    recall: float
    f1: float
    pictures: int
    without_labels: int


@dataclass(frozen=True)
class PictureCounts:
    """Per picture, int64 [pictures]: tags said and true (tp), said and not true (fp), true and not said (fn)."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]

    def mean(self) -> PictureScore:
        """Means over the pictures with labels; a picture of which nothing was said has precision 0.

        As scikit-learn's `average="samples"` with `zero_division=0`, but for the pictures left out (Godbole and
        Sarawagi 2004).
        """
        kept = self.tp + self.fn > 0
        tp, fp, fn = (part[kept].astype(np.float64) for part in (self.tp, self.fp, self.fn))
        if not kept.any():
            return PictureScore(float("nan"), float("nan"), float("nan"), 0, len(kept))
        precision = float((tp / np.maximum(tp + fp, 1)).mean())
        recall, f1 = float((tp / (tp + fn)).mean()), float((2 * tp / (2 * tp + fp + fn)).mean())
        return PictureScore(precision, recall, f1, int(kept.sum()), int((~kept).sum()))


class Decisions:
    """The (picture, tag) pairs that are right, wrong and missed."""

    def __init__(self, tags: int) -> None:
        self.tags, self.pictures = tags, 0
        self._kinds: tuple[list[Pairs], list[Pairs], list[Pairs]] = ([], [], [])

    def update(self, predicted: NDArray[np.bool_], labels: Labels) -> None:
        """Add pictures: what was said, bool [n, tags], and what is true."""
        assert predicted.ndim == 2 and predicted.shape[1] == self.tags, (predicted.shape, self.tags)
        pictures, tags = pairs(labels, predicted.shape)
        said = predicted[pictures, tags]
        wrong = predicted.copy()
        wrong[pictures, tags] = False
        for kept, (rows, columns) in zip(
            self._kinds,
            ((pictures[said], tags[said]), pairs(wrong, wrong.shape), (pictures[~said], tags[~said])),
            strict=True,
        ):
            kept.append(((rows + self.pictures).astype(np.int32), columns.astype(np.int32)))
        self.pictures += len(predicted)

    def merge(self, other: Decisions) -> None:
        """Add the pictures of another part after these."""
        assert self.tags == other.tags
        for mine, theirs in zip(self._kinds, other._kinds, strict=True):
            mine.extend((rows + np.int32(self.pictures), tags) for rows, tags in theirs)
        self.pictures += other.pictures

    def pairs(self) -> tuple[Pairs, Pairs, Pairs]:
        """(pictures, tags), int32, of what is right, wrong and missed."""
        right, wrong, missed = (_joined(kind) for kind in self._kinds)
        return right, wrong, missed

    def counts(self) -> Counts:
        """Per tag."""
        return Counts(*(np.bincount(tags, minlength=self.tags).astype(np.int64) for _, tags in self.pairs()))

    def by_picture(self) -> PictureCounts:
        """Per picture."""
        return PictureCounts(*(np.bincount(rows, minlength=self.pictures).astype(np.int64) for rows, _ in self.pairs()))


def maximum_cut(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """MCut: per picture, the middle of the widest gap between its sorted scores, float32 [n].

    What lies at or above it is said. Source: Largeron, Moulin and Géry 2012, "MCut: a thresholding strategy for
    multi-label classification". No parameter, nothing fitted.
    """
    if scores.shape[1] < 2:
        return np.zeros(len(scores), dtype=np.float32)
    ranked = np.sort(scores, axis=1)
    gaps = np.diff(ranked, axis=1)
    at = gaps.shape[1] - 1 - np.argmax(gaps[:, ::-1], axis=1)  # of equal gaps the highest
    rows = np.arange(len(scores))
    middle: NDArray[np.float32] = (ranked[rows, at] + ranked[rows, at + 1]) / 2
    return middle


def _joined(parts: list[Pairs]) -> Pairs:
    if not parts:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    if len(parts) > 1:
        parts[:] = [(np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts]))]
    return parts[0]
