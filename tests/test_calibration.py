"""Threshold policies by hand, curves from scores to probabilities, and what the model directory keeps of them."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from test_metrics import filled, realistic

from efuda.artifacts import Dataset, Model
from efuda.errors import ArtifactError, InputError, MismatchError, RecipeError, UsageError
from efuda.evaluation import POLICIES, Policy, calibrate, fit_thresholds
from efuda.evaluation.policies import mcut, wilson
from efuda.metrics import METHODS, Calibration, ScoreHistogram, fit_calibration, log_losses, reliability
from efuda.metrics.calibration import KNOTS, logit, sigmoid
from efuda.metrics.fitting import _isotonic, _leaned, _line, _Sums
from efuda.recipes import CalibrateRecipe, load_recipe
from efuda.tagging import Tagger
from efuda.tagging.policies import policy_thresholds
from efuda.vocabulary import Category, Tag, Vocabulary

Fit = Callable[..., list[float]]
TWO = Vocabulary([Tag("one"), Tag("two", Category.CHARACTER)])


def histogram(*columns: list[tuple[float, bool]]) -> ScoreHistogram:
    """One column of (score, label) a tag."""
    scores = np.array([[score for score, _ in column] for column in columns], dtype=np.float32).T
    labels = np.array([[label for _, label in column] for column in columns], dtype=np.bool_).T
    return filled(np.ascontiguousarray(scores), np.ascontiguousarray(labels))


def fit(text: str, scores: ScoreHistogram, **recipe: float) -> list[float]:
    vocabulary = TWO if scores.tags == 2 else Vocabulary([Tag(f"tag_{number}") for number in range(scores.tags)])
    return fit_thresholds(Policy.parse(text), scores, vocabulary, CalibrateRecipe(**recipe)).tolist()


# Policies


def test_policies_by_name() -> None:
    assert [str(Policy.parse(text)) for text in POLICIES] == ["fixed=0.5", *POLICIES[1:]]
    assert Policy.parse("global") == Policy.parse("micro-f1")
    assert (Policy.parse("precision >= .9").value, Policy.parse("fixed=0.35").value) == (0.9, 0.35)
    assert [str(policy) for policy in map(Policy.parse, POLICIES) if not policy.fitted] == ["fixed=0.5", "mcut"]


@pytest.mark.parametrize("text", ["", "f1", "precision", "precision>=2", "fixed=1.5", "precision>=0.9x", "fixed>=0.3"])
def test_policy_that_does_not_exist(text: str) -> None:
    with pytest.raises(UsageError, match=r"^(No threshold policy .* There are: fixed, micro-f1|The policy .* needs a)"):
        Policy.parse(text)


def test_recipes_know_every_policy_that_has_thresholds() -> None:
    for text in (*POLICIES[:-1], "global", "fixed=0.35", "precision>=0.8"):
        assert load_recipe(None, [f"calibrate.policy={text}"]).calibrate.policy == text
    for text in ("mcut", "best", "precision>=2"):
        with pytest.raises(RecipeError, match=r"calibrate\.policy"):
            load_recipe(None, [f"calibrate.policy={text}"])


def test_fixed_by_hand() -> None:
    scores = histogram([(0.6, True)], [(0.2, True)])
    assert fit("fixed", scores) == [0.5, 0.5]
    assert fit("fixed=0.25", scores) == [0.25, 0.25]


def test_micro_and_macro_f1_by_hand() -> None:
    # `one`: four pictures, right from 0.7 up. `two`: one picture, right from 0.3 up, alone there.
    one = [(0.9, True), (0.9, True), (0.9, True), (0.7, True), (0.5, False), (0.5, False), (0.5, False), (0.5, False)]
    two = [(0.3, True), *[(0.1, False)] * 7]
    scores = histogram(one, two)
    # Pooled, from 0.501 to 0.7: tp 4, fn 1, F1 8/9. From 0.101 to 0.3: tp 5, fp 4, F1 10/14.
    assert fit("micro-f1", scores) == pytest.approx([0.6005] * 2)
    # The mean of the tags' F1: (1 + 0) / 2 above 0.5; (8/12 + 1) / 2 from 0.101 to 0.3.
    assert fit("macro-f1", scores) == pytest.approx([0.2005] * 2)


def test_precision_meets_recall_by_hand() -> None:
    # At 0.401–0.6 said are 2 right and 1 wrong of 3 true ones: precision and recall 2/3.
    column = [(0.9, True), (0.6, True), (0.7, False), (0.4, True), (0.1, False)]
    assert fit("p=r", histogram(column)) == pytest.approx([0.5005])
    curve = histogram(column).curve()
    assert curve.tp[500] / (curve.tp[500] + curve.fp[500]) == curve.tp[500] / (curve.tp[500] + curve.fn[500]) == 2 / 3


def test_precision_that_is_asked_for_by_hand() -> None:
    # From 0.301: 9 of 10 right; from 0.501: 8 of 8.
    column = [(0.8, True)] * 8 + [(0.5, False), (0.4, True), (0.3, False), (0.3, False)]
    never = [(0.8, True)] * 6 + [(0.9, False)] * 6
    scores = histogram(column, never)
    assert fit("precision>=0.9", scores, confidence=0.5) == [pytest.approx(0.301), math.inf]
    assert fit("precision>=0.95", scores, confidence=0.5) == [pytest.approx(0.501), math.inf]
    # Eight of eight are no proof of 0.95: the lower bound at 90 % is 8 / (8 + 1.2816²) = 0.83.
    assert fit("precision>=0.95", scores) == [math.inf, math.inf]
    assert fit("precision>=0.82", scores) == [pytest.approx(0.501), math.inf]
    assert fit("precision>=0.84", scores) == [math.inf, math.inf]


def test_wilson_by_hand() -> None:
    low, high = wilson(np.array([8, 5, 0]), np.array([8, 10, 0]))
    assert low[0] == pytest.approx(8 / (8 + 1.96**2)) and high[0] == 1
    assert (low[1], high[1]) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Newcombe's tables
    assert math.isnan(low[2]) and math.isnan(high[2])


def test_mcut_cuts_each_category_on_its_own() -> None:
    tags = Vocabulary([Tag("a"), Tag("b"), Tag("c"), Tag("d", Category.CHARACTER), Tag("e", Category.CHARACTER)])
    said = mcut(np.array([[0.9, 0.8, 0.1, 0.12, 0.01], [0.2, 0.1, 0.05, 0.9, 0.2]], np.float32), tags)
    assert said.tolist() == [[True, True, False, False, False], [True, False, False, True, False]]


# Probabilities


def curves(sums_there: list[float], sums_absent: list[float], x: list[float]) -> _Sums:
    return _Sums(np.array(x), np.array([sums_there], dtype=float), np.array([sums_absent], dtype=float))


def test_lines_are_the_best_under_the_same_penalty() -> None:
    x = [-4.0, -2.0, 0.0, 2.0]
    sums = curves([1, 5, 30, 20], [400, 60, 20, 3], x)

    def lost(line: NDArray[np.float64]) -> float:
        slope, offset = line
        logits = slope * sums.x + offset
        fits = (sums.there * np.logaddexp(0, -logits) + sums.absent * np.logaddexp(0, logits)).sum()
        return float(fits + ((slope - 1) ** 2 + offset**2) / 2)

    expected = minimize(lost, [1.0, 0.0], tol=1e-10).x
    slope, offset = _line(sums, with_offset=True)
    assert (slope[0], offset[0]) == pytest.approx(tuple(expected), abs=1e-4)
    only = minimize(lambda slope: lost(np.array([slope[0], 0.0])), [1.0], tol=1e-10).x
    slope, offset = _line(sums, with_offset=False)
    assert (slope[0], offset[0]) == pytest.approx((only[0], 0), abs=1e-4)


def test_isotonic_pools_as_scikit_learn_does() -> None:
    x = np.array([-3.0, -2.0, -1.0, 0.0, 1.0])
    there, absent = np.array([5.0, 20.0, 10.0, 60.0, 90.0]) * 1000, np.array([95.0, 80.0, 90.0, 40.0, 10.0]) * 1000
    theirs = IsotonicRegression().fit_transform(x, there / (there + absent), sample_weight=there + absent)
    assert theirs[1] == theirs[2] == pytest.approx(0.15)
    heights = np.interp(x, KNOTS, _isotonic(x, there, absent))
    assert sigmoid(heights)[[0, 3, 4]] == pytest.approx(theirs[[0, 3, 4]], abs=1e-3)
    assert np.interp(-1.5, KNOTS, _isotonic(x, there, absent)) == pytest.approx(logit(np.array(0.15)), abs=1e-3)


def skewed(pictures: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Twelve tags that occur as often as they say, on scores that a model exaggerates: logit 2x − 1 where x is true."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-2, 1.5, (pictures, 12))
    labels = rng.random(x.shape) < sigmoid(x)
    return sigmoid(2 * x - 1).astype(np.float32), labels


def test_probabilities_are_found_again() -> None:
    scores, labels = skewed(6000, seed=0)
    folds = [filled(scores[fold::4], labels[fold::4]) for fold in range(4)]
    fitted = fit_calibration([f"tag_{number}" for number in range(12)], [0] * 12, folds)
    assert fitted.held_out["calibrated"] < fitted.held_out["raw"] * 0.9
    fresh, truth = skewed(6000, seed=1)
    calibrated = fitted.calibration.apply(fresh)
    assert calibrated.dtype == np.float32 and calibrated.shape == fresh.shape
    expected = sigmoid((logit(fresh) + 1) / 2)
    assert np.abs(calibrated - expected).mean() < 0.01
    before, after = filled(fresh, truth), filled(calibrated, truth)
    assert reliability(after).error < 0.01 < 0.03 < reliability(before).error
    assert (log_losses(after) < log_losses(before)).all()
    assert "none" not in {METHODS[method] for method in fitted.calibration.method}


def test_scores_that_are_probabilities_are_left_nearly_alone() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random((5000, 4), dtype=np.float32)
    labels = rng.random(scores.shape) < scores
    folds = [filled(scores[fold::4], labels[fold::4]) for fold in range(4)]
    fitted = fit_calibration(list("abcd"), [0] * 4, folds)
    assert np.abs(fitted.calibration.apply(scores) - scores).max() < 0.08
    assert np.abs(fitted.calibration.apply(scores) - scores).mean() < 0.02


def test_rare_tag_leans_on_the_curve_of_its_category() -> None:
    sums = _Sums(np.zeros(1), np.array([[0.0], [2.0], [6.0]]), np.array([[9.0], [7.0], [3.0]]))
    own, shared = np.array([[4.0, 8.0]] * 3), np.array([[0.0, 2.0]] * 3)
    assert _leaned(own, sums, shared, 2.0, "platt").tolist() == [[0.0, 2.0], [2.0, 5.0], [3.0, 6.5]]
    assert _leaned(own, sums, shared, 0.0, "platt")[1:].tolist() == own[1:].tolist()
    assert _leaned(own, sums, shared, 2.0, "none") is own


def test_tag_with_few_pictures_is_calibrated_through_its_category() -> None:
    scores, labels = skewed(200, seed=0)
    folds = [filled(scores[fold::4], labels[fold::4]) for fold in range(4)]
    names = [f"tag_{number}" for number in range(12)]
    fresh, truth = skewed(6000, seed=1)
    alone, leaning = (
        np.nanmean(log_losses(filled(found.calibration.apply(fresh), truth)))
        for found in (fit_calibration(names, [0] * 12, folds, shrink=shrink) for shrink in (0, 1000))
    )
    assert leaning < alone < np.nanmean(log_losses(filled(fresh, truth)))


def test_order_of_scores_is_kept() -> None:
    scores, labels = realistic(3000, 60)
    folds = [filled(scores[fold::4], labels[fold::4]) for fold in range(4)]
    calibration = fit_calibration([str(tag) for tag in range(60)], [0] * 30 + [4] * 30, folds).calibration
    ramp = np.linspace(0, 1, 2001, dtype=np.float32)[:, None].repeat(60, axis=1)
    assert (np.diff(calibration.apply(ramp), axis=0) >= 0).all()
    assert ((calibration.apply(ramp) >= 0) & (calibration.apply(ramp) <= 1)).all()


def test_lines_go_on_beyond_the_knots() -> None:
    line = Calibration(("a",), np.array([2], np.uint8), KNOTS.astype(np.float32), (0.5 * KNOTS - 1)[None].astype("f4"))
    score = np.array([[1 - 2.0**-16], [0.5], [1e-6]], dtype=np.float32)
    assert line.apply(score)[:, 0] == pytest.approx(sigmoid(0.5 * logit(score[:, 0]) - 1), abs=1e-5)


# What the model directory keeps


@pytest.fixture
def copy(model: Model, tmp_path: Path) -> Model:
    """A model that a test may change."""
    shutil.copytree(model.root, tmp_path / "model")
    return Model.open(tmp_path / "model")


def test_calibration_is_stored_beside_the_thresholds(model: Model, copy: Model, dataset: Dataset) -> None:
    found = model.calibration()
    assert found is not None and found.names == model.vocabulary.names
    said = json.loads((model.root / "calibration.json").read_text())
    assert (said["policy"], said["split"], said["tags"], said["dataset"]) == (
        "per-tag",
        "validation",
        7,
        dataset.digest,
    )
    assert sum(said["probabilities"]["methods"].values()) == 7
    assert model.calibrated_on() == "validation"
    again = calibrate(copy, dataset, CalibrateRecipe(probabilities=False))
    assert again.calibration() is None and not (again.root / "calibration.npz").exists()


@pytest.mark.parametrize("policy", ["micro-f1", "p=r", "precision>=0.95"])
def test_other_policies_are_there_for_tagging(policy: str, model: Model, copy: Model, dataset: Dataset) -> None:
    fitted = calibrate(copy, dataset, policy=policy).thresholds()
    assert fitted is not None
    stored = policy_thresholds(Tagger.open(model.root), policy)
    assert stored.tolist() == pytest.approx([row.threshold for row in fitted], rel=1e-5)


def test_same_calibration_same_bytes(model: Model, copy: Model, dataset: Dataset) -> None:
    calibrate(copy, dataset, workers=2)
    for name in ("calibration.npz", "calibration.json", "tag_thresholds.csv", "tag_policies.csv"):
        assert (copy.root / name).read_bytes() == (model.root / name).read_bytes()


def test_damaged_calibration(copy: Model) -> None:
    path = copy.root / "calibration.npz"
    found = copy.calibration()
    assert found is not None
    Calibration(found.names[::-1], found.method, found.knots, found.logits).write(path)
    with pytest.raises(MismatchError, match="other tags than the model"):
        copy.calibration()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"calibration\.npz cannot be read"):
        copy.calibration()
    (copy.root / "calibration.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"calibration\.json is damaged"):
        copy.calibrated_on()


def test_thresholds_with_intervals_and_older_files(copy: Model) -> None:
    rows = copy.thresholds()
    assert rows is not None
    for row in rows:
        assert not row.precision or row.precision_low <= row.precision <= row.precision_high
        assert row.f1_low <= row.f1 <= row.f1_high
    path = copy.root / "tag_thresholds.csv"
    with path.open(newline="") as file:
        table = [row[:7] for row in csv.reader(file)]
    assert table[0] == ["name", "category", "threshold", "positives", "precision", "recall", "f1"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    (copy.root / "calibration.json").unlink()
    older = copy.thresholds()
    assert older is not None
    assert [row.f1 for row in older] == [row.f1 for row in rows] and math.isnan(older[0].f1_low)
    assert copy.calibrated_on() == "validation"


def test_tag_that_is_never_predicted_says_so(copy: Model, dataset: Dataset) -> None:
    rows = calibrate(copy, dataset, policy="precision>=0.99").thresholds()
    assert rows is not None
    never = [row for row in rows if row.threshold == math.inf]
    assert never and all((row.f1, row.f1_low, row.f1_high) == (0, 0, 0) for row in never)
    assert json.loads((copy.root / "calibration.json").read_text())["never_predicted"] == len(never)


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_that_nothing_is_fitted_on(copy: Model, dataset: Dataset, split: str) -> None:
    before = (copy.root / "tag_thresholds.csv").read_bytes()
    with pytest.raises(InputError, match=f"not fitted on the split '{split}', which"):
        calibrate(copy, dataset, split=split)
    assert (copy.root / "tag_thresholds.csv").read_bytes() == before


def test_mcut_is_not_fitted(copy: Model, dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="MCut has no thresholds to fit"):
        calibrate(copy, dataset, policy="mcut")
