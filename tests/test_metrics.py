"""Measurements by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from efuda.errors import InputError
from efuda.metrics import (
    Decisions,
    ExactScores,
    ScoreHistogram,
    TopK,
    calibration_errors,
    decades,
    log_losses,
    maximum_cut,
    reliability,
)

TAGS = 7


def filled(scores: NDArray[np.float32], labels: NDArray[np.bool_], **options: int) -> ScoreHistogram:
    histogram = ScoreHistogram(scores.shape[1], **options)
    histogram.update(scores, labels)
    return histogram


@pytest.fixture(scope="module")
def scores() -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    scores = rng.random((400, TAGS), dtype=np.float32)
    scores[:50] = np.round(scores[:50], 2)  # many on the grid itself
    scores[0], scores[1] = 0.0, 1.0
    return scores


@pytest.fixture(scope="module")
def labels() -> NDArray[np.bool_]:
    labels = np.random.default_rng(8).random((400, TAGS)) < np.linspace(0.02, 0.6, TAGS)
    labels[:, 3] = False  # a tag that nothing carries
    return labels


def test_counts_by_hand() -> None:
    scores = np.array([[0.9, 0.2], [0.6, 0.7], [0.4, 0.5], [0.1, 0.1]], dtype=np.float32)
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 1]], dtype=bool)
    counts = filled(scores, labels).counts(0.5)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([1, 2], [1, 0], [1, 1])
    assert counts.positives.tolist() == [2, 3]
    assert counts.precision().tolist() == [0.5, 1.0]
    assert counts.recall().tolist() == [0.5, 2 / 3]
    assert counts.f1().tolist() == [0.5, 0.8]
    micro, macro = counts.micro(), counts.macro()
    assert (micro.precision, micro.recall, micro.f1, micro.tags) == (3 / 4, 3 / 5, 6 / 9, 2)
    assert (macro.precision, macro.recall, macro.f1, macro.tags) == (0.75, (1 / 2 + 2 / 3) / 2, 0.65, 2)


def test_average_precision_by_hand() -> None:
    """Ranked: there, not, there. Precision at the first 1/1, at the third 2/3; each gains half the recall."""
    scores = np.array([[0.9], [0.8], [0.7]], dtype=np.float32)
    labels = np.array([[True], [False], [True]])
    assert filled(scores, labels).average_precision()[0] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.25, 0.35, 0.5, 0.7, 0.999])
def test_equal_to_scikit_learn(scores: NDArray[np.float32], labels: NDArray[np.bool_], threshold: float) -> None:
    counts = filled(scores, labels).counts(threshold)
    predicted = scores >= np.float32(threshold)
    micro = precision_recall_fscore_support(labels, predicted, average="micro", zero_division=0)
    ours = counts.micro()
    assert (ours.precision, ours.recall, ours.f1) == pytest.approx(micro[:3], abs=1e-9)
    carried = labels.any(axis=0)
    per_tag = precision_recall_fscore_support(labels, predicted, average=None, zero_division=0)
    for mine, theirs in zip((counts.precision(), counts.recall(), counts.f1()), per_tag, strict=False):
        assert mine[carried] == pytest.approx(theirs[carried], abs=1e-9)
    macro = counts.macro()
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx(
        [values[carried].mean() for values in per_tag[:3]], abs=1e-9
    )


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.35, 0.5, 0.7, 1.0])
def test_a_threshold_is_exact_to_the_bit(threshold: float) -> None:
    at = np.float32(threshold)
    below, above = np.nextafter(at, np.float32(-1)), np.nextafter(at, np.float32(2))
    values = [value for value in (below, at, above) if 0 <= value <= 1]
    scores = np.array(values, dtype=np.float32)[:, None]
    counts = filled(scores, np.ones(scores.shape, dtype=bool)).counts(threshold)
    assert counts.tp.tolist() == [sum(value >= at for value in values)]


def test_every_threshold_of_the_grid_is_exact() -> None:
    edges = (np.arange(1001) / 1000).astype(np.float32)
    scores = np.concatenate([edges, np.nextafter(edges, np.float32(-1)), np.nextafter(edges, np.float32(2))])
    scores = scores[(scores >= 0) & (scores <= 1)][:, None]
    curve = filled(scores, np.ones(scores.shape, dtype=bool)).curve()
    assert curve.tp.tolist() == [int((scores >= edge).sum()) for edge in edges]


def test_one_threshold_a_tag(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    thresholds = np.array([0.0, 0.35, 0.5, 0.123, 0.9, 1.0, 0.05])
    counts = filled(scores, labels).counts(thresholds)
    predicted = scores >= thresholds.astype(np.float32)
    assert counts.tp.tolist() == (predicted & labels).sum(axis=0).tolist()
    assert counts.fp.tolist() == (predicted & ~labels).sum(axis=0).tolist()
    assert counts.fn.tolist() == (~predicted & labels).sum(axis=0).tolist()


def test_average_precision_equals_scikit_learn_on_the_grid(labels: NDArray[np.bool_]) -> None:
    scores = (np.random.default_rng(9).integers(0, 1001, labels.shape) / 1000).astype(np.float32)
    histogram = filled(scores, labels)
    mine, carried = histogram.average_precision(), np.flatnonzero(labels.any(axis=0))
    theirs = [average_precision_score(labels[:, tag], scores[:, tag]) for tag in carried]
    assert mine[carried] == pytest.approx(theirs, abs=1e-9)
    assert histogram.mean_average_precision() == pytest.approx(np.mean(theirs), abs=1e-9)


def test_tags_without_positives_are_left_out_of_means_not_scored() -> None:
    scores = np.array([[0.9, 0.9], [0.1, 0.1]], dtype=np.float32)
    labels = np.array([[True, False], [False, False]])
    histogram = filled(scores, labels)
    counts = histogram.counts(0.5)
    assert math.isnan(counts.f1()[1]) and math.isnan(counts.recall()[1]) and math.isnan(counts.precision()[1])
    assert (counts.macro().f1, counts.macro().tags) == (1.0, 1)
    assert counts.micro().precision == 0.5  # its false positive counts
    assert math.isnan(histogram.average_precision()[1])
    assert histogram.mean_average_precision() == 1.0


def test_means_over_no_tags_are_not_a_number() -> None:
    histogram = filled(np.full((2, 1), 0.9, dtype=np.float32), np.zeros((2, 1), dtype=bool))
    assert math.isnan(histogram.counts(0.5).macro().f1) and histogram.counts(0.5).macro().tags == 0
    assert math.isnan(histogram.mean_average_precision())


def test_a_minimum_of_positives(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    histogram = filled(scores, labels)
    counts = histogram.counts(0.5)
    kept = counts.positives >= 100
    assert 0 < kept.sum() < TAGS
    assert counts.macro(minimum_positives=100).tags == kept.sum()
    assert counts.macro(minimum_positives=100).f1 == pytest.approx(counts.f1()[kept].mean())
    expected = histogram.average_precision()[kept].mean()
    assert histogram.mean_average_precision(minimum_positives=100) == pytest.approx(expected)


def test_curves_agree_with_counts(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    histogram = filled(scores, labels, bins=100)
    pooled, single, some = histogram.curve(), histogram.tag_curve(2), histogram.curve([0, 5])
    for step in (0, 1, 35, 50, 100):
        counts = histogram.counts(step / 100)
        for name in ("tp", "fp", "fn"):
            assert getattr(pooled, name)[step] == getattr(counts, name).sum()
            assert getattr(single, name)[step] == getattr(counts, name)[2]
            assert getattr(some, name)[step] == getattr(counts.only([0, 5]), name).sum()


def test_batches_in_any_order_give_the_same(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    whole, parts = filled(scores, labels), ScoreHistogram(TAGS)
    order = np.random.default_rng(1).permutation(len(scores))
    for rows in np.array_split(order, 61):
        parts.update(scores[rows], labels[rows])
    assert parts.pictures == whole.pictures == 400
    assert np.array_equal(parts.counts(0.35).tp, whole.counts(0.35).tp)
    np.testing.assert_array_equal(parts.average_precision(), whole.average_precision())


def test_measuring_between_batches_changes_nothing(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    histogram = ScoreHistogram(TAGS)
    histogram.update(scores[:100], labels[:100])
    histogram.counts(0.5)
    histogram.update(scores[100:], labels[100:])
    assert np.array_equal(histogram.counts(0.5).tp, filled(scores, labels).counts(0.5).tp)


# Further measures


def as_pairs(labels: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pictures, tags = np.nonzero(labels)
    return pictures, tags


def test_labels_may_be_pairs_in_any_order(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    order = np.random.default_rng(2).permutation(int(labels.sum()))
    pictures, tags = (part[order] for part in as_pairs(labels))
    sparse = ScoreHistogram(TAGS)
    sparse.update(scores, (pictures, tags.astype(np.int32)))
    for name, value in filled(scores, labels).state().items():
        assert np.array_equal(sparse.state()[name], value)


def test_parts_of_several_processes_add_up_exactly(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    whole, merged = filled(scores, labels), filled(scores[:150], labels[:150])
    merged.merge(filled(scores[150:], labels[150:]))
    first, second = (filled(scores[rows], labels[rows]).state() for rows in (slice(150), slice(150, None)))
    reduced = ScoreHistogram.from_state({name: first[name] + second[name] for name in first})
    for one in (merged, reduced):
        assert one.pictures == 400
        assert all(np.array_equal(one.state()[name], value) for name, value in whole.state().items())


def test_more_than_65535_pictures() -> None:
    histogram = ScoreHistogram(1)
    for _ in range(3):
        histogram.update(np.full((30_000, 1), 0.7, np.float32), np.ones((30_000, 1), bool))
    assert histogram.counts(0.5).tp.tolist() == [90_000]
    assert ScoreHistogram.from_state(histogram.state()).counts(0.7).tp.tolist() == [90_000]
    once_more = filled(np.full((40_000, 1), 0.7, np.float32), np.ones((40_000, 1), bool))
    once_more.merge(once_more)
    assert once_more.positives.tolist() == [80_000]


def test_scores_that_are_no_probabilities_are_refused() -> None:
    for wrong in (1.5, -0.1, float("nan")):
        scores = np.array([[0.5, wrong]], dtype=np.float32)
        with pytest.raises(InputError, match="output 1 are not all between 0 and 1"):
            ScoreHistogram(2).update(scores, np.zeros((1, 2), bool))
    negative_zero = filled(np.array([[-0.0]], np.float32), np.array([[True]]))
    assert negative_zero.counts(0.001).tp.tolist() == [0]


def test_at_an_infinite_threshold_nothing_is_predicted() -> None:
    counts = filled(np.array([[1.0, 1.0]], np.float32), np.array([[True, True]])).counts(np.array([np.inf, 1.0]))
    assert (counts.tp.tolist(), counts.fn.tolist()) == ([0, 1], [1, 0])


def test_roc_auc_by_hand_and_as_scikit_learn(labels: NDArray[np.bool_]) -> None:
    # Of 2 × 2 pairs: 0.9 beats both, 0.5 ties with one and beats the other: 3.5 of 4.
    scores = np.array([[0.9], [0.5], [0.5], [0.1]], dtype=np.float32)
    hand = np.array([[True], [True], [False], [False]])
    assert filled(scores, hand).roc_auc().tolist() == [3.5 / 4]
    scores = (np.random.default_rng(9).integers(0, 1001, labels.shape) / 1000).astype(np.float32)
    mine = filled(scores, labels).roc_auc()
    for tag in np.flatnonzero(labels.any(axis=0)):
        assert mine[tag] == pytest.approx(roc_auc_score(labels[:, tag], scores[:, tag]), abs=1e-9)
    assert math.isnan(mine[3])


def realistic(pictures: int, tags: int, seed: int = 3) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rare tags with scores near 0, as a tagger gives them."""
    rng = np.random.default_rng(seed)
    often = np.exp(rng.uniform(np.log(0.002), np.log(0.2), tags))
    labels = rng.random((pictures, tags)) < often
    logits = rng.normal(np.log(often / (1 - often)) - 1.5, 1.8, (pictures, tags)) + 4.0 * labels
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def test_average_precision_in_bins_is_within_a_thousandth_of_scikit_learn() -> None:
    scores, labels = realistic(3000, 120)
    carried = labels.any(axis=0)
    theirs = average_precision_score(labels[:, carried], scores[:, carried])
    assert filled(scores, labels).mean_average_precision() == pytest.approx(theirs, abs=1e-3)
    aucs = roc_auc_score(labels[:, carried], scores[:, carried])
    assert np.nanmean(filled(scores, labels).roc_auc()) == pytest.approx(aucs, abs=1e-3)


def test_exact_ranks_equal_scikit_learn(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    drawn, truth = realistic(700, 90)
    for given, true in ((scores, labels), (drawn, truth)):
        exact = ExactScores(given.shape[1])
        for rows in np.array_split(np.arange(len(given)), 7):
            exact.update(given[rows], true[rows])
        precision, auc = exact.average_precision(), exact.roc_auc()
        for tag in range(given.shape[1]):
            if not true[:, tag].any():
                assert math.isnan(precision[tag]) and math.isnan(auc[tag])
                continue
            assert precision[tag] == pytest.approx(average_precision_score(true[:, tag], given[:, tag]), abs=1e-9)
            assert auc[tag] == pytest.approx(roc_auc_score(true[:, tag], given[:, tag]), abs=1e-9)


def test_reliability_by_hand() -> None:
    # Groups of a tenth: two scores near 0.25, one of them true; one of 0.85, true.
    scores = np.array([[0.25], [0.26], [0.85]], dtype=np.float32)
    found = reliability(filled(scores, np.array([[True], [False], [True]])), groups=10)
    assert found.count.tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 1, 0]
    assert found.score[[2, 8]] == pytest.approx([0.255, 0.85], abs=6e-4)
    assert found.observed[[2, 8]].tolist() == [0.5, 1.0]
    assert found.error == pytest.approx((2 * abs(0.5 - 0.255) + abs(1 - 0.85)) / 3, abs=6e-4)
    assert math.isnan(found.score[0])


def test_reliability_and_loss_as_scikit_learn() -> None:
    scores, labels = realistic(2000, 40)
    histogram = filled(scores, labels)
    table = reliability(histogram)
    some = table.count > 0
    observed, said = calibration_curve(labels.ravel(), scores.ravel(), n_bins=20)
    assert table.observed[some] == pytest.approx(observed, abs=1e-9)
    assert table.score[some] == pytest.approx(said, abs=5e-4)
    losses, errors = log_losses(histogram), calibration_errors(histogram)
    for tag in np.flatnonzero(labels.any(axis=0)):
        assert losses[tag] == pytest.approx(log_loss(labels[:, tag], scores[:, tag]), rel=2e-3)
        own = filled(scores[:, [tag]], labels[:, [tag]])
        assert errors[tag] == pytest.approx(reliability(own).error)


def test_by_picture_by_hand_and_as_scikit_learn(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> None:
    decisions = Decisions(3)
    predicted = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    decisions.update(predicted, np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool))
    found = decisions.by_picture().mean()
    assert (found.precision, found.recall, found.f1) == (0.25, 0.25, 0.25)
    assert (found.pictures, found.without_labels) == (2, 1)
    kept = labels.any(axis=1)
    decisions = Decisions(TAGS)
    for rows in np.array_split(np.arange(400), 9):
        decisions.update(scores[rows] >= 0.35, labels[rows])
    theirs = precision_recall_fscore_support(labels[kept], scores[kept] >= 0.35, average="samples", zero_division=0)
    mine = decisions.by_picture().mean()
    assert (mine.precision, mine.recall, mine.f1) == pytest.approx(theirs[:3], abs=1e-9)
    assert np.array_equal(decisions.counts().tp, filled(scores, labels).counts(0.35).tp)


def test_decisions_of_several_processes(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> None:
    whole, first, second = (Decisions(TAGS) for _ in range(3))
    for decisions, rows in ((whole, slice(None)), (first, slice(130)), (second, slice(130, None))):
        decisions.update(scores[rows] >= 0.4, labels[rows])
    first.merge(second)
    assert first.pictures == 400
    for mine, theirs in zip(first.pairs(), whole.pairs(), strict=True):
        assert {*zip(*mine, strict=True)} == {*zip(*theirs, strict=True)}


def test_maximum_cut_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.2, 0.1], [0.5, 0.1, 0.05, 0.0], [1.0, 0.5, 0.0, 0.0]], dtype=np.float32)
    assert maximum_cut(scores).tolist() == pytest.approx([0.5, 0.3, 0.75])
    assert maximum_cut(np.array([[0.2]], np.float32)).tolist() == [0.0]


def test_top_by_hand_and_as_scikit_learn() -> None:
    top = TopK(4, ks=(1, 2, 9))
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], dtype=np.float32)
    top.update(scores, np.array([[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool))
    one, two, four = top.scores()
    assert (one.k, one.hit, one.precision, one.pictures) == (1, 0.5, 0.5, 2)
    assert (two.k, two.hit, two.precision) == (2, 1.0, 0.75)
    assert (four.k, four.hit, four.precision) == (4, 1.0, 3 / 8)
    rng = np.random.default_rng(4)
    scores, truth = rng.random((300, 12), dtype=np.float32), rng.integers(0, 12, 300)
    single, other = TopK(12), TopK(12)
    single.update(scores[:100], (np.arange(100), truth[:100]))
    other.update(scores[100:], (np.arange(200), truth[100:]))
    single.merge(other)
    for found in single.scores():
        expected = top_k_accuracy_score(truth, scores, k=found.k, labels=range(12))
        assert found.hit == pytest.approx(expected, abs=1e-9)
        assert found.precision == pytest.approx(expected / found.k, abs=1e-9)


def test_decades_by_hand() -> None:
    found = decades([3, 10, 99, 100, 1000, 0])
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "1,000–9,999": [4],
        "100–999": [3],
        "10–99": [1, 2],
        "1–9": [0],
        "0": [5],
    }
