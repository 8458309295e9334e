"""How sure a number is: percentile bootstrap over pictures, and paired differences of two systems on the same ones.

Pictures are drawn with replacement (Efron 1979; the percentile interval of Efron and Tibshirani 1993, chapter 13), as
counts: a replicate is a vector of how often each picture was drawn, the same for every system with the same seed, which
is what pairs them. Counts per tag are sums of those weights over the sparse pairs of `Decisions`; average precision is
recomputed from the head of each ranking (`Ranked`). Memory is pictures × `AT_ONCE`, never replicates × pictures × tags.

A tag that a replicate has drawn no positive of is left out of that replicate's macro means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.counts import Floats
from efuda.metrics.decisions import Decisions
from efuda.metrics.ranked import Ranked

__all__ = ["MEASURES", "Interval", "difference", "interval", "resample_counts", "resample_map"]

MEASURES: Final = ("micro_precision", "micro_recall", "micro_f1", "macro_precision", "macro_recall", "macro_f1")
AT_ONCE: Final = 16
_PAIRS_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Interval:
    """Where 95 % of the replicates lie."""

    low: float
    high: float


def interval(replicates: Floats, value: float | None = None, *, level: float = 0.95) -> Interval:
    """The percentiles of some replicates that lie in 0–1; NaN where there are none.

    Args:
        value: what was measured on the whole sample. The replicates are moved so that it is their mean: a picture that
            is drawn twice lifts average precision and F1 of rare tags, which would shift the interval upwards.
    """
    found = _percentiles(replicates, value, level)
    return Interval(*(float(np.clip(one, 0, 1)) for one in (found.low, found.high)))


def difference(one: Floats, other: Floats, value: float | None = None, *, level: float = 0.95) -> Interval:
    """The interval of `one − other`, replicate by replicate; both were resampled with one seed on the same pictures."""
    assert one.shape == other.shape
    return _percentiles(one - other, value, level)


def resample_counts(
    decisions: Decisions, *, replicates: int = 1000, seed: int = 0, minimum_positives: int = 1
) -> Mapping[str, Floats]:
    """Replicates, float64 [replicates], of micro and macro precision, recall and F1: one array a measure of MEASURES.

    Macro is over the tags with at least so many positives in the whole sample.
    """
    kept = decisions.counts().positives >= max(minimum_positives, 1)
    by_picture = decisions.by_picture()
    pooled = np.stack([by_picture.tp, by_picture.fp, by_picture.fn]).astype(np.float64)
    by_tag = [_by_tag(*pairs, decisions.tags) for pairs in decisions.pairs()]
    found: dict[str, list[Floats]] = {name: [] for name in MEASURES}
    for weights in draws(decisions.pictures, replicates, seed):
        tp, fp, fn = pooled @ weights
        _note(found, "micro", tp, fp, fn)
        tp, fp, fn = (_sums(weights, pictures, ends)[kept] for pictures, ends in by_tag)
        _note(found, "macro", tp, fp, fn)
    return {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in found.items()}


def resample_map(ranked: Ranked, *, replicates: int = 200, seed: int = 0, minimum_positives: int = 1) -> Floats:
    """Replicates of mAP, float64 [replicates]; the same seed draws the same pictures as in `resample_counts`."""
    kept = ranked.histogram.positives >= max(minimum_positives, 1)
    parts = [part for part in ranked.parts() if kept[part.tags].any()]
    found = []
    for weights in draws(ranked.pictures, replicates, seed):
        total, tags = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for part in parts:
            precision = part.average_precision(weights)[kept[part.tags]]
            total += np.nansum(precision, axis=0)
            tags += (~np.isnan(precision)).sum(axis=0)
        found.append(np.where(tags > 0, total / np.maximum(tags, 1), np.nan))
    return np.concatenate(found) if found else np.empty(0)


def draws(pictures: int, replicates: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """How often each picture was drawn, float32 [pictures, up to AT_ONCE], until there are enough replicates."""
    rng = np.random.default_rng(seed)
    for start in range(0, replicates if pictures else 0, AT_ONCE):
        weights = np.empty((pictures, min(AT_ONCE, replicates - start)), dtype=np.float32)
        for column in range(weights.shape[1]):
            weights[:, column] = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
        yield weights


def _percentiles(replicates: Floats, value: float | None, level: float) -> Interval:
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    moved = 0.0 if value is None else value - known.mean()
    return Interval(float(low + moved), float(high + moved))


def _note(found: Mapping[str, list[Floats]], kind: str, tp: Floats, fp: Floats, fn: Floats) -> None:
    """Micro: [replicates]. Macro: [tags, replicates], averaged over the tags that were drawn."""
    for name, part, whole in (
        ("precision", tp, tp + fp),
        ("recall", tp, tp + fn),
        ("f1", 2 * tp, 2 * tp + fp + fn),
    ):
        values = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
        if kind == "macro":
            drawn = tp + fn > 0
            tags = drawn.sum(axis=0)
            values = np.where(tags > 0, (values * drawn).sum(axis=0) / np.maximum(tags, 1), np.nan)
        found[f"{kind}_{name}"].append(values)


def _by_tag(
    pictures: NDArray[np.int32], tags: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pictures in the order of their tags, and where each tag's end, int64 [tags + 1]."""
    order = np.argsort(tags, kind="stable")
    return pictures[order], np.searchsorted(tags[order], np.arange(count + 1))


def _sums(weights: NDArray[np.float32], pictures: NDArray[np.int32], ends: NDArray[np.int64]) -> Floats:
    """The weights of each tag's pictures added up, float64 [tags, replicates]."""
    sums = np.zeros((len(ends) - 1, weights.shape[1]))
    some = np.flatnonzero(np.diff(ends))  # reduceat gives a value for an empty run too
    first = 0
    while first < len(some):
        begin = ends[some[first]]
        last = max(int(np.searchsorted(ends[some], begin + _PAIRS_AT_ONCE)), first + 1)
        rows = some[first:last]
        counted = weights[pictures[begin : ends[rows[-1] + 1]]]
        sums[rows] = np.add.reduceat(counted, ends[rows] - begin, axis=0, dtype=np.float64)
        first = last
    return sums
