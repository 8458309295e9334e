"""Whether what is scored highest is true: hit and precision among the first k tags of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.labels import Labels, pairs

__all__ = ["TopK", "TopScore"]

_ROWS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class TopScore:
    """Over the pictures with labels: how many have a true tag among the first k, and what share of those k is true."""

    k: int
    hit: float
    precision: float
    pictures: int


class TopK:
    """Counts of pictures; sums over processes are exact."""

    def __init__(self, tags: int, *, ks: Sequence[int] = (1, 3, 5, 10)) -> None:
        self.ks = tuple(sorted({min(k, tags) for k in ks}))
        self.pictures = 0
        self._hits = np.zeros(len(self.ks), dtype=np.int64)
        self._true = np.zeros(len(self.ks), dtype=np.int64)

    def update(self, scores: NDArray[np.float32], labels: Labels) -> None:
        """Add pictures; those without labels are left out. Of equal scores the earlier tag goes first."""
        pictures, tags = pairs(labels, scores.shape)
        for start in range(0, len(scores), _ROWS_AT_ONCE):
            some = scores[start : start + _ROWS_AT_ONCE]
            inside = slice(*np.searchsorted(pictures, [start, start + len(some)]))
            self._add(some, pictures[inside] - start, tags[inside])

    def merge(self, other: TopK) -> None:
        """Add what another process counted."""
        assert self.ks == other.ks
        self.pictures += other.pictures
        self._hits += other._hits
        self._true += other._true

    def scores(self) -> list[TopScore]:
        """One a k; NaN without pictures."""
        total = self.pictures or float("nan")
        return [
            TopScore(k, int(hits) / total, int(true) / (k * total), self.pictures)
            for k, hits, true in zip(self.ks, self._hits, self._true, strict=True)
        ]

    def _add(self, scores: NDArray[np.float32], pictures: NDArray[np.int64], tags: NDArray[np.int64]) -> None:
        first = _first(scores, self.ks[-1])
        truth = np.zeros(scores.shape, dtype=np.bool_)
        truth[pictures, tags] = True
        labelled = np.flatnonzero(truth.any(axis=1))
        right = np.cumsum(np.take_along_axis(truth[labelled], first[labelled], axis=1), axis=1)
        columns = right[:, [k - 1 for k in self.ks]]
        self.pictures += len(labelled)
        self._hits += (columns > 0).sum(axis=0)
        self._true += columns.sum(axis=0)


def _first(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best outputs of each row, best first."""
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < scores.shape[1] else np.argsort(-scores, axis=1)
    found = np.sort(found, axis=1)
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    best: NDArray[np.int64] = np.take_along_axis(found, order, axis=1)
    return best
