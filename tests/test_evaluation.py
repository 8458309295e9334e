"""Calibration on validation alone, evaluation on the rest, thresholds by hand."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_tagging import wd_directory

from efuda.artifacts import Dataset, Model, Run
from efuda.cli import main
from efuda.datasets import prepare
from efuda.errors import ArtifactError, InputError, MismatchError
from efuda.evaluation import Plan, Policy, calibrate, evaluate, fit_thresholds
from efuda.evaluation.policies import mcut
from efuda.evaluation.results import Rule, Tally
from efuda.evaluation.truth import diligent, standard
from efuda.images import read_rgb
from efuda.metrics import MEASURES, ScoreHistogram
from efuda.recipes import CalibrateRecipe, Recipe
from efuda.tagging import Tagger
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

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
    return fitted(histogram(HIGH, LOW), vocabulary, recipe)


def fitted(scores: ScoreHistogram, vocabulary: Vocabulary, recipe: CalibrateRecipe) -> list[float]:
    return [float(value) for value in fit_thresholds(Policy.parse(recipe.policy), scores, vocabulary, recipe)]


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
    per_tag = fitted(histogram(HIGH, never), both, CalibrateRecipe(policy="per-tag", shrink=0))
    per_category = fitted(histogram(HIGH, never), both, CalibrateRecipe(policy="per-category"))
    assert per_category == pytest.approx([0.8755, 0.8755], abs=1e-6)
    assert per_tag == pytest.approx([0.5005, 0.8755], abs=1e-6)


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
        said = scores >= thresholds
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
        "f1_low",
        "f1_high",
        "roc_auc",
        "ece",
    }
    assert report["pictures"] == 29


# Policies, harnesses, comparisons


@pytest.fixture
def copy(model: Model, tmp_path: Path) -> Model:
    """A model that a test may change."""
    shutil.copytree(model.root, tmp_path / "copy")
    return Model.open(tmp_path / "copy")


def scored(model: Model, dataset: Dataset, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    posts, tagger = dataset.posts(split), Tagger.open(model.root)
    inputs = np.stack([tagger.preprocess.array(read_rgb(posts.read(post))) for post in range(len(posts))])
    return tagger.scores(inputs), posts.labels(range(len(posts)), len(tagger.vocabulary))


def test_several_policies_in_one_pass(model: Model, dataset: Dataset) -> None:
    found = evaluate(model, dataset, plan=Plan(policies=["p=r", "mcut", "fixed=0.3", "precision>=0.99"]))
    assert list(found.results.measured) == ["0.5", "calibrated", "p=r", "mcut", "fixed=0.3", "precision>=0.99"]
    scores, labels = scored(model, dataset)
    at = {name: one.counts for name, one in found.results.measured.items()}
    assert at["fixed=0.3"].tp.tolist() == ((scores >= np.float32(0.3)) & labels).sum(axis=0).tolist()
    assert at["mcut"].fp.tolist() == (mcut(scores, model.vocabulary) & ~labels).sum(axis=0).tolist()
    one = found.results.measured["p=r"].thresholds
    assert one is not None and len({*one.tolist()}) == 1
    validation, truth = scored(model, dataset, "validation")
    said = validation >= one
    assert abs((said & ~truth).sum() - (~said & truth).sum()) <= 2  # fp = fn, as near as the scores allow
    summary = found.summary()
    assert set(summary["policies"]) == {"p=r", "mcut", "fixed=0.3", "precision>=0.99"}
    never = summary["policies"]["precision>=0.99"]["never_predicted"]
    assert never == np.isinf(found.results.measured["precision>=0.99"].thresholds).sum() > 0


def test_what_is_fitted_is_not_judged_where_it_was_fitted(copy: Model, dataset: Dataset) -> None:
    with pytest.raises(InputError, match="p=r is fitted on validation, so it is not judged there"):
        evaluate(copy, dataset, split="validation", plan=Plan(policies=["p=r"]))
    assert evaluate(copy, dataset, split="validation", plan=Plan(policies=["mcut"])).results.measured["mcut"]
    with pytest.raises(InputError, match="were fitted on the split 'validation': measure on another"):
        evaluate(copy, dataset, split="validation", plan=Plan(against=[copy.root]))
    said = json.loads((copy.root / "calibration.json").read_text())
    (copy.root / "calibration.json").write_text(json.dumps({**said, "split": "test"}))
    assert evaluate(copy, dataset).calibrated is None


def test_every_headline_number_has_an_interval(model: Model, dataset: Dataset) -> None:
    summary = evaluate(model, dataset).summary()
    for rule in ("at_0.5", "calibrated"):
        for name, (low, high) in summary[rule]["intervals"].items():
            assert low <= summary[rule][name] <= high, name
        assert set(summary[rule]["intervals"]) == set(MEASURES)
    low, high = summary["map_interval"]
    assert low < summary["map"] < high
    assert [one["k"] for one in summary["top"]] == [1, 3, 5, 7]


def test_calibrated_scores_are_measured_beside_the_raw_ones(model: Model, dataset: Dataset) -> None:
    found = evaluate(model, dataset)
    calibration, (scores, labels) = model.calibration(), scored(model, dataset)
    assert calibration is not None
    said = calibration.apply(scores)
    expected = -np.log(np.where(labels, said, 1 - said)).mean()
    summary = found.summary()
    assert summary["probabilities"]["log_loss"] == pytest.approx(expected, rel=2e-3)
    assert 0 <= summary["probabilities"]["ece"] <= 1
    assert evaluate(model, dataset, split="validation").summary()["probabilities"] is None


def test_every_score_is_in_the_reliability_table(model: Model, dataset: Dataset) -> None:
    summary = evaluate(model, dataset, plan=Plan(policies=["mcut", "mcut"])).summary()
    assert list(summary["policies"]) == ["mcut"]
    assert summary["policies"]["mcut"]["per_picture"]["pictures"] == 29
    assert sum(row["count"] for row in summary["reliability"]) == 29 * 7


def test_decades_and_categories_add_up(model: Model, dataset: Dataset) -> None:
    found = evaluate(model, dataset).at_half
    assert found.per_category["general"] == found.micro
    assert found.macro_per_category["general"] == found.macro
    assert sum(one.tags for one in found.per_decade.values()) == 7
    counts = [tag.count for tag in model.vocabulary]
    assert set(found.per_decade) == {"10–99"} == {f"{10 ** len(str(n)) // 10}–{10 ** len(str(n)) - 1}" for n in counts}


def test_diligent_posts_are_the_fifth_with_most_labels(dataset: Dataset) -> None:
    labels = [1, 5, 2, 3, 4, 1, 1, 1, 1, 6]
    starts = np.concatenate([[0], np.cumsum(labels)])
    posts = replace(dataset.posts("test"), ids=np.arange(10), starts=starts)
    assert np.flatnonzero(diligent(posts).wanted).tolist() == [1, 9]


def test_harnesses(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    posts, names = dataset.posts("test"), model.vocabulary.names
    labels = tmp_path / "clean.csv"
    rows = [f"{posts.ids[row]},{' '.join(names[tag] for tag in posts.tags(row))} unheard_of" for row in (3, 4, 8)]
    labels.write_text("\n".join(["id,tags", *rows, f"{posts.ids[5]},", "999999,circle"]))
    found = evaluate(model, dataset, plan=Plan(diligent=True, labels=labels, policies=["fixed=0.4"]))
    assert list(found.harnesses) == ["standard", "diligent", "audited"]
    audited = found.harnesses["audited"]
    assert audited.pictures == 4
    scores, truth = scored(model, dataset)
    truth[5] = False
    said = scores[[3, 4, 5, 8]] >= np.float32(0.4)
    assert audited.measured["fixed=0.4"].counts.tp.sum() == (said & truth[[3, 4, 5, 8]]).sum()
    assert audited.measured["fixed=0.4"].counts.fp.sum() == (said & ~truth[[3, 4, 5, 8]]).sum()
    assert found.summary()["unknown_labels"] == {"tags": 3, "posts": 1}
    assert found.summary()["harnesses"]["audited"]["pictures"] == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("post,tags\n1,circle\n", "the header lacks id"),
        ("id,tags\none,circle\n", "not a file of labels"),
        ("id,tags\n999999,circle\n", "none of its posts is in the split"),
    ],
)
def test_files_that_are_no_labels(model: Model, dataset: Dataset, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        evaluate(model, dataset, plan=Plan(labels=tmp_path / "labels.csv"))
    with pytest.raises(InputError, match="cannot be read"):
        evaluate(model, dataset, plan=Plan(labels=tmp_path / "absent.csv"))


def test_against_itself_with_other_thresholds(model: Model, copy: Model, dataset: Dataset) -> None:
    calibrate(copy, dataset, policy="fixed=0.9")
    found = evaluate(model, dataset, plan=Plan(against=[copy.root], policies=["micro-f1"]))
    (compared,) = found.compared
    assert compared.tags == 7 and set(compared.differences) == {"0.5", "calibrated", "micro-f1"}
    for rule in ("0.5", "micro-f1"):
        assert all((one.interval.low, one.interval.high) == (0, 0) for one in compared.differences[rule].values())
    recall = compared.differences["calibrated"]["micro_recall"]
    assert recall.ours > recall.theirs and recall.interval.low > 0 and recall.sure
    calibrated = found.calibrated
    assert calibrated is not None and recall.ours == pytest.approx(calibrated.micro.recall)


def test_against_a_wd_model_on_the_tags_in_common(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    tags = [*(Tag(name, Category.RATING) for name in RATINGS), Tag("circle"), Tag("unknown_here"), Tag("square")]
    other = wd_directory(tmp_path / "wd", fixed_batch=False, tags=Vocabulary(tags))
    found = evaluate(model, dataset, plan=Plan(against=[other], policies=["p=r"]))
    (compared,) = found.compared
    assert (compared.name, compared.tags) == ("wd", 2)
    scores, labels = scored(model, dataset)
    index = model.vocabulary.index
    rows = [index[name] for name in model.vocabulary.names if name in ("circle", "square")]
    said = scores[:, rows] >= 0.5
    expected = 2 * (said & labels[:, rows]).sum() / (said.sum() + labels[:, rows].sum())
    assert compared.differences["0.5"]["micro_f1"].ours == pytest.approx(expected)
    strangers = wd_directory(tmp_path / "strangers", fixed_batch=False)
    with pytest.raises(InputError, match="knows none of the model's tags"):
        evaluate(model, dataset, plan=Plan(against=[strangers]))


def test_page_of_a_comparison(model: Model, copy: Model, dataset: Dataset, tmp_path: Path) -> None:
    calibrate(copy, dataset, policy="fixed=0.9")
    plan = Plan(against=[copy.root], policies=["mcut"], diligent=True)
    html = evaluate(model, dataset, plan=plan).write(tmp_path / "report").read_text(encoding="utf-8")
    for text in ("Against copy", ">mcut<", ">diligent<", "Frequency", "reliability", "false positives"):
        assert text in html, text


# The same number whatever measures it


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_same_report_from_1_2_and_4_processes(model: Model, dataset: Dataset) -> None:
    one, two, four = (
        evaluate(model, dataset, plan=Plan(workers=workers, policies=["macro-f1"], diligent=True))
        for workers in (1, 2, 4)
    )
    for other in (two, four):
        assert numbers(other.summary()) == pytest.approx(numbers(one.summary()), abs=1e-4)
        assert numbers(other.tag_rows()) == pytest.approx(numbers(one.tag_rows()), abs=1e-4)
        assert [(it.post, it.tag) for it in other.suspects()] == [(it.post, it.tag) for it in one.suspects()]


def test_same_numbers_from_pytorch_and_the_exported_model(model: Model, run: Run, dataset: Dataset) -> None:
    import torch

    from efuda.training.augment import normalise
    from efuda.training.model import build

    recipe = Recipe.model_validate(run.marker.recipe)
    network = build(recipe.model, len(run.vocabulary)).eval()
    network.load_state_dict(torch.load(run.checkpoint(), weights_only=True)["model"])
    posts, preprocess = dataset.posts("test"), Tagger.open(model.root).preprocess
    squares = np.stack([preprocess.square(read_rgb(posts.read(post))) for post in range(len(posts))])
    with torch.inference_mode():
        rgb = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
        scores = network(normalise(rgb, recipe.model.mean, recipe.model.std))[0].sigmoid().numpy()
    found = evaluate(model, dataset)
    tally = Tally(
        model.vocabulary,
        [Rule(name, model.vocabulary, found.results.measured[name].thresholds) for name in ("0.5", "calibrated")],
        model.calibration(),
    )
    tally.update(list(range(len(posts))), scores, standard(posts).labels(range(len(posts))))
    theirs = tally.results(minimum_positives=1, replicates=1000)
    mine = replace(found, harnesses={"standard": theirs})
    assert numbers(mine.summary()) == pytest.approx(numbers(found.summary()), abs=1e-4)
    assert numbers(mine.tag_rows()) == pytest.approx(numbers(found.tag_rows()), abs=1e-4)


# The command line


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["efuda", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    done = capsys.readouterr()
    assert left.value.code == 0, done.err
    return done.out, done.err


def test_calibrate_says_what_is_never_predicted(
    copy: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = command(monkeypatch, capsys, "calibrate", copy.root, dataset.root, "--policy", "precision>=0.99")
    assert "7 thresholds (precision>=0.99) in" in out
    assert "7 tags have no threshold: on 24 pictures none surely keeps" in err
    out, _ = command(monkeypatch, capsys, "-q", "calibrate", copy.root, dataset.root, "--policy", "p=r", "--json")
    assert (json.loads(out)["policy"], json.loads(out)["never_predicted"]) == ("p=r", 0)


def test_evaluate_prints_policies_harnesses_and_differences(
    model: Model,
    copy: Model,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--policy", "mcut", "--policy", "fixed=0.3", "--against", copy.root, "--diligent", "--workers", 2]
    out, _ = command(monkeypatch, capsys, "evaluate", model.root, dataset.root, *asked, "--out", tmp_path / "report")
    for text in (
        "29 pictures, mAP 0.",
        "mcut  ",
        "fixed=0.3 ",
        "harness 'diligent'",
        "Against copy, on 7 tags",
        "+0.0000",
    ):
        assert text in out, text
