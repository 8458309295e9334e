"""Near-duplicates: pictures whose 64-bit perceptual hashes differ in few bits, found exactly, not all by all.

Hashes that differ in at most d bits agree wholly in at least t of d + t blocks of bits (pigeonhole). So for every
choice of t blocks the hashes are sorted by those blocks, and only those with equal keys are compared: Greene, Parnas
and Yao, "Multi-index hashing for information retrieval" (FOCS 1994); Norouzi et al. (CVPR 2012). Where hashes are
skewed and many share a key, it is done again with the bits that the key leaves, and what is connected is not compared.

    pairs = find_neighbours(hashes, 4)      # uint64 [n] → int64 [m, 2], rows of near-duplicates, m < n
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from efuda.errors import MissingExtra
from efuda.progress import Progress, silent

__all__ = ["find_neighbours"]

_BITS: Final = 64
_AT_ONCE: Final = 1 << 20  # pairs compared at a time
_MANY: Final = 1024  # compared with so many others, a bucket is cheaper to compare wholly than to divide
_PASS: Final = 300_000.0  # ns that a pass costs at least
_SORTING, _COMPARING = 200.0, 15.0  # ns a hash and a pair, measured; they only choose between ways that are all exact
_SAMPLE: Final = 100_000  # hashes looked at to say which bits tell most

Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def find_neighbours(hashes: Hashes, distance: int, *, progress: Progress = silent) -> NDArray[np.int64]:
    """Pairs of rows whose hashes differ in at most `distance` bits, enough to connect all that are connected.

    The groups that these pairs connect are those that all such pairs would connect; a thousand copies of one picture
    give 999 pairs. Two pictures of one group may differ in more bits, with others between them.

    Args:
        hashes: uint64 [n]; every row counts, so leave out pictures without a hash.
        distance: 0 to 16. At 4 a million hashes take seconds; above 8 it takes long.

    Returns:
        int64 [m, 2], lower row first, sorted, m below n.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    copies = np.flatnonzero(~new)
    pairs = [np.stack([order[copies - 1], order[copies]], axis=1)]
    unique, first = ordered[new], order[new]
    if distance > 0 and len(unique) > 1:
        search = _Search(unique, distance, progress)
        search.compare(np.arange(len(unique)), np.uint64(0))
        pairs += [first[pair] for pair in search.forest.pairs]
    found = np.concatenate(pairs)
    found.sort(axis=1)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


class _Forest:
    """What is connected so far: a label for each row, and the pairs that connected them (a spanning forest)."""

    def __init__(self, rows: int) -> None:
        self.label = np.arange(rows, dtype=np.int32)
        self.pairs: list[NDArray[np.int64]] = []
        self._names = np.arange(rows, dtype=np.int32)

    def join(self, one: Rows, other: Rows) -> None:
        """Connect the rows of each pair; of pairs that connect the same, the first is kept."""
        low, high = np.sort([self.label[one], self.label[other]], axis=0).astype(np.int64)
        _, at = np.unique(low * len(self.label) + high, return_index=True)
        at = at[low[at] != high[at]]
        if not len(at):
            return
        names, places = np.unique(np.stack([low[at], high[at]]), return_inverse=True)
        tree, part = _spanning_forest(places.reshape(2, -1), len(names))
        self.pairs.append(np.stack([one[at[tree]], other[at[tree]]], axis=1))
        lowest = np.full(part.max() + 1, len(self.label))
        np.minimum.at(lowest, part, names)
        self._names[names] = lowest[part]
        self.label = self._names[self.label]
        self._names[names] = names

    def largest(self) -> int:
        """The label that most rows have; -1 where none stands out."""
        sizes = np.bincount(self.label)
        name = int(sizes.argmax())
        return name if sizes[name] * 64 > len(self.label) else -1


def _spanning_forest(edges: NDArray[np.int64], points: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which of the (distinct) edges [2, m] connect all that they connect; and the component of each point."""
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
    except ModuleNotFoundError as error:
        raise MissingExtra("Finding near-duplicates", "train", "scikit-learn") from error
    numbers = np.arange(1, edges.shape[1] + 1, dtype=np.float64)
    graph = coo_array((numbers, (edges[0], edges[1])), shape=(points, points)).tocsr()
    tree = np.sort(minimum_spanning_tree(graph).data.astype(np.int64)) - 1
    return tree, connected_components(graph, directed=False)[1]


@dataclass(frozen=True)
class _Buckets:
    """Rows sorted so that those with equal keys stand together, those known to be connected at the end of each."""

    rows: Rows
    starts: Rows
    ends: Rows
    lone: Rows  # how many of each are to be compared with all that follow them in their bucket


class _Search:
    """The comparing itself, over hashes that are all different."""

    def __init__(self, hashes: Hashes, distance: int, progress: Progress) -> None:
        self.forest = _Forest(len(hashes))
        self._hashes, self._distance, self._progress = hashes, distance, progress
        self._top = True

    def compare(self, rows: Rows, mask: np.uint64) -> None:
        """Find the neighbours among the rows that agree under the mask."""
        buckets = self._open(self._gather(rows, mask))
        large = buckets.lone > _MANY
        if not large.any():
            return self._compare_all(buckets)
        big = _taken(buckets, large)
        masks = self._masks(big, mask)
        self._compare_all(_taken(buckets, ~large) if masks else buckets)
        for done, further in enumerate(masks, start=1):
            top, self._top = self._top, False
            self.compare(big.rows, mask | further)
            self._top = top
            if top:
                self._progress("near-duplicates", done, len(masks), unit="passes")
        return None

    def _gather(self, rows: Rows, mask: np.uint64) -> _Buckets:
        """Sort by key, and compare each row with the next two, which connects what is dense before it costs much."""
        keys = self._hashes[rows] & mask
        connected = self.forest.label[rows] == self.forest.largest()
        # The lowest bit says what is connected; the key's own moves to the first place that the mask leaves.
        spare = np.uint64((~int(mask) & (int(mask) + 1)).bit_length() - 1)
        lowest = np.uint64(1)
        keys = (keys & ~lowest) | (keys & lowest) << spare
        order = np.argsort(keys | connected)
        rows, keys, connected = rows[order], keys[order], connected[order]
        for lag in (1, 2):
            same = np.flatnonzero(keys[lag:] == keys[:-lag])
            self._join_close(rows[same], rows[same + lag])
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        lone = np.add.reduceat(~connected, starts, dtype=np.int64)
        return _Buckets(rows, starts, np.append(starts[1:], len(rows)), lone)

    def _open(self, buckets: _Buckets) -> _Buckets:
        """Those in which not all is connected yet."""
        label = self.forest.label[buckets.rows]
        differ = np.minimum.reduceat(label, buckets.starts) != np.maximum.reduceat(label, buckets.starts)
        return _taken(buckets, differ)

    def _compare_all(self, buckets: _Buckets) -> None:
        """Compare each lone member of each bucket with all that follow it there, a portion at a time."""
        members = _ranges(buckets.starts, buckets.lone)
        after = np.repeat(buckets.ends, buckets.lone) - 1 - members
        for low, high in _portions(after):
            left, many = members[low:high], after[low:high]
            self._join_close(buckets.rows[np.repeat(left, many)], buckets.rows[_ranges(left + 1, many)])

    def _join_close(self, one: Rows, other: Rows) -> None:
        close = np.bitwise_count(self._hashes[one] ^ self._hashes[other]) <= self._distance
        if close.any():
            self.forest.join(one[close], other[close])

    def _masks(self, big: _Buckets, mask: np.uint64) -> list[np.uint64]:
        """The further bits by which to divide, one mask a pass; none where comparing all with all costs less.

        The bits that tell most are dealt out over the blocks, so that each block tells about as much.
        """
        size = big.ends - big.starts
        unlike = self._hashes[big.rows] ^ np.repeat(self._hashes[big.rows[big.starts]], size)
        varying = int(np.bitwise_or.reduce(unlike))
        bits = [bit for bit in range(_BITS) if varying >> bit & 1]
        some = unlike[:: max(1, len(unlike) // _SAMPLE)]
        share = {bit: float((some >> np.uint64(bit) & np.uint64(1)).mean()) for bit in bits}
        bits.sort(key=lambda bit: (abs(share[bit] - 0.5), bit))
        told = -sum(log2(share[bit] ** 2 + (1 - share[bit]) ** 2) for bit in bits)
        pairs = float((size * big.lone).sum())
        cost, together = min(
            (self._cost(len(big.rows), pairs, told, chosen), chosen)
            for chosen in range(max(1, len(bits) - self._distance + 1))
        )
        if together == 0 or cost >= pairs * _COMPARING:
            return []
        blocks = [sum(1 << bit for bit in bits[one :: self._distance + together]) for one in range(len(bits))]
        return [np.uint64(sum(chosen)) for chosen in combinations(blocks[: self._distance + together], together)]

    def _cost(self, rows: int, pairs: float, told: float, together: int) -> float:
        """About how many ns it takes to divide by `together` blocks at a time; all bits tell `told` even ones."""
        blocks = self._distance + together
        each = _PASS + rows * _SORTING + pairs / 2 ** (told * together / blocks) * _COMPARING
        return comb(blocks, together) * each


def _taken(buckets: _Buckets, mask: NDArray[Any]) -> _Buckets:
    """Some of the buckets, and only their rows."""
    starts, size = buckets.starts[mask], (buckets.ends - buckets.starts)[mask]
    ends = np.cumsum(size)
    return _Buckets(buckets.rows[_ranges(starts, size)], ends - size, ends, buckets.lone[mask])


def _ranges(starts: Rows, lengths: Rows) -> Rows:
    """start, start + 1, … for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.asarray(np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0))


def _portions(pairs: Rows) -> list[tuple[int, int]]:
    """Ranges of members that make at most about `_AT_ONCE` pairs together."""
    if not len(pairs):
        return []
    total = np.cumsum(pairs)
    edges = np.searchsorted(total, np.arange(_AT_ONCE, total[-1], _AT_ONCE)) + 1
    edges = np.unique(np.concatenate([[0], edges, [len(pairs)]]))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
