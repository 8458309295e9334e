"""Perceptual hashes that differ in few bits, found exactly and not by comparing all with all.

    found = near(hashes)            # uint64 [n]
    found.counts                    # int64 [n]: how many others are within 4 bits of each
    found.groups                    # int64 [n]: the same number for those that are connected, through others, too

Hashes that differ in at most d bits agree wholly in at least t of d + t blocks of bits (pigeonhole), so for each choice
of t blocks they are sorted by these, and only those with equal keys are compared: Greene, Parnas and Yao, "Multi-index
hashing for information retrieval" (FOCS 1994). Two blocks suffice where bits are even; skewed ones take more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISTANCE", "Near", "distances", "near"]

DISTANCE: Final = 4
_AT_ONCE: Final = 1 << 22  # pairs that are held at a time
_SAMPLE: Final = 100_000  # hashes looked at to say which bits tell most
_SORTING, _COMPARING = 150.0, 3.5  # ns a hash and a pair, measured; they only choose between ways that are all exact
Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Near:
    """What is near what: counts of others, and the numbers of groups, a number the lowest row of the group's hashes."""

    counts: NDArray[np.int64]
    groups: NDArray[np.int64]


def distances(hashes: Hashes, one: int) -> NDArray[np.uint8]:
    """In how many bits each differs from one hash."""
    return np.bitwise_count(hashes ^ np.uint64(one)) if hasattr(np, "bitwise_count") else _counted(hashes, one)


def near(hashes: Hashes, distance: int = DISTANCE) -> Near:
    """Compare all."""
    unique, inverse, copies = np.unique(hashes, return_inverse=True, return_counts=True)
    counts, label = copies - 1, np.arange(len(unique))
    for one, other in _pairs(unique, distance):
        counts += np.bincount(one, copies[other], len(unique)).astype(np.int64)
        counts += np.bincount(other, copies[one], len(unique)).astype(np.int64)
        label = _joined(label, one, other)
    return Near(counts[inverse], label[inverse])


def _pairs(hashes: Hashes, distance: int) -> Iterator[tuple[Rows, Rows]]:
    """Every pair of (different) hashes that are near, once."""
    masks, together = _blocks(hashes, distance)
    for chosen in combinations(range(len(masks)), together):
        keys = hashes & np.uint64(sum(int(masks[block]) for block in chosen))
        order = np.argsort(keys)
        # A pair that agrees in more blocks than these is found for the first of them alone.
        earlier = [masks[block] for block in range(chosen[-1]) if block not in chosen]
        for low, high in _together(keys[order]):
            one, other = order[low], order[high]
            differ = hashes[one] ^ hashes[other]
            close = distances(differ, 0) <= distance
            one, other, differ = one[close], other[close], differ[close]
            new = np.ones(len(one), dtype=np.bool_)
            for mask in earlier:
                new &= (differ & mask) != 0
            yield one[new], other[new]


def _blocks(hashes: Hashes, distance: int) -> tuple[list[np.uint64], int]:
    """Masks of the blocks, and how many of them at a time are about the cheapest.

    The bits that tell most are dealt out over the blocks, so that each tells about as much.
    """
    some = hashes[:: max(1, len(hashes) // _SAMPLE)]
    share = [float((some >> np.uint64(bit) & np.uint64(1)).mean()) if len(some) else 0.0 for bit in range(64)]
    bits = sorted(range(64), key=lambda bit: (abs(share[bit] - 0.5), bit))
    told = -sum(log2(part**2 + (1 - part) ** 2) for part in share)

    def cost(together: int) -> float:
        pairs = len(hashes) ** 2 / 2 / 2 ** (told * together / (distance + together))
        return comb(distance + together, together) * (len(hashes) * _SORTING + pairs * _COMPARING)

    together = min((2, 3, 4, 5), key=cost)
    blocks = distance + together
    return [np.uint64(sum(1 << bit for bit in bits[block::blocks])) for block in range(blocks)], together


def _together(keys: Hashes) -> Iterator[tuple[Rows, Rows]]:
    """Places, in sorted keys, of two that are equal: those next to each other, then next but one, and so on."""
    here, lag = np.arange(len(keys)), 0
    held: list[tuple[Rows, Rows]] = []
    size = 0
    while len(here):
        lag += 1
        here = here[here < len(keys) - lag]
        here = here[keys[here + lag] == keys[here]]
        held.append((here, here + lag))
        size += len(here)
        if size >= _AT_ONCE or not len(here):
            yield np.concatenate([low for low, _ in held]), np.concatenate([high for _, high in held])
            held, size = [], 0


def _joined(label: Rows, one: Rows, other: Rows) -> Rows:
    """The labels once each pair has the same; a label is the lowest row of all that have it."""
    while True:
        low, high = np.sort([label[one], label[other]], axis=0)
        differ = low != high
        if not differ.any():
            return label
        one, other = one[differ], other[differ]
        np.minimum.at(label, high[differ], low[differ])
        while (shorter := label[label]).tobytes() != label.tobytes():
            label = shorter


def _counted(hashes: Hashes, one: int) -> NDArray[np.uint8]:
    """For numpy before 2: the bits of each byte, looked up."""
    bits = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
    found: NDArray[np.uint8] = bits[(hashes ^ np.uint64(one)).view(np.uint8).reshape(-1, 8)].sum(axis=1, dtype=np.uint8)
    return found
