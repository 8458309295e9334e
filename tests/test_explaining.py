"""Why a tag: heat maps by hand, in the picture's own pixels, exact where the file allows it, else by occlusion."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from layout_world import LAYOUTS, weigh
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from test_tagging import WD_TAGS

from efuda.artifacts import Dataset, Model
from efuda.cli import main
from efuda.errors import ArtifactError, InputError, UsageError
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.tagging import Tagger
from efuda.tagging.explaining import Explainer, Explanation, _placing, explain, overlay
from efuda.tagging.graphs import Graph
from efuda.tagging.int8 import Quantiser

SIDE = 32


def colour_tagger(root: Path, *, pool: str = "GlobalAveragePool", external: bool = False) -> Path:
    """A WD directory: the feature map is the picture's blue, green and red at 8×8, the tags are weights on them."""
    root.mkdir()
    WD_TAGS.write_csv(root / "selected_tags.csv")
    weight = np.zeros((7, 3), np.float32)
    weight[4, 0] = weight[6, 0] = weight[5, 2] = 0.1  # bluish and the character by blue, reddish by red
    bias = np.array([0, 0, 0, 0, -2, -2, -6], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["planes"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node(pool, ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"]),
            helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"], transB=1),
            helper.make_node("Sigmoid", ["logits"], ["output"]),
        ],
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 7])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = root / "model.onnx"
    onnx.save(made, path, save_as_external_data=external, location="model.onnx.data", size_threshold=0)
    return root


def picture(size: tuple[int, int], red: tuple[int, int, int, int]) -> Image.Image:
    """Black, with one red rectangle."""
    drawn = Image.new("RGB", size, "black")
    drawn.paste((200, 0, 0), red)
    return drawn


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger.open(colour_tagger(tmp_path_factory.mktemp("explain") / "colours"), threads=1)


# The file


def test_head_is_found_and_given_out(tagger: Tagger) -> None:
    path = tagger.root / "model.onnx"
    before = path.read_bytes()
    graph = Graph.read(path)
    head = graph.head()
    assert head is not None
    assert (head.feature_map, head.weight, head.bias, head.logits, head.transposed) == (
        "map",
        "weight",
        "bias",
        "logits",
        True,
    )
    data = graph.giving_out(head.names)
    assert [out.name for out in onnx.load_from_string(data).graph.output] == [
        "output",
        "map",
        "weight",
        "logits",
        "bias",
    ]
    session = onnxruntime.InferenceSession(data)
    batch = np.full((2, SIDE, SIDE, 3), 40, np.float32)
    output, seen = session.run(["output", "map"], {"input": batch})
    assert seen.shape == (2, 3, 8, 8) and (seen == 40).all()
    assert np.array_equal(output, tagger.scores(batch))
    assert path.read_bytes() == before


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    root = colour_tagger(tmp_path / "external", external=True)
    assert (root / "model.onnx.data").is_file()
    assert Explainer(Tagger.open(root)).method == "activation"


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x3a\xff\xff\xff\x7f")
    with pytest.raises(ArtifactError, match="cannot be read as an ONNX file"):
        Graph.read(tmp_path / "model.onnx")


# Activation


def test_heat_is_the_terms_of_the_logit(tagger: Tagger) -> None:
    found = explain(tagger, picture((SIDE, SIDE), (0, 0, 16, 8)), "reddish")
    assert (found.method, found.runs, found.heat.shape, found.heat.dtype) == ("activation", 1, (32, 32), np.float32)
    # Of 64 places 8 are red 200: the logit is 0.1 · 200 · 8 / 64 − 2 = 0.5, each of them gives 0.1 · 200 / 64.
    assert found.score == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-4)
    assert found.heat[2, 2] == pytest.approx(0.3125, abs=1e-4)
    assert found.heat[20, 20] == 0
    assert found.heat.sum() / 16 == pytest.approx(2.5, rel=0.05)  # a place is 16 pixels


def test_heat_lies_where_the_picture_does_without_its_padding(tagger: Tagger) -> None:
    # 128×64: padded to 128×128, so that the picture is rows 8 to 24 of the input. Red is its right upper quarter.
    found = explain(tagger, picture((128, 64), (64, 0, 128, 32)), "reddish")
    assert found.heat.shape == (64, 128)
    assert found.heat[:24, 80:120].min() > 0.25
    # The white padding speaks for red as well, and must not run into the picture.
    assert found.heat[44:, :].max() < 0.02 and found.heat[:, :48].max() < 0.05
    left, top, right, bottom = found.box
    assert abs(left - 64) <= 8 and top <= 2 and right == 128 and abs(bottom - 32) <= 8
    assert 64 <= found.peak[0] < 128 and found.peak[1] < 32


@pytest.mark.parametrize(
    ("preprocess", "size", "expected"),
    [
        (Preprocess(size=64), (100, 100), ((1, 0), (1, 0))),
        (Preprocess(size=64), (200, 100), ((1, 0), (0.5, 0.25))),
        (Preprocess(size=64), (150, 600), ((0.25, 0.375), (1, 0))),
        (Preprocess(size=64, fit="squash"), (200, 100), ((1, 0), (1, 0))),
    ],
)
def test_placing_is_found_by_looking(
    preprocess: Preprocess, size: tuple[int, int], expected: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    assert np.allclose(_placing(preprocess, size), expected, atol=0.01)


def test_a_trained_model_and_its_twin_in_8_bits(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    posts, trained = dataset.posts("test"), Tagger.open(model.root)
    shown = read_rgb(posts.read(0))
    tag = dataset.vocabulary[int(posts.tags(0)[0])].name
    assert Explainer(trained).method == "occlusion"  # a map of 2×2
    (exact,) = Explainer(trained).explain(shown, [tag], method="activation")
    theirs = tmp_path / "int8"
    theirs.mkdir()
    for path in model.root.iterdir():
        if path.is_file() and path.name != "model.onnx":
            (theirs / path.name).write_bytes(path.read_bytes())
    batch = np.stack([trained.preprocess.array(read_rgb(posts.read(post))) for post in range(8)])
    Quantiser(model.root / "model.onnx", [batch]).write(theirs / "model.onnx")
    (rounded,) = Explainer(Tagger.open(theirs)).explain(shown, [tag], method="activation")
    assert exact.method == rounded.method == "activation"
    assert np.corrcoef(exact.heat.ravel(), rounded.heat.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("family", LAYOUTS)
def test_every_layout_is_explained_at_its_own_preprocessing(family: str, tmp_path: Path) -> None:
    (tmp_path / family).mkdir()
    LAYOUTS[family](tmp_path / family)
    tagger = Tagger.open(tmp_path / family, threads=1)
    shown = picture((64, 64), (32, 0, 64, 32))
    name = tagger.vocabulary.names[1]
    found = explain(tagger, shown, name)
    scores = tagger.scores(tagger.preprocess.array(shown)[None])[0]
    assert found.score == pytest.approx(float(scores[1]), abs=1e-5)
    assert found.method == "activation" and found.heat.shape == (64, 64)
    inside, outside = found.heat[6:26, 38:58], found.heat[38:58, 6:26]
    red = weigh()[0][2 if tagger.preprocess.channels == "bgr" else 0, 1]
    assert (inside.mean() - outside.mean()) * red > 0  # the rest is black


# Occlusion


def test_other_models_are_explained_by_covering(tmp_path: Path) -> None:
    tagger = Tagger.open(colour_tagger(tmp_path / "max", pool="GlobalMaxPool"), threads=1)
    explainer = Explainer(tagger)
    shown = picture((128, 128), (96, 32, 128, 64))
    assert explainer.method == "occlusion"
    told: list[int] = []
    (found,) = explainer.explain(shown, ["reddish"], progress=lambda step, done, total=None, **_: told.append(done))
    assert (found.method, found.runs) == ("occlusion", explainer.runs(shown))
    assert told[-1] == found.runs - 2
    assert 96 <= found.peak[0] < 128 and 32 <= found.peak[1] < 64
    assert abs(found.heat[:, :60]).max() < 0.1 * found.heat.max()
    with pytest.raises(UsageError, match="explain it by occlusion"):
        explainer.explain(shown, ["reddish"], method="activation")


def test_occlusion_agrees_with_activation(tagger: Tagger) -> None:
    shown = picture((64, 64), (8, 40, 28, 60))
    by_terms, by_covering = (
        Explainer(tagger).explain(shown, ["reddish"], method=method)[0] for method in ("activation", "occlusion")
    )
    assert by_terms.score == pytest.approx(by_covering.score, abs=1e-3)
    assert np.corrcoef(by_terms.heat.ravel(), by_covering.heat.ravel())[0, 1] > 0.7


# What is said of it


def test_unknown_tags_name_the_nearest(tagger: Tagger) -> None:
    with pytest.raises(InputError, match=r"no tag 'redish'; near it: reddish"):
        explain(tagger, picture((32, 32), (0, 0, 8, 8)), "redish")


def test_a_low_score_is_explained_too(tagger: Tagger) -> None:
    found = explain(tagger, picture((32, 32), (0, 0, 8, 8)), "ao")
    assert found.score < 0.01 and not found.heat.any()


def test_peak_and_box_by_hand() -> None:
    heat = np.zeros((40, 60), np.float32)
    heat[10:20, 5:15], heat[30:35, 50:55], heat[12, 7] = 0.6, 0.9, 1.0
    found = Explanation("tag", 0.5, heat, "activation", 1)
    assert (found.peak, found.box) == ((7, 12), (5, 10, 15, 20))  # the other hot place does not touch it
    assert found.data()["box"] == [5, 10, 15, 20]


def test_overlay_has_the_size_of_the_picture_and_is_hot_where_the_heat_is(tagger: Tagger) -> None:
    shown = picture((96, 48), (0, 0, 24, 24))
    drawn = np.asarray(overlay(shown, explain(tagger, shown, "reddish")), dtype=int)
    assert drawn.shape == (48, 96, 3)
    assert drawn[6, 6, 0] > 200 > drawn[40, 90, 0]


def test_command(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture((64, 64), (0, 0, 24, 24)).save(tmp_path / "picture.png")

    def efuda(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["efuda", "explain", *map(str, arguments), "--model", str(tagger.root)])
        with pytest.raises(SystemExit) as left:
            main()
        done = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, done.out, done.err

    code, out, err = efuda(tmp_path / "picture.png", "reddish", "ao", "--out", tmp_path / "heat.png", "--json")
    assert code == 0, err
    first, second = json.loads(out)
    assert (first["tag"], first["method"], first["threshold"]) == ("reddish", "activation", 0.35)
    assert read_rgb(Path(first["out"])).size == (64, 64) and Path(first["out"]).name == "heat-reddish.png"
    assert Path(second["out"]).name == "heat-ao.png"
    code, out, err = efuda(tmp_path / "picture.png", "ao", "--out", tmp_path / "one.png", "--method", "occlusion")
    assert code == 0 and "By occlusion: " in err and (tmp_path / "one.png").is_file()
    assert "ao 0.002" in out and "below its threshold 0.850" in out
    assert efuda(tmp_path / "picture.png", "ao", "--method", "guess")[0] == 2
    assert efuda(tmp_path / "picture.png", "aoi")[0] == 3
