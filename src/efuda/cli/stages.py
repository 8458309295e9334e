"""The stages from a dump to a model, and the demo that runs them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from efuda.cli.console import output, stop_on_signal
from efuda.cli.measuring import place, scores_line
from efuda.errors import UsageError

__all__ = ["register"]

Recipe = Annotated[str | None, typer.Option("--recipe", "-r", help="A recipe by name or path; see: efuda recipes")]
Set = Annotated[list[str], typer.Option("--set", help="Override one key: section.key=value. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that decode pictures; one a core by default.")]
ModelWorkers = Annotated[int, typer.Option("--workers", min=1, help="Processes that run the model.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (demo, prepare, train, export, calibrate):
        app.command()(command)


def prepare(
    metadata: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns or URLs of posts or captioned pictures.", show_default=False),
    ],
    images: Annotated[
        list[str], typer.Option(help="A folder of pictures, for example 512px/. May be repeated.", show_default=False)
    ] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The dataset to write.", show_default=False)] = None,
    recipe: Recipe = None,
    set_: Set = [],  # noqa: B006
    extend: Annotated[
        Path | None, typer.Option(help="Grow this dataset: its posts keep their split, its tags stay.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the metadata holds; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make a finished dataset anew.")] = False,
    workers: Workers = None,
    ray: Annotated[
        str | None, typer.Option(help="Work on a Ray cluster at this address; auto finds the one of this machine.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a dataset from posts and their pictures.

    Read are Danbooru dumps of every year, API results (JSON, CSV, Parquet), Gelbooru, gallery-dl and Hydrus sidecars,
    and folders of pictures with .txt captions. Posts are sampled, tags counted and cut, pictures found and verified,
    and everything split. Stop it whenever you like: the same command goes on where it was.
    """
    from efuda.datasets import prepare as stage
    from efuda.datasets import read_metadata
    from efuda.recipes import load_recipe

    wanted = load_recipe(recipe, set_)
    if out is None and not dry_run:
        raise UsageError("--out is missing: name the dataset to write, or look first with --dry-run.")
    with output.progress() as progress, _hands(workers, ray) as hands:
        if dry_run:
            with read_metadata(metadata, wanted, extend=extend, workers=hands, progress=progress) as read:
                funnel, sources = dict(read.funnel), list(read.sources)
        else:
            assert out is not None
            dataset = stage(
                metadata, images, out, wanted, extend=extend, overwrite=overwrite, workers=hands, progress=progress
            )
            funnel, sources = dataset.funnel, list(dataset.marker.counts["sources"])
    said = {**funnel, "sources": sources, "out": None if dry_run else str(out)}
    output.result(said, as_json=json, text="\n".join([*sources, _funnel(funnel)]))
    if json:
        return
    if dry_run:
        output.say("Nothing was written. To go on: the same with --images DIR --out DATASET, without --dry-run.")
        return
    assert out is not None
    if funnel["posts"] > funnel["images_verified"]:
        rejected = funnel["posts"] - funnel["images_verified"]
        output.say(f"{rejected:,} posts have no usable picture; the reasons are in {out / 'rejected.parquet'}.")
    output.say(f"Report: {out / 'report.html'}\nNext: efuda train {out} --out RUN --recipe {recipe or 'RECIPE'}")


@contextmanager
def _hands(workers: int | None, ray: str | None) -> Iterator[Any]:
    if ray is None:
        yield workers
        return
    from efuda.cluster import RayWorkers

    with RayWorkers(ray) as cluster:
        yield cluster


def train(
    dataset: Annotated[Path, typer.Argument(help="A dataset made by efuda prepare.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run to write.")],
    recipe: Recipe = None,
    set_: Set = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Train a tagger on a dataset.

    Ctrl-C keeps a checkpoint. The same command goes on from the last one, and ends with the same weights as a run
    that was never stopped. Several GPUs: torchrun --nproc-per-node 4 -m efuda train ...
    """
    from efuda.artifacts import Dataset
    from efuda.recipes import load_recipe
    from efuda.training import is_main
    from efuda.training import train as stage

    wanted = load_recipe(recipe, set_)
    with stop_on_signal() as stop, output.progress() as progress:
        run = stage(Dataset.open(dataset), out, wanted, progress=progress, stop=stop)
    if not is_main():
        return
    test = run.marker.counts["test_at_0.5"]
    text = f"Test split, threshold 0.5: {scores_line(test)}\nReport: {out / 'report.html'}"
    output.result(
        {"test_at_0.5": test, "best_epoch": run.marker.counts["best_epoch"], "out": str(out)}, as_json=json, text=text
    )
    if not json:
        output.say(f"Next: efuda export {out} --out MODEL")


def export(
    run: Annotated[
        str, typer.Argument(help="A run made by efuda train; with --int8 also any model.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The model directory to write.")],
    checkpoint: Annotated[str, typer.Option(help="best (on validation) or last.")] = "best",
    int8: Annotated[
        bool, typer.Option("--int8", help="In 8-bit integers: smaller, faster, written only if its F1 holds.")
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option(help="For --int8: the dataset to calibrate on and measure; a run knows its own.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a model directory that every WD client loads: model.onnx, selected_tags.csv and what more efuda knows.

    With --int8 the model is in 8-bit integers, calibrated on pictures of the validation split, and its loss and its
    speed are measured. Layers that cannot bear it stay in float32. Any WD model can be converted.
    """
    from efuda.artifacts import Run
    from efuda.training import export as stage

    if int8:
        _quantise(run, out, checkpoint, dataset, json)
        return
    if dataset:
        raise UsageError("--dataset goes with --int8: a run knows its own dataset.")
    model = stage(Run.open(Path(run)), out, checkpoint=checkpoint)
    text = f"{out}: {len(model.vocabulary):,} tags, checked against PyTorch."
    output.result({"tags": len(model.vocabulary), "out": str(out)}, as_json=json, text=text)
    if not json:
        output.say(f"Next: efuda calibrate {out} {model_dataset(Path(run))}")


def _quantise(model: str, out: Path, checkpoint: str, dataset: Path | None, json: bool) -> None:
    from efuda.artifacts import Dataset, Run
    from efuda.evaluation import quantise
    from efuda.files import make_folder

    source, run = place(model), Run.open(Path(model)) if (Path(model) / "checkpoints").is_dir() else None
    dataset = dataset or (run.dataset if run else None)
    if dataset is None:
        raise UsageError(f"{model} does not say what it was trained on: name pictures to measure on with --dataset.")
    known = Dataset.open(dataset)
    with output.progress() as progress, TemporaryDirectory(prefix=".efuda-float32-", dir=make_folder(out)) as folder:
        if run:
            from efuda.training import export as stage

            source = stage(run, Path(folder) / run.root.resolve().name, checkpoint=checkpoint).root
        made = quantise(source, known, out, progress=progress)
    (before, after), (slow, fast) = made.macro_f1["test"], made.pictures_a_second
    whole, small = made.micro_f1["test"]
    kept = f"; {len(made.kept)} of {made.layers} layers in float32: {', '.join(made.kept)}" if made.kept else ""
    lines = [
        f"{out}: {made.bytes[1] / 1e6:.1f} MB instead of {made.bytes[0] / 1e6:.1f} MB{kept}.",
        f"Macro F1 on test, {made.tags:,} tags: {after:.4f}, float32 {before:.4f} (loss {before - after:+.4f}); "
        f"micro F1: {small:.4f}, float32 {whole:.4f} (loss {whole - small:+.4f}).",
        f"Pictures a second here: {fast:.1f}, float32 {slow:.1f} ({made.speed_up:.2f} times).",
    ]
    output.result({**made.data(), "out": str(out)}, as_json=json, text="\n".join(lines))


def calibrate(
    model: Annotated[Path, typer.Argument(help="A model made by efuda export.", show_default=False)],
    dataset: Annotated[Path, typer.Argument(help="The dataset it was trained on.", show_default=False)],
    policy: Annotated[
        str | None,
        typer.Option(
            help="per-tag, per-category, micro-f1, macro-f1, p=r, precision>=0.95 or fixed=0.35.",
            show_default="the recipe's",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="What to fit on; never train or test.")] = "validation",
    workers: ModelWorkers = 1,
    json: Json = False,
) -> None:
    """Fit the thresholds at which each tag is said to be present, on the validation split only.

    What turns scores into probabilities is fitted beside them, and stored in the model too.
    """
    import json as plain

    from efuda.artifacts import CALIBRATED, THRESHOLDS, Dataset, Model
    from efuda.evaluation import calibrate as stage

    with output.progress() as progress:
        fitted = stage(
            Model.open(model), Dataset.open(dataset), policy=policy, split=split, workers=workers, progress=progress
        )
    said = plain.loads((fitted.root / CALIBRATED).read_text(encoding="utf-8"))
    text = f"{said['tags']:,} thresholds ({said['policy']}) in {model / THRESHOLDS}."
    output.result({**said, "out": str(model / THRESHOLDS)}, as_json=json, text=text)
    if json:
        return
    if said["never_predicted"]:
        output.say(
            f"{said['never_predicted']:,} tags have no threshold: on {said['pictures']:,} pictures none surely keeps "
            "what the policy asks for, so they are never predicted."
        )
    output.say(f"Next: efuda evaluate {model} {dataset}")


def demo(
    out: Annotated[Path, typer.Option(help="Everything goes here, for you to explore.")] = Path("demo"),
    set_: Set = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Run the whole way on illustrations drawn on the spot: about ten minutes on two cores, no network."""
    from efuda.demo import run_demo

    with stop_on_signal() as stop, output.progress() as progress:
        result = run_demo(out, overrides=set_, progress=progress, stop=stop)
    output.result(result.data(), as_json=json, text=result.text())


def model_dataset(run: Path) -> str:
    """The dataset that a run was trained on, for a hint."""
    from efuda.artifacts import Run

    return str(Run.open(run).dataset)


def _funnel(funnel: dict[str, int]) -> str:
    return "\n".join(f"{name.replace('_', ' '):<16} {count:>12,}" for name, count in funnel.items())
