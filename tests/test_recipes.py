"""Recipes: the reference's values to the letter, overrides, and errors that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from efuda.errors import RecipeError
from efuda.recipes import Recipe, load_recipe, recipe_names, recipe_text


def error(name: str | None, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def test_the_reference_to_the_letter() -> None:
    recipe = load_recipe("reference")
    assert recipe.posts.every == 4 and recipe.posts.deleted
    assert recipe.vocabulary.minimum_count == 100
    assert recipe.vocabulary.categories == ("general", "artist", "copyright", "character", "meta")
    assert not recipe.vocabulary.ratings and not recipe.vocabulary.aliases
    assert recipe.images.exact_size == 512 and recipe.images.pack is None
    assert recipe.split.method == "random" and recipe.split.hold_out == ()
    assert (recipe.split.train, recipe.split.validation, recipe.split.test) == (0.64, 0.16, 0.20)
    assert (recipe.model.backbone, recipe.model.weights) == ("torchvision/resnet50", "IMAGENET1K_V2")
    assert recipe.model.size == 512
    assert recipe.model.mean == (0.485, 0.456, 0.406) and recipe.model.std == (0.229, 0.224, 0.225)
    assert recipe.augment.flip == 0.5 and recipe.augment.rotate > 0
    assert recipe.loss.reduction == "mean"
    assert (recipe.train.optimizer, recipe.train.learning_rate, recipe.train.batch) == ("adam", 0.001, 16)
    assert recipe.train.schedule == "constant" and recipe.train.weight_decay == 0.0
    assert recipe.train.precision == "auto"
    assert recipe.calibrate.policy == "global"


def test_the_shipped_recipes_load() -> None:
    assert recipe_names() == ["demo", "large", "reference", "strong"]
    assert load_recipe("demo").images.pack == 128
    for name in recipe_names():
        assert recipe_text(name).startswith(f"# {name}: ")


@pytest.mark.parametrize("name", [None, "demo", "large", "reference", "strong"])
def test_toml_round_trip(tmp_path: Path, name: str | None) -> None:
    recipe = load_recipe(name, ['split.hold_out=["a_(b)", \'c"d\']', "images.exact_size=none"])
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert 'exact_size = "none"' in path.read_text()


def test_every_key_is_in_the_resolved_copy() -> None:
    text = Recipe().to_toml()
    for section, field in Recipe.model_fields.items():
        assert f"[{section}]" in text
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"\n{key} = " in text


def test_overrides_are_toml_or_else_plain_words() -> None:
    recipe = load_recipe(
        "reference",
        [
            "train.epochs=2",
            "train.learning_rate = 3e-4",
            "model.weights=none",
            "images.pack=128",
            "model.backbone=timm/x",
        ],
    )
    assert (recipe.train.epochs, recipe.train.learning_rate) == (2, 3e-4)
    assert recipe.model.weights == "none"  # a word of its own there, not "absent"
    assert recipe.images.pack == 128
    assert recipe.model.backbone == "timm/x"
    assert recipe.posts.every == 4  # the rest stays


def test_the_last_override_wins() -> None:
    assert load_recipe(None, ["train.epochs=2", "train.epochs=3"]).train.epochs == 3


def test_none_where_a_key_may_be_absent() -> None:
    recipe = load_recipe(None, ["images.exact_size=none", "images.pack=none", "train.workers=none"])
    assert (recipe.images.exact_size, recipe.images.pack, recipe.train.workers) == (None, None, None)
    assert error(None, "train.epochs=none").startswith(
        "defaults: train.epochs = 'none': input should be a valid integer"
    )


def test_an_unknown_key_names_the_nearest_in_a_file_and_in_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nepocs = 3\n")
    assert error(str(path)) == f"{path}: unknown key train.epocs; did you mean epochs?"
    path.write_text("[trian]\nepochs = 3\n")
    assert error(str(path)) == f"{path}: unknown key trian; did you mean train?"
    assert error("demo", "train.epocs=3") == "demo: unknown key train.epocs; did you mean epochs?"
    assert "unknown key zzz. Known: posts, vocabulary" in error(None, "zzz.qqq=1")
    assert "unknown key loss.zzz. Known: kind, reduction, tag_weights" in error(None, "loss.zzz=1")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nepocs = 3\nbatch = 0\n")
    told = error(str(path)).splitlines()
    assert len(told) == 2
    assert f"{path}: train.batch = 0: input should be greater than or equal to 1." in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "train.epochs = 0: input should be greater than or equal to 1."),
        ("train.optimizer=sgd", "train.optimizer = 'sgd': input should be 'adam', 'adamw' or 'lamb'."),
        ('vocabulary.categories=["people"]', "vocabulary.categories.0 = 'people'"),
        ("model.backbone=resnet50", "model.backbone = 'resnet50'"),
        ("split.train=0.9", "train, validation and test must add up to 1."),
    ],
)
def test_a_bad_value_is_named_with_its_key(override: str, message: str) -> None:
    assert message in error("reference", override)


@pytest.mark.parametrize("override", ["epochs=3", "train.epochs", "train.=3", "=3", ""])
def test_an_override_that_is_none(override: str) -> None:
    assert "write section.key=value, for example train.epochs=3" in error(None, override)


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    assert error("refrence").startswith("No recipe 'refrence'; did you mean reference?")
    assert "Name a TOML file, or one of: demo, large, reference, strong." in error("refrence")
    assert error(str(tmp_path)).startswith("No recipe ")  # a folder


def test_a_file_that_is_not_toml_and_a_section_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train\n")
    assert error(str(path)).startswith(f"{path} is not TOML: ")
    path.write_text("train = 3\n")
    assert error(str(path), "train.epochs=3") == "--set 'train.epochs=3': train is not a section."
    assert error(str(path)).startswith(f"{path}: train = 3: ")
