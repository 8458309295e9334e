"""Score what is already at hand, such as the pictures of a dataset: threads decode ahead while the model works.

Pillow and onnxruntime both leave Python's lock, so one process keeps every core busy. For files of unknown origin see
`tag`, which decodes in processes of their own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efuda.errors import ImageError
from efuda.preprocess import Preprocess
from efuda.tagging.tagger import Tagger

__all__ = ["score"]

Item = TypeVar("Item")
_Read = tuple[Item, tuple[int, int], NDArray[np.float32]]
_Unread = tuple[Item, str]


def score(
    tagger: Tagger,
    items: Iterable[Item],
    read: Callable[[Item], Image.Image],
    *,
    batch: int = 16,
    workers: int | None = None,
) -> Iterator[tuple[Item, tuple[int, int] | str, NDArray[np.float32]]]:
    """Score anything that `read` turns into an RGB picture, in order.

    Yields:
        (item, (width, height), scores float32 [tags]), or (item, reason, empty) where `read` raised ImageError.
    """
    size = tagger.batch or batch
    todo = iter(items)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="efuda-decode") as pool:

        def submit() -> list[Future[_Read[Item] | _Unread[Item]]]:
            return [pool.submit(_decode, item, read, tagger.preprocess) for item in islice(todo, size)]

        waiting = deque([submit(), submit()])
        try:
            while futures := waiting.popleft():
                waiting.append(submit())
                yield from _infer(tagger, [future.result() for future in futures])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode(item: Item, read: Callable[[Item], Image.Image], preprocess: Preprocess) -> _Read[Item] | _Unread[Item]:
    try:
        picture = read(item)
    except ImageError as error:
        return item, error.reason
    return item, picture.size, preprocess.array(picture)


def _infer(
    tagger: Tagger, decoded: Sequence[_Read[Item] | _Unread[Item]]
) -> Iterator[tuple[Item, tuple[int, int] | str, NDArray[np.float32]]]:
    inputs = [one[2] for one in decoded if len(one) == 3]
    scores = iter(tagger.scores(np.stack(inputs)) if inputs else ())
    for one in decoded:
        yield (one[0], one[1], next(scores)) if len(one) == 3 else (one[0], one[1], np.empty(0, np.float32))
