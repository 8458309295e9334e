"""Pictures and labels by the batch, in an order that depends only on the seed and the epoch.

Worker processes read, decode and square pictures, which is the same every time; everything random happens later, on the
batch. So neither the number of workers nor a restart in the middle of an epoch changes what a step sees.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from efuda.artifacts import Posts
from efuda.errors import ImageError
from efuda.images import read_rgb
from efuda.preprocess import Preprocess

__all__ = ["Batch", "batches", "shuffled"]


@dataclass(frozen=True, slots=True)
class Batch:
    """`pictures` uint8 [n, side, side, 3] RGB; `rows`, `tags`: the labels that are on; `failed`: unreadable ones."""

    pictures: Tensor
    rows: Tensor
    tags: Tensor
    failed: int

    def labels(self, width: int, device: torch.device) -> Tensor:
        """Dense labels, float32 [n, width], made on the device."""
        dense = torch.zeros(len(self.pictures), width, device=device)
        dense[self.rows.to(device), self.tags.to(device)] = 1.0
        return dense


class _Pictures(Dataset[tuple[NDArray[np.uint8], NDArray[np.int64]] | None]):
    def __init__(self, posts: Posts, preprocess: Preprocess) -> None:
        self.posts, self.preprocess = posts, preprocess

    def __getitem__(self, post: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        try:
            picture = read_rgb(self.posts.read(post))
        except ImageError:
            return None
        return self.preprocess.square(picture), self.posts.tags(post).astype(np.int64)


def shuffled(posts: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch, int64 [posts]."""
    return np.random.default_rng([seed, epoch]).permutation(posts)


def batches(
    posts: Posts, order: NDArray[np.int64], preprocess: Preprocess, *, batch: int, workers: int, first: int = 0
) -> Iterator[Batch]:
    """Batches of `order`, beginning with batch `first`; the last one may be smaller."""
    rows = [order[start : start + batch].tolist() for start in range(first * batch, len(order), batch)]
    if not rows:
        return
    yield from DataLoader(
        _Pictures(posts, preprocess),
        batch_sampler=rows,
        num_workers=min(workers, len(rows)),
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process; the parent finishes its step with the workers' help."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _collate(items: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64]] | None]) -> Batch:
    good = [item for item in items if item is not None]
    rows = [np.full(len(tags), row, dtype=np.int64) for row, (_, tags) in enumerate(good)]
    pictures = np.stack([picture for picture, _ in good]) if good else np.empty((0, 1, 1, 3), dtype=np.uint8)
    none = np.empty(0, dtype=np.int64)
    return Batch(
        torch.from_numpy(pictures),
        torch.from_numpy(np.concatenate([none, *rows])),
        torch.from_numpy(np.concatenate([none, *(tags for _, tags in good)])),
        len(items) - len(good),
    )
