"""One pass over the pictures as accumulators, and the numbers that come out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efuda.evaluation.policies import mcut, wilson
from efuda.metrics import (
    Calibration,
    Counts,
    Decisions,
    Interval,
    Labels,
    PictureScore,
    Ranked,
    Reliability,
    Score,
    ScoreHistogram,
    TopK,
    TopScore,
    calibration_errors,
    decades,
    interval,
    log_losses,
    reliability,
    resample_counts,
    resample_map,
)
from efuda.vocabulary import Vocabulary

__all__ = ["Measured", "Results", "Rule", "Tally", "measure"]

Floats = NDArray[np.float64]
Unlabelled = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Rule:
    """How scores become decisions: a threshold a tag, float32 [tags], or MCut where there are none."""

    name: str
    vocabulary: Vocabulary
    thresholds: NDArray[np.float32] | None

    def said(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool [n, tags]."""
        return mcut(scores, self.vocabulary) if self.thresholds is None else scores >= self.thresholds


@dataclass(frozen=True)
class Measured:
    """One threshold policy on some pictures.

    Attributes:
        per_category, per_decade: category, and power of ten of the tag's count in the dataset → pooled scores.
        macro_per_category, macro_per_decade: the same, as means over tags.
        pictures: example-based scores.
        intervals: 95 %, of micro and macro precision, recall and F1.
        thresholds: float32 [tags]; None for MCut.
    """

    micro: Score
    macro: Score
    per_category: Mapping[str, Score]
    counts: Counts
    macro_per_category: Mapping[str, Score]
    per_decade: Mapping[str, Score]
    macro_per_decade: Mapping[str, Score]
    pictures: PictureScore
    intervals: Mapping[str, Interval]
    thresholds: NDArray[np.float32] | None

    def f1_bounds(self) -> tuple[Floats, Floats]:
        """95 % of each tag's F1 by Wilson's interval of tp / (tp + fp + fn), which F1 rises with."""
        counts = self.counts
        low, high = wilson(counts.tp, counts.tp + counts.fp + counts.fn)
        return 2 * low / (1 + low), 2 * high / (1 + high)


@dataclass(frozen=True)
class Probabilities:
    """How good calibrated scores are: calibration_error and log_loss float64 [tags]."""

    reliability: Reliability
    calibration_error: Floats
    log_loss: Floats


@dataclass(frozen=True)
class Results:
    """Everything about one model on one set of pictures.

    Attributes:
        measured: policy → scores.
        average_precision, roc_auc, calibration_error, log_loss: float64 [tags], NaN where they do not exist.
        map, map_interval: over the tags with enough positives.
        top: hit and precision among the first k.
        calibrated: the same of calibrated probabilities; None where there are none, or they were fitted on these.
        unlabelled: per tag, the highest score of a picture without it, and that picture's row.
        lower: per tag, how many of its pictures score below that one.
    """

    pictures: int
    measured: Mapping[str, Measured]
    average_precision: Floats
    roc_auc: Floats
    calibration_error: Floats
    log_loss: Floats
    map: float
    map_interval: Interval
    top: Sequence[TopScore]
    reliability: Reliability
    calibrated: Probabilities | None
    curve: Counts
    unlabelled: Unlabelled
    lower: NDArray[np.int64]


class Tally:
    """What one model's scores add up to while the pictures pass."""

    def __init__(self, vocabulary: Vocabulary, rules: Sequence[Rule], calibration: Calibration | None = None) -> None:
        tags = len(vocabulary)
        self.vocabulary, self.rules, self.calibration = vocabulary, rules, calibration
        self.probabilities = ScoreHistogram(tags) if calibration else None
        self.histogram = ScoreHistogram(tags)
        self.ranked = Ranked(self.histogram)
        self.top = TopK(tags)
        self.decisions = {rule.name: Decisions(tags) for rule in rules}
        self.best: Unlabelled = (np.full(tags, -1, np.float32), np.zeros(tags, np.int64))

    def update(self, rows: Sequence[int], scores: NDArray[np.float32], labels: Labels) -> None:
        """Add pictures: their rows among the posts, scores float32 [n, tags], and the pairs that are true."""
        if not len(rows):
            return
        self.histogram.update(scores, labels)
        if self.calibration and self.probabilities:
            self.probabilities.update(self.calibration.apply(scores), labels)
        self.ranked.update(scores, labels)
        self.top.update(scores, labels)
        for rule in self.rules:
            self.decisions[rule.name].update(rule.said(scores), labels)
        unlabelled = scores.copy()
        unlabelled[labels] = -1
        highest = unlabelled.argmax(axis=0)
        values = unlabelled[highest, np.arange(scores.shape[1])]
        better = values > self.best[0]
        self.best[0][better] = values[better]
        self.best[1][better] = np.asarray(rows)[highest[better]]

    def results(self, *, minimum_positives: int, replicates: int) -> Results:
        """All numbers; `replicates` of the bootstrap, a fifth of them for mAP."""
        histogram, options = self.histogram, {"minimum_positives": minimum_positives}
        mean = histogram.mean_average_precision(**options)
        resampled = resample_map(self.ranked, replicates=_fewer(replicates), **options)
        tags = np.arange(histogram.tags)
        below = histogram.positives - _positives_from(histogram, self.best[0], tags)
        return Results(
            pictures=histogram.pictures,
            measured={
                rule.name: measure(rule, self.decisions[rule.name], replicates=replicates, **options)
                for rule in self.rules
            },
            average_precision=histogram.average_precision(),
            roc_auc=histogram.roc_auc(),
            calibration_error=calibration_errors(histogram),
            log_loss=log_losses(histogram),
            map=mean,
            map_interval=interval(resampled, mean),
            top=self.top.scores(),
            reliability=reliability(histogram),
            calibrated=_probabilities(self.probabilities),
            curve=histogram.curve(),
            unlabelled=self.best,
            lower=below,
        )


def measure(rule: Rule, decisions: Decisions, *, minimum_positives: int, replicates: int) -> Measured:
    """The scores of one rule, with their intervals."""
    counts, vocabulary = decisions.counts(), rule.vocabulary
    micro, macro = counts.micro(), counts.macro(minimum_positives=minimum_positives)
    resampled = resample_counts(decisions, replicates=replicates, minimum_positives=minimum_positives)
    values = {f"{kind}_{name}": getattr(one, name) for kind, one in _kinds(micro, macro) for name in _NAMES}
    categories = {
        category.label: counts.only(vocabulary.rows(category))
        for category in sorted({tag.category for tag in vocabulary})
    }
    groups = decades([tag.count for tag in vocabulary])
    by_decade = {name: counts.only(rows) for name, rows in groups.items()}
    return Measured(
        micro=micro,
        macro=macro,
        per_category={name: part.micro() for name, part in categories.items()},
        counts=counts,
        macro_per_category=_macros(categories, minimum_positives),
        per_decade={name: part.micro() for name, part in by_decade.items()},
        macro_per_decade=_macros(by_decade, minimum_positives),
        pictures=decisions.by_picture().mean(),
        intervals={name: interval(found, values[name]) for name, found in resampled.items()},
        thresholds=rule.thresholds,
    )


_NAMES = ("precision", "recall", "f1")


def _kinds(micro: Score, macro: Score) -> tuple[tuple[str, Score], tuple[str, Score]]:
    return ("micro", micro), ("macro", macro)


def _macros(parts: Mapping[str, Counts], minimum_positives: int) -> dict[str, Score]:
    return {name: part.macro(minimum_positives=minimum_positives) for name, part in parts.items()}


def _fewer(replicates: int) -> int:
    """Average precision costs more to resample than counts."""
    return -(-replicates // 5)


def _probabilities(histogram: ScoreHistogram | None) -> Probabilities | None:
    if histogram is None:
        return None
    return Probabilities(reliability(histogram), calibration_errors(histogram), log_losses(histogram))


def _positives_from(histogram: ScoreHistogram, scores: NDArray[np.float32], tags: NDArray[np.int64]) -> NDArray[Any]:
    """How many of each tag's pictures reach its score, to the bin."""
    bins = histogram.grid.place(np.maximum(scores, 0)).astype(np.int64)
    found = np.empty(len(tags), np.int64)
    for rows, _, positive in histogram.blocks():
        above = np.arange(histogram.grid.width)[None, :] >= bins[rows, None]
        found[rows] = (positive * above).sum(axis=1)
    return found
