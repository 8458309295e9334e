"""What finding similar pictures and duplicates and making thumbnails costs, and what the graph misses of the nearest.

    python benchmarks/likeness.py [--pictures 100000] [--dimensions 256] [--queries 200]

Half of the vectors lie anywhere, the others in 1,000 clusters, as the works of one artist or one character do. They are
written to a collection of their own and looked for as `efuda collection similar` does. Hashes are even, every 40th with
a near copy (benchmarks/neighbours.py). Pictures for thumbnails are drawn: 1500×2000 as JPEG and PNG.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from neighbours import draw, plant
from numpy.typing import NDArray
from PIL import Image
from pyroaring import BitMap

from efuda.collection import Collection
from efuda.collection.hamming import near
from efuda.collection.likeness import Likeness
from efuda.collection.record import Record
from efuda.collection.vectors import put_vector
from efuda.images.previewing import look
from efuda.tagging.tagged import unit

COUNT = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.hashes:
        duplicates(options.hashes)
    thumbnails()
    with tempfile.TemporaryDirectory() as folder:
        similar(Path(folder), options.pictures, options.dimensions, options.queries)


def similar(folder: Path, pictures: int, dimensions: int, queries: int) -> None:
    vectors = drawn(pictures, dimensions)
    with Collection.open(folder / "art.efuda", create=True) as collection:
        began = time.perf_counter()
        fill(collection.record, vectors)
        print(f"{pictures:,} vectors of {dimensions} written in {time.perf_counter() - began:.1f} s")
        rng = np.random.default_rng(1)
        asked = (rng.choice(pictures, queries, replace=False) + 1).tolist()
        exact = Likeness(collection.record, exact=10**9)
        began = time.perf_counter()
        exact.nearest(1)
        print(f"read for comparing with all in {time.perf_counter() - began:.1f} s")
        true = timed("compared with all", asked, lambda one: exact.nearest(one, count=COUNT))
        graph = Likeness(collection.record, exact=1)
        began = time.perf_counter()
        graph.build()
        size = collection.path.with_name("art.efuda.vectors").stat().st_size
        print(f"graph built in {time.perf_counter() - began:.1f} s, {size / 1e6:,.0f} MB")
        graph = Likeness(collection.record, exact=1)
        began = time.perf_counter()
        graph.nearest(1)
        print(f"opened, checked and first asked in {time.perf_counter() - began:.2f} s")
        found = timed("through the graph", asked, lambda one: graph.nearest(one, count=COUNT))
        for name, rows in {
            "all": asked,
            "anywhere": [n for n in asked if n % 2],
            "clustered": [n for n in asked if not n % 2],
        }.items():
            print(f"recall of {COUNT}, {name}: {recall(true, found, rows):.4f}")
        for share in (0.3, 0.03, 0.003):
            within = BitMap((rng.choice(pictures, int(pictures * share), replace=False) + 1).tolist())
            true_in = {one: exact.nearest(one, count=COUNT, within=within) for one in asked}
            found_in = timed(
                f"within {share:.1%} of them",
                asked,
                lambda one, within=within: graph.nearest(one, count=COUNT, within=within),
            )
            print(f"recall of {COUNT} there: {recall(true_in, found_in, asked):.4f}")


def timed(
    name: str, asked: list[int], ask: Callable[[int], list[tuple[int, float]]]
) -> dict[int, list[tuple[int, float]]]:
    found, taken = {}, []
    for one in asked:
        began = time.perf_counter()
        found[one] = ask(one)
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    print(f"{name}: p50 {statistics.median(taken):.1f} ms, p99 {taken[int(len(taken) * 0.99)]:.1f} ms")
    return found


def recall(
    true: dict[int, list[tuple[int, float]]], found: dict[int, list[tuple[int, float]]], rows: list[int]
) -> float:
    hits = [len({n for n, _ in true[one]} & {n for n, _ in found[one]}) / max(1, len(true[one])) for one in rows]
    return statistics.fmean(hits)


def drawn(count: int, dimensions: int) -> NDArray[np.float32]:
    """Odd numbers anywhere, even ones in clusters."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dimensions)).astype(np.float32)
    centres = rng.normal(size=(1000, dimensions)).astype(np.float32)
    vectors[1::2] += centres[rng.integers(0, 1000, len(vectors[1::2]))]
    return vectors


def fill(record: Record, vectors: NDArray[np.float32]) -> None:
    with record.write(durable=False) as writing:
        source = writing.source("model", "drawn", "drawn")
        writing.db.executemany(
            "INSERT INTO pictures (id, sha256, bytes, filetype, width, height, added, date, revision) "
            "VALUES (?, randomblob(32), 1, 'png', 1, 1, '', '', 0)",
            ((number,) for number in range(1, len(vectors) + 1)),
        )
        writing.db.executemany(
            "INSERT INTO files (path, picture, mtime_ns) VALUES (?, ?, 0)",
            ((str(number), number) for number in range(1, len(vectors) + 1)),
        )
        for number, vector in enumerate(unit(vectors), start=1):
            put_vector(writing, number, source, vector)


def duplicates(count: int) -> None:
    for kind in ("random", "skewed"):
        hashes = draw(kind, count)
        copies = np.arange(0, count - 1, 40)
        plant(hashes, copies, 4)
        began = time.perf_counter()
        found = near(hashes)
        seconds = time.perf_counter() - began
        assert (found.groups[copies] == found.groups[copies + 1]).all(), "a planted copy was not found"
        print(f"{count:,} {kind} hashes within 4 bits: {seconds:.1f} s, peak {peak_mb():,.0f} MB")


def thumbnails() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (250, 188, 3), dtype=np.uint8)).resize(
        (1500, 2000), Image.Resampling.BICUBIC
    )
    for kind, how in {"JPEG": {"quality": 90}, "PNG": {"compress_level": 6}}.items():
        file = io.BytesIO()
        noise.save(file, kind, **how)
        data = file.getvalue()
        taken = []
        for _ in range(10):
            began = time.process_time()
            seen = look(data)
            taken.append(time.process_time() - began)
        print(
            f"{kind} of 1500×2000, {len(data) / 1e6:.1f} MB: thumbnail and hashes in "
            f"{1000 * statistics.median(taken):.0f} ms of a core, {len(seen.thumbnail) / 1000:.0f} kB"
        )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
