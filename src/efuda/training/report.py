"""The run's report, rewritten at every epoch: how training went, which tags it knows, and pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from efuda.artifacts import Dataset, Posts
from efuda.errors import ImageError
from efuda.images import read_rgb
from efuda.recipes import Recipe
from efuda.reports import Chip, Picture, Report, bar_plot, line_plot
from efuda.training.measuring import REFERENCE_THRESHOLD, Measured

__all__ = ["training_figures", "write_report"]

_NAMES: Final = {
    "micro_precision": "precision",
    "micro_recall": "recall",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "map": "mAP",
}
_EACH: Final = 15


def write_report(
    out: Path,
    dataset: Dataset,
    recipe: Recipe,
    log: Sequence[Mapping[str, Any]],
    measured: Measured,
    posts: Posts,
    best_epoch: int,
    *,
    test: Mapping[str, float] | None = None,
) -> None:
    """Write `report.html` into the run.

    Args:
        measured, posts: the split that tags and pictures are shown of: validation while it trains, test at the end.
        test: the numbers of the test split, once there are any.
    """
    split = "validation" if test is None else "test"
    done = f"epoch {len(log)} of {recipe.train.epochs}" if test is None else f"{len(log)} epochs"
    report = Report(
        f"Training run {out.resolve().name}",
        f"{recipe.model.backbone} at {recipe.model.size} pixels, {len(dataset.vocabulary):,} tags; {done}; epoch "
        f"{best_epoch} was best by {recipe.train.select} on validation",
    )
    numbers = log[-1]["validation"] if test is None else test
    report.facts(
        f"{split.capitalize()} split, threshold 0.5", {text: float(numbers[key]) for key, text in _NAMES.items()}
    )
    report.figure("Epochs", *training_figures(log))
    _add_tags(report, dataset, measured, split)
    _add_pictures(report, dataset, measured, posts, split)
    report.figure(
        "The dataset's funnel", bar_plot(list(dataset.funnel), list(dataset.funnel.values()), x="left after the step")
    )
    header = ["epoch", "learning rate", "train loss", "validation loss", *_NAMES.values()]
    rows = [
        [
            entry["epoch"],
            f"{entry['learning_rate']:.2g}",
            entry["train_loss"],
            *(entry["validation"][key] for key in ("loss", *_NAMES)),
        ]
        for entry in log
    ]
    report.table("Epochs in numbers", header, rows, caption="Validation at the threshold 0.5.")
    report.write(out / "report.html")


def training_figures(log: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Loss, the measures at threshold 0.5, precision and recall, and the learning rate, over epochs."""
    epochs = [entry["epoch"] for entry in log]

    def validation(key: str) -> tuple[list[int], list[float]]:
        return epochs, [entry["validation"][key] for entry in log]

    losses = {"train": (epochs, [entry["train_loss"] for entry in log]), "validation": validation("loss")}
    measures = {"micro F1": validation("micro_f1"), "macro F1": validation("macro_f1"), "mAP": validation("map")}
    parts = {"micro precision": validation("micro_precision"), "micro recall": validation("micro_recall")}
    rates = {"learning rate": (epochs, [entry["learning_rate"] for entry in log])}
    return (
        line_plot(losses, x="epoch", y="loss"),
        line_plot(measures, x="epoch", y="validation, threshold 0.5"),
        line_plot(parts, x="epoch", y="validation, threshold 0.5"),
        line_plot(rates, x="epoch", y="learning rate at its end"),
    )


def _add_tags(report: Report, dataset: Dataset, measured: Measured, split: str) -> None:
    known = np.flatnonzero(measured.positives > 0)
    order = known[np.argsort(-measured.average_precision[known], kind="stable")]
    header = ["tag", "positives", "AP", "F1"]
    for title, rows in (("Best tags", order[:_EACH]), ("Worst tags", order[::-1][:_EACH])):
        table = [
            [
                dataset.vocabulary[row].name,
                int(measured.positives[row]),
                float(measured.average_precision[row]),
                float(measured.f1[row]),
            ]
            for row in rows.tolist()
        ]
        report.table(title, header, table, caption=f"On {split}, by average precision; F1 at the threshold 0.5.")


def _add_pictures(report: Report, dataset: Dataset, measured: Measured, posts: Posts, split: str) -> None:
    names, cards = dataset.vocabulary.names, []
    for one in measured.shown:
        true = set(posts.tags(one.post).tolist())
        chips = [
            Chip(
                f"{names[tag]} {score:.2f}",
                ("hit" if score >= REFERENCE_THRESHOLD else "miss") if tag in true else "extra",
            )
            for tag, score in one.scores
        ]
        try:
            cards.append(Picture(read_rgb(posts.read(one.post)), f"post {posts.ids[one.post]}", chips))
        except ImageError:
            continue
    report.pictures(
        f"Pictures of {split}", cards, caption="Found, missed and wrongly predicted tags at the threshold 0.5."
    )
