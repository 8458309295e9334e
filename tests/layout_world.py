"""A model as small as can be in every layout: real ONNX files whose scores follow from the mean of each colour."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["LAYOUTS", "SIDE", "TAGS", "weigh", "write_network"]

SIDE = 32
TAGS = 6


def weigh(tags: int = TAGS) -> tuple[np.ndarray, np.ndarray]:
    """What turns the three means into logits: [3, tags], [tags]; small, so that no score is 0 or 1."""
    rng = np.random.default_rng(tags)
    return rng.normal(0, 0.5, (3, tags)).astype(np.float32), rng.normal(0, 1, tags).astype(np.float32)


def write_network(
    path: Path,
    *,
    last: bool = False,
    outputs: Sequence[str] = ("logits",),
    probabilities: Sequence[str] = (),
    scale: float = 1.0,
    batch: int | str = "batch",
    side: int | str = SIDE,
    tags: int = TAGS,
    apart: bool = False,
) -> Path:
    """An ONNX file.

    Args:
        last: whether the colours are the last axis.
        outputs: in this order; those in `probabilities` are sigmoids, "embedding" the means, others the logits. An
            output "initial" is the logits with their sign turned.
        apart: whether its weights stand in `<name>.data`.
    """
    weights, bias = weigh(tags)
    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["embedding"], axes=[1, 2] if last else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["embedding", "weights"], ["weighed"]),
        helper.make_node("Add", ["weighed", "bias"], ["sum"]),
    ]
    for name in outputs:
        if name != "embedding":
            kind = "Sigmoid" if name in probabilities else "Neg" if name == "initial" else "Identity"
            nodes.append(helper.make_node(kind, ["sum"], [name]))
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3 if name == "embedding" else tags])
        for name in outputs
    ]
    stored = [numpy_helper.from_array(weights / scale, "weights"), numpy_helper.from_array(bias, "bias")]
    taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    made = helper.make_model(
        helper.make_graph(nodes, "tiny", taken, given, stored),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if apart:
        onnx.save(made, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    else:
        onnx.save(made, path)
    return path


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _wd(root: Path) -> None:
    write_network(root / "model.onnx", last=True, outputs=["output"], probabilities=["output"], scale=255)
    ratings = [(row, name, 9, 10) for row, name in enumerate(("general", "sensitive", "questionable", "explicit"))]
    rows = [*ratings, (4, "1girl", 0, 9), (5, "hatsune_miku", 4, 3)]
    _csv(root / "selected_tags.csv", ["tag_id", "name", "category", "count"], rows)


def _animetimm(root: Path) -> None:
    outputs = ["embedding", "logits", "prediction"]
    write_network(root / "model.onnx", outputs=outputs, probabilities=["prediction"], side="side")
    rows = [
        ["general", 9, 0.2, ""],
        ["1girl", 0, 0.3, 0.61],
        ["long_hair", 0, 0.3, ""],
        ["hatsune_miku", 4, 0.3, 0.42],
        ["kagamine_rin", 4, 0.3, ""],
        ["explicit", 9, 0.2, 0.7],
    ]
    _csv(root / "selected_tags.csv", ["name", "category", "test_f1", "best_threshold"], rows)
    _json(
        root / "categories.json",
        [{"category": c, "name": n} for c, n in ((0, "general"), (4, "character"), (9, "rating"))],
    )
    fitted = [
        [0, "general", 1.0, 0.33, 0.5, 0.5, 0.5],
        [4, "character", 0.5, 0.9, 0, 0, 0],
        [4, "character", 1.0, 0.44, 0, 0, 0],
    ]
    _csv(root / "thresholds.csv", ["category", "name", "alpha", "threshold", "f1", "precision", "recall"], fitted)
    stages = [
        {"type": "pad_to_size", "size": [40, 40], "background_color": "white", "interpolation": "bilinear"},
        {"type": "resize", "size": SIDE, "interpolation": "bicubic", "antialias": True, "max_size": None},
        {"type": "center_crop", "size": [SIDE, SIDE]},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": [0.48, 0.46, 0.4], "std": [0.27, 0.26, 0.28]},
    ]
    _json(root / "preprocess.json", {"pre": [], "test": stages, "val": stages})


_CL = [
    ("general", "Rating"),
    ("1girl", "General"),
    ("hatsune miku", "Character"),
    ("vocaloid", "Copyright"),
    ("best quality", "Quality"),
    ("wlop", "Artist"),
]


def _cl_tagger(root: Path) -> None:
    write_network(root / "model_optimized.onnx")
    write_network(root / "model.onnx", side=64)  # the repository has both; the first is the one that clients use
    listed = {str(row): {"tag": name, "category": kind} for row, (name, kind) in enumerate(_CL)}
    _json(root / "tag_mapping.json", dict(reversed(listed.items())))


def _cl_tagger_v2(root: Path) -> None:
    write_network(root / "model.onnx", outputs=["embedding", "logits"], apart=True)
    names = [name for name, _ in _CL]
    tables = {
        "idx_to_tag": {str(row): name for row, name in enumerate(names)},
        "tag_to_idx": {name: row for row, name in enumerate(names)},
        "tag_to_category": dict(_CL),
    }
    _json(root / "model_vocabulary.json", tables)
    _json(root / "model_metadata.json", {"default_threshold": 0.55})


def _camie(root: Path) -> None:
    write_network(root / "camie-tagger-v2.onnx", outputs=["initial", "refined"])
    kinds = [
        ("rating_general", "rating"),
        ("1girl", "general"),
        ("year_2024", "year"),
        ("vocaloid", "copyright"),
        ("wlop", "artist"),
        ("highres", "meta"),
    ]
    mapping = {"idx_to_tag": {str(row): name for row, (name, _) in enumerate(kinds)}, "tag_to_category": dict(kinds)}
    _json(
        root / "camie-tagger-v2-metadata.json",
        {"model_info": {"img_size": SIDE}, "dataset_info": {"total_tags": TAGS, "tag_mapping": mapping}},
    )


def _joytag(root: Path) -> None:
    write_network(root / "model.onnx", outputs=["tags"])
    (root / "top_tags.txt").write_text("1girl\nsolo\nlong_hair\n:3\no_o\nhat\n", encoding="utf-8")
    _json(root / "config.json", {"class": "ViT", "image_size": SIDE, "n_tags": TAGS})


def _deepdanbooru(root: Path) -> None:
    write_network(root / "deepdanbooru-v3.onnx", last=True, outputs=["output"], probabilities=["output"], batch=1)
    (root / "tags.txt").write_text("1girl\nhat\nhatsune_miku\nrating:general\nrating:explicit\nsystem_tag\n")
    starts = [("General", 0), ("Character", 2), ("System", 3)]
    _json(root / "categories.json", [{"name": name, "start_index": start} for name, start in starts])
    (root / "tags-character.txt").write_text("hatsune_miku\n")
    _json(root / "project.json", {"image_width": SIDE, "image_height": SIDE, "model": "resnet_custom_v3"})


def _ml_danbooru(root: Path) -> None:
    write_network(root / "TResnet-D-FLq_ema_6-30000.onnx", outputs=["output"])
    _json(root / "class.json", {str(row): name for row, name in enumerate(("1girl", "hat", "o_o", "a", "b", "c"))})


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "wd": _wd,
    "animetimm": _animetimm,
    "cl_tagger": _cl_tagger,
    "cl_tagger_v2": _cl_tagger_v2,
    "camie": _camie,
    "joytag": _joytag,
    "deepdanbooru": _deepdanbooru,
    "ml-danbooru": _ml_danbooru,
}
