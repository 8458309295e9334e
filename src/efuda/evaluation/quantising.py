"""A model in 8-bit integers, written only where it loses next to nothing: macro F1 before and after, and the speed.

    made = quantise(Path("model"), dataset, Path("model-int8"))
    made.loss, made.pictures_a_second, made.kept        # kept: layers that had to stay in float32

The result is a model directory like the one it was made from: the same inputs, outputs and files, with thresholds
fitted anew. The ranges and the order of the layers come from validation; a loss on either split counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import CALIBRATED, CALIBRATION, THRESHOLDS, Dataset, Marker, Model, Posts, has_marker
from efuda.errors import ExportError, ImageError, InputError, UsageError
from efuda.evaluation.calibrating import VALIDATION, calibrate, fit_recipe, folded
from efuda.evaluation.naming import match, pick
from efuda.evaluation.policies import Policy, fit_thresholds
from efuda.evaluation.scoring import scored
from efuda.evaluation.truth import standard
from efuda.files import make_folder, sha256, write_json, write_text
from efuda.images import read_rgb
from efuda.metrics import Counts, Decisions, ScoreHistogram
from efuda.progress import Progress, silent
from efuda.recipes import CalibrateRecipe
from efuda.tagging import Tagger
from efuda.tagging.int8 import Quantiser, pictures_a_second
from efuda.tagging.network import external_data
from efuda.tagging.policies import POLICIES_FILE
from efuda.vocabulary import Vocabulary

__all__ = ["MAX_LOSS", "Quantised", "quantise"]

MAX_LOSS: Final = 0.005  # of macro and of micro F1
_PICTURES: Final = 256  # that the ranges are seen on
_BATCH: Final = 8
_WEIGHTS: Final = (".onnx", ".data", ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".h5", ".msgpack")
# What belongs to the float32 weights or was fitted on their scores.
_LEFT_BEHIND: Final = (
    *("model.safetensors", THRESHOLDS, CALIBRATION, CALIBRATED, POLICIES_FILE),
    *("thresholds.csv", "int8.json"),
)


class _F1(NamedTuple):
    macro: float
    micro: float

    def loss(self, after: _F1) -> float:
        """Of the one that falls further."""
        return max(before - now for before, now in zip(self, after, strict=True))


@dataclass(frozen=True)
class Quantised:
    """What was written, and what it costs.

    Attributes:
        layers: how many have weights; `kept` names those that stay in float32.
        reduced_range: weights of 7 bits, for processors without VNNI.
        tags, pictures: what macro F1 on test is over.
        macro_f1, micro_f1: split → (float32, int8), each at thresholds fitted on its own validation scores.
        pictures_a_second, bytes: (float32, int8), on this machine.
    """

    root: Path
    layers: int
    kept: tuple[str, ...]
    reduced_range: bool
    tags: int
    pictures: int
    macro_f1: Mapping[str, tuple[float, float]]
    micro_f1: Mapping[str, tuple[float, float]]
    pictures_a_second: tuple[float, float]
    bytes: tuple[int, int]

    @property
    def loss(self) -> float:
        """Of macro or micro F1 on test, whichever falls further; below zero where int8 is better."""
        return max(before - after for before, after in (self.macro_f1["test"], self.micro_f1["test"]))

    @property
    def speed_up(self) -> float:
        """int8 over float32."""
        return self.pictures_a_second[1] / self.pictures_a_second[0]

    def data(self) -> dict[str, Any]:
        """As plain data: `int8.json`."""
        return {
            "layers": self.layers,
            "kept_in_float32": list(self.kept),
            "reduced_range": self.reduced_range,
            "tags": self.tags,
            "test_pictures": self.pictures,
            "macro_f1": {split: [round(value, 6) for value in pair] for split, pair in self.macro_f1.items()},
            "micro_f1": {split: [round(value, 6) for value in pair] for split, pair in self.micro_f1.items()},
            "loss": round(self.loss, 6),
            "pictures_a_second": [round(value, 2) for value in self.pictures_a_second],
            "speed_up": round(self.speed_up, 3),
            "bytes": list(self.bytes),
        }


def quantise(
    model: Path | str,
    dataset: Dataset,
    out: Path,
    *,
    max_loss: float | None = None,
    reduced_range: bool | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Quantised:
    """Write `model` in 8-bit integers to `out`, calibrated on pictures of the validation split.

    Args:
        model: what `Tagger.open` opens and has an ONNX file.
        max_loss: of macro and of micro F1, on validation and on test, 0.005 by default; more layers stay in
            float32 until it holds.
        reduced_range: weights of 7 bits; by default where this processor needs it.

    Raises:
        ExportError: the loss stays above `max_loss` with half of the layers in float32; nothing was written.
        InputError: model and dataset have no tag in common, or no picture can be read.
        MissingExtra: onnx is not installed.
    """
    allowed = MAX_LOSS if max_loss is None else max_loss
    tagger = Tagger.open(model)
    source = tagger.weights or tagger.root / "model.onnx"
    if out.resolve() == source.parent.resolve():
        raise UsageError(f"--out is the model itself: {out} is kept as it is, name another directory.")
    if source.suffix != ".onnx":
        raise InputError(f"{source} is no ONNX file, and only those are quantised.")
    bench = _Bench.of(tagger, dataset, workers, progress)
    exact = bench.f1(tagger, "float32")
    inputs = _inputs(tagger, dataset.posts(VALIDATION))
    quantiser = Quantiser(source, inputs, reduced_range=reduced_range)
    stage = make_folder(out) / ".part"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _copy(source, make_folder(stage))
        target = stage / source.name
        kept, found = _search(quantiser, bench, exact, target, allowed)
        speeds = pictures_a_second((tagger, Tagger.open(stage)), next(_inputs(tagger, dataset.posts(VALIDATION))))
        made = Quantised(
            root=out,
            layers=len(quantiser.layers),
            kept=kept,
            reduced_range=quantiser.reduced_range,
            tags=len(bench.vocabulary),
            pictures=bench.pictures["test"],
            macro_f1={split: (exact[split].macro, found[split].macro) for split in exact},
            micro_f1={split: (exact[split].micro, found[split].micro) for split in exact},
            pictures_a_second=(speeds[0], speeds[1]),
            bytes=(_bytes(source), _bytes(target)),
        )
        _describe(stage, source, made)
        if bench.ours:
            calibrate(Model.open(stage), dataset, workers=workers, progress=progress)
        _move(stage, out, source.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return made


@dataclass(frozen=True)
class _Bench:
    """How a tagger is judged: the outputs that answer for tags of the dataset, and the policy that fits thresholds."""

    dataset: Dataset
    columns: NDArray[np.int64]
    vocabulary: Vocabulary
    recipe: CalibrateRecipe
    ours: bool
    workers: int
    progress: Progress
    pictures: dict[str, int]

    @classmethod
    def of(cls, tagger: Tagger, dataset: Dataset, workers: int, progress: Progress) -> _Bench:
        columns = match(dataset.vocabulary, tagger.vocabulary, dataset.aliases()).columns
        rows = np.flatnonzero(columns >= 0)
        if not len(rows):
            raise InputError(f"{tagger.root} knows none of the tags of {dataset.root}, so its loss cannot be measured.")
        model = Model.open(tagger.root) if has_marker(tagger.root) else None
        recipe = fit_recipe(model) if model else CalibrateRecipe()
        ours = model is not None and model.vocabulary == dataset.vocabulary
        return cls(dataset, columns, pick(dataset.vocabulary, rows), recipe, ours, workers, progress, {})

    def f1(self, tagger: Tagger, what: str, *, enough: Callable[[_F1], bool] = lambda _: True) -> dict[str, _F1]:
        """By split, validation first; test is only looked at where validation is `enough`."""
        some = self.columns[self.columns >= 0]
        histogram = ScoreHistogram(len(tagger.vocabulary))
        step = f"{what}, validation"
        for fold in folded(
            tagger, self.dataset, VALIDATION, step, self.progress, columns=self.columns, workers=self.workers
        ):
            histogram.merge(fold)
        known = histogram.only(some)
        thresholds = fit_thresholds(Policy.parse(self.recipe.policy), known, self.vocabulary, self.recipe)
        found = {VALIDATION: _f1(known.counts(thresholds))}
        if enough(found[VALIDATION]):
            found["test"] = self._test(tagger, thresholds, what)
        return found

    def _test(self, tagger: Tagger, thresholds: NDArray[np.float32], what: str) -> _F1:
        rows = np.flatnonzero(self.columns >= 0)
        place = np.full(len(self.columns), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        posts = self.dataset.posts("test")
        truth, decisions = standard(posts), Decisions(len(rows))
        for batch in scored(tagger, posts, f"{what}, test", self.progress, workers=self.workers):
            pictures, tags = truth.labels(batch.rows)
            kept = place[tags] >= 0
            decisions.update(batch.scores[:, self.columns[rows]] >= thresholds, (pictures[kept], place[tags[kept]]))
        self.pictures["test"] = decisions.pictures
        return _f1(decisions.counts())


def _f1(counts: Counts) -> _F1:
    return _F1(counts.macro().f1, counts.micro().f1)


def _search(
    quantiser: Quantiser, bench: _Bench, exact: Mapping[str, _F1], target: Path, max_loss: float
) -> tuple[tuple[str, ...], Mapping[str, _F1]]:
    """Quantise with 0, 1, 2, 4, … of the most sensitive layers kept, until the loss fits."""
    most, ranked = len(quantiser.layers) // 2, list[str]()
    count, found = 0, dict[str, _F1]()

    def enough(validation: _F1) -> bool:
        return exact[VALIDATION].loss(validation) <= max_loss

    while True:
        quantiser.write(target, ranked[:count])
        what = "int8" if not count else f"int8, {count} layers kept"
        found = bench.f1(Tagger.open(target.parent), what, enough=enough)
        losses = {split: exact[split].loss(value) for split, value in found.items()}
        if "test" in losses and max(losses.values()) <= max_loss:
            return tuple(ranked[:count]), found
        if count >= most:
            break
        ranked = ranked or quantiser.by_sensitivity()
        count = min(max(2 * count, 1), most)
    split = max(losses, key=lambda name: losses[name])
    before, after = exact[split], found[split]
    raise ExportError(
        f"The model in 8-bit integers loses {losses[split]:.4f} of F1 on {split} (macro {before.macro:.4f} to "
        f"{after.macro:.4f}, micro {before.micro:.4f} to {after.micro:.4f}), more than {max_loss:g}, even with the "
        f"{count} most sensitive of its {len(quantiser.layers)} layers in float32. Nothing was written: use the "
        "float32 model."
    )


def _inputs(tagger: Tagger, posts: Posts) -> Iterator[NDArray[np.float32]]:
    """Batches of pictures spread over the split, each as the model is fed."""
    size, batch = tagger.batch or _BATCH, list[NDArray[np.float32]]()
    for row in np.unique(np.linspace(0, len(posts) - 1, min(_PICTURES, len(posts))).astype(int)).tolist():
        try:
            batch.append(tagger.preprocess.array(read_rgb(posts.read(row))))
        except ImageError:
            continue
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _bytes(model: Path) -> int:
    """With the weights that stand in files of their own."""
    return sum(path.stat().st_size for path in (model, *external_data(model)))


def _copy(source: Path, stage: Path) -> None:
    weights = {source.name, *(path.name for path in external_data(source))}
    for path in source.parent.iterdir():
        left = path.name in _LEFT_BEHIND or path.name in weights or path.suffix in _WEIGHTS
        if path.is_file() and not left and not path.name.startswith("."):
            shutil.copyfile(path, stage / path.name)


def _describe(stage: Path, source: Path, made: Quantised) -> None:
    """Say in the directory itself what it is: `int8.json`, the marker and the card."""
    write_json(stage / "int8.json", made.data())
    if has_marker(stage):
        marker = Marker.read(stage, "model")
        inputs = {**marker.inputs, "float32": sha256(source)}
        marker.model_copy(update={"inputs": inputs, "counts": {**marker.counts, "int8": made.data()}}).write(stage)
    if (card := stage / "README.md").is_file():
        write_text(
            card,
            f"{card.read_text(encoding='utf-8').rstrip()}\n\nThis is that model in 8-bit integers: macro F1 on test "
            f"{made.macro_f1['test'][1]:.4f} instead of {made.macro_f1['test'][0]:.4f}, micro F1 "
            f"{made.micro_f1['test'][1]:.4f} instead of {made.micro_f1['test'][0]:.4f}, thresholds fitted anew for "
            f"both, {made.speed_up:.2f} times as fast where it was made. What else is said above is of float32.\n",
        )


def _move(stage: Path, out: Path, model: str) -> None:
    for name in (*_LEFT_BEHIND, model, "efuda.json"):
        (out / name).unlink(missing_ok=True)  # those of an earlier one
    for path in sorted(stage.iterdir(), key=lambda path: path.name == "efuda.json"):
        path.replace(out / path.name)
