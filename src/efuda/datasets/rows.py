"""Ragged rows as two arrays, `starts` [rows + 1] and `values`: laid together, sorted, filtered, no loop a row.

Row i is `values[starts[i]:starts[i + 1]]`. Codes below zero mean "not there" and are dropped by `sort_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

__all__ = ["arrange", "sort_rows", "take_rows", "unpack", "unpack_strings"]

Starts = NDArray[np.int64]
Codes = NDArray[np.int32]
_LONG = 256
T = TypeVar("T", bound=np.generic)


def unpack(column: Any) -> tuple[Starts, NDArray[Any]]:
    """The ragged rows of an Arrow column of lists of numbers."""
    starts, values = unpack_strings(column)
    return starts, values.to_numpy(zero_copy_only=False)


def unpack_strings(column: Any) -> tuple[Starts, Any]:
    """Those of an Arrow column of lists, the values as one Arrow array; a null is an empty list."""
    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy()
    values = compute.list_flatten(column)
    return _starts(lengths), values.combine_chunks() if isinstance(values, arrow.ChunkedArray) else values


def arrange(parts: Sequence[tuple[Starts, Codes]]) -> tuple[Starts, Codes]:
    """Lay several ragged arrays side by side: row i is row i of the first, then of the second, …

    Args:
        parts: lengths [rows] and values of each.
    """
    starts = _starts(np.sum([lengths for lengths, _ in parts], axis=0))
    values = np.empty(starts[-1], dtype=np.int32)
    at = starts[:-1].copy()
    for lengths, part in parts:
        values[_places(at, lengths)] = part
        at += lengths
    return starts, values


def sort_rows(starts: Starts, values: Codes) -> tuple[Starts, Codes]:
    """Each row sorted, each value once, values below zero dropped.

    Rows of one length are sorted together as a matrix, which is some fifty times faster than sorting (row, value).
    """
    lengths = np.diff(starts)
    order = np.argsort(lengths, kind="stable")
    ends = np.searchsorted(lengths[order], np.arange(3, min(int(lengths.max(initial=0)), _LONG) + 2))
    first = int(np.searchsorted(lengths[order], 2))
    values = values.copy()
    for length, end in enumerate(ends, start=2):
        rows = order[first:end]
        if len(rows):
            where = starts[rows][:, None] + np.arange(length)
            values[where] = np.sort(values[where], axis=1)
        first = int(end)
    for row in order[first:]:
        values[starts[row] : starts[row + 1]].sort()
    keep = values >= 0
    keep[1:] &= (values[1:] != values[:-1]) | _is_start(starts, len(values))[1:]
    return filter_rows(starts, values, keep)


def filter_rows(starts: Starts, values: NDArray[T], keep: NDArray[np.bool_]) -> tuple[Starts, NDArray[T]]:
    """Only the values where `keep`, in the same rows."""
    kept = np.concatenate([[0], np.cumsum(keep)])
    return kept[starts], values[keep]


def take_rows(starts: Starts, values: NDArray[T], rows: NDArray[np.int64]) -> tuple[Starts, NDArray[T]]:
    """Only these rows, in this order."""
    lengths = np.diff(starts)[rows]
    taken = _starts(lengths)
    return taken, values[_places(starts[:-1][rows], lengths)]


def _starts(lengths: NDArray[np.int64]) -> Starts:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _places(at: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of the values of rows that begin at `at`."""
    before = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(at - before[:-1], lengths) + np.arange(before[-1])


def _is_start(starts: Starts, size: int) -> NDArray[np.bool_]:
    marks = np.zeros(size + 1, dtype=bool)
    marks[starts] = True
    return marks[:-1]
