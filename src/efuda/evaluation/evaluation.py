"""What an evaluation found, as objects, as plain data for `report.json`, and as a page (`pages`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Model, Posts
from efuda.evaluation.comparison import Compared, bounds, plain
from efuda.evaluation.results import Measured, Results
from efuda.files import make_folder, write_json
from efuda.metrics import Counts, Reliability, Score
from efuda.reports import Report

__all__ = ["Evaluation", "Shown", "Suspect"]


@dataclass(frozen=True)
class Shown:
    """One picture of the split with what is true and what was predicted, best first."""

    post: int
    path: Path
    true: tuple[str, ...]
    predicted: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A tag that a picture scores high on and does not carry.

    Attributes:
        outranked: share of the tag's own pictures that score lower.
        precision: the tag's, with the thresholds in use.
    """

    post: int
    path: Path
    tag: str
    score: float
    outranked: float
    precision: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        failed: pictures left out because they could not be read.
        minimum_positives: tags with fewer positives in this split are left out of macro means and of mAP.
        harnesses: "standard", and "diligent" and "audited" where they were asked for.
        compared: our model against others.
        unknown_labels: what of the file of clean labels could not be used.
        shown: a few pictures, spread over the split.
    """

    model: Model
    dataset: Dataset
    split: str
    failed: int
    minimum_positives: int
    harnesses: Mapping[str, Results]
    compared: tuple[Compared, ...]
    unknown_labels: Mapping[str, int]
    posts: Posts
    shown: tuple[Shown, ...]

    @property
    def results(self) -> Results:
        """Those of the standard harness."""
        return self.harnesses["standard"]

    @property
    def pictures(self) -> int:
        """How many were measured."""
        return self.results.pictures

    @property
    def at_half(self) -> Measured:
        """Every threshold 0.5, as the reference run has."""
        return self.results.measured["0.5"]

    @property
    def calibrated(self) -> Measured | None:
        """The model's fitted thresholds; None where there are none, or they were fitted on this split."""
        return self.results.measured.get("calibrated")

    @property
    def used(self) -> tuple[str, Measured]:
        """The policy that the per-tag table and the pictures show: the calibrated one where there is one."""
        name = "calibrated" if self.calibrated else "0.5"
        return name, self.results.measured[name]

    @property
    def average_precision(self) -> NDArray[np.float64]:
        """Per tag, NaN without positives."""
        return self.results.average_precision

    @property
    def map(self) -> float:
        """Mean over the tags with enough positives."""
        return self.results.map

    @property
    def curve(self) -> Counts:
        """Pooled counts at every threshold of the grid."""
        return self.results.curve

    def summary(self) -> dict[str, Any]:
        """The headline numbers, as plain data."""
        standard = self._summary(self.results)
        return {
            "split": self.split,
            "pictures": self.pictures,
            "failed": self.failed,
            "tags": len(self.model.vocabulary),
            "tags_in_macro": self.at_half.macro.tags,
            "minimum_positives": self.minimum_positives,
            **standard,
            "harnesses": {
                name: {"pictures": results.pictures, **self._summary(results)}
                for name, results in self.harnesses.items()
                if name != "standard"
            },
            "unknown_labels": dict(self.unknown_labels),
            "compared": [_compared(one) for one in self.compared],
        }

    def tag_rows(self) -> list[dict[str, Any]]:
        """One row a tag: support, AP, ROC-AUC, ECE, and precision, recall and F1 with its interval at its threshold."""
        results, (_, used) = self.results, self.used
        low, high = used.f1_bounds()
        assert used.thresholds is not None
        columns: dict[str, NDArray[Any]] = {
            "positives": used.counts.positives,
            "threshold": used.thresholds,
            "ap": results.average_precision,
            "precision": used.counts.precision(),
            "recall": used.counts.recall(),
            "f1": used.counts.f1(),
            "f1_low": np.where(used.counts.positives > 0, low, np.nan),
            "f1_high": np.where(used.counts.positives > 0, high, np.nan),
            "roc_auc": results.roc_auc,
            "ece": results.calibration_error,
        }
        return [
            {
                "name": tag.name,
                "category": tag.category.label,
                **{name: plain(values[row].item()) for name, values in columns.items()},
            }
            for row, tag in enumerate(self.model.vocabulary)
        ]

    def suspects(self) -> list[Suspect]:
        """Per tag the picture without it that scores highest, where the thresholds in use predict it."""
        results, (_, used) = self.results, self.used
        assert used.thresholds is not None
        scores, rows = results.unlabelled
        positives, precision = used.counts.positives, used.counts.precision()
        found = np.flatnonzero((scores >= used.thresholds) & (positives > 0)).tolist()
        return [
            Suspect(
                post=int(self.posts.ids[rows[tag]]),
                path=self.posts.picture_path(int(rows[tag])),
                tag=self.model.vocabulary[tag].name,
                score=float(scores[tag]),
                outranked=float(results.lower[tag] / positives[tag]),
                precision=float(precision[tag]),
            )
            for tag in found
        ]

    def missing_labels(self, count: int = 18) -> list[Suspect]:
        """Suspects of tags that are nearly always right and that outrank most of the tag's own pictures."""
        return sorted(self.suspects(), key=lambda one: -one.precision * one.outranked)[:count]

    def false_positives(self, count: int = 18) -> list[Suspect]:
        """Suspects with high scores for tags that are often wrong."""
        return sorted(self.suspects(), key=lambda one: -(1 - one.precision) * one.score)[:count]

    def write(self, out: Path) -> Path:
        """Write `report.json` and `report.html` into `out`; returns the page's path."""
        make_folder(out)
        suspects = {"missing_labels": self.missing_labels(), "false_positives": self.false_positives()}
        write_json(
            out / "report.json",
            {**self.summary(), "per_tag": self.tag_rows(), **{name: _listed(some) for name, some in suspects.items()}},
        )
        report = Report(f"Evaluation of {self.model.root.resolve().name}", self._subtitle())
        self.add_to(report)
        report.write(out / "report.html")
        return out / "report.html"

    def add_to(self, report: Report) -> None:
        """Add this evaluation's sections to a report."""
        from efuda.evaluation.pages import add_sections

        add_sections(self, report)

    def add_pictures_to(self, report: Report, title: str) -> None:
        """Add the pictures alone."""
        from efuda.evaluation.pages import add_pictures

        add_pictures(self, report, title)

    def _subtitle(self) -> str:
        left_out = f", {self.failed} unreadable ones left out" if self.failed else ""
        return (
            f"{self.pictures:,} pictures of the split {self.split!r} of {self.dataset.root}{left_out}; "
            f"macro means and mAP over {self.at_half.macro.tags} of {len(self.model.vocabulary)} tags, those with at "
            f"least {self.minimum_positives} positives; intervals are 95 %, by bootstrap over pictures"
        )

    def _summary(self, results: Results) -> dict[str, Any]:
        enough = self.at_half.counts.positives >= self.minimum_positives
        measured = {name: _headline(one) for name, one in results.measured.items()}
        return {
            "map": plain(results.map),
            "map_interval": bounds(results.map_interval),
            "roc_auc": plain(_mean(results.roc_auc, enough)),
            "log_loss": plain(_mean(results.log_loss, np.ones_like(enough))),
            "ece": plain(results.reliability.error),
            "ece_mean_over_tags": plain(_mean(results.calibration_error, enough)),
            "probabilities": _probabilities(results, enough),
            "top": [{name: plain(value) for name, value in asdict(one).items()} for one in results.top],
            "reliability": _table(results.reliability),
            "at_0.5": measured.pop("0.5"),
            "calibrated": measured.pop("calibrated", None),
            "policies": measured,
        }


def _headline(measured: Measured) -> dict[str, Any]:
    scores = {"micro": measured.micro, "macro": measured.macro}
    flat = {f"{kind}_{name}": plain(value) for kind, one in scores.items() for name, value in asdict(one).items()}
    del flat["micro_tags"], flat["macro_tags"]
    thresholds = measured.thresholds
    return {
        **flat,
        "intervals": {name: bounds(one) for name, one in measured.intervals.items()},
        "per_picture": {name: plain(value) for name, value in asdict(measured.pictures).items()},
        "never_predicted": 0 if thresholds is None else int(np.isinf(thresholds).sum()),
        "per_category": _scores(measured.per_category),
        "macro_per_category": _scores(measured.macro_per_category),
        "per_decade": _scores(measured.per_decade),
        "macro_per_decade": _scores(measured.macro_per_decade),
    }


def _scores(parts: Mapping[str, Score]) -> dict[str, Any]:
    return {name: {key: plain(value) for key, value in asdict(one).items()} for name, one in parts.items()}


def _mean(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> float:
    some = values[kept & ~np.isnan(values)]
    return float(some.mean()) if len(some) else float("nan")


def _probabilities(results: Results, enough: NDArray[np.bool_]) -> dict[str, Any] | None:
    """The same numbers once scores are calibrated."""
    found = results.calibrated
    if found is None:
        return None
    return {
        "log_loss": plain(_mean(found.log_loss, np.ones_like(enough))),
        "ece": plain(found.reliability.error),
        "ece_mean_over_tags": plain(_mean(found.calibration_error, enough)),
        "reliability": _table(found.reliability),
    }


def _table(found: Reliability) -> list[dict[str, Any]]:
    columns = (found.edges[:-1], found.edges[1:], found.count, found.score, found.observed)
    names = ("from", "to", "count", "score", "observed")
    return [
        {name: plain(value.item()) for name, value in zip(names, row, strict=True)}
        for row in zip(*columns, strict=True)
    ]


def _compared(one: Compared) -> dict[str, Any]:
    return {
        "model": one.name,
        "tags": one.tags,
        "map": one.map.data(),
        **{rule: {name: found.data() for name, found in some.items()} for rule, some in one.differences.items()},
    }


def _listed(suspects: Iterable[Suspect]) -> list[dict[str, Any]]:
    return [
        {
            "post": one.post,
            "tag": one.tag,
            "score": plain(one.score),
            "outranked": plain(one.outranked),
            "precision": plain(one.precision),
        }
        for one in suspects
    ]
