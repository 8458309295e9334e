"""Training: a dataset and a recipe in, a run directory out; and from the run a model directory (needs torch).

run = train(dataset, Path("run"), load_recipe("reference"))
model = export(run, Path("model"))
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from efuda.errors import MissingExtra

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingExtra("Training", "train", "torch") from error

from efuda.artifacts import Dataset, Marker, Model, Run, has_marker
from efuda.files import make_folder, remove_unfinished, write_text
from efuda.progress import Progress, silent
from efuda.recipes import Recipe
from efuda.training.checkpoints import check_agrees, identity
from efuda.training.devices import Devices, devices, is_main
from efuda.training.exporting import export
from efuda.training.loop import Loop
from efuda.training.report import write_report

__all__ = ["Model", "Run", "export", "is_main", "train"]


def train(
    dataset: Dataset,
    out: Path,
    recipe: Recipe,
    *,
    progress: Progress = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a tagger; the same command again goes on where an earlier one stopped.

    Several processes, as torchrun starts them, call it alike; the first of them writes and reports.

    Args:
        out: the run. A finished one of the same dataset and recipe is returned at once.
        recipe: its sections `model`, `labels`, `augment`, `loss` and `train`.
        stop: asked after every step, for example whether Ctrl-C was pressed.

    Raises:
        MismatchError: `out` was begun with other tags, posts or another recipe.
        Stopped: `stop` said so; a checkpoint was kept.
        Diverged: the loss is no longer a number.
    """
    with devices() as some:
        if has_marker(out):
            run = Run.open(out)
            check_agrees(out, "finished", _identity(run), dataset, recipe)
            return run
        if some.main:
            remove_unfinished(make_folder(out / "checkpoints"))
        some.wait()
        loop = Loop(dataset, out, recipe, some, progress=progress if some.main else silent, stop=stop)
        if some.main and not (out / "checkpoints" / "last.pt").is_file():
            dataset.vocabulary.write_csv(out / "selected_tags.csv")
            write_text(out / "recipe.toml", recipe.to_toml())
        log = loop.run()
        some.wait()
        _finish(loop, dataset, out, recipe, log, some)
        some.wait()
    return Run.open(out)


def _finish(loop: Loop, dataset: Dataset, out: Path, recipe: Recipe, log: list[dict[str, Any]], some: Devices) -> None:
    best = torch.load(out / "checkpoints" / "best.pt", map_location=loop.device, weights_only=True)
    loop.judged.load_state_dict(best["model"])
    posts = dataset.posts("test")
    test = loop.measure(posts, "test")
    if not some.main:
        return
    write_report(out, dataset, recipe, log, test, posts, best["epoch"], test=test.numbers)
    made = identity(dataset, recipe)
    Marker(
        kind="run",
        efuda=version("efuda"),
        inputs={"dataset": made["dataset"], "vocabulary": made["vocabulary"]},
        recipe=recipe.model_dump(mode="json"),
        counts={
            "dataset": str(dataset.root.resolve()),
            "splits": made["splits"],
            "tags": len(dataset.vocabulary),
            "pictures": len(loop.train_posts),
            "epochs": len(log),
            "best_epoch": best["epoch"],
            "test_at_0.5": dict(test.numbers),
        },
    ).write(out)


def _identity(run: Run) -> dict[str, Any]:
    return {**run.marker.inputs, "splits": run.marker.counts.get("splits", {}), "recipe": run.marker.recipe}
