"""Run a tagger over a dataset's posts, in this process or in several, with the same scores either way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.artifacts import Posts
from efuda.images import read_rgb
from efuda.progress import Progress
from efuda.tagging import Tagger, score
from efuda.workers import LocalWorkers

__all__ = ["Batch", "scored"]

Floats = NDArray[np.float32]
BATCH: Final = 16  # what the model sees at once: fixed, since a sum may depend on it in the last digits
POSTS_A_JOB: Final = 64


@dataclass(frozen=True)
class Batch:
    """Some posts that could be read: their rows in `Posts`, and scores float32 [n, tags] in the tagger's order."""

    rows: list[int]
    scores: Floats


def scored(tagger: Tagger, posts: Posts, step: str, progress: Progress, *, workers: int = 1) -> Iterator[Batch]:
    """Batches in the order of the posts, the same for any number of workers; unreadable pictures are left out.

    Args:
        step: what the progress calls it.
        workers: processes, each with the model and its share of the cores.
    """
    jobs = [range(start, min(start + POSTS_A_JOB, len(posts))) for start in range(0, len(posts), POSTS_A_JOB)]
    if workers == 1:
        found = _in_batches(tagger, posts, len(posts))
        yield from _told(found, jobs, step, progress, len(posts))
        return
    threads = max((os.cpu_count() or 1) // workers, 1)
    with LocalWorkers(workers) as hands:
        found = hands.map(_Job(_place(tagger), posts, threads), jobs)
        yield from _told(found, jobs, step, progress, len(posts))


@dataclass(frozen=True)
class _Job:
    """What a worker process does with some rows; it opens the model once."""

    root: Path
    posts: Posts
    threads: int

    def __call__(self, rows: Sequence[int]) -> Batch:
        return _score(_tagger(self.root, self.threads), self.posts, rows, self.threads)


def _place(tagger: Tagger) -> Path:
    """Where the same model is opened from again; a directory may hold several files of weights."""
    return tagger.weights if tagger.weights and tagger.weights.suffix == ".onnx" else tagger.root


@lru_cache(maxsize=1)
def _tagger(root: Path, threads: int) -> Tagger:
    return Tagger.open(root, threads=threads)


def _score(tagger: Tagger, posts: Posts, rows: Sequence[int], threads: int | None) -> Batch:
    read = [
        (row, scores)
        for row, size, scores in score(
            tagger, rows, lambda post: read_rgb(posts.read(post)), batch=BATCH, workers=threads
        )
        if not isinstance(size, str)
    ]
    return _batch(read, len(tagger.vocabulary))


def _in_batches(tagger: Tagger, posts: Posts, total: int) -> Iterator[Batch]:
    """Decoding goes on ahead across batches, which jobs of their own would not let it."""
    read: list[tuple[int, Floats]] = []
    stream = score(tagger, range(total), lambda post: read_rgb(posts.read(post)), batch=BATCH)
    for row, size, scores in stream:
        if not isinstance(size, str):
            read.append((row, scores))
        if (row + 1) % POSTS_A_JOB == 0 or row + 1 == total:
            yield _batch(read, len(tagger.vocabulary))
            read = []


def _batch(read: list[tuple[int, Floats]], tags: int) -> Batch:
    scores = np.stack([scores for _, scores in read]) if read else np.empty((0, tags), np.float32)
    return Batch([row for row, _ in read], scores)


def _told(
    batches: Iterator[Batch], jobs: Sequence[range], step: str, progress: Progress, total: int
) -> Iterator[Batch]:
    for job, batch in zip(jobs, batches, strict=True):
        progress(step, job.stop, total, unit="images")
        yield batch
