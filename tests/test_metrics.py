"""Measurements by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from efuda.metrics import ScoreHistogram

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
