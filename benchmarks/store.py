"""The whole command over pictures whose scores are kept: what the second run of `efuda tag` costs, and on a cluster.

    python benchmarks/store.py --model MODEL [--pictures 50000] [--work DIR]
    python benchmarks/store.py --model MODEL --ray --folder PICTURES

The first fills a store with scores for files that hold nothing (100 kept a picture, 25 of them likely: what WD's
taggers give), then runs the command on them, to one file of each kind, and on one picture alone, which is the start.
The second tags the same pictures on a Ray cluster of one core and of two.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from efuda.tagging import Looking, ScoreStore, Tagged, Tagger
from efuda.tagging.scores import Looked, stamp_of

KEPT, LIKELY, ROUNDS = 100, 25, 5
KINDS = ("jsonl", "csv", "parquet", "kohya")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "efuda-bench-store")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--folder", type=Path, help="of pictures, for --ray")
    options = parser.parse_args()
    if options.ray:
        on_a_cluster(options.model, options.folder)
        return
    folder = options.work / "pictures"
    fill(options.model, folder, options.work / "scores", options.pictures)
    for kind in KINDS:
        start = least(options, next(folder.iterdir()), kind)
        took, used = least(options, folder, kind)
        count = options.pictures
        print(
            f"{kind}: {took:.2f} s, {used:.2f} s of a processor, start {start[0]:.2f} and {start[1]:.2f}: "
            f"{count / took:,.0f} pictures/s; without the start {count / (took - start[0]):,.0f}, "
            f"by processor time {count / (used - start[1]):,.0f}",
            flush=True,
        )


def fill(model: Path, folder: Path, scores: Path, count: int) -> None:
    """Files, and what is known of them; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    tagger = Tagger.open(model, threads=1)
    tags, rng = len(tagger.vocabulary), np.random.default_rng(0)
    kept, likely = min(KEPT, tags), min(LIKELY, tags)
    with ScoreStore.open(scores, f"{tagger.identity}\n{Looking(tagger.preprocess).key}") as store:
        if len(store) == count:
            return
        looked = []
        for number in range(count):
            path = folder / f"{number:06d}.png"
            path.write_bytes(b"x")
            dense = np.zeros(tags, np.float32)
            rows = rng.choice(tags, kept, replace=False)
            dense[rows] = np.where(np.arange(kept) < likely, rng.uniform(0.4, 1, kept), rng.uniform(0.02, 0.3, kept))
            name = number.to_bytes(16, "big")
            looked.append(Looked(stamp_of(path), name, name, Tagged.of(path, (1000, 1400), dense)))
        store.keep(looked)


def least(options: argparse.Namespace, pictures: Path, kind: str) -> tuple[float, float]:
    """Seconds of the command and of processors, each the least of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as out:
            rounds.append(timed(options.model, pictures, kind, out, "--scores", str(options.work / "scores")))
    took, used = (min(column) for column in zip(*rounds, strict=True))
    return took, used


def timed(model: Path, pictures: Path, kind: str, out: str, *more: str) -> tuple[float, float]:
    """From the start of the command to its end, and of processors."""
    command = [sys.executable, "-m", "efuda", "-q", "tag", str(pictures), "-m", str(model), "--to", kind, *more]
    began, used = time.perf_counter(), processor_seconds()
    subprocess.run([*command, "--out", f"{out}/tags.{kind}"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, processor_seconds() - used


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def on_a_cluster(model: Path, folder: Path) -> None:
    """One core, then two; what the command takes on one picture, the start, is taken off."""
    from ray.cluster_utils import Cluster

    one, count = next(folder.iterdir()), sum(1 for _ in folder.iterdir())
    for cores in (1, 2):
        os.sched_setaffinity(0, range(cores))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
        try:
            with tempfile.TemporaryDirectory() as out:
                timed(model, one, "jsonl", out, "--ray", cluster.address)  # workers come to life
                start, _ = timed(model, one, "jsonl", out, "--ray", cluster.address, "--replace")
                took, _ = timed(model, folder, "jsonl", out, "--ray", cluster.address, "--replace")
        finally:
            cluster.shutdown()
        print(f"{cores} cores: {count / (took - start):.1f} pictures/s ({took:.1f} s, start {start:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
