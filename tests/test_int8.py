"""8-bit integers: the file that is written, layers that cannot bear it, and a model directory that loses little."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_tagging import wd_directory

from efuda.artifacts import Dataset, Model, Run
from efuda.cli import main
from efuda.errors import ArtifactError, ExportError, InputError, UsageError
from efuda.evaluation import quantise
from efuda.tagging import Tagger
from efuda.tagging import int8 as int8_module
from efuda.tagging.int8 import Quantiser, needs_reduced_range, pictures_a_second


def two_convolutions(path: Path) -> Path:
    """NHWC [n, 4, 4, 3] → two 1×1 convolutions → the mean. The third channel between them is large, and is ignored."""
    first = np.zeros((3, 3, 1, 1), np.float32)
    first[0, 0], first[1, 1], first[2, 2] = 1.0, -0.5, 1000.0
    second = np.zeros((2, 3, 1, 1), np.float32)
    second[0, 0], second[1, 1] = 1.0, 2.0
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "first"], ["between"], name="one"),
            helper.make_node("Conv", ["between", "second"], ["mixed"], name="two"),
            helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["output"]),
        ],
        "convolutions",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4, 4, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def batches(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((8, 4, 4, 3), dtype=np.float32) for _ in range(count)]


def run_file(path: Path, batch: np.ndarray) -> np.ndarray:
    found: np.ndarray = onnxruntime.InferenceSession(str(path)).run(None, {"input": batch})[0]
    return found


@pytest.fixture
def quantiser(tmp_path: Path) -> Quantiser:
    return Quantiser(two_convolutions(tmp_path / "model.onnx"), batches(), reduced_range=False)


# The file


def test_unsigned_activations_and_signed_weights_with_a_scale_a_channel(quantiser: Quantiser, tmp_path: Path) -> None:
    quantiser.write(tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [
        node for node in graph.node if node.op_type == "DequantizeLinear" and values.get(node.input[0]) is not None
    ]
    assert [values[node.input[0]].dtype for node in weights] == [np.int8, np.int8]
    assert [values[node.input[1]].shape for node in weights] == [(3,), (2,)]
    exact = np.array([1.0, -0.5, 1000.0])
    stored = values[weights[0].input[0]].reshape(3, 3).astype(np.float64) * values[weights[0].input[1]][:, None]
    assert np.diag(stored) == pytest.approx(exact, rel=1 / 127)
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations and {values[node.input[2]].dtype.name for node in activations} == {"uint8"}


def test_seven_bits_where_products_would_overflow(tmp_path: Path) -> None:
    narrow = Quantiser(two_convolutions(tmp_path / "model.onnx"), batches(), reduced_range=True)
    narrow.write(tmp_path / "int8.onnx")
    values = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    assert max(int(np.abs(one.astype(np.int32)).max()) for one in values if one.dtype == np.int8 and one.ndim) <= 64


def test_which_processors_need_seven_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module.platform, "machine", lambda: "x86_64")
    for flags, expected in (("sse2 avx2", True), ("avx2 avx512_vnni", False), ("avx2 avx_vnni", False)):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags: {flags}\n")
        assert needs_reduced_range(tmp_path / "cpuinfo") is expected
    assert needs_reduced_range(tmp_path / "absent")
    monkeypatch.setattr(int8_module.platform, "machine", lambda: "arm64")
    assert not needs_reduced_range(tmp_path / "absent")


def test_the_layer_that_cannot_bear_it_is_the_first_to_be_kept(quantiser: Quantiser, tmp_path: Path) -> None:
    # 8 bits between the convolutions have steps of about 1000/255 = 4, in which values up to 1 vanish; what goes into
    # the first one has steps of 1/255.
    assert quantiser.layers == ("one", "two")
    assert quantiser.by_sensitivity() == ["two", "one"]
    (batch,) = batches(1)
    exact = run_file(tmp_path / "model.onnx", batch)
    quantiser.write(tmp_path / "all.onnx")
    quantiser.write(tmp_path / "kept.onnx", keep=["two"])
    assert np.abs(run_file(tmp_path / "all.onnx", batch) - exact).max() > 0.1
    assert np.abs(run_file(tmp_path / "kept.onnx", batch) - exact).max() < 0.01


def test_models_that_cannot_be_quantised(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"broken.onnx cannot be prepared"):
        Quantiser(tmp_path / "broken.onnx", batches())
    with pytest.raises(ExportError, match="no picture to calibrate"):
        Quantiser(two_convolutions(tmp_path / "model.onnx"), [])


def test_speed_is_measured_in_turn(tmp_path: Path) -> None:
    tagger = Tagger.open(wd_directory(tmp_path / "wd", fixed_batch=False))
    speeds = pictures_a_second((tagger, tagger), np.zeros((4, 32, 32, 3), np.float32), rounds=2)
    assert len(speeds) == 2 and min(speeds) > 0


# The directory


def test_directory_is_whole_and_its_outputs_are_the_same(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    made = quantise(model.root, dataset, tmp_path / "int8", max_loss=0.05)
    names = {path.name for path in model.root.iterdir()}
    assert {path.name for path in made.root.iterdir()} == names - {"model.safetensors"} | {"int8.json"}
    before, after = (
        onnxruntime.InferenceSession(str(root / "model.onnx")).get_outputs() for root in (model.root, made.root)
    )
    assert [(one.name, one.shape) for one in after] == [(one.name, one.shape) for one in before]
    quantised = Tagger.open(made.root)
    assert quantised.vocabulary == model.vocabulary and quantised.calibrated
    assert made.bytes[1] < made.bytes[0] / 2
    assert made.loss <= 0.05 and made.pictures == 29 and made.tags == 7
    said = json.loads((made.root / "int8.json").read_text())
    assert said == Model.open(made.root).marker.counts["int8"]
    assert said["loss"] == pytest.approx(made.loss, abs=1e-6)
    falls = [before - after for before, after in (made.macro_f1["test"], made.micro_f1["test"])]
    assert made.loss == max(falls) and said["micro_f1"]["test"] == pytest.approx(made.micro_f1["test"], abs=1e-6)
    assert "8-bit integers" in (made.root / "README.md").read_text()


def test_what_loses_too_much_is_not_written(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"loses .* more than -2, even with the \d+ most sensitive of its \d+ layers"):
        quantise(model.root, dataset, tmp_path / "int8", max_loss=-2.0)
    assert [*(tmp_path / "int8").iterdir()] == []


def test_a_wd_model_is_judged_on_the_tags_that_it_shares(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    theirs = tmp_path / "wd"
    theirs.mkdir()
    for name in ("model.onnx", "selected_tags.csv"):
        shutil.copyfile(model.root / name, theirs / name)
    made = quantise(theirs, dataset, tmp_path / "int8", max_loss=0.05)
    assert {path.name for path in made.root.iterdir()} == {"model.onnx", "selected_tags.csv", "int8.json"}
    assert made.tags == 7 and Tagger.open(made.root).layout == "wd"
    strangers = wd_directory(tmp_path / "strangers", fixed_batch=False)
    with pytest.raises(InputError, match="knows none of the tags"):
        quantise(strangers, dataset, tmp_path / "other")
    with pytest.raises(UsageError, match="is the model itself"):
        quantise(theirs, dataset, theirs)


def test_command(
    run: Run,
    model: Model,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def efuda(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["efuda", "-q", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        done = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, done.out, done.err

    monkeypatch.setattr("efuda.evaluation.quantising.MAX_LOSS", 0.05)
    code, out, err = efuda("export", run.root, "--out", tmp_path / "int8", "--int8", "--json")
    assert code == 0, err
    assert json.loads(out)["loss"] <= 0.05
    assert Tagger.open(tmp_path / "int8").calibrated
    assert not [path for path in (tmp_path / "int8").iterdir() if path.name.startswith(".")]
    code, _, err = efuda("export", model.root, "--out", tmp_path / "other", "--int8")
    assert code == 2 and "--dataset" in err
    assert efuda("export", run.root, "--out", tmp_path / "other", "--dataset", dataset.root)[0] == 2
