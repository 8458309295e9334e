"""Bootstrap intervals: replicates against drawing the pictures for real, and coverage on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support
from test_metrics import filled, realistic

from efuda.metrics import (
    Decisions,
    Ranked,
    ScoreHistogram,
    difference,
    interval,
    resample_counts,
    resample_map,
)
from efuda.metrics.intervals import draws


def decided(scores: NDArray[np.float32], labels: NDArray[np.bool_], threshold: float = 0.3) -> Decisions:
    decisions = Decisions(scores.shape[1])
    decisions.update(scores >= threshold, labels)
    return decisions


def ranked(scores: NDArray[np.float32], labels: NDArray[np.bool_], batch: int = 100) -> Ranked:
    histogram = ScoreHistogram(scores.shape[1])
    made = Ranked(histogram)
    for start in range(0, len(scores), batch):
        rows = slice(start, start + batch)
        histogram.update(scores[rows], labels[rows])
        made.update(scores[rows], labels[rows])
    return made


def drawn_rows(pictures: int, replicates: int) -> list[NDArray[np.int64]]:
    """What `draws` weighs, as the rows themselves."""
    columns = [column for weights in draws(pictures, replicates, 0) for column in weights.T]
    return [np.repeat(np.arange(pictures), column.astype(int)) for column in columns]


def test_a_replicate_is_the_measure_of_the_drawn_pictures() -> None:
    scores, labels = realistic(150, 30)
    found = resample_counts(decided(scores, labels), replicates=20)
    kept = labels.any(axis=0)
    for replicate, rows in enumerate(drawn_rows(150, 20)):
        truth, said = labels[rows], scores[rows] >= 0.3
        micro = precision_recall_fscore_support(truth, said, average="micro", zero_division=0)
        assert found["micro_f1"][replicate] == pytest.approx(micro[2], abs=1e-9)
        some = truth.any(axis=0) & kept
        per_tag = precision_recall_fscore_support(truth, said, average=None, zero_division=0)
        for name, values in zip(("precision", "recall", "f1"), per_tag, strict=False):
            assert found[f"macro_{name}"][replicate] == pytest.approx(values[some].mean(), abs=1e-9)


def test_a_replicate_of_map_is_that_of_the_drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efuda.metrics.ranked.AT_LEAST", 150)  # every picture
    scores, labels = realistic(150, 30)
    found = resample_map(ranked(scores, labels), replicates=20)
    for replicate, rows in enumerate(drawn_rows(150, 20)):
        assert found[replicate] == pytest.approx(filled(scores[rows], labels[rows]).mean_average_precision(), abs=1e-9)


def test_the_head_of_the_ranking_is_enough() -> None:
    scores, labels = realistic(3000, 50)
    short, long = ranked(scores, labels), ranked(scores, labels)
    short._limit = 0
    short._cut()
    assert short._count < long._count / 3
    assert next(iter(short.parts())).average_precision(np.ones((3000, 1), np.float32))[:, 0] == pytest.approx(
        filled(scores, labels).average_precision(), abs=1e-9
    )
    whole = filled(scores, labels)
    for rows, found in zip(drawn_rows(3000, 4), resample_map(short, replicates=4), strict=True):
        assert found == pytest.approx(filled(scores[rows], labels[rows]).mean_average_precision(), abs=2e-3)
    assert abs(whole.mean_average_precision() - resample_map(short, replicates=64).mean()) < 0.02


def test_cutting_on_the_way_keeps_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efuda.metrics.ranked._ENTRIES", 20_000)
    scores, labels = realistic(4000, 40)
    cut = ranked(scores, labels, batch=64)
    assert (cut._floor > 0).all()
    ones = np.ones((4000, 1), np.float32)
    found = np.concatenate([part.average_precision(ones)[:, 0] for part in cut.parts()])
    assert found == pytest.approx(filled(scores, labels).average_precision(), abs=1e-9)


def test_percentiles_by_hand() -> None:
    assert interval(np.arange(101) / 100).low == pytest.approx(0.025)
    moved = interval(np.arange(101) / 100, 0.6)
    assert (moved.low, moved.high) == pytest.approx((0.125, 1.0))
    assert math.isnan(interval(np.empty(0)).low) and math.isnan(interval(np.array([np.nan])).high)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Many samples of one source: the micro F1 of all of it lies in 95 % of their intervals, give or take."""
    scores, labels = realistic(60_000, 6, seed=5)
    truth = decided(scores, labels).counts().micro().f1
    held = 0
    for sample in np.array_split(np.arange(60_000), 200):
        decisions = decided(scores[sample], labels[sample])
        found = interval(resample_counts(decisions, replicates=200)["micro_f1"], decisions.counts().micro().f1)
        held += found.low <= truth <= found.high
    assert 0.89 <= held / 200 <= 0.99


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    scores, labels = realistic(800, 20)
    better = np.where(labels & (np.random.default_rng(0).random(labels.shape) < 0.05), np.float32(0.9), scores)
    one, other = (resample_counts(decided(given, labels))["micro_f1"] for given in (better, scores))
    found = difference(one, other)
    alone = interval(one)
    assert 0 < found.low < found.high
    assert found.high - found.low < (alone.high - alone.low) / 2
    same = difference(other, other)
    assert (same.low, same.high) == (0, 0)


def test_same_seed_same_interval() -> None:
    scores, labels = realistic(200, 10)
    first, second, other = (
        resample_counts(decided(scores, labels), replicates=50, seed=seed)["macro_f1"] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_a_minimum_of_positives_limits_macro_and_map() -> None:
    scores, labels = realistic(300, 30)
    kept = labels.sum(axis=0) >= 10
    assert 0 < kept.sum() < 30
    some = resample_counts(decided(scores, labels), replicates=8, minimum_positives=10)
    only = resample_counts(decided(scores[:, kept], labels[:, kept]), replicates=8)
    assert some["macro_f1"] == pytest.approx(only["macro_f1"])
    few = resample_map(ranked(scores, labels), replicates=8, minimum_positives=10)
    assert few == pytest.approx(resample_map(ranked(scores[:, kept], labels[:, kept]), replicates=8))
