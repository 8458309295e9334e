"""Export: from a run's checkpoint to a model directory that every WD client loads (FORMATS: model directories).

`model.onnx` takes float32 [n, side, side, 3], BGR, 0–255, and gives, in this order:

* `output`     [n, …]  probabilities: four ratings, all general tags, all characters, in the order of
                       `selected_tags.csv`. Where the run did not learn ratings, those four columns are 0.
* `embedding`  [n, …]  the pooled features.

Some clients insist on that number of outputs. So copyright, artist and meta tags, which none of them knows, are a
linear head on the embedding, kept beside it: `other_tags.csv` names them, `other_head.npz` holds `weight` [features, n]
and `bias` [n]. A decoder head is not linear: there the logits of these tags stand behind the features in `embedding`,
and `other_head.npz` says with `start` where they begin.

Before the directory counts as finished, the file is run beside PyTorch on pictures of the validation split.
"""

from __future__ import annotations

import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from efuda.artifacts import (
    CALIBRATED,
    CALIBRATION,
    OTHER_HEAD,
    THRESHOLDS,
    Dataset,
    Marker,
    Model,
    Run,
    check_same_vocabulary,
)
from efuda.errors import ExportError, ImageError
from efuda.files import make_folder, sha256, write_json, write_text
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.recipes import Recipe
from efuda.tagging import Tagger
from efuda.tagging.policies import POLICIES_FILE
from efuda.training.augment import normalise
from efuda.training.model import TagModel, trained
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

__all__ = ["MAX_DIFFERENCE", "export"]

MAX_DIFFERENCE: Final = 1e-4  # between PyTorch's probabilities and the exported file's
_CALIBRATED: Final = (THRESHOLDS, CALIBRATION, CALIBRATED, POLICIES_FILE)
_PARITY_PICTURES: Final = 32
_FIRST_OUTPUT: Final = (Category.RATING, Category.GENERAL, Category.CHARACTER)


class _WdModel(nn.Module):
    """The network with the WD family's input and outputs around it."""

    def __init__(self, model: TagModel, recipe: Recipe, first: int, pad: bool) -> None:
        super().__init__()
        self.model, self.recipe, self.first, self.pad = model, recipe, first, pad

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        rgb = pictures.flip(3).permute(0, 3, 1, 2) / 255.0
        logits, embedding = self.model(normalise(rgb, self.recipe.model.mean, self.recipe.model.std))
        probabilities = logits.sigmoid()
        output = F.pad(probabilities[:, : self.first], (4 if self.pad else 0, 0))
        if self.model.head.reads_map and logits.shape[1] > self.first:
            embedding = torch.cat([embedding, logits[:, self.first :]], dim=1)
        return output, embedding


def export(run: Run, out: Path, *, checkpoint: str = "best") -> Model:
    """Write a model directory.

    Args:
        checkpoint: "best" by the recipe's metric on validation, or "last".

    Raises:
        MismatchError: the dataset changed since the run; parity needs its pictures.
        ExportError: the exported file's probabilities differ from PyTorch's by more than `MAX_DIFFERENCE`.
    """
    recipe = Recipe.model_validate(run.marker.recipe)
    dataset = Dataset.open(run.dataset)
    again = f"Train again, or restore {run.dataset}."
    check_same_vocabulary(
        run.vocabulary, dataset.vocabulary, f"The run {run.root} and its dataset {dataset.root}", again
    )
    model = trained(run, checkpoint)
    preprocess = Preprocess(size=recipe.model.size)
    stage = make_folder(out) / ".part"
    shutil.rmtree(stage, ignore_errors=True)
    make_folder(stage)
    try:
        wrapped = _write_files(stage, model, run, recipe, preprocess, dataset)
        _check_parity(wrapped, Tagger.open(stage), dataset, preprocess)
        for name in (*_CALIBRATED, "thresholds.csv", "other_tags.csv", OTHER_HEAD, "efuda.json"):
            (out / name).unlink(missing_ok=True)  # those of an earlier export
        marker_last = sorted(stage.iterdir(), key=lambda path: path.name == "efuda.json")
        for path in marker_last:
            path.replace(out / path.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Model.open(out)


def _write_files(
    stage: Path, model: TagModel, run: Run, recipe: Recipe, preprocess: Preprocess, dataset: Dataset
) -> _WdModel:
    vocabulary = run.vocabulary
    first = [tag for tag in vocabulary if tag.category in _FIRST_OUTPUT]
    others = [tag for tag in vocabulary if tag.category not in _FIRST_OUTPUT]
    assert [*first, *others] == list(vocabulary), "a vocabulary in WD order"
    pad = not any(tag.category is Category.RATING for tag in first)
    padding = [Tag(name, Category.RATING) for name in RATINGS] if pad else []
    Vocabulary([*padding, *first]).write_csv(stage / "selected_tags.csv")
    if others:
        Vocabulary(others).write_csv(stage / "other_tags.csv")
        _write_other_head(stage / OTHER_HEAD, model, len(first))
    wrapped = _WdModel(model, recipe, len(first), pad).eval()
    _write_onnx(wrapped, stage / "model.onnx", preprocess.size)
    save_file({name: value.contiguous() for name, value in model.library_state().items()}, stage / "model.safetensors")
    write_json(stage / "config.json", _timm_config(model, recipe, len(vocabulary)))
    write_text(stage / "README.md", _card(run, recipe, pad, bool(others)))
    Marker(
        kind="model",
        efuda=version("efuda"),
        inputs={"run": sha256(stage / "model.safetensors"), "dataset": dataset.digest, "vocabulary": vocabulary.digest},
        recipe=recipe.model_dump(mode="json"),
        counts={"tags": len(vocabulary), "padded_ratings": pad, "preprocess": preprocess.model_dump(mode="json")},
    ).write(stage)
    return wrapped


def _write_other_head(path: Path, model: TagModel, first: int) -> None:
    if model.head.reads_map:
        np.savez(path, start=model.features, tags=len(model.head.bias) - first)
        return
    weight, bias = (part.detach().numpy()[first:] for part in (model.head.weight, model.head.bias))
    np.savez(path, weight=np.ascontiguousarray(weight.T), bias=bias)


def _write_onnx(wrapped: _WdModel, path: Path, size: int) -> None:
    example = torch.zeros(2, size, size, 3)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            wrapped,
            (example,),
            path,
            input_names=["input"],
            output_names=["output", "embedding"],
            dynamic_shapes={"pictures": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _check_parity(wrapped: _WdModel, tagger: Tagger, dataset: Dataset, preprocess: Preprocess) -> None:
    posts = dataset.posts("validation")
    pictures = []
    for post in range(min(len(posts), _PARITY_PICTURES)):
        try:
            pictures.append(preprocess.array(read_rgb(posts.read(post))))
        except ImageError:
            continue
    if not pictures:
        raise ExportError("No picture of the validation split can be read, so the export cannot be checked.")
    batch = np.stack(pictures)
    with torch.inference_mode():
        rgb = torch.from_numpy(batch).flip(3).permute(0, 3, 1, 2) / 255.0
        recipe = wrapped.recipe.model
        expected = wrapped.model(normalise(rgb, recipe.mean, recipe.std))[0].sigmoid().numpy()
    difference = float(np.abs(tagger.scores(batch) - expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"The exported model differs from PyTorch by {difference:.2g} on {len(batch)} pictures, more than "
            f"{MAX_DIFFERENCE:g}, so it was not written. Please report the backbone and the versions that efuda "
            "doctor prints."
        )


def _timm_config(model: TagModel, recipe: Recipe, tags: int) -> dict[str, Any]:
    return {
        "architecture": recipe.model.backbone.split("/", 1)[1],
        "num_classes": tags,
        "num_features": model.features,
        "pretrained_cfg": {
            "tag": "efuda",
            "custom_load": False,
            "input_size": [3, recipe.model.size, recipe.model.size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "border",
            "mean": list(recipe.model.mean),
            "std": list(recipe.model.std),
            "num_classes": tags,
            "classifier": model.classifier,
        },
    }


def _card(run: Run, recipe: Recipe, padded: bool, others: bool) -> str:
    test = run.marker.counts["test_at_0.5"]
    ratings = "Ratings were not learned: their four columns are always 0.\n" if padded else ""
    more = "Copyright, artist and meta tags (`other_tags.csv`) are predicted by efuda only.\n" if others else ""
    return f"""---
library_name: timm
tags: [image-tagging, danbooru, wd-tagger, efuda]
---
# {run.root.resolve().name}

A multi-label tagger for illustrations: `{recipe.model.backbone}` at {recipe.model.size} pixels,
{len(run.vocabulary):,} tags, trained on {run.marker.counts["pictures"]:,} pictures with efuda {version("efuda")}.

`model.onnx` and `selected_tags.csv` are laid out as those of the WD taggers: float32 [n, {recipe.model.size},
{recipe.model.size}, 3], BGR, 0–255, transparency on white, padded to a white square, bicubic; probabilities out.
{ratings}{more}
On the test split at the threshold 0.5: micro precision {test["micro_precision"]:.4f}, recall
{test["micro_recall"]:.4f}, F1 {test["micro_f1"]:.4f}; macro F1 {test["macro_f1"]:.4f}; mAP {test["map"]:.4f} over the
{test["tags"]} tags that occur there.

    efuda tag PICTURES --model {run.root.resolve().name}
"""
