"""Tagging: our directories and the WD family's, pictures in order, failures that stop nothing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import draw
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from efuda.artifacts import Model
from efuda.errors import ArtifactError, MismatchError
from efuda.images import read_rgb
from efuda.tagging import Failed, Tagged, Tagger, tag
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

WD_TAGS = Vocabulary(
    [*(Tag(name, Category.RATING) for name in RATINGS), Tag("bluish"), Tag("reddish"), Tag("ao", Category.CHARACTER)]
)


def wd_directory(root: Path, *, fixed_batch: bool, tags: Vocabulary = WD_TAGS, size: int = 32) -> Path:
    """A tagger as small as can be: the scores follow from the mean blue and red. v2 names, or those of v3."""
    root.mkdir()
    tags.write_csv(root / "selected_tags.csv")
    # BGR means in 0–255 → ratings 0.5; bluish when B > 128; reddish when R > 128; the character when B > 200.
    weights = np.zeros((3, 7), np.float32)
    weights[0, 4] = weights[2, 5] = weights[0, 6] = 0.1
    bias = np.array([0, 0, 0, 0, -12.8, -12.8, -20], np.float32)
    names = ("input_1:0", "predictions_sigmoid") if fixed_batch else ("input", "output")
    batch: int | str = 1 if fixed_batch else "batch"
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [names[0]], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["weighed"]),
            helper.make_node("Add", ["weighed", "bias"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], [names[1]]),
        ],
        "wd",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, size, size, 3])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, 7])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, root / "model.onnx")
    return root


@pytest.fixture(scope="module")
def tagger(model: Model) -> Tagger:
    return Tagger.open(model.root, threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Twelve pictures of different sizes and formats, in no alphabetical order."""
    rng, paths = random.Random(3), []
    for number in range(12):
        suffix = ("jpg", "png", "webp")[number % 3]
        path = tmp_path / "pictures" / f"{(7 * number) % 12:02d}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        drawn = draw(rng.choice(["red", "green", "blue", "white"]), rng.choice(["circle", "square"]), rng)
        drawn.resize((40 + 5 * number, 64)).save(path)
        paths.append(path)
    return paths


# Opening


def test_our_own_directory(model: Model, tagger: Tagger) -> None:
    fitted = model.thresholds()
    assert fitted is not None
    assert (tagger.layout, tagger.batch, tagger.calibrated) == ("efuda", None, True)
    assert tagger.vocabulary == model.vocabulary
    assert tagger.thresholds.tolist() == pytest.approx([row.threshold for row in fitted])
    assert tagger.name == "model"
    assert tagger.identity.startswith("model@") and len(tagger.identity) == len("model@") + 12


@pytest.mark.parametrize("fixed_batch", [True, False], ids=["v2", "v3"])
def test_directory_of_the_wd_family(fixed_batch: bool, tmp_path: Path) -> None:
    tagger = Tagger.open(wd_directory(tmp_path / "wd", fixed_batch=fixed_batch))
    assert (tagger.layout, tagger.batch, tagger.calibrated) == ("wd", 1 if fixed_batch else None, False)
    assert tagger.preprocess.size == 32
    assert tagger.thresholds[4:].tolist() == pytest.approx([0.35, 0.35, 0.85])
    colours = {"red.png": (255, 0, 0), "blue.png": (0, 0, 255), "dim.png": (0, 0, 150)}
    for name, colour in colours.items():
        Image.new("RGB", (50, 50), colour).save(tmp_path / name)
    red, blue, dim = tag(tagger, [tmp_path / name for name in colours])
    assert isinstance(red, Tagged) and isinstance(blue, Tagged) and isinstance(dim, Tagged)
    assert [name for name, _ in red.present(tagger)] == ["reddish"]
    assert [name for name, _ in blue.present(tagger)] == ["bluish", "ao"]
    assert [name for name, _ in dim.present(tagger)] == ["bluish"]
    assert dim.dense(7)[4] == pytest.approx(1 / (1 + np.exp(-2.2)), abs=1e-5)
    assert dim.ratings(tagger) == pytest.approx(dict.fromkeys(RATINGS, 0.5), abs=1e-5)


def test_one_threshold_for_all(tagger: Tagger) -> None:
    high = tagger.with_threshold(0.99)
    assert set(high.thresholds.tolist()) == {np.float32(0.99)}
    assert high.identity == tagger.identity


def test_directory_without_a_model(tmp_path: Path, model: Model) -> None:
    with pytest.raises(ArtifactError, match=r"holds no model\.onnx"):
        Tagger.open(tmp_path)
    shutil.copy(model.root / "model.onnx", tmp_path)
    with pytest.raises(ArtifactError, match=r"no selected_tags\.csv"):
        Tagger.open(tmp_path)


def test_truncated_model(model: Model, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.root, copy)
    whole = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be loaded"):
        Tagger.open(copy)
    (copy / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError):
        Tagger.open(copy)


@pytest.mark.parametrize("layout", ["efuda", "wd"])
def test_tag_list_of_another_length(layout: str, model: Model, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    if layout == "wd":
        wd_directory(copy, fixed_batch=False)
    else:
        shutil.copytree(model.root, copy)
    lines = (copy / "selected_tags.csv").read_text().splitlines(keepends=True)
    (copy / "selected_tags.csv").write_text("".join(lines[:-1]))
    with pytest.raises(MismatchError, match=r"selected_tags\.csv|tag list"):
        Tagger.open(copy)


def test_thresholds_of_other_tags(model: Model, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.root, copy)
    path = copy / "tag_thresholds.csv"
    path.write_text(path.read_text().replace("circle,", "sphere,"))
    with pytest.raises(MismatchError, match=r"lists other tags than the model\. Run: efuda calibrate"):
        Tagger.open(copy)


@pytest.mark.parametrize("shape", [["batch", 3, 32, 32], ["batch", 12]])
def test_model_that_is_no_wd_tagger(shape: list[int | str], tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["input"], ["output"])], "other", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, tmp_path / "model.onnx")
    Vocabulary([Tag(str(number)) for number in range(12)]).write_csv(tmp_path / "selected_tags.csv")
    with pytest.raises(ArtifactError, match="no tagger of the WD family"):
        Tagger.open(tmp_path)


# The pipeline


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (5, 3), (64, 2)])
def test_order_is_kept_and_scores_do_not_depend_on_the_batch(
    batch: int, workers: int, tagger: Tagger, pictures: list[Path]
) -> None:
    results = list(tag(tagger, pictures, batch=batch, workers=workers))
    assert [result.path for result in results] == pictures
    for result in results:
        assert isinstance(result, Tagged)
        picture = read_rgb(result.path)
        alone = tagger.scores(tagger.preprocess.array(picture)[None])[0]
        assert result.size == picture.size
        assert np.allclose(result.dense(len(alone)), np.where(alone < 0.01, 0, alone), atol=2e-5)


def test_unreadable_pictures_fail_alone(tagger: Tagger, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "half.png").write_bytes(pictures[1].read_bytes()[:200])
    listed = [tmp_path / "text.jpg", *pictures[:3], tmp_path / "half.png", pictures[3], tmp_path / "absent.jpg"]
    results = list(tag(tagger, listed, batch=2))
    assert [result.path for result in results] == listed
    assert [isinstance(result, Failed) for result in results] == [True, False, False, False, True, False, True]
    assert all(result.reason for result in results if isinstance(result, Failed))


def test_nothing_to_tag(tagger: Tagger) -> None:
    assert list(tag(tagger, [])) == []


def test_pictures_are_read_a_few_batches_ahead_only(tagger: Tagger, pictures: list[Path]) -> None:
    taken = 0

    def counted() -> object:
        nonlocal taken
        for path in pictures:
            taken += 1
            yield path

    results = tag(tagger, counted(), batch=1)  # type: ignore[arg-type]
    next(results)
    assert taken <= 16
    results.close()  # type: ignore[attr-defined]


def test_present_is_best_first_at_the_thresholds(tagger: Tagger) -> None:
    scores = np.array([0.9, 0.99, 0.0, 0.95, 0.0, 0.0, 0.0], np.float32)
    result = Tagged.of(Path("one.jpg"), (64, 64), scores)
    names = tagger.vocabulary.names
    assert [name for name, _ in result.present(tagger)] == [names[1], names[3], names[0]]
    on_the_edge = Tagged.of(Path("one.jpg"), (64, 64), tagger.thresholds)
    assert len(on_the_edge.present(tagger)) == 7
    assert result.ratings(tagger) == {}
