"""Calibration on validation alone, evaluation on the rest, thresholds by hand."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from efuda.artifacts import Dataset, Model
from efuda.datasets import prepare
from efuda.errors import ArtifactError, MismatchError
from efuda.evaluation import _fit, calibrate, evaluate
from efuda.images import read_rgb
from efuda.metrics import ScoreHistogram
from efuda.recipes import CalibrateRecipe, Recipe
from efuda.tagging import Tagger
from efuda.vocabulary import Category, Tag, Vocabulary

Recipes = Callable[..., Recipe]


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def histogram(*columns: list[tuple[float, bool]]) -> ScoreHistogram:
    """One column of (score, label) a tag."""
    made = ScoreHistogram(len(columns))
    scores = np.array([[score for score, _ in column] for column in columns], dtype=np.float32).T
    labels = np.array([[label for _, label in column] for column in columns], dtype=np.bool_).T
    made.update(np.ascontiguousarray(scores), np.ascontiguousarray(labels))
    return made


# One tag that is separated between 0.4 and 0.6, and one between 0.1 and 0.2.
HIGH = [(0.6, True), (0.9, True), (0.4, False), (0.05, False)]
LOW = [(0.2, True), (0.3, True), (0.1, False), (0.05, False)]
TWO = Vocabulary([Tag("high"), Tag("low", Category.CHARACTER)])


def fit(recipe: CalibrateRecipe, vocabulary: Vocabulary = TWO) -> list[float]:
    return [float(value) for value in _fit(histogram(HIGH, LOW), vocabulary, recipe)]


def test_threshold_lies_in_the_middle_of_the_best() -> None:
    # Thresholds from 0.401 to 0.6 separate `high`, from 0.101 to 0.2 `low`: the middles of both.
    own = fit(CalibrateRecipe(policy="per-tag", shrink=0))
    assert own == pytest.approx([0.5005, 0.1505], abs=1e-6)


def test_category_and_global_policies() -> None:
    assert fit(CalibrateRecipe(policy="per-category")) == pytest.approx([0.5005, 0.1505], abs=1e-6)
    # Pooled: at 0.101 to 0.2 four are right and 0.4 is wrong, F1 8/9; nothing does better.
    assert fit(CalibrateRecipe(policy="global")) == pytest.approx([0.1505, 0.1505], abs=1e-6)


def test_rare_tag_leans_on_its_category() -> None:
    one_category = Vocabulary([Tag("high"), Tag("low")])
    shared = logit(0.1505)
    for shrink in (0.0, 2.0, 10.0, 1e9):
        weight = 2 / (2 + shrink)  # two positives
        high, low = fit(CalibrateRecipe(shrink=shrink), one_category)
        assert logit(high) == pytest.approx(weight * logit(0.5005) + (1 - weight) * shared, abs=1e-4)
        assert low == pytest.approx(0.1505, abs=1e-6)


def test_tag_without_positives_gets_its_category_s_threshold() -> None:
    never = [(0.85, False)] * 4  # so that the pooled best lies above it: between 0.851 and 0.9
    both = Vocabulary([Tag("high"), Tag("never")])
    per_tag = _fit(histogram(HIGH, never), both, CalibrateRecipe(policy="per-tag", shrink=0))
    per_category = _fit(histogram(HIGH, never), both, CalibrateRecipe(policy="per-category"))
    assert per_category.tolist() == pytest.approx([0.8755, 0.8755], abs=1e-6)
    assert per_tag.tolist() == pytest.approx([0.5005, 0.8755], abs=1e-6)


def test_calibrate_sees_the_validation_split_only(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    """Take every other split's pictures away: the thresholds are the same, to the byte."""
    root, copy = tmp_path / "dataset", tmp_path / "model"
    shutil.copytree(dataset.root, root)
    shutil.copytree(model.root, copy)
    marker = json.loads((root / "efuda.json").read_text())
    validation = dataset.posts("validation")
    for post in range(len(validation)):
        target = tmp_path / "pictures" / validation.paths[post]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(validation.picture_path(post), target)
    marker["counts"]["images"] = [str(tmp_path / "pictures")]
    (root / "efuda.json").write_text(json.dumps(marker))
    (copy / "tag_thresholds.csv").unlink()
    calibrate(Model.open(copy), Dataset.open(root))
    for name in ("tag_thresholds.csv", "thresholds.csv"):
        assert (copy / name).read_bytes() == (model.root / name).read_bytes()


def test_calibrated_thresholds_are_the_best_found(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.root, copy)
    fitted = calibrate(Model.open(copy), dataset, CalibrateRecipe(shrink=0)).thresholds()
    assert fitted is not None
    posts, tagger = dataset.posts("validation"), Tagger.open(model.root)
    inputs = np.stack([tagger.preprocess.array(read_rgb(posts.read(post))) for post in range(len(posts))])
    scores, labels = tagger.scores(inputs), posts.labels(range(len(posts)), len(tagger.vocabulary))
    for row, one in enumerate(fitted):
        truth = labels[:, row]
        assert one.positives == truth.sum()

        def f1(threshold: float, row: int = row, truth: np.ndarray = truth) -> float:
            said = scores[:, row] >= threshold
            return float(2 * (said & truth).sum() / max((said.sum() + truth.sum()), 1))

        assert f1(one.threshold) == pytest.approx(max(f1(step / 1000) for step in range(10, 991)))
        assert one.f1 == pytest.approx(f1(one.threshold), abs=1e-6)


def test_category_thresholds_in_the_layout_of_animetimm(model: Model) -> None:
    with (model.root / "thresholds.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["category", "name", "alpha", "threshold", "f1", "precision", "recall"]
    assert [row[:2] for row in rows] == [["0", "general"]]
    assert 0 < float(rows[0][3]) < 1


def test_evaluation_by_hand(model: Model, dataset: Dataset) -> None:
    found = evaluate(model, dataset)
    posts, tagger = dataset.posts("test"), Tagger.open(model.root)
    inputs = np.stack([tagger.preprocess.array(read_rgb(posts.read(post))) for post in range(len(posts))])
    scores, labels = tagger.scores(inputs), posts.labels(range(len(posts)), len(tagger.vocabulary))
    assert (found.pictures, found.failed, found.split) == (len(posts), 0, "test")
    for measured, thresholds in ((found.at_half, 0.5), (found.calibrated, tagger.thresholds)):
        assert measured is not None
        # efuda rounds a threshold up to the grid of a thousandth
        said = scores >= np.ceil(np.round(np.asarray(thresholds, dtype=np.float64) * 1000, 3)) / 1000
        right = (said & labels).sum()
        assert measured.micro.precision == pytest.approx(right / said.sum())
        assert measured.micro.recall == pytest.approx(right / labels.sum())
        assert measured.micro.f1 == pytest.approx(2 * right / (said.sum() + labels.sum()))
    assert 0.5 < found.map <= 1
    assert len(found.shown) == 18


def test_validation_reports_no_calibrated_numbers(model: Model, dataset: Dataset) -> None:
    assert evaluate(model, dataset, split="validation").calibrated is None
    assert evaluate(model, dataset, split="validation").summary()["calibrated"] is None
    assert evaluate(model, dataset, split="test").calibrated is not None


def test_model_without_thresholds_reports_half_only(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model.root, copy)
    (copy / "tag_thresholds.csv").unlink()
    found = evaluate(Model.open(copy), dataset)
    assert found.calibrated is None
    assert found.summary()["at_0.5"]["micro_f1"] == pytest.approx(found.at_half.micro.f1, abs=1e-6)


def test_rare_tags_can_be_left_out_of_macro(model: Model, dataset: Dataset) -> None:
    found = evaluate(model, dataset, minimum_positives=10)
    enough = found.at_half.counts.positives >= 10
    assert found.at_half.macro.tags == enough.sum() < 7
    assert found.map == pytest.approx(found.average_precision[enough].mean())


def test_dataset_with_other_tags_is_refused(model: Model, dump: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe("vocabulary.minimum_count=35")
    other = prepare([dump / "metadata"], dump / "512px", tmp_path / "dataset", recipe, workers=1)
    for stage in (calibrate, evaluate):
        with pytest.raises(MismatchError, match="do not have the same tags: 7 tags against"):
            stage(model, other)


def test_split_that_does_not_exist(model: Model, dataset: Dataset) -> None:
    with pytest.raises(ArtifactError, match=r"no posts in the split 'unseen'.*test \(29\)"):
        evaluate(model, dataset, split="unseen")


def test_report_is_whole_and_needs_no_network(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    page = evaluate(model, dataset).write(tmp_path / "report")
    html = page.read_text(encoding="utf-8")
    assert page.name == "report.html"
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert not re.search(r"""url\(\s*["']?\s*(?:https?:)?//|@import""", html)
    assert html.count("data:image") >= 18
    assert all(tag.name in html for tag in model.vocabulary)

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["per_tag"]] == list(model.vocabulary.names)
    assert set(report["per_tag"][0]) == {
        "name",
        "category",
        "positives",
        "threshold",
        "ap",
        "precision",
        "recall",
        "f1",
    }
    assert report["pictures"] == 29
