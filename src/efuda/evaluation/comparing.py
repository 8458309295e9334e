"""Several models on the tags that they have in common and the same pictures: who is better, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Model, has_marker
from efuda.errors import InputError
from efuda.evaluation.results import Rule
from efuda.metrics import (
    MEASURES,
    Decisions,
    Interval,
    Labels,
    Ranked,
    ScoreHistogram,
    difference,
    resample_counts,
    resample_map,
)
from efuda.tagging import Tagger
from efuda.vocabulary import Tag, Vocabulary

__all__ = ["Compared", "Difference", "Pair", "check_not_fitted_here", "common_tags"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """`ours − theirs`, and where 95 % of the paired replicates lie."""

    ours: float
    theirs: float
    interval: Interval

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return not self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True)
class Compared:
    """Our model against another: policy → measure → difference, over the `tags` that both have; "map" has its own."""

    name: str
    tags: int
    differences: Mapping[str, Mapping[str, Difference]]
    map: Difference


@dataclass(frozen=True)
class Common:
    """The tags of two vocabularies: ours and theirs in the order of `vocabulary`, int64 [common]."""

    vocabulary: Vocabulary
    ours: NDArray[np.int64]
    theirs: NDArray[np.int64]


def common_tags(ours: Vocabulary, theirs: Vocabulary, name: str) -> Common:
    """Raises InputError where they have none in common."""
    shared: list[Tag] = [tag for tag in ours if tag.name in theirs.index]
    if not shared:
        raise InputError(f"{name} knows none of the model's tags, so they cannot be compared.")
    columns = [np.array([tags.index[tag.name] for tag in shared], dtype=np.int64) for tags in (ours, theirs)]
    return Common(Vocabulary(shared), *columns)


def check_not_fitted_here(tagger: Tagger, split: str) -> None:
    """Raises InputError where an efuda model's thresholds were fitted on the split that is measured."""
    if has_marker(tagger.root) and Model.open(tagger.root).calibrated_on() == split:
        raise InputError(
            f"The thresholds of {tagger.root} were fitted on the split {split!r}: measure on another, for example test."
        )


class _Side:
    """One model's scores on the common tags."""

    def __init__(self, tags: int, columns: NDArray[np.int64], rules: Sequence[Rule]) -> None:
        self.columns, self.rules = columns, rules
        self.histogram = ScoreHistogram(tags)
        self.ranked = Ranked(self.histogram)
        self.decisions = {rule.name: Decisions(tags) for rule in rules}

    def update(self, scores: NDArray[np.float32], labels: Labels) -> None:
        common = np.ascontiguousarray(scores[:, self.columns])
        self.histogram.update(common, labels)
        self.ranked.update(common, labels)
        for rule in self.rules:
            self.decisions[rule.name].update(rule.said(common), labels)


class Pair:
    """Ours and another model, fed the same pictures."""

    def __init__(self, name: str, common: Common, ours: Sequence[Rule], theirs: Sequence[Rule]) -> None:
        assert [rule.name for rule in ours] == [rule.name for rule in theirs]
        self.name, self.common = name, common
        tags = len(common.vocabulary)
        self._ours, self._theirs = _Side(tags, common.ours, ours), _Side(tags, common.theirs, theirs)

    def update(self, ours: NDArray[np.float32], theirs: NDArray[np.float32], labels: Labels) -> None:
        """Scores of both, each in its own model's order; labels in ours."""
        place = np.full(ours.shape[1], -1, dtype=np.int64)
        place[self.common.ours] = np.arange(len(self.common.ours))
        assert isinstance(labels, tuple)
        tags = place[labels[1]]
        kept = (labels[0][tags >= 0], tags[tags >= 0])
        self._ours.update(ours, kept)
        self._theirs.update(theirs, kept)

    def compared(self, *, minimum_positives: int, replicates: int) -> Compared:
        """The differences with their intervals: both models are resampled with the same pictures."""
        options = {"minimum_positives": minimum_positives}
        maps = [
            resample_map(side.ranked, replicates=-(-replicates // 5), **options) for side in (self._ours, self._theirs)
        ]
        means = [side.histogram.mean_average_precision(**options) for side in (self._ours, self._theirs)]
        return Compared(
            self.name,
            len(self.common.vocabulary),
            {rule.name: self._differences(rule.name, minimum_positives, replicates) for rule in self._ours.rules},
            Difference(means[0], means[1], difference(maps[0], maps[1], means[0] - means[1])),
        )

    def _differences(self, rule: str, minimum_positives: int, replicates: int) -> dict[str, Difference]:
        sides = [side.decisions[rule] for side in (self._ours, self._theirs)]
        resampled = [
            resample_counts(decisions, replicates=replicates, minimum_positives=minimum_positives)
            for decisions in sides
        ]
        values = [_values(decisions, minimum_positives) for decisions in sides]
        ours, theirs = values
        return {
            name: Difference(
                ours[name],
                theirs[name],
                difference(resampled[0][name], resampled[1][name], ours[name] - theirs[name]),
            )
            for name in MEASURES
        }


def _values(decisions: Decisions, minimum_positives: int) -> dict[str, float]:
    counts = decisions.counts()
    kinds = {"micro": counts.micro(), "macro": counts.macro(minimum_positives=minimum_positives)}
    return {name: getattr(kinds[name[:5]], name[6:]) for name in MEASURES}
