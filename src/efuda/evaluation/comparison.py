"""What a comparison found: differences with their intervals, a table of models, `report.json` and `report.html`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset
from efuda.evaluation.results import Measured
from efuda.files import make_folder, write_json
from efuda.metrics import Interval
from efuda.reports import Report
from efuda.vocabulary import Vocabulary

__all__ = ["Compared", "Comparison", "Difference", "Entry", "Versus", "bounds", "difference_row", "plain"]


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

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ours": plain(self.ours),
            "theirs": plain(self.theirs),
            "difference": plain(self.ours - self.theirs),
            "interval": bounds(self.interval),
        }


@dataclass(frozen=True)
class Compared:
    """Our model against another: policy → measure → difference, over the `tags` that both have; "map" has its own."""

    name: str
    tags: int
    differences: Mapping[str, Mapping[str, Difference]]
    map: Difference


@dataclass(frozen=True)
class Entry:
    """One model of a comparison.

    Attributes:
        tags: how many it has.
        in_dataset: how many of the dataset's it has; `by_alias` of them under another name.
        fitted_thresholds: whether it came with thresholds that someone fitted, or with its family's defaults.
        measured: policy → scores on the common tags; "shipped" are the thresholds that it came with.
        average_precision: float64 [common], NaN without positives.
    """

    name: str
    place: str
    layout: str
    size: int
    tags: int
    in_dataset: int
    by_alias: int
    fitted_thresholds: bool
    measured: Mapping[str, Measured]
    average_precision: NDArray[np.float64]
    map: float
    map_interval: Interval


@dataclass(frozen=True)
class Versus:
    """The first model minus the second: policy → measure → difference, and that of mAP."""

    first: str
    second: str
    differences: Mapping[str, Mapping[str, Difference]]
    map: Difference


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, on the tags of `vocabulary`, which the dataset and all models have."""

    dataset: Dataset
    split: str
    pictures: int
    failed: int
    minimum_positives: int
    vocabulary: Vocabulary
    policies: tuple[str, ...]
    entries: tuple[Entry, ...]
    pairs: tuple[Versus, ...]

    @property
    def tags_in_macro(self) -> int:
        """Common tags with enough positives."""
        return next(iter(self.entries[0].measured.values())).macro.tags

    def summary(self) -> dict[str, Any]:
        """Everything but the tags, as plain data."""
        return {
            "split": self.split,
            "pictures": self.pictures,
            "failed": self.failed,
            "tags_in_dataset": len(self.dataset.vocabulary),
            "common_tags": len(self.vocabulary),
            "tags_in_macro": self.tags_in_macro,
            "minimum_positives": self.minimum_positives,
            "models": [_entry(one) for one in self.entries],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "map": pair.map.data(),
                    **{
                        rule: {name: one.data() for name, one in some.items()}
                        for rule, some in pair.differences.items()
                    },
                }
                for pair in self.pairs
            ],
        }

    def rows(self) -> list[list[object]]:
        """The table of models: one row a model and policy, the best macro F1 of the first policy on top."""
        first = next(iter(self.entries[0].measured))
        ranked = sorted(self.entries, key=lambda one: -one.measured[first].macro.f1)
        return [
            [
                one.name,
                rule if rule != "shipped" or one.fitted_thresholds else "shipped (defaults)",
                found.macro.f1,
                _span(found.intervals["macro_f1"]),
                found.micro.f1,
                _span(found.intervals["micro_f1"]),
                one.map,
                _span(one.map_interval),
            ]
            for one in ranked
            for rule, found in one.measured.items()
        ]

    def differences(self) -> Iterator[list[object]]:
        """One row a pair, policy and measure: macro F1, micro F1, and mAP once."""
        for pair in self.pairs:
            names = f"{pair.first} − {pair.second}"
            yield [names, "mAP", "", *difference_row(pair.map)]
            for rule, measures in pair.differences.items():
                for key, text in (("macro_f1", "macro F1"), ("micro_f1", "micro F1")):
                    yield [names, text, rule, *difference_row(measures[key])]

    def write(self, out: Path) -> Path:
        """Write `report.json` and `report.html` into `out`; returns the page's path."""
        make_folder(out)
        write_json(out / "report.json", {**self.summary(), "per_tag": [*self._tags()]})
        names = ", ".join(one.name for one in self.entries)
        report = Report(f"Comparison of {names}", self._subtitle())
        self._add_to(report)
        report.write(out / "report.html")
        return out / "report.html"

    def _add_to(self, report: Report) -> None:
        report.table("Models", HEADER, self.rows(), caption=_MODELS)
        if self.pairs:
            header = ["pair", "measure", "policy", "first", "second", "difference", "from", "to", "surely"]
            report.table("Differences", header, [*self.differences()], caption=_DIFFERENCES)
        known = [
            [one.name, one.layout, one.size, one.tags, one.in_dataset, one.by_alias, len(self.vocabulary)]
            for one in self.entries
        ]
        header = ["model", "layout", "side", "tags", "of the dataset's", "of them by alias", "compared on"]
        report.table("Tags of each model", header, known, caption=self._unknown())
        rows = [*self._tags()]
        report.table(
            "Average precision and F1 of each tag", list(rows[0]), [[*map(_cell, row.values())] for row in rows]
        )

    def _tags(self) -> Iterator[dict[str, Any]]:
        rule = next(iter(self.entries[0].measured))
        counts = self.entries[0].measured[rule].counts
        f1 = {one.name: one.measured[rule].counts.f1() for one in self.entries}
        for row, tag in enumerate(self.vocabulary):
            yield {
                "name": tag.name,
                "category": tag.category.label,
                "positives": int(counts.positives[row]),
                **{f"ap {one.name}": plain(one.average_precision[row]) for one in self.entries},
                **{f"f1 {name}": plain(values[row]) for name, values in f1.items()},
            }

    def _unknown(self) -> str:
        without = len(self.dataset.vocabulary) - len(self.vocabulary)
        return (
            f"The dataset has {len(self.dataset.vocabulary):,} tags; {without:,} of them are not known to every model "
            "and are left out for all. Names are compared as Danbooru spells them, spaces and underscores alike, then "
            "through aliases."
        )

    def _subtitle(self) -> str:
        left_out = f", {self.failed} unreadable ones left out" if self.failed else ""
        return (
            f"{self.pictures:,} pictures of the split {self.split!r} of {self.dataset.root}{left_out}, the same for "
            f"all; {len(self.vocabulary):,} tags in common; macro means and mAP over the {self.tags_in_macro} with at "
            f"least {self.minimum_positives} positives; intervals are 95 %, by bootstrap over pictures"
        )


HEADER = ["model", "thresholds", "macro F1", "95 %", "micro F1", "95 %", "mAP", "95 %"]
_MODELS = (
    "Thresholds by name were fitted for every model on the same validation pictures and tags; shipped are those that "
    "it came with, which were fitted elsewhere or are its family's defaults. A model that was trained on some of these "
    "pictures has an advantage: a dataset split by time, newer than all models, is fair."
)
_DIFFERENCES = (
    "First minus second, with 95 % of the replicates of a paired bootstrap: both see the same draws of pictures. "
    "Surely: the interval leaves zero out."
)


def difference_row(one: Difference) -> list[object]:
    """Both values, the difference, its interval, and whether it is surely one."""
    said = "" if not one.sure else "better" if one.ours > one.theirs else "worse"
    return [one.ours, one.theirs, one.ours - one.theirs, one.interval.low, one.interval.high, said]


def plain(value: float) -> float | None:
    """JSON has no NaN and no infinity; counts stay whole."""
    if isinstance(value, int):
        return value
    return round(float(value), 6) if np.isfinite(value) else None


def bounds(one: Interval) -> list[float | None]:
    """An interval as plain data."""
    return [plain(one.low), plain(one.high)]


def _entry(one: Entry) -> dict[str, Any]:
    return {
        "model": one.name,
        "place": one.place,
        "layout": one.layout,
        "size": one.size,
        "tags": one.tags,
        "in_dataset": one.in_dataset,
        "by_alias": one.by_alias,
        "shipped_thresholds": "fitted" if one.fitted_thresholds else "defaults",
        "map": plain(one.map),
        "map_interval": bounds(one.map_interval),
        **{
            rule: {
                **{f"micro_{name}": plain(getattr(found.micro, name)) for name in ("precision", "recall", "f1")},
                **{f"macro_{name}": plain(getattr(found.macro, name)) for name in ("precision", "recall", "f1")},
                "intervals": {name: bounds(some) for name, some in found.intervals.items()},
                "never_predicted": 0 if found.thresholds is None else int(np.isinf(found.thresholds).sum()),
            }
            for rule, found in one.measured.items()
        },
    }


def _span(one: Interval) -> str:
    return "–" if one.low != one.low else f"{one.low:.3f}–{one.high:.3f}"


def _cell(value: object) -> object:
    return float("nan") if value is None else value
