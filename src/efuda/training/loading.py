"""Pictures and labels by the batch, in an order that depends only on the seed and the epoch.

Worker processes read, decode and square pictures, which is the same every time; everything random happens later, on the
batch, but for the filter that resizes, which follows from seed, epoch and place. So neither the number of workers nor a
restart in the middle of an epoch changes what a step sees.
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

__all__ = ["Batch", "batches", "filters_of", "shuffled"]

Item = tuple[NDArray[np.uint8], NDArray[np.int64]] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pictures and the labels that are on.

    Attributes:
        pictures: uint8 [n, side, side, 3] RGB.
        rows, tags: a pair a label.
        places: int64 [n], which of the pictures that were asked for these are; unreadable ones are left out.
        failed: how many those are.
    """

    pictures: Tensor
    rows: Tensor
    tags: Tensor
    places: Tensor
    failed: int

    def labels(self, width: int, device: torch.device) -> Tensor:
        """Dense labels, float32 [n, width], made on the device."""
        dense = torch.zeros(len(self.pictures), width, device=device)
        dense[self.rows.to(device), self.tags.to(device)] = 1.0
        return dense


class _Pictures(Dataset[Item]):
    def __init__(self, posts: Posts, preprocess: Preprocess, filters: Sequence[str], *, reduced: bool) -> None:
        self.posts, self.reduced = posts, reduced
        self.by_filter = [preprocess.model_copy(update={"interpolation": name}) for name in filters] or [preprocess]

    def __getitem__(self, asked: tuple[int, int]) -> Item:
        post, chosen = asked
        preprocess = self.by_filter[chosen]
        try:
            picture = read_rgb(self.posts.read(post), reduce_to=2 * preprocess.size if self.reduced else None)
        except ImageError:
            return None
        return preprocess.square(picture), self.posts.tags(post).astype(np.int64)


def shuffled(posts: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch, int64 [posts]."""
    return np.random.default_rng([seed, epoch]).permutation(posts)


def filters_of(posts: int, filters: Sequence[str], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which of the filters resizes each picture of an epoch, by place, int64 [posts]."""
    return np.random.default_rng([seed, epoch, 1]).integers(0, max(len(filters), 1), posts)


def batches(
    posts: Posts,
    order: NDArray[np.int64],
    preprocess: Preprocess,
    *,
    batch: int,
    workers: int,
    first: int = 0,
    part: tuple[int, int] | None = None,
    filters: Sequence[str] = (),
    chosen: NDArray[np.int64] | None = None,
    reduced: bool = False,
) -> Iterator[Batch]:
    """Batches of `order`, beginning with batch `first`; the last one may be smaller.

    Args:
        part: of each batch, from one place to another: what one of several devices has; a part may be empty.
        filters, chosen: names of filters, and which of them each place of `order` is resized with.
        reduced: decode large JPEGs at the smallest size that is at least twice what is needed.
    """
    picks = np.zeros(len(order), np.int64) if chosen is None else chosen
    pairs = list(zip(order.tolist(), picks.tolist(), strict=True))
    start, stop = part or (0, batch)
    rows = [pairs[at : at + batch][start:stop] for at in range(first * batch, len(order), batch)]
    if not rows:
        return
    loader = DataLoader(
        _Pictures(posts, preprocess, filters, reduced=reduced),
        batch_sampler=[row for row in rows if row],
        num_workers=min(workers, len(rows)),
        collate_fn=_collate,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
    )
    loaded = iter(loader)
    for row in rows:
        yield next(loaded) if row else _collate([])


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process; the parent finishes its step with the workers' help."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _collate(items: Sequence[Item]) -> Batch:
    good = [(place, *item) for place, item in enumerate(items) if item is not None]
    rows = [np.full(len(tags), row, dtype=np.int64) for row, (_, _, tags) in enumerate(good)]
    pictures = np.stack([picture for _, picture, _ in good]) if good else np.empty((0, 1, 1, 3), dtype=np.uint8)
    none = np.empty(0, dtype=np.int64)
    return Batch(
        torch.from_numpy(pictures),
        torch.from_numpy(np.concatenate([none, *rows])),
        torch.from_numpy(np.concatenate([none, *(tags for _, _, tags in good)])),
        torch.tensor([place for place, _, _ in good], dtype=torch.long),
        len(items) - len(good),
    )
