"""Training: the same weights however it was interrupted, weights loaded or refused, and its numbers by hand."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from efuda.artifacts import Dataset, Run
from efuda.datasets import prepare
from efuda.errors import Diverged, InputError, MismatchError, RecipeError, Stopped
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.recipes import LossRecipe, ModelRecipe, Recipe, TrainRecipe, load_recipe
from efuda.training import train
from efuda.training.loading import Batch, batches, filters_of, shuffled
from efuda.training.losses import per_picture
from efuda.training.model import build
from efuda.training.optim import averaged, optimizer, rate

Recipes = Callable[..., Recipe]
TIMM = ModelRecipe(backbone="timm/test_resnet", weights="none", size=64)


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)["model"]
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: the best and the last weights, and the log."""
    for name in ("best", "last"):
        ours, theirs = weights(one, name), weights(other, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tiny_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with everything random switched on, never stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(dataset, out, tiny_recipe(*BUSY))
    return out


BUSY = ["augment.rotate=10", "augment.shift=0.05", "model.dropout=0.1", "train.ema=0.9", "train.schedule=cosine"]


# The whole of it


def test_run_learns_the_grounds(run: Run) -> None:
    log = run.log()
    assert len(log) == 6
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert log[-1]["validation"]["micro_f1"] > 0.5
    assert run.marker.counts["tags"] == 7
    assert run.checkpoint("best").is_file() and run.checkpoint("last").is_file()
    assert (run.root / "report.html").is_file()
    assert load_recipe(str(run.root / "recipe.toml")).model_dump(mode="json") == run.marker.recipe


def test_reference_recipe_runs_on_few_pictures(dump: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        "reference",
        [
            "posts.every=3",
            "vocabulary.minimum_count=5",
            "images.exact_size=64",
            "model.size=64",
            "model.weights=none",
            "train.epochs=1",
            "train.batch=16",
            "train.workers=0",
        ],
    )
    prepared = prepare([dump / "metadata"], dump / "512px", tmp_path / "dataset", recipe, workers=1)
    finished = train(prepared, tmp_path / "run", recipe)
    assert finished.marker.recipe["model"]["backbone"] == "torchvision/resnet50"
    assert finished.marker.recipe["train"]["epochs"] == 1
    assert math.isfinite(finished.log()[0]["train_loss"])
    assert set(finished.marker.counts["test_at_0.5"]) >= {"micro_precision", "micro_recall", "micro_f1", "map"}


def test_finished_run_is_returned_at_once(run: Run, dataset: Dataset, tiny_recipe: Recipes) -> None:
    steps: list[str] = []
    before = run.checkpoint().stat().st_mtime_ns

    def progress(step: str, *_: Any, **__: Any) -> None:
        steps.append(step)

    again = train(dataset, run.root, tiny_recipe("train.epochs=6"), progress=progress)
    assert again.marker == run.marker
    assert steps == []
    assert run.checkpoint().stat().st_mtime_ns == before


def test_finished_run_does_not_mind_the_number_of_workers(run: Run, dataset: Dataset, tiny_recipe: Recipes) -> None:
    recipe = tiny_recipe("train.epochs=6", "train.workers=1", "calibrate.shrink=3")
    assert train(dataset, run.root, recipe).marker == run.marker


def test_finished_run_refuses_another_recipe(run: Run, dataset: Dataset, tiny_recipe: Recipes) -> None:
    with pytest.raises(MismatchError, match=r"train\.learning_rate changed"):
        train(dataset, run.root, tiny_recipe("train.epochs=6", "train.learning_rate=0.01"))


# Stopped and started again


def test_stop_at_a_step_and_go_on_is_bit_identical(
    undisturbed: Path, dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = tiny_recipe(*BUSY)
    for stop_at in (1, 3, 9, 1):  # within the first epoch, at its end, within the second
        left = iter(range(stop_at - 1, -1, -1))
        with pytest.raises(Stopped, match=r"step \d+ of 18.*run the same command again") as stopped:
            train(dataset, tmp_path / "run", recipe, stop=lambda left=left: next(left) == 0)
        assert stopped.value.exit_code == 0
        assert not (tmp_path / "run" / "efuda.json").exists()
    train(dataset, tmp_path / "run", recipe)
    assert_same_run(undisturbed, tmp_path / "run")


def test_kill_and_go_on_is_bit_identical(undisturbed: Path, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = [*TINY, *BUSY, "train.checkpoint_minutes=0.0001"]
    script = (
        "import sys; from pathlib import Path; from efuda.artifacts import Dataset\n"
        "from efuda.recipes import load_recipe; from efuda.training import train\n"
        "train(Dataset.open(Path(sys.argv[1])), Path(sys.argv[2]), load_recipe(None, sys.argv[3:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(dataset.root), str(out), *overrides])
    try:
        last = out / "checkpoints" / "last.pt"
        deadline = time.monotonic() + 60
        while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert last.is_file(), "a checkpoint within the first epoch"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "efuda.json").exists()
    train(dataset, out, load_recipe(None, overrides))
    assert_same_run(undisturbed, out)


def test_log_lost_between_checkpoint_and_log_is_written_again(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    (copy / "efuda.json").unlink()
    lines = (copy / "log.jsonl").read_text().splitlines(keepends=True)
    (copy / "log.jsonl").write_text("".join(lines[:-1]))
    again = train(dataset, copy, load_recipe(None, [*TINY, "train.epochs=6"]))
    assert again.log() == run.log()
    assert again.marker.counts["test_at_0.5"] == run.marker.counts["test_at_0.5"]


def test_begun_run_refuses_another_recipe_or_dataset(
    dump: Path, dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(dataset, out, tiny_recipe(), stop=lambda: True)
    with pytest.raises(MismatchError, match=r"augment\.flip, train\.batch changed"):
        train(dataset, out, tiny_recipe("train.batch=4", "augment.flip=0"))

    other_posts = tiny_recipe("split.seed=5")
    prepared = prepare([dump / "metadata"], dump / "512px", tmp_path / "other", other_posts, workers=1)
    with pytest.raises(MismatchError, match=r"begun with other posts than .* \d+ posts of test became \d+"):
        train(prepared, out, tiny_recipe())

    fewer_tags = tiny_recipe("vocabulary.minimum_count=35")
    prepared = prepare([dump / "metadata"], dump / "512px", tmp_path / "fewer", fewer_tags, workers=1)
    with pytest.raises(MismatchError, match=r"begun with other tags than .* 7 tags against \d, for example \w+"):
        train(prepared, out, tiny_recipe())


def test_loss_that_is_no_number_ends_with_diverged(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"The loss became (nan|inf) at step \d+ .*train\.learning_rate="):
        train(dataset, tmp_path / "run", tiny_recipe("train.learning_rate=1e30"))
    assert not (tmp_path / "run" / "efuda.json").exists()


def test_bf16_on_the_cpu(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe("train.precision=bf16", "train.epochs=1", "loss.reduction=sum", "train.optimizer=adamw")
    run = train(dataset, tmp_path / "run", recipe)
    assert math.isfinite(run.log()[0]["train_loss"])
    assert weights(run.root, "last")["head.weight"].dtype == torch.float32


# Weights


def test_weights_that_are_absent_are_an_error_and_never_random(
    dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"/no/such/file\.pth does not exist.*'none' for random weights"):
        train(dataset, tmp_path / "run", tiny_recipe("model.weights=/no/such/file.pth"))
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_torchvision_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # nothing listens there
    recipe = ModelRecipe(backbone="torchvision/resnet18", weights="IMAGENET1K_V1")
    with pytest.raises(InputError, match=r"cannot provide it .*Download https://download\.pytorch\.org/.*resnet18"):
        build(recipe, tags=3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(RecipeError, match="torchvision has no model 'resnet51'"):
        build(ModelRecipe(backbone="torchvision/resnet51", weights="none"), tags=3)
    with pytest.raises(RecipeError, match="timm has no model 'resnet_of_mine'; near it: "):
        build(ModelRecipe(backbone="timm/resnet_of_mine", weights="none"), tags=3)
    with pytest.raises(InputError, match="IMAGENET9K_V7"):
        build(ModelRecipe(backbone="torchvision/resnet18", weights="IMAGENET9K_V7"), tags=3)


def same_backbone(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("form", ["by name", "wrapped", "by key order", "safetensors"])
def test_weights_from_a_file(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = build(TIMM, tags=1000)
    state = source.library_state()
    path = tmp_path / "weights.pth"
    if form == "by name":
        torch.save(state, path)
    elif form == "wrapped":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    elif form == "by key order":
        torch.save({f"layer{number}": value for number, value in enumerate(state.values())}, path)
    else:
        from safetensors.torch import save_file

        path = tmp_path / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    torch.manual_seed(2)
    loaded = build(TIMM.model_copy(update={"weights": str(path)}), tags=3)
    assert same_backbone(source.backbone, loaded.backbone)
    assert loaded.head.weight.shape[0] == 3


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    state = build(TIMM, tags=3).library_state()
    name = next(name for name, value in state.items() if value.ndim == 4)
    torch.save({**state, name: torch.zeros(1, 2, 3, 4)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=rf"does not fit the backbone: 1 of \d+ tensors differ, first {name}"):
        build(TIMM.model_copy(update={"weights": str(tmp_path / "weights.pth")}), tags=3)


@pytest.mark.parametrize("content", [b"not weights at all", b""])
def test_file_that_holds_no_weights_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match="is not a file of weights"):
        build(TIMM.model_copy(update={"weights": str(tmp_path / "weights.pth")}), tags=3)


def test_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        build(TIMM.model_copy(update={"weights": str(tmp_path / "weights.pth")}), tags=3)


def test_head_starts_at_the_frequencies() -> None:
    model = build(TIMM, tags=3)
    model.start_head_at(torch.tensor([0.5, 0.2, 0.0]))
    assert model.head.bias.sigmoid().tolist() == pytest.approx([0.5, 0.2, 1e-4], rel=1e-4)


# Loss and learning rate


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 0.0]])  # 0.5 and 0.75; 0.25 and 0.5
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    a, b = -math.log(0.5), -math.log(0.75)
    assert per_picture(logits, labels, LossRecipe(reduction="mean")).tolist() == pytest.approx([(a + b) / 2] * 2)
    assert per_picture(logits, labels, LossRecipe(reduction="sum")).tolist() == pytest.approx([a + b] * 2)


def test_mean_loss_is_the_reference_s() -> None:
    logits, labels = torch.randn(5, 7), (torch.rand(5, 7) < 0.3).float()
    expected = torch.nn.BCEWithLogitsLoss()(logits, labels)
    assert torch.allclose(per_picture(logits, labels, LossRecipe()).mean(), expected)


def test_learning_rate_by_hand() -> None:
    constant = TrainRecipe(learning_rate=0.1)
    assert [rate(step, 10, constant) for step in (0, 5, 9)] == [0.1, 0.1, 0.1]
    warm = TrainRecipe(learning_rate=0.1, warmup=0.4)
    assert [rate(step, 10, warm) for step in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    cosine = TrainRecipe(learning_rate=1.0, schedule="cosine", warmup=0.2)
    assert [rate(step, 10, cosine) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.505, 0.01])


def test_averaged_weights_by_hand() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    mean = averaged(layer, 0.5)
    seen = []
    for value in (2.0, 3.0, 4.0):
        with torch.no_grad():
            layer.weight.fill_(value)
        mean.update_parameters(layer)
        seen.append(float(mean.module.weight.detach()))
    first = 2.0  # the first update copies; then 2/11 and 3/12 of what there was stay, never more than a half
    second = first * 2 / 11 + 3 * 9 / 11
    assert seen == pytest.approx([first, second, second * 3 / 12 + 4 * 9 / 12])


def test_weight_decay_spares_norms_and_biases_and_the_head_has_its_rate() -> None:
    model = build(TIMM, tags=3)
    groups = optimizer(model, TrainRecipe(weight_decay=0.1, head_rate=5.0), fused=False).param_groups
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.1}
        head = any(parameter is own for parameter in group["params"] for own in model.head.parameters())
        assert group["multiple"] == (5.0 if head else 1.0)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


# Loading


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("pictures", "rows", "tags"))


def test_batches_depend_on_neither_workers_nor_where_they_start(dataset: Dataset) -> None:
    posts, preprocess = dataset.posts("train"), Preprocess(size=64)
    order = shuffled(len(posts), seed=4, epoch=2)
    whole = list(batches(posts, order, preprocess, batch=16, workers=0))
    assert [len(one.pictures) for one in whole] == [16, 16, 16, 16, len(posts) - 64]
    by_worker = list(batches(posts, order, preprocess, batch=16, workers=1))
    later = list(batches(posts, order, preprocess, batch=16, workers=0, first=3))
    assert all(same(one, other) for one, other in zip(whole, by_worker, strict=True))
    assert all(same(one, other) for one, other in zip(whole[3:], later, strict=True))
    assert list(batches(posts, order, preprocess, batch=16, workers=0, first=5)) == []
    assert torch.equal(whole[0].labels(7, torch.device("cpu")).bool(), torch.from_numpy(posts.labels(order[:16], 7)))


def test_each_device_loads_its_part_and_only_that(dataset: Dataset) -> None:
    posts, preprocess = dataset.posts("train"), Preprocess(size=64)
    order = shuffled(len(posts), seed=4, epoch=0)
    whole = list(batches(posts, order, preprocess, batch=16, workers=0))
    parts = [list(batches(posts, order, preprocess, batch=16, workers=0, part=part)) for part in ((0, 6), (6, 16))]
    assert [len(one) for one in parts] == [len(whole)] * 2  # the same number of steps, some of them empty
    for one, left, right in zip(whole, *parts, strict=True):
        assert torch.equal(one.pictures, torch.cat([part.pictures for part in (left, right) if len(part.pictures)]))


def test_filters_follow_from_seed_epoch_and_place(dataset: Dataset) -> None:
    posts, order, names = dataset.posts("train"), np.arange(40), ("nearest", "lanczos")
    chosen = filters_of(40, names, seed=1, epoch=0)
    assert set(chosen.tolist()) == {0, 1}
    assert np.array_equal(chosen, filters_of(40, names, seed=1, epoch=0))
    assert not np.array_equal(chosen, filters_of(40, names, seed=1, epoch=1))
    (one,) = batches(posts, order, Preprocess(size=32), batch=40, workers=0, filters=names, chosen=chosen)
    for place in range(40):
        preprocess = Preprocess(size=32, interpolation=names[chosen[place]])
        expected = preprocess.square(read_rgb(posts.read(place)))
        assert np.array_equal(one.pictures[place].numpy(), expected)


def test_large_jpegs_are_decoded_small_for_training_only(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    picture = Image.fromarray(noise).resize((800, 1200), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "large.jpg", quality=95)
    whole, small = read_rgb(tmp_path / "large.jpg"), read_rgb(tmp_path / "large.jpg", reduce_to=128)
    assert whole.size == (800, 1200) and small.size == (100, 150)
    assert read_rgb(tmp_path / "large.jpg", reduce_to=1100).size == (800, 1200)
    picture.save(tmp_path / "large.png")
    assert read_rgb(tmp_path / "large.png", reduce_to=128).size == (800, 1200)
    square = Preprocess(size=64)
    difference = np.abs(square.square(whole).astype(int) - square.square(small).astype(int))
    assert difference.mean() < 2  # of 255


def test_order_follows_from_seed_and_epoch() -> None:
    assert np.array_equal(shuffled(50, seed=1, epoch=0), shuffled(50, seed=1, epoch=0))
    assert not np.array_equal(shuffled(50, seed=1, epoch=0), shuffled(50, seed=1, epoch=1))
    assert sorted(shuffled(50, seed=1, epoch=0)) == list(range(50))


def test_picture_that_vanished_is_left_out_and_counted(dump: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    shutil.copytree(dump / "512px", tmp_path / "512px")
    prepared = prepare([dump / "metadata"], tmp_path / "512px", tmp_path / "dataset", tiny_recipe(), workers=1)
    posts = prepared.posts("train")
    posts.picture_path(0).unlink()
    Image.new("RGB", (64, 64)).save(posts.picture_path(1))
    (one,) = batches(posts, np.arange(3), Preprocess(size=64), batch=3, workers=0)
    assert one.failed == 1 and len(one.pictures) == 2
    assert set(one.rows.tolist()) == {0, 1}
    (none,) = batches(posts, np.arange(1), Preprocess(size=64), batch=3, workers=0)
    assert none.failed == 1 and len(none.pictures) == 0


def test_checkpoint_of_a_diverged_run_is_kept(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe("train.learning_rate=1e30", "train.checkpoint_minutes=1e-9")
    with pytest.raises(Diverged):
        train(dataset, tmp_path / "run", recipe)
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(Diverged):
        train(dataset, tmp_path / "run", recipe)
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before
