"""Heads, earlier runs to begin from, sides that rise, and optimisers: what a recipe can ask of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from efuda.artifacts import Dataset, Run
from efuda.datasets import prepare
from efuda.errors import ArtifactError, MismatchError, MissingExtra, RecipeError
from efuda.recipes import ModelRecipe, Recipe, TrainRecipe, load_recipe
from efuda.training import export, train
from efuda.training.model import begin_from, build
from efuda.training.optim import optimizer, rate

Recipes = Callable[..., Recipe]
DECODER = ["model.head=ml-decoder", "model.decoder_width=32", "model.decoder_groups=3"]


def make(backbone: str, *, tags: int = 7, head: str = "ml-decoder", size: int = 64, groups: int = 3) -> torch.nn.Module:
    recipe = ModelRecipe(
        backbone=backbone, weights="none", head=head, size=size, decoder_width=32, decoder_groups=groups
    )
    return build(recipe, tags)


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/test_vit", "timm/test_convnext", "timm/resnet10t"])
@pytest.mark.parametrize("head", ["linear", "ml-decoder"])
def test_every_kind_of_backbone_takes_every_head(backbone: str, head: str) -> None:
    model = make(backbone, head=head).eval()
    logits, embedding = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    assert torch.allclose(embedding, model.backbone(torch.rand(2, 3, 64, 64)).new_tensor(embedding.tolist()))
    assert embedding.shape == (2, model.features)


def test_a_decoder_s_groups_answer_for_all_tags_and_no_more() -> None:
    for tags, groups in ((7, 3), (6, 3), (2, 5)):
        model = make("timm/test_resnet", tags=tags, groups=groups).eval()
        logits, _ = model(torch.rand(2, 3, 64, 64))
        assert logits.shape == (2, tags)
        model.start_head_at(torch.full((tags,), 0.25))
        assert model.head.bias.sigmoid().tolist() == pytest.approx([0.25] * tags)


def test_a_decoder_needs_a_feature_map() -> None:
    with pytest.raises(RecipeError, match=r"torchvision/resnet18 does not give\. Use .*timm/resnet18"):
        make("torchvision/resnet18")
    with pytest.raises(RecipeError, match=r"model\.drop_path: torchvision's networks have no such setting"):
        build(ModelRecipe(backbone="torchvision/resnet18", weights="none", drop_path=0.1), 3)


def test_a_run_with_a_decoder_is_trained_stopped_and_exported(
    dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    run = train(dataset, tmp_path / "run", tiny_recipe(*DECODER))
    model = export(run, tmp_path / "model")  # which runs the file beside PyTorch
    assert model.vocabulary == run.vocabulary


# An earlier run


@pytest.fixture(scope="module")
def fewer(dump: Path, tiny_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that knows fewer tags than the dataset of the other tests has."""
    folder = tmp_path_factory.mktemp("fewer")
    recipe = tiny_recipe("vocabulary.minimum_count=35", "train.epochs=1")
    return train(
        prepare([dump / "metadata"], dump / "512px", folder / "dataset", recipe, workers=1), folder / "run", recipe
    )


def test_a_grown_vocabulary_keeps_what_its_old_tags_learned(
    fewer: Run, dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    assert 0 < len(fewer.vocabulary) < len(dataset.vocabulary)
    torch.manual_seed(5)
    model = build(ModelRecipe(backbone="timm/test_resnet", weights="none", size=64), len(dataset.vocabulary))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    assert begin_from(model, fewer.root, dataset.vocabulary) == len(fewer.vocabulary)
    before = torch.load(fewer.checkpoint("best"), weights_only=True)["model"]
    for row, tag in enumerate(dataset.vocabulary):
        old = fewer.vocabulary.index.get(tag.name)
        expected = fresh["head.weight"][row] if old is None else before["head.weight"][old]
        assert torch.equal(model.head.weight[row], expected)
    name = next(name for name in before if name.startswith("backbone."))
    assert torch.equal(model.state_dict()[name], before[name])

    run = train(dataset, tmp_path / "run", tiny_recipe("train.epochs=1", f"model.init_from={fewer.root}"))
    cold = train(dataset, tmp_path / "cold", tiny_recipe("train.epochs=1"))
    assert run.log()[0]["train_loss"] < cold.log()[0]["train_loss"]
    assert export(run, tmp_path / "model").vocabulary == dataset.vocabulary


def test_an_earlier_run_that_cannot_be_used(fewer: Run, dataset: Dataset, tmp_path: Path) -> None:
    other = build(ModelRecipe(backbone="timm/test_vit", weights="none", size=64), 3)
    with pytest.raises(MismatchError, match=r"its network is another one .*trained with timm/test_resnet"):
        begin_from(other, fewer.root, dataset.vocabulary)
    with pytest.raises(ArtifactError, match="make one with: efuda train"):
        begin_from(other, tmp_path / "nowhere", dataset.vocabulary)


# Sides


def test_training_pictures_grow(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    from efuda.training.devices import Devices
    from efuda.training.loop import Loop

    recipe = tiny_recipe("train.epochs=4", "train.sizes=[[0.5, 32], [0.75, 48]]")
    loop = Loop(
        dataset, tmp_path, recipe, Devices(torch.device("cpu")), progress=lambda *_, **__: None, stop=lambda: False
    )
    assert [loop._side(epoch) for epoch in range(4)] == [32, 32, 48, 64]
    assert len(train(dataset, tmp_path / "run", recipe).log()) == 4


def test_a_side_that_a_backbone_refuses_is_said_before_training(
    dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = tiny_recipe("model.backbone=timm/test_vit", "train.sizes=[[0.5, 40]]", "train.epochs=1")
    with pytest.raises(RecipeError, match=r"train\.sizes: timm/test_vit does not take 40 pixels"):
        train(dataset, tmp_path / "run", recipe)
    with pytest.raises(RecipeError, match=r"train: sizes must be|train = .*sizes must be"):
        load_recipe(None, ["train.sizes=[[0.5, 32], [0.2, 48]]"])


# Optimisers


def test_lamb_is_timm_s_and_learns(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    model = build(ModelRecipe(backbone="timm/test_resnet", weights="none", size=64), 3)
    assert type(optimizer(model, TrainRecipe(optimizer="lamb"), fused=True)).__module__.startswith("timm.")
    run = train(dataset, tmp_path / "run", tiny_recipe("train.optimizer=lamb", "train.learning_rate=0.01"))
    assert run.log()[1]["train_loss"] < run.log()[0]["train_loss"]


def test_one_cycle_is_pytorch_s() -> None:
    recipe = TrainRecipe(schedule="one-cycle", learning_rate=0.5, warmup=0.3)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.5, total_steps=20, cycle_momentum=False)
    for step in range(20):
        assert rate(step, 20, recipe) == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step() if step < 19 else None


# Trackers


def test_tensorboard_through_accelerate(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dataset, tmp_path / "run", tiny_recipe('train.trackers=["tensorboard"]'))
    folders = {str(path.parent) for path in (tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*")}
    logged = []
    for folder in folders:
        read = EventAccumulator(folder)
        read.Reload()
        if "validation/map" in read.Tags()["scalars"]:
            logged.append([one.step for one in read.Scalars("validation/map")])
    assert logged == [[9, 18]]


def test_a_tracker_that_is_not_installed(dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"train\.trackers = 'wandb' needs wandb"):
        train(dataset, tmp_path / "run", tiny_recipe('train.trackers=["wandb"]'))
