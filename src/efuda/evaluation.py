"""Calibrate and evaluate: thresholds fitted on validation, judged on a split that they have not seen.

    calibrate(model, dataset)                       # writes tag_thresholds.csv and thresholds.csv into the model
    evaluation = evaluate(model, dataset)           # the test split
    evaluation.calibrated.micro.f1

Both run the exported model on the dataset's pictures, as everyone who uses it will.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Model, Posts, TagThreshold, check_same_vocabulary
from efuda.errors import InputError
from efuda.files import make_folder, replacing, write_json
from efuda.images import read_rgb
from efuda.metrics import Counts, Score, ScoreHistogram
from efuda.progress import Progress, silent
from efuda.recipes import CalibrateRecipe
from efuda.reports import Chip, Picture, Report, line_plot
from efuda.tagging import Tagger, score
from efuda.vocabulary import Vocabulary

__all__ = ["Evaluation", "Measured", "Shown", "calibrate", "evaluate"]

VALIDATION: Final = "validation"
_SHOWN: Final = 18
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One threshold policy on one split."""

    micro: Score
    macro: Score
    per_category: Mapping[str, Score]
    counts: Counts


@dataclass(frozen=True)
class Shown:
    """One picture of the split with what is true and what was predicted, best first."""

    post: int
    path: Path
    true: tuple[str, ...]
    predicted: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        pictures, failed: measured, and left out because they could not be read.
        minimum_positives: tags with fewer positives in this split are left out of macro means and of mAP.
        at_half: every threshold 0.5, as the reference run has.
        calibrated: the model's fitted thresholds; None where there are none, or they were fitted on this split.
        average_precision: per tag, NaN without positives.
        map: mean over the tags with enough positives.
        shown: a few pictures, spread over the split.
    """

    model: Model
    dataset: Dataset
    split: str
    pictures: int
    failed: int
    minimum_positives: int
    at_half: Measured
    calibrated: Measured | None
    average_precision: NDArray[np.float64]
    map: float
    curve: Counts
    shown: tuple[Shown, ...]

    def summary(self) -> dict[str, Any]:
        """The headline numbers, as plain data."""
        return {
            "split": self.split,
            "pictures": self.pictures,
            "failed": self.failed,
            "tags": len(self.model.vocabulary),
            "tags_in_macro": self.at_half.macro.tags,
            "minimum_positives": self.minimum_positives,
            "map": _plain(self.map),
            "at_0.5": _headline(self.at_half),
            "calibrated": _headline(self.calibrated) if self.calibrated else None,
        }

    def tag_rows(self) -> list[dict[str, Any]]:
        """One row a tag: support, AP, and precision, recall and F1 at its threshold."""
        used = self.calibrated or self.at_half
        fitted = self.model.thresholds() if self.calibrated else None
        precision, recall, f1 = used.counts.precision(), used.counts.recall(), used.counts.f1()
        return [
            {
                "name": tag.name,
                "category": tag.category.label,
                "positives": int(used.counts.positives[row]),
                "threshold": fitted[row].threshold if fitted else 0.5,
                "ap": _plain(self.average_precision[row]),
                "precision": _plain(precision[row]),
                "recall": _plain(recall[row]),
                "f1": _plain(f1[row]),
            }
            for row, tag in enumerate(self.model.vocabulary)
        ]

    def write(self, out: Path) -> Path:
        """Write `report.json` and `report.html` into `out`; returns the page's path."""
        make_folder(out)
        write_json(out / "report.json", {**self.summary(), "per_tag": self.tag_rows()})
        report = Report(f"Evaluation of {self.model.root.resolve().name}", self._subtitle())
        self.add_to(report)
        report.write(out / "report.html")
        return out / "report.html"

    def add_to(self, report: Report) -> None:
        """Add this evaluation's sections to a report."""
        for title, measured in (("calibrated thresholds", self.calibrated), ("threshold 0.5", self.at_half)):
            if measured:
                report.facts(f"{self.split.capitalize()} split, {title}", {**_facts(measured), "mAP": self.map})
        used = self.calibrated or self.at_half
        precision, recall = _pooled(self.curve)
        mark = (used.micro.recall, used.micro.precision, f"F1 {used.micro.f1:.3f}")
        report.figure(
            "Precision and recall",
            line_plot({"all tags pooled": (recall, precision)}, x="recall", y="precision", mark=mark),
            caption="One threshold for all tags, from 0.01 to 0.99; the dot is where the chosen thresholds stand.",
        )
        rows = self.tag_rows()
        report.table("Tags", list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        self.add_pictures_to(report, "Pictures")

    def add_pictures_to(self, report: Report, title: str) -> None:
        """Add the pictures alone."""
        report.pictures(
            title,
            [self._card(one) for one in self.shown],
            caption="Green: predicted and true. Yellow: true, not predicted. Red: predicted, not among the labels.",
        )

    def _subtitle(self) -> str:
        left_out = f", {self.failed} unreadable ones left out" if self.failed else ""
        return (
            f"{self.pictures:,} pictures of the split {self.split!r} of {self.dataset.root}{left_out}; "
            f"macro means and mAP over {self.at_half.macro.tags} of {len(self.model.vocabulary)} tags, those with at "
            f"least {self.minimum_positives} positives"
        )

    def _card(self, shown: Shown) -> Picture:
        predicted = dict(shown.predicted)
        chips = [
            Chip(f"{name} {value:.2f}", "hit" if name in shown.true else "extra") for name, value in predicted.items()
        ]
        chips += [Chip(name, "miss") for name in shown.true if name not in predicted]
        return Picture(read_rgb(shown.path), f"post {shown.post}", chips)


def calibrate(
    model: Model, dataset: Dataset, recipe: CalibrateRecipe | None = None, *, progress: Progress = silent
) -> Model:
    """Fit one threshold a tag, for the best F1 on the validation split, and store them in the model directory.

    A tag's own best threshold and its category's are averaged on the logit scale, weighted by the tag's positives, so
    that a rare tag leans on its category (`recipe.shrink`).

    Raises:
        MismatchError: model and dataset have other tags.
    """
    recipe = recipe or CalibrateRecipe.model_validate(model.marker.recipe["calibrate"])
    tagger = _open(model, dataset)
    histogram = ScoreHistogram(len(model.vocabulary))
    for _, scores, labels in _scored(tagger, dataset.posts(VALIDATION), "calibrate", progress):
        histogram.update(scores, labels)
    thresholds = _fit(histogram, model.vocabulary, recipe)
    counts = histogram.counts(thresholds)
    columns = zip(counts.precision(), counts.recall(), counts.f1(), strict=True)
    rows = [
        TagThreshold(tag.name, float(threshold), int(positives), *map(float, numbers))
        for tag, threshold, positives, numbers in zip(
            model.vocabulary, thresholds, counts.positives, columns, strict=True
        )
    ]
    _write_category_thresholds(model, histogram)
    model.write_thresholds(rows)
    return model


def evaluate(
    model: Model, dataset: Dataset, *, split: str = "test", minimum_positives: int = 1, progress: Progress = silent
) -> Evaluation:
    """Measure a model on a split, with every threshold at 0.5 and with its calibrated ones.

    Raises:
        MismatchError: model and dataset have other tags.
        ArtifactError: there is no such split.
    """
    tagger = _open(model, dataset)
    posts = dataset.posts(split)
    histogram = ScoreHistogram(len(model.vocabulary))
    wanted = set(np.linspace(0, len(posts) - 1, _SHOWN).astype(int).tolist())
    shown: list[Shown] = []
    for rows, scores, labels in _scored(tagger, posts, "evaluate", progress):
        histogram.update(scores, labels)
        for row, one, label in zip(rows, scores, labels, strict=True):
            if row in wanted:
                shown.append(_shown(row, one, label, posts, tagger))
    if not histogram.pictures:
        raise InputError(f"None of the {len(posts):,} pictures of the split {split!r} of {dataset.root} can be read.")

    def measured(thresholds: float | Floats) -> Measured:
        counts = histogram.counts(thresholds)
        return _measured(counts, model.vocabulary, minimum_positives)

    return Evaluation(
        model=model,
        dataset=dataset,
        split=split,
        pictures=histogram.pictures,
        failed=len(posts) - histogram.pictures,
        minimum_positives=minimum_positives,
        at_half=measured(0.5),
        calibrated=measured(tagger.thresholds) if tagger.calibrated and split != VALIDATION else None,
        average_precision=histogram.average_precision(),
        map=histogram.mean_average_precision(minimum_positives=minimum_positives),
        curve=histogram.curve(),
        shown=tuple(shown),
    )


def _open(model: Model, dataset: Dataset) -> Tagger:
    mend = "Use the dataset that the model was trained on, or train on this one."
    what = f"The model {model.root} and the dataset {dataset.root}"
    check_same_vocabulary(model.vocabulary, dataset.vocabulary, what, mend)
    return Tagger.open(model.root)


def _scored(
    tagger: Tagger, posts: Posts, step: str, progress: Progress
) -> Iterator[tuple[list[int], Floats, NDArray[np.bool_]]]:
    """Batches of (rows of `posts`, scores [n, tags], labels [n, tags]); unreadable pictures are left out."""
    read: Callable[[int], Any] = lambda post: read_rgb(posts.read(post))  # noqa: E731
    rows: list[int] = []
    scores: list[Floats] = []
    for row, size, values in score(tagger, range(len(posts)), read):
        if not isinstance(size, str):
            rows.append(row)
            scores.append(values)
        if len(rows) == 64 or (row + 1 == len(posts) and rows):
            yield rows, np.stack(scores), posts.labels(rows, len(tagger.vocabulary))
            rows, scores = [], []
        progress(step, row + 1, len(posts), unit="images")


def _fit(histogram: ScoreHistogram, vocabulary: Vocabulary, recipe: CalibrateRecipe) -> Floats:
    everything = _best_threshold(histogram.curve())
    thresholds = np.full(len(vocabulary), everything, dtype=np.float64)
    if recipe.policy == "global":
        return thresholds.astype(np.float32)
    for category in {tag.category for tag in vocabulary}:
        rows = vocabulary.rows(category)
        thresholds[rows] = _best_threshold(histogram.curve(rows))
    if recipe.policy == "per-tag":
        for row in range(len(vocabulary)):
            curve = histogram.tag_curve(row)
            positives = int(curve.positives[0])
            if positives:
                weight = positives / (positives + recipe.shrink)
                own = _logit(_best_threshold(curve))
                thresholds[row] = _sigmoid(weight * own + (1 - weight) * _logit(thresholds[row]))
    return thresholds.astype(np.float32)


def _best_threshold(curve: Counts) -> float:
    """The middle of the thresholds that reach the highest F1, between 0.01 and 0.99."""
    bins = len(curve.tp) - 1
    f1 = 2 * curve.tp / np.maximum(2 * curve.tp + curve.fp + curve.fn, 1)
    low, high = bins // 100, bins - bins // 100
    inner = f1[low : high + 1]
    best = int(np.argmax(inner))
    after = np.flatnonzero(inner[best:] < inner[best])
    end = best + (int(after[0]) - 1 if len(after) else len(inner) - 1 - best)
    return (low + (best + end) / 2) / bins


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


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
            threshold = _best_threshold(histogram.curve(rows))
            pooled = histogram.counts(threshold).only(rows).micro()
            numbers = [f"{value:.6g}" for value in (threshold, pooled.f1, pooled.precision, pooled.recall)]
            writer.writerow([int(category), category.label, 1.0, *numbers])


def _measured(counts: Counts, vocabulary: Vocabulary, minimum_positives: int) -> Measured:
    categories = sorted({tag.category for tag in vocabulary})
    return Measured(
        micro=counts.micro(),
        macro=counts.macro(minimum_positives=minimum_positives),
        per_category={category.label: counts.only(vocabulary.rows(category)).micro() for category in categories},
        counts=counts,
    )


def _shown(row: int, scores: Floats, labels: NDArray[np.bool_], posts: Posts, tagger: Tagger) -> Shown:
    names = tagger.vocabulary.names
    return Shown(
        post=int(posts.ids[row]),
        path=posts.picture_path(row),
        true=tuple(names[tag] for tag in np.flatnonzero(labels)),
        predicted=tuple(tagger.present(scores)),
    )


def _pooled(curve: Counts) -> tuple[list[float], list[float]]:
    """Precision and recall at thresholds 0.01, 0.02, … 0.99."""
    step = (len(curve.tp) - 1) // 100
    chosen = range(step, len(curve.tp) - step, step)
    tp, fp, fn = (np.asarray(part)[list(chosen)] for part in (curve.tp, curve.fp, curve.fn))
    some = tp + fp > 0
    return list((tp[some] / (tp + fp)[some]).astype(float)), list((tp[some] / (tp + fn)[some]).astype(float))


def _headline(measured: Measured) -> dict[str, Any]:
    scores = {"micro": measured.micro, "macro": measured.macro}
    flat = {f"{kind}_{name}": _plain(value) for kind, one in scores.items() for name, value in asdict(one).items()}
    del flat["micro_tags"], flat["macro_tags"]
    per_category = {
        name: {key: _plain(value) for key, value in asdict(one).items()} for name, one in measured.per_category.items()
    }
    return {**flat, "per_category": per_category}


def _facts(measured: Measured) -> dict[str, float]:
    return {
        "micro precision": measured.micro.precision,
        "micro recall": measured.micro.recall,
        "micro F1": measured.micro.f1,
        "macro precision": measured.macro.precision,
        "macro recall": measured.macro.recall,
        "macro F1": measured.macro.f1,
    }


def _plain(value: float) -> float | None:
    """JSON has no NaN; counts stay whole."""
    if isinstance(value, int):
        return value
    return None if value != value else round(float(value), 6)


def _cell(value: object) -> object:
    return float("nan") if value is None else value
