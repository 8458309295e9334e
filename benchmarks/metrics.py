"""What measuring costs beside scikit-learn on full matrices: seconds and peak MB, one Markdown table; each in a process
of its own.

    python benchmarks/metrics.py [--pictures 13509] [--tags 8266] [--reference-tags 8266] [--intervals]

Both get the same drawn scores and labels, batch by batch from one generator: about 30 labels a picture, tags of very
different frequency, scores as a trained tagger gives them. scikit-learn needs them as whole matrices, so for it they
are stored first; drawing and storing are not timed. Measured by both: micro and macro precision, recall and F1 and
those of every tag at 0.5, by picture, AP and mAP, ROC-AUC, log loss, the reliability table and ECE, top 10. Memory is
the peak of the process, less what it had after its imports.

--intervals adds efuda's bootstrap (1,000 replicates, 200 of mAP), which scikit-learn has no match for.
With --reference-tags below --tags scikit-learn gets that many, and its time and memory are multiplied.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 64
LABELS_A_PICTURE = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=13_509)
    parser.add_argument("--tags", type=int, default=8_266)
    parser.add_argument("--reference-tags", type=int, help="that scikit-learn gets; all by default")
    parser.add_argument("--intervals", action="store_true")
    parser.add_argument("--only", choices=("efuda", "exact", "scikit-learn"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        tags = options.tags if options.only != "scikit-learn" else options.reference_tags or options.tags
        measure = {"efuda": with_efuda, "exact": with_exact, "scikit-learn": with_scikit_learn}[options.only]
        print(json.dumps(measure(options, tags)))
        return
    rows = {name: child(name) for name in ("efuda", "exact", "scikit-learn")}
    table(rows, options)


def child(name: str) -> dict[str, Any]:
    """One way in a process of its own, since memory is that of a process."""
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def draw(pictures: int, tags: int, of: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Batches of scores and labels: of `of` tags the first `tags`, always the same."""
    often = 1 / np.arange(8, of + 8) ** 0.9
    often = np.minimum(often * LABELS_A_PICTURE / often.sum(), 0.7).astype(np.float32)[:tags]
    middle = np.log(often / (1 - often)) - 1.5
    rng = np.random.default_rng(0)
    for start in range(0, pictures, BATCH):
        shape = (min(BATCH, pictures - start), tags)
        labels = rng.random(shape, dtype=np.float32) < often
        logits = rng.standard_normal(shape, dtype=np.float32) * 1.8 + middle + 4 * labels
        yield (1 / (1 + np.exp(-logits))).astype(np.float32), labels


class Clock:
    """Seconds by step; drawing between the steps is not counted."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    def __call__(self, step: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = call()
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - began
        return found


def with_efuda(options: argparse.Namespace, tags: int) -> dict[str, Any]:
    from efuda.metrics import Decisions, Ranked, ScoreHistogram, TopK, resample_counts, resample_map

    before, clock = peak_mb(), Clock()
    histogram, decisions, top = ScoreHistogram(tags), Decisions(tags), TopK(tags)
    ranked = Ranked(histogram) if options.intervals else None
    for scores, labels in draw(options.pictures, tags, options.tags):
        clock("update", lambda s=scores, y=labels: update(histogram, decisions, top, s, y))
        if ranked:
            clock("intervals", lambda s=scores, y=labels: ranked.update(s, y))
    found = clock("measures", lambda: measures(histogram, decisions, top))
    if ranked:
        clock("intervals", lambda: (resample_counts(decisions), resample_map(ranked)))
    return {"seconds": clock.steps, "peak": peak_mb() - before, "found": found}


def update(histogram: Any, decisions: Any, top: Any, scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    pairs = np.nonzero(labels)
    histogram.update(scores, pairs)
    decisions.update(scores >= np.float32(0.5), pairs)
    top.update(scores, pairs)


def measures(histogram: Any, decisions: Any, top: Any) -> dict[str, float]:
    from efuda.metrics import calibration_errors, log_losses, reliability

    counts = histogram.counts(0.5)
    counts.precision(), counts.recall(), counts.f1(), calibration_errors(histogram)
    return {
        "micro_f1": counts.micro().f1,
        "macro_f1": counts.macro().f1,
        "picture_f1": decisions.by_picture().mean().f1,
        "map": histogram.mean_average_precision(),
        "roc_auc": float(np.nanmean(histogram.roc_auc())),
        "log_loss": float(log_losses(histogram).mean()),
        "ece": reliability(histogram).error,
        "hit_at_10": top.scores()[-1].hit,
    }


def with_exact(options: argparse.Namespace, tags: int) -> dict[str, Any]:
    """AP and ROC-AUC alone, from all scores."""
    from efuda.metrics import ExactScores

    before, clock, exact = peak_mb(), Clock(), ExactScores(tags)
    for scores, labels in draw(options.pictures, tags, options.tags):
        exact.update(scores, np.nonzero(labels))
    found = clock("measures", lambda: (exact.average_precision(), exact.roc_auc()))
    named = {name: float(np.nanmean(values)) for name, values in zip(("map", "roc_auc"), found, strict=True)}
    return {"seconds": clock.steps, "peak": peak_mb() - before, "found": named}


def with_scikit_learn(options: argparse.Namespace, tags: int) -> dict[str, Any]:
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    before, clock = peak_mb(), Clock()
    scores = np.empty((options.pictures, tags), dtype=np.float32)
    labels = np.empty((options.pictures, tags), dtype=np.bool_)
    for at, (some, true) in enumerate(draw(options.pictures, tags, options.tags)):
        scores[at * BATCH : at * BATCH + len(some)], labels[at * BATCH : at * BATCH + len(some)] = some, true
    carried = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    whole = len(carried) == tags
    some_scores, some_labels = (scores, labels) if whole else (scores[:, carried], labels[:, carried])
    said = scores >= np.float32(0.5)
    rates = metrics.precision_recall_fscore_support

    def reliability() -> float:
        observed, mean = calibration_curve(labels.ravel(), scores.ravel(), n_bins=20)
        counts = np.histogram(scores, bins=20, range=(0, 1))[0]
        return float((np.abs(observed - mean) * counts[counts > 0]).sum() / counts.sum())

    def top() -> float:
        first = np.argpartition(scores, -10, axis=1)[:, -10:]  # its own top_k_accuracy_score takes one label a picture
        return float(np.take_along_axis(labels, first, axis=1).any(axis=1)[labels.any(axis=1)].mean())

    def loss() -> float:
        return float(np.mean([metrics.log_loss(labels[:, tag], scores[:, tag], labels=[0, 1]) for tag in range(tags)]))

    per_tag = clock("precision, recall, F1", lambda: rates(labels, said, average=None, zero_division=0))
    found = {
        "micro_f1": clock("precision, recall, F1", lambda: rates(labels, said, average="micro", zero_division=0)[2]),
        "macro_f1": float(per_tag[2][carried].mean()),
        "picture_f1": clock("by picture", lambda: rates(labels, said, average="samples", zero_division=0)[2]),
        "map": clock("AP", lambda: metrics.average_precision_score(some_labels, some_scores, average=None).mean()),
        "roc_auc": clock("ROC-AUC", lambda: metrics.roc_auc_score(some_labels, some_scores, average=None).mean()),
        "log_loss": clock("log loss", loss),
        "ece": clock("reliability", reliability),
        "hit_at_10": clock("top 10", top),
    }
    times = options.tags / tags
    seconds = {step: value * times for step, value in clock.steps.items()}
    return {
        "seconds": seconds,
        "peak": (peak_mb() - before) * times,
        "found": {name: float(value) for name, value in found.items()},
    }


def table(rows: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"{options.tags:,} tags × {options.pictures:,} pictures")
    if options.reference_tags and options.reference_tags < options.tags:
        print(f"scikit-learn on {options.reference_tags:,} tags, its time and memory multiplied")
    print("\n| | seconds | peak MB | steps |\n|---|--:|--:|---|")
    for name, row in rows.items():
        steps = {step: value for step, value in row["seconds"].items() if step != "intervals"}
        said = ", ".join(f"{step} {value:.1f}" for step, value in row["seconds"].items())
        print(f"| {name} | {sum(steps.values()):.1f} | {row['peak']:,.0f} | {said} |")
    ours, theirs = rows["efuda"], rows["scikit-learn"]
    seconds = [sum(value for step, value in row["seconds"].items() if step != "intervals") for row in (ours, theirs)]
    print(f"\nTime 1/{seconds[1] / seconds[0]:.0f}, memory 1/{theirs['peak'] / ours['peak']:.1f} of scikit-learn's.")
    print("\n| | efuda | exact | scikit-learn |\n|---|--:|--:|--:|")
    for name, value in theirs["found"].items():
        exact = rows["exact"]["found"].get(name)
        print(f"| {name} | {ours['found'][name]:.6f} | {'' if exact is None else f'{exact:.6f}'} | {value:.6f} |")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
