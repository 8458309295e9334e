"""Export: the WD layout to the letter, parity with PyTorch, and nothing left behind when it fails."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import COLOURS, SHAPES, draw_dump, write_lines

from efuda.artifacts import Dataset, Model, Run
from efuda.datasets import prepare
from efuda.errors import ArtifactError, ExportError, MismatchError
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.recipes import Recipe
from efuda.tagging import Tagger
from efuda.training import export, exporting, train
from efuda.training.augment import normalise
from efuda.training.model import build
from efuda.vocabulary import RATINGS, Category

Recipes = Callable[..., Recipe]


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def all_categories(tiny_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that learned ratings, an artist, a copyright, a character and a meta tag."""
    root = tmp_path_factory.mktemp("categories")
    draw_dump(root, posts=60)
    for path in (root / "metadata").glob("posts*.json"):
        posts = [json.loads(line) for line in path.read_text().splitlines()]
        for one in posts:
            if "tag_string" in one:
                more = {"artist": "drawn_by_us", "copyright": "shapes", "character": "shape-chan", "meta": "highres"}
                one.update({f"tag_string_{category}": name for category, name in more.items()})
                one["tag_string"] = " ".join([one["tag_string_general"], *more.values()])
        write_lines(path, posts)
    recipe = tiny_recipe("train.epochs=1", "vocabulary.ratings=true")
    dataset = prepare([root / "metadata"], root / "512px", root / "dataset", recipe, workers=1)
    return export(train(dataset, root / "run", recipe), root / "model")


def test_files_of_the_directory(model: Model) -> None:
    names = {path.name for path in model.root.iterdir()}
    assert names == {
        "README.md",
        "calibration.json",
        "calibration.npz",
        "config.json",
        "efuda.json",
        "model.onnx",
        "model.safetensors",
        "selected_tags.csv",
        "tag_policies.csv",
        "tag_thresholds.csv",
        "thresholds.csv",
    }


def test_tag_list_is_that_of_the_wd_family(model: Model, dataset: Dataset) -> None:
    header, *tags = rows(model.root / "selected_tags.csv")
    assert header == ["tag_id", "name", "category", "count"]
    assert [(name, category) for _, name, category, _ in tags[:4]] == [(name, "9") for name in RATINGS]
    assert [name for _, name, _, _ in tags[4:]] == list(dataset.vocabulary.names)
    assert {category for _, _, category, _ in tags[4:]} == {"0"}
    assert {name for _, name, _, _ in tags[4:]} == {*(f"{colour}_background" for colour in COLOURS), *SHAPES}


def test_input_and_outputs_of_the_file(model: Model) -> None:
    session = onnxruntime.InferenceSession(str(model.root / "model.onnx"))
    (entry,) = session.get_inputs()
    assert (entry.name, entry.type) == ("input", "tensor(float)")
    assert isinstance(entry.shape[0], str) and entry.shape[1:] == [64, 64, 3]
    assert [(out.name, out.shape[1]) for out in session.get_outputs()] == [("output", 11), ("embedding", 96)]
    for batch in (1, 3):
        output, embedding = session.run(None, {"input": np.full((batch, 64, 64, 3), 255, np.float32)})
        assert output.shape == (batch, 11) and len(embedding) == batch
        assert not output[:, :4].any(), "ratings were not learned"
        assert ((output[:, 4:] > 0) & (output[:, 4:] < 1)).all()


def test_parity_with_pytorch_on_real_pictures(model: Model, run: Run, dataset: Dataset) -> None:
    recipe = Recipe.model_validate(run.marker.recipe)
    network = build(recipe.model, len(run.vocabulary)).eval()
    network.load_state_dict(torch.load(run.checkpoint(), weights_only=True)["model"])
    posts, preprocess = dataset.posts("test"), Preprocess(size=64)
    pictures = [read_rgb(posts.read(post)) for post in range(len(posts))]
    squares = np.stack([preprocess.square(picture) for picture in pictures])
    with torch.inference_mode():
        rgb = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        expected = network(normalise(rgb, recipe.model.mean, recipe.model.std))[0].sigmoid().numpy()
    scores = Tagger.open(model.root).scores(np.stack([preprocess.array(picture) for picture in pictures]))
    assert np.abs(scores - expected).max() <= 1e-4


def test_safetensors_load_into_timm(model: Model) -> None:
    import timm
    from safetensors.torch import load_file

    config = json.loads((model.root / "config.json").read_text())
    assert config["num_classes"] == len(model.vocabulary) == 7
    network = timm.create_model(config["architecture"], num_classes=config["num_classes"])
    network.load_state_dict(load_file(model.root / "model.safetensors"), strict=True)
    picture = torch.rand(2, 3, 64, 64)
    mean, std = config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
    with torch.inference_mode():
        theirs = network.eval()(normalise(picture, mean, std)).sigmoid().numpy()
    bgr = np.ascontiguousarray(picture.permute(0, 2, 3, 1).flip(3).numpy() * 255)
    assert np.abs(Tagger.open(model.root).scores(bgr) - theirs).max() <= 1e-4


def test_other_categories_are_a_head_on_the_embedding(all_categories: Model) -> None:
    root = all_categories.root
    session = onnxruntime.InferenceSession(str(root / "model.onnx"))
    assert [out.name for out in session.get_outputs()] == ["output", "embedding"]
    selected, others = rows(root / "selected_tags.csv")[1:], rows(root / "other_tags.csv")[1:]
    assert [name for _, name, _, _ in selected[:4]] == list(RATINGS)
    assert selected[-1][1:3] == ["shape-chan", "4"]
    assert [(name, category) for _, name, category, _ in others] == [
        ("shapes", "3"),
        ("drawn_by_us", "1"),
        ("highres", "5"),
    ]
    assert session.get_outputs()[0].shape[1] == len(selected)

    tagger = Tagger.open(root)
    assert tagger.vocabulary == all_categories.vocabulary
    assert len(tagger.vocabulary) == len(selected) + len(others)
    batch = np.full((2, 64, 64, 3), 200, np.float32)
    output, embedding = session.run(None, {"input": batch})
    with np.load(root / "other_head.npz") as head:
        other = 1 / (1 + np.exp(-(embedding @ head["weight"] + head["bias"])))
    assert np.allclose(tagger.scores(batch), np.concatenate([output, other], axis=1), atol=1e-6)
    assert (output[:, :4] > 0).all(), "ratings were learned"
    assert [tag.category for tag in tagger.vocabulary][:4] == [Category.RATING] * 4


def test_other_categories_behind_a_decoder(all_categories: Model, tiny_recipe: Recipes, tmp_path: Path) -> None:
    dataset = Dataset.open(all_categories.root.parent / "dataset")
    decoder = ["model.head=ml-decoder", "model.decoder_width=16", "model.decoder_groups=3"]
    run = train(dataset, tmp_path / "run", tiny_recipe("train.epochs=1", "vocabulary.ratings=true", *decoder))
    root = export(run, tmp_path / "model").root  # which runs the file beside PyTorch, all tags
    session = onnxruntime.InferenceSession(str(root / "model.onnx"))
    assert [out.name for out in session.get_outputs()] == ["output", "embedding"]
    batch = np.full((2, 64, 64, 3), 200, np.float32)
    output, embedding = session.run(None, {"input": batch})
    features = json.loads((root / "config.json").read_text())["num_features"]
    assert embedding.shape == (2, features + 3)
    behind = 1 / (1 + np.exp(-embedding[:, features:]))
    scores, seen = Tagger.open(root).look(batch)
    assert np.allclose(scores, np.concatenate([output, behind], axis=1), atol=1e-6)
    assert seen is not None and np.array_equal(seen, embedding[:, :features]), "the logits behind are no features"


def test_model_that_differs_is_not_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(ExportError, match="differs from PyTorch by"):
        export(run, tmp_path / "model")
    assert [*(tmp_path / "model").iterdir()] == []
    with pytest.raises(ArtifactError):
        Model.open(tmp_path / "model")


def test_export_again_drops_the_thresholds_of_the_earlier_one(model: Model, run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.root, copy)
    assert Model.open(copy).thresholds() is not None
    again = export(run, copy, checkpoint="last")
    assert again.thresholds() is None
    assert not (copy / "thresholds.csv").exists()


def test_unknown_checkpoint(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no checkpoint 'middle'; use best or last"):
        export(run, tmp_path / "model", checkpoint="middle")


def test_dataset_that_changed_since_is_refused(
    dump: Path, dataset: Dataset, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = tiny_recipe("train.epochs=1")
    moved = tmp_path / "dataset"
    shutil.copytree(dataset.root, moved)
    run = train(Dataset.open(moved), tmp_path / "run", recipe)
    shutil.rmtree(moved)
    prepare([dump / "metadata"], dump / "512px", moved, tiny_recipe("vocabulary.minimum_count=35"), workers=1)
    with pytest.raises(MismatchError, match="do not have the same tags: 7 tags against"):
        export(run, tmp_path / "model")
