"""The floor: what a ridge regression on tiny pixels and colour histograms reaches, to see what the network adds."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Dataset, Posts
from efuda.images import read_rgb
from efuda.metrics import ScoreHistogram
from efuda.progress import Progress

__all__ = ["ridge_map"]

_SIDE: Final = 24
_LEVELS: Final = 6
_ALPHA: Final = 300.0


def ridge_map(dataset: Dataset, *, minimum_positives: int, progress: Progress) -> float:
    """mAP on the test split of scikit-learn's ridge regression, fitted on the training split."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    train, test = dataset.posts("train"), dataset.posts("test")
    total = len(train) + len(test)
    known = _features(train, 0, total, progress)
    unknown = _features(test, len(train), total, progress)
    scaler = StandardScaler().fit(known)
    labels = train.labels(range(len(train)), len(dataset.vocabulary)).astype(np.float32)
    values = Ridge(alpha=_ALPHA).fit(scaler.transform(known), labels).predict(scaler.transform(unknown))
    histogram = ScoreHistogram(len(dataset.vocabulary))
    histogram.update(np.clip(values, 0, 1).astype(np.float32), test.labels(range(len(test)), len(dataset.vocabulary)))
    return histogram.mean_average_precision(minimum_positives=minimum_positives)


def _features(posts: Posts, before: int, total: int, progress: Progress) -> NDArray[np.float32]:
    """Per post: 24 × 24 pixels, and how much of the picture has each of 216 colours."""
    rows = []
    for post in range(len(posts)):
        picture = read_rgb(posts.read(post))
        pixels = np.asarray(picture.resize((_SIDE, _SIDE)), dtype=np.float32).ravel() / 255
        coarse = np.asarray(picture.resize((64, 64)), dtype=np.int64) * _LEVELS // 256
        codes = (coarse[..., 0] * _LEVELS + coarse[..., 1]) * _LEVELS + coarse[..., 2]
        colours = np.bincount(codes.ravel(), minlength=_LEVELS**3) / codes.size
        rows.append(np.concatenate([pixels, np.sqrt(colours)]).astype(np.float32))
        progress("floor", before + post + 1, total, unit="images")
    return np.stack(rows)
