"""Calibrate: thresholds and probabilities, fitted on pictures that will not be judged, stored in the model."""

from __future__ import annotations

import csv
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import CALIBRATED, CALIBRATION, Dataset, Model, TagThreshold, check_same_vocabulary
from efuda.errors import InputError, UsageError
from efuda.evaluation.naming import match
from efuda.evaluation.policies import Policy, best_threshold, fit_thresholds, wilson
from efuda.evaluation.scoring import scored
from efuda.evaluation.truth import standard
from efuda.files import replacing, write_json
from efuda.metrics import METHODS, Counts, FittedCalibration, ScoreHistogram, fit_calibration
from efuda.progress import Progress, silent
from efuda.recipes import CalibrateRecipe
from efuda.tagging import Tagger
from efuda.tagging.policies import write_policies

__all__ = ["VALIDATION", "calibrate", "check_fit_split", "fit_recipe", "folded", "open_tagger"]

VALIDATION: Final = "validation"
_REFUSED: Final = {"train": "which the model has learned from", "test": "which it will be judged on"}
_FOLDS: Final = 4
_OFFERED: Final = (
    *("micro-f1", "macro-f1", "per-category", "per-tag", "p=r"),
    *("precision>=0.9", "precision>=0.95", "precision>=0.99"),
)


def calibrate(
    model: Model,
    dataset: Dataset,
    recipe: CalibrateRecipe | None = None,
    *,
    policy: str | None = None,
    split: str = VALIDATION,
    workers: int = 1,
    progress: Progress = silent,
) -> Model:
    """Fit one threshold a tag, and what turns scores into probabilities; store both in the model directory.

    Args:
        recipe: the model's own by default.
        policy: instead of the recipe's; see `policies`.
        split: never train or test.
        workers: processes that run the model.

    Raises:
        UsageError: a policy that does not exist, or MCut, which has no thresholds.
        InputError: the split is one that the model learned from or will be judged on, or has no readable picture.
        MismatchError: model and dataset have other tags.
    """
    recipe = recipe or fit_recipe(model)
    wanted = Policy.parse(policy or recipe.policy)
    if wanted.name == "mcut":
        raise UsageError("MCut has no thresholds to fit: measure it with efuda evaluate --policy mcut.")
    check_fit_split(split)
    folds = folded(open_tagger(model, dataset), dataset, split, "calibrate", progress, workers=workers)
    histogram = ScoreHistogram(len(model.vocabulary))
    for fold in folds:
        histogram.merge(fold)
    thresholds = fit_thresholds(wanted, histogram, model.vocabulary, recipe)
    counts = histogram.counts(thresholds)
    fitted = _probabilities(model, folds, recipe)
    _write_category_thresholds(model, histogram)
    _write_policies(model, histogram, recipe)
    (model.root / CALIBRATION).unlink(missing_ok=True)
    if fitted:
        fitted.calibration.write(model.root / CALIBRATION)
    asked = _asked(wanted, split, dataset, recipe)
    write_json(model.root / CALIBRATED, {**asked, **_found(histogram.pictures, counts, thresholds, fitted)})
    model.write_thresholds(_rows(model, thresholds, counts))
    return model


def _write_policies(model: Model, histogram: ScoreHistogram, recipe: CalibrateRecipe) -> None:
    """`tag_policies.csv`: what the other policies would be, so that `efuda tag --policy` needs no dataset."""
    tags = model.vocabulary
    fitted = {name: fit_thresholds(Policy.parse(name), histogram, tags, recipe) for name in _OFFERED}
    write_policies(model.root, tags, fitted)


def check_fit_split(split: str) -> None:
    """Raises InputError where thresholds must not be fitted on this split."""
    if split in _REFUSED:
        raise InputError(f"Thresholds are not fitted on the split {split!r}, {_REFUSED[split]}. Use: {VALIDATION}.")


def fit_recipe(model: Model) -> CalibrateRecipe:
    """The section of the recipe that the model was made with."""
    return CalibrateRecipe.model_validate(model.marker.recipe["calibrate"])


def open_tagger(model: Model, dataset: Dataset) -> Tagger:
    """Raises MismatchError where model and dataset have other tags."""
    mend = "Use the dataset that the model was trained on, or train on this one."
    what = f"The model {model.root} and the dataset {dataset.root}"
    check_same_vocabulary(model.vocabulary, dataset.vocabulary, what, mend)
    return Tagger.open(model.root)


def folded(
    tagger: Tagger,
    dataset: Dataset,
    split: str,
    step: str,
    progress: Progress,
    *,
    columns: NDArray[np.int64] | None = None,
    workers: int = 1,
) -> list[ScoreHistogram]:
    """Histograms of the split in disjoint parts, every fourth picture in each; tags that the model lacks are left out.

    Args:
        columns: the model's output for each of the dataset's tags, −1 for none; by name by default.

    Raises:
        InputError: no picture can be read.
    """
    posts = dataset.posts(split)
    truth = standard(posts)
    place = match(dataset.vocabulary, tagger.vocabulary).columns if columns is None else columns
    folds = [ScoreHistogram(len(tagger.vocabulary)) for _ in range(_FOLDS)]
    for batch in scored(tagger, posts, step, progress, workers=workers):
        rows = np.array(batch.rows, dtype=np.int64)
        for fold, histogram in enumerate(folds):
            mine = rows % _FOLDS == fold
            pictures, tags = truth.labels(rows[mine].tolist())
            known = place[tags] >= 0
            histogram.update(batch.scores[mine], (pictures[known], place[tags[known]]))
    if not any(fold.pictures for fold in folds):
        raise InputError(f"None of the {len(posts):,} pictures of the split {split!r} of {dataset.root} can be read.")
    return folds


def _probabilities(model: Model, folds: list[ScoreHistogram], recipe: CalibrateRecipe) -> FittedCalibration | None:
    if not recipe.probabilities:
        return None
    tags = model.vocabulary
    return fit_calibration(tags.names, [int(tag.category) for tag in tags], folds, shrink=recipe.shrink)


def _rows(model: Model, thresholds: NDArray[np.float32], counts: Counts) -> list[TagThreshold]:
    precision_low, precision_high = wilson(counts.tp, counts.tp + counts.fp)
    # F1 = 2J / (1 + J), which rises with J = tp / (tp + fp + fn), a share of its own
    low, high = wilson(counts.tp, counts.tp + counts.fp + counts.fn)
    measured = (counts.precision(), counts.recall(), counts.f1())
    bounds = (precision_low, precision_high, 2 * low / (1 + low), 2 * high / (1 + high))
    columns = np.stack([*measured, *bounds], axis=1)
    columns[counts.positives == 0] = np.nan
    columns[np.isinf(thresholds), -2:] = 0  # never predicted: there is no doubt about its F1
    return [
        TagThreshold(tag.name, float(threshold), int(positives), *map(float, numbers))
        for tag, threshold, positives, numbers in zip(
            model.vocabulary, thresholds, counts.positives, columns, strict=True
        )
    ]


def _asked(policy: Policy, split: str, dataset: Dataset, recipe: CalibrateRecipe) -> dict[str, Any]:
    """The first part of `calibration.json`: what the thresholds beside it are."""
    return {
        "policy": str(policy),
        "split": split,
        "dataset": dataset.digest,
        "shrink": recipe.shrink,
        "confidence": recipe.confidence,
    }


def _found(
    pictures: int, counts: Counts, thresholds: NDArray[np.float32], fitted: FittedCalibration | None
) -> dict[str, Any]:
    """The second: what they do on the pictures they were fitted on."""
    found: dict[str, Any] = {
        "pictures": pictures,
        "tags": len(thresholds),
        "never_predicted": int(np.isinf(thresholds).sum()),
        "micro_f1": round(counts.micro().f1, 6),
        "macro_f1": round(counts.macro().f1, 6) if (counts.positives > 0).any() else None,
    }
    if fitted:
        chosen = np.bincount(fitted.calibration.method, minlength=len(METHODS))
        found["probabilities"] = {
            "methods": dict(zip(METHODS, map(int, chosen), strict=True)),
            "held_out_log_loss": {name: float(f"{value:.6g}") for name, value in fitted.held_out.items()},
        }
    return found


def _write_category_thresholds(model: Model, histogram: ScoreHistogram) -> None:
    """`thresholds.csv`, in the layout that animetimm's clients read: one row a category."""
    with (
        replacing(model.root / "thresholds.csv") as beside,
        beside.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["category", "name", "alpha", "threshold", "f1", "precision", "recall"])
        for category in sorted({tag.category for tag in model.vocabulary}):
            rows = model.vocabulary.rows(category)
            threshold = best_threshold(histogram.curve(rows))
            pooled = histogram.counts(threshold).only(rows).micro()
            numbers = [f"{value:.6g}" for value in (threshold, pooled.f1, pooled.precision, pooled.recall)]
            writer.writerow([int(category), category.label, 1.0, *numbers])
