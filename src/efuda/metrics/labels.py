"""Labels as the pairs that are true, from any of the forms they come in."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "pairs"]

Integers: TypeAlias = NDArray[np.int64] | NDArray[np.int32]
Labels: TypeAlias = NDArray[np.bool_] | tuple[Integers, Integers]


def pairs(labels: Labels, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pictures, tags), sorted by picture, from a dense bool [n, tags] or from such pairs in any order."""
    if isinstance(labels, np.ndarray):
        assert labels.shape == shape, (labels.shape, shape)
        flat = np.flatnonzero(labels)
        return flat // shape[1], flat % shape[1]
    pictures, tags = (np.asarray(part, dtype=np.int64) for part in labels)
    if len(pictures) and (np.diff(pictures) < 0).any():
        order = np.argsort(pictures, kind="stable")
        pictures, tags = pictures[order], tags[order]
    return pictures, tags
