"""Comparing taggers: which tags are the same, thresholds for all alike, paired differences, and nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_tagging import wd_directory

from efuda.artifacts import Dataset, Model
from efuda.cli import main
from efuda.errors import InputError, UsageError
from efuda.evaluation import calibrate, compare
from efuda.evaluation.naming import common, match
from efuda.images import read_rgb
from efuda.metrics import MEASURES
from efuda.tagging import Tagger
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

COLOURS = {"reddish": "red_background", "bluish": "blue_background"}


def vocabulary(*names: str) -> Vocabulary:
    return Vocabulary(Tag(name) for name in names)


def scored(tagger: Tagger, dataset: Dataset, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    posts = dataset.posts(split)
    inputs = np.stack([tagger.preprocess.array(read_rgb(posts.read(post))) for post in range(len(posts))])
    return tagger.scores(inputs), posts.labels(range(len(posts)), len(dataset.vocabulary))


@pytest.fixture
def wd(tmp_path: Path) -> Path:
    """A tagger that efuda did not make: it knows the grounds under other names."""
    return wd_directory(tmp_path / "wd", fixed_batch=False)


# Names


def test_spaces_and_underscores_are_alike() -> None:
    found = match(vocabulary("long_hair", "1girl", "hat"), vocabulary("1girl", "long hair", "blush"))
    assert (found.columns.tolist(), found.by_alias) == ([1, 0, -1], 0)


def test_aliases_lead_to_the_tag_from_either_side() -> None:
    aliases = {"longhair": "long_hair", "hair_long": "longhair", "old_name": "new_name"}
    found = match(vocabulary("long_hair", "old_name"), vocabulary("new name", "hair long"), aliases)
    assert (found.columns.tolist(), found.by_alias) == ([1, 0], 2)
    circle = match(vocabulary("b"), vocabulary("a"), {"a": "b", "b": "a"})
    assert circle.columns.tolist() in ([0], [-1])  # circles end


def test_the_very_name_goes_before_an_alias_and_no_output_answers_twice() -> None:
    found = match(vocabulary("old", "new"), vocabulary("new", "old"), {"old": "new"})
    assert (found.columns.tolist(), found.by_alias) == ([1, 0], 0)
    assert match(vocabulary("old", "new"), vocabulary("new"), {"old": "new"}).columns.tolist() == [-1, 0]


def test_a_rating_is_no_tag_of_that_name() -> None:
    ratings = Vocabulary(Tag(name, Category.RATING) for name in RATINGS)
    assert match(vocabulary("general"), ratings).columns.tolist() == [-1]
    assert match(ratings, ratings).columns.tolist() == [0, 1, 2, 3]


def test_common_tags_are_known_to_all() -> None:
    dataset = vocabulary("a", "b", "c")
    models = {"one": match(dataset, vocabulary("c", "a")), "two": match(dataset, vocabulary("b", "c"))}
    assert common(dataset, models).tolist() == [2]
    with pytest.raises(InputError, match="none knows 0 of 3"):
        common(dataset, {**models, "none": match(dataset, vocabulary("d"))})


# Comparisons


def test_by_hand_on_the_tags_in_common(model: Model, wd: Path, dataset: Dataset) -> None:
    found = compare([model.root, wd], dataset, aliases=COLOURS, policies=["fixed=0.5", "per-tag"], replicates=200)
    assert found.vocabulary.names == tuple(name for name in dataset.vocabulary.names if name in COLOURS.values())
    ours, theirs = found.entries
    assert (ours.name, ours.tags, ours.in_dataset, ours.by_alias) == ("model", 7, 7, 0)
    assert (theirs.name, theirs.tags, theirs.in_dataset, theirs.by_alias) == ("wd", 7, 2, 2)
    for entry, root, names in ((ours, model.root, {}), (theirs, wd, {v: k for k, v in COLOURS.items()})):
        tagger = Tagger.open(root)
        scores, labels = scored(tagger, dataset)
        columns = [tagger.vocabulary.index[names.get(name, name)] for name in found.vocabulary.names]
        truth = labels[:, [dataset.vocabulary.index[name] for name in found.vocabulary.names]]
        for rule, thresholds in (("fixed=0.5", np.float32(0.5)), ("shipped", tagger.thresholds[columns])):
            said = scores[:, columns] >= thresholds
            expected = 2 * (said & truth).sum() / (said.sum() + truth.sum())
            assert entry.measured[rule].micro.f1 == pytest.approx(expected), (entry.name, rule)
    (pair,) = found.pairs
    one = pair.differences["per-tag"]["macro_f1"]
    assert one.ours == ours.measured["per-tag"].macro.f1 and one.theirs == theirs.measured["per-tag"].macro.f1
    assert one.interval.low <= one.ours - one.theirs <= one.interval.high


def test_a_model_against_its_twin_differs_in_thresholds_only(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(model.root, tmp_path / "twin")
    calibrate(Model.open(tmp_path / "twin"), dataset, policy="fixed=0.9")
    found = compare([model.root, tmp_path / "twin"], dataset, policies=["micro-f1"], replicates=200)
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("model", "twin")
    for name in MEASURES:
        one = pair.differences["micro-f1"][name]
        assert (one.ours - one.theirs, one.interval.low, one.interval.high) == (0, 0, 0), name
    recall = pair.differences["shipped"]["micro_recall"]
    assert recall.ours > recall.theirs and recall.sure and recall.interval.low > 0


def test_nothing_is_written_into_a_model(wd: Path, dataset: Dataset, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in wd.iterdir()}
    for path in wd.iterdir():
        path.chmod(0o444)
    wd.chmod(0o555)
    page = compare([wd], dataset, aliases=COLOURS, replicates=20).write(tmp_path / "report")
    assert {path: path.read_bytes() for path in wd.iterdir()} == before
    report = json.loads((page.parent / "report.json").read_text())
    assert (report["common_tags"], report["tags_in_dataset"], report["pairs"]) == (2, 7, [])
    assert report["models"][0]["shipped_thresholds"] == "defaults"
    assert [row["name"] for row in report["per_tag"]] == [
        name for name in dataset.vocabulary.names if name in COLOURS.values()
    ]
    html = page.read_text(encoding="utf-8")
    assert "shipped (defaults)" in html and "5 of them are not known to every model" in html


def test_what_cannot_be_compared(model: Model, wd: Path, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"wd knows 0 of 7.*--aliases"):
        compare([model.root, wd], dataset)
    with pytest.raises(UsageError, match="given twice"):
        compare([model.root, model.root], dataset)
    with pytest.raises(InputError, match="per-tag is fitted on validation"):
        compare([wd], dataset, split="validation", aliases=COLOURS)
    with pytest.raises(InputError, match="were fitted on the split 'validation'"):
        compare([model.root], dataset, split="validation", policies=["mcut"])


def test_command(
    model: Model,
    wd: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def efuda(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["efuda", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        done = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, done.out, done.err

    monkeypatch.setenv("COLUMNS", "200")
    aliases = tmp_path / "tags.csv"
    aliases.write_text('red_background,0,10,"reddish,ruddy"\nblue_background,0,9,bluish\n')
    asked = ["evaluate", model.root, wd, dataset.root, "--aliases", aliases, "--out", tmp_path / "report"]
    code, out, err = efuda(*asked)
    assert code == 0, err
    assert "29 pictures, 2 tags in common" in out and "model − wd" in out and "shipped (defaults)" in out
    assert "wd: 7 tags, 2 of the dataset's, 2 by alias" in err
    code, out, _ = efuda("-q", *asked, "--json", "--policy", "p=r")
    said = json.loads(out)
    assert said["pairs"][0]["p=r"]["macro_f1"]["difference"] is not None
    assert efuda(*asked, "--diligent")[0] == 2
    assert efuda("evaluate", wd)[0] == 2
