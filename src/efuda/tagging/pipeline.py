"""Decode and infer at the same time: threads decode pictures ahead while the model works on the batch before.

Pillow and onnxruntime both leave Python's lock, so one process keeps every core busy. Results come in the order of the
pictures; a picture that cannot be read becomes a `Failed` with its reason and never stops the rest.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efuda.errors import ImageError
from efuda.images import read_rgb
from efuda.preprocess import Preprocess
from efuda.tagging.tagger import Tagger
from efuda.vocabulary import Category

__all__ = ["Failed", "Tagged", "tag"]


@dataclass(frozen=True, slots=True)
class Tagged:
    """One picture's scores: `size` is (width, height) in pixels, `scores` float32 [tags]."""

    path: Path
    size: tuple[int, int]
    scores: NDArray[np.float32]

    def present(self, tagger: Tagger) -> list[tuple[str, float]]:
        """(tag, score) at or above its threshold, best first; ratings are not tags and are left out."""
        rows = np.flatnonzero(self.scores >= tagger.thresholds)
        best = rows[np.argsort(-self.scores[rows], kind="stable")]
        tags = tagger.vocabulary
        return [(tags[row].name, float(self.scores[row])) for row in best if tags[row].category is not Category.RATING]

    def ratings(self, tagger: Tagger) -> dict[str, float]:
        """Rating → score, empty for a model that does not rate."""
        rows = tagger.vocabulary.rows(Category.RATING)
        return {tagger.vocabulary[row].name: float(self.scores[row]) for row in rows}


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture that could not be read, and why."""

    path: Path
    reason: str


_Decoded = tuple[Path, tuple[int, int], NDArray[np.float32]]


def tag(
    tagger: Tagger, pictures: Iterable[Path], *, batch: int = 16, workers: int | None = None
) -> Iterator[Tagged | Failed]:
    """Tag pictures, in order.

    Args:
        tagger: the model.
        pictures: files; at most a few batches are in memory at a time.
        batch: pictures the model sees at once.
        workers: decoding threads, one a core by default.
    """
    size = tagger.batch or batch
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="efuda-decode") as pool:
        todo = iter(pictures)

        def submit(count: int) -> list[Future[_Decoded | Failed]]:
            return [pool.submit(_decode, path, tagger.preprocess) for path in islice(todo, count)]

        waiting = deque([submit(size), submit(size)])
        try:
            while futures := waiting.popleft():
                waiting.append(submit(size))
                yield from _infer(tagger, [future.result() for future in futures])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode(path: Path, preprocess: Preprocess) -> _Decoded | Failed:
    try:
        picture = read_rgb(path)
    except ImageError as error:
        return Failed(path, error.reason)
    return path, picture.size, preprocess.array(picture)


def _infer(tagger: Tagger, decoded: list[_Decoded | Failed]) -> Iterator[Tagged | Failed]:
    inputs = [one[2] for one in decoded if not isinstance(one, Failed)]
    scores = iter(tagger.scores(np.stack(inputs))) if inputs else iter(())
    for one in decoded:
        yield one if isinstance(one, Failed) else Tagged(one[0], one[1], next(scores))
