"""Ragged rows: laid together, sorted and filtered as a loop over lists would."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from efuda.datasets.rows import arrange, sort_rows, take_rows

Rows = list[list[int]]
ragged = st.lists(st.lists(st.integers(-1, 9), max_size=12), max_size=12)


def packed(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    lengths = [len(row) for row in rows]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.array(list(chain(*rows)), dtype=np.int32)


def unpacked(starts: NDArray[np.int64], values: NDArray[np.int32]) -> Rows:
    return [values[start:end].tolist() for start, end in pairwise(starts)]


@given(ragged)
def test_rows_are_sorted_each_value_once_and_nothing_below_zero(rows: Rows) -> None:
    assert unpacked(*sort_rows(*packed(rows))) == [sorted({value for value in row if value >= 0}) for row in rows]


def test_a_very_long_row_is_sorted_too() -> None:
    rows = [[3, 1], list(range(1000, 0, -1)), [], [5]]
    assert unpacked(*sort_rows(*packed(rows))) == [[1, 3], list(range(1, 1001)), [], [5]]


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 9), max_size=4)] * 3), max_size=8))
def test_parts_are_laid_side_by_side(rows: list[tuple[list[int], ...]]) -> None:
    parts = []
    for column in range(3):
        starts, values = packed([row[column] for row in rows])
        parts.append((np.diff(starts), values))
    assert unpacked(*arrange(parts)) == [list(chain(*row)) for row in rows]


@given(ragged, st.data())
def test_rows_are_taken_in_the_order_asked_for(rows: Rows, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)) if rows else []
    taken = take_rows(*packed(rows), np.array(wanted, dtype=np.int64))
    assert unpacked(*taken) == [rows[row] for row in wanted]
