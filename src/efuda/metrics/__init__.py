"""Streaming multi-label measurements: scores and labels go in by the batch, numbers with their intervals come out.

    histogram = ScoreHistogram(tags=len(vocabulary))       # thresholds, ranks, calibration: memory tags × bins
    decisions = Decisions(tags=len(vocabulary))            # pictures: example-based measures, resampling
    for scores, labels in batches:                         # float32 [n, tags]; bool [n, tags] or (pictures, tags)
        histogram.update(scores, labels)
        decisions.update(scores >= 0.5, labels)
    histogram.counts(0.5).micro().f1, histogram.mean_average_precision()
    interval(resample_counts(decisions)["macro_f1"])

Only numpy. Histograms, decisions and top-k counts of several processes are merged exactly. docs/measuring.md has the
formulas and their sources.
"""

from efuda.metrics.calibration import METHODS, Calibration
from efuda.metrics.counts import Counts, Score, decades
from efuda.metrics.decisions import Decisions, PictureCounts, PictureScore, maximum_cut
from efuda.metrics.exact import ExactScores
from efuda.metrics.fitting import FittedCalibration, fit_calibration
from efuda.metrics.histogram import ScoreHistogram
from efuda.metrics.intervals import MEASURES, Interval, difference, interval, resample_counts, resample_map
from efuda.metrics.labels import Labels
from efuda.metrics.ranked import Ranked
from efuda.metrics.reliability import Reliability, calibration_errors, log_losses, reliability
from efuda.metrics.top import TopK, TopScore

__all__ = [
    "MEASURES",
    "METHODS",
    "Calibration",
    "Counts",
    "Decisions",
    "ExactScores",
    "FittedCalibration",
    "Interval",
    "Labels",
    "PictureCounts",
    "PictureScore",
    "Ranked",
    "Reliability",
    "Score",
    "ScoreHistogram",
    "TopK",
    "TopScore",
    "calibration_errors",
    "decades",
    "difference",
    "fit_calibration",
    "interval",
    "log_losses",
    "maximum_cut",
    "reliability",
    "resample_counts",
    "resample_map",
]
