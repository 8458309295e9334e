"""Evaluate: one pass over a split, at several threshold policies, in several harnesses, against other models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Model, Posts
from efuda.errors import InputError
from efuda.evaluation.calibrating import VALIDATION, fit_recipe, folded, open_tagger
from efuda.evaluation.comparing import Pair, checked_policies, common_tags, open_other
from efuda.evaluation.evaluation import Evaluation, Shown
from efuda.evaluation.naming import match, pick
from efuda.evaluation.policies import Policy, fit_thresholds
from efuda.evaluation.results import Rule, Tally
from efuda.evaluation.scoring import Batch, scored
from efuda.evaluation.truth import Harness, audited, diligent, standard
from efuda.metrics import ScoreHistogram
from efuda.progress import Progress, silent
from efuda.recipes import CalibrateRecipe
from efuda.tagging import Tagger
from efuda.vocabulary import Vocabulary

__all__ = ["CALIBRATED", "HALF", "Plan", "evaluate"]

_SHOWN: Final = 18
HALF: Final = "0.5"
CALIBRATED: Final = "calibrated"


@dataclass(frozen=True)
class Plan:
    """What is measured beside the model's own thresholds.

    Attributes:
        policies: further threshold policies by name, fitted on validation; see `policies`.
        against: directories of other taggers, compared on the tags in common.
        aliases: other name → tag, besides those that the dataset knows; for tags that `against` names otherwise.
        diligent: measure the fifth of the posts with the most labels, too.
        labels: a file of clean labels; measure its posts against them, too.
        replicates: of the bootstrap; 0 for no intervals.
        workers: processes that run the models.
    """

    policies: Sequence[str] = ()
    against: Sequence[Path | str] = ()
    aliases: Mapping[str, str] | None = None
    diligent: bool = False
    labels: Path | None = None
    replicates: int = 1000
    workers: int = 1


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    split: str = "test",
    minimum_positives: int = 1,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a model on a split, with every threshold at 0.5, with its calibrated ones, and as the plan says.

    Args:
        minimum_positives: tags with fewer in this split are left out of macro means and mAP.

    Raises:
        MismatchError: model and dataset have other tags.
        ArtifactError: there is no such split.
        UsageError: no such policy.
        InputError: a policy or another model's thresholds would be judged on the split that they were fitted on, the
            file of labels is not one, or no picture can be read.
    """
    plan = plan or Plan()
    policies = checked_policies(plan.policies, split)
    tagger, posts = open_tagger(model, dataset), dataset.posts(split)
    others = [open_other(place, split) for place in plan.against]
    known = {**dataset.aliases(), **(plan.aliases or {})}
    harnesses = [standard(posts), *([diligent(posts)] if plan.diligent else [])]
    if plan.labels:
        harnesses.append(audited(posts, model.vocabulary, plan.labels))
    fit = _Fit(dataset, policies, fit_recipe(model), plan.workers, progress)
    histogram = fit.histogram(tagger)
    rules = [*_own_rules(model, tagger, split), *fit.rules(histogram, model.vocabulary)]
    calibrated = len(rules) > len(policies) + 1
    pairs = [_pair(tagger, other, histogram, fit, known, calibrated=calibrated) for other in others]
    calibration = model.calibration() if model.calibrated_on() != split else None
    tallies = {harness.name: Tally(model.vocabulary, rules, calibration) for harness in harnesses}
    shown: list[Shown] = []
    wanted = set(np.linspace(0, len(posts) - 1, _SHOWN).astype(int).tolist())
    for batch, *beside in _streams([tagger, *others], posts, plan, progress):
        for harness in harnesses:
            _add(tallies[harness.name], harness, batch)
        labels = harnesses[0].labels(batch.rows)
        for pair, theirs in zip(pairs, beside, strict=True):
            pair.update(batch.scores, theirs.scores, labels)
        shown += [
            _shown(row, one, posts, tagger) for row, one in zip(batch.rows, batch.scores, strict=True) if row in wanted
        ]
    _check_any(tallies, posts, dataset, split)
    options = {"minimum_positives": minimum_positives, "replicates": plan.replicates}
    results = {name: tally.results(**options) for name, tally in tallies.items()}
    return Evaluation(
        model=model,
        dataset=dataset,
        split=split,
        failed=len(posts) - results["standard"].pictures,
        minimum_positives=minimum_positives,
        harnesses=results,
        compared=tuple(pair.compared(**options) for pair in pairs),
        unknown_labels=dict(harnesses[-1].unknown),
        posts=posts,
        shown=tuple(shown),
    )


def _own_rules(model: Model, tagger: Tagger, split: str) -> list[Rule]:
    rules = [Rule(HALF, model.vocabulary, np.full(len(model.vocabulary), 0.5, np.float32))]
    if tagger.calibrated and model.calibrated_on() != split:
        rules.append(Rule(CALIBRATED, model.vocabulary, tagger.thresholds))
    return rules


@dataclass(frozen=True)
class _Fit:
    """The policies asked for, and how they are fitted."""

    dataset: Dataset
    policies: Sequence[Policy]
    recipe: CalibrateRecipe
    workers: int
    progress: Progress

    def histogram(self, tagger: Tagger, columns: NDArray[np.int64] | None = None) -> ScoreHistogram:
        """The tagger's scores on validation; empty where no policy needs them."""
        found = ScoreHistogram(len(tagger.vocabulary))
        if any(policy.fitted for policy in self.policies):
            step = f"fit {tagger.name}"
            split, workers = VALIDATION, self.workers
            for fold in folded(tagger, self.dataset, split, step, self.progress, columns=columns, workers=workers):
                found.merge(fold)
        return found

    def rules(self, histogram: ScoreHistogram, vocabulary: Vocabulary) -> list[Rule]:
        """One a policy."""
        return [
            Rule(
                str(policy),
                vocabulary,
                None if policy.name == "mcut" else fit_thresholds(policy, histogram, vocabulary, self.recipe),
            )
            for policy in self.policies
        ]


def _pair(
    ours: Tagger,
    theirs: Tagger,
    histogram: ScoreHistogram,
    fit: _Fit,
    aliases: Mapping[str, str],
    *,
    calibrated: bool,
) -> Pair:
    """Both judged on the common tags: at 0.5, at their own thresholds, and by policies fitted on those tags."""
    both = common_tags(ours.vocabulary, theirs.vocabulary, str(theirs.root), aliases)
    vocabulary = pick(ours.vocabulary, both[0])
    half = Rule(HALF, vocabulary, np.full(len(vocabulary), 0.5, np.float32))
    sides = []
    columns_of_all = match(ours.vocabulary, theirs.vocabulary, aliases).columns
    found = (histogram, fit.histogram(theirs, columns_of_all))
    for tagger, columns, scores in zip((ours, theirs), both, found, strict=True):
        own = [Rule(CALIBRATED, vocabulary, tagger.thresholds[columns])] if calibrated else []
        sides.append([half, *own, *fit.rules(scores.only(columns), vocabulary)])
    return Pair(theirs.name, both, *sides)


def _streams(taggers: Sequence[Tagger], posts: Posts, plan: Plan, progress: Progress) -> Iterator[tuple[Batch, ...]]:
    """The same posts from every model, side by side."""
    streams = [
        scored(tagger, posts, "evaluate" if not at else f"evaluate {tagger.name}", progress, workers=plan.workers)
        for at, tagger in enumerate(taggers)
    ]
    return zip(*streams, strict=True)


def _add(tally: Tally, harness: Harness, batch: Batch) -> None:
    kept = [at for at, row in enumerate(batch.rows) if harness.wanted[row]]
    rows = [batch.rows[at] for at in kept]
    tally.update(rows, batch.scores[kept], harness.labels(rows))


def _check_any(tallies: Mapping[str, Tally], posts: Posts, dataset: Dataset, split: str) -> None:
    for name, tally in tallies.items():
        if not tally.histogram.pictures:
            which = "" if name == "standard" else f" that the harness {name!r} wants"
            raise InputError(
                f"None of the {len(posts):,} pictures of the split {split!r} of {dataset.root}{which} can be read."
            )


def _shown(row: int, scores: NDArray[np.float32], posts: Posts, tagger: Tagger) -> Shown:
    names = tagger.vocabulary.names
    return Shown(
        post=int(posts.ids[row]),
        path=posts.picture_path(row),
        true=tuple(names[tag] for tag in posts.tags(row)),
        predicted=tuple(tagger.present(scores)),
    )
