"""Threshold policies by name, fitted on a histogram of pictures that will not be judged.

| policy | threshold |
|---|---|
| `fixed`, `fixed=0.35` | that number for every tag, 0.5 by default; nothing fitted |
| `micro-f1` (also `global`) | one for all tags, for the best F1 of the pooled counts |
| `macro-f1` | one for all tags, for the best mean of the tags' F1 |
| `per-category` | one a category, for the best F1 of its pooled counts |
| `per-tag` | a tag's own best F1 and its category's, averaged on the logit scale by the tag's positives |
| `precision>=0.95` | a tag's lowest one that surely keeps that precision; none where it cannot: it is never predicted |
| `p=r` | one for all tags, where pooled precision and recall meet, as WD's models are measured |
| `mcut` | no threshold: per picture and category, the middle of the widest gap between the sorted scores |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.errors import UsageError
from efuda.metrics import Counts, ScoreHistogram, maximum_cut
from efuda.metrics.calibration import logit, sigmoid
from efuda.recipes import CalibrateRecipe
from efuda.vocabulary import Category, Vocabulary

__all__ = ["POLICIES", "Policy", "best_threshold", "fit_thresholds", "mcut", "wilson"]

Floats = NDArray[np.float64]
POLICIES: Final = ("fixed", "micro-f1", "macro-f1", "per-category", "per-tag", "precision>=0.95", "p=r", "mcut")
_MCUT_CHARACTER: Final = 0.15  # the floor that WD's demo has for characters


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy and its number: the threshold of `fixed`, the precision of `precision>=`."""

    name: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Raises UsageError naming the policies where `text` is none of them."""
        text = text.strip().replace(" ", "")
        if text == "global":
            return cls("micro-f1")
        if text in ("micro-f1", "macro-f1", "per-category", "per-tag", "p=r", "mcut"):
            return cls(text)
        if found := re.fullmatch(r"fixed(?:=(\d*\.?\d+))?", text):
            value = float(found[1] or 0.5)
        elif found := re.fullmatch(r"precision>=(\d*\.?\d+)", text):
            value = float(found[1])
        else:
            raise UsageError(f"No threshold policy {text!r}. There are: {', '.join(POLICIES)}.")
        if not 0 <= value <= 1:
            raise UsageError(f"The policy {text!r} needs a number from 0 to 1.")
        return cls(re.split("[>=]", text)[0], value)

    @property
    def fitted(self) -> bool:
        """Whether it needs pictures to be fitted on."""
        return self.name not in ("fixed", "mcut")

    def __str__(self) -> str:
        if self.value is None:
            return self.name
        return f"{self.name}{'>=' if self.name == 'precision' else '='}{self.value:g}"


def fit_thresholds(
    policy: Policy, histogram: ScoreHistogram, vocabulary: Vocabulary, recipe: CalibrateRecipe
) -> NDArray[np.float32]:
    """One threshold a tag, float32 [tags]; infinite where the tag cannot keep the precision asked for.

    Args:
        recipe: `shrink` for per-tag, `confidence` for precision>=.
    """
    if policy.name == "fixed":
        return np.full(len(vocabulary), policy.value, dtype=np.float32)
    if policy.name == "precision":
        assert policy.value is not None
        return _sure(histogram, policy.value, recipe.confidence)
    if policy.name in ("micro-f1", "macro-f1", "p=r"):
        one = {"micro-f1": _micro, "macro-f1": _macro, "p=r": _balanced}[policy.name](histogram)
        return np.full(len(vocabulary), one, dtype=np.float32)
    assert policy.name in ("per-category", "per-tag"), policy
    thresholds = np.empty(len(vocabulary))
    for category in {tag.category for tag in vocabulary}:
        rows = vocabulary.rows(category)
        thresholds[rows] = best_threshold(histogram.curve(rows))
    if policy.name == "per-tag":
        thresholds = _leaning(histogram, thresholds, recipe.shrink)
    return thresholds.astype(np.float32)


def best_threshold(curve: Counts) -> float:
    """The middle of the thresholds that reach the highest F1, between 0.01 and 0.99."""
    return float(_best(_f1(curve)[None])[0])


def mcut(scores: NDArray[np.float32], vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """What MCut says, bool [n, tags], each category on its own as WD's clients do; characters from 0.15 up."""
    said = np.zeros(scores.shape, dtype=np.bool_)
    for category in {tag.category for tag in vocabulary}:
        rows = vocabulary.rows(category)
        cut = maximum_cut(scores[:, rows])
        if category is Category.CHARACTER:
            cut = np.maximum(cut, np.float32(_MCUT_CHARACTER))
        said[:, rows] = scores[:, rows] >= cut[:, None]
    return said


def wilson(
    part: Floats | NDArray[np.int64], whole: Floats | NDArray[np.int64], z: float = 1.96
) -> tuple[Floats, Floats]:
    """The score interval of a share (Wilson 1927), NaN where `whole` is 0; z = 1.96 for 95 %, two-sided."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(part, dtype=np.float64) / whole
        middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
        half = z / (1 + z * z / whole) * np.sqrt(share * (1 - share) / whole + z * z / (4.0 * whole * whole))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _micro(histogram: ScoreHistogram) -> float:
    return best_threshold(histogram.curve())


def _macro(histogram: ScoreHistogram) -> float:
    total = np.zeros(histogram.bins + 1)
    for _, curves in histogram.tag_curves():
        total += _f1(curves)[curves.fn[:, 0] + curves.tp[:, 0] > 0].sum(axis=0)
    return float(_best(total[None])[0])


def _balanced(histogram: ScoreHistogram) -> float:
    """Precision is recall where fp = fn: the threshold of the grid that comes closest, of equal ones the middle."""
    curve = histogram.curve()
    off = -np.abs(curve.fp - curve.fn).astype(np.float64)
    return float(_best(off[None])[0])


def _leaning(histogram: ScoreHistogram, shared: Floats, shrink: float) -> Floats:
    thresholds = shared.copy()
    for rows, curves in histogram.tag_curves():
        positives = (curves.tp + curves.fn)[:, 0]
        own = _best(_f1(curves))
        weight = positives / np.maximum(positives + shrink, 1e-12)
        leaning = sigmoid(weight * logit(own) + (1 - weight) * logit(shared[rows]))
        thresholds[rows] = np.where(positives > 0, leaning, shared[rows])
    return thresholds


def _sure(histogram: ScoreHistogram, precision: float, confidence: float) -> NDArray[np.float32]:
    """The lowest threshold whose precision, and its one-sided Wilson bound, reach what is asked; or infinity."""
    z = NormalDist().inv_cdf(confidence)
    thresholds = np.full(histogram.tags, np.inf, dtype=np.float32)
    for rows, curves in histogram.tag_curves():
        said = curves.tp + curves.fp
        low, _ = wilson(curves.tp, said, z)
        enough = (said > 0) & (low >= precision) & (curves.tp >= precision * said)
        first = enough.argmax(axis=1)
        thresholds[rows] = np.where(enough.any(axis=1), first / histogram.bins, np.inf)
    return thresholds


def _f1(curve: Counts) -> Floats:
    return np.asarray(2 * curve.tp / np.maximum(2 * curve.tp + curve.fp + curve.fn, 1))


def _best(values: Floats) -> Floats:
    """Per row of [rows, bins + 1], the middle of the first run of highest values, between 0.01 and 0.99."""
    bins = values.shape[1] - 1
    low, high = bins // 100, bins - bins // 100
    inner = values[:, low : high + 1]
    best = inner.argmax(axis=1)
    places = np.arange(inner.shape[1])
    lower = (inner < inner.max(axis=1, keepdims=True)) & (places > best[:, None])
    end = np.where(lower.any(axis=1), lower.argmax(axis=1) - 1, inner.shape[1] - 1)
    return np.asarray((low + (best + end) / 2) / bins)
