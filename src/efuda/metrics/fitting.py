"""Fit what turns scores into probabilities, and choose by held-out likelihood, tag by tag.

    fitted = fit_calibration(vocabulary.names, categories, folds)       # histograms of disjoint pictures
    fitted.calibration.apply(scores), fitted.held_out["calibrated"]

Per tag: temperature (Guo et al. 2017), Platt scaling (Platt 1999), isotonic regression (Zadrozny and Elkan 2002, pool
adjacent violators), or nothing. Each is fitted on all folds but one and judged on that one; the sum of those
likelihoods decides. A tag's curve and its category's, which is fitted the same way on the pooled scores, are averaged
on the logit scale, the tag's weighing positives / (positives + shrink): a rare tag leans on its category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.metrics.calibration import KNOTS, METHODS, Calibration, logit, sigmoid
from efuda.metrics.counts import Floats
from efuda.metrics.histogram import ScoreHistogram

__all__ = ["FittedCalibration", "fit_calibration"]

_GROUP: Final = 0.125  # logits; scores closer than that count as their mean
_RIDGE: Final = 1.0  # pulls towards the score itself, as one picture would
_STEPS: Final = 25
_TAGS_AT_ONCE: Final = 256
_ISOTONIC_FROM: Final = 30  # positives below which its steps are only noise


@dataclass(frozen=True)
class FittedCalibration:
    """The curves, and mean log loss a score on pictures they were not fitted on: "raw" and "calibrated", in nats."""

    calibration: Calibration
    held_out: Mapping[str, float]


@dataclass(frozen=True)
class _Sums:
    """Scores in groups: mean logit `x` [groups]; with and without the tag, float64 [rows, groups]."""

    x: Floats
    there: Floats
    absent: Floats

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.x, self.there - other.there, self.absent - other.absent)

    def only(self, rows: slice | NDArray[np.int64]) -> _Sums:
        return _Sums(self.x, self.there[rows], self.absent[rows])


def fit_calibration(
    names: Sequence[str], categories: Sequence[int], folds: Sequence[ScoreHistogram], *, shrink: float = 10.0
) -> FittedCalibration:
    """Fit on all folds together; choose by what each fold says of curves fitted on the others.

    Args:
        names, categories: of the tags, in output order.
        folds: two or more histograms, of disjoint pictures.
        shrink: positives at which a tag's own curve and its category's weigh the same.
    """
    assert len(folds) >= 2, "one fold cannot judge itself"
    kinds = np.unique(np.asarray(categories))
    member = np.searchsorted(kinds, np.asarray(categories))
    parts = [_sums(fold) for fold in folds]
    whole = _Sums(parts[0].x, sum((p.there for p in parts), np.zeros(1)), sum((p.absent for p in parts), np.zeros(1)))
    pooled = [_pool(part, member, len(kinds)) for part in parts]
    general = _choose(_pool(whole, member, len(kinds)), pooled, None, np.inf)
    chosen, curves = np.zeros(len(names), np.uint8), np.empty((len(names), len(KNOTS)), np.float32)
    lost = {"raw": 0.0, "calibrated": 0.0}
    for start in range(0, len(names), _TAGS_AT_ONCE):
        rows = slice(start, min(start + _TAGS_AT_ONCE, len(names)))
        kind = member[rows]
        behind = _Choice(general.method[kind], general.curves[kind], general.by_fold[:, kind])
        own = _choose(whole.only(rows), [part.only(rows) for part in parts], behind, shrink)
        chosen[rows], curves[rows] = own.method, own.curves
        lost["raw"] += own.raw
        lost["calibrated"] += own.lost
    scores = max(sum(fold.pictures for fold in folds) * len(names), 1)
    calibration = Calibration(tuple(names), chosen, KNOTS.astype(np.float32), curves)
    return FittedCalibration(calibration, {name: value / scores for name, value in lost.items()})


@dataclass(frozen=True)
class _Choice:
    """Method [rows]; curves [rows, knots], fitted on everything; by_fold [folds, rows, knots], without each fold."""

    method: NDArray[np.uint8]
    curves: Floats
    by_fold: Floats
    raw: float = 0.0
    lost: float = 0.0


def _choose(whole: _Sums, parts: Sequence[_Sums], behind: _Choice | None, shrink: float) -> _Choice:
    """The best method of each row by held-out likelihood; `behind` are the curves that rows lean on."""
    curves, by_fold, losses = [], [], []
    for method in METHODS:
        fitted = _leaned(_fit(method, whole), whole, behind.curves if behind else None, shrink, method)
        held = []
        loss = np.zeros(len(whole.there))
        for fold, part in enumerate(parts):
            rest = whole - part
            curve = _leaned(_fit(method, rest), rest, behind.by_fold[fold] if behind else None, shrink, method)
            held.append(curve)
            loss += _loss(curve, part)
        curves.append(fitted)
        by_fold.append(np.stack(held))
        losses.append(loss)
    lost = np.stack(losses)
    if behind is not None:
        few = whole.there.sum(axis=1) < _ISOTONIC_FROM
        lost[METHODS.index("isotonic"), few] = np.inf
    best = lost.argmin(axis=0)
    rows = np.arange(len(best))
    return _Choice(
        best.astype(np.uint8),
        np.stack(curves)[best, rows],
        np.stack(by_fold)[best, :, rows].swapaxes(0, 1),
        float(lost[0].sum()),
        float(lost[best, rows].sum()),
    )


def _leaned(own: Floats, sums: _Sums, behind: Floats | None, shrink: float, method: str) -> Floats:
    if behind is None or method == "none":
        return own
    positives = sums.there.sum(axis=1, keepdims=True)
    weight = positives / np.maximum(positives + shrink, 1e-9)
    return np.asarray(weight * own + (1 - weight) * behind)


def _fit(method: str, sums: _Sums) -> Floats:
    """Curves at the knots, float64 [rows, knots]."""
    if method == "isotonic":
        return np.stack([_isotonic(sums.x, *row) for row in zip(sums.there, sums.absent, strict=True)])
    slope, offset = np.ones(len(sums.there)), np.zeros(len(sums.there))
    if method != "none":
        slope, offset = _line(sums, with_offset=method == "platt")
    return np.asarray(slope[:, None] * KNOTS + offset[:, None])


def _line(sums: _Sums, *, with_offset: bool) -> tuple[Floats, Floats]:
    """Slope and offset of logistic regression on the logit, by Newton's steps, all rows at once."""
    x, total = sums.x, sums.there + sums.absent
    slope, offset = np.ones(len(total)), np.zeros(len(total))
    for _ in range(_STEPS):
        said = sigmoid(slope[:, None] * x + offset[:, None])
        gap, weight = said * total - sums.there, said * (1 - said) * total
        down_slope = gap @ x + _RIDGE * (slope - 1)
        bend_slope = weight @ (x * x) + _RIDGE
        if with_offset:
            down, bend, cross = gap.sum(axis=1) + _RIDGE * offset, weight.sum(axis=1) + _RIDGE, weight @ x
            area = np.maximum(bend_slope * bend - cross * cross, 1e-9)
            step = (bend * down_slope - cross * down) / area
            move = (bend_slope * down - cross * down_slope) / area
            offset = (offset - move.clip(-2, 2)).clip(-20, 20)
        else:
            step = down_slope / bend_slope
        slope = (slope - step.clip(-0.5, 0.5)).clip(0.05, 20)
    return slope, offset


def _isotonic(x: Floats, there: Floats, absent: Floats) -> Floats:
    """The pooled steps, each softened by one picture that agrees with the score, joined by lines, at the knots."""
    blocks: list[tuple[float, float, float]] = []  # positives, pictures, sum of x
    for place in np.flatnonzero(there + absent):
        count = there[place] + absent[place]
        block = (float(there[place]), float(count), float(x[place] * count))
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            block = (block[0] + blocks[-1][0], block[1] + blocks[-1][1], block[2] + blocks.pop()[2])
        blocks.append(block)
    if not blocks:
        return KNOTS.copy()
    positives, count, total = np.array(blocks).T
    middle = total / count
    share = (positives + sigmoid(middle)) / (count + 1)
    heights = np.maximum.accumulate(np.log(share) - np.log1p(-share))
    inside = np.interp(KNOTS, middle, heights)
    return np.asarray(inside + np.minimum(KNOTS - middle[0], 0) + np.maximum(KNOTS - middle[-1], 0))


def _loss(curves: Floats, sums: _Sums) -> Floats:
    """Negative log likelihood in nats, float64 [rows]."""
    step = KNOTS[1] - KNOTS[0]
    places = (sums.x - KNOTS[0]) / step
    left = places.astype(np.int64).clip(0, len(KNOTS) - 2)
    part = places - left
    logits = curves[:, left] * (1 - part) + curves[:, left + 1] * part
    return np.asarray(
        (sums.there * np.logaddexp(0, -logits)).sum(axis=1) + (sums.absent * np.logaddexp(0, logits)).sum(axis=1)
    )


def _sums(histogram: ScoreHistogram) -> _Sums:
    x = logit(histogram.grid.centres)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(np.floor(x / _GROUP)) != 0]))
    there = np.empty((histogram.tags, len(starts)))
    absent = np.empty((histogram.tags, len(starts)))
    for rows, all_, positive in histogram.blocks():
        there[rows] = np.add.reduceat(positive, starts, axis=1)
        absent[rows] = np.add.reduceat(all_ - positive, starts, axis=1)
    sizes = np.diff(np.append(starts, len(x)))
    return _Sums(np.add.reduceat(x, starts) / sizes, there, absent)


def _pool(sums: _Sums, member: NDArray[np.int64], kinds: int) -> _Sums:
    one_hot = (member[None, :] == np.arange(kinds)[:, None]).astype(np.float64)
    return _Sums(sums.x, one_hot @ sums.there, one_hot @ sums.absent)
