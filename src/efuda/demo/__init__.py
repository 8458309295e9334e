"""The demo: the whole way on illustrations drawn on the spot, every stage the real one, in one folder to explore.

    dump → dataset → run → model → thresholds → evaluation → sidecars → collection → search → report.html

Reads nothing but installed packages; the same command goes on where it was stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from efuda.artifacts import Dataset, Model
from efuda.collection import Collection, Found
from efuda.datasets import prepare
from efuda.demo.dump import Dump, render_dump
from efuda.demo.floor import ridge_map
from efuda.errors import Stopped
from efuda.evaluation import Evaluation, Measured, calibrate, evaluate
from efuda.files import make_folder, write_json
from efuda.images import find_pictures
from efuda.progress import Progress, silent
from efuda.recipes import Recipe, load_recipe
from efuda.reports import Report, bar_plot
from efuda.tagging import Chooser, Failed, Tagged, Tagger, open_sink, tag, write

__all__ = ["Demo", "run_demo"]

COMMON: Final = 20  # positives on test from which a tag counts in macro means
QUERIES: Final = ("glasses -hat", "blonde_hair (smile or open_mouth)", "*_background long_hair -solo")
_GALLERY: Final = 240


@dataclass
class Demo:
    """What the demo made and measured."""

    out: Path
    dump: Dump
    dataset: Dataset
    model: Model
    floor: float
    test: Evaluation
    unseen: Evaluation
    found: Mapping[str, Found]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def paths(self) -> dict[str, str]:
        """What lies where."""
        names = ("dump", "dataset", "run", "model", "pictures", "collection.db", "report.html")
        return {name.split(".")[0]: str(self.out / name) for name in names}

    def data(self) -> dict[str, Any]:
        """One object for `--json`."""
        test, unseen = _numbers(self.test), _numbers(self.unseen)
        return {
            "funnel": self.dataset.funnel,
            "test": {
                **test,
                "tags_in_macro": self.test.at_half.macro.tags,
                "minimum_positives": COMMON,
                "floor_map": round(self.floor, 6),
                "unseen_styles": {**unseen, "styles": list(self.dump.held_out), "pictures": self.unseen.pictures},
            },
            "searches": {query: found.total for query, found in self.found.items()},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "paths": self.paths,
        }

    def text(self) -> str:
        """The summary that a person reads at the end."""
        return "\n".join(_summary(self))


def run_demo(
    out: Path,
    *,
    overrides: Sequence[str] = (),
    posts: int | None = None,
    progress: Progress = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Demo:
    """Run the whole way.

    Args:
        out: everything goes here.
        overrides: recipe keys, as `--set` takes them.
        posts: size of the dump; the default is what the recipe's expected result is for.
        stop: asked between stages and after every training step.

    Raises:
        Stopped: `stop` said so. The same command goes on.
    """
    seconds: dict[str, float] = {}
    again = "run the same command again"

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        if stop():
            raise Stopped(f"before {name}", again)
        began = time.monotonic()
        yield
        seconds[name] = time.monotonic() - began

    def watched(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        progress(step, done, total, unit=unit, note=note)
        if stop():
            raise Stopped(f"in the middle of {step}", again)

    make_folder(out)
    with timed("render"):
        dump = render_dump(out / "dump", progress=watched, **({"posts": posts} if posts else {}))
    recipe = load_recipe("demo", [f"split.hold_out={list(dump.held_out)}", *overrides])
    with timed("prepare"):
        dataset = prepare([dump.root / "metadata"], dump.root / "512px", out / "dataset", recipe, progress=watched)
    with timed("train"):
        model_run = _train(dataset, out / "run", recipe, progress, stop)  # stops itself, after a checkpoint
    with timed("export"):
        model = _export(model_run, out / "model")
    with timed("calibrate"):
        calibrate(model, dataset, progress=watched)
    with timed("evaluate"):
        test = evaluate(model, dataset, minimum_positives=COMMON, progress=watched)
        unseen = evaluate(model, dataset, split="unseen", minimum_positives=COMMON, progress=watched)
        for evaluation in (test, unseen):
            evaluation.write(out / "model" / f"evaluation-{evaluation.split}")
    with timed("floor"):
        floor = ridge_map(dataset, minimum_positives=COMMON, progress=watched)
    with timed("tag"):
        tagger = Tagger.open(model.root)
        _tag(tagger, _gallery(dataset, out / "pictures"), watched)
    with timed("search"):
        found = _search(tagger, out / "pictures", out / "collection.db")
    demo = Demo(out, dump, dataset, model, floor, test, unseen, found, seconds)
    with timed("report"):
        _report(demo, model_run.log())
    write_json(out / "demo.json", demo.data())
    return demo


def _train(dataset: Dataset, out: Path, recipe: Recipe, progress: Progress, stop: Callable[[], bool]) -> Any:
    from efuda.training import train  # imports torch, which takes seconds

    return train(dataset, out, recipe, progress=progress, stop=stop)


def _export(run: Any, out: Path) -> Model:
    from efuda.training import export

    return export(run, out)


def _gallery(dataset: Dataset, folder: Path) -> Path:
    """Copies of pictures that the model has not learned from, as a person's own folder would be."""
    make_folder(folder)
    for split, share in (("test", 3), ("unseen", 1)):
        posts = dataset.posts(split)
        for post in range(min(len(posts), _GALLERY * share // 4)):
            target = folder / split / f"{posts.ids[post]}.jpg"
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(posts.picture_path(post), target)
    return folder


def _tag(tagger: Tagger, folder: Path, progress: Progress) -> None:
    with open_sink("txt", tagger.name) as sink:
        pictures = [path for path in find_pictures([folder]) if sink.wants(path)]
        for done, result in enumerate(write(tag(tagger, pictures), Chooser(tagger), sink), start=1):
            assert not isinstance(result, Failed), result
            progress("tag", done, len(pictures), unit="images")


def _search(tagger: Tagger, folder: Path, path: Path) -> dict[str, Found]:
    pictures: list[Path] = list(find_pictures([folder]))
    with Collection.open(path, create=True) as collection:
        collection.remember([folder])
        todo = collection.untagged(pictures, tagger.identity, vectors=tagger.embeds)
        results: Iterator[Tagged | Failed] = tag(tagger, todo, embeddings=True)
        collection.add(results, tagger)
        collection.make_previews()
        if collection.count("rating:none"):
            collection.edit(
                "rating:none", rating="general", by="demo"
            )  # the demo's tagger does not rate; these are safe
        return {query: collection.search(query, limit=3) for query in QUERIES}


def _used(evaluation: Evaluation) -> Measured:
    assert evaluation.calibrated is not None, "the demo calibrates before it evaluates"
    return evaluation.calibrated


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    summary = evaluation.summary()
    keys = ("micro_precision", "micro_recall", "micro_f1", "macro_precision", "macro_recall", "macro_f1")
    calibrated, half = summary["calibrated"], summary["at_0.5"]
    return {
        **{key: calibrated[key] for key in keys},
        "map": summary["map"],
        "at_0.5": {**{key: half[key] for key in keys}, "map": summary["map"]},
    }


def _summary(demo: Demo) -> Iterator[str]:
    data = demo.data()
    test, unseen = data["test"], data["test"]["unseen_styles"]
    yield "\nThe funnel"
    yield from (f"  {name.replace('_', ' '):<16}{count:>8,}" for name, count in data["funnel"].items())
    yield f"\nMeasured, macro and mAP over the {test['tags_in_macro']} tags with at least {COMMON} positives on test"
    yield f"  {'':<44}{'micro P':>8}{'R':>7}{'F1':>7}{'macro P':>9}{'R':>7}{'F1':>7}{'mAP':>7}"
    for name, one in (
        ("test, threshold 0.5", test["at_0.5"]),
        ("test, calibrated on validation", test),
        ("art styles never seen", unseen),
    ):
        yield _row(name, one)
    yield f"  {'floor: ridge regression on pixels and colours':<44}{'':>45}{demo.floor:>7.3f}"
    yield f"  The styles never seen: {', '.join(unseen['styles'])}; {unseen['pictures']} pictures."
    yield "\nThree pictures of the test split"
    for shown in demo.test.shown[:: max(len(demo.test.shown) // 3, 1)][:3]:
        predicted = dict(shown.predicted)
        yield f"  {shown.path}"
        yield f"    right   {' '.join(name for name in predicted if name in shown.true)}"
        yield f"    missed  {' '.join(name for name in shown.true if name not in predicted) or '–'}"
        yield f"    wrong   {' '.join(name for name in predicted if name not in shown.true) or '–'}"
    yield "\nSearch the pictures that were just tagged"
    for query, found in demo.found.items():
        yield f"  efuda search {demo.out / 'collection.db'} {query!r:<44} → {found.total} pictures"
    yield "\nSee them in a browser, with similar pictures, corrections and undo"
    yield f"  efuda serve {demo.out / 'collection.db'} --model {demo.out / 'model'}"
    yield f"\nSeconds: {', '.join(f'{name} {value:.0f}' for name, value in demo.seconds.items())}"
    yield f"Report:  {demo.out / 'report.html'}"


def _row(name: str, one: Mapping[str, Any]) -> str:
    micro = [one[f"micro_{key}"] for key in ("precision", "recall", "f1")]
    macro = [one[f"macro_{key}"] for key in ("precision", "recall", "f1")]
    widths = (8, 7, 7, 9, 7, 7, 7)
    return f"  {name:<44}" + "".join(
        f"{'–' if value is None else f'{value:.3f}':>{width}}"
        for value, width in zip([*micro, *macro, one["map"]], widths, strict=True)
    )


def _report(demo: Demo, log: Sequence[Mapping[str, Any]]) -> None:
    from efuda.training.report import training_figures

    report = Report(
        "efuda demo",
        f"{demo.dataset.funnel['images_verified']:,} illustrations drawn on the spot, {len(demo.model.vocabulary)} "
        "tags, a tagger trained on them, and what it does on pictures it has not seen",
    )
    funnel = demo.dataset.funnel
    report.figure(
        "From the dump to the dataset",
        bar_plot([name.replace("_", " ") for name in funnel], list(funnel.values()), x=""),
    )
    report.figure("Training", *training_figures(log))
    report.facts(
        "Beside it",
        {
            "mAP of ridge regression on pixels and colours": demo.floor,
            "mAP of the tagger": demo.test.map,
            "macro F1 on art styles never seen": _used(demo.unseen).macro.f1,
            "mAP on art styles never seen": demo.unseen.map,
        },
    )
    demo.test.add_to(report)
    demo.unseen.add_pictures_to(report, f"Pictures of styles never seen: {', '.join(demo.dump.held_out)}")
    header = ["style", "artist", "source", "licence", "licence text"]
    credits = [[one.style, one.artist, one.source, one.licence, one.licence_url] for one in demo.dump.credits]
    report.table("The artists", header, credits, caption="The pictures are rendered from these avatar styles.")
    report.write(demo.out / "report.html")
