"""The run's report: how training went, epoch by epoch, and what the chosen weights do on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efuda.artifacts import Dataset
from efuda.recipes import Recipe
from efuda.reports import Report, bar_plot, line_plot

__all__ = ["training_figures", "write_report"]


def write_report(
    out: Path,
    dataset: Dataset,
    recipe: Recipe,
    log: Sequence[Mapping[str, Any]],
    test: Mapping[str, float],
    best_epoch: int,
) -> None:
    """Write `report.html` into the run."""
    backbone = recipe.model.backbone
    report = Report(
        f"Training run {out.resolve().name}",
        f"{backbone} at {recipe.model.size} pixels, {len(dataset.vocabulary):,} tags; epoch {best_epoch} of {len(log)} "
        f"was best by {recipe.train.select} on validation",
    )
    names = {
        "micro_precision": "precision",
        "micro_recall": "recall",
        "micro_f1": "micro F1",
        "macro_f1": "macro F1",
        "map": "mAP",
    }
    report.facts("Test split, threshold 0.5", {text: float(test[key]) for key, text in names.items()})
    report.figure("Epochs", *training_figures(log))
    report.figure(
        "The dataset's funnel", bar_plot(list(dataset.funnel), list(dataset.funnel.values()), x="left after the step")
    )
    header = ["epoch", "learning rate", "train loss", "validation loss", *names.values()]
    rows = [
        [
            entry["epoch"],
            f"{entry['learning_rate']:.2g}",
            entry["train_loss"],
            *(entry["validation"][key] for key in ("loss", *names)),
        ]
        for entry in log
    ]
    report.table("Epochs in numbers", header, rows, caption="Validation at the threshold 0.5.")
    report.write(out / "report.html")


def training_figures(log: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Loss, and the measures at threshold 0.5, over epochs."""
    epochs = [entry["epoch"] for entry in log]

    def validation(key: str) -> tuple[list[int], list[float]]:
        return epochs, [entry["validation"][key] for entry in log]

    losses = {"train": (epochs, [entry["train_loss"] for entry in log]), "validation": validation("loss")}
    measures = {"micro F1": validation("micro_f1"), "macro F1": validation("macro_f1"), "mAP": validation("map")}
    return line_plot(losses, x="epoch", y="loss"), line_plot(measures, x="epoch", y="validation, threshold 0.5")
