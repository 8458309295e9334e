"""A vocabulary of a few known tags, and results on it written as {tag: score}: for what needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from efuda.tagging import Chooser, Chosen, Rules, Tagged
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

GENERAL = [
    *("1girl", "2girls", "1boy", "long_hair", "very_long_hair", "short_hair", "blue_eyes", "red_eyes", "green_eyes"),
    *("heterochromia", "smile", "^_^", "||_||", ":d", "re:zero"),
]
VOCABULARY = Vocabulary(
    [
        *(Tag(name, Category.RATING) for name in RATINGS),
        *(Tag(name) for name in GENERAL),
        *(Tag(name, Category.CHARACTER) for name in ("saber_(fate)", "rin_(swimsuit)_(fate)", "hatsune_miku")),
        Tag("fate", Category.COPYRIGHT),
        Tag("some_artist", Category.ARTIST),
        Tag("highres", Category.META),
    ]
)


def fake_tagger(root: Path = Path("nowhere"), **thresholds: float) -> Any:
    """A tagger that scores nothing; every threshold is 0.5 but those named."""
    limits = np.full(len(VOCABULARY), 0.5, np.float32)
    for name, value in thresholds.items():
        limits[VOCABULARY.index[name]] = value
    return SimpleNamespace(
        vocabulary=VOCABULARY, thresholds=limits, root=root, layout="wd", calibrated=False, name="fake"
    )


def constant_tagger(root: Path, scores: Mapping[str, float]) -> None:
    """A WD directory whose network gives every picture these scores, and 0 to the other tags."""
    root.mkdir()
    VOCABULARY.write_csv(root / "selected_tags.csv")
    said = np.zeros((1, len(VOCABULARY)), np.float32)
    for name, score in scores.items():
        said[0, VOCABULARY.index[name]] = score
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Mul", ["column", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "said"], ["output"]),
    ]
    constants = {"one": np.array([1], np.int64), "nothing": np.zeros((1, 1), np.float32), "said": said}
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(VOCABULARY)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), root / "model.onnx")


def tagged(scores: Mapping[str, float], path: str = "a.jpg") -> Tagged:
    dense = np.zeros(len(VOCABULARY), np.float32)
    for name, score in scores.items():
        dense[VOCABULARY.index[name]] = score
    return Tagged.of(Path(path), (30, 20), dense)


def choose(scores: Mapping[str, float], rules: Rules | None = None, tagger: Any = None) -> Chosen:
    """What is said of one picture, which stands between two others in its batch."""
    chooser = Chooser(tagger or fake_tagger(), rules)
    others = [tagged({"smile": 0.9, "2girls": 0.8, "heterochromia": 0.7, "general": 0.6}), tagged({})]
    return chooser.choose([others[0], tagged(scores), others[1]])[1]


def names(scores: Mapping[str, float], rules: Rules | None = None, tagger: Any = None) -> list[str]:
    return [name for name, _, _ in choose(scores, rules, tagger).tags]
