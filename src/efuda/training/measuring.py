"""What the weights do on a split while they are trained: loss, the reference's measures, and pictures to look at.

Every process measures its share of the pictures; counts are added up as whole numbers, so that the result does not
depend on how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efuda.artifacts import Posts
from efuda.metrics import ScoreHistogram
from efuda.preprocess import Preprocess
from efuda.progress import Progress
from efuda.training.devices import Devices
from efuda.training.loading import Batch, batches

__all__ = ["REFERENCE_THRESHOLD", "Measured", "Seen", "measure"]

REFERENCE_THRESHOLD: Final = 0.5
_SHOWN: Final = 12
_MOST_TAGS: Final = 20


@dataclass(frozen=True)
class Seen:
    """One picture: the row of its post, and its (tag, score) pairs, true ones and those at the threshold."""

    post: int
    scores: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Measured:
    """One split at the threshold 0.5.

    Attributes:
        numbers: loss, micro_precision, …, map, tags.
        f1, average_precision: float64 [tags], NaN without positives; positives: int64 [tags].
        shown: some pictures, the same each time.
    """

    numbers: Mapping[str, float]
    f1: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    positives: NDArray[np.int64]
    shown: Sequence[Seen] = field(default=())


def measure(
    judge: Callable[[Batch], tuple[Tensor, Tensor]],
    posts: Posts,
    tags: int,
    preprocess: Preprocess,
    *,
    name: str,
    batch: int,
    workers: int,
    devices: Devices,
    progress: Progress,
) -> Measured:
    """Measure a split.

    Args:
        judge: a batch → logits [n, tags] and the sum of the losses of its pictures.
        name: of the step, for progress.
    """
    histogram, loss, seen, shown = ScoreHistogram(tags), 0.0, 0, list[Seen]()
    own = np.arange(devices.rank, len(posts), devices.world)
    wanted = set(np.linspace(0, len(posts) - 1, _SHOWN).astype(int).tolist())
    at = 0
    for part in batches(posts, own, preprocess, batch=batch, workers=workers):
        logits, lost = judge(part)
        scores = logits.float().sigmoid().cpu().numpy()
        labels = part.labels(tags, torch.device("cpu")).bool().numpy()
        histogram.update(scores, labels)
        rows = own[at : at + batch][part.places.numpy()]
        shown += [
            _look(int(post), *pair) for post, *pair in zip(rows.tolist(), scores, labels, strict=True) if post in wanted
        ]
        loss, seen, at = loss + float(lost), seen + len(scores), at + batch
        progress(name, min(at * devices.world, len(posts)), len(posts), unit="images")
    histogram = _reduce(histogram, devices)
    total, pictures = devices.total([loss, seen])
    everything = [one for some in devices.gather(shown) for one in some]
    return _measured(histogram, total / max(pictures, 1), sorted(everything, key=lambda one: one.post))


def _look(post: int, scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> Seen:
    some = np.flatnonzero(labels | (scores >= REFERENCE_THRESHOLD))
    best = some[np.argsort(-scores[some], kind="stable")][:_MOST_TAGS]
    return Seen(post, tuple((int(tag), float(scores[tag])) for tag in best))


def _reduce(histogram: ScoreHistogram, devices: Devices) -> ScoreHistogram:
    if devices.world == 1:
        return histogram
    state = histogram.state()
    for counts in state.values():
        devices.add_up(counts)
    return ScoreHistogram.from_state(state)


def _measured(histogram: ScoreHistogram, loss: float, shown: Sequence[Seen]) -> Measured:
    counts = histogram.counts(REFERENCE_THRESHOLD)
    micro, macro = counts.micro(), counts.macro()
    numbers = {
        "loss": loss,
        "micro_precision": micro.precision,
        "micro_recall": micro.recall,
        "micro_f1": micro.f1,
        "macro_precision": macro.precision,
        "macro_recall": macro.recall,
        "macro_f1": macro.f1,
        "map": histogram.mean_average_precision(),
        "tags": macro.tags,
    }
    return Measured(numbers, counts.f1(), histogram.average_precision(), counts.positives, shown)
