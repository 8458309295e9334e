"""Near-duplicate hashes: the groups that the pairs connect are those that comparing all with all would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from efuda.datasets import neighbours
from efuda.datasets.neighbours import find_neighbours
from efuda.datasets.splitting import group_posts

CENTRES = (0, 2**64 - 1, 0xF0F0F0F0F0F0F0F0, 0x0123456789ABCDEF)


def groups(count: int, pairs: NDArray[np.int64]) -> list[int]:
    return group_posts(np.arange(1, count + 1), pairs + 1).tolist()


def by_comparing_all(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    close = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= distance
    return np.argwhere(np.triu(close, 1))


def check(hashes: NDArray[np.uint64], distance: int) -> None:
    found = find_neighbours(hashes, distance)
    assert groups(len(hashes), found) == groups(len(hashes), by_comparing_all(hashes, distance))
    assert all(int(hashes[a] ^ hashes[b]).bit_count() <= distance and a < b for a, b in found.tolist())
    assert len(found) == len(hashes) - len(set(groups(len(hashes), found)))  # none more than needed


def around(centres: NDArray[np.uint64], chance: float, count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Hashes that differ from one of the centres in each bit with a chance."""
    rng = np.random.default_rng(seed)
    flipped = np.packbits(rng.random((count, 64)) < chance, axis=1).view(np.uint64)[:, 0]
    return centres[rng.integers(0, len(centres), count)] ^ flipped


near = st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=6))


@pytest.mark.parametrize("many", [2, 1024])
@settings(max_examples=25, deadline=None)
@given(drawn=st.lists(near, max_size=40), distance=st.integers(0, 8))
def test_the_groups_are_those_of_all_pairs(many: int, drawn: list[tuple[int, set[int]]], distance: int) -> None:
    hashes = np.array([CENTRES[one] ^ sum(1 << bit for bit in bits) for one, bits in drawn], dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_MANY", many)  # 2: divided again and again
        patch.setattr(neighbours, "_PASS", 500.0)
        patch.setattr(neighbours, "_SORTING", 20.0)
        check(hashes, distance)


@pytest.mark.parametrize("distance", [0, 1, 4])
def test_planted_copies_are_found_among_many(distance: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    for row in range(0, 600, 2):
        flipped = rng.choice(64, distance, replace=False)
        hashes[row + 1] = hashes[row] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
    assert find_neighbours(hashes, distance).tolist() == [[row, row + 1] for row in range(0, 600, 2)]


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("chance", [0.03, 0.1, 0.2])
def test_skewed_hashes_that_share_most_of_their_bits_stay_exact(chance: float, distance: int) -> None:
    check(around(np.array(CENTRES[:2], np.uint64), chance, 2500), distance)


def test_a_dense_crowd_and_others_stay_exact() -> None:
    rng = np.random.default_rng(0)
    crowd = around(np.zeros(1, np.uint64), 0.04, 2000)
    hashes = rng.permutation(np.concatenate([crowd, rng.integers(0, 2**64, 1000, dtype=np.uint64)]))
    for distance in (2, 4):
        check(hashes, distance)


def test_a_thousand_equal_hashes_are_chained_not_paired() -> None:
    hashes = np.full(1000, 7, dtype=np.uint64)
    found = find_neighbours(hashes, 4)
    assert len(found) == 999
    assert set(groups(1000, found)) == {1}


def test_no_more_pairs_are_compared_at_a_time_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_AT_ONCE", 1000)
    portions = neighbours._portions(np.arange(600, dtype=np.int64)[::-1])
    assert portions[0][0] == 0 and portions[-1][1] == 600
    assert [low for low, _ in portions[1:]] == [high for _, high in portions[:-1]]
    check(np.arange(600, dtype=np.uint64), 1)  # they differ in ten bits only


def test_progress_counts_the_passes() -> None:
    calls: list[tuple[str, int, int | None]] = []

    def progress(step: str, done: int, total: int | None = None, *, unit: str = "", note: str = "") -> None:
        calls.append((step, done, total))

    find_neighbours(np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64), 4, progress=progress)
    total = len(calls)
    assert total > 1 and calls == [("near-duplicates", done, total) for done in range(1, total + 1)]


def test_nothing_is_near_nothing() -> None:
    assert find_neighbours(np.zeros(0, np.uint64), 4).shape == (0, 2)
    assert find_neighbours(np.array([5], np.uint64), 4).shape == (0, 2)
