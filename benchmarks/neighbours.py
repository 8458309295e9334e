"""What finding near-duplicate hashes costs: n, distance, seconds, peak MB, one line a case; each in its own process.

    python benchmarks/neighbours.py [--hashes 4000000] [--distance 4] [--kind random|skewed|flat|all]

random: even bits, every 40th hash with a near copy. skewed: every bit set with a chance of its own between 2 and 50 %,
and the same copies. flat: half of the hashes lie within a few bits of one of 50 pictures (plain grounds, say).
The planted copies must all be found, or the run fails.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from efuda.datasets.neighbours import find_neighbours
from efuda.datasets.splitting import group_posts

KINDS = ("random", "skewed", "flat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, default=4_000_000)
    parser.add_argument("--distance", type=int, default=4)
    parser.add_argument("--kind", choices=(*KINDS, "all"), default="all")
    options = parser.parse_args()
    if options.kind == "all":
        for kind in KINDS:
            sizes = ["--hashes", str(options.hashes), "--distance", str(options.distance)]
            subprocess.run([sys.executable, __file__, *sizes, "--kind", kind], check=True)
        return
    hashes = draw(options.kind, options.hashes)
    copies = np.arange(0, len(hashes) - 1, 40)
    plant(hashes, copies, options.distance)
    before = peak_mb()
    began = time.perf_counter()
    pairs = find_neighbours(hashes, options.distance)
    seconds = time.perf_counter() - began
    after = peak_mb()
    groups = group_posts(np.arange(1, len(hashes) + 1), pairs + 1)
    assert (groups[copies] == groups[copies + 1]).all(), "a planted copy was not found"
    print(
        f"{options.kind:7} n {len(hashes):>9,}  distance {options.distance:2}  {seconds:6.1f} s  peak {after:5,.0f} MB "
        f"({before:,.0f} before)  {len(pairs):,} pairs, {len(np.unique(groups)):,} groups",
        flush=True,
    )


def draw(kind: str, count: int) -> NDArray[np.uint64]:
    """Hashes of one kind, always the same."""
    rng = np.random.default_rng(0)
    if kind == "random":
        return rng.integers(0, 2**64, count, dtype=np.uint64)
    if kind == "skewed":
        return bits(rng, count, np.linspace(0.02, 0.5, 64))
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    half = count // 2
    centres = rng.integers(0, 2**64, 50, dtype=np.uint64)
    hashes[:half] = centres[rng.integers(0, 50, half)] ^ bits(rng, half, np.full(64, 0.08))
    return rng.permutation(hashes)


def bits(rng: np.random.Generator, count: int, chances: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Hashes whose bits are set with these chances."""
    hashes = np.zeros(count, dtype=np.uint64)
    for bit, chance in enumerate(chances):
        hashes |= (rng.random(count, dtype=np.float32) < chance).astype(np.uint64) << np.uint64(bit)
    return hashes


def plant(hashes: NDArray[np.uint64], rows: NDArray[np.int64], distance: int) -> None:
    """Make the row after each of these a copy that differs in at most so many bits."""
    rng = np.random.default_rng(1)
    near = hashes[rows]
    for _ in range(distance):
        near ^= np.uint64(1) << rng.integers(0, 64, len(rows), dtype=np.uint64)
    hashes[rows + 1] = near


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
