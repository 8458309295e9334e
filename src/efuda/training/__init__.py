"""Training: a dataset and a recipe in, a run directory out; and from the run a model directory (needs torch).

run = train(dataset, Path("run"), load_recipe("reference"))
model = export(run, Path("model"))
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from efuda.errors import MissingExtra

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingExtra("Training", "train", "torch") from error

from efuda.artifacts import Dataset, Marker, Model, Run, has_marker
from efuda.errors import MismatchError
from efuda.files import make_folder, remove_unfinished, write_text
from efuda.progress import Progress, silent
from efuda.recipes import Recipe
from efuda.training.exporting import export
from efuda.training.loop import Loop, changes
from efuda.training.report import write_report

__all__ = ["Model", "Run", "export", "train"]


def train(
    dataset: Dataset,
    out: Path,
    recipe: Recipe,
    *,
    progress: Progress = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a tagger; the same command again goes on where an earlier one stopped.

    Args:
        out: the run. A finished one of the same dataset and recipe is returned at once.
        recipe: its sections `model`, `augment`, `loss` and `train`.
        stop: asked after every step, for example whether Ctrl-C was pressed.

    Raises:
        MismatchError: `out` was begun with other tags, posts or another recipe.
        Stopped: `stop` said so; a checkpoint was kept.
        Diverged: the loss is no longer a number.
    """
    remove_unfinished(make_folder(out / "checkpoints"))
    if has_marker(out):
        return _finished(out, dataset, recipe)
    loop = Loop(dataset, out, recipe, progress=progress, stop=stop)
    dataset.vocabulary.write_csv(out / "selected_tags.csv")
    write_text(out / "recipe.toml", recipe.to_toml())
    log = loop.run()
    best = torch.load(out / "checkpoints" / "best.pt", map_location=loop.device, weights_only=True)
    loop.judged.load_state_dict(best["model"])
    test = loop.measure(dataset.posts("test"), "test")
    write_report(out, dataset, recipe, log, test, best["epoch"])
    Marker(
        kind="run",
        efuda=version("efuda"),
        inputs={"dataset": dataset.digest, "vocabulary": dataset.vocabulary.digest},
        recipe=recipe.model_dump(mode="json"),
        counts={
            "dataset": str(dataset.root.resolve()),
            "tags": len(dataset.vocabulary),
            "pictures": len(loop.train_posts),
            "epochs": len(log),
            "best_epoch": best["epoch"],
            "test_at_0.5": test,
        },
    ).write(out)
    return Run.open(out)


def _finished(out: Path, dataset: Dataset, recipe: Recipe) -> Run:
    run = Run.open(out)
    another = "Train into another --out."
    if run.marker.inputs["vocabulary"] != dataset.vocabulary.digest:
        raise MismatchError(
            f"{out} is a finished run with other tags: {run.vocabulary.difference(dataset.vocabulary)}. {another}"
        )
    if run.marker.inputs["dataset"] != dataset.digest:
        raise MismatchError(f"{out} is a finished run on other posts than {dataset.root} has now. {another}")
    if changed := changes(run.marker.recipe, recipe):
        raise MismatchError(f"{out} is a finished run of another recipe: {', '.join(changed)} changed. {another}")
    return run
