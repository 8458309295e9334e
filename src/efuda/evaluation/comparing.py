"""Several models on the tags that they have in common and the same pictures: who is better, and how surely.

    found = compare([Path("ours"), Path("wd-vit-tagger-v3")], dataset)
    found.entries[0].measured["per-tag"].macro.f1, found.pairs[0].map.sure

Each model has its own preprocessing. Thresholds are fitted for each on validation by the same policies, on the common
tags, and nothing is written into a model's directory. Every model is resampled with the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Model, has_marker
from efuda.errors import InputError, UsageError
from efuda.evaluation.calibrating import VALIDATION, folded
from efuda.evaluation.comparison import Compared, Comparison, Difference, Entry, Versus
from efuda.evaluation.naming import Matched, common, match, pick
from efuda.evaluation.policies import Policy, fit_thresholds
from efuda.evaluation.results import Measured, Rule, measure
from efuda.evaluation.scoring import scored
from efuda.evaluation.truth import standard
from efuda.metrics import (
    MEASURES,
    Decisions,
    Labels,
    Ranked,
    ScoreHistogram,
    difference,
    interval,
    resample_counts,
    resample_map,
)
from efuda.progress import Progress, silent
from efuda.recipes import CalibrateRecipe
from efuda.tagging import Tagger
from efuda.vocabulary import Vocabulary

__all__ = ["SHIPPED", "Pair", "check_not_fitted_here", "checked_policies", "common_tags", "compare", "open_other"]

Floats = NDArray[np.float64]
SHIPPED: Final = "shipped"


def compare(
    models: Sequence[Path | str],
    dataset: Dataset,
    *,
    policies: Sequence[str] = ("per-tag",),
    split: str = "test",
    minimum_positives: int = 1,
    aliases: Mapping[str, str] | None = None,
    replicates: int = 1000,
    workers: int = 1,
    progress: Progress = silent,
) -> Comparison:
    """Measure any taggers side by side on one split.

    Args:
        models: directories of any layout that `Tagger.open` reads.
        policies: threshold policies, fitted on validation for each model alike; the thresholds that a model came with
            are measured beside them, as "shipped".
        minimum_positives: tags with fewer in this split are left out of macro means and mAP.
        aliases: other name → tag, besides those that the dataset knows.

    Raises:
        UsageError: no such policy, or a model is given twice.
        InputError: the models have no tag in common with each other and the dataset, a policy would be judged where it
            was fitted, or no picture can be read.
        ArtifactError: a directory that holds no tagger, or there is no such split.
    """
    wanted = checked_policies(policies, split)
    taggers = {str(place): open_other(place, split) for place in models}
    if len(taggers) < len(models):
        raise UsageError("A model is given twice: it would differ from itself by nothing.")
    known = {**dataset.aliases(), **(aliases or {})}
    matched = {place: match(dataset.vocabulary, tagger.vocabulary, known) for place, tagger in taggers.items()}
    rows = common(dataset.vocabulary, matched)
    vocabulary = pick(dataset.vocabulary, rows)
    names = _short_names(taggers)
    work = _Work(dataset, split, rows, vocabulary, wanted, workers, progress)
    options = {"minimum_positives": minimum_positives, "replicates": replicates}
    sides = {names[place]: work.side(tagger, matched[place], names[place]) for place, tagger in taggers.items()}
    resampled = {name: side.resampled(**options) for name, side in sides.items()}
    entries = [
        _entry(names[place], tagger, matched[place], sides[names[place]], resampled[names[place]], options)
        for place, tagger in taggers.items()
    ]
    return Comparison(
        dataset=dataset,
        split=split,
        pictures=next(iter(sides.values())).histogram.pictures,
        failed=len(dataset.posts(split)) - next(iter(sides.values())).histogram.pictures,
        minimum_positives=minimum_positives,
        vocabulary=vocabulary,
        policies=tuple(map(str, wanted)),
        entries=tuple(entries),
        pairs=tuple(
            Versus(one, other, *_differences(resampled[one], resampled[other])) for one, other in combinations(sides, 2)
        ),
    )


def checked_policies(texts: Sequence[str], split: str) -> list[Policy]:
    """Raises InputError where a policy would be judged on the split that it is fitted on."""
    policies = [*dict.fromkeys(Policy.parse(text) for text in texts)]
    fitted = [str(policy) for policy in policies if policy.fitted]
    if fitted and split == VALIDATION:
        raise InputError(
            f"The policy {fitted[0]} is fitted on {VALIDATION}, so it is not judged there: measure on another split."
        )
    return policies


def open_other(place: Path | str, split: str) -> Tagger:
    """Raises InputError where an efuda model's thresholds were fitted on the split that is measured."""
    tagger = Tagger.open(place)
    check_not_fitted_here(tagger, split)
    return tagger


def common_tags(
    ours: Vocabulary, theirs: Vocabulary, name: str, aliases: Mapping[str, str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Outputs of both for the tags in common, int64 [common] each; raises InputError where they have none."""
    matched = match(ours, theirs, aliases)
    rows = np.flatnonzero(matched.found)
    if not len(rows):
        raise InputError(f"{name} knows none of the model's tags, so they cannot be compared.")
    return rows, matched.columns[rows]


def check_not_fitted_here(tagger: Tagger, split: str) -> None:
    """Raises InputError where an efuda model's thresholds were fitted on the split that is measured."""
    if has_marker(tagger.root) and Model.open(tagger.root).calibrated_on() == split:
        raise InputError(
            f"The thresholds of {tagger.root} were fitted on the split {split!r}: measure on another, for example test."
        )


@dataclass(frozen=True)
class _Work:
    """What every model is put through."""

    dataset: Dataset
    split: str
    rows: NDArray[np.int64]
    vocabulary: Vocabulary
    policies: Sequence[Policy]
    workers: int
    progress: Progress

    def side(self, tagger: Tagger, matched: Matched, name: str) -> _Side:
        """The tagger's scores on the split, decided by thresholds from validation and by its own."""
        columns = matched.columns[self.rows]
        side = _Side(len(columns), columns, [*self._fitted(tagger, matched, name), self._shipped(tagger, columns)])
        posts = self.dataset.posts(self.split)
        truth, place = standard(posts), np.full(len(self.dataset.vocabulary), -1, dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        for batch in scored(tagger, posts, f"score {name}", self.progress, workers=self.workers):
            pictures, tags = truth.labels(batch.rows)
            kept = place[tags] >= 0
            side.update(batch.scores, (pictures[kept], place[tags[kept]]))
        if not side.histogram.pictures:
            raise InputError(f"None of the {len(posts):,} pictures of the split {self.split!r} can be read.")
        return side

    def _shipped(self, tagger: Tagger, columns: NDArray[np.int64]) -> Rule:
        return Rule(SHIPPED, self.vocabulary, tagger.thresholds[columns])

    def _fitted(self, tagger: Tagger, matched: Matched, name: str) -> list[Rule]:
        histogram = ScoreHistogram(len(tagger.vocabulary))
        if any(policy.fitted for policy in self.policies):
            step = f"fit {name}"
            for fold in folded(
                tagger, self.dataset, VALIDATION, step, self.progress, columns=matched.columns, workers=self.workers
            ):
                histogram.merge(fold)
        some = histogram.only(matched.columns[self.rows])
        recipe = CalibrateRecipe()
        return [
            Rule(
                str(policy),
                self.vocabulary,
                None if policy.name == "mcut" else fit_thresholds(policy, some, self.vocabulary, recipe),
            )
            for policy in self.policies
        ]


@dataclass(frozen=True)
class _Resampled:
    """Rule → measure → value and replicates; mAP apart."""

    values: Mapping[str, Mapping[str, float]]
    replicates: Mapping[str, Mapping[str, Floats]]
    map: float
    map_replicates: Floats


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

    def resampled(self, *, minimum_positives: int, replicates: int) -> _Resampled:
        some = {"minimum_positives": minimum_positives}
        return _Resampled(
            {name: _values(one, minimum_positives) for name, one in self.decisions.items()},
            {name: resample_counts(one, replicates=replicates, **some) for name, one in self.decisions.items()},
            self.histogram.mean_average_precision(**some),
            resample_map(self.ranked, replicates=-(-replicates // 5), **some),
        )


class Pair:
    """Ours and another model, fed the same pictures; `vocabulary` and columns are those of the tags in common."""

    def __init__(
        self,
        name: str,
        columns: tuple[NDArray[np.int64], NDArray[np.int64]],
        ours: Sequence[Rule],
        theirs: Sequence[Rule],
    ) -> None:
        assert [rule.name for rule in ours] == [rule.name for rule in theirs]
        self.name, self.tags = name, len(columns[0])
        self._ours, self._theirs = _Side(self.tags, columns[0], ours), _Side(self.tags, columns[1], theirs)

    def update(self, ours: NDArray[np.float32], theirs: NDArray[np.float32], labels: Labels) -> None:
        """Scores of both, each in its own model's order; labels in ours."""
        place = np.full(ours.shape[1], -1, dtype=np.int64)
        place[self._ours.columns] = np.arange(self.tags)
        assert isinstance(labels, tuple)
        tags = place[labels[1]]
        kept = (labels[0][tags >= 0], tags[tags >= 0])
        self._ours.update(ours, kept)
        self._theirs.update(theirs, kept)

    def compared(self, *, minimum_positives: int, replicates: int) -> Compared:
        """The differences with their intervals: both models are resampled with the same pictures."""
        options = {"minimum_positives": minimum_positives, "replicates": replicates}
        return Compared(
            self.name,
            self.tags,
            *_differences(self._ours.resampled(**options), self._theirs.resampled(**options)),
        )


def _differences(ours: _Resampled, theirs: _Resampled) -> tuple[Mapping[str, Mapping[str, Difference]], Difference]:
    found = {}
    for rule, values in ours.values.items():
        pairs = {name: (values[name], theirs.values[rule][name]) for name in MEASURES}
        found[rule] = {
            name: Difference(
                *pair,
                difference(ours.replicates[rule][name], theirs.replicates[rule][name], pair[0] - pair[1]),
            )
            for name, pair in pairs.items()
        }
    of_map = difference(ours.map_replicates, theirs.map_replicates, ours.map - theirs.map)
    return found, Difference(ours.map, theirs.map, of_map)


def _values(decisions: Decisions, minimum_positives: int) -> dict[str, float]:
    counts = decisions.counts()
    kinds = {"micro": counts.micro(), "macro": counts.macro(minimum_positives=minimum_positives)}
    return {name: getattr(kinds[name[:5]], name[6:]) for name in MEASURES}


def _entry(
    name: str, tagger: Tagger, matched: Matched, side: _Side, resampled: _Resampled, options: Mapping[str, int]
) -> Entry:
    return Entry(
        name=name,
        place=str(tagger.root),
        layout=tagger.layout,
        size=tagger.preprocess.size,
        tags=len(tagger.vocabulary),
        in_dataset=int(matched.found.sum()),
        by_alias=matched.by_alias,
        fitted_thresholds=tagger.calibrated,
        measured={rule.name: _measured(rule, side, resampled, options["minimum_positives"]) for rule in side.rules},
        average_precision=side.histogram.average_precision(),
        map=resampled.map,
        map_interval=interval(resampled.map_replicates, resampled.map),
    )


def _measured(rule: Rule, side: _Side, resampled: _Resampled, minimum_positives: int) -> Measured:
    """With the intervals of the replicates that are there already."""
    found = measure(rule, side.decisions[rule.name], minimum_positives=minimum_positives, replicates=0)
    values, replicates = resampled.values[rule.name], resampled.replicates[rule.name]
    return replace(found, intervals={name: interval(replicates[name], values[name]) for name in MEASURES})


def _short_names(taggers: Mapping[str, Tagger]) -> dict[str, str]:
    """The directories' names where they differ, else as they were given."""
    names = [tagger.name for tagger in taggers.values()]
    return {place: tagger.name if names.count(tagger.name) == 1 else place for place, tagger in taggers.items()}
