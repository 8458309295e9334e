"""The bins that scores fall into: every multiple of 1 / bins is an edge, and both ends are divided further.

A rare tag's scores lie close to 0 and a sure one's close to 1, where steps of a thousandth would make ties of what is
well ranked. Below 0.064 there are further edges, 32 an octave down to 2⁻²⁰; above 0.936 the same, mirrored, down to
2⁻¹³ from 1. A score is placed by the upper bits of its float32: a table names the bin in which such a cell begins, and
one comparison with the next edge does the rest, so that `score >= edge` is meant to the bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAXIMUM_BINS", "Grid", "grid"]

MAXIMUM_BINS: Final = 4096
_SHIFT: Final = 11  # bits dropped: cells are 2⁻¹³ wide below 1, so none of them holds two edges
_CELL_BELOW_ONE: Final = 2.0**-13
_LOWEST: Final = 2.0**-20
_AN_OCTAVE: Final = 32
_FINER_WITHIN: Final = 64  # steps from either end
_CHUNK: Final = 1 << 16  # scores placed at a time: temporaries stay in the cache


class Grid:
    """Where scores in 0–1 are placed.

    Attributes:
        edges: float32 [width - 1], rising; a score in bin b has reached edges[b - 1] and not edges[b].
        centres: float64 [width], the score that stands for each bin.
        first: int64 [bins + 1], the bin that begins at the threshold k / bins.
        width: the number of bins, those beyond `bins` included.
    """

    def __init__(self, bins: int) -> None:
        assert 1 <= bins <= MAXIMUM_BINS, f"{bins} bins: between 1 and {MAXIMUM_BINS}"
        self.bins = bins
        steps = (np.arange(1, bins + 1, dtype=np.float64) / bins).astype(np.float32)
        self.edges = np.unique(np.concatenate([steps, _finer(min(_FINER_WITHIN / bins, 0.25))]))
        self.width = len(self.edges) + 1
        self.first = np.concatenate([[0], np.searchsorted(self.edges, steps) + 1]).astype(np.int64)
        self.centres = _centres(self.edges.astype(np.float64))
        cells = np.arange((np.float32(1).view(np.uint32) >> _SHIFT) + 1, dtype=np.uint32) << _SHIFT
        self._begins = np.searchsorted(self.edges, cells.view(np.float32), side="right").astype(np.uint16)
        self._next = np.append(self.edges, np.float32(np.inf))

    def place(self, scores: NDArray[np.float32]) -> NDArray[np.uint16]:
        """The bin of each score, uint16, in the same shape; scores lie in 0–1."""
        flat = np.ascontiguousarray(scores, dtype=np.float32).reshape(-1)
        placed = np.empty(flat.size, dtype=np.uint16)
        for start in range(0, flat.size, _CHUNK):
            part, out = flat[start : start + _CHUNK], placed[start : start + _CHUNK]
            cells = (part.view(np.uint32) << 1) >> (_SHIFT + 1)  # without the sign, which −0 has
            self._begins.take(cells, out=out, mode="clip")
            out += part >= self._next.take(out, mode="clip")
        return placed.reshape(scores.shape)

    def begins_at(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """The first bin at or above each threshold rounded up to the grid of 1 / bins; `width` for an infinite one."""
        never = ~np.isfinite(thresholds)
        steps = np.ceil(np.round(np.where(never, 0.0, thresholds) * self.bins, 3)).astype(np.int64)
        bins: NDArray[np.int64] = np.where(
            never | (steps > self.bins), self.width, self.first[steps.clip(0, self.bins)]
        )
        return bins


@lru_cache(maxsize=8)
def grid(bins: int) -> Grid:
    """One grid for all histograms of a size."""
    return Grid(bins)


def _finer(within: float) -> NDArray[np.float32]:
    octaves = int(np.ceil(np.log2(within / _LOWEST)))
    near_zero = _LOWEST * 2 ** (np.arange(octaves * _AN_OCTAVE) / _AN_OCTAVE)
    near_zero = near_zero[near_zero < within].astype(np.float32)
    near_zero = (near_zero.view(np.uint32) >> _SHIFT << _SHIFT).view(np.float32)
    cells = np.unique(np.round(near_zero[near_zero >= _CELL_BELOW_ONE / 2] / _CELL_BELOW_ONE))
    near_one = (1 - cells[cells > 0] * _CELL_BELOW_ONE).astype(np.float32)
    return np.concatenate([near_zero, near_one])


def _centres(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geometric means below a half, mirrored above it; scores below the lowest edge count as the lowest edge's half."""
    low = np.concatenate([[edges[0] / 4], edges])
    high = np.append(edges, 1.0)
    small = np.sqrt(low * high)
    large = 1 - np.sqrt(np.maximum(1 - low, 1e-12) * np.maximum(1 - high, _CELL_BELOW_ONE / 4))
    centres: NDArray[np.float64] = np.where(high <= 0.5, small, np.where(low >= 0.5, large, (low + high) / 2))
    centres[-1] = 1 - _CELL_BELOW_ONE / 16
    return centres
